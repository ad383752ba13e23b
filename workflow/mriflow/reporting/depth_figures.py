"""The figures of what is asked of a result beside how good it is: training size, worse scans, and what it looks at."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter, NullLocator

from mriflow.reporting.canvas import COLOURS, GREY, ONE_COLUMN, TWO_COLUMNS, count, page, with_unit
from mriflow.reporting.results import METRICS, not_as_made, with_interval

NAMES = {"occlusion": "Occlusion", "gradients": "Gradients", "truth": "Simulated\nchange"}


def training_size(result: Path, pdf: Path, png: Path) -> None:
    """Draw the metric of network and classical method over the people that they learned from, with intervals."""
    found = read_made(result, "fractions", "controls")
    metric, rows = found["metric"], sorted(found["fractions"], key=lambda one: one["people"])
    footer = f"n = {found['n']} test scans"
    with page(pdf, png, ONE_COLUMN, 2.7, footer, found["simulated"]) as (_, axes):
        ax = axes[0, 0]
        for offset, method in ((0.98, "network"), (1.02, "classical")):  # side by side on an axis of ratios
            places = [one["people"] * offset for one in rows]
            draw_points(ax, places, [one[method][metric] for one in rows], COLOURS[method], method)
        ax.set(xscale="log", xlabel="People to learn from, in each fold", ylabel=axis_of(found))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xticks([one["people"] for one in rows], [f"{one['people']:.0f}" for one in rows])
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.legend()


def robustness(result: Path, pdf: Path, png: Path) -> None:
    """Draw the metric over the strength of each change, beside that of the unchanged scans, with intervals."""
    found = read_made(result, "changes", "robustness")
    metric, unchanged = found["metric"], found["unchanged"]
    kinds = list(dict.fromkeys(one["kind"] for one in found["changes"]))
    columns = min(3, len(kinds))
    lines = -(-len(kinds) // columns)
    grid: dict[str, Any] = {"nrows": lines, "ncols": columns, "sharey": True}
    footer = f"n = {found['n']} test scans"
    with page(pdf, png, TWO_COLUMNS, 1.9 * lines + 0.3, footer, found["simulated"], **grid) as (_, axes):
        for ax, kind in zip(axes.flat, kinds, strict=False):
            ones = [one for one in found["changes"] if one["kind"] == kind]
            cell = unchanged[metric]
            ax.axhline(cell["value"], color=GREY, lw=0.8, ls="--", zorder=1)
            if cell["low"] is not None:
                ax.axhspan(cell["low"], cell["high"], color="#EEEEEE", zorder=0)
            draw_points(ax, range(len(ones)), [one["metrics"][metric] for one in ones], COLOURS["network"], "network")
            ax.set_xticks(range(len(ones)), [f"{one['strength']:g}" for one in ones])
            ax.set_title(kind.capitalize(), fontsize=8)
            # In two lines: what a strength is takes more than the width of a panel.
            ax.set_xlabel(with_unit(ones[0]["meaning"].replace(", ", ",\n"), ones[0]["unit"]), fontsize=7)
        for ax in list(axes.flat)[len(kinds) :]:
            ax.set_visible(False)
        for ax in axes[:, 0]:
            ax.set_ylabel(axis_of(found))


def attention(result: Path, maps: Path, pdf: Path, png: Path) -> None:
    """Draw the mean maps over the average brain: slices through the strongest place, a row for each way."""
    found = read_made(result, "ways", "attention")
    names = [*found["ways"], *(["truth"] if (maps / "truth.nii.gz").exists() else [])]
    brain, first = voxels_of(maps, "brain"), voxels_of(maps, names[0])
    strongest = np.unravel_index(int(np.argmax(first)), first.shape)
    footer = f"mean over {count(found['n'], 'test scan')} · patient's right on the left"
    grid: dict[str, Any] = {"nrows": len(names), "ncols": 4, "width_ratios": [1, 1, 1, 0.06]}
    with page(pdf, png, TWO_COLUMNS, 2.0 * len(names) + 0.3, footer, found["simulated"], **grid) as (figure, axes):
        for row, name in zip(axes, names, strict=True):
            image = voxels_of(maps, name)
            highest = float(np.quantile(image[image > 0], 0.995)) if (image > 0).any() else 1.0
            for ax, axis in zip(row, (2, 1, 0), strict=False):
                place = int(strongest[axis])
                ax.imshow(upright(brain.take(place, axis)), cmap="gray", interpolation="nearest")
                strength = upright(image.take(place, axis))
                shown = ax.imshow(
                    strength, cmap="inferno", vmin=0, vmax=highest, alpha=np.clip(strength / highest, 0, 1) * 0.85
                )
                ax.set(xticks=[], yticks=[])
                ax.spines[:].set_visible(False)
            row[0].set_ylabel(NAMES[name])
            row[1].set_title(told(found["ways"].get(name, {})), fontsize=7)
            figure.colorbar(shown, cax=row[3])
            row[3].set_ylabel(unit_of(name, found["value"]), fontsize=7)


def told(way: dict[str, Any]) -> str:
    """Return what the checks of a map say, in a line."""
    if not way:
        return ""
    text = f"r with random weights {with_interval(way['sanity']['random_weights'])}"
    if way["sanity"]["other_fold"]:
        text += f", with another fold {with_interval(way['sanity']['other_fold'])}"
    if "truth" in way:
        chance = way["truth"]["chance"]["value"]
        text += f"\noverlap with the simulated change {with_interval(way['truth']['overlap'])}, by chance {chance:.2f}"
    return text


def unit_of(name: str, value: str) -> str:
    """Return what the colours of a map stand for."""
    units = {"occlusion": f"change ({value})", "gradients": "steepness\n(mean = 1)", "truth": "change of\nbrightness"}
    return units[name]


def upright(plane: np.ndarray) -> np.ndarray:
    """Return a slice of RAS voxels as it is looked at: up is up, and the patient's right on the left."""
    return np.flipud(plane.T[:, ::-1])


def voxels_of(maps: Path, name: str) -> np.ndarray:
    """Read a map that `attention` made."""
    try:
        return np.asarray(nib.nifti1.load(maps / f"{name}.nii.gz").dataobj)
    except (OSError, nib.filebasedimages.ImageFileError) as error:
        raise not_as_made(maps / f"{name}.nii.gz", f"cannot be read ({error})", "attention") from error


def draw_points(ax: Axes, places: Any, cells: list[dict[str, Any]], shade: str, name: str) -> None:
    """Draw values with their intervals over places, joined by a line."""
    known = [(place, cell) for place, cell in zip(places, cells, strict=True) if cell["value"] is not None]
    ax.plot([place for place, _ in known], [cell["value"] for _, cell in known], "o-", ms=3.5, color=shade, label=name)
    for place, cell in known:
        if cell["low"] is not None:
            ax.plot([place, place], [cell["low"], cell["high"]], color=shade)


def axis_of(found: dict[str, Any]) -> str:
    """Return the label of the metric's axis."""
    names = METRICS.get(found["type"], {"dice": "Mean Dice"})
    return with_unit(names[found["metric"]], found["unit"] if found["metric"] == "mae" else "")


def read_made(path: Path, key: str, maker: str) -> dict[str, Any]:
    """Read a file of results that the stage `maker` made, with something under a key."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise not_as_made(path, f"cannot be read ({error})", maker) from error
    if not result.get(key):
        raise not_as_made(path, f"has no {key}", maker)
    return result
