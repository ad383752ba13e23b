"""Read a table that someone made by hand, and say exactly what is wrong with a cell."""

import math
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pandas as pd

from mriflow.errors import UserError

NOT_KNOWN = {"", "na", "n/a", "nan", "none", "null", "-", "?", "#n/a"}


def read_table(path: str | Path, sheet: str | None = None) -> pd.DataFrame:
    """Read a .csv, .tsv, .xls or .xlsx file with every cell as it stands there (text of csv stays text).

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
            table = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8-sig")
        elif kind in (".xls", ".xlsx"):
            table = pd.read_excel(path, sheet_name=sheet or 0, dtype=object, keep_default_na=False)
        else:
            raise UserError(f"{path}: a table must be .csv, .tsv, .xls or .xlsx, found {kind or 'no suffix'!r}.")
    except UserError:
        raise
    except Exception as error:  # the readers raise a dozen kinds of errors for a broken file
        raise UserError(f"{path}: cannot be read as a {kind} table ({error}). Open it, and save it again.") from error
    if table.empty:
        raise UserError(f"{path}: the table has no rows.")
    table.columns = [str(column).strip() for column in table.columns]
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
    raise UserError(f"{file}: has no column {name!r}.{hint} It has: {', '.join(map(repr, table.columns))}.")


def as_text(cell: Any) -> str:
    """Return a cell as one would write it: 2.0 is '2', spaces around it are dropped, an unknown value is ''."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    text = str(cell).strip()
    return "" if text.lower() in NOT_KNOWN else text


def read_value(cell: Any, column: Mapping[str, Any]) -> tuple[str | float | None, str]:
    """Read one cell as the dataset's description of its column says.

    Parameters
    ----------
    cell
        What stands in the table.
    column
        The column's block of the dataset: `codes`, `missing`, `range`, `unit`, `format`.

    Returns
    -------
    value, problem
        None for a value that is not known; the problem is '' if there is none.
    """
    text = as_text(cell)
    missing = {as_text(value) for value in column.get("missing", [])}
    if text == "" or text in missing:
        return None, ""
    if "codes" in column:
        meanings = {as_text(code): str(meaning) for code, meaning in column["codes"].items()}
        if text not in meanings:
            return None, f"unknown code ({text!r}, expected {' or '.join(meanings)})"
        return meanings[text], ""
    if "range" in column:
        low, high = column["range"]
        try:
            number = float(text)
        except ValueError:
            return None, f"not a number ({text!r})"
        if as_text(number) in missing:
            return None, ""
        if not low <= number <= high:
            return None, f"out of range ({text}, expected {low} to {high} {column.get('unit', '')}".rstrip() + ")"
        return number, ""
    if "format" in column:
        try:
            return column["format"].format(int(float(text))), ""
        except ValueError:
            return None, f"not a whole number ({text!r})"
    return text, ""
