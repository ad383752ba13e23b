"""Which kinds of files are images, and what to do with those that are not read."""

from pathlib import Path, PurePath
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.fileholders import FileHolder

NIFTI = (".nii", ".nii.gz")
ANALYZE = ".hdr"  # with an .img beside it; so are NIfTI pairs
REWRITTEN = (ANALYZE, ".mgz", ".mgh")  # as NIfTI by `organize`: what follows reads nothing else
UNITS_MM = {"meter": 1000.0, "micron": 0.001}  # of a header, beside mm
FIELD_MM = (100, 500)  # of view along each axis: a brain cut out closely, and more than any scanner's bore shows
CONVERT = "convert it to .nii.gz, as docs/your-data.md shows"
# Kinds that are not read, and the cure.
OTHERS = {
    **dict.fromkeys((".nrrd", ".nhdr", ".mha", ".mhd", ".mnc", ".mnc.gz"), CONVERT),
    **dict.fromkeys((".dcm", ".ima", ".par", ".rec"), "dcm2niix makes NIfTI of it"),
    **dict.fromkeys((".head", ".brik", ".brik.gz"), "3dAFNItoNIFTI makes NIfTI of it"),
    **dict.fromkeys((".nii.bz2", ".nii.xz", ".nii.zst", ".nii.zip", ".nii.z", ".hdr.gz", ".img.gz"), "unpack it"),
    **dict.fromkeys(
        (".zip", ".7z", ".rar", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz"), "unpack it, if images are in it"
    ),
    ".img": "give the .hdr beside it",
}
COMPOUND = sorted((kind for kind in (*NIFTI, *REWRITTEN, *OTHERS) if kind.count(".") > 1), key=len, reverse=True)


def suffix_of(path: str | PurePath) -> str:
    """Return the suffix of a file in small letters, .nii.gz as one.

    >>> suffix_of("sub-01_T1w.NII.GZ"), suffix_of("T1.v2.mgz"), suffix_of("README")
    ('.nii.gz', '.mgz', '')
    """
    name = PurePath(path).name.lower()
    return next((kind for kind in COMPOUND if name.endswith(kind)), PurePath(name).suffix)


def without_suffix(path: str | PurePath) -> str:
    """Return the name of a file without its suffix.

    >>> without_suffix("t1/sub-01_T1w.NII.GZ")
    'sub-01_T1w'
    """
    name = PurePath(path).name
    return name[: len(name) - len(suffix_of(name))]


def small_suffix(path: str | PurePath) -> str:
    """Return the name of a file with its suffix in small letters, as it is compared with patterns."""
    return without_suffix(path) + suffix_of(path)


def is_nifti(path: str | PurePath) -> bool:
    """Return whether a file is NIfTI by its name."""
    return suffix_of(path) in NIFTI


def is_gzipped(path: str | PurePath) -> bool:
    """Return whether a file is compressed, by its name."""
    return PurePath(path).suffix.lower() == ".gz"


def is_image(path: str | PurePath) -> bool:
    """Return whether a file is an image that can be read, by its name."""
    return suffix_of(path) in (*NIFTI, *REWRITTEN)


def open_nifti(path: Path) -> Any:
    """Open an image as `nibabel.load` does, which knows suffixes in small letters and in capitals, but no mixture."""
    suffix = path.name.removeprefix(without_suffix(path))
    if is_nifti(path) and not suffix.islower() and not suffix.isupper():
        return nib.Nifti1Image.from_file_map({"image": FileHolder(str(path))})
    return nib.load(path)


def affine_mm(image: Any) -> np.ndarray:
    """Return the affine of an image, voxel to mm, whatever the unit of its header.

    A unit that makes a head of implausible size of one that is plausible in mm was set by mistake, and is not obeyed.
    """
    factor = unit_mm(image)
    return np.diag([factor, factor, factor, 1]) @ image.affine if factor != 1 else image.affine


def unit_mm(image: Any) -> float:
    """Return how many mm the unit of an image's header is (`affine_mm`)."""
    try:
        factor = UNITS_MM.get(image.header.get_xyzt_units()[0], 1.0)
    except KeyError:  # a number that stands for no unit
        return 1.0
    field = np.linalg.norm(image.affine[:3, :3], axis=0) * image.shape[:3] if len(image.shape) >= 3 else np.zeros(3)
    low, high = FIELD_MM
    return 1.0 if ((field >= low) & (field <= high)).all() else factor
