"""Tell grey matter, white matter and CSF in a T1-weighted brain by their brightness."""

import warnings
from typing import Any

import numpy as np

from mriflow.images.nifti import BadScan
from mriflow.images.registration import ants_image, resample

TISSUES = ("csf", "gm", "wm")  # from dark to bright in a T1-weighted scan
TISSUE_MM = 2.0  # size of the voxels that are told apart; finer ones have more noise, and the network's grid is coarser
QUANTILES = 2000  # of the brightness, to which the mixture is fitted: as good as all voxels, and quicker
# As many as Atropos takes (Avants et al. 2011). Run to the end, the Gaussian of grey matter widens at the cost of white matter,
# whose Dice with the maps of real scans falls from .84 to .79.
EM_STEPS = 5


def tissue_maps(data: np.ndarray, brain: np.ndarray, affine: np.ndarray) -> dict[str, Any]:
    """Return how probable each of `TISSUES` is in each voxel of a brain, as ANTs images.

    Their voxels have `TISSUE_MM`, or the scan's size where that is coarser; they lie in the scan's space.
    A mixture of three Gaussians is fitted to the brightness in the brain (EM; Wells et al. 1996). A probability does not turn
    back beyond the mean of the darkest or the brightest tissue, where the widest Gaussian would win again.

    Parameters
    ----------
    data, brain, affine
        The voxels without bias field, 0 around the brain, shape (x, y, z); which are brain; voxel to mm.
    """
    import ants

    image, mask = ants_image(data, affine), ants_image(brain, affine)
    spacing = [max(TISSUE_MM, size) for size in image.spacing]
    grid = ants.resample_image(mask, spacing, use_voxels=False, interp_type=0)
    share = resample(mask, grid, []).numpy()
    inside = share > 0.5
    brightness = resample(image, grid, []).numpy()[inside] / share[inside]
    maps = {}
    for tissue, probability in zip(TISSUES, probabilities(brightness).T, strict=True):
        voxels = np.zeros(inside.shape, np.float32)
        voxels[inside] = probability
        maps[tissue] = grid.new_image_like(voxels)
    return maps


def probabilities(brightness: np.ndarray) -> np.ndarray:
    """Return the probability of each of `TISSUES`, shape (voxels, 3), by the brightness of a brain, shape (voxels,)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    low, high = np.percentile(brightness, (0.5, 99.5))
    if not high > low:
        raise BadScan("the brain has one intensity only")
    scaled = np.clip((brightness - low) / (high - low), 0, 1)
    quantiles = np.quantile(scaled, (np.arange(QUANTILES) + 0.5) / QUANTILES)[:, None]
    mixture = GaussianMixture(3, max_iter=EM_STEPS, tol=0, random_state=0)  # it begins with the groups of k-means
    with warnings.catch_warnings(category=ConvergenceWarning, action="ignore"):
        mixture.fit(quantiles)
    order = mixture.means_.ravel().argsort()
    darkest, brightest = mixture.means_.ravel()[order[[0, -1]]]
    return mixture.predict_proba(np.clip(scaled, darkest, brightest)[:, None])[:, order]
