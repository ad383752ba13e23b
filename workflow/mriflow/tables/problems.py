"""The grammar of the columns `problem` and `notes` of labels.csv.

A problem reads ``<column>: <reason> (<details>)``; several are joined by ``; ``. Its column is ``scan`` where the scan
cannot be used for anything.
"""

import re
from collections import Counter
from collections.abc import Iterable

import pandas as pd


def join_problems(*problems: str) -> str:
    """Return several problems, or cells of them, as one cell.

    >>> join_problems("age: missing", "", "sex: unknown code ('3')")
    "age: missing; sex: unknown code ('3')"
    """
    return "; ".join(filter(None, problems))


def without_column(problems: str, column: str) -> str:
    """Return a cell of problems or notes without those of a column.

    >>> without_column("age: missing; sex: unknown code ('3')", "age")
    "sex: unknown code ('3')"
    """
    return join_problems(*(text for text in problems.split("; ") if not text.startswith(f"{column}: ")))


def of_whole_scan(cells: pd.Series) -> pd.Series:
    """Return which cells name a problem that rules a scan out for everything."""
    return cells.str.contains(r"(?:^|; )scan: ", regex=True)


def count_reasons(cells: Iterable[str]) -> list[tuple[str, int]]:
    """Return how many cells name each reason, the commonest first."""
    counts = Counter(reason for cell in cells for reason in reasons_of(cell))
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def reasons_of(problems: str) -> list[str]:
    """Return the reasons in a cell of problems or notes, each with its column and without the details in parentheses.

    >>> reasons_of("age: out of range (130, expected 0 to 120); scan: file is empty (a.nii)")
    ['age: out of range', 'scan: file is empty']
    """
    while (shorter := re.sub(r"\s*\([^()]*\)", "", problems)) != problems:
        problems = shorter
    return list(dict.fromkeys(reason.strip() for reason in problems.split("; ") if reason.strip()))
