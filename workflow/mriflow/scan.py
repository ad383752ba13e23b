"""What is done to one scan: read and checked, brain cut out, registered to the template, resampled, scaled to 8 bits."""

import gzip
import io
import os
import tempfile
import zlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from mriflow.errors import UserError
from mriflow.ukbzip import mni_affine, read_flirt, read_t1_zip, split_path

# Read by ITK when ANTs is first used: sums over several threads differ in their last bits from run to run.
os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"

# Centre of the SFCN paper's grid: the middle of FSL's 182 x 218 x 182 MNI152 image, in mm from the anterior commissure.
CENTRE_MM = (-0.5, -17.5, 18.5)
REGISTRATION_MM = 3.0  # on real heads, finer images cost several times as much and did not correlate better afterwards
REGISTRATION_SHAPE = (64, 76, 64)  # voxels, around the whole brain
BRAIN_ML = (300, 3000)  # plausible volumes of a head's inside, from an infant's to twice a large adult's
# Below these, brain and template hardly overlap: the registration failed. Without scaling, size alone costs some.
QC_CORRELATION = {"affine": 0.7, "rigid": 0.5, "none": 0.3}
UNREADABLE = (nib.filebasedimages.ImageFileError, nib.spatialimages.HeaderDataError, nib.wrapstruct.WrapStructError)


MOST_VOXELS = 2**30  # a head at 0.2 mm


class BadScan(Exception):
    """A scan that cannot be preprocessed; its text becomes the scan's problem."""


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
    voxel_ml = scan.extra["voxel_ml"]
    brain_ml = float(brain.sum() * voxel_ml)
    if not BRAIN_ML[0] < brain_ml < BRAIN_ML[1]:
        raise BadScan(
            f"implausible brain volume ({brain_ml:.0f} ml, expected {BRAIN_ML[0]} to {BRAIN_ML[1]}, was it stripped before?)"
        )
    on_grid, inside, scale = to_grid(scan, brain, registration, voxel_mm, shape)
    scale *= voxel_ml / voxel_volume(scan)  # not 1 of a scan that its affine scales to MNI space
    template, _ = template_on_grid(voxel_mm, tuple(shape))
    both = inside | (template > 0)
    correlation = float(np.corrcoef(on_grid[both], template[both])[0, 1])
    least = QC_CORRELATION[registration]
    if not correlation > least:
        raise BadScan(f"registration failed (correlation with the template {correlation:.2f}, expected > {least})")
    image = to_bytes(on_grid, inside, percentiles)
    return image, {"brain_ml": round(brain_ml, 1), "correlation": round(correlation, 4), "scale": round(scale, 4)}


def load_scan(path: Path) -> nib.Nifti1Image:
    """Return a scan as float32 in RAS order with shape (x, y, z), or raise `BadScan` saying what is wrong with it.

    The path may lead into a zip of UK Biobank (`mriflow.ukbzip`). If this holds the linear transform to MNI space, that becomes
    the affine. The volume of a voxel before, in ml, stands in ``extra["voxel_ml"]`` of the image.
    """
    matrix = None
    try:
        if zipped := split_path(path):
            scan, matrix = open_zipped(*zipped)
        else:
            if path.name.endswith(".gz"):
                with gzip.open(path) as stream:
                    read_to_end(stream)
            scan = nib.load(path)
        if np.prod(scan.shape, dtype=float) > MOST_VOXELS:
            raise BadScan(f"its header tells of {'x'.join(map(str, scan.shape))} voxels")
        data = np.asarray(scan.dataobj, dtype=np.float32)
    except FileNotFoundError as error:
        raise BadScan("no file") from error
    except UserError as error:
        raise BadScan(str(error).rstrip(".")) from error
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
    canonical = nib.as_closest_canonical(nib.Nifti1Image(data, scan.affine if matrix is None else mni_affine(scan, matrix)))
    canonical.extra["voxel_ml"] = voxel_volume(scan)
    return canonical


def open_zipped(path: Path, member: str) -> tuple[Any, np.ndarray | None]:
    """Return an image in a zip of UK Biobank, and the matrix of its linear registration if there is one."""
    content, matrix = read_t1_zip(path, member)
    stream = gzip.GzipFile(fileobj=io.BytesIO(content))
    read_to_end(stream)
    stream.seek(0)
    return nib.Nifti1Image.from_stream(stream), read_flirt(matrix, f"{path}, its linear matrix") if matrix else None


def read_to_end(stream: gzip.GzipFile) -> None:
    """Read a gzip file to its end: nibabel stops before the checksum there, and would take a damaged file for a scan."""
    while stream.read(2**22):
        pass


def voxel_volume(scan: Any) -> float:
    """Return the volume of a voxel, in ml, as the affine tells it."""
    return abs(float(np.linalg.det(scan.affine[:3, :3]))) / 1000


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
