"""Training images made of label maps: any contrast, and many resolutions and artefacts (SynthSeg, Billot et al. 2023).

A network that has seen no real image, but a new one in every step, of contrasts wider than any scanner's, has nothing to go by
but shape: it segments scans of contrasts that it was never shown (Medical Image Analysis 86:102789), if these come onto the
grid: registration expects T1 weighting, and an inverted contrast is refused.

All that is drawn for a scan follows from its seed alone, whatever is in the batch beside it. It is drawn on the CPU, but for
the noise, and applied to the batch on its device.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

from mriflow.training.augment import grid_of, rotations

NODES = (8, 8, 8)  # control points of the deformation along each axis, 20 to 30 mm apart
FIELD = (4, 4, 4)  # control points of the bias field along each axis
GAP = 0.12  # least difference of brightness between tissues in order; of many, less: all gaps take half of the room
REACH = 4  # standard deviations to which a Gaussian is cut off


class Recipe(NamedTuple):
    """What is drawn for n scans with c classes, on the device.

    Attributes
    ----------
    matrices
        Rotation, scale and shear: where a voxel comes from, in voxels from the grid's centre, shape (n, 3, 3).
    displacement
        Of the control points, in voxels, shape (n, 3, *NODES).
    mean, sd
        Brightness of the classes and its standard deviation within each, shape (n, c).
    blur
        Standard deviation of the partial volume, in voxels, shape (n, 3).
    bias
        Logarithm of the bias field at its control points, shape (n, 1, *FIELD).
    slices
        Thickness of the slices in voxels, along one axis of each scan and 1 along the others, shape (n, 3).
    noise, gamma
        Standard deviation of the noise, and exponent, shape (n, 1, 1, 1).
    generated
        Which scans are generated at all, bool, shape (n,).
    """

    matrices: torch.Tensor
    displacement: torch.Tensor
    mean: torch.Tensor
    sd: torch.Tensor
    blur: torch.Tensor
    bias: torch.Tensor
    slices: torch.Tensor
    noise: torch.Tensor
    gamma: torch.Tensor
    generated: torch.Tensor


def generate(
    images: torch.Tensor,
    labels: torch.Tensor,
    seeds: Sequence[int],
    classes: Sequence[str],
    settings: Mapping[str, Any],
    voxel_mm: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return generated images, and the label maps that belong to them.

    Parameters
    ----------
    images
        The real ones, shape (n, 1, x, y, z). Only where they are 0 counts: outside of the brain.
    labels
        The number of each voxel's class, 0 for none; uint8, shape (n, x, y, z).
    seeds
        Of each scan.
    classes
        Their names, from number 1.
    settings
        The block `synthesis` of the training block.
    voxel_mm
        Edge of a voxel, mm.

    Returns
    -------
    images
        Like those given, between 0 (around the brain) and 1; scans that are not to be generated (`share`) as they are.
    labels
        Like those given, deformed with their images.
    """
    drawn = [draw(seed, classes, settings, voxel_mm) for seed in seeds]
    recipe = Recipe(*(torch.stack(values).to(images.device) for values in zip(*drawn, strict=True)))
    inside = images[:, 0] > 0
    kinds = len(classes) + 2
    # One map of both, the brain's voxels of no class as a tissue of its own, so that it is sampled once.
    tissue = torch.where(inside, torch.where(labels > 0, labels, kinds - 1), 0)
    moved = deformed(torch.stack([tissue, labels], 1), recipe)
    tissue, truth = moved[:, 0], moved[:, 1]
    texture, noise = torch.empty(2, *tissue.shape, device=images.device)
    for number, seed in enumerate(seeds):
        random = torch.Generator(images.device).manual_seed(seed + 2)
        texture[number].normal_(generator=random)
        noise[number].normal_(generator=random)
    made = painted(tissue, recipe, texture)
    made = blurred(made, recipe.blur)
    made = made * F.interpolate(recipe.bias, made.shape[1:], mode="trilinear", align_corners=True)[:, 0].exp()
    made = thick(made, recipe.slices) + recipe.noise * noise
    made = scaled(made, tissue > 0).pow(recipe.gamma) * (tissue > 0)
    chosen = recipe.generated.view(-1, 1, 1, 1)
    return torch.where(chosen[:, None], made[:, None], images), torch.where(chosen, truth, labels)


def draw(seed: int, classes: Sequence[str], settings: Mapping[str, Any], voxel_mm: float) -> Recipe:
    """Draw what happens to one scan, each field without its first axis; `seed` is all that it depends on."""
    random = torch.Generator().manual_seed(seed + 1)  # the seed itself is that of augmentation's noise

    def uniform(low: float, high: float, *size: int) -> torch.Tensor:
        return torch.rand(size, generator=random) * (high - low) + low

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=random)

    angle, stretch, shear = settings["rotate_degrees"], settings["scale"], settings["shear"]
    matrix = rotations(uniform(-angle, angle, 1, 3))[0] @ torch.diag(1 + uniform(-stretch, stretch, 3))
    matrix = matrix @ (torch.eye(3) + torch.triu(uniform(-shear, shear, 3, 3), diagonal=1))
    size = uniform(0, settings["elastic_mm"] / voxel_mm, 1)
    displacement = size * normal(3, *NODES)
    # As many numbers are drawn of every scan, so that what follows does not depend on whether the tissues are in order.
    ordered, mean, jitter = uniform(0, 1, 1) < settings["ordered"], uniform(0.05, 1, len(classes)), normal(len(classes))
    steps = uniform(0, 1, len(settings["order"]) + 1)
    if ordered and settings["order"]:
        mean = in_order(classes, settings["order"], mean, steps, jitter)
    tissues = torch.cat([torch.zeros(1), mean, uniform(0.05, 1, 1)])  # around the brain, the classes, the rest of the brain
    sd = torch.cat([torch.zeros(1), uniform(0, settings["texture"], len(classes) + 1)])
    thickness = max(1.0, float(uniform(voxel_mm, max(voxel_mm, settings["slice_mm"]), 1)) / voxel_mm)
    slices, axis = torch.ones(3), int(torch.randint(3, (1,), generator=random))
    slices[axis] = thickness if uniform(0, 1, 1) < settings["thick"] else 1.0
    return Recipe(
        matrices=matrix,
        displacement=displacement,
        mean=tissues,
        sd=sd,
        blur=uniform(0.3, max(0.3, settings["blur_mm"] / voxel_mm), 1).expand(3),
        bias=uniform(0, settings["bias_field"], 1) * normal(1, *FIELD),
        slices=slices,
        noise=uniform(0, settings["noise"], 1, 1, 1),
        gamma=(settings["gamma"] * normal(1, 1, 1)).exp(),
        generated=uniform(0, 1, 1)[0] < settings["share"],
    )


def in_order(
    classes: Sequence[str], order: Sequence[Sequence[str]], free: torch.Tensor, steps: torch.Tensor, jitter: torch.Tensor
) -> torch.Tensor:
    """Return the brightness of classes from dark to bright as `order` has them, those in one group about alike.

    Parameters
    ----------
    free
        The brightness of classes that are in no group.
    steps
        One more than groups: between 0 and 1, how the room beside the gaps is shared.
    jitter
        Standard normal, one a class.
    """
    gap = min(GAP, 0.5 / len(order))
    room = 1 - gap * len(order)
    levels = gap * torch.arange(len(order)) + room * (steps / steps.sum()).cumsum(0)[:-1]
    mean = free.clone()
    for level, group in zip(levels, order, strict=True):
        for name in group:
            place = list(classes).index(name)
            mean[place] = (level + 0.1 * gap * jitter[place]).clamp(0.02, 1)
    return mean


def deformed(maps: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    """Return label maps, uint8 of shape (n, maps, x, y, z), turned and bent; each voxel takes its nearest one's number."""
    shape = maps.shape[2:]
    grid = grid_of(recipe.matrices, shape)
    bend = F.interpolate(recipe.displacement, shape, mode="trilinear", align_corners=True)
    bend = bend * torch.tensor([2 / length for length in shape], device=maps.device).view(1, 3, 1, 1, 1)
    grid = grid + bend.flip(1).movedim(1, -1)  # the last axis first
    return F.grid_sample(maps.float(), grid, mode="nearest", align_corners=False).to(maps.dtype)


def painted(tissue: torch.Tensor, recipe: Recipe, texture: torch.Tensor) -> torch.Tensor:
    """Return the brightness of every voxel, shape (n, x, y, z), by the number of its tissue."""
    places = tissue.flatten(1).long()
    mean, sd = (values.gather(1, places).view(tissue.shape) for values in (recipe.mean, recipe.sd))
    return mean + sd * texture


def blurred(images: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Return images, shape (n, x, y, z), smoothed by Gaussians of `sigma` voxels, shape (n, 3), along each axis."""
    count = len(images)
    for axis in range(3):
        reach = int(REACH * float(sigma[:, axis].max()) + 0.5)
        if not reach:
            continue
        places = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
        weights = torch.exp(-0.5 * (places / sigma[:, axis : axis + 1].clamp(min=1e-3)).square())
        weights = weights / weights.sum(1, keepdim=True)
        kernel = [count, 1, 1, 1, 1]
        kernel[axis + 2] = len(places)
        padding = [0, 0, 0]
        padding[axis] = reach
        images = F.conv3d(images[None], weights.view(kernel), padding=padding, groups=count)[0]
    return images


def thick(images: torch.Tensor, slices: torch.Tensor) -> torch.Tensor:
    """Return images, shape (n, x, y, z), as slices so many voxels thick, shape (n, 3), would show them."""
    made = []
    for image, thickness in zip(images, slices.tolist(), strict=True):
        shape = [max(1, round(length / one)) for length, one in zip(image.shape, thickness, strict=True)]
        if shape == list(image.shape):
            made.append(image)
            continue
        few = F.interpolate(image[None, None], shape, mode="area")
        made.append(F.interpolate(few, image.shape, mode="trilinear", align_corners=False)[0, 0])
    return torch.stack(made)


def scaled(images: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Return images between 0 and 1 from the 0.5th to the 99.5th percentile of the brain, as `preprocess` scales scans."""
    made = []
    for image, brain in zip(images, inside, strict=True):
        known = image[brain]
        ends = torch.quantile(known[:: max(1, len(known) // 50_000)], known.new_tensor([0.005, 0.995]))
        made.append(((image - ends[0]) / (ends[1] - ends[0]).clamp(min=1e-6)).clamp(1 / 255, 1))
    return torch.stack(made)
