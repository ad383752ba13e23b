"""Read a table that someone made by hand, and say exactly what is wrong with a cell."""

import csv
import math
import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pandas as pd

from mriflow.errors import UserError

MOST_TOLD = 50  # names of columns in a message
NOT_KNOWN = {"", "na", "n/a", "nan", "none", "null", "-", "?", "#n/a"}


def read_table(path: str | Path, sheet: str | None = None, only: Collection[str] | None = None) -> pd.DataFrame:
    """Read a .csv, .tsv, .xls or .xlsx file with every cell as it stands there (text of csv stays text).

    Parameters
    ----------
    only
        The columns to read of a .csv or .tsv file, if not all: a table of UK Biobank has thousands.

    Raises
    ------
    UserError
        If it is missing, empty, of another kind, or unreadable.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such table. Check the `table` of the dataset.")
    kind = path.suffix.lower()
    try:
        if kind in (".csv", ".tsv"):
            separator = "\t" if kind == ".tsv" else ","
            with open(path, encoding="utf-8-sig") as stream:
                header = stream.readline()
            if kind == ".csv" and header.count(";") > header.count(","):
                separator = ";"  # as spreadsheets write it where the comma is the decimal sign
            if only is not None:
                names = pd.DataFrame(columns=[name.strip() for name in next(csv.reader([header], delimiter=separator))])
                for name in only:
                    pick_column(names, name, path)
            table = pd.read_csv(
                path,
                sep=separator,
                usecols=None if only is None else lambda name: name.strip() in only,
                dtype=str,
                keep_default_na=False,
                encoding="utf-8-sig",
                index_col=False,
                on_bad_lines="error",
            )
        elif kind in (".xls", ".xlsx"):
            table = pd.read_excel(path, sheet_name=sheet or 0, dtype=object, keep_default_na=False)
        else:
            raise UserError(f"{path}: a table must be .csv, .tsv, .xls or .xlsx, found {kind or 'no suffix'!r}.")
    except UserError:
        raise
    except Exception as error:  # the readers raise a dozen kinds of errors for a broken file
        raise UserError(f"{path}: cannot be read as a {kind} table ({error}). Save it again, as UTF-8.") from error
    if table.empty:
        raise UserError(f"{path}: the table has no rows.")
    table.columns = [str(column).strip() for column in table.columns]
    if table.columns.duplicated().any():
        twice = table.columns[table.columns.duplicated()][0]
        raise UserError(f"{path}: has two columns {twice!r}. Give one of them another name, or delete it.")
    return table


def pick_column(table: pd.DataFrame, name: str, file: str | Path) -> pd.Series:
    """Return the column `name` of the table read from `file`.

    Raises
    ------
    UserError
        If it is not there, with the nearest name and all names that are.
    """
    if name in table:
        return table[name]
    near = get_close_matches(name, list(table.columns), n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    there = ", ".join(map(repr, table.columns[:MOST_TOLD])) + (", ..." if len(table.columns) > MOST_TOLD else "")
    raise UserError(f"{file}: has no column {name!r}.{hint} It has: {there}.")


def as_text(cell: Any) -> str:
    """Return a cell as one would write it: 2.0 is '2', spaces around it are dropped, an unknown value is ''."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    text = str(cell).strip()
    return "" if text.lower() in NOT_KNOWN else text


def plain(code: Any) -> str:
    """Return a code as it is compared: 1, 1.0 and '1.0' are the same, and '-' is a code like any other."""
    text = str(code).strip()
    return str(int(float(text))) if is_number(text) and float(text).is_integer() else text


def is_number(text: str) -> bool:
    """Tell whether a text is a finite number."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def read_value(cell: Any, column: Mapping[str, Any]) -> tuple[str | float | None, str]:
    """Read one cell as the dataset's description of its column says.

    Parameters
    ----------
    cell
        What stands in the table.
    column
        The column's block of the dataset: `pattern`, `codes`, `missing`, `range`, `unit`, `format`.

    Returns
    -------
    value, problem
        None for a value that is not known; the problem is '' if there is none.
    """
    text = as_text(cell)
    if text and "pattern" in column:
        match = re.fullmatch(column["pattern"], text)
        if not match:
            return None, f"unexpected ({text!r}, expected the form {column['pattern']})"
        cell = text = match[1]
    meanings = {plain(code): str(meaning) for code, meaning in column.get("codes", {}).items()}
    if plain(cell) in meanings:
        return meanings[plain(cell)], ""
    missing = {as_text(value) for value in column.get("missing", [])}
    if text == "" or text in missing:
        return None, ""
    if meanings:
        return None, f"unknown code ({text!r}, expected {' or '.join(meanings)})"
    if "range" in column:
        low, high = column["range"]
        if not is_number(text):
            return None, f"not a number ({text!r})"
        number = float(text)
        if as_text(number) in missing:
            return None, ""
        if not low <= number <= high:
            return None, f"out of range ({text}, expected {low} to {high} {column.get('unit', '')}".rstrip() + ")"
        return number, ""
    if "format" in column:
        if not is_number(text) or not float(text).is_integer():
            return None, f"not a whole number ({text!r})"
        return column["format"].format(int(float(text))), ""
    return text, ""
