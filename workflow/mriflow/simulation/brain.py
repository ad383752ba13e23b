"""A simulated T1-weighted brain. Nothing here is a scan of a person."""

from dataclasses import dataclass
from functools import cache

import nibabel as nib
import numpy as np
from nilearn.datasets import load_mni152_gm_template, load_mni152_template, load_mni152_wm_template
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from mriflow.simulation.people import SITES, Person

Array = NDArray[np.float32]

NOTE = "simulated by mriflow, not a real scan"

FIELD_OF_VIEW_MM = np.array([256.0, 224.0, 192.0])  # along P, S, R: the axes of IXI
NODE_MM = 8.0  # smooth fields are computed on a grid this coarse and interpolated
BRAIN_CENTRE_MM = np.array([0.0, -13.0, 4.0])  # of the template, in MNI space
VENTRICLES_MM = np.array([[0.0, -18.0, 14.0], [22.0, 36.0, 20.0]])  # centre in MNI space, width (sigma)
FRONTAL_MM = np.array([[0.0, 42.0, 10.0], [40.0, 25.0, 30.0]])


@dataclass(frozen=True)
class Template:
    """The ICBM152 average at 1 mm, cropped to the brain; all maps of shape (x, y, z), values 0 to 1."""

    t1: Array
    grey: Array
    csf: Array
    frontal: Array  # grey matter, weighted by nearness to the frontal lobes
    origin_mm: NDArray[np.float64]  # of the first voxel, in MNI space


@cache
def load_template() -> Template:
    """Return the maps that every subject is made from."""
    image = load_mni152_template(resolution=1)
    box = ndimage.find_objects((np.asarray(image.dataobj) > 0).astype(np.uint8))[0]
    t1, grey, white = (
        np.asarray(i.slicer[box].dataobj, np.float32)
        for i in (image, load_mni152_gm_template(resolution=1), load_mni152_wm_template(resolution=1))
    )
    origin = image.slicer[box].affine[:3, 3]
    frontal = grey * nearness(np.indices(t1.shape, np.float32) + column(origin), FRONTAL_MM)
    csf = np.where(t1 > 0, np.clip(1 - grey - white, 0, 1), 0).astype(np.float32)
    return Template(t1, grey, csf, frontal.astype(np.float32), origin)


def column(vector: NDArray) -> NDArray:
    """Return a vector of shape (3,) as (3, 1, 1, 1), to be added to coordinates."""
    return np.asarray(vector, np.float32)[:, None, None, None]


def nearness(points: NDArray, region: NDArray) -> NDArray:
    """Return a Gaussian bump, 1 at the region's centre, at `points` of shape (3, …); `region`: centre, width; in mm."""
    centre, sigma = region
    return np.exp(-0.5 * np.sum(((points - column(centre)) / column(sigma)) ** 2, axis=0))


def smooth_noise(shape: tuple[int, ...], sd: float, sigma_mm: float, rng: np.random.Generator) -> NDArray:
    """Return a random smooth field of `shape` on the coarse grid with standard deviation `sd`."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), sigma_mm / NODE_MM, mode="wrap")
    return noise * (sd / noise.std())


def colour(template: Template, age: float, maleness: float, rng: np.random.Generator) -> Array:
    """Return the subject's T1 intensities in the template's space, 0.08 to 1 in the brain and 0 outside."""
    old = (age - 20) / 66
    wider_sulci = 0.26 * old + rng.normal(0, 0.03)
    darker_grey = 0.10 * old + rng.normal(0, 0.02)
    image = template.t1 - wider_sulci * template.csf - darker_grey * template.grey
    image = image - 0.03 * maleness * template.frontal
    return np.where(template.t1 > 0, np.clip(image, 0.08, 1), 0)  # a floor, so that dark CSF stays inside the brain


def bend(points: NDArray, age: float, maleness: float, rng: np.random.Generator) -> NDArray:
    """Say where in the template the subject's anatomy is found: points of shape (3, …), mm in MNI space, both."""
    points = points + np.stack([smooth_noise(points.shape[1:], 1.5, 24, rng) for _ in range(3)])
    # Waves, not stretches: an affine registration takes every stretch away, and head size with it.
    x, y, z = (points - column(BRAIN_CENTRE_MM)) * np.pi / column(np.array([70.0, 85.0, 75.0]))
    points = points + 0.75 * maleness * np.stack([np.sin(2 * x), np.cos(z) + np.cos(2 * y), np.cos(y)])
    widening = 0.10 + 0.40 * (age - 20) / 66 + rng.normal(0, 0.03)
    return points - widening * nearness(points, VENTRICLES_MM) * (points - column(VENTRICLES_MM[0]))


def pose(points: NDArray, male: bool, rng: np.random.Generator) -> NDArray:
    """Take points of the scanner, shape (3, …), mm from its centre, to MNI space: turn, shift and size of the head."""
    turn = Rotation.from_euler("xyz", rng.uniform(-8, 8, 3), degrees=True).as_matrix()
    shift = rng.uniform(-10, 10, 3)
    size = (1.02 if male else 0.98) + rng.normal(0, 0.025) + rng.normal(0, 0.01, 3)
    upright = np.tensordot(turn.T, points - column(shift), axes=1)
    return upright / column(size) + column(BRAIN_CENTRE_MM)


def refine(field: NDArray, shape: tuple[int, ...], voxel_mm: float) -> Array:
    """Interpolate a field of the coarse grid, shape (…, a, b, c), linearly to voxels, shape (…, i, j, k)."""
    for axis, length in zip((-3, -2, -1), shape, strict=True):
        voxels = np.arange(length) * voxel_mm / NODE_MM
        weights = np.maximum(0, 1 - np.abs(voxels[:, None] - np.arange(field.shape[axis])))
        field = np.moveaxis(np.tensordot(field, weights.astype(np.float32), axes=(axis, 1)), -1, axis)
    return field


@dataclass(frozen=True)
class Anatomy:
    """Where one subject's voxels are found in the template, and what else makes the subject's brain.

    Attributes
    ----------
    points
        On the coarse grid, shape (3, a, b, c), in voxels of the template.
    shape, affine
        Of the image.
    age, maleness
        Of the brain, not of the person.
    """

    points: NDArray
    shape: tuple[int, ...]
    affine: NDArray
    age: float
    maleness: float


def draw_anatomy(person: Person, template: Template, voxel_mm: float, rng: np.random.Generator) -> Anatomy:
    """Draw one subject's pose and anatomy; axes P-S-R."""
    age = person.age + rng.normal(0, 2.5)  # brains of one age differ, and so do brains of one sex
    maleness = (1 if person.male else -1) + rng.normal(0, 0.45)

    axes = np.array([[0, 0, 1], [-1, 0, 0], [0, 1, 0]])  # columns P, S, R in world axes R, A, S
    shape = tuple(int(n) for n in FIELD_OF_VIEW_MM // voxel_mm)
    first = -axes @ (FIELD_OF_VIEW_MM / 2)
    nodes = np.indices([int(n) + 1 for n in FIELD_OF_VIEW_MM // NODE_MM]) * NODE_MM
    points = np.tensordot(axes, nodes, axes=1) + column(first)
    points = bend(pose(points, person.male, rng), age, maleness, rng) - column(template.origin_mm)
    return Anatomy(points, shape, nib.affines.from_matvec(axes * voxel_mm, first), age, maleness)


def make_label_map(person: Person, template: Template, voxel_mm: float, rng: np.random.Generator) -> nib.Nifti1Image:
    """Return the tissues of one subject's image, which the same `rng` makes: uint8, 1 CSF, 2 grey and 3 white matter."""
    anatomy = draw_anatomy(person, template, voxel_mm, rng)
    voxels = refine(anatomy.points.astype(np.float32), anatomy.shape, voxel_mm)
    brain = (template.t1 > 0).astype(np.float32)
    white = np.clip(brain - template.grey - template.csf, 0, 1)
    shares = [ndimage.map_coordinates(one, voxels, order=1) for one in (template.csf, template.grey, white)]
    inside = ndimage.map_coordinates(brain, voxels, order=1) > 0.5
    labels = np.where(inside, 1 + np.argmax(shares, axis=0), 0).astype(np.uint8)
    return described(nib.Nifti1Image(labels, anatomy.affine))


def described(image: nib.Nifti1Image) -> nib.Nifti1Image:
    """Return an image whose header says that it is simulated."""
    image.header["descrip"] = NOTE
    image.header.set_xyzt_units("mm")
    return image


def make_image(person: Person, template: Template, voxel_mm: float, rng: np.random.Generator) -> nib.Nifti1Image:
    """Return one subject's image: int16, axes P-S-R, the brain only, 0 around it."""
    _, gamma, noise, brightest = SITES[person.site]
    anatomy = draw_anatomy(person, template, voxel_mm, rng)
    shape, age, maleness = anatomy.shape, anatomy.age, anatomy.maleness
    bias = np.exp(smooth_noise(anatomy.points.shape[1:], 0.08, 50, rng))

    voxels = refine(anatomy.points.astype(np.float32), shape, voxel_mm)
    clean = ndimage.map_coordinates(colour(template, age, maleness, rng), voxels, order=1)
    signal = clean**gamma * refine(bias.astype(np.float32), shape, voxel_mm)
    scale = brightest * rng.uniform(0.8, 1.25)  # a scanner's units are arbitrary
    real, imaginary = noise * rng.standard_normal((2, *shape), dtype=np.float32)
    magnitude = np.hypot(signal + real, imaginary)  # Rician, as in a magnitude image
    voxels_of_file = np.where(clean > 0.04, magnitude * scale, 0).round().astype(np.int16)
    return described(nib.Nifti1Image(voxels_of_file, anatomy.affine))
