"""What morphometry knows without a network: grey matter, smoothed, and the volumes of the tissues, in kernel ridge regression.

On some hundred people, nothing published is better at age.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter

from mriflow.evaluation.baselines import axes_of, from_axes, penalty_folds, small_images, standardised_kernels, trivial
from mriflow.images.tissues import TISSUES

log = logging.getLogger(__name__)

GREY = "gm"
FWHM_MM = 8.0  # of the smoothing, as is usual in voxel-based morphometry (Ashburner & Friston 2000, NeuroImage 11:805)
FWHM_OVER_SD = 2.355


class Morphometry(NamedTuple):
    """Of some scans, a row each: smoothed grey matter, and volumes in dl of each tissue that there is and of the brain."""

    maps: np.ndarray
    volumes: np.ndarray

    def rows(self, places: Sequence[int] | np.ndarray | slice) -> "Morphometry":
        """Return those of some scans."""
        return Morphometry(self.maps[places], self.volumes[places])


def morphometry_of(scans: Sequence[np.ndarray], block: Mapping[str, Any], sizes: pd.DataFrame) -> Morphometry | None:
    """Return the morphometry of scans; None if grey matter is not among their channels.

    Parameters
    ----------
    scans
        uint8 arrays of shape (channels, x, y, z), or (x, y, z) of one channel.
    block
        How they were preprocessed: `channels`, `voxel_mm`.
    sizes
        A row for each: `scale`, its volume over that on the grid, and `brain_ml`, the brain's volume, ml.
    """
    channels = list(block["channels"])
    if GREY not in channels:
        return None
    found = [number for number, name in enumerate(channels) if name in TISSUES]
    by_channel = [scan if scan.ndim == 4 else scan[None] for scan in scans]
    maps = small_images([scan[channels.index(GREY)] for scan in by_channel])
    grid = by_channel[0].shape[1:]
    factor = round((np.prod(grid) / maps.shape[1]) ** (1 / 3))
    width = FWHM_MM / FWHM_OVER_SD / (block["voxel_mm"] * factor)
    for row in maps:
        row[:] = gaussian_filter(row.reshape([edge // factor for edge in grid]).astype(np.float32), width).ravel()
    litres = np.array([[scan[number].mean(dtype=float) for number in found] for scan in by_channel]) / 255
    litres = litres * np.prod(grid) * (block["voxel_mm"] / 100) ** 3 * sizes["scale"].to_numpy(float)[:, None]
    return Morphometry(maps, 10 * np.column_stack([litres, sizes["brain_ml"].to_numpy(float) / 1000]))


def tissue(
    known: Morphometry, labels: np.ndarray, subjects: np.ndarray, ahead: Morphometry, classes: list[str] | None
) -> np.ndarray:
    """Return the predictions of kernel ridge regression on the mean of two kernels: of the maps, and of the volumes.

    Everything else is as in `mriflow.evaluation.baselines.classical`.

    Parameters
    ----------
    known, ahead
        The scans that may be learned from, and those to predict.
    labels, subjects, classes
        As in `classical`.

    Returns
    -------
    Shape (scans,) or (scans, classes).
    """
    folds = penalty_folds(labels, subjects, classes)
    if not folds:
        log.warning("too few subjects, or of a class, to choose a penalty: the tissue baseline is the trivial one")
        return trivial(labels, classes, len(ahead.volumes))
    kernels = zip(*(standardised_kernels(*pair) for pair in zip(known, ahead, strict=True)), strict=True)
    kernel, kernel_ahead = (np.mean(both, axis=0) for both in kernels)
    return from_axes(*axes_of(kernel, kernel_ahead), labels, folds, classes)
