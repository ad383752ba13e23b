"""What is done to one scan: brain cut out, registered to the template, resampled, scaled to 8 bits."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from mriflow.images.nifti import BadScan, Scan, load_scan, voxel_volume
from mriflow.images.registration import ants_image, to_grid

BIAS_MM = 8.0  # size of the voxels that N4 fits the bias field to; finer ones cost several times as much and gained nothing
BRAIN_ML = (300, 3000)  # plausible volumes of a head's inside, from an infant's to twice a large adult's
# Below these correlations with the template (`likeness`) the registration failed. Of 147 real scans the worst has .74 (affine);
# of some turned upside down, with axes swapped, or cut by a quarter or half, the best has .63. Rigid: .65 and .55. With none
# there is hardly a gap: this leaves out only what is no head at all.
QC_CORRELATION = {"affine": 0.65, "rigid": 0.6, "none": 0.2}


@dataclass(frozen=True)
class PreprocessSettings:
    """What is done to a scan; see `mriflow.preprocess.preprocess` for what each means.

    The name of a finished scan is a hash of these values in this order (`mriflow.preprocess.scan_key`): with a new field or
    another order, every scan is made anew.
    """

    registration: str
    voxel_mm: float
    shape: tuple[int, ...]
    percentiles: tuple[float, ...]
    stripped: bool
    n4: bool = False


def preprocess_scan(path: Path, settings: PreprocessSettings) -> tuple[np.ndarray, dict[str, float]]:
    """Preprocess one NIfTI file.

    Returns
    -------
    image, quality
        uint8 of the shape in `settings` (axes RAS), and the quality measures of the index.

    Raises
    ------
    BadScan
        If the file is no usable scan, or brain or registration fail.
    """
    scan = load_scan(path, settings.stripped)
    brain = scan.data != 0 if settings.stripped else brain_mask(scan)
    brain_ml = float(brain.sum() * scan.voxel_ml)
    if not BRAIN_ML[0] < brain_ml < BRAIN_ML[1]:
        raise BadScan(
            f"implausible brain volume ({brain_ml:.0f} ml, expected {BRAIN_ML[0]} to {BRAIN_ML[1]}, was it stripped before?)",
            {"brain_ml": round(brain_ml, 1)},
        )
    data = foreground(scan, brain)
    if settings.n4:
        data = without_bias(data, brain, scan.affine)
    on_grid, inside, correlation, scale = to_grid(scan, data, brain, settings.registration, settings.voxel_mm, settings.shape)
    scale *= scan.voxel_ml / voxel_volume(scan.affine)  # not 1 of a scan that its affine scales to MNI space
    quality = {"brain_ml": round(brain_ml, 1), "correlation": round(correlation, 4), "scale": round(scale, 4)}
    least = QC_CORRELATION[settings.registration]
    if not correlation > least:
        raise BadScan(f"registration failed (correlation with the template {correlation:.2f}, expected > {least})", quality)
    if not inside.any():
        raise BadScan("the brain lies outside the grid after registration", quality)
    return to_bytes(on_grid, inside, settings.percentiles), quality


@cache
def brain_extractor() -> Any:
    """Return deepbet's network (Fisch et al. 2024), loaded once.

    It is given one thread, as ITK is: the same sums everywhere, and processes (`mriflow.base.processes`) use several cores
    better.
    """
    import torch
    from deepbet.bet import BrainExtraction

    from mriflow.base.processes import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(1)
    return BrainExtraction(no_gpu=True)


def brain_mask(scan: Scan) -> np.ndarray:
    """Return which voxels of a RAS scan are brain, by deepbet."""
    try:
        _, mask, _ = brain_extractor().run(nib.Nifti1Image(scan.data, scan.affine))
    except (AssertionError, ValueError, IndexError, RuntimeError) as error:
        raise BadScan(f"no brain found in the image ({error})") from error
    return np.asarray(mask.dataobj) > 0


def foreground(scan: Scan, brain: np.ndarray) -> np.ndarray:
    """Return a scan's voxels with 0 around the brain, which has to be brighter, also in a scan that was centred on zero."""
    return np.where(brain, scan.data - min(0, scan.data[brain].min()), 0)


def without_bias(data: np.ndarray, brain: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return a brain without the slow change of its brightness over space that the coil causes (N4, Tustison et al. 2010)."""
    box = tuple(slice(places.min(), places.max() + 1) for places in np.nonzero(brain))
    image, mask = ants_image(data[box], affine), ants_image(brain[box], affine)
    corrected = image.n4_bias_field_correction(
        mask,
        shrink_factor=max(1, round(BIAS_MM / min(image.spacing))),
        convergence={"iters": [50, 50, 30, 20], "tol": 1e-7},
        spline_param=200,  # mm between control points
    )
    result = np.zeros_like(data)
    result[box] = np.where(brain[box], corrected.numpy(), 0)
    return result


def to_bytes(image: np.ndarray, inside: np.ndarray, percentiles: Sequence[float]) -> np.ndarray:
    """Scale intensities so that `percentiles` of the brain become 1 and 255; return uint8, 0 outside the brain."""
    low, high = np.percentile(image[inside], percentiles)
    if not high > low:
        raise BadScan("the brain has one intensity only")
    scaled = np.clip((image - low) / (high - low), 0, 1) * 254 + 1
    return np.where(inside, np.rint(scaled), 0).astype(np.uint8)
