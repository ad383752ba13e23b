"""The label map of a scan: which class every voxel is of."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from mriflow.base.errors import UserError
from mriflow.images.kinds import affine_mm, open_nifti
from mriflow.images.nifti import BadScan, read_file
from mriflow.images.registration import ants_image

MOST_CLASSES = 254  # a voxel's class is a byte
SHIFT = 0.1  # of a voxel: by so much the corners of a map may lie beside those of its scan
LARGEST = 10**6  # numbers of atlases go up to a few ten thousand
OWN_ML = "map_ml_"  # columns of the index, of each class: its volume in the voxels of the label map
GRID_ML = "grid_ml_"  # and on the grid, in the person's own size
IN_BRAIN = "map_in_brain"  # and the share of the labelled voxels that lie in the brain
# Of 145 right maps .97 and more; of those of another person, upside down or back to front .75 to .89. A map of which left and
# right are swapped cannot be told (.94), nor is one of the skull wrong: no map is refused for it.
LEAST_IN_BRAIN = 0.9
LEAST_LEFT = 0.1  # of a class's volume: with less of it on the grid, the class is lost
MANY = 0.05  # of the maps: where more lose a class, a training and its test are told

Classes = Mapping[str, Sequence[int]]


def fault_of(path: Path, scan: Path, classes: Classes, background: Sequence[int] = (), may_lack: Sequence[str] = ()) -> str:
    """Return in words what is wrong with the label map of a scan, '' if nothing is; a scan that cannot be read is not judged.

    Parameters
    ----------
    path, scan
        The files of both.
    classes, background, may_lack
        As for `read_label_map`.
    """
    try:
        image = open_nifti(scan)
        shape, affine = ras_grid(image.shape[:3], affine_mm(image))
    except Exception:  # nibabel raises a dozen kinds; `preprocess` says what is wrong with the scan
        return ""
    try:
        read_label_map(path, shape, affine, classes, background, may_lack)
    except BadScan as error:
        return str(error)
    return ""


def read_label_map(
    path: Path,
    shape: tuple[int, ...],
    affine: np.ndarray,
    classes: Classes,
    background: Sequence[int] = (),
    may_lack: Sequence[str] = (),
) -> np.ndarray:
    """Read a label map.

    Parameters
    ----------
    path
        A NIfTI file of whole numbers, its axes in any order.
    shape, affine
        The grid of its scan, axes in RAS order: number of voxels, and voxel to mm.
    classes, background
        Which numbers of the file make which class, and which beside 0 are of none.
    may_lack
        Classes that some people do not have.

    Returns
    -------
    The number of each voxel's class in the order of `classes`, from 1 (0 is of none), uint8 of `shape`, axes RAS.

    Raises
    ------
    BadScan
        If it cannot be read, is on another grid than the scan, holds a number that is not known, or not a voxel of a class
        that everybody has.
    """
    image, _, data = read_file(path)
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    if data.ndim != 3:
        raise BadScan(f"label map is not 3D ({data.ndim} dimensions)")
    in_ras = nib.as_closest_canonical(nib.Nifti1Image(data, affine_mm(image)))
    check_grid(in_ras.shape, in_ras.affine, shape, affine)
    values = np.asarray(in_ras.dataobj)
    odd = ~np.isfinite(values) | (values < 0) | (values > LARGEST) | (values != np.rint(values))
    if odd.any():
        raise BadScan(f"labels are no whole numbers from 0 to {LARGEST} (found {values[odd][0]:.9g})")
    labels = values.astype(np.int64)
    counts = np.bincount(labels.ravel())
    number_of = np.zeros(len(counts), np.uint8)
    known = np.zeros(len(counts), bool)
    for number, of_class in enumerate(({0, *background}, *classes.values())):
        here = [label for label in of_class if label < len(counts)]
        number_of[here], known[here] = number, True
    if unknown := np.flatnonzero(counts * ~known).tolist():
        raise BadScan(f"unknown label ({', '.join(map(str, unknown[:5]))}, in no class of the dataset's label_maps)")
    found = np.bincount(number_of, weights=counts, minlength=len(classes) + 1)[1:]
    if empty := [name for name, count in zip(classes, found, strict=True) if not count and name not in may_lack]:
        raise BadScan(f"no voxel of a class ({', '.join(empty)})")
    return number_of[labels]


def check_grid(shape: Sequence[int], affine: np.ndarray, wanted: Sequence[int], wanted_affine: np.ndarray) -> None:
    """Raise `BadScan` if a grid is not the wanted one, both in RAS order."""
    if tuple(shape) != tuple(wanted):
        found, expected = ("x".join(map(str, one)) for one in (shape, wanted))
        raise BadScan(f"label map is on another grid than the scan ({found} voxels, expected {expected})")
    corners = np.array([[*corner, 1] for corner in np.ndindex(2, 2, 2)]) * [*(np.array(wanted) - 1), 1]
    voxels = corners @ (np.linalg.inv(wanted_affine) @ affine).T
    if (away := np.abs(voxels - corners).max()) > SHIFT:
        raise BadScan(f"label map is on another grid than the scan (its corners lie up to {away:.1f} voxels beside the scan's)")


def ras_grid(shape: Sequence[int], affine: np.ndarray) -> tuple[tuple[int, ...], np.ndarray]:
    """Return the shape and the affine that an image has once its axes are in RAS order.

    >>> ras_grid((10, 20, 30), np.array([[0, 0, 2, 0], [-1, 0, 0, 0], [0, 3, 0, 0], [0, 0, 0, 1]]))[0]
    (30, 10, 20)
    """
    turn = nib.io_orientation(affine)
    back = np.argsort(turn[:, 0])
    return tuple(int(shape[axis]) for axis in back), affine @ nib.orientations.inv_ornt_aff(turn, shape)


def indicators(labels: np.ndarray, classes: int, affine: np.ndarray) -> Iterator[Any]:
    """Yield for background and each class of a label map an ANTs image that is 1 where it is and 0 elsewhere."""
    for number in range(classes + 1):
        yield ants_image(labels == number, affine)


def likeliest(shares: Sequence[np.ndarray]) -> np.ndarray:
    """Return the number of the largest of some maps, the background's first, in every voxel, uint8; 0 where all are 0."""
    best, labels = shares[0], np.zeros(shares[0].shape, np.uint8)
    for number, share in enumerate(shares[1:], 1):
        labels[share > best] = number
        best = np.maximum(best, share)
    return labels


def map_columns(classes: Iterable[str]) -> list[str]:
    """Return the columns of the index that `measures_of` fills."""
    return [IN_BRAIN, *(f"{measure}{name}" for name in classes for measure in (OWN_ML, GRID_ML))]


def measures_of(
    labels: np.ndarray, brain: np.ndarray, on_grid: np.ndarray, classes: Sequence[str], voxel_ml: float, grid_voxel_ml: float
) -> dict[str, float]:
    """Return the share of a label map in the brain, and the volume of each class, ml, in the map and on the grid.

    Parameters
    ----------
    labels, brain, on_grid
        The number of each voxel's class, and which voxels are of the brain, in the label map's own voxels; and on the grid.
    voxel_ml, grid_voxel_ml
        The volume of a voxel of each, ml, in the person's own size.

    Returns
    -------
    By the names of `map_columns`.
    """
    inside = float(brain[labels > 0].mean()) if labels.any() else np.nan
    counts = [np.bincount(one.ravel(), minlength=len(classes) + 1) for one in (labels, on_grid)]
    volumes = zip(counts[0][1:] * voxel_ml, counts[1][1:] * grid_voxel_ml, strict=True)
    return dict(zip(map_columns(classes), [round(float(one), 4) for one in (inside, *chain(*volumes))], strict=True))


def lost_on_grid(index: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Return which classes each label map has and loses on the grid, bool, a column each."""
    own, on_grid = (index[[f"{measure}{name}" for name in classes]].to_numpy(float) for measure in (OWN_ML, GRID_ML))
    return pd.DataFrame((own > 0) & (on_grid < LEAST_LEFT * own), index.index, classes)


def note_of(row: Mapping[str, Any], classes: Sequence[str], voxel_mm: float) -> str:
    """Return in words what is to be looked at in a label map, by its row of the index; '' if nothing is."""
    lost = lost_on_grid(pd.DataFrame([row]), classes).iloc[0]
    volumes = [f"{name} {row[f'{GRID_ML}{name}']:.2g} of {row[f'{OWN_ML}{name}']:.2g} ml" for name in lost.index[lost]]
    notes = [f"label_map: a class is lost on the grid of {voxel_mm:g} mm ({', '.join(volumes)})"] if volumes else []
    inside = row[IN_BRAIN]  # not known of a map without a label
    if inside is not None and inside < LEAST_IN_BRAIN:
        text = "may be another person's, flipped or shifted"
        notes.append(f"label_map: {text} ({100 * inside:.0f} % of its labels lie in the brain, expected 97 % and more)")
    return "; ".join(notes)


def told_of_loss(index: pd.DataFrame, classes: Sequence[str], voxel_mm: float) -> list[str]:
    """Return in words which classes the grid loses in more than a few of some label maps, by their rows of the index."""
    lost, texts = lost_on_grid(index, classes), []
    for name in classes:
        count, has = int(lost[name].sum()), int((index[f"{OWN_ML}{name}"] > 0).sum())
        if count > MANY * has:
            texts.append(
                f"the grid of {voxel_mm:g} mm loses the class {name!r} in {count} of the {has} label maps that have it (less "
                f"than {LEAST_LEFT:.0%} of its volume is left), so that it can be neither learned nor tested there: take "
                "smaller voxels (`voxel_mm`)"
            )
    return texts


def measured(index: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Return the index of shards with label maps, if it has their measures; raise a UserError if it was made without."""
    if lacking := set(map_columns(classes)) - set(index.columns):
        text = f"an index of the preprocessed scans has no column {min(lacking)}, for an earlier version made it."
        raise UserError(f"{text} Delete it, run `preprocess` again.")
    return index
