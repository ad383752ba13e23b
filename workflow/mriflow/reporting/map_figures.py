"""The figures of a segmentation: label maps over scans, and volumes against the truth."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from mriflow.base.errors import UserError
from mriflow.reporting.canvas import GREY, OKABE_ITO, TWO_COLUMNS, count, page
from mriflow.reporting.results import read_metrics

WHICH = ("best", "median", "worst")
MOST = 4  # classes whose volumes stand in a row


def overlays(maps: Path, metrics: Path, pdf: Path, png: Path) -> None:
    """Draw the label maps of the best, the median and the worst test scan by Dice: the scan, the truth, the network.

    `maps` is the overlays.npz that `agreement` made. The planes are axial and coronal, through the middle of the labels.
    """
    result = read_metrics(metrics)
    try:
        with np.load(maps, allow_pickle=False) as saved:
            images, truths, founds, ids, dice = (saved[key] for key in ("image", "truth", "found", "id", "dice"))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{maps}: cannot be read ({error}). `python -m mriflow.agreement` makes it; run that again.") from error
    classes = result["classes"]
    footer = f"3 of n = {result['n']} scans by mean Dice · radiological: patient's right is left"
    grid: dict[str, Any] = {"nrows": 2, "ncols": 9, "gridspec_kw": {"wspace": 0.02, "hspace": 0.02}}
    with page(pdf, png, TWO_COLUMNS, 2.6, footer, result["simulated"], **grid) as (figure, axes):
        for number, (image, truth, found) in enumerate(zip(images, truths, founds, strict=True)):
            middle = (
                [round(float(places.mean())) for places in np.nonzero(truth)] if truth.any() else [n // 2 for n in truth.shape]
            )
            for row, (axis, plane) in enumerate(((2, middle[2]), (1, middle[1]))):
                flat = [np.flip(np.take(volume, plane, axis).T, (0, 1)) for volume in (image, truth, found)]
                for column, labels in enumerate((None, flat[1], flat[2])):
                    draw(axes[row, 3 * number + column], flat[0], labels)
            for column, name in enumerate((f"{WHICH[number]}, Dice {dice[number]:.2f}", "truth", "network")):
                axes[0, 3 * number + column].set_title(name, fontsize=6)
            axes[1, 3 * number].set_xlabel(str(ids[number])[:28], fontsize=5, loc="left")
        patches = [Patch(color=colour_of(number), label=name) for number, name in enumerate(classes)]
        figure.legend(handles=patches, loc="outside upper left", ncols=min(len(classes), 8), fontsize=6.5)


def draw(ax: Axes, image: np.ndarray, labels: np.ndarray | None) -> None:
    """Draw a plane of a scan, with the colours of its labels over it."""
    ax.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    if labels is not None:
        for number in np.unique(labels[labels > 0]):
            over = np.zeros((*labels.shape, 4))
            over[labels == number] = [*hex_to_rgb(colour_of(int(number) - 1)), 0.55]
            ax.imshow(over, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)


def colour_of(number: int) -> str:
    """Return the colour of a class; beyond those that the colour-blind can tell, they come again."""
    return OKABE_ITO[number % (len(OKABE_ITO) - 1)]


def hex_to_rgb(colour: str) -> list[float]:
    """Return red, green and blue between 0 and 1.

    >>> hex_to_rgb("#0072B2")
    [0.0, 0.4470588235294118, 0.6980392156862745]
    """
    return [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]


def volumes(predictions: Path, metrics: Path, pdf: Path, png: Path) -> None:
    """Draw the volumes of each class, a dot per test scan: by the network over true, their difference, and both over age.

    The difference is drawn over the mean of both, with its mean and the limits of agreement (Bland & Altman 1986). Age is drawn
    if the dataset has it.
    """
    result = read_metrics(metrics)
    table = pd.read_csv(predictions, dtype={"id": str, "subject": str})
    classes, has_age = result["classes"], "age" in table and table["age"].notna().any()
    lines = -(-len(classes) // MOST)
    kinds = 3 if has_age else 2
    footer = f"n = {len(table)} scans, {count(table['fold'].nunique(), 'fold')}"
    grid: dict[str, Any] = {"nrows": kinds * lines, "ncols": min(len(classes), MOST)}
    dots: dict[str, Any] = {"ls": "", "marker": "o", "ms": 3, "mew": 0, "alpha": 0.7}
    with page(pdf, png, TWO_COLUMNS, 1.9 * kinds * lines + 0.2, footer, result["simulated"], **grid) as (_, axes):
        for number, name in enumerate(classes):
            line, column = divmod(number, MOST)
            of_class = axes[kinds * line : kinds * (line + 1), column]
            true, found, colour = table[f"true_{name}"], table[f"network_volume_{name}"], colour_of(number)
            ends = [min(true.min(), found.min()), max(true.max(), found.max())]
            of_class[0].plot(ends, ends, color=GREY, lw=0.8, ls="--", zorder=1)
            of_class[0].plot(true, found, color=colour, **dots)
            of_class[0].set(title=name, xlabel="True (ml)", ylabel="" if column else "Network (ml)")
            agreed = result["volumes"].get(name, {})
            of_class[1].plot((true + found) / 2, found - true, color=colour, **dots)
            for limit, style in (("mean", "-"), ("lower_limit", "--"), ("upper_limit", "--")):
                if agreed.get(limit, {}).get("value") is not None:
                    of_class[1].axhline(agreed[limit]["value"], color=GREY, lw=0.8, ls=style, zorder=1)
            of_class[1].set(xlabel="Mean of both (ml)", ylabel="" if column else "Network − true (ml)")
            if has_age:
                of_class[2].plot(table["age"], true, color=GREY, label="true", **dots)
                of_class[2].plot(table["age"], found, color=colour, label="network", **dots)
                of_class[2].set(xlabel="Age (years)", ylabel="" if column else "Grey: true (ml)")
        for ax in (ax for ax in axes.flat if not ax.has_data()):
            ax.set_visible(False)
