"""What stands in a cell of a table that someone made by hand, and exactly what is wrong with it."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from mriflow.tables.units import without_unit

BOOLEANS = dict.fromkeys(("true", "yes", "on"), "true") | dict.fromkeys(("false", "no", "off"), "false")
NOT_KNOWN = {"", "na", "n/a", "nan", "none", "null", "-", "?", "#n/a"}


def as_text(cell: Any) -> str:
    """Return a cell as one would write it: 2.0 is '2', spaces around it are dropped, an unknown value is ''.

    >>> as_text(2.0), as_text(" Guys "), as_text("n/a")
    ('2', 'Guys', '')
    """
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    text = str(cell).strip()
    return "" if text.lower() in NOT_KNOWN else text


def as_code(code: Any) -> str:
    """Return a code as it is compared: 1, 1.0 and '1.0' are the same, and '-' is a code like any other.

    >>> as_code(1.0), as_code("01"), as_code("-")
    ('1', '1', '-')
    """
    if code is None or (isinstance(code, float) and math.isnan(code)):
        return ""
    text = str(code).strip()
    number = whole(text)
    return text if number is None else str(number)


def as_written(value: Any) -> str:
    """Return a value as it is shown: 2.0 is '2', and a class called None is 'None'.

    >>> as_written(2.0), as_written("None")
    ('2', 'None')
    """
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def same_code(cell: Any, codes: Iterable[Any]) -> Any | None:
    """Return which of `codes` a cell is, None if it is none: the very same, or but for capitals, blanks and YAML's booleans.

    YAML reads the keys yes, no, on, off, TRUE and FALSE as true and false, so that these stand for all of them.

    >>> same_code("1.0", [1, 2]), same_code(" MALE", ["male", "female"]), same_code("Yes", [True, False])
    (1, 'male', True)
    """
    by_code = {as_code(code): code for code in codes}
    exact = as_code(cell)
    if exact in by_code:
        return by_code[exact]
    loose = loosened(exact)
    if loose == "":
        return None
    alike = [code for text, code in by_code.items() if loosened(text) == loose]
    alike = alike or [code for text, code in by_code.items() if loosened(text) == BOOLEANS.get(loose)]
    return alike[0] if len(alike) == 1 else None


def loosened(text: str) -> str:
    """Return a text without what makes no difference between two codes: capitals, and how many blanks there are."""
    return " ".join(text.casefold().split())


def is_number(text: str) -> bool:
    """Return whether a text is a finite number, as one writes it (Python would take 1_0 for 10)."""
    try:
        return "_" not in text and math.isfinite(float(text))
    except ValueError:
        return False


def whole(text: str) -> int | None:
    """Return the whole number that a text stands for, such as 1, 001, 1.0 or 1e3; None if it stands for none.

    Digits are not read as a float, which holds no more than 15 of them: a longer identifier would become another's.
    """
    if re.fullmatch(r"[+-]?[0-9]{1,300}(\.0*)?", text):
        return int(text.partition(".")[0])
    exact = is_number(text) and float(text).is_integer() and abs(float(text)) < 2**53
    return int(float(text)) if exact else None


def shown(text: str) -> str:
    """Return a cell as it is shown in a problem: short, and without the `; ` that parts two problems."""
    text = text.replace(";", ",")
    return repr(text if len(text) <= 40 else f"{text[:40]}...")


def read_value(cell: Any, column: Mapping[str, Any]) -> tuple[str | float | None, str]:
    """Read one cell as the dataset's description of its column says.

    Parameters
    ----------
    cell
        What stands in the table.
    column
        The column's block of the dataset: `pattern`, `codes`, `missing`, `range`, `unit`, `format`; the `factor` of a
        number that stands there in another unit; and `values` that are known, though they read as if they were not.

    Returns
    -------
    value, problem
        None for a value that is not known; the problem is '' if there is none.

    >>> read_value("2", {"codes": {1: "M", 2: "F"}})
    ('F', '')
    >>> read_value("135", {"range": [0, 120], "unit": "years"})
    (None, 'out of range (135, expected 0 to 120 years)')
    """
    text = as_text(cell)
    if text and "pattern" in column:
        match = re.fullmatch(column["pattern"], text)
        if not match:
            return None, f"unexpected ({shown(text)}, expected the form {column['pattern']})"
        cell = text = match[1]
    codes = column.get("codes", {})
    if (code := same_code(cell, codes)) is not None:
        return str(codes[code]), ""
    if (value := same_code(cell, column.get("values", []))) is not None:
        return str(value), ""
    if text == "" or same_code(text, column.get("missing", [])) is not None:
        return None, ""
    if codes:
        return None, f"unknown code ({shown(text)}, expected {' or '.join(map(as_code, codes))})"
    if "range" in column:
        low, high = column["range"]
        expected = f"expected {low} to {high} {column.get('unit', '')}".rstrip()
        number_alone, factor = without_unit(text, column.get("unit", ""))
        if number_alone == text:
            factor = column.get("factor", 1)
        text = number_alone
        if not is_number(text):
            comma = ", with a point for decimals" if is_number(text.replace(",", ".")) else ""
            return None, f"not a number ({shown(text)}, {expected}{comma})"
        number = float(text)
        if factor != 1:
            number = round(number * factor, 4)
        if not low <= number <= high:
            converted = f", which is {number:g}" if factor != 1 else ""
            return None, f"out of range ({text}{converted}, {expected})"
        return number, ""
    if "format" in column:
        identifier = whole(text)
        if "{}" in column["format"]:  # a prefix, of texts too, which keep their zeros
            return column["format"].format(text if identifier is None else text.partition(".")[0]), ""
        if identifier is None:
            return None, f"not a whole number ({shown(text)})"
        return column["format"].format(identifier), ""
    return text, ""
