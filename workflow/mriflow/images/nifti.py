"""Read one scan's file, a NIfTI image or one in a zip of UK Biobank, and say exactly what is wrong with it."""

import gzip
import io
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from mriflow.base.errors import UserError, one_line
from mriflow.base.files import dead_link, is_web_page, pointer
from mriflow.images.kinds import affine_mm, is_gzipped, open_nifti
from mriflow.images.ukb_zip import mni_affine, read_flirt, read_t1_zip, split_path

MOST_VOXELS = 2**30  # a head at 0.2 mm


class BadScan(Exception):
    """A scan that cannot be preprocessed; its text becomes the scan's problem. `quality` holds the measures known by then."""

    def __init__(self, problem: str, quality: dict[str, float] | None = None) -> None:
        super().__init__(problem)
        self.quality = quality or {}


@dataclass(frozen=True, eq=False)
class Scan:
    """A scan that passed all checks of its file, its axes in RAS order.

    Attributes
    ----------
    data
        The voxels, float32, shape (x, y, z), finite.
    affine
        Voxel to mm, shape (4, 4): the scanner's space, or MNI space if `in_mni`.
    voxel_ml
        Volume of a voxel as scanned, ml. The affine of a scan that came in MNI space gives another volume.
    in_mni
        Whether the scan came with a linear transform to MNI space, which is in `affine`.
    """

    data: np.ndarray
    affine: np.ndarray
    voxel_ml: float
    in_mni: bool


def load_scan(path: Path, stripped: bool = False) -> Scan:
    """Read and check one scan. The path may lead into a zip of UK Biobank (`mriflow.images.ukb_zip`).

    Parameters
    ----------
    stripped
        Whether it shows the brain alone: then NaN is the background, as SPM writes it, and becomes 0.

    Raises
    ------
    BadScan
        If it cannot be used; the text says exactly what is wrong.
    """
    image, flirt, data = read_file(path)
    data = check_voxels(data, stripped)
    in_mm = affine_mm(image)
    if not np.isfinite(in_mm).all() or not 1e-3 < 1000 * voxel_volume(in_mm) < 1e6:
        raise BadScan("the affine of the header places no voxels")
    affine = affine_of(image, flirt)
    in_ras = nib.as_closest_canonical(nib.Nifti1Image(data, affine))
    return Scan(np.asarray(in_ras.dataobj), in_ras.affine, voxel_volume(in_mm), in_mni=flirt is not None)


def affine_of(image: Any, flirt: np.ndarray | None) -> np.ndarray:
    """Return where an image's voxels lie, mm, shape (4, 4): in MNI space if it came with a transform to that."""
    return affine_mm(image) if flirt is None else mni_affine(image, flirt)


def as_scanned(data: np.ndarray, path: Path) -> nib.Nifti1Image:
    """Return the image of voxels that lie as those of the scan in a file do after `load_scan`, with the axes that the file has.

    `data` have the shape of the scan's data, and may have one more axis at the end.
    """
    image, flirt, _ = open_image(path)
    order = nib.io_orientation(affine_of(image, flirt))
    back = nib.orientations.ornt_transform(nib.io_orientation(np.eye(4)), order)
    made = nib.Nifti1Image(nib.apply_orientation(data, back), affine_mm(image))
    made.header.set_xyzt_units("mm")
    header = image.header
    if flirt is None and header.get_xyzt_units()[0] in ("mm", "unknown"):  # both forms as they are, be they two places
        if header["sform_code"] > 0:
            made.set_sform(header.get_sform(), int(header["sform_code"]))
        if header["qform_code"] > 0:
            made.set_qform(header.get_qform(), int(header["qform_code"]))
    return made


def read_file(path: Path) -> tuple[Any, np.ndarray | None, np.ndarray]:
    """Open a scan's file, check its header and read its voxels.

    Returns
    -------
    image, flirt, data
        The NIfTI image; the matrix of its linear transform to MNI space, shape (4, 4), None without one; all voxels, float32.

    Raises
    ------
    BadScan
        If the file cannot be read, whatever the cause; only a lack of memory stays a MemoryError.
    """
    try:
        image, flirt, length = open_image(path)
        check_header(image, length)
        return image, flirt, np.asarray(image.dataobj, dtype=np.float32)
    except FileNotFoundError as error:
        raise BadScan(f"no file ({cure})" if (cure := dead_link(path)) else "no file") from error
    except UserError as error:
        raise BadScan(str(error).rstrip(".")) from error
    except (BadScan, MemoryError):
        raise
    except nib.filebasedimages.ImageFileError as error:
        raise BadScan("file is no NIfTI image, whatever its name says") from error
    except Exception as error:  # nibabel raises a dozen kinds of errors for a broken file
        raise BadScan(f"file cannot be read ({one_line(error)})") from error


def open_image(path: Path) -> tuple[Any, np.ndarray | None, int]:
    """Return an image, the matrix of its linear transform to MNI space (None without one), and its length unpacked, bytes."""
    if zipped := split_path(path):
        return open_zipped(*zipped)
    length = unpacked_length(path)
    if length < 348:
        raise BadScan(f"file is cut short ({length} bytes, less than a header)")
    return open_nifti(path), None, length


def check_header(image: Any, length: int) -> None:
    """Raise `BadScan` if a header is not that of a NIfTI image, or does not fit a file of `length` bytes.

    This comes before any voxel is read: else memory would be reserved for voxels that are not there.
    """
    if not isinstance(image, nib.Nifti1Image):
        raise BadScan(f"not a NIfTI image ({type(image).__name__})")
    shape, dtype = image.shape, image.get_data_dtype()
    if not 0 < np.prod(shape, dtype=float) <= MOST_VOXELS or min(shape, default=0) < 1:
        raise BadScan(f"its header says {'x'.join(map(str, shape)) or 'no'} voxels")
    if dtype.kind not in "iuf":
        raise BadScan(f"its voxels are no plain numbers ({dtype})")
    stored: Any = image.dataobj
    expected = stored.offset + int(np.prod(shape, dtype=object)) * dtype.itemsize
    if length > expected:
        raise BadScan(
            f"file is longer than its header says ({length} bytes, expected {expected}, of another image or with something "
            "appended)"
        )
    if length < expected:
        raise BadScan(f"file does not fit its header ({length} bytes, expected {expected}, cut short or damaged)")


def check_voxels(data: np.ndarray, stripped: bool) -> np.ndarray:
    """Return the voxels with shape (x, y, z), NaN as 0 if `stripped`; raise `BadScan` if they are no image of a head."""
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    shape = "x".join(map(str, data.shape))
    if data.ndim != 3:
        raise BadScan(f"image is not 3D ({data.ndim} dimensions, {shape})")
    if min(data.shape) < 16:
        raise BadScan(f"image is too small ({shape} voxels, expected at least 16 along each axis)")
    if stripped:
        data = np.where(np.isnan(data), np.float32(0), data)
    if odd := np.count_nonzero(~np.isfinite(data)):
        cure = "fslmaths SCAN -nan NEW makes them 0" + ("" if stripped else ", or `stripped: true` if they surround a brain")
        raise BadScan(f"image has voxels that are not a number ({odd}, {cure})")
    if data.min() == data.max():
        raise BadScan(f"image is constant ({data.min():g} everywhere)")
    return data


def unpacked_length(path: Path) -> int:
    """Return how many bytes a NIfTI file holds, unzipped; raise `BadScan` if it is something else altogether."""
    if path.is_dir():
        raise BadScan("a folder, expected a NIfTI file")
    with open(path, "rb") as stream:
        head = stream.read(512)
    if not head:
        raise BadScan("file is empty")
    if cure := pointer(head):
        raise BadScan(f"file is no image ({cure})")
    if is_web_page(head):
        raise BadScan("file is a web page, not an image (log in at its site and download it again)")
    if head[128:132] == b"DICM":
        raise BadScan("file is DICOM, not NIfTI (convert it with dcm2niix)")
    if not is_gzipped(path):
        if head.startswith(b"\x1f\x8b"):
            raise BadScan("file is compressed, though its name does not say so (rename it to .nii.gz)")
        return path.stat().st_size
    if not head.startswith(b"\x1f\x8b"):
        raise BadScan("file is not compressed, though its name ends with .gz (an image? rename it to .nii)")
    try:
        with gzip.open(path) as unzipped:
            return read_to_end(unzipped)
    except (OSError, EOFError, zlib.error) as error:
        raise BadScan(f"file is cut short or damaged ({one_line(error)})") from error


def open_zipped(path: Path, member: str) -> tuple[Any, np.ndarray | None, int]:
    """Do as `open_image` for an image in a zip of UK Biobank."""
    content, matrix = read_t1_zip(path, member)
    stream = gzip.GzipFile(fileobj=io.BytesIO(content))
    length = read_to_end(stream)
    stream.seek(0)
    image = nib.Nifti1Image.from_stream(stream)
    return image, read_flirt(matrix, f"{path}, its linear matrix") if matrix else None, length


def read_to_end(stream: gzip.GzipFile) -> int:
    """Read a gzip file to its end and return how many bytes it holds, unpacked.

    The checksum stands at the end; nibabel stops before it, and would accept a damaged file.
    """
    length = 0
    while block := stream.read(2**22):
        length += len(block)
    return length


def voxel_volume(affine: np.ndarray) -> float:
    """Return the volume of a voxel, ml, of an affine in mm.

    >>> round(voxel_volume(np.diag([2.0, 2.0, 2.0, 1.0])), 6)
    0.008
    """
    return abs(float(np.linalg.det(affine[:3, :3]))) / 1000
