"""Label maps of new scans: in the scan's own voxels, with volumes, and with what tells a bad one."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import pandas as pd
from scipy import ndimage

from mriflow.base.files import whole_file, write_text
from mriflow.images.nifti import as_scanned, load_scan
from mriflow.images.registration import from_grid, own_voxels
from mriflow.prediction.sources import Named

CERTAINTY, SHARE = "certainty", "share of "


def measures_of_map(
    found: np.ndarray, inside: np.ndarray, classes: Sequence[str], voxel_mm: float, scale: float
) -> dict[str, float]:
    """Return what a label map says of a person, and how sure it is.

    Parameters
    ----------
    found
        Probabilities of background and each class on the grid, shape (1 + classes, x, y, z).
    inside
        Which voxels are of the brain, bool, shape (x, y, z).
    voxel_mm, scale
        Edge of a voxel of the grid, mm; the volume of the person's brain over that on the grid.

    Returns
    -------
    ``volume_<class>``, ml, sums of probabilities, so that a voxel may count in part; ``certainty``, the mean probability of the
    likeliest class in the brain.
    """
    ml = voxel_mm**3 * scale / 1000
    near = ndimage.binary_dilation(inside, iterations=2)  # far from the brain, what is left of a probability adds up
    volumes = {f"volume_{name}": round(float(found[number][near].sum()) * ml, 2) for number, name in enumerate(classes, 1)}
    certainty = float(found.max(0)[inside].mean()) if inside.any() else np.nan
    return {**volumes, CERTAINTY: round(certainty, 4)}


def plausibility(table: pd.DataFrame, classes: Sequence[str]) -> pd.DataFrame:
    """Return what tells a bad map, a row for each: its certainty, and the share of each class in the volume of all."""
    volumes = table[[f"volume_{name}" for name in classes]].astype(float)
    shares = volumes.div(volumes.sum(axis=1), axis=0).set_axis([f"{SHARE}{name}" for name in classes], axis=1)
    return pd.concat([table[[CERTAINTY]].astype(float), shares], axis=1)


class MapFolder(NamedTuple):
    """A folder for label maps.

    Attributes
    ----------
    folder
        Where they go.
    classes
        Their names, numbered from 1 in the maps.
    probabilities
        Whether the probabilities are written, too.
    """

    folder: Path
    classes: Sequence[str]
    probabilities: bool = False

    def begin(self) -> None:
        """Write what the numbers mean, as BIDS does."""
        rows = [f"{number}\t{name}" for number, name in enumerate(["background", *self.classes])]
        write_text("\n".join(["index\tname", *rows, ""]), self.folder / "dseg.tsv")

    def write(self, scan: Named, found: np.ndarray, transform: np.ndarray | None, settings: Mapping[str, Any]) -> str:
        """Write the label map of a scan in its own voxels, and return its path.

        Parameters
        ----------
        found
            Probabilities of background and each class on the grid, shape (1 + classes, x, y, z).
        transform, settings
            What brought the scan onto the grid, and how it was prepared.
        """
        own = load_scan(scan["file"], settings["stripped"])
        assert transform is not None
        labels, best = np.zeros(own.data.shape, np.uint8), np.full(own.data.shape, 0.0, np.float32)
        kept = []
        for number, image in enumerate(from_grid(found, own_voxels(own), transform, settings["voxel_mm"])):
            one = image.numpy()
            better = one > best
            labels[better], best[better] = number, one[better]
            if self.probabilities and number:
                kept.append(one)
        name = f"{Path(scan['path']).name.split('.')[0]}_{hashlib.sha256(scan['path'].encode()).hexdigest()[:12]}"
        path = self.folder / f"{name}_dseg.nii.gz"
        save(as_scanned(labels, scan["file"]), path)
        if self.probabilities:
            save(as_scanned(np.stack(kept, axis=-1), scan["file"]), self.folder / f"{name}_probseg.nii.gz")
        return str(path)


def save(image: nib.Nifti1Image, path: Path) -> None:
    """Write an image, whole or not at all."""
    with whole_file(path) as temporary:
        nib.save(image, temporary)
