"""Unpack archives of images, and rewrite as NIfTI those of other kinds (`mriflow.images.kinds.REWRITTEN`)."""

import gzip
import json
import os
import re
import shutil
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import nibabel as nib
import numpy as np

from mriflow.base.cli import progress
from mriflow.base.errors import UserError
from mriflow.base.files import is_web_page, pointer, whole_file
from mriflow.images.headers import fault_of_sizes
from mriflow.images.kinds import ANALYZE, is_image, is_nifti, small_suffix, suffix_of

# How archives begin that Python, or we, do not unpack.
OTHER_ARCHIVES = {b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"7z\xbc\xaf": "7z", b"Rar!": "rar"}
RECORD = ".archives.json"  # beside unpacked files: of which archive each is


class BrokenImage(Exception):
    """An image that cannot be read; the others are used all the same."""


def ignored(name: str, ignore: str | None) -> bool:
    """Return whether a file name fits `ignore`, the names of images that are not to be used."""
    return bool(ignore and re.fullmatch(ignore, small_suffix(name)))


def rewritten(image: Path) -> Path:
    """Return the name under which an image of another kind is rewritten as NIfTI."""
    if suffix_of(image) in (ANALYZE, ".img"):
        return image.with_suffix(".nii")
    return image.with_name(f"{image.name}.nii")


def voxels_of_pair(header: Path) -> Path:
    """Return the file with the voxels of an image: the .img beside its .hdr, in capitals if that is; else the file itself."""
    if suffix_of(header) != ANALYZE:
        return header
    return header.with_suffix(".IMG" if header.suffix.isupper() else ".img")


def to_nifti(header: Path, folder: Path, affine: Sequence[Sequence[float]] | None) -> Path:
    """Rewrite an image of another kind (.hdr and .img, .mgz) as NIfTI in `folder`, voxel for voxel, and return its path.

    `affine` is that of Analyze images, whose headers do not have it.

    Raises
    ------
    BrokenImage
        If it cannot be read, or its header tells another voxel size than `affine`.
    UserError
        If neither its header nor `affine` says how it is oriented.
    """
    # Below its folder's whole path: sub-01/T1.hdr must not be mistaken for sub-02/T1.hdr, whatever the sources are.
    unpacked = header.parent == folder
    path = rewritten(header if unpacked else folder / os.path.normpath(header.absolute()).lstrip("/"))
    if unpacked and not header.exists():  # rewritten before (`unpack`)
        return path
    voxels = voxels_of_pair(header)
    try:
        image: Any = nib.load(header)
        oriented = image.affine if isinstance(image, nib.Nifti1Pair | nib.MGHImage) else affine
        fault = fault_of_sizes(header, affine)
        if not fault and is_newer(path, header) and is_newer(path, voxels) and has_affine(path, oriented):
            return path
        data = np.asanyarray(image.dataobj)
    except Exception as error:  # nibabel raises a dozen kinds of errors for a broken file
        raise BrokenImage(f"{type(error).__name__}: {error}") from error
    if fault:
        raise BrokenImage(fault)
    if oriented is None:
        raise UserError(
            f"{header}: the header of an Analyze image does not say how it is oriented. Give the dataset's `affine` (4 x 4, "
            "voxel to RAS+ mm)."
        )
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    made = nib.Nifti1Image(data, np.array(oriented, float))
    if isinstance(image, nib.Nifti1Pair):
        made.header["xyzt_units"] = image.header["xyzt_units"]
    with whole_file(path) as temporary:
        nib.save(made, temporary)
    if unpacked:  # from an archive, and no longer needed. The header first: one without voxels would be a broken image
        header.unlink()
        voxels.unlink(missing_ok=True)
    return path


def has_affine(image: Path, affine: Any) -> bool:
    """Return whether a NIfTI file that `to_nifti` wrote has this affine."""
    return np.array_equal(nib.load(image).affine, np.array(affine, np.float32))  # type: ignore[attr-defined]


def unpack(
    archive: Path,
    folder: Path,
    ignore: str | None,
    affine: Sequence[Sequence[float]] | None = None,
    taken: dict[str, Path] | None = None,
    wanted: Callable[[Path], bool] = lambda path: True,
) -> list[Path]:
    """Unpack the images of a tar archive flat into `folder`; those that were unpacked from it before are kept.

    So are the NIfTI files that `to_nifti` made of them, unless they should have another `affine`. The names that other archives
    of the dataset have taken in `folder` stand in `taken`, with the archive; those of this one are added. An archive is known
    again by its size and the time of its last change, kept in `folder`: a corrected one may be older than what was unpacked.
    Of images that are not `wanted`, by their names, it does not matter which of two is kept.

    Raises
    ------
    UserError
        If the archive is broken or cut short, or holds a link, a device, a name that leaves the folder, or one that is taken.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    record = folder / RECORD
    known: dict[str, list[int]] = json.loads(record.read_text()) if record.is_file() else {}
    this = [archive.stat().st_size, archive.stat().st_mtime_ns]
    refuse_other_kinds(archive)
    try:
        check_whole(archive)
        with tarfile.open(archive) as tar:
            members = [member for member in tar.getmembers() if not is_hidden(member.name)]
            for member in members:
                refuse_unsafe(member, archive, folder)
                if is_part(member.name) and not member.isfile():
                    raise UserError(f"{archive}: {member.name} is a link, not an image. Get the archive from its publisher.")
            parts = [member for member in members if is_meant(PurePosixPath(member.name).name, ignore)]
            # Before any is unpacked: a later run would take one for that of the other archive.
            names = [PurePosixPath(member.name).name for member in parts]
            names = [name for name in names if wanted(folder / re.sub(r"(?i)\.img$", ANALYZE, name))]
            refuse_twins(archive, names, {} if taken is None else taken)
            for member in progress(parts, desc=f"unpack {archive.name}", unit="file"):
                path = folder / PurePosixPath(member.name).name
                paths.append(path)
                # Versions before kept no record, and rewrote an Analyze image whatever size of voxels its header told.
                same = known.get(path.name, None if suffix_of(path) in (ANALYZE, ".img") else this) == this
                if same and is_newer(path, archive) and path.stat().st_size == member.size:
                    continue
                made = rewritten(path)
                has_its_own = affine is None or suffix_of(path) not in (ANALYZE, ".img")
                if same and not is_nifti(path) and is_newer(made, archive) and (has_its_own or has_affine(made, affine)):
                    continue
                source = tar.extractfile(member)
                with whole_file(path) as temporary, open(temporary, "wb") as target:
                    shutil.copyfileobj(source, target)  # type: ignore[arg-type]
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{archive}: broken or no tar archive ({error}). Delete it and download it again.") from error
    with whole_file(record) as temporary:
        temporary.write_text(json.dumps(known | {path.name: this for path in paths}))
    return sorted(path for path in paths if suffix_of(path) != ".img")


def refuse_twins(archive: Path, names: Sequence[str], taken: dict[str, Path]) -> None:
    """Raise a UserError if an image would be unpacked over another one, of its archive or of one before it (`taken`).

    An image that is rewritten as NIfTI takes the name of that file, too.
    """
    images = [Path(name) for name in names]
    files = [
        file.name for one in images for file in {one, one if is_nifti(one) or suffix_of(one) == ".img" else rewritten(one)}
    ]
    twice = sorted(name for name, count in Counter(files).items() if count > 1)
    if twice:
        raise UserError(
            f"{archive}: holds two images that would have the name {twice[0]!r}. Unpack it by hand and give the folder, or "
            "name what is not meant in `ignore`."
        )
    here = archive.resolve()  # the same archive may be given twice
    if both := sorted(name for name in files if taken.get(name, archive).resolve() != here):
        raise UserError(
            f"{archive} and {taken[both[0]]}: both hold an image of the name {both[0]!r}, and one would take the other's "
            "place. Unpack each by hand into a folder of its own, and give the folders instead of the archives; "
            "or name what is not meant in `ignore`."
        )
    taken.update(dict.fromkeys(files, archive))


def is_hidden(name: str) -> bool:
    """Return whether an entry of an archive is hidden, or in a folder that is, as what a Mac writes beside each file."""
    return any(part.startswith(".") and part not in (".", "..") for part in PurePosixPath(name).parts)


def is_meant(name: str, ignore: str | None) -> bool:
    """Return whether a file of an archive is an image that is meant, or the voxels of one, by its name."""
    return is_part(name) and not ignored(re.sub(r"(?i)\.img$", ANALYZE, name), ignore)


def is_part(name: str) -> bool:
    """Return whether a file is an image, or the voxels of one, by its name."""
    return is_image(name) or suffix_of(name) == ".img"


def refuse_other_kinds(archive: Path) -> None:
    """Raise a UserError for a file that is something else than an archive that can be unpacked, and say what."""
    with open(archive, "rb") as stream:
        head = stream.read(512)
    if not head:
        raise UserError(f"{archive}: the file is empty. Delete it and download it again.")
    if cure := pointer(head):
        raise UserError(f"{archive}: is {cure}.")
    if is_web_page(head):
        raise UserError(f"{archive}: is a web page, not an archive. Log in at the site, delete it and download it again.")
    if is_image(archive):
        raise UserError(f"{archive}: is an image, not an archive. Give the folder that it is in as `images`.")
    for begin, kind in OTHER_ARCHIVES.items():
        if head.startswith(begin):
            raise UserError(f"{archive}: is {kind}, expected .tar or .tar.gz. Unpack it and give the folder.")


def is_newer(file: Path, than: Path) -> bool:
    """Return whether a file is there and not older than another."""
    return file.is_file() and file.stat().st_mtime >= than.stat().st_mtime


def refuse_unsafe(member: tarfile.TarInfo, archive: Path, folder: Path) -> None:
    """Raise a UserError for an entry that the data filter refuses.

    Python before 3.11.4 (Debian 12's) has no such filter: there, only files, folders and links below `folder` pass.
    Either way an image is only ever written under its own name.
    """
    if hasattr(tarfile, "data_filter"):
        try:
            tarfile.data_filter(member, str(folder))
            return
        except tarfile.FilterError:
            pass
    else:
        outside = ".." in (*Path(member.name).parts, *Path(member.linkname).parts) or member.linkname.startswith("/")
        if not outside and (member.isfile() or member.isdir() or member.issym() or member.islnk()):
            return
    kind = "link" if member.issym() or member.islnk() else "name" if member.isfile() or member.isdir() else "special file"
    why = kind if kind == "special file" else f"{kind} that leads outside"
    raise UserError(f"{archive}: refused, for its entry {member.name!r} is unsafe ({why}). Get it from its publisher.")


def check_whole(archive: Path) -> None:
    """Raise an error if an archive is cut short or damaged: tarfile mistakes a missing header for the end, in silence."""
    with open(archive, "rb") as stream:
        if stream.read(2) == b"\x1f\x8b":
            with gzip.open(archive) as unzipped:  # its checksum stands at the very end
                end = b""
                while block := unzipped.read(2**22):
                    end = (end + block)[-1024:]
        else:
            stream.seek(max(archive.stat().st_size - 1024, 0))
            end = stream.read()
    if len(end) < 1024 or end.strip(b"\0"):
        raise tarfile.ReadError("it ends too early")
