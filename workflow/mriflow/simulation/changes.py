"""Where in the template's space a label changes the simulated brains: what a network that predicts it can look at."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from mriflow.images.registration import grid_affine
from mriflow.simulation.brain import NODE_MM, Array, Template, bend, colour, column, load_template, refine

PEOPLE = 2
YOUNG, OLD, MIDDLE = 30.0, 76.0, 53.0  # years


def changes_of(label: str, voxel_mm: float, shape: Sequence[int]) -> Array | None:
    """Return how much the brightness of a voxel differs between two simulated people who differ in one label alone.

    They have the same anatomy, by the generator that makes the demo cohort, upright and without noise or bias field. It is the
    mean amount over `PEOPLE` pairs.

    Parameters
    ----------
    label
        ``age`` or ``sex``; of another it is not known.
    voxel_mm, shape
        The grid, as in a preprocess block.

    Returns
    -------
    float32 of `shape`, or None.
    """
    pairs = {"age": ((YOUNG, 0.0), (OLD, 0.0)), "sex": ((MIDDLE, -1.0), (MIDDLE, 1.0))}
    if label not in pairs:
        return None
    template = load_template()
    total = np.zeros(shape, np.float32)
    for number in range(PEOPLE):
        one, other = (
            upright(template, age, maleness, voxel_mm, shape, np.random.default_rng(number)) for age, maleness in pairs[label]
        )
        total += np.abs(one - other)
    return total / PEOPLE


def upright(
    template: Template, age: float, maleness: float, voxel_mm: float, shape: Sequence[int], rng: np.random.Generator
) -> Array:
    """Return a simulated brain on a grid in template space, float32 of `shape`."""
    first = grid_affine(voxel_mm, shape)[:3, 3]
    nodes = np.indices([int(np.ceil(count * voxel_mm / NODE_MM)) + 1 for count in shape]) * NODE_MM
    points = bend(nodes + column(first), age, maleness, rng) - column(template.origin_mm)
    voxels = refine(points.astype(np.float32), tuple(shape), voxel_mm)
    blurred = ndimage.gaussian_filter(colour(template, age, maleness, rng), voxel_mm / 2.355)  # else a coarse grid would alias
    return ndimage.map_coordinates(blurred, voxels, order=1)
