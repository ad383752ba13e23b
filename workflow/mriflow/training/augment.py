"""Random changes to a batch of training scans, all at once on the device.

Those of an epoch are drawn at its beginning on the CPU (`draw_changes`), and applied batch by batch (`augment`).

A network predicts scans as they are, so a changed scan has to be as sharp as an unchanged one: what blurs training scans, as
linear interpolation does, makes a network take sharpness for a sign of the target. Shifts are by whole voxels, therefore, and
rotation and scale keep every frequency (`resample`).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

FIELD = (4, 4, 4)  # control points of the bias field along each axis


class Changes(NamedTuple):
    """What happens to each of n scans.

    Attributes
    ----------
    matrices
        Rotation and scale: where a voxel comes from, in voxels from the grid's centre, shape (n, 3, 3).
    mirrored
        Whether left and right are swapped, bool, shape (n,).
    shifts
        Whole voxels along each axis, int64, shape (n, 3).
    gamma, gain
        Exponent and factor of the intensities, shape (n, 1, 1, 1, 1).
    field
        Logarithm of the bias field at its control points, shape (n, 1, *FIELD).
    noise
        Standard deviation of the noise, shape (n, 1, 1, 1, 1).
    seeds
        Seed of each scan's noise, shape (n,), on the CPU.
    """

    matrices: torch.Tensor
    mirrored: torch.Tensor
    shifts: torch.Tensor
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


def draw_changes(count: int, voxel_mm: float, settings: Mapping[str, float], generator: torch.Generator) -> Changes:
    """Draw the changes of an epoch's scans.

    Parameters
    ----------
    count
        Number of scans.
    voxel_mm
        Edge of a voxel, mm.
    settings
        mirror (probability), shift_mm, rotate_degrees, scale, intensity, bias_field, noise: the largest change of each kind.
    generator
        On the CPU, so that the changes do not depend on the device.
    """

    def uniform(largest: float, *size: int) -> torch.Tensor:
        return (torch.rand(count, *size, generator=generator) * 2 - 1) * largest

    mirrored = torch.rand(count, generator=generator) < settings["mirror"]
    matrices = rotations(uniform(settings["rotate_degrees"], 3))
    largest_shift = int(settings["shift_mm"] / voxel_mm + 1e-6)
    return Changes(
        matrices=matrices * (1 + uniform(settings["scale"], 1, 1)),
        mirrored=mirrored,
        shifts=torch.randint(-largest_shift, largest_shift + 1, (count, 3), generator=generator),
        gamma=1 + uniform(settings["intensity"], 1, 1, 1, 1),
        gain=1 + uniform(settings["intensity"], 1, 1, 1, 1),
        field=uniform(settings["bias_field"], 1, *FIELD),
        noise=uniform(settings["noise"], 1, 1, 1, 1).abs(),
        seeds=torch.randint(2**62, (count,), generator=generator),  # what is drawn for a new field comes after this
    )


def rotations(degrees: torch.Tensor) -> torch.Tensor:
    """Return the rotations about the first axis, then the second, then the third, by angles of shape (n, 3), as matrices.

    >>> rotations(torch.tensor([[0.0, 0.0, 90.0]])).round().int()
    tensor([[[ 0, -1,  0],
             [ 1,  0,  0],
             [ 0,  0,  1]]], dtype=torch.int32)
    """
    cosines, sines = degrees.double().deg2rad().cos(), degrees.double().deg2rad().sin()
    turned = torch.eye(3, dtype=torch.float64).repeat(len(degrees), 1, 1)
    for axis in range(3):
        first, second = (axis + 1) % 3, (axis + 2) % 3
        turn = torch.eye(3, dtype=torch.float64).repeat(len(degrees), 1, 1)
        turn[:, first, first] = turn[:, second, second] = cosines[:, axis]
        turn[:, second, first], turn[:, first, second] = sines[:, axis], -sines[:, axis]
        turned = turn @ turned
    return turned.float()


def augment(scans: torch.Tensor, changes: Changes, settings: Mapping[str, float], image: int | None = 0) -> torch.Tensor:
    """Rotate, scale, mirror and shift each scan; change gamma and gain of its image, lay a bias field over it, add noise.

    Parameters
    ----------
    scans
        float32, shape (n, channels, x, y, z), between 0 (background) and 1.
    changes
        Those of the n scans, on the same device.
    settings
        As for `draw_changes`; a kind of change that is 0 costs no time.
    image
        The channel whose intensities are changed; the others are maps, whose values mean something. None if all are maps.

    Returns
    -------
    A tensor like `scans`.
    """
    if settings["rotate_degrees"] or settings["scale"]:
        scans = resample(scans, changes.matrices)
    if settings["mirror"] or settings["shift_mm"]:
        scans = moved(scans, changes.mirrored, changes.shifts)
    if image is None or not any(settings[name] for name in ("intensity", "bias_field", "noise")):
        return scans
    changed = altered(scans[:, image : image + 1], changes, settings)
    return changed if scans.shape[1] == 1 else torch.cat([scans[:, :image], changed, scans[:, image + 1 :]], dim=1)


def moved(scans: torch.Tensor, mirrored: torch.Tensor, shifts: torch.Tensor) -> torch.Tensor:
    """Return scans mirrored and shifted by whole voxels; no voxel changes its value, and what comes in is 0."""
    index = []
    for axis, count in enumerate(scans.shape[2:]):
        places = torch.arange(count, device=scans.device) - shifts[:, axis, None]  # (n, count)
        inside = (places >= 0) & (places < count)
        places = torch.where(mirrored[:, None], count - 1 - places, places) if axis == 0 else places
        index.append((places.clamp(0, count - 1), inside))
    (x, in_x), (y, in_y), (z, in_z) = index
    numbers = torch.arange(len(scans), device=scans.device)[:, None, None, None]
    # Advanced indices with a slice between them come first: (n, x, y, z, channels).
    taken = scans[numbers, :, x[:, :, None, None], y[:, None, :, None], z[:, None, None, :]].movedim(-1, 1)
    return taken * (in_x[:, None, :, None, None] & in_y[:, None, None, :, None] & in_z[:, None, None, None, :])


def moved_maps(labels: torch.Tensor, changes: Changes, settings: Mapping[str, float]) -> torch.Tensor:
    """Return label maps, shape (n, x, y, z), rotated, scaled, mirrored and shifted as `augment` does their images.

    Each voxel takes the number of its nearest one.
    """
    maps = labels[:, None]
    if settings["rotate_degrees"] or settings["scale"]:
        grid = grid_of(changes.matrices, labels.shape[1:])
        maps = F.grid_sample(maps.float(), grid, mode="nearest", align_corners=False).to(labels.dtype)
    if settings["mirror"] or settings["shift_mm"]:
        maps = moved(maps, changes.mirrored, changes.shifts)
    return maps[:, 0]


def altered(images: torch.Tensor, changes: Changes, settings: Mapping[str, float]) -> torch.Tensor:
    """Return images, shape (n, 1, x, y, z), with other intensities; the background stays 0."""
    inside = images > 0
    if settings["intensity"]:
        images = images.pow(changes.gamma).mul_(changes.gain)
    if settings["bias_field"]:
        field = F.interpolate(changes.field, images.shape[2:], mode="trilinear", align_corners=True)
        images = images * field.exp_()
    if settings["noise"]:
        noise, generator = torch.empty_like(images), torch.Generator(images.device)
        for image, seed in zip(noise, changes.seeds.tolist(), strict=True):
            image.normal_(generator=generator.manual_seed(seed))
        images = noise.mul_(changes.noise).add_(images)
    return images * inside


def resample(scans: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    """Rotate and scale scans, keeping every frequency: by shears and stretches of one axis at a time, in Fourier space.

    A matrix near the identity is the product of a lower triangular, a diagonal and an upper triangular one. The triangular ones
    are shears, which move each line of voxels along itself: a change of phase of its frequencies, as exact as can be (Unser et
    al. 1995, IEEE Transactions on Image Processing 4:1371). The diagonal one stretches all lines of an axis alike.

    Parameters
    ----------
    scans
        float32 between 0 (background) and 1, shape (n, channels, x, y, z).
    matrices
        Where a voxel comes from, in voxels from the grid's centre, shape (n, 3, 3); rotations of up to about 30 degrees.
    """
    inside = (scans > 0).any(1, keepdim=True).float()
    mask = F.grid_sample(inside, grid_of(matrices, scans.shape[2:]), align_corners=False) > 0.5
    lower, stretch, upper = triangular(matrices)
    for axis, factors in ((1, lower[:, 1]), (2, lower[:, 2])):
        scans = sheared(scans, axis, factors)
    for axis in range(3):
        scans = stretched(scans, axis, stretch[:, axis])
    for axis, factors in ((1, upper[:, 1]), (0, upper[:, 0])):
        scans = sheared(scans, axis, factors)
    return scans.clamp(0, 1) * mask


def triangular(matrices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the factors of matrices, shape (n, 3, 3): strictly lower, diagonal (n, 3) and strictly upper; not pivoted.

    >>> lower, diagonal, upper = triangular(torch.tensor([[[2.0, 1, 0], [1, 2, 1], [0, 1, 2]]]))
    >>> one = torch.eye(3)
    >>> (one + lower) @ torch.diag_embed(diagonal) @ (one + upper)
    tensor([[[2., 1., 0.],
             [1., 2., 1.],
             [0., 1., 2.]]])
    """
    rest, lower, upper = matrices.clone(), torch.zeros_like(matrices), torch.zeros_like(matrices)
    diagonal = []
    for step in range(3):
        pivot = rest[:, step, step]
        lower[:, step + 1 :, step] = rest[:, step + 1 :, step] / pivot[:, None]
        upper[:, step, step + 1 :] = rest[:, step, step + 1 :] / pivot[:, None]
        rest = rest - pivot[:, None, None] * torch.einsum("ni,nj->nij", lower[:, :, step], upper[:, step])
        diagonal.append(pivot)
    return lower, torch.stack(diagonal, 1), upper


def sheared(scans: torch.Tensor, axis: int, factors: torch.Tensor) -> torch.Tensor:
    """Move each line along `axis` (0 to 2) by `factors` (n, 3) times its place on the other axes."""
    length = scans.shape[axis + 2]
    shift = scans.new_zeros(1)
    for other in {0, 1, 2} - {axis}:
        shift = shift + factors[:, other].view(-1, 1, 1, 1, 1) * along(other, from_centre(scans, other))
    turns = along(axis, torch.arange(length // 2 + 1, device=scans.device) * (2 * torch.pi / length))
    phase = shift * turns
    lines = torch.fft.rfft(scans, dim=axis + 2) * torch.polar(torch.ones_like(phase), phase)
    return torch.fft.irfft(lines, n=length, dim=axis + 2)


def stretched(scans: torch.Tensor, axis: int, factors: torch.Tensor) -> torch.Tensor:
    """Take each line along `axis` (0 to 2) at `factors` (n,) times the places of its voxels."""
    length = scans.shape[axis + 2]
    places = from_centre(scans, axis)
    turns = torch.arange(length // 2 + 1, device=scans.device) * (2 * torch.pi / length)
    counted = torch.full_like(turns, 2 / length)  # every frequency and its mirror image
    counted[0] = 1 / length
    if length % 2 == 0:
        counted[-1] = 1 / length
    wanted, known = factors[:, None, None] * places[:, None] * turns, places[:, None] * turns
    weights = (wanted.cos() * counted) @ known.cos().T + (wanted.sin() * counted) @ known.sin().T  # (n, length, length)
    return torch.einsum("nab,n...b->n...a", weights, scans.movedim(axis + 2, -1)).movedim(-1, axis + 2)


def from_centre(scans: torch.Tensor, axis: int) -> torch.Tensor:
    """Return the places of the voxels along an axis (0 to 2), in voxels from the grid's centre."""
    length = scans.shape[axis + 2]
    return torch.arange(length, dtype=scans.dtype, device=scans.device) - (length - 1) / 2


def along(axis: int, values: torch.Tensor) -> torch.Tensor:
    """Return values with the shape that lays them along an axis (0 to 2) of scans."""
    shape = [1, 1, 1, 1, 1]
    shape[axis + 2] = len(values)
    return values.view(shape)


def grid_of(matrices: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Return `matrices`, in voxels from the grid's centre, as `grid_sample` wants them: from -1 to 1, the last axis first."""
    half = torch.tensor(shape, dtype=torch.float32, device=matrices.device) / 2
    scaled = matrices * half[None, None, :] / half[None, :, None]
    theta = F.pad(scaled.flip(1, 2), (0, 1))
    return F.affine_grid(theta, [len(matrices), 1, *shape], align_corners=False)
