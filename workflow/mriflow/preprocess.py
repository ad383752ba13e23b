"""Bring the scans of one shard of a dataset to the network's grid: one memory-mappable array and its index.

Each scan is turned to RAS, its brain cut out (deepbet) unless that was done, registered to the ICBM152 template (ANTs),
resampled to the grid, and its intensities scaled to 8 bits. A scan that fails keeps its row in the index with its problem.

Finished scans are kept in a partial folder until the shard is whole, and taken over from an earlier whole shard: a killed
or grown dataset redoes only what is missing.
"""

import gzip
import hashlib
import json
import logging
import os
import shutil
import tempfile
import zlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pandas as pd

from mriflow import recipes
from mriflow.cli import progress, run_stage, stage_parser
from mriflow.errors import UserError
from mriflow.files import whole_file, write_csv
from mriflow.labels import read_index, shard_of

# Read by ITK when ANTs is first used: sums over several threads differ in their last bits from run to run.
os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"

log = logging.getLogger(__name__)

# Centre of the SFCN paper's grid: the middle of FSL's 182 x 218 x 182 MNI152 image, in mm from the anterior commissure.
CENTRE_MM = (-0.5, -17.5, 18.5)
REGISTRATION_MM = 3.0  # on real heads, finer images cost several times as much and did not correlate better afterwards
UNREADABLE = (nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError, nib.wrapstruct.WrapStructError)
INDEX_COLUMNS = ["id", "index", "problem", "brain_ml", "correlation", "scale", "fingerprint", "key"]
REGISTRATION_SHAPE = (64, 76, 64)  # voxels, around the whole brain
BRAIN_ML = (300, 3000)  # plausible volumes of a head's inside, from an infant's to twice a large adult's
# Below these, brain and template hardly overlap: the registration failed. Without scaling, size alone costs some.
QC_CORRELATION = {"affine": 0.7, "rigid": 0.5, "none": 0.3}


class BadScan(Exception):
    """A scan that cannot be preprocessed; its text becomes the scan's problem."""


class Result(NamedTuple):
    """What became of a scan: its volume (uint8; None if it has a problem) and its row of the index."""

    volume: np.ndarray | None
    row: dict[str, Any]


def preprocess(
    scans: Path,
    array: Path,
    index: Path,
    *,
    shard: int = 0,
    shards: int = 1,
    registration: str = "affine",
    voxel_mm: float = 2.0,
    shape: Sequence[int] = (80, 96, 80),
    percentiles: Sequence[float] = (0.5, 99.5),
    stripped: bool = False,
) -> pd.DataFrame:
    """Preprocess the scans that belong to `shard`, and write `array` and `index`.

    Parameters
    ----------
    scans
        The list that `organize` made: id, path (from its own folder), fingerprint.
    array
        The .npy file to write: uint8, shape (scans without a problem, x, y, z), axes RAS.
    index
        The .csv file to write: one row per scan with its position in `array` (empty for a scan with a problem), the problem,
        and quality figures: `brain_ml` (volume of the brain, ml), `correlation` (with the template, in the brain), `scale`
        (volume of the scan over that on the template's grid).
    shard, shards
        Which part of the dataset, of how many (`mriflow.labels.shard_of`).
    registration
        ``affine``, ``rigid`` or ``none`` (centres of mass only).
    voxel_mm, shape
        The grid: edge of a voxel in mm, and number of voxels.
    percentiles
        Percentiles of the intensities in the brain that become 1 and 255; the background is 0.
    stripped
        Whether the scans show the brain alone.

    Returns
    -------
    The table written to `index`.

    Raises
    ------
    UserError
        If `scans` is missing or not such a list. A scan's own faults never raise.
    """
    wanted = read_scans(scans)
    wanted = wanted[[shard_of(scan, shards) == shard for scan in wanted["id"]]].reset_index(drop=True)
    settings = [registration, voxel_mm, list(shape), list(percentiles), stripped]
    earlier = earlier_results(array, index)
    partial = array.with_name(f".{array.stem}.partial")

    results = []
    for scan in progress(wanted.to_dict("records"), desc=f"preprocess {array.stem}", unit="scan"):
        key = scan_key(scan, settings)
        finished = partial / f"{key}.npz"
        if key in earlier:
            results.append(earlier[key])
        elif finished.is_file():
            results.append(load_result(finished))
        else:
            result = run_scan(scan, key, scans.parent, settings)
            if result.volume is not None:  # a scan that failed is tried again: memory or the network may have been short
                save_result(finished, result)
            results.append(result)
    table = write_shard(results, shape, array, index)
    shutil.rmtree(partial, ignore_errors=True)
    log.info("%d scans, %d with a problem", len(table), table["problem"].notna().sum())
    return table


def run_scan(scan: Mapping[str, str], key: str, folder: Path, settings: Sequence[Any]) -> Result:
    """Preprocess a scan of the list; a bad one gives a result with a problem and no volume."""
    row: dict[str, Any] = {"id": scan["id"], "problem": None, "fingerprint": scan["fingerprint"], "key": key}
    try:
        volume, quality = preprocess_scan(folder / scan["path"], *settings)
    except BadScan as error:
        log.warning("%s: %s", scan["id"], error)
        return Result(None, {**row, "problem": f"scan: {error}"})
    except MemoryError:
        raise
    except Exception as error:  # one bad scan never stops the cohort, whatever a library makes of it
        log.exception("%s", scan["id"])
        return Result(None, {**row, "problem": f"scan: failed ({type(error).__name__}: {error})"})
    return Result(volume, {**row, **quality})


def preprocess_scan(
    path: Path,
    registration: str,
    voxel_mm: float,
    shape: Sequence[int],
    percentiles: Sequence[float],
    stripped: bool,
) -> tuple[np.ndarray, dict[str, float]]:
    """Preprocess one NIfTI file; see `preprocess` for the arguments.

    Returns
    -------
    image, quality
        uint8 of `shape` (axes RAS), and the quality figures of the index.

    Raises
    ------
    BadScan
        If the file is no usable scan, or brain or registration fail.
    """
    scan = load_scan(path)
    brain = np.asarray(scan.dataobj) != 0 if stripped else brain_mask(scan)
    brain_ml = float(brain.sum() * np.prod(scan.header.get_zooms()) / 1000)
    if not BRAIN_ML[0] < brain_ml < BRAIN_ML[1]:
        raise BadScan(
            f"implausible brain volume ({brain_ml:.0f} ml, expected {BRAIN_ML[0]} to {BRAIN_ML[1]}, was it stripped before?)"
        )
    on_grid, inside, scale = to_grid(scan, brain, registration, voxel_mm, shape)
    template, _ = template_on_grid(voxel_mm, tuple(shape))
    both = inside | (template > 0)
    correlation = float(np.corrcoef(on_grid[both], template[both])[0, 1])
    least = QC_CORRELATION[registration]
    if not correlation > least:
        raise BadScan(f"registration failed (correlation with the template {correlation:.2f}, expected > {least})")
    image = to_bytes(on_grid, inside, percentiles)
    return image, {"brain_ml": round(brain_ml, 1), "correlation": round(correlation, 4), "scale": round(scale, 4)}


def load_scan(path: Path) -> nib.Nifti1Image:
    """Return a scan as float32 in RAS order with shape (x, y, z), or raise `BadScan` saying what is wrong with it."""
    try:
        if path.name.endswith(".gz"):
            # nibabel stops before the checksum at the end, and would take a damaged file for a scan.
            with gzip.open(path) as stream:
                while stream.read(2**22):
                    pass
        scan: Any = nib.load(path)
        data = np.asarray(scan.dataobj, dtype=np.float32)
    except FileNotFoundError as error:
        raise BadScan("no file") from error
    except (*UNREADABLE, OSError, EOFError, ValueError, zlib.error) as error:
        raise BadScan(f"file cannot be read ({type(error).__name__}: {error})") from error
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    voxels = "x".join(map(str, data.shape))
    if data.ndim != 3:
        raise BadScan(f"image is not 3D ({data.ndim} dimensions, {voxels})")
    if min(data.shape) < 16:
        raise BadScan(f"image is too small ({voxels} voxels, expected at least 16 along each axis)")
    finite = np.isfinite(data)
    if not finite.all():
        raise BadScan(f"image has voxels that are not a number ({(~finite).sum()})")
    if data.min() == data.max():
        raise BadScan(f"image is constant ({data.min():g} everywhere)")
    if not np.isfinite(scan.affine).all() or abs(np.linalg.det(scan.affine[:3, :3])) < 1e-3:
        raise BadScan("the affine of the header places no voxels")
    return nib.as_closest_canonical(nib.Nifti1Image(data, scan.affine))


@cache
def brain_extractor() -> Any:
    """Return deepbet's network (Fisch et al. 2024), loaded once."""
    from deepbet.bet import BrainExtraction

    return BrainExtraction(no_gpu=True)


def brain_mask(scan: nib.Nifti1Image) -> np.ndarray:
    """Return which voxels of a RAS scan are brain, by deepbet."""
    try:
        _, mask, _ = brain_extractor().run(scan)
    except (AssertionError, ValueError, IndexError, RuntimeError) as error:
        raise BadScan(f"no brain found in the image ({error})") from error
    return np.asarray(mask.dataobj) > 0


@cache
def template() -> nib.Nifti1Image:
    """Return the brain of the ICBM152 2009a template at 1 mm (Fonov et al. 2011), from nilearn."""
    from nilearn.datasets import load_mni152_template

    return load_mni152_template(resolution=1)


def grid_affine(voxel_mm: float, shape: Sequence[int]) -> np.ndarray:
    """Return the affine, shape (4, 4), of a RAS grid of `shape` voxels of `voxel_mm` around `CENTRE_MM`."""
    affine = np.diag([voxel_mm, voxel_mm, voxel_mm, 1.0])
    affine[:3, 3] = np.array(CENTRE_MM) - voxel_mm * (np.array(shape) - 1) / 2
    return affine


@cache
def template_on_grid(voxel_mm: float, shape: tuple[int, ...]) -> tuple[np.ndarray, Any]:
    """Return the template on a grid: its voxels, float32 of `shape`, and the ANTs image."""
    reference = ants_image(np.zeros(shape, np.float32), grid_affine(voxel_mm, shape))
    image = resample(ants_image(np.asarray(template().dataobj, np.float32), template().affine), reference, [])
    return image.numpy(), image


def ants_image(data: np.ndarray, affine: np.ndarray) -> Any:
    """Return an ANTs image of `data` with a NIfTI `affine` (ANTs counts x and y the other way)."""
    import ants

    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    return ants.from_numpy(
        np.ascontiguousarray(data, dtype=np.float32),
        origin=affine[:3, 3].tolist(),
        spacing=spacing.tolist(),
        direction=affine[:3, :3] / spacing,
    )


def resample(moving: Any, fixed: Any, transforms: list[str]) -> Any:
    """Return `moving` on the grid of `fixed`, smoothed first where that grid is coarser (else it would alias)."""
    import ants

    width = np.sqrt(np.maximum(0, np.square(fixed.spacing) - np.square(moving.spacing)))
    if width.max() > 0.5:
        moving = ants.smooth_image(moving, width.tolist(), sigma_in_physical_coordinates=True, FWHM=True)
    return ants.apply_transforms(fixed, moving, transforms, interpolator="linear")


def to_grid(
    scan: nib.Nifti1Image, brain: np.ndarray, registration: str, voxel_mm: float, shape: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, float]:
    """Register the brain of a scan to the template and resample it.

    Returns
    -------
    image, inside, scale
        float32 of `shape`, 0 outside the brain; bool of `shape`, the brain; volume of the scan over its volume on the grid.
    """
    import ants

    values = np.asarray(scan.dataobj)
    # The background has to be darker than the brain, also in a scan that was centred on zero.
    data = np.where(brain, values - min(0, values[brain].min()), 0)
    moving, mask = ants_image(data, scan.affine), ants_image(brain, scan.affine)
    _, fixed = template_on_grid(REGISTRATION_MM, REGISTRATION_SHAPE)
    coarse = ants.resample_image(moving, [max(REGISTRATION_MM, s) for s in moving.spacing], use_voxels=False, interp_type=0)
    with tempfile.TemporaryDirectory() as folder:
        if registration == "none":
            transforms = [centre_of_mass_transform(fixed, coarse, folder)]
        else:
            ants.config.set_ants_deterministic(seed_value=1)  # else the same scan comes out a little different each time
            found = ants.registration(
                fixed,
                coarse,
                type_of_transform=registration.capitalize(),
                outprefix=f"{folder}/",
                aff_iterations=(500, 200),
                aff_shrink_factors=(4, 2),
                aff_smoothing_sigmas=(2, 1),
            )
            transforms = found["fwdtransforms"]
        matrix = np.array(ants.read_transform(transforms[0]).parameters[:9]).reshape(3, 3)
        _, grid = template_on_grid(voxel_mm, tuple(shape))
        image = resample(moving, grid, transforms).numpy()
        inside = resample(mask, grid, transforms).numpy() > 0.5
    if not inside.any():
        raise BadScan("the brain lies outside the grid after registration")
    return np.where(inside, image, 0), inside, float(abs(np.linalg.det(matrix)))


def centre_of_mass_transform(fixed: Any, moving: Any, folder: str) -> str:
    """Write the shift that matches the centres of mass and return its file."""
    import ants

    shift = np.array(ants.get_center_of_mass(moving)) - np.array(ants.get_center_of_mass(fixed))
    transform = ants.create_ants_transform(transform_type="AffineTransform", dimension=3, translation=shift)
    ants.write_transform(transform, f"{folder}/shift.mat")
    return f"{folder}/shift.mat"


def to_bytes(image: np.ndarray, inside: np.ndarray, percentiles: Sequence[float]) -> np.ndarray:
    """Scale intensities so that `percentiles` of the brain become 1 and 255; return uint8, 0 outside the brain."""
    low, high = np.percentile(image[inside], percentiles)
    if not high > low:
        raise BadScan("the brain has one intensity only")
    scaled = np.clip((image - low) / (high - low), 0, 1) * 254 + 1
    return np.where(inside, np.rint(scaled), 0).astype(np.uint8)


def read_scans(path: Path) -> pd.DataFrame:
    """Read the list of scans that `organize` made."""
    if not path.is_file():
        raise UserError(f"{path}: no such list of scans; `python -m mriflow.organize` makes it.")
    scans = pd.read_csv(path, dtype=str, keep_default_na=False)
    if not {"id", "path", "fingerprint"} <= set(scans.columns):
        raise UserError(f"{path}: has columns {', '.join(scans.columns)}; expected id, path, fingerprint.")
    return scans


def scan_key(scan: Mapping[str, str], settings: Sequence[Any]) -> str:
    """Return a name for the result of a scan: it changes with its id, its content, the settings and the recipe."""
    text = json.dumps([recipes.PREPROCESS, scan["id"], scan["fingerprint"], *settings])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def earlier_results(array: Path, index: Path) -> dict[str, Result]:
    """Return the results in a whole shard made before, by their keys; none if there is no whole shard."""
    try:
        volumes = np.load(array, mmap_mode="r", allow_pickle=False)
        rows = read_index(index).astype(object)
    except (OSError, ValueError):
        return {}
    if set(rows.columns) != set(INDEX_COLUMNS) or rows["index"].notna().sum() != len(volumes):
        return {}
    rows = rows.where(rows.notna(), None)
    return {row["key"]: Result(volumes[row["index"]], row) for row in rows.to_dict("records") if row["index"] is not None}


def save_result(path: Path, result: Result) -> None:
    """Write the result of one good scan, whole or not at all."""
    with whole_file(path) as temporary:
        np.savez(temporary, volume=np.asarray(result.volume), row=np.array(json.dumps(result.row)))


def load_result(path: Path) -> Result:
    """Read what `save_result` wrote."""
    with np.load(path, allow_pickle=False) as saved:
        return Result(saved["volume"], json.loads(str(saved["row"])))


def write_shard(results: list[Result], shape: Sequence[int], array: Path, index: Path) -> pd.DataFrame:
    """Write the array and the index of a shard; the index last, for an array without one is not a shard."""
    volumes = [result.volume for result in results if result.volume is not None]
    with whole_file(array) as temporary:
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(volumes), *shape)}
        with open(temporary, "wb") as stream:
            np.lib.format.write_array_header_1_0(stream, header)
            for volume in volumes:
                stream.write(np.ascontiguousarray(volume).tobytes())
        index.unlink(missing_ok=True)
    positions = iter(range(len(volumes)))
    rows = [{**result.row, "index": None if result.volume is None else next(positions)} for result in results]
    table = pd.DataFrame(rows, columns=INDEX_COLUMNS).astype({"index": "Int64"})
    write_csv(table, index)
    return table


def main(argv: list[str] | None = None) -> None:
    """Read the command line and preprocess."""
    parser = stage_parser(__doc__)
    parser.add_argument("--scans", type=Path, required=True, help="list of scans made by organize")
    parser.add_argument("--array", type=Path, required=True, help=".npy file to write: uint8, scans by x by y by z")
    parser.add_argument("--index", type=Path, required=True, help=".csv file to write: one row per scan")
    parser.add_argument("--shard", type=int, default=0, help="number of this shard, from 0 (default: 0)")
    parser.add_argument("--shards", type=int, default=1, help="number of shards (default: 1, the whole dataset)")
    parser.add_argument("--registration", choices=["affine", "rigid", "none"], default="affine", help="(default: affine)")
    parser.add_argument("--voxel-mm", type=float, default=2.0, help="edge of a voxel of the grid, mm (default: 2)")
    parser.add_argument("--shape", type=int, nargs=3, default=[80, 96, 80], help="voxels of the grid (default: 80 96 80)")
    parser.add_argument(
        "--percentiles",
        type=float,
        nargs=2,
        default=[0.5, 99.5],
        help="intensities that become 1 and 255 (default: 0.5 99.5)",
    )
    parser.add_argument("--stripped", action="store_true", help="the scans show the brain alone already")
    preprocess(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    run_stage(main)
