"""Which voxels of a scan are brain: by deepbet in a head, and by what surrounds it in a scan of the brain alone."""

import itertools
from collections.abc import Iterator
from functools import cache
from typing import Any

import nibabel as nib
import numpy as np
from scipy import ndimage

from mriflow.images.nifti import BadScan, Scan

HEAD_MM = 4.0  # size of the voxels in which a head is told from air: in their means, noise hardly counts
EVEN = 0.01  # of the brightness of a stripped brain: by so much its background may vary
WITHIN = 6.0  # median deviations of a noisy background, four standard deviations: what is farther away is brain
LEAST_BACKGROUND = 0.8  # of the outermost voxels; a brain cut out closely touches the sides, and a cut one fills a part


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
    """Return which voxels of a RAS scan of a head are brain, by deepbet.

    It sees the head alone, for it takes more air around a head for more brain.
    """
    try:
        box = head_box(scan)
        _, mask, _ = brain_extractor().run(nib.Nifti1Image(np.ascontiguousarray(scan.data[box]), scan.affine))
    except (AssertionError, ValueError, IndexError, RuntimeError) as error:
        raise BadScan(f"no brain found in the image ({error})") from error
    brain = np.zeros(scan.data.shape, bool)
    brain[box] = np.asarray(mask.dataobj) > 0
    return brain


def head_box(scan: Scan) -> tuple[slice, ...]:
    """Return the box around the head in a scan; it is nearly the same however much air, noisy or not, is around.

    First go the outermost planes that are constant, as padding is. Then the largest bright part in the box is taken for the
    head and the box drawn around it, until it fits: what is bright depends on how much air is in the box.
    """
    outer = varied_box(scan.data)
    data = scan.data[outer]
    step = [max(1, round(HEAD_MM / size)) for size in np.linalg.norm(scan.affine[:3, :3], axis=0)]
    means = ndimage.uniform_filter(data, step, mode="nearest", origin=[-(size // 2) for size in step])
    coarse = means[tuple(slice(None, None, size) for size in step)]
    box = tuple(slice(0, size) for size in coarse.shape)
    for _ in range(10):
        parts, _ = ndimage.label(coarse[box] > brightness_of_air(coarse[box]))
        sizes = np.bincount(parts.ravel())[1:]
        found = ndimage.find_objects(parts)[sizes.argmax()]
        smaller = tuple(slice(old.start + new.start, old.start + new.stop) for old, new in zip(box, found, strict=True))
        if smaller == box:
            break
        box = smaller
    return tuple(
        slice(around.start + inner.start * size, min(around.start + inner.stop * size, around.stop))
        for around, inner, size in zip(outer, box, step, strict=True)
    )


def varied_box(data: np.ndarray) -> tuple[slice, ...]:
    """Return the box that is left without the outermost planes that are constant.

    >>> varied_box(np.pad(np.arange(8).reshape(2, 2, 2), ((1, 0), (0, 2), (3, 3)), constant_values=5))
    (slice(1, 3, None), slice(0, 2, None), slice(3, 5, None))
    """
    *_, last = peeled(data)
    return last


def peeled(data: np.ndarray) -> Iterator[tuple[slice, ...]]:
    """Yield the box of a whole volume, then smaller ones: each lacks one more run of outermost planes that have one value."""
    box = [slice(0, size) for size in data.shape]
    yield tuple(box)
    sides = 0  # that were looked at in vain since the last that was peeled
    for axis, step in itertools.cycle(itertools.product(range(3), (1, -1))):
        planes = np.moveaxis(data[tuple(box)], axis, 0)[::step]
        value = planes[0].flat[0]
        run = next((number for number, plane in enumerate(planes) if (plane != value).any()), 0)
        start, stop = box[axis].start, box[axis].stop
        box[axis] = slice(start + run, stop) if step == 1 else slice(start, stop - run)
        sides = 0 if run else sides + 1
        if run:
            yield tuple(box)
        if sides == 6:
            return


def brightness_of_air(image: np.ndarray) -> float:
    """Return up to which brightness a voxel is air: halfway from the mean of the dark to that which parts them from the bright.

    Dark and bright are parted halfway between their means (Ridler and Calvard 1978).
    """
    image = np.minimum(image, np.percentile(image, 99))  # a few very bright ones do not count
    parted, before = float(image.mean()), np.inf
    while abs(parted - before) > 1e-3 * np.ptp(image):
        parted, before = float(image[image > parted].mean() + image[image <= parted].mean()) / 2, parted
    return (parted + float(image[image <= parted].mean())) / 2


def surrounded_mask(scan: Scan) -> np.ndarray:
    """Return which voxels are brain in a scan of the brain alone: all but the background, which reaches the sides.

    The background may have any one brightness, also one that is within the brain's range, and be padded with others.

    Raises
    ------
    BadScan
        If the outermost voxels are not nearly constant, so that nothing tells where the brain ends.
    """
    found, shares, seen, even = None, [], None, 0.0
    # Padding may have another value than the background, which lies within it.
    for box in peeled(scan.data):
        border = np.concatenate([side.ravel() for side in outermost(scan.data[box])])
        level = np.median(border)
        if level != seen:
            away = np.abs(scan.data[box] - level)
            seen, even = level, EVEN * np.percentile(away[away > 0], 99) if away.any() else 0.0
        off = np.abs(border - level)
        shares.append(float((off <= even).mean()))
        if shares[-1] >= LEAST_BACKGROUND:
            found = box, level, max(even, WITHIN * np.median(off))
    if not found:
        raise BadScan(
            f"no background around the brain (of the outermost voxels {max(shares):.0%} have nearly the same value, expected "
            f"at least {LEAST_BACKGROUND:.0%}; does it show the brain alone, as `stripped: true` says?)"
        )
    box, level, even = found
    dark, parts = ndimage.label(np.abs(scan.data[box] - level) <= even)
    inside = np.ones(parts + 1, bool)
    for side in outermost(dark):
        inside[np.unique(side)] = False
    inside[0] = True  # what is not dark
    brain = np.zeros(scan.data.shape, bool)
    brain[box] = inside[dark]
    return brain


def outermost(data: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the six outermost planes of a volume."""
    for axis in range(3):
        yield from np.moveaxis(data, axis, 0)[[0, -1]]


def mask_of(scan: Scan, stripped: bool) -> np.ndarray:
    """Return which voxels of a scan are brain; `stripped` says that it shows the brain alone."""
    return surrounded_mask(scan) if stripped else brain_mask(scan)
