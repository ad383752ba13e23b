"""Random changes to a batch of training scans, all at once on the device."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from scipy.spatial.transform import Rotation


def augment(scans: torch.Tensor, settings: Mapping[str, float], generator: torch.Generator) -> torch.Tensor:
    """Shift, mirror, rotate, scale, change contrast and gamma of, and add noise to, each scan in its own way.

    Parameters
    ----------
    scans
        float, shape (scans, 1, x, y, z), between 0 (background) and 1.
    settings
        shift_voxels, mirror (probability), rotate_degrees, scale, intensity, noise: the largest change of each kind.
    generator
        On the CPU, so that the changes do not depend on the device.

    Returns
    -------
    A tensor like `scans`.
    """
    count, shape = len(scans), scans.shape[2:]

    def uniform(largest: float, *size: int) -> torch.Tensor:
        return (torch.rand(count, *size, generator=generator) * 2 - 1) * largest

    mirrored = torch.rand(count, generator=generator) < settings["mirror"]
    turns = Rotation.from_euler("xyz", uniform(settings["rotate_degrees"], 3).numpy(), degrees=True)
    matrices = torch.from_numpy(turns.as_matrix()).float()
    matrices = matrices * (1 + uniform(settings["scale"], 1, 1))
    matrices[:, 0] *= torch.where(mirrored, -1.0, 1.0)[:, None]
    shifts = uniform(settings["shift_voxels"], 3)
    scans = resample(scans, matrices, shifts)

    def per_scan(values: torch.Tensor) -> torch.Tensor:
        return values.to(scans.device).view(-1, 1, 1, 1, 1)

    inside = scans > 1 / 512  # less is the rounding of the resampling
    scans = scans.clamp(min=0) ** per_scan(1 + uniform(settings["intensity"]))
    scans = scans * per_scan(1 + uniform(settings["intensity"]))
    noise = torch.randn(count, 1, *shape, generator=generator).to(scans.device)
    return (scans + noise * per_scan(uniform(settings["noise"]).abs())) * inside


def resample(scans: torch.Tensor, matrices: torch.Tensor, shifts: torch.Tensor) -> torch.Tensor:
    """Resample each scan where `matrices` (n, 3, 3) and `shifts` (n, 3; voxels) send its voxels, about its centre."""
    half = torch.tensor(scans.shape[2:], dtype=torch.float32) / 2
    # affine_grid counts from -1 to 1 along each axis, and names the axes from the last to the first.
    matrices = matrices * half[None, None, :] / half[None, :, None]
    theta = torch.cat([matrices, (shifts / half)[:, :, None]], dim=2)
    theta = torch.cat([theta[:, [2, 1, 0]][:, :, [2, 1, 0]], theta[:, [2, 1, 0], 3:]], dim=2)
    grid = F.affine_grid(theta.to(scans.device), list(scans.shape), align_corners=False)
    return F.grid_sample(scans, grid, align_corners=False)
