"""What the small web pages of the report are made of: the page, a paragraph, a table with its title."""

import html
import re
from collections.abc import Iterable, Sequence

LISTED = 200  # rows of excluded scans on the page; the CSV has them all

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.45 sans-serif; color: #222; max-width: 70em; margin: 1.5em; }}
table {{ border-collapse: collapse; margin: 0.5em 0 1.5em; }}
th, td {{ text-align: left; padding: 0.25em 0.9em 0.25em 0; border-bottom: 1px solid #ddd; vertical-align: top; }}
th {{ border-bottom: 2px solid #666; }}
td.n, th.n {{ text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }}
h2 {{ font-size: 1.15em; }} .small {{ font-size: 0.85em; color: #555; }}
</style></head><body>
<h1>{title}</h1>
{body}
</body></html>
"""


class Markup(str):
    """Text of a cell that is HTML already; any other is escaped."""

    def __html__(self) -> str:  # templates ask for it
        return self

    def format_escaped(self, *values: object) -> "Markup":
        """Return the markup with values in its places, escaped."""
        return Markup(self.format(*(html.escape(str(value)) for value in values)))


def paragraph(text: str) -> str:
    """Return a paragraph; none of no text."""
    return f'<p class="small">{html.escape(text)}</p>' if text else ""


def section(title: str, names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table with a title; cells that begin with a number stand to the right, and the names above them too."""
    cells = [[cell if isinstance(cell, Markup) else html.escape(str(cell)) for cell in row] for row in rows]
    right = [bool(cells) and all(re.match(r"(<b>)?−?[\d–]|$", row[i]) for row in cells) for i in range(len(names))]
    kind = [' class="n"' if numbers else "" for numbers in right]
    head = "".join(f"<th{k}>{html.escape(name)}</th>" for k, name in zip(kind, names, strict=True))
    lines = ["".join(f"<td{k}>{cell}</td>" for k, cell in zip(kind, row, strict=True)) for row in cells]
    body = "\n".join(f"<tr>{line}</tr>" for line in [head, *lines])
    return (f"<h2>{html.escape(title)}</h2>\n" if title else "") + f"<table>{body}\n</table>"
