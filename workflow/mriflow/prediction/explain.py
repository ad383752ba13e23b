"""How much a prediction depends on each place of the brain: occlusion, and the gradient.

Both explain what is predicted, that is the mean over the networks of a fold: the target in its unit, or the probability of the
class that is predicted for the scan as it is. Where predictions are the mean over a scan and its mirror image, every second
scan is explained by its mirror image, and the map mirrored back: the mean over scans is the same, at half the cost.
"""

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from monai.visualize import OcclusionSensitivity, SmoothGrad
from torch import nn

from mriflow.prediction.ensemble import Trained
from mriflow.training.forward import outputs_of
from mriflow.training.loader import Batch

PATCH_MM = 32.0  # edge of the cube that is occluded
OVERLAP = 0.25  # of two cubes next to each other
SAMPLES = 10  # noisy copies of a scan over which the gradient is averaged
SPREAD = 0.1  # standard deviation of their noise, of the scan's range of intensities
VOXELS = 500_000  # of a batch


class Explained(nn.Module):
    """What the networks of a fold together predict for a scan, as a module that MONAI's methods can explain.

    It takes how a scan differs from the average of the training scans, not the scan: so a cube that is set to 0 looks like
    everybody's there, and not like a hole.

    Parameters
    ----------
    networks
        Of one fold.
    covariates
        The numbers of the scan's covariates for each network, shape (1, covariates).
    average
        Of the training scans, shape (channels, x, y, z).
    """

    def __init__(self, networks: Sequence[Trained], covariates: Sequence[torch.Tensor], average: torch.Tensor) -> None:
        super().__init__()
        self.networks, self.covariates, self.average = networks, covariates, average
        self.nets = nn.ModuleList(one.net for one in networks).requires_grad_(False)
        self.predicted_class: int | None = None

    def values(self, scans: torch.Tensor) -> torch.Tensor:
        """Return the mean prediction, shape (scans,) or (scans, classes), for differences from the average."""
        found = []
        for (net, objective, _), numbers in zip(self.networks, self.covariates, strict=True):
            batch = Batch(scans + self.average, numbers.expand(len(scans), -1), torch.zeros(len(scans), 0))
            found.append(objective.values(outputs_of(net, batch)))
        return torch.stack(found).mean(0)

    def forward(self, scans: torch.Tensor) -> torch.Tensor:
        """Return the prediction that is explained, float32, shape (scans, 1)."""
        values = self.values(scans)
        values = values if self.predicted_class is None else values[:, self.predicted_class]
        return values.float()[:, None]


class Occluded(nn.Module):
    """An `Explained` that looks again only at scans of which something was occluded: most of a grid is around the brain."""

    def __init__(self, explained: Explained, scan: torch.Tensor) -> None:
        super().__init__()
        self.explained, self.scan = explained, scan
        self.unchanged = explained(scan)

    def forward(self, scans: torch.Tensor) -> torch.Tensor:
        changed = (scans != self.scan).flatten(1).any(1)
        values = self.unchanged.expand(len(scans), -1).clone()
        if changed.any():
            values[changed] = self.explained(scans[changed])
        return values


@torch.no_grad()
def occlusion(explained: Explained, scan: torch.Tensor, brain: np.ndarray, voxel_mm: float) -> np.ndarray:
    """Return by how much the prediction changes if the cube around a voxel looks like the average (Zeiler & Fergus 2014).

    Parameters
    ----------
    scan
        How it differs from the average, shape (1, channels, x, y, z).
    brain
        Where the brain is, bool, shape (x, y, z).

    Returns
    -------
    float32, shape (x, y, z), in the unit of the prediction; of a voxel in several cubes it is their mean, taken as amount.
    """
    patch = [min(max(2, round(PATCH_MM / voxel_mm)), count) for count in brain.shape]
    occluded = Occluded(explained, scan)
    maps = OcclusionSensitivity(
        occluded,
        mask_size=patch,
        n_batch=max(1, min(8, VOXELS // scan[0].numel())),
        verbose=False,
        mode=0.0,
        overlap=OVERLAP,
        activate=False,
    )
    box = [(int(places.min()), int(places.max()) + 1) for places in np.nonzero(brain)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Using a non-tuple sequence")  # MONAI's own; a test holds what comes out
        found, _ = maps(scan, b_box=[edge for pair in box for edge in pair])
    whole = torch.zeros(brain.shape)
    whole[tuple(slice(*pair) for pair in box)] = (torch.as_tensor(found)[0, 0] - occluded.unchanged[0, 0]).abs().cpu()
    return (whole.numpy() * brain).astype(np.float32)


def gradients(explained: Explained, scan: torch.Tensor, brain: np.ndarray, seed: int) -> np.ndarray:
    """Return how steeply the prediction changes with each voxel, averaged over noisy copies (SmoothGrad, Smilkov et al. 2017).

    Returns
    -------
    float32, shape (x, y, z): the amounts, summed over channels, scaled to a mean of 1 in the brain, so that a scan whose class
    is beyond doubt counts as much as another.
    """
    torch.manual_seed(seed)
    smooth = SmoothGrad(explained, stdev_spread=SPREAD, n_samples=SAMPLES, verbose=False)
    found = smooth(scan.clone(), 0)[0].abs().sum(0).cpu().numpy() * brain
    mean = found[brain].mean()
    return (found / mean if mean > 0 else found).astype(np.float32)
