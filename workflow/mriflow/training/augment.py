"""Random changes to a batch of training scans, all at once on the device.

Those of an epoch are drawn at its beginning on the CPU (`draw_changes`), and applied batch by batch (`augment`).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from scipy.spatial.transform import Rotation

FIELD = (4, 4, 4)  # control points of the bias field along each axis


class Changes(NamedTuple):
    """What happens to each of n scans.

    Attributes
    ----------
    theta
        Where each voxel comes from, shape (n, 3, 4), as `torch.nn.functional.affine_grid` wants it.
    gamma, gain
        Exponent and factor of the intensities, shape (n, 1, 1, 1, 1).
    field
        Logarithm of the bias field at its control points, shape (n, 1, *FIELD).
    noise
        Standard deviation of the noise, shape (n, 1, 1, 1, 1).
    seeds
        Seed of each scan's noise, shape (n,), on the CPU.
    """

    theta: torch.Tensor
    gamma: torch.Tensor
    gain: torch.Tensor
    field: torch.Tensor
    noise: torch.Tensor
    seeds: torch.Tensor  # the last field: it stays on the CPU (`to`)

    def at(self, positions: torch.Tensor | slice) -> "Changes":
        """Return the changes of some of the scans."""
        return Changes._make(values[positions] for values in self)

    def to(self, device: torch.device) -> "Changes":
        """Return the changes on a device, but for the seeds."""
        *values, seeds = self
        return Changes._make([*(value.to(device) for value in values), seeds])


def draw_changes(count: int, shape: Sequence[int], settings: Mapping[str, float], generator: torch.Generator) -> Changes:
    """Draw the changes of an epoch's scans.

    Parameters
    ----------
    count
        Number of scans.
    shape
        The grid, in voxels.
    settings
        shift_voxels, mirror (probability), rotate_degrees, scale, intensity, bias_field, noise: the largest change of each
        kind.
    generator
        On the CPU, so that the changes do not depend on the device.
    """

    def uniform(largest: float, *size: int) -> torch.Tensor:
        return (torch.rand(count, *size, generator=generator) * 2 - 1) * largest

    mirrored = torch.rand(count, generator=generator) < settings["mirror"]
    turns = Rotation.from_euler("xyz", uniform(settings["rotate_degrees"], 3).numpy(), degrees=True)
    matrices = torch.from_numpy(turns.as_matrix()).float()
    matrices = matrices * (1 + uniform(settings["scale"], 1, 1))
    matrices[:, 0] *= torch.where(mirrored, -1.0, 1.0)[:, None]
    shifts = uniform(settings["shift_voxels"], 3)
    return Changes(
        theta=as_theta(matrices, shifts, shape),
        gamma=1 + uniform(settings["intensity"], 1, 1, 1, 1),
        gain=1 + uniform(settings["intensity"], 1, 1, 1, 1),
        field=uniform(settings["bias_field"], 1, *FIELD),
        noise=uniform(settings["noise"], 1, 1, 1, 1).abs(),
        seeds=torch.randint(2**62, (count,), generator=generator),  # what is drawn for a new field comes after this
    )


def as_theta(matrices: torch.Tensor, shifts: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Return `matrices` (n, 3, 3) and `shifts` (n, 3; voxels), about the grid's centre, as `affine_grid` wants them.

    It counts from -1 to 1 along each axis, and names the axes from the last to the first.
    """
    half = torch.tensor(shape, dtype=torch.float32) / 2
    matrices = matrices * half[None, None, :] / half[None, :, None]
    return torch.cat([matrices, (shifts / half)[:, :, None]], dim=2)[:, [2, 1, 0]][:, :, [2, 1, 0, 3]]


def sampling_grid(theta: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Return what `affine_grid` does, shape (n, x, y, z, 3), by sums along the axes instead of a product for every voxel."""
    grid = theta[:, :, 3, None, None, None]
    for axis, count in enumerate(shape):
        along = (torch.arange(count, device=theta.device) * 2 + 1) / count - 1
        places = [1, 1, 1, 1, 1]
        places[axis + 2] = count
        grid = grid + along.view(places) * theta[:, :, 2 - axis, None, None, None]
    return grid.movedim(1, -1)


def augment(scans: torch.Tensor, changes: Changes, settings: Mapping[str, float]) -> torch.Tensor:
    """Mirror, rotate, scale and shift each scan in one resampling; change gamma and gain, lay a bias field over it, add noise.

    Parameters
    ----------
    scans
        float32, shape (n, 1, x, y, z), between 0 (background) and 1.
    changes
        Those of the n scans, on the same device.
    settings
        As for `draw_changes`; a kind of change that is 0 costs no time.

    Returns
    -------
    A tensor like `scans`.
    """
    if any(settings[name] for name in ("shift_voxels", "mirror", "rotate_degrees", "scale")):
        scans = F.grid_sample(scans, sampling_grid(changes.theta, scans.shape[2:]), align_corners=False)
    inside = scans > 1 / 512  # less is the rounding of the resampling
    if settings["intensity"]:
        scans = scans.clamp(min=0).pow_(changes.gamma).mul_(changes.gain)
    if settings["bias_field"]:
        field = F.interpolate(changes.field, scans.shape[2:], mode="trilinear", align_corners=True)
        scans = scans * field.exp_()
    if settings["noise"]:
        noise, generator = torch.empty_like(scans), torch.Generator(scans.device)
        for scan, seed in zip(noise, changes.seeds.tolist(), strict=True):
            scan.normal_(generator=generator.manual_seed(seed))
        scans = noise.mul_(changes.noise).add_(scans)
    return scans * inside
