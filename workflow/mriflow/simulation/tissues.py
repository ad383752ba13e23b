"""Label maps from which a network learns to segment real scans: the template's tissues, more varied than the demo's people."""

from dataclasses import dataclass
from functools import cache

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mriflow.simulation.brain import (
    VENTRICLES_MM,
    Array,
    Template,
    column,
    described,
    draw_anatomy,
    load_template,
    nearness,
    refine,
)
from mriflow.simulation.people import SITES, Person

CSF, GREY, WHITE, VENTRICLES = 1, 2, 3, 4
BRIGHTNESS = np.array([0.0, 0.3, 0.62, 0.88, 0.3])  # of background and each label, T1-weighted

# Boxes in MNI space, mm: half the width (x), and from where to where along y and z.
THIRD_VENTRICLE = (6, (-28, 6), (-14, 12))
FOURTH_VENTRICLE = (15, (-58, -34), (-50, -18))
# Ellipsoids in MNI space, mm, one on each side: centre, radii, and how far the centre moves inwards for each mm forwards.
THALAMUS = ((11, -18, 7), (10, 15, 10), 0)
LENTIFORM = ((24, 0, 1), (9, 18, 11), 0.3)
PALLIDUM = ((19, -5, -1), (7, 9, 7), 0)


@dataclass(frozen=True)
class Tissues:
    """The tissues of the template, all maps of its shape (x, y, z)."""

    shares: tuple[Array, Array, Array]  # CSF, grey and white matter, 0 to 1
    ventricles: Array  # 1 where CSF is that of ventricles, else 0


@cache
def load_tissues() -> Tissues:
    """Return the template's tissues, with deep grey matter as grey matter and its four ventricles.

    The template's maps count most of thalamus and pallidum as white matter, for they are nearly as bright; and they do not
    tell ventricles from the CSF around the brain.
    """
    template = load_template()
    points = np.indices(template.t1.shape, np.float32) + column(template.origin_mm)
    brain = (template.t1 > 0).astype(np.float32)
    lentiform = ellipsoids(points, *LENTIFORM) & (template.grey > 0.25)  # the rest is the internal capsule
    deep = ellipsoids(points, *THALAMUS) | lentiform | ellipsoids(points, *PALLIDUM)
    deep_share = ndimage.gaussian_filter(deep.astype(np.float32), 0.7) * np.clip(1 - 2 * template.csf, 0, 1) * brain
    grey = np.maximum(template.grey, 0.85 * deep_share)
    white = np.clip(brain - grey - template.csf, 0, 1)

    small = (template.csf > 0.4) & (box(points, *THIRD_VENTRICLE) | box(points, *FOURTH_VENTRICLE))
    # Where ventricles are after a person's brain was bent; the thin ones have cisterns close by.
    place = ndimage.binary_dilation(lateral_ventricles(template, points), iterations=3) | ndimage.binary_dilation(small)
    return Tissues((template.csf, grey, white), place.astype(np.float32))


def lateral_ventricles(template: Template, points: NDArray) -> NDArray[np.bool_]:
    """Return the lateral ventricles: of the large pieces of CSF deep in the brain and near them, the highest."""
    depth = ndimage.distance_transform_edt(template.t1 > 0)
    pieces, count = ndimage.label((template.csf > 0.5) & (nearness(points, VENTRICLES_MM) > 0.15) & (depth > 15))
    large = [piece for piece in range(1, count + 1) if (pieces == piece).sum() > 3000]
    return pieces == max(large, key=lambda piece: ndimage.center_of_mass(pieces == piece)[2])


def box(points: NDArray, width: float, along_y: tuple[float, float], along_z: tuple[float, float]) -> NDArray[np.bool_]:
    """Return which points, shape (3, …), lie in a box around the midline."""
    x, y, z = points
    return (abs(x) < width) & (along_y[0] < y) & (y < along_y[1]) & (along_z[0] < z) & (z < along_z[1])


def ellipsoids(points: NDArray, centre: tuple, radii: tuple, inwards: float) -> NDArray[np.bool_]:
    """Return which points, shape (3, …), lie in either of two ellipsoids that mirror each other."""
    x, y, z = points
    of_centre = (abs(x) - centre[0] + inwards * y, y - centre[1], z - centre[2])
    return sum((distance / radius) ** 2 for distance, radius in zip(of_centre, radii, strict=True)) < 1


def varied_label_map(person: Person, template: Template, voxel_mm: float, rng: np.random.Generator) -> nib.Nifti1Image:
    """Return the tissues of one subject: uint8, `CSF`, `GREY`, `WHITE`, `VENTRICLES`, 0 outside.

    Beside what makes the demo's people differ, smooth noise on the log of the tissues' shares folds the cortex anew: where
    template and person agree in every fold, a network would learn where the folds are.
    """
    tissues, anatomy = load_tissues(), draw_anatomy(person, template, voxel_mm, rng)
    voxels = refine(anatomy.points.astype(np.float32), anatomy.shape, voxel_mm)

    def sampled(one: Array) -> Array:
        return ndimage.map_coordinates(one, voxels, order=1)

    at_ventricles = sampled(tissues.ventricles) > 0.5
    strength, width_mm = rng.uniform(0.5, 1.5), rng.uniform(2, 3.5)
    away = ndimage.gaussian_filter(1 - 0.8 * at_ventricles.astype(np.float32), 3 / voxel_mm)  # they have no folds
    logs = []
    for share in tissues.shares:
        noise = ndimage.gaussian_filter(rng.standard_normal(anatomy.shape, dtype=np.float32), width_mm / voxel_mm)
        logs.append(np.log(np.clip(sampled(share), 0.02, 1)) + strength * away * noise / noise.std())
    logs[0] += 0.8 * (person.age - 50) / 33 + rng.normal(0, 0.4)  # CSF spaces widen with age, and differ
    labels = np.where(sampled((template.t1 > 0).astype(np.float32)) > 0.5, CSF + np.argmax(logs, axis=0), 0)
    labels[(labels == CSF) & at_ventricles] = VENTRICLES
    return described(nib.Nifti1Image(labels.astype(np.uint8), anatomy.affine))


def varied_image(person: Person, template: Template, voxel_mm: float, rng: np.random.Generator) -> nib.Nifti1Image:
    """Return an image of the label map that the same `rng` makes: int16, the brain only, 0 around it.

    It is there to be registered, and to look at: networks learn from images that are generated of the label map.
    """
    label_map = varied_label_map(person, template, voxel_mm, rng)
    labels = np.asarray(label_map.dataobj)
    _, _, noise, brightest = SITES[person.site]
    image = ndimage.gaussian_filter(BRIGHTNESS[labels], 0.75 / voxel_mm) + rng.normal(0, noise, labels.shape)
    voxels_of_file = np.where(labels > 0, np.clip(image, 0.05, 2) * brightest, 0).round().astype(np.int16)
    return described(nib.Nifti1Image(voxels_of_file, label_map.affine))
