"""For whom it works: the network's metrics in every group of people, and whether the others' differ."""

from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from mriflow.evaluation.comparison import LEVEL, UNDECIDED, difference, holm
from mriflow.evaluation.metrics import as_cell, classification_metrics, regression_metrics, resample
from mriflow.tables.labels import OF_PREDICTIONS

LEAST = 10  # people: of fewer, numbers are not shown
MOST = 30  # groups of a column
BANDS = 5  # of a number, about
STEPS = (1, 2, 5, 10)  # widths of a band, times a power of ten
COMPARED = {"regression": ("mae", "bias"), "classification": ("auc", "accuracy")}
UNKNOWN = "not known"
DIFFERS = "differs"


def subgroup_columns(experiment: dict[str, Any], known: Collection[str]) -> list[str]:
    """Return the columns whose groups are looked at one by one: by the config, or those that are known of site, sex, age."""
    if "subgroups" in experiment:
        return list(experiment["subgroups"])
    target = experiment["target"]
    names = ["site", "sex", "age", *([target["column"]] if target["type"] == "regression" else [])]
    unfit = OF_PREDICTIONS | ({target["column"]} if target["type"] == "classification" else set())
    return [name for name in dict.fromkeys(names) if name in known and name not in unfit]


def subgroups_of(
    predicted: pd.DataFrame, columns: Sequence[str], truth: np.ndarray, values: np.ndarray, classes: list[str] | None
) -> list[dict[str, Any]]:
    """Return the network's metrics in every group, and the difference from the metrics of all others.

    Parameters
    ----------
    predicted
        Columns subject and `columns`; a number is cut into bands, of anything else every value is a group.
    truth, values
        What is true and what the network predicts: a number, or the number of the class and probabilities.

    Returns
    -------
    For each column, group and metric (mae and bias; auc and accuracy): column, group, n (scans), people, metric, value, low,
    high, difference (value, low, high and p of the bootstrap over people, p_holm, verdict: ``differs`` or ``cannot be told``)
    and note, which says so if people are too few for numbers (those are None then).
    """
    metrics, kind = (regression_metrics, "regression") if classes is None else (classification_metrics, "classification")
    subjects = predicted["subject"].to_numpy(str)
    empty: dict[str, Any] = {"value": None, "low": None, "high": None}
    rows: list[dict[str, Any]] = []
    for column in columns:
        groups = list(groups_of(predicted[column]))
        if len(groups) > MOST:
            note = f"{len(groups)} groups, more than {MOST}; give a column with fewer"
            rows.append({"column": column, "group": "", "n": len(predicted), "people": len(set(subjects)), "note": note})
            continue
        for group, scans in groups:
            people, others = len(set(subjects[scans])), len(set(subjects[~scans]))
            about = {"column": column, "group": group, "n": int(scans.sum()), "people": people}
            if people < LEAST:
                note = f"too few: {people} people, fewer than {LEAST}"
                rows += [{**about, "metric": metric, **empty, "difference": None, "note": note} for metric in COMPARED[kind]]
                continue
            found = resample(metrics, truth, values, subjects, scans=scans)
            told = len(groups) == 2 and group == groups[1][0] and rows[-1]["difference"]  # the same test again
            rest = resample(metrics, truth, values, subjects, scans=~scans) if others >= LEAST and not told else None
            rare = fewest_of_a_class(truth, subjects, scans, classes)
            for metric in COMPARED[kind]:
                cell = as_cell(found.metrics[metric], found.draws[metric])
                few = rare if metric == "auc" else ""
                away = difference(found, rest, metric, min(people, others)) if rest and not few else None
                note = f"compared with {groups[0][0]} above" if told else few if rest else f"too few others: {others}"
                rows.append({**about, "metric": metric, **cell, "difference": away, "note": note})
    return correct(rows)


def fewest_of_a_class(truth: np.ndarray, subjects: np.ndarray, scans: np.ndarray, classes: Sequence[str] | None) -> str:
    """Return in words of which class the group, or the others, have too few people for an AUC to be compared; '' if of none."""
    for where, side in (("", scans), ("others: ", ~scans)):
        for number, name in enumerate(classes or ()):
            people = len(set(subjects[side & (truth == number)]))
            if people < LEAST:
                return f"too few to compare AUCs, {where}{people} {name}"
    return ""


def correct(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows with every p corrected for all (Holm 1979), and its verdict."""
    tested = [row["difference"] for row in rows if row.get("difference")]
    for test, p in zip(tested, holm([test["p"] for test in tested]), strict=True):
        test |= {"p_holm": p, "verdict": DIFFERS if p is not None and p < LEVEL else UNDECIDED}
    return rows


def groups_of(column: pd.Series) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the groups of a column, each with its name and its scans, a mask; nothing if there are fewer than two.

    >>> ages = pd.Series([21.0, 28, 33, 39, 47, 52, 58, None])
    >>> [(name, int(scans.sum())) for name, scans in groups_of(ages)]
    [('below 30', 2), ('30 to 40', 2), ('40 to 50', 1), ('50 or more', 2), ('not known', 1)]
    """
    missing = column.isna() | (column.astype(str) == "")
    numbers = pd.to_numeric(column.where(~missing), errors="coerce")
    if pd.api.types.is_numeric_dtype(column) and numbers.nunique() > BANDS:
        names, order = bands(numbers[~missing].to_numpy(float))
        named = pd.Series(names, index=column.index[~missing]).reindex(column.index)
    else:
        named = column.where(~missing).map(as_name, na_action="ignore")
        order = sorted(named.dropna().unique())
    named = named.where(~missing, UNKNOWN)
    order = [name for name in (*order, *([UNKNOWN] if missing.any() else [])) if (named == name).any()]
    if len(order) > 1:
        yield from ((name, (named == name).to_numpy()) for name in order)


def as_name(value: object) -> str:
    """Return the value of a cell as the name of a group: 1 and not 1.0."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def bands(values: np.ndarray) -> tuple[list[str], list[str]]:
    """Return the band of each number, by name, and all bands in order; edges are round numbers, both ends are open."""
    low, high = np.percentile(values, [2.5, 97.5])
    rough = max(high - low, 1e-12 * max(1.0, abs(high))) / BANDS
    power = 10.0 ** np.floor(np.log10(rough))
    step = power * next(one for one in STEPS if one * power >= 0.75 * rough)
    edges = np.arange(np.floor(low / step) + 1, np.ceil(high / step - 1e-9)) * step
    if not len(edges):
        edges = np.array([np.median(values)])
    texts = [f"{edge:.10g}" for edge in edges]
    names = [f"below {texts[0]}", *(f"{a} to {b}" for a, b in pairwise(texts)), f"{texts[-1]} or more"]
    return [names[place] for place in np.searchsorted(edges, values, "right")], names
