"""How much a prediction depends on each place of the brain: occlusion, and the gradient.

Both explain what is predicted, that is the mean over the networks of a fold: the target in its unit, or the log-odds of the
class that is predicted for the scan as it is (its probability hardly moves where the networks are sure). Where predictions are
the mean over a scan and its mirror image, every second scan is explained by its mirror image, and the map mirrored back: the
mean over scans is the same, at half the cost.
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
FEWEST = 0.1  # of a cube's voxels that must be brain; what others hold of the demo's brain is 1.5 %
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
        self.eval()  # MONAI's methods put back into training what they were given in training, networks and all

    def values(self, scans: torch.Tensor) -> torch.Tensor:
        """Return the mean prediction, shape (scans,) or (scans, classes), for differences from the average."""
        found = []
        for network, numbers in zip(self.networks, self.covariates, strict=True):
            batch = Batch(scans + self.average, numbers.expand(len(scans), -1), torch.zeros(len(scans), 0))
            found.append(network.objective.values(outputs_of(network.net, batch)))
        return torch.stack(found).mean(0)

    def forward(self, scans: torch.Tensor) -> torch.Tensor:
        """Return the prediction that is explained, float32, shape (scans, 1)."""
        values = self.values(scans)
        if self.predicted_class is not None:
            values = values[:, self.predicted_class].logit(eps=1e-12)
        return values.float()[:, None]


class Occluded(nn.Module):
    """By how much the prediction of an `Explained` changes for a scan of which something was occluded.

    It looks again only where at least `fewest` voxels of the brain changed, for many cubes of a grid hardly touch the brain. It
    takes scans that were rolled by some voxels, so that the cubes come to lie elsewhere.
    """

    def __init__(self, explained: Explained, scan: torch.Tensor, brain: torch.Tensor, rolled: int, fewest: float) -> None:
        super().__init__()
        self.explained, self.scan, self.brain, self.rolled, self.fewest = explained, scan, brain, rolled, fewest
        self.unchanged = explained(scan)
        self.eval()

    def forward(self, scans: torch.Tensor) -> torch.Tensor:
        scans = scans.roll([self.rolled] * 3, (2, 3, 4))
        changed = ((scans != self.scan).any(1) & self.brain).flatten(1).sum(1) >= self.fewest
        values = torch.zeros(len(scans), 1, device=scans.device)
        if changed.any():
            values[changed] = self.explained(scans[changed]) - self.unchanged
        return values


@torch.no_grad()
def occlusion(explained: Explained, scan: torch.Tensor, brain: np.ndarray, voxel_mm: float, number: int = 0) -> np.ndarray:
    """Return by how much the prediction changes if the cube that a voxel is in looks like the average (Zeiler & Fergus 2014).

    Parameters
    ----------
    scan
        How it differs from the average, shape (1, channels, x, y, z).
    brain
        Where the brain is, bool, shape (x, y, z).
    number
        Of the scan: the cubes of every second one lie half a cube further, so that the mean of scans is finer than a cube.

    Returns
    -------
    float32, shape (x, y, z), an amount in the unit of the prediction; 0 in a cube that is hardly brain.
    """
    patch = [min(max(2, round(PATCH_MM / voxel_mm)), count) for count in brain.shape]
    rolled = patch[0] // 2 if number % 2 else 0
    within = torch.tensor(brain, device=scan.device)
    occluded = Occluded(explained, scan, within, rolled, FEWEST * patch[0] * patch[1] * patch[2])
    maps = OcclusionSensitivity(
        occluded,
        mask_size=patch,
        n_batch=max(1, min(8, VOXELS // scan[0].numel())),
        verbose=False,
        mode=0.0,
        overlap=0.0,
        activate=False,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Using a non-tuple sequence")  # MONAI's own; a test holds what comes out
        found, _ = maps(scan.roll([-rolled] * 3, (2, 3, 4)))
    whole = torch.as_tensor(found)[0, 0].roll([rolled] * 3, (0, 1, 2))
    return (whole.abs().cpu().numpy() * brain).astype(np.float32)


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
