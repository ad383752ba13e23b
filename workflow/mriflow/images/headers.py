"""Read what the header of an image says, and whether its file can hold that; no voxel is read."""

import gzip
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from mriflow.base.cli import progress
from mriflow.base.errors import one_line
from mriflow.images.kinds import FIELD_MM, is_gzipped, open_nifti, unit_mm
from mriflow.images.ukb_zip import open_header, split_path

WARNINGS = ("qform", "orientation is not given", "pixdim", "implausible field")  # faults that do not make a file unusable
AGREE = 0.01  # relative difference of two voxel sizes that is rounding


def read_headers(paths: Sequence[Path], threads: int = 8) -> pd.DataFrame:
    """Return one row per image, as `read_header`; several are read at once, because a network file system answers late."""
    with ThreadPoolExecutor(threads) as pool:
        rows = list(progress(pool.map(read_header, paths), total=len(paths), desc="headers", unit="image"))
    return pd.DataFrame(rows, columns=None if rows else ["fault"])


def read_header(path: Path) -> dict[str, Any]:
    """Return what the header of a NIfTI file says, or of one in a zip of UK Biobank (`mriflow.images.ukb_zip`).

    Returns
    -------
    bytes (of the file), matrix (voxels, as `182x218x182`), spacing (mm, as `1x1x1.2`) and spacing_1 to spacing_3, orientation
    (where the axes lead to, as `RAS`), dtype, qform_code, sform_code, qform_sform_mm (how far apart the two place a corner),
    and fault: what is wrong, in the form of a problem of labels.csv, '' if nothing is. Axes are in the order of the file.
    """
    try:
        scan: Any
        zipped = split_path(path)
        stored, scan = open_header(*zipped) if zipped else (path.stat().st_size, open_nifti(path))
        row: dict[str, Any] = {"bytes": stored}
        header = scan.header
        shape = tuple(int(size) for size in header.get_data_shape())
        dtype = header.get_data_dtype()
        mm = unit_mm(scan)
        spacing = [float(zoom) * mm for zoom in header.get_zooms()[:3]]
        row |= {"matrix": "x".join(map(str, shape)), "dtype": dtype.name}
        row |= {"qform_code": int(header["qform_code"]), "sform_code": int(header["sform_code"])}
        size = scan.dataobj.offset + int(np.prod(shape, dtype=object)) * dtype.itemsize
        faults = [] if zipped else [size_fault(path, size)]  # a zip has checksums of its own
    except Exception as error:  # nibabel raises a dozen kinds of errors for a broken file
        return {"fault": f"file cannot be read ({one_line(error)})"}
    if dtype.kind not in "iuf":
        faults.append(f"voxels are no plain numbers ({dtype})")
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3 or min(shape) < 1:
        faults.append(f"image is not 3D ({row['matrix']})")
    else:
        row |= {"spacing": "x".join(f"{size:.4g}" for size in spacing)}
        row |= {f"spacing_{axis}": round(size, 4) for axis, size in enumerate(spacing, 1)}
        placement, placement_faults = placed(header, scan.affine, shape, np.array(spacing), mm)
        row |= placement
        faults += placement_faults
    return row | {"fault": "; ".join(filter(None, faults))}


def placed(
    header: Any, affine: np.ndarray, shape: Sequence[int], spacing: np.ndarray, mm: float
) -> tuple[dict[str, Any], list[str]]:
    """Return where the header puts the voxels (orientation, qform_sform_mm), and what is wrong with that.

    `spacing` is in mm, `affine` in the unit of the header, which is so many `mm`.
    """
    faults = []
    field = spacing * shape
    if not ((field >= FIELD_MM[0]) & (field <= FIELD_MM[1])).all():
        field_text = " x ".join(f"{mm:.4g}" for mm in field)
        faults.append(f"implausible field of view ({field_text} mm, expected {FIELD_MM[0]} to {FIELD_MM[1]}; are these mm?)")
    if not np.isfinite(affine).all() or abs(np.linalg.det(mm * affine[:3, :3])) < 1e-6:
        return {}, [*faults, "the affine of the header places no voxels"]
    row: dict[str, Any] = {"orientation": "".join(axis or "?" for axis in nib.aff2axcodes(affine))}
    if not header["qform_code"] and not header["sform_code"]:
        faults.append("orientation is not given (neither qform nor sform; left and right may be exchanged)")
    sizes = np.linalg.norm(mm * affine[:3, :3], axis=0)
    if not np.allclose(sizes, spacing, rtol=AGREE):
        sizes_text = " x ".join(f"{mm:.4g}" for mm in sizes)
        faults.append(f"pixdim and affine disagree on the voxel size (affine: {sizes_text} mm)")
    if header["qform_code"] and header["sform_code"]:
        try:
            qform = header.get_qform()
        except Exception as error:  # its numbers are no rotation
            return row, [*faults, f"qform is invalid ({one_line(error)})"]
        corners = np.array([[*corner, 1] for corner in product(*((0, size - 1) for size in shape))])
        apart = float(np.linalg.norm(corners @ (qform - header.get_sform()).T, axis=1).max()) * mm
        row["qform_sform_mm"] = round(apart, 3)
        if apart > spacing.min() / 2:
            faults.append(f"qform and sform disagree (by up to {apart:.3g} mm; tools differ in which they believe)")
    return row, faults


def fault_of_sizes(header: Path, affine: Any) -> str:
    """Return in words how the voxel size of an Analyze image's header differs from that of the dataset's affine, '' if not.

    A damaged header tells nothing; nor does 1 x 1 x 1, which programs write, and nibabel reads, where the size is not known.
    """
    try:
        image: Any = nib.load(header)
        if affine is None or isinstance(image, nib.Nifti1Pair | nib.MGHImage):
            return ""
        told = np.array(image.header.get_zooms()[:3], float)
    except Exception:  # nibabel raises a dozen kinds of errors for a broken file
        return ""
    given = np.linalg.norm(np.array(affine, float)[:3, :3], axis=0)
    if len(told) < 3 or not (told > 0).all() or (told == 1).all() or np.allclose(told, given, rtol=AGREE):
        return ""
    found, expected = (" x ".join(f"{size:.4g}" for size in sizes) for sizes in (told, given))
    return f"voxel size is not that of the dataset's affine ({header.name}: {found} mm, expected {expected} mm)"


def size_fault(path: Path, expected: int) -> str:
    """Return what is wrong with the size of a file whose content should have `expected` bytes, '' if it fits.

    A gzip file ends with the length of its content modulo 2^32 (RFC 1952). Only where that does not fit the file is unzipped,
    for one of several gzip blocks (bgzip) is whole too.
    """
    if is_gzipped(path):
        with open(path, "rb") as stream:
            stream.seek(-4, 2)
            if int.from_bytes(stream.read(4), "little") == expected % 2**32:
                return ""
        length = 0
        try:
            with gzip.open(path) as unzipped:
                while length <= expected and (block := unzipped.read(2**22)):
                    length += len(block)
        except (OSError, EOFError, zlib.error) as error:
            return f"file is cut short or damaged ({one_line(error)})"
    else:
        length = path.stat().st_size
    if length < expected:
        return f"file is shorter than its header says ({length} of {expected} bytes)"
    return f"file is longer than its header says (more than {expected} bytes)" if length > expected else ""
