"""Identifiers of people that a spreadsheet has spoilt: then several people have one name, or one that is not theirs."""

import logging
import re
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd

from mriflow.base.errors import UserError
from mriflow.tables.cells import as_text, shown

log = logging.getLogger(__name__)

EXACT = 15  # digits of a number that a spreadsheet keeps
AGAIN = "Get the table from where it was made, and read that column as text when you open it in a spreadsheet"
# As spreadsheets shorten them in English, German, French, Spanish, Italian and Dutch.
MONTH = (
    "(?:jan|janv|ene|gen|feb|févr|mar|mrz|mär|mars|mrt|apr|avr|abr|may|mai|mag|mei|jun|juin|giu|jul|juil|lug|aug|août|ago"
    "|sep|sept|set|oct|okt|ott|nov|dec|dez|déc|dic)"
)
DATES = re.compile(
    rf"\d{{1,2}}[-./ ]\s?{MONTH}\.?([-./ ]\d{{2,4}})?|{MONTH}[-/ ]\d{{2,4}}"
    r"|\d{1,2}([-./])\d{1,2}\2(\d\d){1,2}|\d{4}([-./])\d{1,2}\4\d{1,2}( 00:00:00)?",
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
        if re.fullmatch(r"[+-]?\d(\.\d+[eE][+-]|[eE]\+)\d+", text):
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
