"""Read one scan's file, a NIfTI image or one in a zip of UK Biobank, and say exactly what is wrong with it."""

import gzip
import io
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from mriflow.base.errors import UserError, one_line
from mriflow.base.files import is_web_page
from mriflow.images.ukb_zip import mni_affine, read_flirt, read_t1_zip, split_path

MOST_VOXELS = 2**30  # a head at 0.2 mm


class BadScan(Exception):
    """A scan that cannot be preprocessed; its text becomes the scan's problem. `quality` holds the figures known by then."""

    def __init__(self, problem: str, quality: dict[str, float] | None = None) -> None:
        super().__init__(problem)
        self.quality = quality or {}


def load_scan(path: Path, stripped: bool = False) -> nib.Nifti1Image:
    """Return a scan as float32 in RAS order with shape (x, y, z), or raise `BadScan` saying what is wrong with it.

    NaN is the background of a `stripped` one, as SPM writes it, and becomes 0.
    The path may lead into a zip of UK Biobank (`mriflow.images.ukb_zip`). If this holds the linear transform to MNI space, that
    becomes the affine. The volume of a voxel before, in ml, stands in ``extra["voxel_ml"]`` of the image, whether it is in
    MNI space in ``extra["in_mni"]``.
    """
    matrix = None
    scan: Any
    try:
        if zipped := split_path(path):
            scan, matrix, held = open_zipped(*zipped)
        else:
            held = refuse_other_kinds(path)
            if held < 348:
                raise BadScan(f"file is cut short ({held} bytes, less than a header)")
            scan = nib.load(path)
        if not isinstance(scan, nib.Nifti1Image):
            raise BadScan(f"not a NIfTI image ({type(scan).__name__})")
        voxels, dtype = "x".join(map(str, scan.shape)), scan.get_data_dtype()
        if not 0 < np.prod(scan.shape, dtype=float) <= MOST_VOXELS or min(scan.shape, default=0) < 1:
            raise BadScan(f"its header tells of {voxels or 'no'} voxels")
        if dtype.kind not in "iuf":
            raise BadScan(f"its voxels are no plain numbers ({dtype})")
        # Before anything is read: memory for what is not there would be reserved first.
        stored: Any = scan.dataobj
        expected = stored.offset + int(np.prod(scan.shape, dtype=object)) * dtype.itemsize
        if held > expected:
            raise BadScan(
                f"file is longer than its header says ({held} bytes, expected {expected}, of another image or with something "
                "appended)"
            )
        if held < expected:
            raise BadScan(f"file does not fit its header ({held} bytes, expected {expected}, cut short or damaged)")
        data = np.asarray(stored, dtype=np.float32)
    except FileNotFoundError as error:
        raise BadScan("no file") from error
    except UserError as error:
        raise BadScan(str(error).rstrip(".")) from error
    except (BadScan, MemoryError):
        raise
    except nib.filebasedimages.ImageFileError as error:
        raise BadScan("file is no NIfTI image, whatever its name says") from error
    except Exception as error:  # nibabel raises a dozen kinds of errors for a broken file
        raise BadScan(f"file cannot be read ({one_line(error)})") from error
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    voxels = "x".join(map(str, data.shape))
    if data.ndim != 3:
        raise BadScan(f"image is not 3D ({data.ndim} dimensions, {voxels})")
    if min(data.shape) < 16:
        raise BadScan(f"image is too small ({voxels} voxels, expected at least 16 along each axis)")
    if stripped:
        data = np.where(np.isnan(data), np.float32(0), data)
    if odd := np.count_nonzero(~np.isfinite(data)):
        cure = "fslmaths SCAN -nan NEW makes them 0" + ("" if stripped else ", or `stripped: true` if they surround a brain")
        raise BadScan(f"image has voxels that are not a number ({odd}, {cure})")
    if data.min() == data.max():
        raise BadScan(f"image is constant ({data.min():g} everywhere)")
    if not np.isfinite(scan.affine).all() or not 1e-3 < 1000 * voxel_volume(scan) < 1e6:
        raise BadScan("the affine of the header places no voxels")
    canonical = nib.as_closest_canonical(nib.Nifti1Image(data, scan.affine if matrix is None else mni_affine(scan, matrix)))
    canonical.extra["voxel_ml"] = voxel_volume(scan)
    canonical.extra["in_mni"] = matrix is not None
    return canonical


def refuse_other_kinds(path: Path) -> int:
    """Return how many bytes a NIfTI file holds, unzipped; raise `BadScan` if it is something else altogether."""
    if path.is_dir():
        raise BadScan("a folder, expected a NIfTI file")
    with open(path, "rb") as stream:
        head = stream.read(512)
    if not head:
        raise BadScan("file is empty")
    if is_web_page(head):
        raise BadScan("file is a web page, not an image (log in at its site and download it again)")
    if head[128:132] == b"DICM":
        raise BadScan("file is DICOM, not NIfTI (convert it with dcm2niix)")
    if not path.name.endswith(".gz"):
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
    """Return an image in a zip of UK Biobank, the matrix of its linear registration if there is one, and how long it is."""
    content, matrix = read_t1_zip(path, member)
    stream = gzip.GzipFile(fileobj=io.BytesIO(content))
    held = read_to_end(stream)
    stream.seek(0)
    image = nib.Nifti1Image.from_stream(stream)
    return image, read_flirt(matrix, f"{path}, its linear matrix") if matrix else None, held


def read_to_end(stream: gzip.GzipFile) -> int:
    """Read a gzip file to its end: nibabel stops before the checksum there, and would take a damaged file for a scan.

    Returns
    -------
    How many bytes it holds.
    """
    held = 0
    while block := stream.read(2**22):
        held += len(block)
    return held


def voxel_volume(scan: Any) -> float:
    """Return the volume of a voxel, in ml, as the affine tells it."""
    return abs(float(np.linalg.det(scan.affine[:3, :3]))) / 1000
