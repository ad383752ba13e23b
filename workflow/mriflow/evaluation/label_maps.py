"""How far label maps agree with the truth, class by class: overlap, surfaces and volumes, with intervals over subjects.

Dice is the overlap, twice what both have over the sum of both. Of the distances from each voxel of one surface to the other,
in both directions, HD95 is the 95th percentile, the larger of the two directions, and the surface distance the mean. No
distance is defined where a map lacks the class, and no Dice where the true one does: a voxel found there would make it 0, as if
all had been missed (MONAI leaves these out, too). An error of volume is one of scans that have the class.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import ndimage

from mriflow.evaluation.gaps import gap_metrics
from mriflow.evaluation.long_table import COLUMNS, POOLED, cells
from mriflow.evaluation.metrics import Metrics, Resampled, as_cell, intervals, once, resample

MEASURES = ("dice", "hd95", "surface", "volume_error", "volume_error_percent")
METHODS = ("network", "atlas", "template", "mixture")


def compare_maps(
    found: np.ndarray, truth: np.ndarray, classes: Sequence[str], voxel_mm: float, scale: float = 1.0
) -> dict[str, float]:
    """Return the measures of each class of one scan.

    Parameters
    ----------
    found, truth
        The number of each voxel's class, from 1; shape (x, y, z).
    classes
        Their names.
    voxel_mm
        Edge of a voxel of the grid, mm.
    scale
        The volume of the person's brain over that on the grid, to which registration stretched it.

    Returns
    -------
    For each class `dice_<class>`, `hd95_<class>` and `surface_<class>` (mm) and `volume_<class>` (ml, of whole voxels), in the
    person's own size.
    """
    row = {}
    for number, name in enumerate(classes, 1):
        ours, theirs = found == number, truth == number
        row[f"dice_{name}"] = dice(ours, theirs)
        row[f"hd95_{name}"], row[f"surface_{name}"] = surface_distances(ours, theirs, voxel_mm * scale ** (1 / 3))
        row[f"volume_{name}"] = int(ours.sum()) * voxel_mm**3 * scale / 1000
    return row


def dice(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the overlap of two masks, twice what both have over the sum of both; no number if the true one is empty.

    >>> dice(np.array([1, 1, 0], bool), np.array([0, 1, 0], bool)), dice(np.ones(3, bool), np.zeros(3, bool))
    (0.6666666666666666, nan)
    """
    return 2 * int((ours & theirs).sum()) / (int(ours.sum()) + int(theirs.sum())) if theirs.any() else np.nan


def surface_distances(ours: np.ndarray, theirs: np.ndarray, voxel_mm: float) -> tuple[float, float]:
    """Return HD95 and the mean surface distance of two masks, mm; not numbers if one is empty.

    >>> mask = np.zeros((9, 9, 9), bool)
    >>> mask[2:5, 2:5, 2:5] = True
    >>> [round(distance, 2) for distance in surface_distances(mask, np.roll(mask, 1, axis=0), 2.0)]
    [2.0, 0.77]
    """
    if not (ours.any() and theirs.any()):
        return np.nan, np.nan
    box = ndimage.find_objects(np.pad(ours | theirs, 1).astype(np.uint8))[0]
    surfaces = []
    for mask in (ours, theirs):
        cut = np.pad(mask, 1)[box]
        surfaces.append(cut & ~ndimage.binary_erosion(np.pad(cut, 1))[1:-1, 1:-1, 1:-1])
    away = [
        ndimage.distance_transform_edt(~other, sampling=voxel_mm)[one] for one, other in (surfaces, surfaces[::-1])
    ]  # of each voxel of one surface, how far the other is
    return float(max(np.percentile(one, 95) for one in away)), float(np.concatenate(away).mean())


def summarise_maps(rows: pd.DataFrame, methods: Sequence[str], classes: Sequence[str]) -> dict[str, Any]:
    """Return every measure of every method with its interval, and the network's difference from the others.

    Parameters
    ----------
    rows
        One per test scan: subject, and of each method the measures of `compare_maps` as ``<method>_<measure>``; the true
        volumes without method.

    Returns
    -------
    Of each method ``dice`` (mean of the classes) and ``<measure>_<class>``, each as value, low and high; volume_error is found
    minus true (ml), volume_error_percent its amount; n of a metric that some scans lack. ``differences``, a list of method,
    other, metric, value, low, high (both None of fewer than two people), and n scans and people that have it. And ``volumes``,
    of each class that a scan has, n and what `gap_metrics` says of the network's volumes, ml: the limits of agreement. And
    ``lacking``, of each class that some scans do not have: of how many (n), and found_ml, what the network found of it there.
    """
    subjects = rows["subject"].to_numpy(str)
    of_scans = {method: means_of(rows, method, classes) for method in methods}
    drawn = {method: resample_means(values, subjects) for method, values in of_scans.items()}
    result: dict[str, Any] = {method: intervals(one) for method, one in drawn.items()}
    for method, values in of_scans.items():
        for metric, count in values.count().items():
            result[method][metric] |= {"n": int(count)} if count < len(rows) else {}
    of_volumes = {name: volumes_of(rows, name, subjects) for name in classes if (rows[f"true_{name}"] > 0).any()}
    lacking = {}
    for name in classes:
        if len(healthy := rows[rows[f"true_{name}"] == 0]):
            found = resample_means(
                healthy[[f"network_volume_{name}"]].set_axis(["found_ml"], axis=1), healthy["subject"].to_numpy(str)
            )
            lacking[name] = {"n": len(healthy), **intervals(found)}
    differences = []
    for other in (method for method in methods if method != "network"):
        for metric in (name for name in drawn["network"].metrics if name.startswith("dice") and name in drawn[other].metrics):
            ours, theirs = drawn["network"], drawn[other]
            cell = as_cell(ours.metrics[metric] - theirs.metrics[metric], ours.draws[metric] - theirs.draws[metric])
            both = of_scans["network"][metric].notna() & of_scans[other][metric].notna()
            known = {"n": int(both.sum()), "people": len(set(subjects[both]))}
            if known["people"] < 2:  # one person is no interval
                cell |= {"low": None, "high": None}
            differences.append({"method": "network", "other": other, "metric": metric, **cell, **known})
    return {**result, "differences": differences, "volumes": of_volumes, "lacking": lacking}


def volumes_of(rows: pd.DataFrame, name: str, subjects: np.ndarray) -> dict[str, Any]:
    """Return how far the network's volumes of a class, ml, agree with the true ones, by `gap_metrics` with intervals."""
    has = rows[f"true_{name}"].to_numpy(float) > 0
    true, found = (rows.loc[has, f"{column}_{name}"].to_numpy(float) for column in ("true", "network_volume"))
    return {"n": int(has.sum()), **intervals(resample(gap_metrics, true, found, subjects[has].tolist()))}


def means_of(rows: pd.DataFrame, method: str, classes: Sequence[str]) -> pd.DataFrame:
    """Return of each scan the numbers whose means a method's metrics are, one column each."""
    known = [name for name in classes if f"{method}_dice_{name}" in rows]
    columns = {"dice": rows[[f"{method}_dice_{name}" for name in known]].mean(axis=1)} if known == list(classes) else {}
    for name in known:
        true = rows[f"true_{name}"].where(rows[f"true_{name}"] > 0)
        error = rows[f"{method}_volume_{name}"] - true
        columns |= {f"{measure}_{name}": rows[f"{method}_{measure}_{name}"] for measure in ("dice", "hd95", "surface")}
        columns[f"volume_error_{name}"] = error
        columns[f"volume_error_percent_{name}"] = 100 * error.abs() / true
    return pd.DataFrame(columns)


def resample_means(values: pd.DataFrame, subjects: np.ndarray) -> Resampled:
    """Return the mean of each column, without what is not a number, and those of the resamples of the subjects."""

    def means(_: np.ndarray, columns: np.ndarray, weights: np.ndarray | None = None) -> Metrics:
        counted = once(columns) if weights is None else weights
        known = np.isfinite(columns)
        with np.errstate(invalid="ignore"):
            found = (counted @ np.where(known, columns, 0)) / (counted @ known.astype(float))
        return {name: float(found[0, i]) if weights is None else found[:, i] for i, name in enumerate(values.columns)}

    return resample(means, subjects, values.to_numpy(float), subjects.tolist())


def long_rows(result: Mapping[str, Any]) -> pd.DataFrame:
    """Return ``metrics.csv`` (`mriflow.evaluation.long_table.COLUMNS`) of the metrics of a segmentation."""
    rows = [row for method in METHODS if method in result for row in cells(POOLED, method, "", result[method], result["n"])]
    for one in result["differences"]:
        pair = f"{one['method']} - {one['other']}"
        rows.append((POOLED, pair, "", one["metric"], one["value"], one["low"], one["high"], one["n"]))
    for group, blocks in (("volume of", result["volumes"]), ("scans without", result["lacking"])):
        for name, block in blocks.items():
            rows += cells(POOLED, "network", f"{group} {name}", block, block["n"])
    return pd.DataFrame(rows, columns=COLUMNS)
