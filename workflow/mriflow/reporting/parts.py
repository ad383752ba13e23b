"""What a section of the report is made of; `templates/report.html` says how each part looks."""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from mriflow.reporting.canvas import DPI, ONE_COLUMN
from mriflow.reporting.results import with_interval


@dataclass(frozen=True)
class Table:
    """Rows under names; `folded` is what stands in its place until it is opened."""

    names: Sequence[str]
    rows: Sequence[Sequence[Any]]
    title: str = ""
    folded: str = ""
    kind: str = "table"

    @property
    def right(self) -> list[bool]:
        """Which columns hold numbers, and stand to the right."""
        cells = [[str(row[i]) for row in self.rows] for i in range(len(self.names))]
        return [bool(one) and all(re.match(r"(<b>)?[−<]?[\d–]|$", cell) for cell in one) for one in cells]


@dataclass(frozen=True)
class Figure:
    """An image that stands in the page itself."""

    source: str
    alt: str
    caption: str
    narrow: bool = False
    kind: str = "figure"


@dataclass(frozen=True)
class Drawing:
    """A diagram: SVG, already markup."""

    svg: str
    caption: str
    kind: str = "drawing"


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    style: str = ""
    kind: str = "text"


@dataclass(frozen=True)
class List:
    """Lines with dots or, with the tag ``ol``, numbers before them."""

    lines: Sequence[str]
    title: str = ""
    tag: str = "ul"
    style: str = ""
    kind: str = "list"


Part = Table | Figure | Drawing | Text | List


@dataclass(frozen=True)
class Section:
    """A section; one without parts is left out of the page unless it is the heading of others."""

    id: str
    title: str
    how: str
    parts: list[Part] = field(default_factory=list)
    level: int = 3


def figure(png: Path, alt: str, caption: str, simulated: bool) -> list[Part]:
    """Return the figure of a file, or nothing if there is no such file."""
    if not png.exists():
        return []
    image = png.read_bytes()
    data = base64.b64encode(image).decode("ascii")
    narrow = int.from_bytes(image[16:20], "big") <= ONE_COLUMN * DPI  # the width in the header of a PNG
    beside = f" For a paper: {png.parent.name}/{png.stem}.pdf." if png.with_suffix(".pdf").exists() else ""
    label = "Simulated data. " if simulated else ""
    return [Figure(f"data:image/png;base64,{data}", f"{label}{alt}", f"{label}{caption}{beside}", narrow)]


def table_of(path: Path, title: str, across: Sequence[str] = (), most: int = 60, without: Sequence[str] = ()) -> list[Part]:
    """Return the first rows of a CSV as a table, or nothing if there is no such file or no row in it.

    Its columns value, low and high become one. Of a column ``metric`` those of `across` alone are shown, beside each other.
    Columns without a value, and those of `without`, are left out.
    """
    if not path.exists() or path.stat().st_size < 2:
        return []
    table = pd.read_csv(path, keep_default_na=False, na_values=[""])
    table = table.drop(columns=[name for name in table if name in without or (len(table) and table[name].isna().all())])
    if {"value", "low", "high"} <= set(table):
        cells = table[["value", "low", "high"]].astype(object).where(table[["value", "low", "high"]].notna(), None)
        table = table.drop(columns=["low", "high"]).assign(value=[with_interval(cell) for cell in cells.to_dict("records")])
    if across and "metric" in table:
        shown = table[table["metric"].isin(across)].astype(object).fillna("")
        about = [name for name in table if name not in ("metric", "value")]
        table = shown.pivot_table(index=about, columns="metric", values="value", aggfunc="first", sort=False).reset_index()
        table = table[[*about, *across]].rename(columns=lambda name: name.replace("_", " "))
    rows = [[cell_of(value) for value in row] for row in table.head(most).to_numpy(object)]
    more = [Text(f"… and {len(table) - most} more rows in {path.name}.", "small")] if len(table) > most else []
    return [Table(list(table), rows, title), *more] if rows else []


def cell_of(value: Any) -> str:
    """Return a cell of a table as text: a number to three significant digits, nothing for what is missing.

    >>> cell_of(0.123456), cell_of(-2.0), cell_of(None), cell_of("a")
    ('0.123', '−2', '', 'a')
    """
    if value is None or value != value:
        return ""
    if isinstance(value, float):
        return f"{value:.3g}".replace("-", "−") if abs(value) < 1000 else f"{value:.0f}".replace("-", "−")
    return str(value)
