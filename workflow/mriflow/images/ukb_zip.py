"""Read what a T1 zip of UK Biobank holds: its images, and its linear transform to MNI space. Nothing is unpacked to disk.

A path may lead into a zip, as zips/1002532_20252_2_0.zip/T1/T1_brain.nii.gz does.
"""

import gzip
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray

from mriflow.base.errors import UserError

BRAIN = "T1/T1_brain.nii.gz"
# The images in the grid that was registered: the brain alone or the defaced head, as scanned or bias-corrected.
MEMBERS = (BRAIN, "T1/T1.nii.gz", "T1/T1_unbiased_brain.nii.gz", "T1/T1_unbiased.nii.gz")
MATRIX = "T1/transforms/T1_to_MNI_linear.mat"
# Voxel to mm of FSL's MNI152_T1_1mm (182 x 218 x 182 voxels), to which UK Biobank registers: x runs from right to left.
MNI152 = np.array([[-1.0, 0, 0, 90], [0, 1, 0, -126], [0, 0, 1, -72], [0, 0, 0, 1]])


def split_path(path: Path) -> tuple[Path, str] | None:
    """Return the zip and the name in it of a path that leads into a zip, None of any other path."""
    for folder in path.parents:
        if folder.suffix == ".zip" and folder.is_file():
            return folder, path.relative_to(folder).as_posix()
    return None


def fingerprint_in(archive: zipfile.ZipFile, member: str) -> str:
    """Return a short text that two members share only if they hold the same: size and CRC-32, from the zip's directory.

    They are those of the .nii.gz, still packed. So they differ for the same image compressed anew.
    """
    info = archive.getinfo(member)
    return f"{info.file_size:x}-{info.CRC:08x}"


def open_header(path: Path, member: str) -> tuple[int, Any]:
    """Return the size of an image in a zip and the image itself; of this the header is read, and no voxel can be."""
    with zipfile.ZipFile(path) as archive, archive.open(member) as packed, gzip.GzipFile(fileobj=packed) as stream:
        return archive.getinfo(member).file_size, nib.Nifti1Image.from_stream(stream)


def t1_problem(members: Collection[str], member: str = BRAIN) -> str:
    """Return why `member`, a scan, of a zip with these members cannot be used, "" if it can."""
    if any(name.startswith("T1/unusable/") for name in members):
        return "scan: unusable (UK Biobank put it under T1/unusable)"
    return "" if member in members else f"scan: no {member} in the zip"


def read_t1_zip(path: Path, member: str = BRAIN) -> tuple[bytes, bytes]:
    """Return a scan of a T1 zip and the text of its linear matrix (empty if the zip has none), their checksums verified.

    ``T1/T1_brain_to_MNI.nii.gz`` is of no use: it is warped NON-linearly, its shape is the template's.

    Raises
    ------
    UserError
        If the zip is damaged, the scan cannot be used (`t1_problem`), or the member is missing.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
            problem = t1_problem(members, member)
            if not problem:
                return archive.read(member), archive.read(MATRIX) if MATRIX in members else b""
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise UserError(f"{path}: damaged ({error}). Delete it and fetch it again.") from error
    raise UserError(f"{path}: {problem}. Leave it out.")


def read_flirt(text: bytes, name: str | Path) -> NDArray[np.float64]:
    r"""Return the 4 x 4 matrix in the text of a file of FLIRT, or raise a UserError if there is none.

    >>> read_flirt(b"1 0 0 -5\n0 1 0 0\n0 0 1 2\n0 0 0 1\n", "T1_to_MNI_linear.mat").tolist()
    [[1.0, 0.0, 0.0, -5.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 2.0], [0.0, 0.0, 0.0, 1.0]]
    """
    try:
        matrix = np.array([line.split() for line in text.decode().splitlines() if line.strip()], dtype=float)
    except ValueError:
        matrix = np.zeros((0, 0))
    affine = matrix.shape == (4, 4) and np.isfinite(matrix).all() and matrix[3].tolist() == [0, 0, 0, 1]
    if not affine or np.linalg.matrix_rank(matrix) < 4:
        raise UserError(f"{name}: not a matrix of FLIRT, expected 4 rows of 4 numbers that can be inverted. Fetch it again.")
    return matrix


def mni_affine(image: SpatialImage, flirt: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the affine (voxel to mm, RAS+) that puts `image` into MNI space, its voxels untouched.

    A FLIRT matrix takes FSL's coordinates of the image to those of the reference. They are voxel number times voxel size,
    whatever the header says of origin and rotation, but x counts from the other end of the grid if the determinant of the
    header's affine is positive. With F from voxels to these coordinates::

        new affine = MNI152's affine @ inv(F of MNI152) @ flirt @ F of the image

    F of MNI152_T1_1mm is the identity: voxels of 1 mm, a negative determinant. The new affine can shear, so it fits the sform
    of a NIfTI file, not the qform.

    Parameters
    ----------
    image
        A T1 in the grid that was registered, one of `MEMBERS`.
    flirt
        Its ``T1_to_MNI_linear.mat``, shape (4, 4), mm; see `read_flirt`.

    References
    ----------
    Coordinates: M. Jenkinson, JISCMail list FSL, 2001, message 461945. The flip: fslpy, `Nifti.generateAffines`.
    """
    size = np.array(image.header.get_zooms()[:3], dtype=float)
    to_fsl = np.diag([*size, 1.0])
    if np.linalg.det(image.affine[:3, :3]) > 0:
        to_fsl[0] = [-size[0], 0, 0, (image.shape[0] - 1) * size[0]]
    return MNI152 @ flirt @ to_fsl
