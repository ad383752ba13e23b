"""How evenly a split is balanced: every part beside the whole of its fold, with a measure and a test of the difference.

The difference of a number is the standardised mean difference, ``(mean of the part - mean of all) / sd of all``; that of a
category is the total variation distance, half the sum of the absolute differences of the shares: the share of a part that
would have to be exchanged. `chance` is the probability that as many subjects drawn at random differ as much or more, so that
a small part is judged as one. Subjects are counted, not scans, for subjects are split; what counts is their first scan.
"""

import logging
import math
from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from mriflow.tables.splits import PARTS

log = logging.getLogger(__name__)

ALL = "all"
# Groups whose means differ by more than a quarter of an sd need more than an adjustment (Rubin 2001; Stuart 2010, Statistical
# Science 25:1). Shares have no such rule: one subject in five would have to be exchanged.
LARGE = {"number": 0.25, "category": 0.2}
DRAWS = 2000


def balance_of(rows: pd.DataFrame, numbers: Sequence[str], categories: Sequence[str]) -> pd.DataFrame:
    """Return one row per fold and part, and one for all of a fold.

    Parameters
    ----------
    rows
        One row per fold and scan with fold, part, subject and all of `numbers` and `categories`.

    Returns
    -------
    fold, part, scans, subjects; of a number `a` a_mean, a_sd; of a category `b` the share of each value, b=<value>; of both
    _difference and _chance (see above), empty for all.
    """
    values = {name: sorted(as_categories(rows[name]).unique()) for name in categories}
    table = []
    for fold, scans in rows.groupby("fold"):
        people = scans.drop_duplicates("subject")
        for part in (*PARTS, ALL):
            inside = np.ones(len(people), bool) if part == ALL else (people["part"] == part).to_numpy()
            row = {"fold": fold, "part": part, "scans": scans["subject"].isin(people["subject"][inside]).sum()}
            row |= {"subjects": inside.sum()}
            for name in numbers:
                row |= compared_number(name, people[name].to_numpy(float), inside)
            for name in categories:
                row |= compared_category(name, as_categories(people[name]), inside, values[name])
            table.append(row)
    return pd.DataFrame(table).round(4)


def as_categories(column: pd.Series) -> pd.Series:
    """Return a column as text; what is not known is a category of its own.

    >>> as_categories(pd.Series(["F", None, "M"])).tolist()
    ['F', 'unknown', 'M']
    """
    return column.astype(object).where(column.notna() & (column != ""), "unknown").astype(str)


def compared_number(name: str, values: np.ndarray, inside: np.ndarray) -> dict[str, float]:
    """Return mean and sd of the values of a part, its difference from all, and the chance of it; shapes (subjects,)."""
    known = ~np.isnan(values)
    everyone, part = values[known], values[known & inside]
    cells = {f"{name}_mean": math.nan, f"{name}_sd": math.nan, f"{name}_difference": math.nan, f"{name}_chance": math.nan}
    if not len(part):
        return cells
    cells |= {f"{name}_mean": part.mean(), f"{name}_sd": part.std(ddof=1) if len(part) > 1 else math.nan}
    n, size, sd = len(part), len(everyone), everyone.std()
    if n < size and sd > 0:
        difference = (part.mean() - everyone.mean()) / sd
        # The standard error of the mean of n out of a finite number, drawn without replacement.
        error = math.sqrt((size - n) / (n * (size - 1)))
        cells |= {f"{name}_difference": difference, f"{name}_chance": math.erfc(abs(difference) / error / math.sqrt(2))}
    return cells


def compared_category(name: str, column: pd.Series, inside: np.ndarray, values: list[str]) -> dict[str, float]:
    """Return the share of each value in a part, the difference of the shares from all, and the chance of it."""
    counts = column.value_counts().reindex(values, fill_value=0).to_numpy()
    counts_of_part = column[inside].value_counts().reindex(values, fill_value=0).to_numpy()
    n = counts_of_part.sum()
    cells = {f"{name}={value}": share for value, share in zip(values, counts_of_part / max(n, 1), strict=True)}
    cells |= {f"{name}_difference": math.nan, f"{name}_chance": math.nan}
    if 0 < n < counts.sum():
        distance = np.abs(counts_of_part / n - counts / counts.sum()).sum() / 2
        drawn = np.random.default_rng(0).multivariate_hypergeometric(counts, n, DRAWS)
        distances = np.abs(drawn / n - counts / counts.sum()).sum(axis=1) / 2
        cells |= {f"{name}_difference": distance, f"{name}_chance": (distances >= distance - 1e-9).mean()}
    return cells


def warn_of_imbalance(balance: pd.DataFrame, numbers: Sequence[str], categories: Sequence[str], meant: Collection[str]) -> None:
    """Log a warning for every column of which some part differs much from all; those of `meant` are meant to.

    A line for each column, not for each part: the worst is named, the others stand in the table.
    """
    for name in (name for name in (*numbers, *categories) if name not in meant):
        kind, measure = (
            ("number", "standardised mean difference") if name in numbers else ("category", "total variation distance")
        )
        differences = balance[f"{name}_difference"].abs()
        many = int((differences > LARGE[kind]).sum())
        if not many:
            continue
        worst = balance.loc[differences.idxmax()]
        log.warning(
            "%s is spread unevenly: %d part(s) differ from all of their fold by more than %s; most of all %s of fold %d "
            "(%s %.2f with %d subjects; by chance as much or more in %.0f %% of draws)",
            name,
            many,
            LARGE[kind],
            worst["part"],
            worst["fold"],
            measure,
            worst[f"{name}_difference"],
            worst["subjects"],
            100 * worst[f"{name}_chance"],
        )
