"""What is done to one scan: brain cut out, registered to the template, resampled, scaled to 8 bits; its tissues told apart."""

import errno
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.interpolate import make_interp_spline

from mriflow.base.errors import UserError
from mriflow.images.kept import Kept, pack, unpack
from mriflow.images.label_maps import indicators, likeliest, measures_of, read_label_map
from mriflow.images.mask import mask_of
from mriflow.images.nifti import BadScan, Scan, load_scan, voxel_volume
from mriflow.images.registration import ants_image, find_transform, to_grid
from mriflow.images.tissues import TISSUES, tissue_maps

log = logging.getLogger(__name__)

MIXTURE = "mixture"  # the way in which `mriflow.images.tissues` tells tissues apart
LABEL_MAP = "label_map"  # the channel of a scan's label map, and its key in the list of scans
# Of a scan, whether its brain was cut out before, and the folder of what is kept: the tissues, ANTs images in its space.
Tissues = Callable[[Scan, bool, Path | None], dict[str, Any]]
BIAS_MM = 8.0  # size of the voxels that N4 fits the bias field to; finer ones cost several times as much and gained nothing
BRAIN_ML = (300, 3000)  # plausible volumes of a head's inside, from an infant's to twice a large adult's
# Below these correlations with the template (`likeness`) the registration failed. Of 147 real scans the worst has .74 (affine);
# of some turned upside down, with axes swapped, or cut by a quarter or half, the best has .63. Rigid: .65 and .55. With none
# there is hardly a gap: this leaves out only what is no head at all.
QC_CORRELATION = {"affine": 0.65, "rigid": 0.6, "none": 0.2}
# Plausible volumes of the brain over the template's times `scale`: of 145 real scans 1.10 to 1.19, of 99 simulated ones 1.02 to
# 1.10. A scan that kept its size has a scale of 1.
TEMPLATE_RATIO = {"affine": (0.9, 1.35), "rigid": (0.4, 1.4), "none": (0.4, 1.4)}


@dataclass(frozen=True)
class PreprocessSettings:
    """What is done to a scan; see `mriflow.preprocess.preprocess` for what each means.

    The name of a finished scan is a hash of these values in this order (`mriflow.preprocess.Shared.key`): with a new field or
    another order, every scan is made anew.
    """

    registration: str
    voxel_mm: float
    shape: tuple[int, ...]
    percentiles: tuple[float, ...]
    stripped: bool
    n4: bool = False
    channels: tuple[str, ...] = ("image",)
    tissues: str = MIXTURE


class Result(NamedTuple):
    """What became of a scan: its volume (uint8; None if it has a problem) and its row of the index."""

    volume: np.ndarray | None
    row: dict[str, Any]


def run_scan(
    scan: Mapping[str, str],
    key: str,
    folder: Path,
    settings: PreprocessSettings,
    cache: Path | None = None,
    label_maps: Mapping[str, Any] | None = None,
    tissues: Tissues | None = None,
) -> Result:
    """Preprocess a scan of the list; a bad one gives a result with a problem and no volume."""
    row: dict[str, Any] = {"id": scan["id"], "problem": None, "fingerprint": scan["fingerprint"], "key": key}
    try:
        labelled = (folder / scan[LABEL_MAP], label_maps) if label_maps and LABEL_MAP in settings.channels else None
        volume, quality = preprocess_scan(folder / scan["path"], settings, cache, labelled, tissues)
    except BadScan as error:
        refuse_lack_of_memory(error)
        log.warning("%s: %s", scan["id"], error)
        return Result(None, {**row, **error.quality, "problem": f"scan: {error}"})
    except Exception as error:  # one bad scan never stops the cohort, whatever a library makes of it
        refuse_lack_of_memory(error)
        log.exception("%s", scan["id"])
        return Result(None, {**row, "problem": f"scan: failed ({type(error).__name__}: {error})"})
    return Result(volume, {**row, **quality})


def refuse_lack_of_memory(error: BaseException | None) -> None:
    """Raise a UserError if an error, or what caused it, is the machine's lack of memory: that is no scan's fault.

    Libraries report it in their own ways; one that cannot be mapped into memory raises an ImportError.
    """
    while error:
        lacking = isinstance(error, MemoryError | ImportError) or getattr(error, "errno", None) == errno.ENOMEM
        if lacking or re.search("allocate|bad_alloc", str(error)):
            raise UserError(
                f"too little memory for a scan ({type(error).__name__}: {error}). Give the job more (`mem_mb` of the rule); "
                "the scans that are done are kept."
            ) from error
        error = error.__cause__ or error.__context__


def preprocess_scan(
    path: Path,
    settings: PreprocessSettings,
    cache: Path | None = None,
    labelled: tuple[Path, Mapping[str, Any]] | None = None,
    tissues: Tissues | None = None,
) -> tuple[np.ndarray, dict[str, float]]:
    """Preprocess one NIfTI file.

    Parameters
    ----------
    path, settings
        The file; what is done to it.
    cache
        A folder for what takes long and is the same for other settings (`mriflow.images.kept`). The result is the same without.
    labelled
        Of the channel label_map, the file and the dataset's `label_maps`: classes, background, may_lack.
    tissues
        What tells the tissues apart; None for the mixture of `mriflow.images.tissues`.

    Returns
    -------
    image, quality
        uint8 of the shape in `settings` (axes RAS), several channels first, and the quality measures of the index.

    Raises
    ------
    BadScan
        If the file is no usable scan, or brain or registration fail.
    """
    scan = load_scan(path, settings.stripped)
    registration = settings.registration
    data, brain, brain_ml, maps, transform = align(scan, settings, cache, tissues)
    chosen = [maps[channel] for channel in settings.channels if channel in maps]
    parts: Iterable[Any] = ()
    if labelled:
        classes, others = labelled[1]["classes"], (labelled[1].get(key, ()) for key in ("background", "may_lack"))
        labels = read_label_map(labelled[0], scan.data.shape, scan.affine, classes, *others)
        parts = indicators(labels, len(classes), scan.affine)
    moved = to_grid(scan, data, brain, registration, transform, settings.voxel_mm, settings.shape, chain(chosen, parts))
    scale = moved.scale * scan.voxel_ml / voxel_volume(scan.affine)  # not 1 of a scan that its affine scales to MNI space
    quality = {"brain_ml": round(brain_ml, 1), "correlation": round(moved.correlation, 4), "scale": round(scale, 4)}
    least = QC_CORRELATION[registration]
    if not moved.correlation > least:
        raise BadScan(
            f"registration failed (correlation with the template {moved.correlation:.2f}, expected > {least})", quality
        )
    if not moved.inside.any():
        raise BadScan("the brain lies outside the grid after registration", quality)
    image = to_bytes(moved.image, moved.inside, settings.percentiles)
    of_tissues = iter(moved.maps[: len(chosen)])
    channels = []
    for name in settings.channels:
        if name in maps:
            channels.append(np.rint(255 * np.where(moved.inside, next(of_tissues), 0)).astype(np.uint8))
        elif name == LABEL_MAP:
            channels.append(likeliest(moved.maps[len(chosen) :]))
            quality |= measures_of(
                labels, brain, channels[-1], list(classes), scan.voxel_ml, settings.voxel_mm**3 * scale / 1000
            )
        else:
            channels.append(image)
    return channels[0] if len(channels) == 1 else np.stack(channels), quality


class Aligned(NamedTuple):
    """A scan's brain and where it lies.

    Attributes
    ----------
    data
        The voxels, 0 around the brain, without bias field if the settings say so; float32, shape (x, y, z) of the scan.
    brain, brain_ml
        Which of them are of the brain, and its volume, ml.
    maps
        The tissues, ANTs images, if they are among the channels.
    transform
        What brings it onto the template (`find_transform`).
    """

    data: np.ndarray
    brain: np.ndarray
    brain_ml: float
    maps: dict[str, Any]
    transform: np.ndarray


def align(scan: Scan, settings: PreprocessSettings, cache: Path | None, tissues: Tissues | None = None) -> Aligned:
    """Find a scan's brain, tissues and transform; raise BadScan if the brain's volume is implausible."""
    kept, stripped, n4 = Kept(cache, scan), settings.stripped, settings.n4
    brain = unpack(kept.get("mask", stripped, lambda: pack(mask_of(scan, stripped))), scan.data.shape)
    brain_ml = float(brain.sum() * scan.voxel_ml)
    if not BRAIN_ML[0] < brain_ml < BRAIN_ML[1]:
        hint = "does it show the brain alone?" if stripped else "was it stripped before?"
        raise BadScan(
            f"implausible brain volume ({brain_ml:.0f} ml, expected {BRAIN_ML[0]} to {BRAIN_ML[1]}, {hint})",
            {"brain_ml": round(brain_ml, 1)},
        )
    data = foreground(scan, brain)
    maps: dict[str, Any] = {}
    of_tissues = bool(set(settings.channels) & set(TISSUES))
    if of_tissues and tissues:
        maps = tissues(scan, stripped, cache)
    if n4 or (of_tissues and not tissues):
        field = kept.get("bias-field", stripped, lambda: bias_field(data, brain, scan.affine))
        even = without_bias(data, brain, scan.affine, field)
        if of_tissues and not tissues:
            maps = tissue_maps(even, brain, scan.affine)
        data = even if n4 else data
    depends_on = [stripped, settings.registration, n4]
    transform = kept.get("transform", depends_on, lambda: find_transform(scan, data, settings.registration))
    return Aligned(data, brain, brain_ml, maps, transform)


def foreground(scan: Scan, brain: np.ndarray) -> np.ndarray:
    """Return a scan's voxels with 0 around the brain, which has to be brighter, also in a scan that was centred on zero."""
    return np.where(brain, scan.data - min(0, scan.data[brain].min()), 0)


def bias_field(data: np.ndarray, brain: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Return the slow change of a brain's brightness over space that the coil causes (N4, Tustison et al. 2010).

    Returns
    -------
    float16, the logarithm of the field at the `field_nodes` of the box around the brain: `without_bias` fills in between.
    """
    box = box_around(brain)
    image, mask = ants_image(data[box], affine), ants_image(brain[box], affine)
    field = image.n4_bias_field_correction(
        mask,
        shrink_factor=max(1, round(BIAS_MM / min(image.spacing))),
        convergence={"iters": [50, 50, 30, 20], "tol": 1e-7},
        spline_param=200,  # mm between control points
        return_bias_field=True,
    )
    return np.log(field.numpy()[np.ix_(*field_nodes(brain[box].shape, affine))]).astype(np.float16)


def without_bias(data: np.ndarray, brain: np.ndarray, affine: np.ndarray, field: np.ndarray) -> np.ndarray:
    """Return a brain without its `bias_field`."""
    box = box_around(brain)
    whole = field.astype(np.float32)
    for axis, nodes in enumerate(field_nodes(brain[box].shape, affine)):
        spline = make_interp_spline(nodes, whole, k=min(3, len(nodes) - 1), axis=axis)
        whole = spline(np.arange(brain[box].shape[axis])).astype(np.float32)
    result = np.zeros_like(data)
    result[box] = np.where(brain[box], data[box] / np.exp(whole), 0)
    return result


def box_around(brain: np.ndarray) -> tuple[slice, ...]:
    """Return the smallest box around a mask."""
    return tuple(slice(places.min(), places.max() + 1) for places in np.nonzero(brain))


def field_nodes(shape: Sequence[int], affine: np.ndarray) -> list[np.ndarray]:
    """Return along each axis the voxels where the bias field is kept: one every `BIAS_MM`, and the last."""
    steps = [max(1, round(BIAS_MM / size)) for size in np.linalg.norm(affine[:3, :3], axis=0)]
    return [np.unique([*range(0, size, step), size - 1]) for size, step in zip(shape, steps, strict=True)]


def to_bytes(image: np.ndarray, inside: np.ndarray, percentiles: Sequence[float]) -> np.ndarray:
    """Scale intensities so that `percentiles` of the brain become 1 and 255; return uint8, 0 outside the brain."""
    low, high = np.percentile(image[inside], percentiles)
    if not high > low:
        raise BadScan("the brain has one intensity only")
    scaled = np.clip((image - low) / (high - low), 0, 1) * 254 + 1
    return np.where(inside, np.rint(scaled), 0).astype(np.uint8)
