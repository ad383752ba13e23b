"""Read a table that someone made by hand, and say exactly what is wrong with a cell."""

import contextlib
import csv
import itertools
import logging
import re
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from mriflow.base.errors import UserError, nearest
from mriflow.base.files import dead_link, is_web_page, pointer

log = logging.getLogger(__name__)

MOST_NAMED = 50  # names of columns in a message
FIRST_LINES = 20  # that show what parts the columns
TEXT, EXCEL = (".csv", ".tsv"), (".xls", ".xlsx")


def read_table(path: str | Path, sheet: str | None = None, only: Collection[str] | None = None) -> pd.DataFrame:
    """Read a .csv, .tsv, .xls or .xlsx file with every cell as it stands there (text of csv stays text).

    The columns of a .csv file may be parted by commas, semicolons or tabs. Rows in which nothing stands and columns without a
    name are left out.

    Parameters
    ----------
    only
        The columns to read, if not all: a table of UK Biobank has thousands. What is wrong with others does no harm: two of one
        name, or rows that end before them, as Excel writes them where the last cells are empty.

    Returns
    -------
    The table; its index is such that ``index + 2`` is the row's line in the file, or its row in the sheet.

    Raises
    ------
    UserError
        If it is missing, empty, of another kind, or unreadable; or if a row has more cells than there are columns, or ends
        before one that is read.
    """
    path = Path(path)
    try:
        try:
            return table_of(rows_of(path, sheet), only, path)
        except StrayQuote as error:
            if only is None:
                raise
            return table_without_quotes(path, only, error)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}). Check its permissions and the disk.") from error


class StrayQuote(UserError):
    """A quotation mark in a text table that opens or closes nothing."""


def table_without_quotes(path: Path, only: Collection[str], error: StrayQuote) -> pd.DataFrame:
    """Read a table line by line, if that leaves every row whole and no quotation mark stands in a column that is read.

    Raises
    ------
    StrayQuote
        The error as it was, if not.
    """
    rows = list(rows_of_text(path, b"", by_line=True))
    if len({len(row) for _, row in rows}) > 1:
        raise error
    table = table_of(iter(rows), only, path)
    if table.map(lambda cell: '"' in cell).any(axis=None):
        raise error
    log.warning("%s The columns that are used have none, so it is taken as it stands.", error)
    return table


def cells_of(text: str, separator: str, width: int) -> list[str]:
    """Return the cells of one line of a text table that is `width` cells wide, whether or not its quotation marks are in place.

    >>> cells_of('a,"Smith, J",30', ",", 3), cells_of('a,"tall,30', ",", 3)
    (['a', 'Smith, J', '30'], ['a', '"tall', '30'])
    """
    with contextlib.suppress(csv.Error):
        row = next(csv.reader([text], delimiter=separator, skipinitialspace=True, strict=True), [])
        if len(row) == width:
            return row
    return [re.sub(r'^"(.*)"$', r"\1", cell.strip()) for cell in text.split(separator)]


def column_names(path: Path, sheet: str | None = None) -> list[str]:
    """Return how the columns of such a table are called, none if no row stands below; see `read_table` for what is raised."""
    try:
        first = list(itertools.islice(rows_of(path, sheet), 2))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}). Check its permissions and the disk.") from error
    return [str(name).strip() for name in first[0][1]] if len(first) > 1 else []


def rows_of(path: Path, sheet: str | None) -> Iterator[tuple[int, list[Any]]]:
    """Return the line and the cells of each row of a table, after a look at what kind of file it is."""
    if not path.is_file():
        what = "a folder, not a table" if path.is_dir() else "no such table"
        bids = " (the folder of `bids` has to hold it)" if path.name == "participants.tsv" else ""
        if link := dead_link(path):
            raise UserError(f"{path}: is {link}.")
        raise UserError(f"{path}: {what}. Check the `table` of the dataset{bids}.")
    kind = path.suffix.lower()
    if kind not in (*TEXT, *EXCEL):
        raise UserError(
            f"{path}: a table must be {', '.join((*TEXT, *EXCEL))}, found {path.suffix or 'no suffix'}. Save it as one."
        )
    with open(path, "rb") as stream:
        head = stream.read(512)
    if cure := pointer(head):
        raise UserError(f"{path}: is {cure}.")
    if is_web_page(head):
        raise UserError(
            f"{path}: is a web page, not a table. If it was saved from a site, log in there and get it again; if a program "
            "wrote it as HTML, open it in a spreadsheet and save it as .xlsx or .csv."
        )
    return rows_of_sheet(path, sheet, head) if kind in EXCEL else rows_of_text(path, head)


def table_of(rows: Iterator[tuple[int, list[Any]]], only: Collection[str] | None, path: Path) -> pd.DataFrame:
    """Return the table that these rows make, each with its line; the first names the columns. See `read_table`."""
    first, header = next(rows, (0, []))
    names = [str(name).strip() for name in header]
    if not any(names):
        raise UserError(f"{path}: the table is empty. Its first line has to name the columns, each further one is a row.")
    for name in only or ():
        pick_column(pd.DataFrame(columns=[name for name in names if name]), name, path)
    kept = {place: name for place, name in enumerate(names) if name and (only is None or name in only)}
    if len(set(kept.values())) < len(kept):
        twice = next(name for place, name in kept.items() if name in names[:place])
        raise UserError(f"{path}: has two columns {twice!r}. Give one of them another name, or delete it.")

    width, least = len(names), max(kept, default=0) + 1
    cells: list[list[Any]] = []
    lines: list[int] = []
    wrong: dict[int, int] = {}  # line and number of cells of the rows that do not fit
    for line, row in rows:
        if len(row) < least or any(cell.strip() for cell in row[width:]):
            wrong[line] = len(row)
        else:
            cells.append([row[place] for place in kept])
            lines.append(line)
    if wrong:
        line, count = next(iter(wrong.items()))
        last = " It is the last line: was the file cut short?" if line > max(lines, default=0) and len(wrong) == 1 else ""
        raise UserError(
            f"{path}: line {line} has {count} cell(s), expected {width}, for so many columns are named in line {first} "
            f"({len(wrong)} such line(s)).{last} Name all columns there, leave no cell out, and put a text that holds the "
            "separator in quotes."
        )
    if not cells:
        raise UserError(f"{path}: the table has no rows below line {first}, which names the columns. Is it the whole table?")
    return pd.DataFrame(cells, columns=list(kept.values()), index=[line - 2 for line in lines], dtype=object)


def rows_of_text(path: Path, head: bytes, by_line: bool = False) -> Iterator[tuple[int, list[str]]]:
    """Yield the line and the cells of each row of a .csv or .tsv file in which something stands.

    Of a table parted by semicolons, as Excel writes it in much of Europe, the text may be that of Windows (cp1252). With
    `by_line`, each line is a row, and a quotation mark out of place a sign like all others.
    """
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in head:
        raise UserError(f"{path}: is no UTF-8 text (UTF-16, or no text at all). Save it again as 'CSV UTF-8'.")
    line = 1
    try:
        with open(path, encoding=encoding_of(path), newline="") as stream:
            lines = list(itertools.islice(stream, FIRST_LINES))
            stream.seek(0)
            if declared := re.fullmatch(r"sep=([^\s\"]|\t)\s*", "".join(lines[:1]), re.IGNORECASE):  # Excel's own first line
                stream.readline()
                line = 2
            separator, first = declared[1] if declared else separator_of(lines, path), line
            # Strict, or a quotation mark that is not closed swallows the rows that follow.
            reader = csv.reader(stream, delimiter=separator, skipinitialspace=True, strict=True)
            width = 0
            for text in stream if by_line else ():
                row = cells_of(text, separator, width or text.count(separator) + 1)
                width = width or len(row)
                if any(map(str.strip, row)):
                    yield line, row
                line += 1
            for row in reader:
                width = width or len(row)
                # A mark that is not closed takes in the lines that follow, up to the next mark: each is a row for itself.
                cells = row if any(row[width:]) else row[:width]  # empty ones beyond the header's tell nothing
                swallowed = separator.join(cells).strip("\r\n").splitlines() if reader.line_num + first > line + 1 else []
                if width > 2 and len(swallowed) > 1 and all(text.count(separator) == width - 1 for text in swallowed):
                    raise csv.Error(f"it takes in {len(swallowed) - 1} line(s) that follow")
                if any(map(str.strip, row)):
                    yield line, row
                line = reader.line_num + first
    except UnicodeDecodeError as error:
        with open(path, "rb") as raw:
            number, byte = next((n, byte) for n, text in enumerate(raw, 1) if (byte := first_odd_byte(text)) is not None)
        raise UserError(
            f"{path}: line {number} is not UTF-8 text (found the byte 0x{byte:02x}). Save it again as 'CSV UTF-8'."
        ) from error
    except csv.Error as error:
        raise StrayQuote(
            f"{path}: the row that begins in line {line} has a quotation mark out of place ({error}). Correct it, or save the "
            "table again."
        ) from error


def encoding_of(path: Path) -> str:
    """Return how the text of a table is encoded: in UTF-8, or, of one parted by semicolons, as Windows does in Europe."""
    with open(path, "rb") as stream:
        head = list(itertools.islice(stream, FIRST_LINES))
        lines = [line.decode("cp1252", errors="replace") for line in head]
        if not has_semicolons(lines, path) or all(first_odd_byte(line) is None for line in itertools.chain(head, stream)):
            return "utf-8-sig"
    log.warning("%s: is no UTF-8 text; it is read as that of Windows (cp1252)", path)
    return "cp1252"


def has_semicolons(lines: list[str], path: Path) -> bool:
    """Return whether a table that begins with these lines is parted by semicolons."""
    declared = re.fullmatch(r"(\xef\xbb\xbf)?sep=(\S)\s*", "".join(lines[:1]), re.IGNORECASE)
    return declared[2] == ";" if declared else path.suffix.lower() != ".tsv" and separator_of(lines, path) == ";"


def decimal_comma(path: Path) -> bool:
    """Return whether a comma stands for the decimal point in a table: in one parted by semicolons it can mean nothing else."""
    if path.suffix.lower() != ".csv" or not path.is_file():
        return False
    with open(path, "rb") as stream:
        return has_semicolons([line.decode("cp1252", errors="replace") for line in itertools.islice(stream, FIRST_LINES)], path)


def separator_of(lines: list[str], path: Path) -> str:
    """Return what parts the columns of a table that begins with these lines: what makes most rows as wide as the header."""
    fits = {}
    for separator in "\t;,":  # the first of equals: a comma may stand in numbers
        rows = csv.reader(lines, delimiter=separator, skipinitialspace=True)
        widths = [len(row) for row in rows if any(map(str.strip, row))] or [0]
        fits[separator] = (widths.count(widths[0]) if widths[0] > 1 else 0, widths[0])
    best = max(fits, key=lambda separator: fits[separator]) if any(count for count, _ in fits.values()) else ","
    if path.suffix.lower() != ".tsv":
        return best
    if fits["\t"][1] < 2 <= fits[best][1]:
        raise UserError(f"{path}: its columns are parted by {best!r}, those of a .tsv file by tabs. Rename it to .csv.")
    return "\t"


def first_odd_byte(text: bytes) -> int | None:
    """Return the first byte that is not UTF-8, None if all is."""
    try:
        text.decode()
    except UnicodeDecodeError as error:
        return text[error.start]
    return None


def rows_of_sheet(path: Path, sheet: str | None, head: bytes) -> Iterator[tuple[int, list[Any]]]:
    """Yield the number and the cells of each row of an Excel file in which something stands."""
    again = "open it in a spreadsheet and save it as .xlsx or .csv."
    if not head.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise UserError(f"{path}: is no Excel file (it begins with {head[:20]!r}). If it is text, call it .csv; else {again}")
    try:
        # What its readers warn of, a style or their own end, is nothing to the user.
        with warnings.catch_warnings(action="ignore"), pd.ExcelFile(path) as book:
            if sheet is not None and sheet not in book.sheet_names:
                sheets = ", ".join(map(repr, book.sheet_names))
                raise UserError(f"{path}: has no sheet {sheet!r}. It has: {sheets}. Correct the `sheet` of the dataset.")
            cells = pd.read_excel(book, sheet_name=sheet or 0, header=None, dtype=object, keep_default_na=False)
    except UserError:
        raise
    except Exception as error:  # its readers raise a dozen kinds of errors for a broken file
        why = "no workbook in it" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"
        raise UserError(f"{path}: cannot be read as an Excel file ({why}). Get it again, or {again}") from error
    for number, row in enumerate(cells.to_numpy().tolist(), 1):
        if any(str(cell).strip() for cell in row):
            yield number, row


def pick_column(table: pd.DataFrame, name: str, file: str | Path) -> pd.Series:
    """Return the column `name` of the table read from `file`.

    Raises
    ------
    UserError
        If it is not there, with the nearest name and all names that are.
    """
    if name in table:
        return table[name]
    meant = nearest(name, table.columns)
    hint = f" Did you mean {meant!r}?" if meant else ""
    columns = ", ".join(map(repr, table.columns[:MOST_NAMED])) + (", ..." if len(table.columns) > MOST_NAMED else "")
    raise UserError(f"{file}: has no column {name!r}.{hint} It has: {columns}. The first line has to name the columns.")
