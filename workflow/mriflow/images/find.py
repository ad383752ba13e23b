"""Find the images of a dataset in folders and archives, and read subject, session and site from their names."""

import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from mriflow.base.cli import progress
from mriflow.base.errors import UserError
from mriflow.base.files import dead_link, files_below, head_of, pointer
from mriflow.images.archives import BrokenImage, ignored, to_nifti, unpack, voxels_of_pair
from mriflow.images.headers import fault_of_sizes
from mriflow.images.kinds import ANALYZE, NIFTI, OTHERS, REWRITTEN, is_image, is_nifti, small_suffix, suffix_of, without_suffix
from mriflow.images.ukb_zip import split_path

log = logging.getLogger(__name__)

# Folders of BIDS beside the subjects', with images of the same names.
NOT_RAW = {"derivatives", "sourcedata"}


def find_images(
    sources: Sequence[Path],
    pattern: str,
    unpacked: Path,
    *,
    ignore: str | None = None,
    affine: Sequence[Sequence[float]] | None = None,
) -> pd.DataFrame:
    """Return one row per image of folders and archives: `id`, `path`, and the groups of `pattern`.

    Parameters
    ----------
    pattern
        Regular expression of an image's file name; with slashes in it, of the last folders and the name. An image that does not
        fit it has no subject.
    unpacked
        Where archives are unpacked, and Analyze images rewritten as NIfTI.
    ignore
        Regular expression of the file names of images that are not meant, such as masks; they are counted, not listed.
    affine
        Voxel to world (RAS+, mm), 4 x 4, of Analyze images, whose headers do not have it.

    Raises
    ------
    UserError
        For a source that is missing, broken or unsafe, for two archives with images of one name, and if no name fits.
    """
    images: list[Path] = []
    taken: dict[str, Path] = {}  # the names of unpacked files, with their archives
    for source in sources:
        if source.is_dir():
            images += images_below(source)
        elif source.is_file():
            images += unpack(source, unpacked, ignore, affine, taken, lambda path: read_name(path, pattern) is not None)
        else:
            raise UserError(f"{source}: no such archive or folder of images. Check the `images` (or `bids`) of the dataset.")
    meant = [path for path in images if not ignored(path.name, ignore)]
    if len(meant) < len(images):
        log.info(
            "%d images are not meant (`ignore`), such as %s", len(images) - len(meant), (set(images) - set(meant)).pop().name
        )

    named = once_each([(path, read_name(path, pattern)) for path in meant])
    meant = [path for path, _ in named]
    rows = []
    for path, groups in progress(named, desc="images", unit="image"):
        image = as_nifti(path, unpacked, affine) if groups else path
        name = scan_id(path) if image == path else without_suffix(path)
        rows.append({"id": name, "path": str(image), "subject": None, **(groups or {})})
    scans = pd.DataFrame(rows, columns=None if rows else ["id", "path", "subject"])
    # Of T1.nii beside T1.nii.gz the compressed one has the id T1, as every other file of such a folder.
    places = [str(path.parent / name) for path, name in zip(meant, scans["id"], strict=True)]
    beside = scans["id"].groupby(places).transform("size") > 1
    scans["id"] = [
        path.name if twin and suffix_of(path) != NIFTI[1] else name
        for path, twin, name in zip(meant, beside, scans["id"], strict=True)
    ]
    # The ids of files with the same name get their folders in front.
    twins = scans["id"].duplicated(keep=False)
    if twins.any():
        folders = [source if source.is_dir() else unpacked for source in sources]
        common = os.path.commonpath([os.path.normpath(folder.absolute()) for folder in folders])
        below = [Path(os.path.relpath(path, common)).parent.parts for path in meant]
        scans["id"] = ["_".join((*below[row], name)) if twins[row] else name for row, name in scans["id"].items()]
    where = ", ".join(map(str, sources))
    if not images:
        kinds = ", ".join((*NIFTI, *REWRITTEN))
        raise UserError(f"{where}: no images in it ({kinds}). Check the `images` of the dataset.{hint(sources)}")
    if not meant:
        raise UserError(
            f"{where}: none of its {len(images)} images, such as {images[0].name!r}, is meant. Correct the `ignore` of the "
            f"dataset, {ignore!r}."
        )
    if not scans["subject"].notna().any():
        raise UserError(
            f"{where}: none of its {len(meant)} images has a name that fits the `pattern` {pattern!r} of the dataset; the "
            f"first is {meant[0].name!r}. Correct the `pattern`." + hint(sources)
        )
    return scans


def images_below(folder: Path) -> list[Path]:
    """Return the images in a folder, also through links to folders, and log what in it is passed over."""
    hidden: list[Path] = []
    try:
        files = [path for path in files_below(folder, hidden=hidden) if not NOT_RAW & set(path.relative_to(folder).parts)]
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be looked into ({error.strerror}). Check its permissions.") from error
    if hidden:
        log.info("%s: passed over %d hidden file(s) and folder(s), such as %s", folder, len(hidden), hidden[0].name)
    others: dict[str, list[Path]] = {}
    nameless: dict[Path, list[Path]] = {}  # by folder; the names of DICOM files are numbers, or begin with IM
    for path in files:
        if not is_image(path) and suffix_of(path) in OTHERS and not has_header(path):
            others.setdefault(suffix_of(path), []).append(path)
        elif suffix_of(path).strip(".0123456789") == "":
            nameless.setdefault(path.parent, []).append(path)
    if dead := [(path, why) for paths in nameless.values() for path in paths if (why := dead_link(path))]:
        log.warning("%s: passed over %d link(s), such as %s: %s", folder, len(dead), *dead[0])
    for paths in nameless.values():
        if is_dicom(paths[0]):
            others.setdefault(".dcm", []).extend(paths)
    for kind, paths in others.items():
        log.warning("%s: passed over %d %s file(s), such as %s: %s", folder, len(paths), kind, paths[0].name, OTHERS[kind])
    return [path for path in files if is_image(path)]


def has_header(path: Path) -> bool:
    """Return whether a file is the .img of a header."""
    return suffix_of(path) == ".img" and any(path.with_suffix(kind).exists() for kind in (".hdr", ".HDR"))


def once_each(named: Sequence[tuple[Path, dict[str, str] | None]]) -> list[tuple[Path, dict[str, str] | None]]:
    """Return the images, with what is read from their names, without those that links to folders show a second time.

    Of two that are one file the one stays whose name fits, or the one that is found without a link. If both names fit, and
    tell something else, both stay: one of them is wrong, and organizing says so.
    """
    own_folder = {folder: folder.resolve() for folder in {path.parent for path, _ in named}}
    there: dict[Path, list[int]] = {}
    for place, (path, _) in enumerate(named):
        there.setdefault(own_folder[path.parent] / path.name, []).append(place)
    kept = set()
    for place_of in there.values():
        fitting = [place for place in place_of if named[place][1]] or place_of
        # Stable: the shortest path is the one that goes through no link, or the fewest.
        fitting.sort(key=lambda place: own_folder[named[place][0].parent] != named[place][0].parent.absolute())
        distinct = {str(named[place][1]): place for place in reversed(fitting)}
        kept |= set(distinct.values())
    if len(kept) < len(named):
        log.info("%d images are found a second time through links to folders", len(named) - len(kept))
    return [one for place, one in enumerate(named) if place in kept]


def as_nifti(path: Path, unpacked: Path, affine: Sequence[Sequence[float]] | None = None) -> Path:
    """Return the NIfTI file that an image of another kind is rewritten as; the image itself if it is one, or cannot be read."""
    if suffix_of(path) not in REWRITTEN:
        return path
    try:
        return to_nifti(path, unpacked, affine)
    except BrokenImage as error:  # its row will say so (`mriflow.organize`)
        log.warning("%s: cannot be read (%s)", path, error)
        return path


def file_problem(path: Path, zipped: bool, affine: Sequence[Sequence[float]] | None = None) -> str:
    """Return what is wrong with the file of a scan at first sight, '' if nothing is; `zipped` if it may lie in a zip.

    `affine` is that of the dataset's Analyze images.
    """
    try:
        if zipped and split_path(path):
            return ""
        size = path.stat().st_size
    except (OSError, ValueError):  # not there, or what cannot be the name of a file
        link = dead_link(path)
        return f"scan: no file ({path}, {link})" if link else f"scan: no file ({path})"
    if cure := pointer(head_of(path)):
        return f"scan: file is no image ({path.name}, {cure})"
    if path.is_dir():
        return f"scan: a folder, expected a NIfTI file ({path}, dcm2niix makes one of DICOM files)"
    if suffix_of(path) == ANALYZE:
        if (fault := fault_of_sizes(path, affine)) and voxels_of_pair(path).is_file():
            return f"scan: {fault}"
        why = "it is damaged" if voxels_of_pair(path).is_file() else "no .img beside it"
        return f"scan: Analyze image cannot be read ({path.name}, {why})"
    if not is_nifti(path):
        if suffix_of(path) in REWRITTEN:
            return f"scan: file cannot be read ({path.name}, it is damaged)"
        cure = OTHERS.get(suffix_of(path), "expected .nii or .nii.gz")
        return f"scan: not a NIfTI file ({path.name}, {cure})"
    return "" if size else f"scan: file is empty ({path.name})"


def read_name(path: Path, pattern: str) -> dict[str, str] | None:
    r"""Return the groups of `pattern` in an image's name, None if the name does not fit.

    >>> read_name(Path("t1/IXI012-HH-1211-T1.nii.gz"), r"IXI(?P<subject>\d+)-(?P<site>\w+)-.*")
    {'subject': '012', 'site': 'HH'}
    >>> read_name(Path("sub-01/anat/T1.nii.gz"), r"sub-(?P<subject>\d+)/anat/T1\.nii\.gz")
    {'subject': '01'}
    """
    name = path.with_name(small_suffix(path))
    match = re.fullmatch(pattern, "/".join(name.parts[-pattern.count("/") - 1 :]))
    return match.groupdict() if match else None


def hint(sources: Sequence[Path]) -> str:
    """Return what to do where the images are of a kind that has to be converted first."""
    for source in sources:
        if source.is_dir():
            for path in files_below(source):
                if path.suffix.lower() in (".dcm", ".ima") or is_dicom(path):
                    return (
                        f" {path} is DICOM: make NIfTI files of it first, with dcm2niix "
                        "(https://github.com/rordenlab/dcm2niix): dcm2niix -z y -o nifti FOLDER."
                    )
                if suffix_of(path) in OTHERS:
                    return f" {path} is not read: {OTHERS[suffix_of(path)]}."
    return ""


def is_dicom(path: Path) -> bool:
    """Return whether a file begins as DICOM files do (PS3.10, 7.1)."""
    return head_of(path)[128:132] == b"DICM"


def scan_id(path: Path) -> str:
    """Return the id of a scan, its file's name without the suffix.

    >>> scan_id(Path("t1/sub-01_T1w.nii.gz"))
    'sub-01_T1w'
    """
    return without_suffix(path) if is_nifti(path) else path.name
