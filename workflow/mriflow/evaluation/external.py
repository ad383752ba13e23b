"""How good the predictions of another dataset are, which no network has seen: the external test of an experiment."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mriflow.evaluation.calibration import apply_all
from mriflow.evaluation.metrics import METHODS
from mriflow.evaluation.summary import summarise_fitted
from mriflow.tables.problems import count_reasons

FOLD = 0  # there are no folds: all networks predict every scan, and what was fitted for new scans stands for it
NO_FOLDS = ("by_fold", "fold")  # of a summary, and of its table
TEXT = ("id", "subject", "session", "site", "problem")


def read_external(path: Path, classes: Sequence[str] | None) -> pd.DataFrame:
    """Read a table that `mriflow.external` made; names of classes stay text, and an empty text is ''."""
    text = [*TEXT, *(("truth", *METHODS) if classes is not None else ())]
    table = pd.read_csv(path, dtype=dict.fromkeys(text, str), keep_default_na=False, na_values=[""])
    return table.fillna(dict.fromkeys(TEXT, ""))


def judge_all(
    tables: Mapping[str, pd.DataFrame],
    cohorts: Mapping[str, Mapping[str, Any]],
    fitted: Mapping[str, Any] | None,
    classes: list[str] | None,
    groups: Sequence[str],
    unit: str,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the predictions of all datasets, with the column `dataset` before them, and of each what `judge` finds.

    Parameters
    ----------
    tables
        Predictions of each dataset (`read_external`).
    cohorts
        Title of each dataset, and whether its scans are simulated.
    fitted
        For scans outside the experiment's dataset: `new` of calibration.json, or None.
    classes, unit
        Of the target.
    groups
        Columns whose groups are looked at one by one, where the dataset has them.
    """
    parts, found = [pd.DataFrame(columns=["dataset", *TEXT])], dict[str, Any]()
    calibration: dict[str, Any] = {"folds": {str(FOLD): fitted} if fitted else {}, "classes": classes}
    for name, table in tables.items():
        known = [group for group in groups if group in table]
        predicted, found[name] = judge(table.assign(fold=FOLD), calibration, classes, known, unit)
        found[name] = {**cohorts.get(name, {}), **found[name]}
        parts.append(predicted.drop(columns="fold").assign(dataset=name))
    whole = pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)
    columns = ["dataset", *(column for column in whole if column not in ("dataset", "problem")), "problem"]
    return whole[columns], found


def judge(
    table: pd.DataFrame, calibration: dict[str, Any], classes: list[str] | None, groups: Sequence[str], unit: str
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return the predictions of a dataset with what calibration adds to them, and how good they are.

    Returns
    -------
    n (scans that were predicted and have a label), n_predicted, left_out (how many scans, by reason), and of those with a label
    what `mriflow.evaluation.summary.summarise` returns, but for the folds. Without labels there are predictions alone.
    """
    made, without = table[table["problem"] == ""], table[table["problem"] != ""]
    labelled = made[made["truth"].notna()] if "truth" in made else made.iloc[:0]
    counts = {"n": len(labelled), "n_predicted": len(made), "left_out": dict(count_reasons(without["problem"]))}
    predicted, result = made, dict[str, Any]()
    if len(made):
        predicted = apply_all(made if "truth" in made else made.assign(truth=float("nan")), calibration)
    if len(labelled):
        _, result = summarise_fitted(labelled, calibration, classes, groups, unit)
    return pd.concat([predicted, without]).loc[table.index], counts | {k: v for k, v in result.items() if k not in NO_FOLDS}
