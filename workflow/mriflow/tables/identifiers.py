"""Identifiers of people that a spreadsheet has spoilt: then several people have one name, or one that is not theirs."""

import logging
import re
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd

from mriflow.base.errors import UserError
from mriflow.tables.cells import as_text, loosened, shown
from mriflow.tables.problems import join_problems

log = logging.getLogger(__name__)

EXACT = 15  # digits of a number that a spreadsheet keeps
AGAIN = "Get the table from where it was made, and read that column as text when you open it in a spreadsheet"
# As spreadsheets shorten them in English, German, French, Spanish, Italian and Dutch.
MONTH = (
    "(?:jan|janv|ene|gen|feb|févr|mar|mrz|mär|mars|mrt|apr|avr|abr|may|mai|mag|mei|jun|juin|giu|jul|juil|lug|aug|août|ago"
    "|sep|sept|set|oct|okt|ott|nov|dec|dez|déc|dic)"
)
DATES = re.compile(
    rf"(\d{{1,2}}[-./ ]\s?{MONTH}\.?([-./ ]\d{{2,4}})?|{MONTH}[-/ ]\d{{2,4}}"
    r"|\d{1,2}([-./])\d{1,2}\3(\d\d){1,2}|\d{4}([-./])\d{1,2}\5\d{1,2})([ T]\d{1,2}:\d\d(:\d\d(\.0+)?)?)?",
    re.IGNORECASE,
)


def refuse_spoilt(cells: pd.Series, column: str, file: Path) -> None:
    """Raise a UserError if a spreadsheet wrote identifiers in so few digits that people can no longer be told apart.

    Parameters
    ----------
    cells
        The cells of the column `column` of a table; ``index + 2`` is the row.
    """
    for row, cell in cells.items():
        text = as_text(cell)
        if re.fullmatch(r"[+-]?\d([.,]\d+[eE][+-]|[eE]\+)\d+", text):
            what = "are rounded"
        elif re.fullmatch(r"#(REF!|NAME\?|VALUE!|DIV/0!|NUM!|NULL!|#+)", text):
            what = "are errors of a spreadsheet"
        else:
            continue
        where = f"identifiers in the column {column!r}"
        raise UserError(f"{file}: {where} {what}, such as {shown(text)} in row {row + 2}. {AGAIN}.")
    texts = [as_text(cell) for cell in cells]
    long = [text for text in texts if re.fullmatch(rf"\d{{{EXACT + 1},}}", text)]
    numbers = any(isinstance(cell, int | float) and as_text(cell) in long for cell in cells)
    if numbers or (len(set(long)) > 2 and all(text[EXACT:].strip("0") == "" for text in long)):
        raise UserError(
            f"{file}: identifiers in the column {column!r} have more than the {EXACT} digits that a spreadsheet keeps of a "
            f"number, such as {shown(long[0])} in row {cells.index[texts.index(long[0])] + 2}: the last are lost. {AGAIN}."
        )


def looks_like_date(identifier: Any) -> bool:
    """Return whether a spreadsheet may have made a date of an identifier.

    >>> [looks_like_date(one) for one in ("2-Mar", "Mar-02", "2024-03-02 00:00:00", "02.03.24", "sub-02", "20240302", "1-2")]
    [True, True, True, True, False, False, False]
    """
    return isinstance(identifier, date) or bool(DATES.fullmatch(as_text(identifier)))


def warn_of_dates(identifiers: pd.Series, column: str, file: Path) -> None:
    """Warn of identifiers that look like dates."""
    dates = [identifier for identifier in identifiers.dropna().unique() if looks_like_date(identifier)]
    if dates:
        log.warning(
            "%s: %d of the identifiers in the column %r look like dates, such as %s. If a spreadsheet made dates of them, "
            "several people may have one name. %s.",
            *(file, len(dates), column, shown(as_text(dates[0])), AGAIN),
        )


def alike(names: pd.Series, form: Callable[[str], str] = loosened) -> list[list[str]]:
    """Return the groups of names that have one `form`, by default but for capitals and blanks; in each the commonest first."""
    counts = names[names.notna() & (names != "")].value_counts()
    groups: dict[str, list[str]] = {}
    for name in sorted(counts.index, key=lambda name: (-counts[name], name)):
        groups.setdefault(form(name), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def without_zeros(name: str) -> str:
    """Return a name without capitals and blanks, and without the zeros that a spreadsheet takes or a program adds.

    >>> without_zeros("S 007"), without_zeros("12.0"), without_zeros("S1.10")
    ('s 7', '12', 's1.10')
    """
    return re.sub(r"(?<![\d.])0+(?=\d)|(?<=\d)\.0$", "", loosened(name))


def tell_of_alike(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the scans with one spelling of each site, and with notes where two subjects may be one person.

    Two sites that are one would be on both sides of a split by site, and so would a person of two names: but whether these are
    one, the table alone does not tell.
    """
    rows = rows.copy()
    for first, *others in alike(rows["site"]) if "site" in rows else ():
        log.warning("site: %s is read as %r, the commonest spelling", ", ".join(map(repr, others)), first)
        rows["site"] = rows["site"].replace(others, first)
    for group in alike(rows["subject"], without_zeros):
        log.warning(
            "subject: %s are taken for different people, though they differ in capitals, blanks or zeros alone. If they are "
            "one, write them alike in the table, or a network is tested on people it has seen.",
            " and ".join(map(repr, group)),
        )
        for index in rows.index[rows["subject"].isin(group)]:
            twins = ", ".join(shown(name) for name in group if name != rows.loc[index, "subject"])
            text = f"subject: another differs in capitals, blanks or zeros alone ({twins})"
            rows.loc[index, "notes"] = join_problems(rows.loc[index, "notes"], text)
    return rows
