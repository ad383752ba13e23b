"""What the report says of a segmentation."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mriflow.evaluation.label_maps import METHODS
from mriflow.reporting import result_tables as tables
from mriflow.reporting.flow import Step
from mriflow.reporting.parts import List, Part, Table, Text, figure, table_of
from mriflow.reporting.results import with_interval
from mriflow.reporting.words import and_list, people

COLUMNS = {
    "dice": "Dice",
    "hd95": "HD95 (mm)",
    "surface": "surface distance (mm)",
    "volume_error": "volume, found − true (ml)",
    "volume_error_percent": "error of volume (%)",
}
LEGEND = (
    "Mean over scans [95 % confidence interval, bootstrap over subjects]. Dice: overlap, 1 is perfect. HD95: 95th percentile "
    "of the distances between the surfaces; surface distance: their mean; scans in which a map lacks the class are left "
    "out, and from Dice those whose true map has none of it: n is told where it is less. Made on the grid of the network, and "
    "brought back to the person's size: no distance is finer than a voxel. The true volume is that of the label map in its own "
    "voxels, the network's the sum of its probabilities."
)


def sentences_of_maps(result: Mapping[str, Any], steps: Sequence[Step] = ()) -> list[str]:
    """Return what was asked, on how many people, how well it works, against what, and what to be careful about."""
    classes = result["classes"]
    each = ", ".join(f"{name} {with_interval(result['network'][f'dice_{name}'])}" for name in classes)
    away = {one["other"]: one for one in result["differences"] if one["metric"] == "dice"}
    others = [
        f"{method} {with_interval(result[method]['dice'])} (network − {method} {with_interval(away[method])})"
        for method in METHODS[1:]
        if "dice" in result.get(method, {})
    ]
    careful = ["the data are simulated, so that nothing follows for real people"] if result["simulated"] else []
    worse = [other for other, one in away.items() if one["high"] is not None and one["high"] < 0]
    careful += [f"the network is worse than {and_list(worse)}"] if worse else []
    unsure = [other for other, one in away.items() if other not in worse and not (one["low"] or 0) > 0]
    careful += [f"that the network is better than {and_list(unsure)} was not shown"] if unsure else []
    careful += result.get("lost", [])
    careful += ["the truth is as good as the label maps of the dataset, and compared on the grid of the network"]
    return [
        f"Asked: how well can {', '.join(classes)} be told apart in a scan of the brain? Data: {result['dataset']}.",
        people(result, steps),
        f"The mean Dice of the network's label maps is {with_interval(result['network']['dice'])} (1 is perfect): {each}.",
        f"Against: {'; '.join(others)} (mean Dice)." + ("" if len(others) else " Nothing tells all classes apart."),
        f"Careful: {'; '.join(careful)}.",
    ]


def table_of_maps(result: Mapping[str, Any], title: str = "") -> Table:
    """Return every measure of every class: a row for each class and method."""
    rows = []
    for name in result["classes"]:
        for method in (method for method in METHODS if f"dice_{name}" in result.get(method, {})):
            cells = [with_n(result[method][f"{measure}_{name}"]) for measure in COLUMNS]
            rows.append([name, method, *cells])
    return Table(["class", "method", *COLUMNS.values()], rows, title)


def with_n(cell: Mapping[str, Any]) -> str:
    """Return a metric with its interval and, if it is of fewer scans than the others, their number."""
    return with_interval(cell) + (f" (n = {cell['n']})" if "n" in cell else "")


def table_of_volumes(result: Mapping[str, Any]) -> Table:
    """Return how far the network's volumes agree with the true ones: a row for each class."""
    rows = [
        [name, agreed["n"], *(with_interval(agreed[key]) for key in ("mean", "lower_limit", "upper_limit", "slope"))]
        for name, agreed in result["volumes"].items()
    ]
    head = ["class", "n", "network − true (ml)", "lower limit", "upper limit", "slope on the true volume"]
    return Table(head, rows, "Volumes, with 95 % limits of agreement (Bland and Altman 1986)")


def table_of_lacking(result: Mapping[str, Any]) -> Table:
    """Return what the network found of classes in scans that have none of them: a row for each class."""
    rows = [[name, block["n"], with_interval(block["found_ml"])] for name, block in result["lacking"].items()]
    return Table(["class", "scans without it", "found by the network (ml)"], rows, "Found where there is none")


def of_maps(result: Mapping[str, Any], place: Path) -> dict[str, list[Part]]:
    """Return the parts of the sections of a segmentation."""
    simulated, drawings = result["simulated"], place / "figures"

    def drawn(stem: str, alt: str) -> list[Part]:
        return figure(drawings / f"{stem}.png", alt, f"{alt}.", simulated)

    lines = [
        f"{one['metric'].replace('_', ' ')}: network − {one['other']} {with_interval(one)}" for one in result["differences"]
    ]
    notes = [Text(f"{method}: {note}", "small") for method, note in result["notes"].items()]
    return {
        "training": [
            *[List(found, style="warnings") for found in [tables.warnings(result)] if found],
            *drawn(
                "learning-curves", "Loss and Dice of training and validation scans by epoch, one line for each fold and seed"
            ),
        ],
        "results": [
            table_of_maps(result),
            Text(LEGEND, "small"),
            *notes,
            *drawn("overlays", "Scan, true and found label map of the best, the median and the worst test scan by Dice"),
            *([table_of_volumes(result)] if result.get("volumes") else []),
            *drawn("volumes", f"Volumes of each class in {result['n']} test scans, by the network and true"),
            *([table_of_lacking(result)] if result.get("lacking") else []),
            *([List(lines, "Differences on the same scans (mean of the paired differences)")] if lines else []),
        ],
        "robustness": [
            *drawn("robustness", "Mean Dice by strength of each change of the scans"),
            *table_of(place / "robustness.csv", "On changed scans, and the difference", ("dice", "dice_difference")),
        ],
    }
