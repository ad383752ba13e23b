"""Groups of people who are alike, to be spread evenly."""

import pandas as pd


def is_continuous(column: pd.Series) -> bool:
    """Return whether a column is a number with a distribution, not a few codes."""
    return pd.api.types.is_numeric_dtype(column) and column.nunique() > 4


def groups_of(column: pd.Series) -> pd.Series:
    """Return a column as groups to stratify by: its categories, or the quarters of the distribution of a number."""
    if is_continuous(column):
        return pd.qcut(column.rank(method="first"), 4, labels=False).astype(str)
    return column.astype(str)


def strata(columns: list[pd.Series], at_least: int) -> pd.Series:
    """Combine the columns into strata; one with fewer than `at_least` members is not divided by the further columns."""
    combined = columns[0]
    for column in columns[1:]:
        finer = combined + "|" + column
        combined = finer.where(finer.map(finer.value_counts()) >= at_least, combined)
    return combined
