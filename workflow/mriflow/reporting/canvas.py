"""The sheet that every figure is drawn on: sizes, colours, footer, PDF and PNG."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from cycler import cycler
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mriflow.base.files import whole_file

logging.getLogger("fontTools").setLevel(logging.WARNING)  # it reports every glyph that it puts into a PDF

ONE_COLUMN, TWO_COLUMNS = 3.5, 7.0  # inches
DPI = 200
OKABE_ITO = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000"]  # Okabe & Ito 2008
COLOURS = {
    "network": "#0072B2",
    "stacked": "#CC79A7",
    "tissue": "#56B4E9",
    "classical": "#D55E00",
    "pca": "#E69F00",
    "confounders": "#009E73",
    "trivial": "#7F7F7F",
    "train": "#BBBBBB",
    "unchanged": "#0072B2",
    "val": "#D55E00",
}
GREY = "#666666"
STYLE = {
    "axes.prop_cycle": cycler(color=OKABE_ITO),  # the colours C0, C1, ... of groups
    "font.size": 8,
    "legend.fontsize": 7,
    "legend.edgecolor": "none",
    "legend.fancybox": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "pdf.fonttype": 42,  # text stays text, as journals ask
}


@contextmanager
def page(
    pdf: Path, png: Path, width: float, height: float, footer: str, simulated: bool, **grid: Any
) -> Iterator[tuple[Figure, np.ndarray]]:
    """Give an empty figure and its axes (shape (rows, columns)) to draw on, then write it as PDF and PNG."""
    with style.context(["default", STYLE]):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.subplots(squeeze=False, **grid)
        notes = [footer, "simulated data"] if simulated else [footer]
        figure.supxlabel(" · ".join(notes), x=0.995, ha="right", fontsize=6.5, color=GREY)
        # No date and no version: the same input gives the same bytes.
        without = {pdf: ("CreationDate", "Producer", "Creator"), png: ("Software",)}
        for path, keys in without.items():
            with whole_file(path) as temporary:
                figure.savefig(temporary, dpi=DPI, metadata=dict.fromkeys(keys))


def count(number: int, name: str) -> str:
    """Return a number with its noun.

    >>> count(1, "fold"), count(3, "fold")
    ('1 fold', '3 folds')
    """
    return f"{number} {name}{'' if number == 1 else 's'}"


def with_unit(text: str, unit: str) -> str:
    """Return the label of an axis."""
    return f"{text} ({unit})" if unit else text


def legend_above(figure: Figure, ax: Axes) -> None:
    """Draw the legend of `ax`, if something in it has a label, above the figure, where it hides nothing."""
    handles, labels = ax.get_legend_handles_labels()
    if labels:
        figure.legend(handles, labels, loc="outside upper left", ncols=4, columnspacing=1, handletextpad=0.4)
