"""Who is in a dataset and why every other scan is not: the problems of `organize` and `preprocess` together."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from mriflow.tables.labels import read_indices, read_labels, usable
from mriflow.tables.problems import join_problems, reasons_of

PREPROCESSED = "(preprocessed)"  # no label has such a name
NOT_PREPROCESSED = "scan: not preprocessed (in none of the shards)"


def count_subjects(table: pd.DataFrame) -> int:
    """Return how many people are in a table."""
    return int(table.loc[table["subject"] != "", "subject"].nunique())


def read_cohort(labels: Path, indices: Sequence[Path], classes: Sequence[str] = ()) -> tuple[pd.DataFrame, pd.Series]:
    """Return labels.csv with the problems found by `preprocess` added to its own, and which scans are usable.

    The columns `classes` hold names, even if they look like numbers. The table has a column `PREPROCESSED`: whether the scan is
    in a shard. With no `indices`, that is not asked for.
    """
    table = read_labels(labels, classes)
    if not indices:
        return table, usable(table)
    # A scan of several preprocess blocks is there several times; its problem in any of them counts.
    index = read_indices(indices).sort_values("problem", na_position="first")
    problem_of = dict(zip(index["id"], index["problem"].fillna(""), strict=True))
    expected = usable(table)
    of_preprocessing = [
        problem_of.get(scan, NOT_PREPROCESSED if wanted else "") for scan, wanted in zip(table["id"], expected, strict=True)
    ]
    table["problem"] = [join_problems(*pair) for pair in zip(table["problem"], of_preprocessing, strict=True)]
    table[PREPROCESSED] = table["id"].isin(index.loc[index["index"].notna(), "id"])
    return table, usable(table) & table[PREPROCESSED]


def exclusions(table: pd.DataFrame) -> pd.DataFrame:
    """Return the scans with a problem, and what each is left out of."""
    excluded = table[table["problem"] != ""]
    columns = [", ".join(dict.fromkeys(r.split(":")[0] for r in reasons_of(cell))) for cell in excluded["problem"]]
    left_out_of = pd.Series(columns, index=excluded.index, dtype=object).where(usable(excluded), "everything")
    places = excluded[["id", "subject", "session", "site", "path"]]
    return places.assign(excluded_from=left_out_of, problem=excluded["problem"])
