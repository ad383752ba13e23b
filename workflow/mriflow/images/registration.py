"""Bring a brain onto the network's grid: registered to the ICBM152 template by ANTs, and resampled once."""

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np

from mriflow.images.nifti import Scan

# Read by ITK when ANTs is first used: sums over several threads differ in their last bits from run to run.
os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"

# Centre of the SFCN paper's grid: the middle of FSL's 182 x 218 x 182 MNI152 image, in mm from the anterior commissure.
CENTRE_MM = (-0.5, -17.5, 18.5)
REGISTRATION_MM = 3.0  # on real heads, finer images cost several times as much and did not correlate better afterwards
REGISTRATION_SHAPE = (64, 76, 64)  # voxels, around the whole brain
TEMPLATE_ML = 1840.0  # volume of the template's brain


class OnGrid(NamedTuple):
    """A scan on a grid.

    Attributes
    ----------
    image
        float32, shape of the grid, 0 outside the brain.
    inside
        bool, shape of the grid: the brain.
    maps
        float32, shape of the grid, one for each map that was given, also around the brain.
    correlation, scale
        Correlation with the template; volume of the scan over its volume on the grid.
    """

    image: np.ndarray
    inside: np.ndarray
    maps: list[np.ndarray]
    correlation: float
    scale: float


@cache
def template() -> nib.Nifti1Image:
    """Return the brain of the ICBM152 2009a template at 1 mm (Fonov et al. 2011), from nilearn."""
    from nilearn.datasets import load_mni152_template

    return load_mni152_template(resolution=1)


def grid_affine(voxel_mm: float, shape: Sequence[int]) -> np.ndarray:
    """Return the affine, shape (4, 4), of a RAS grid of `shape` voxels of `voxel_mm` around `CENTRE_MM`.

    >>> grid_affine(2.0, (80, 96, 80)).tolist()
    [[2.0, 0.0, 0.0, -79.5], [0.0, 2.0, 0.0, -112.5], [0.0, 0.0, 2.0, -60.5], [0.0, 0.0, 0.0, 1.0]]
    """
    affine = np.diag([voxel_mm, voxel_mm, voxel_mm, 1.0])
    affine[:3, 3] = np.array(CENTRE_MM) - voxel_mm * (np.array(shape) - 1) / 2
    return affine


@cache
def template_on_grid(voxel_mm: float, shape: tuple[int, ...]) -> tuple[np.ndarray, Any]:
    """Return the template on a grid: its voxels, float32 of `shape`, and the ANTs image."""
    reference = ants_image(np.zeros(shape, np.float32), grid_affine(voxel_mm, shape))
    image = resample(ants_image(np.asarray(template().dataobj, np.float32), template().affine), reference, [])
    return image.numpy(), image


def ants_image(data: np.ndarray, affine: np.ndarray) -> Any:
    """Return an ANTs image of `data` with a NIfTI `affine` (ANTs counts x and y the other way)."""
    import ants

    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    return ants.from_numpy(
        np.ascontiguousarray(data, dtype=np.float32),
        origin=affine[:3, 3].tolist(),
        spacing=spacing.tolist(),
        direction=affine[:3, :3] / spacing,
    )


def resample(moving: Any, fixed: Any, transforms: list[str]) -> Any:
    """Return `moving` on the grid of `fixed`, smoothed first where that grid is coarser (else it would alias)."""
    import ants

    width = np.sqrt(np.maximum(0, np.square(fixed.spacing) - np.square(moving.spacing)))
    if width.max() > 0.5:
        moving = ants.smooth_image(moving, width.tolist(), sigma_in_physical_coordinates=True, FWHM=True)
    return ants.apply_transforms(fixed, moving, transforms, interpolator="linear")


def to_grid(
    scan: Scan,
    data: np.ndarray,
    brain: np.ndarray,
    registration: str,
    transform: np.ndarray,
    voxel_mm: float,
    shape: Sequence[int],
    maps: Iterable[Any] = (),
) -> OnGrid:
    """Resample a scan's brain, and maps of it (ANTs images in the scan's space), by the transform of `find_transform`."""
    moving, mask = ants_image(data, scan.affine), ants_image(brain, scan.affine)
    _, grid = template_on_grid(voxel_mm, tuple(shape))
    with tempfile.TemporaryDirectory() as folder:
        transforms = [f"{folder}/transform.mat"] if len(transform) else []
        for file in transforms:
            Path(file).write_bytes(transform.tobytes())
        inside = resample(mask, grid, transforms).numpy() > 0.5
        image = np.where(inside, resample(moving, grid, transforms).numpy(), 0)
        on_grid = [resample(one, grid, transforms).numpy() for one in maps]
        scale = abs(np.linalg.det(matrix_of(transforms[0]))) if transforms else 1.0
        resize = registration != "affine" and not scan.in_mni
        correlation = likeness(moving, mask, transforms, folder, resize)
    return OnGrid(image, inside, on_grid, correlation, float(scale))


def own_voxels(scan: Scan, at_least_mm: float = 0) -> Any:
    """Return an ANTs image of zeros in a scan's space: its own voxels, or so large ones where its own are smaller."""
    import ants

    own = ants_image(np.zeros(scan.data.shape, np.float32), scan.affine)
    spacing = [max(at_least_mm, size) for size in own.spacing]
    return own if spacing == list(own.spacing) else ants.resample_image(own, spacing, use_voxels=False, interp_type=0)


def from_grid(maps: Iterable[np.ndarray], own: Any, transform: np.ndarray, voxel_mm: float) -> Iterator[Any]:
    """Yield maps on a grid, each of its shape, as ANTs images on `own_voxels`, 0 beyond the grid: the way back of `to_grid`."""
    import ants

    with tempfile.TemporaryDirectory() as folder:
        transforms = [f"{folder}/transform.mat"] if len(transform) else []
        for file in transforms:
            Path(file).write_bytes(transform.tobytes())
        for one in maps:
            moving = ants_image(one, grid_affine(voxel_mm, one.shape))
            inverted = [True] * len(transforms)
            yield ants.apply_transforms(own, moving, transforms, interpolator="linear", whichtoinvert=inverted)


def find_transform(scan: Scan, data: np.ndarray, registration: str) -> np.ndarray:
    """Return the transform that brings a scan's brain onto the template: the bytes of ANTs' file, none if it needs none.

    `data` are the scan's voxels, 0 around the brain.
    """
    with tempfile.TemporaryDirectory() as folder:
        transforms = register(scan, ants_image(data, scan.affine), registration, folder)
        return np.frombuffer(b"".join(Path(file).read_bytes() for file in transforms), np.uint8)


def register(scan: Scan, moving: Any, registration: str, folder: str) -> list[str]:
    """Return the files, in `folder`, of the transform that brings a scan's brain onto the template; none if it needs none."""
    import ants

    if registration == "none" and scan.in_mni:
        return []
    _, fixed = template_on_grid(REGISTRATION_MM, REGISTRATION_SHAPE)
    coarse = ants.resample_image(moving, [max(REGISTRATION_MM, s) for s in moving.spacing], use_voxels=False, interp_type=0)
    if registration == "none":
        return [centre_of_mass_transform(fixed, coarse, f"{folder}/shift.mat")]
    ants.config.set_ants_deterministic(seed_value=1)  # else the same scan comes out a little different each time
    result = ants.registration(
        fixed,
        coarse,
        type_of_transform=registration.capitalize(),
        outprefix=f"{folder}/",
        aff_iterations=(500, 200),
        aff_shrink_factors=(4, 2),
        aff_smoothing_sigmas=(2, 1),
    )
    return list(result["fwdtransforms"])


def matrix_of(transform: str) -> np.ndarray:
    """Return the matrix, shape (3, 3), in a file of an affine transform of ANTs."""
    import ants

    return np.array(ants.read_transform(transform).parameters[:9]).reshape(3, 3)


def likeness(moving: Any, mask: Any, transforms: list[str], folder: str, resize: bool) -> float:
    """Return the correlation of a brain with the template, over both.

    It is taken on the grid of the registration, whatever that of the network: the finer the voxels, the less they correlate.
    A brain that kept its size is first given the template's (`resize`), or small heads would seem worse than others.
    """
    template, grid = template_on_grid(REGISTRATION_MM, REGISTRATION_SHAPE)
    inside = resample(mask, grid, transforms).numpy() > 0.5
    if not inside.any():
        return float("nan")
    if resize:
        whole = template > 0.5 * np.median(template[template > 0])  # the edge is blurred
        shrink = np.cbrt(inside.sum() / whole.sum())
        centred = [grid.new_image_like(part.astype(np.float32)) for part in (whole, inside)]
        size = centre_of_mass_transform(centred[0], centred[1], f"{folder}/size.mat", matrix=np.eye(3) * shrink)
        transforms = [size, *transforms]
        inside = resample(mask, grid, transforms).numpy() > 0.5
    image = np.where(inside, resample(moving, grid, transforms).numpy(), 0)
    both = inside | (template > 0)
    return float(np.corrcoef(image[both], template[both])[0, 1])


def centre_of_mass_transform(fixed: Any, moving: Any, path: str, matrix: Any = None) -> str:
    """Write the transform that matches the centres of mass (and turns by `matrix` around them) and return its file."""
    import ants

    centre = np.array(ants.get_center_of_mass(fixed))
    shift = np.array(ants.get_center_of_mass(moving)) - centre
    transform = ants.create_ants_transform(
        transform_type="AffineTransform",
        dimension=3,
        matrix=np.eye(3) if matrix is None else matrix,
        center=centre,
        translation=shift,
    )
    ants.write_transform(transform, path)
    return path
