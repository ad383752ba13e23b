"""Measure how well real scans are preprocessed: `make quality` (147 scans; half an hour on two cores).

The scans are those of ../shared/data/ixi-hh-2mm, each with a map of its tissues (DLMUSE; automatic, not drawn by hand).

mask        Dice of the brain mask against the map's inside of the skull
tissues     maps brought to the grid by each kind of registration: Dice with the tissue masks of the template, and between all
            pairs of people, of white matter, grey matter and ventricles
template    correlation of the brain with the template: the figure that decides whether a registration failed
classes     csf, gm and wm told apart by brightness, the most probable in each voxel: Dice with the map's
N4          spread of the brightness of the white matter (SD over mean), without and with it
"""

import sys
import tempfile
from functools import partial
from pathlib import Path

import ants
import nibabel as nib
import numpy as np
import pandas as pd
from nilearn.datasets import load_mni152_gm_mask, load_mni152_wm_mask
from nilearn.image import resample_img

from mriflow.base.cli import progress
from mriflow.base.processes import workers
from mriflow.images import registration
from mriflow.images.mask import brain_mask
from mriflow.images.nifti import load_scan
from mriflow.images.scan import bias_field, foreground, without_bias
from mriflow.images.tissues import TISSUES as CLASSES
from mriflow.images.tissues import tissue_maps

DATA = Path(__file__).parents[3] / "shared/data/ixi-hh-2mm"
REGISTRATIONS = ("affine", "rigid", "none")
TISSUES = {"WM": "white matter", "GM": "grey matter", "Ventricles": "ventricles"}
VOXEL_MM, SHAPE = 2.0, (80, 96, 80)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    """Return Dice's coefficient of two masks of the same shape."""
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def labels_of(data: Path) -> dict[str, list[int]]:
    """Return the labels of each group of regions in the maps."""
    rows = [line.split(",") for line in (data / "muse_mapping_derived.csv").read_text().splitlines()]
    return {row[1]: [int(label) for label in row[2:] if label] for row in rows if len(row) > 1}


def measure(data: Path, path: Path) -> tuple[dict[str, object], dict[str, np.ndarray]]:
    """Return the figures of one scan, and its map of labels on the grid by each registration (int16)."""
    name = path.name.removesuffix(".nii.gz")
    scan = load_scan(path)
    labels = nib.as_closest_canonical(nib.load(data / f"dlmuse_seg/{name}_DLMUSE.nii.gz"))
    label = np.asarray(labels.dataobj).astype(np.int16)
    brain = brain_mask(scan)
    figures: dict[str, object] = {"id": name, "brain_ml": brain.sum() * scan.voxel_ml}
    figures |= {"mask": dice(brain, label > 0), "lost": 1 - brain[label > 0].mean(), "added": 1 - (label > 0)[brain].mean()}
    white = brain & np.isin(label, labels_of(data)["WM"])
    raw = foreground(scan, brain)
    corrected = without_bias(raw, brain, scan.affine, bias_field(raw, brain, scan.affine))
    figures |= {f"cv_{key}": image[white].std() / image[white].mean() for key, image in (("raw", raw), ("n4", corrected))}

    found = tissue_maps(corrected, brain, scan.affine)
    likely = np.where(brain, np.argmax([found[name].numpy() for name in CLASSES], 0), -1)  # the scans have the maps' voxels
    for number, (name, groups) in enumerate(zip(CLASSES, (("CorticalCSF", "Ventricles"), ("GM",), ("WM",)), strict=True)):
        true = np.isin(label, [known for group in groups for known in labels_of(data)[group]])
        figures[f"class_{name}"] = dice(likely == number, true)

    moving, mask = registration.ants_image(raw, scan.affine), registration.ants_image(brain, scan.affine)
    labelled = registration.ants_image(label, labels.affine)
    _, grid = registration.template_on_grid(VOXEL_MM, SHAPE)
    maps = {}
    for kind in REGISTRATIONS:
        with tempfile.TemporaryDirectory() as folder:
            transforms = registration.register(scan, moving, kind, folder)
            figures[f"r_{kind}"] = registration.likeness(moving, mask, transforms, folder, kind != "affine")
            moved = ants.apply_transforms(grid, labelled, transforms, interpolator="nearestNeighbor")
            maps[kind] = moved.numpy().astype(np.int16)
    return figures, maps


def pairs(masks: np.ndarray) -> float:
    """Return the mean Dice of all pairs of masks, shape (scans, voxels)."""
    common, size = np.zeros((len(masks), len(masks))), masks.sum(1)
    for start in range(0, masks.shape[1], 50_000):
        part = masks[:, start : start + 50_000].astype(np.float32)
        common += part @ part.T
    both = 2 * common / (size[:, None] + size)
    return float(both[np.triu_indices(len(masks), 1)].mean())


def main() -> None:
    """Measure all scans, and print the tables; the figures of every scan go to a CSV if one is named."""
    paths = sorted((DATA / "t1").glob("*.nii.gz"))
    if not paths:
        sys.exit(f"{DATA}: no such data; they are too large for the repository")
    with workers(2) as each:
        made = list(progress(each(partial(measure, DATA), paths), total=len(paths), unit="scan"))
    table = pd.DataFrame([figures for figures, _ in made])
    if len(sys.argv) > 1:
        table.to_csv(sys.argv[1], index=False)
    print(f"\n{len(table)} scans")
    numbers = table.drop(columns="id")
    print(numbers.agg(["mean", "std", "min", "median", "max"]).T.round(3).to_string())

    affine = registration.grid_affine(VOXEL_MM, SHAPE)
    masks = {"WM": load_mni152_wm_mask(resolution=1), "GM": load_mni152_gm_mask(resolution=1)}
    atlas = {
        name: resample_img(mask, affine, SHAPE, interpolation="nearest", force_resample=True, copy_header=True)
        for name, mask in masks.items()
    }
    print("\nDice of tissues on the grid: mean over all pairs of people; mean (lowest) with the template's masks")
    for kind in REGISTRATIONS:
        for name in TISSUES:
            labels = labels_of(DATA)[name]
            moved = np.stack([np.isin(maps[kind], labels).ravel() for _, maps in made])
            told = f"{kind:8} {TISSUES[name]:14} pairs {pairs(moved):.3f}"
            if name in atlas:
                known = np.asarray(atlas[name].dataobj).ravel() > 0
                found = [dice(one, known) for one in moved]
                told += f"   template {np.mean(found):.3f} ({np.min(found):.3f})"
            print(told)


if __name__ == "__main__":
    main()
