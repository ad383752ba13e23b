"""``metrics.csv``: every number of metrics.json that has an interval, one a row."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from mriflow.evaluation.metrics import METHODS

COLUMNS = ["part", "method", "group", "metric", "value", "low", "high", "n"]
POOLED, MEAN = "all folds", "mean of folds"


def long_table(result: Mapping[str, Any]) -> pd.DataFrame:
    """Return the numbers of a metrics.json.

    Returns
    -------
    part (``all folds``, ``mean of folds``, one of them, or ``external: <dataset>``), method (or two with a minus between them),
    group (of scans, or the threshold), metric, value, low and high (95 %; empty where not known), n (scans).
    """
    return pd.DataFrame(list(rows_of(result)), columns=COLUMNS)


def rows_of(result: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Yield the rows, in the order of `metrics.json`."""
    n = result["n"]
    for method in (method for method in METHODS if method in result):
        yield from cells(POOLED, method, "", result[method], n)
    for seed, metrics in result.get("single_seeds", {}).items():
        yield from cells(POOLED, f"network of seed {seed}", "", metrics, n)
    for method, metrics in result["by_fold"]["mean"].items():
        yield from cells(MEAN, method, "", metrics, n)
    for fold, of_fold in result["by_fold"]["folds"].items():
        for method in (method for method in METHODS if method in of_fold):
            yield from cells(f"fold {fold}", method, "", of_fold[method], of_fold["n"])
    for one in result["differences"]:
        pair = f"{one['method']} - {one['other']}"
        yield POOLED, pair, "", one["metric"], one["value"], one["low"], one["high"], n
        if "delong_low" in one:
            yield POOLED, pair, "", f"{one['metric']}, DeLong", one["value"], one["delong_low"], one["delong_high"], n
    for one in (one for one in result["subgroups"] if "metric" in one):
        group = f"{one['column']}: {one['group']}"
        yield from cells(POOLED, "network", group, {one["metric"]: one}, one["n"])
        if one["difference"]:
            yield from cells(POOLED, "network", f"{group} - others", {one["metric"]: one["difference"]}, n)
    for name, gap in result.get("gap", {}).items():
        yield from cells(POOLED, "network", f"gap, {name}", gap, gap["n"])
    for name, decided in result.get("decisions", {}).items():
        yield from cells(POOLED, "network", f"threshold: {name}", decided, decided["n"])
    for name, calibrated in result.get("calibration", {}).items():
        yield from cells(POOLED, "network", f"{name} temperature", calibrated, calibrated["n"])
        for one in calibrated["reliability"]:
            group = f"{name} temperature, {one['from']:g} to {one['to']:g}"
            yield from cells(POOLED, "network", group, {"share": one}, one["n"])
            yield POOLED, "network", group, "believed", one["believed"], None, None, one["n"]
    if "one_against_rest" in result:
        for name, metrics in result["one_against_rest"]["classes"].items():
            yield from cells(POOLED, "network", f"class: {name}", metrics, metrics["n"])
        yield from cells(POOLED, "network", "mean of classes", result["one_against_rest"]["macro"], n)
    for name, cell in result.get("conformal", {}).items():
        yield from cells(POOLED, "network", "conformal", {name: cell}, result["conformal"]["coverage"]["n"])
    for one in result["quality"]:
        yield from cells(POOLED, "network", f"error and {one['measure']}", {"spearman": one}, one["n"])
    for name, block in result.get("external", {}).items():
        for method in (method for method in METHODS if method in block):
            yield from cells(f"external: {name}", method, "", block[method], block["n"])


def cells(part: str, method: str, group: str, metrics: Mapping[str, Any], n: int) -> Iterator[tuple[Any, ...]]:
    """Yield a row for every metric that has an interval."""
    for name, cell in metrics.items():
        if isinstance(cell, Mapping) and {"value", "low", "high"} <= cell.keys():
            yield part, method, group, name, cell["value"], cell["low"], cell["high"], cell.get("n", n)
