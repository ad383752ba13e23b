"""Draw one figure as PDF and PNG, ready for a paper: 3.5 or 7 inches wide, in colours that the colour-blind can tell.

The same input gives the same bytes. Every figure says how many scans and folds it shows, and when they are simulated.
"""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import confusion_matrix as count_confusions
from sklearn.metrics import roc_curve

from mriflow.cli import run_stage, stage_parser
from mriflow.errors import UserError
from mriflow.files import whole_file
from mriflow.tell import (
    METHODS,
    is_simulated,
    read_cohort,
    read_index,
    read_made,
    read_metrics,
    reasons_of,
    with_interval,
)

logging.getLogger("fontTools").setLevel(logging.WARNING)  # it tells of every glyph that it puts into a PDF

ONE_COLUMN, TWO_COLUMNS = 3.5, 7.0  # inches
DPI = 200
OKABE_ITO = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000"]  # Okabe & Ito 2008
COLOURS = {"network": "#0072B2", "classical": "#D55E00", "trivial": "#7F7F7F", "train": "#56B4E9", "val": "#D55E00"}
MARKERS = {"network": "o", "classical": "s", "trivial": "^"}
GREY = "#666666"
STYLE = {
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
        for path, metadata in (
            (pdf, {"CreationDate": None, "Producer": None, "Creator": None}),
            (png, {"Software": None}),
        ):
            with whole_file(path) as temporary:
                figure.savefig(temporary, dpi=DPI, metadata=metadata)


def learning_curves(
    histories: Sequence[Path],
    pdf: Path,
    png: Path,
    *,
    metrics: Path | None = None,
    unit: str = "",
    simulated: bool = False,
) -> None:
    """Draw loss and score by epoch: a thin line per fold and seed, their mean thick as far as all runs go.

    `histories` are the tables that `train` made, in folders named ``fold-0_seed-0``; `metrics` tells how many scans.
    """
    columns = ["epoch", "train_loss", "val_loss"]
    runs = [read_made(path, columns, "train").set_index("epoch") for path in histories]
    for path, run in zip(histories, runs, strict=True):
        if run.empty:
            raise UserError(
                f"{path}: has no epoch. Run `python -m mriflow.train` again; it goes on from its checkpoint."
            )
    score = next((name for name in runs[0] if name.startswith("val_") and name != "val_loss"), None)
    names = [re.fullmatch(r"fold-(.+)_seed-(.+)", path.parent.name) for path in histories]
    folds, seeds = (len({name[part] for name in names if name}) for part in (1, 2))
    footer = f"{count(folds, 'fold')} × {count(seeds, 'seed')}" if seeds > 1 else count(folds or len(runs), "fold")
    if metrics is not None:
        footer = f"n = {read_metrics(metrics)['n']} scans, {footer}"
    panels = [("Loss", ["train_loss", "val_loss"]), *([(score_label(score, unit), [score])] if score else [])]
    with page(pdf, png, TWO_COLUMNS if score else ONE_COLUMN, 2.5, footer, simulated, ncols=len(panels)) as (_, axes):
        for ax, (label, shown) in zip(axes[0], panels, strict=True):
            for name in shown:
                draw_runs(ax, [run[name] for run in runs if name in run], COLOURS[name.split("_")[0]])
            ax.set(xlabel="Epoch", ylabel=label)
            ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        losses = np.concatenate([run[["train_loss", "val_loss"]].to_numpy().ravel() for run in runs])
        if losses.min() > 0 and losses.max() > 20 * losses.min():
            axes[0, 0].set_yscale("log")
        axes[0, 0].plot([], [], color=COLOURS["train"], label="training")
        axes[0, 0].plot([], [], color=COLOURS["val"], label="validation")
        axes[0, 0].plot([], [], "o", ms=3, color=COLOURS["val"], label="lowest validation loss")
        axes[0, 0].legend()
        for run in runs:
            best = run["val_loss"].idxmin()
            for ax, (_, shown) in zip(axes[0], panels, strict=True):
                ax.plot(best, run.loc[best, shown[-1]], "o", ms=3, color=COLOURS["val"], zorder=3)


def draw_runs(ax: Axes, runs: Sequence[pd.Series], shade: str) -> None:
    """Draw a thin line for each run, and their mean thick as far as all of them go."""
    alone = len(runs) == 1
    for run in runs:
        ax.plot(run.index, run, color=shade, lw=1.2 if alone else 0.5, alpha=1 if alone else 0.6)
    if not alone:
        mean = pd.concat(runs, axis=1).dropna().mean(axis=1)
        ax.plot(mean.index, mean, color=shade, lw=1.8)


def score_label(name: str, unit: str) -> str:
    """Return the label of a validation score's axis."""
    short = name.removeprefix("val_")
    text = {"mae": "MAE", "auc": "AUC"}.get(short, short.replace("_", " "))
    return f"Validation {text}{f' ({unit})' if unit and short == 'mae' else ''}"


def predicted_vs_true(
    predictions: Path,
    metrics: Path,
    pdf: Path,
    png: Path,
    *,
    target: str = "value",
    unit: str = "",
    by: str = "site",
    simulated: bool = False,
) -> None:
    """Draw every scan's prediction over its true value, coloured by `by` (site or fold), with the line of identity."""
    table = read_predictions(predictions, ["truth", "network"])
    result = read_metrics(metrics)
    mae, r = (with_interval(result["network"].get(name)) for name in ("mae", "r"))
    both = table[["truth", "network"]]
    low, high = both.min().min(), both.max().max()
    margin = 0.04 * (high - low) or 1
    limits = (low - margin, high + margin)
    with page(pdf, png, ONE_COLUMN, 3.7, footer_of(table), simulated) as (figure, axes):
        ax = axes[0, 0]
        ax.plot(limits, limits, color=GREY, lw=0.8, ls="--", zorder=1)
        scatter(ax, table, table["network"], by)
        ax.set(xlim=limits, ylim=limits, aspect="equal")
        ax.set(xlabel=axis_label(f"True {target}", unit), ylabel=axis_label(f"Predicted {target}", unit))
        ax.text(0.03, 0.98, f"MAE {mae} {unit}".rstrip() + f"\nr {r}", transform=ax.transAxes, va="top")
        legend_above(figure, ax)


def residual_vs_truth(
    predictions: Path,
    metrics: Path,
    pdf: Path,
    png: Path,
    *,
    target: str = "value",
    unit: str = "",
    by: str = "site",
    simulated: bool = False,
) -> None:
    """Draw predicted minus true over the true value with the least-squares line, and how the residuals spread."""
    table = read_predictions(predictions, ["truth", "network"])
    slope = read_metrics(metrics)["network"].get("slope") or {}
    truth, residual = table["truth"], table["network"] - table["truth"]
    grid: dict[str, Any] = {"ncols": 2, "width_ratios": [5, 1], "sharey": True}
    with page(pdf, png, ONE_COLUMN, 2.9, footer_of(table), simulated, **grid) as (figure, axes):
        ax, spread = axes[0]
        ax.axhline(0, color=GREY, lw=0.8, ls="--", zorder=1)
        scatter(ax, table, residual, by)
        if slope.get("value") is not None:
            ends = np.array([truth.min(), truth.max()])
            # A least-squares line goes through the means.
            line = residual.mean() + slope["value"] * (ends - truth.mean())
            ax.plot(ends, line, color="black", lw=1.4)
            ax.text(0.97, 0.98, f"slope {with_interval(slope)}", transform=ax.transAxes, va="top", ha="right")
        reach = residual.abs().max() or 1
        # Room above for the text, so that it hides no scan.
        ax.set(xlabel=axis_label(f"True {target}", unit), ylim=(-1.05 * reach, 1.25 * reach))
        ax.set(ylabel=axis_label(f"Predicted − true {target}", unit))
        legend_above(figure, ax)
        spread.hist(residual, bins=20, orientation="horizontal", color="#BBBBBB")
        spread.axhline(0, color=GREY, lw=0.8, ls="--")
        spread.set(xlabel="Scans")
        spread.tick_params(left=False)


def roc(
    predictions: Path, metrics: Path, pdf: Path, png: Path, *, classes: Sequence[str], simulated: bool = False
) -> None:
    """Draw the ROC curves of network and classical baseline; of more than two classes, each against the rest."""
    methods = ("network", "classical")
    needed = ["truth", *(f"{method}_{name}" for method in methods for name in classes)]
    table = read_predictions(predictions, needed, classes)
    result = read_metrics(metrics)
    many = len(classes) > 2
    shown = classes if many else classes[-1:]
    with page(pdf, png, ONE_COLUMN, 3.6, footer_of(table), simulated) as (_, axes):
        ax = axes[0, 0]
        ax.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls="--", zorder=1, label="chance")
        for method, dash in zip(methods, ("-", ":" if many else "-"), strict=True):
            for number, name in enumerate(shown):
                truth = table["truth"] == name
                if truth.nunique() == 2:
                    false, true, _ = roc_curve(truth, table[f"{method}_{name}"])
                    ax.plot(false, true, dash, color=colour(number) if many else COLOURS[method], clip_on=False)
            auc = with_interval((result.get(method) or {}).get("auc"))
            ax.plot([], [], dash, color=GREY if many else COLOURS[method], label=f"{method}, AUC {auc}")
        for number, name in enumerate(shown if many else []):
            ax.plot([], [], color=colour(number), label=f"{name} against the rest")
        positive = "" if many else f" for {shown[0]}"
        ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        ax.set(xlabel="1 − specificity (false positive rate)", ylabel=f"Sensitivity{positive} (true positive rate)")
        ax.legend(loc="lower right")


def confusion_matrix(
    predictions: Path, pdf: Path, png: Path, *, classes: Sequence[str], simulated: bool = False
) -> None:
    """Draw how many scans of each class the network put into which, and the share of each row."""
    table = read_predictions(predictions, ["truth", "network"], classes)
    counts = count_confusions(table["truth"], table["network"], labels=list(classes))
    rows = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, rows, out=np.zeros(counts.shape), where=rows > 0)
    side = min(max(3.2, 0.75 * len(classes) + 1.1), TWO_COLUMNS)
    width = ONE_COLUMN if side <= ONE_COLUMN else TWO_COLUMNS
    with page(pdf, png, width, side, footer_of(table), simulated) as (_, axes):
        ax = axes[0, 0]
        ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        for (row, column), number in np.ndenumerate(counts):
            ink = "white" if shares[row, column] > 0.55 else "black"
            text = f"{number}\n{100 * shares[row, column]:.0f} %"
            ax.text(column, row, text, ha="center", va="center", color=ink)
        ax.set_xticks(range(len(classes)), classes)
        ax.set_yticks(range(len(classes)), [f"{name}\n(n = {n})" for name, n in zip(classes, rows[:, 0], strict=True)])
        ax.set(xlabel="Predicted class", ylabel="True class")
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)


def scans(arrays: Sequence[Path], indices: Sequence[Path], pdf: Path, png: Path, *, simulated: bool = False) -> None:
    """Draw eight preprocessed scans, from the worst to the best correlation with the template, evenly in between.

    `arrays` and `indices` are the shards that `preprocess` made, in the same order.
    """
    if len(arrays) != len(indices):
        raise UserError(
            f"{len(arrays)} --arrays and {len(indices)} --indices; give each shard's array and index, in one order."
        )
    tables = [read_index(path).assign(shard=number) for number, path in enumerate(indices)]
    table = pd.concat(tables, ignore_index=True)
    good = table[table["index"].notna()].sort_values(["correlation", "id"], na_position="first")
    if good.empty:
        problems = table["problem"].dropna().map(lambda text: reasons_of(text)[0])
        common = f"; the commonest problem is {problems.mode()[0]!r}" if len(problems) else ""
        raise UserError(
            f"{', '.join(map(str, indices))}: none of {count(len(table), 'scan')} was preprocessed{common}. "
            "See the column `problem`, put it right, and run `python -m mriflow.preprocess` again."
        )
    columns = 8
    picked = good.iloc[np.linspace(0, len(good) - 1, min(columns, len(good))).round().astype(int)]
    footer = (
        f"{len(picked)} of n = {len(good)} scans by rank of correlation (r) · radiological: patient's right is left"
    )
    rows = picked.to_dict("records")
    images = [montage(load_scan(arrays[row["shard"]], row["index"])) for row in rows]
    tallest = max(image.shape[0] / image.shape[1] for image, _ in images)
    with page(pdf, png, TWO_COLUMNS, 0.78 * tallest + 0.65, footer, simulated, ncols=columns) as (_, axes):
        for ax, scan, (image, middles) in zip(axes[0], rows, images, strict=False):
            ax.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            ax.set_xlabel(f"r = {scan['correlation']:.2f}\n{wrap(scan['id'])}", fontsize=6.5)
            ax.set_yticks(middles, ["axial", "coronal", "sagittal"], rotation=90, va="center")
            ax.tick_params(length=0, labelleft=ax is axes[0, 0])
            ax.set_xticks([])
            ax.spines[:].set_visible(False)
        for row, sides in zip(images[0][1], ("RL", "RL", "AP"), strict=True):
            for x, side in zip((0.03, 0.97), sides, strict=True):
                where = {"transform": axes[0, 0].get_yaxis_transform(), "ha": "left" if x < 0.5 else "right"}
                axes[0, 0].text(x, row, side, color="white", fontsize=6, va="center", **where)
        for ax in axes[0, len(picked) :]:
            ax.axis("off")


def load_scan(array: Path, index: int) -> np.ndarray:
    """Return one scan of a shard, uint8 of shape (x, y, z)."""
    again = "Delete it and its index, and run `python -m mriflow.preprocess` again."
    try:
        volumes = np.load(array, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise UserError(f"{array}: no such shard; `python -m mriflow.preprocess` makes it.") from error
    except (ValueError, EOFError) as error:
        raise UserError(f"{array}: is no shard ({error}). {again}") from error
    if volumes.ndim != 4 or not 0 <= index < len(volumes):
        raise UserError(
            f"{array}: has shape {volumes.shape}, its index asks for scan {index} of (scans, x, y, z). {again}"
        )
    return np.array(volumes[index])


def montage(volume: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """Return the middle axial, coronal and sagittal slice of a RAS volume one above the other, and their middle rows.

    Rows run from anterior or superior, columns from the patient's right (radiological) or from anterior.
    """
    x, y, z = (size // 2 for size in volume.shape)
    back = volume[::-1, ::-1, ::-1]
    slices = [
        back[:, :, volume.shape[2] - 1 - z].T,
        back[:, volume.shape[1] - 1 - y, :].T,
        back[volume.shape[0] - 1 - x].T,
    ]
    width = max(piece.shape[1] for piece in slices)
    image = np.zeros((sum(piece.shape[0] for piece in slices), width), np.uint8)
    top, middles = 0, []
    for piece in slices:
        left = (width - piece.shape[1]) // 2
        image[top : top + piece.shape[0], left : left + piece.shape[1]] = piece
        middles.append(top + piece.shape[0] / 2)
        top += piece.shape[0]
    return image, middles


def comparison(metrics: Sequence[Path], pdf: Path, png: Path, *, simulated: bool = False) -> None:
    """Draw every experiment's MAE or AUC of network, classical and trivial baseline; a panel per metric and unit."""
    results = [read_metrics(path) for path in metrics]
    panels: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for result in results:
        kind = ("mae", result.get("unit") or "") if result["type"] == "regression" else ("auc", "")
        panels.setdefault(kind, []).append(result)
    heights = [0.42 * len(rows) + 0.25 for rows in panels.values()]
    height = sum(heights) + 0.45 * len(panels) + 0.45
    footer = f"{count(len(results), 'experiment')}, {sum(result['n'] for result in results)} predicted scans"
    grid: dict[str, Any] = {"nrows": len(panels), "height_ratios": heights}
    with page(pdf, png, TWO_COLUMNS, height, footer, simulated, **grid) as (figure, axes):
        for ax, ((metric, unit), rows) in zip(axes[:, 0], panels.items(), strict=True):
            for row, result in enumerate(rows):
                draw_methods(ax, row, result, metric)
            ax.set_yticks(range(len(rows)), [row_label(result) for result in rows])
            ax.set(ylim=(len(rows) - 0.5, -0.5))
            ax.grid(axis="x", color="#DDDDDD", lw=0.5)
            ax.set_axisbelow(True)
            if metric == "mae":
                ax.set(xlabel=f"MAE ({unit}), less is better" if unit else "MAE, less is better")
                ax.set_xlim(left=0)
            else:
                ax.axvline(0.5, color=GREY, lw=0.8, ls="--", zorder=1)
                ax.set(xlabel="AUC, more is better (dashed: chance)")
                ax.set_xlim(right=1.01)
        handles = {
            label: handle for ax in axes[:, 0] for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)
        }
        figure.legend(handles.values(), handles.keys(), loc="outside upper right", ncols=3)


def draw_methods(ax: Axes, row: int, result: dict[str, Any], metric: str) -> None:
    """Draw the metric of each method with its interval, one below the other, in one row of a panel."""
    for offset, method in zip((-0.2, 0, 0.2), METHODS, strict=True):
        cell = (result.get(method) or {}).get(metric) or {}
        if cell.get("value") is None:
            continue
        if cell.get("low") is not None and cell.get("high") is not None:
            ax.plot([cell["low"], cell["high"]], [row + offset] * 2, color=COLOURS[method])
        look: dict[str, Any] = {"ms": 4.5, "color": COLOURS[method], "label": method, "clip_on": False}
        ax.plot(cell["value"], row + offset, MARKERS[method], **look)


def row_label(result: dict[str, Any]) -> str:
    """Return an experiment's name and size, and whether its scans are simulated."""
    folds = f", {count(result['folds'], 'fold')}" if result.get("folds") else ""
    note = ", simulated" if is_simulated(result) else ""
    return f"{result['experiment']}\nn = {result['n']}{folds}{note}"


def cohort(
    labels: Path,
    pdf: Path,
    png: Path,
    *,
    indices: Sequence[Path] = (),
    value: str = "age",
    unit: str = "years",
    simulated: bool = False,
) -> None:
    """Draw the usable scans: a number (age) by sex and by site; where there is none, how many scans each site has."""
    table, fit = read_cohort(labels, indices)
    table = table[fit].reset_index(drop=True)
    if table.empty:
        raise UserError(f"{labels}: no scan is usable. See its column `problem` and that of the shards' indices.")
    site = table["site"].replace("", "not known")
    number = pd.to_numeric(table[value], errors="coerce") if value in table else pd.Series(np.nan, index=table.index)
    missing = number.isna().sum()
    footer = f"n = {len(table)} usable scans of {count(table['subject'].nunique(), 'subject')}"
    footer += f", {missing} without {value}" if missing else ""
    label = axis_label(value.capitalize(), unit)
    if missing == len(table):
        sizes = site.value_counts().sort_index()
        with page(pdf, png, ONE_COLUMN, 1.0 + 0.25 * len(sizes), footer, simulated) as (_, axes):
            axes[0, 0].barh(sizes.index, sizes, color=colour(0), height=0.6)
            axes[0, 0].set(xlabel="Scans", ylabel="Site")
        return
    known = number.dropna()
    site = site[known.index]
    sex = table.loc[known.index, "sex"].fillna("not known").astype(str) if "sex" in table else None
    several = 2 <= site.nunique() <= 12
    width = TWO_COLUMNS if several else ONE_COLUMN
    with page(pdf, png, width, 2.6, footer, simulated, ncols=1 + several) as (figure, axes):
        draw_distribution(axes[0, 0], known, sex)
        axes[0, 0].set(xlabel=label, ylabel="Scans")
        legend_above(figure, axes[0, 0])
        if several:
            boxes = {name: part for name, part in known.groupby(site)}
            names = [f"{name}\nn = {len(part)}" for name, part in boxes.items()]
            look: dict[str, Any] = {"widths": 0.5, "medianprops": {"color": "black"}, "flierprops": {"ms": 2.5}}
            axes[0, 1].boxplot(list(boxes.values()), tick_labels=names, orientation="horizontal", **look)
            axes[0, 1].invert_yaxis()
            axes[0, 1].set(xlabel=label)


def draw_distribution(ax: Axes, values: pd.Series, sex: pd.Series | None) -> None:
    """Draw a histogram of `values`, divided by sex if that is known."""
    edges = np.histogram_bin_edges(values, bins=int(np.clip(np.sqrt(len(values)), 5, 20)))
    groups = {"": values} if sex is None else {name: part for name, part in values.groupby(sex)}
    labels = None if sex is None else [f"sex {name} (n = {len(part)})" for name, part in groups.items()]
    colours = [colour(number) for number in range(len(groups))]
    ax.hist(list(groups.values()), bins=list(edges), stacked=True, color=colours, label=labels)


def read_predictions(path: Path, columns: Sequence[str], classes: Sequence[str] | None = None) -> pd.DataFrame:
    """Read the table that `evaluate` made; with `classes`, truth and predictions are among these, else numbers."""
    text = ["id", "subject", "site", "fold", *(["truth", *METHODS] if classes is not None else [])]
    table = read_made(path, ["id", "site", "fold", *columns], "evaluate", text=text)
    if table.empty:
        raise UserError(f"{path}: has no prediction. Delete it and run `python -m mriflow.evaluate` again.")
    for column in [name for name in columns if name in table]:
        named = classes is not None and column in ("truth", *METHODS)
        good = table[column].isin(classes) if named else pd.to_numeric(table[column], errors="coerce").notna()
        if not good.all():
            found, expected = table.loc[~good, column].iloc[0], " or ".join(classes or []) if named else "a number"
            raise UserError(
                f"{path}: {column} of {table.loc[~good, 'id'].iloc[0]} is {found!r}, expected {expected}. "
                "If the target's `type` or `classes` changed, run `python -m mriflow.evaluate` again."
            )
    return table


def scatter(ax: Axes, table: pd.DataFrame, heights: pd.Series, by: str) -> None:
    """Draw a dot per scan over its true value, coloured by the column `by` if that tells two to seven groups apart."""
    groups = sorted(
        table[by].fillna("not known").unique(), key=lambda name: (len(name), name) if name.isdigit() else (99, name)
    )
    look: dict[str, Any] = {"ls": "", "marker": "o", "mew": 0, "rasterized": len(table) > 2000}
    look |= {"ms": 3 if len(table) < 1000 else 1.5, "alpha": 0.7 if len(table) < 2000 else 0.4}
    if not 2 <= len(groups) <= len(OKABE_ITO):
        ax.plot(table["truth"], heights, color=OKABE_ITO[0], **look)
        return
    for number, group in enumerate(groups):
        mine = table[by].fillna("not known") == group
        label = f"fold {group}" if by == "fold" else group
        ax.plot(table.loc[mine, "truth"], heights[mine], color=colour(number), label=label, **look)


def footer_of(table: pd.DataFrame) -> str:
    """Return the numbers of scans and folds of a table of predictions."""
    return f"n = {len(table)} scans, {count(table['fold'].nunique(), 'fold')}"


def count(number: int, name: str) -> str:
    """Return a number with its noun."""
    return f"{number} {name}{'' if number == 1 else 's'}"


def axis_label(text: str, unit: str) -> str:
    """Return the label of an axis."""
    return f"{text} ({unit})" if unit else text


def colour(number: int) -> str:
    """Return the colour of the group with a number from 0."""
    return OKABE_ITO[number % len(OKABE_ITO)]


def legend_above(figure: Figure, ax: Axes) -> None:
    """Draw the legend of `ax`, if something in it has a label, above the figure, where it hides nothing."""
    handles, labels = ax.get_legend_handles_labels()
    if labels:
        figure.legend(handles, labels, loc="outside upper left", ncols=4, columnspacing=1, handletextpad=0.4)


def wrap(scan_id: str, width: int = 13) -> str:
    """Break a long id where it has a hyphen or underscore, else anywhere."""
    pieces = re.findall(rf"[^-_]{{1,{width}}}[-_]?", scan_id) or [scan_id]
    lines = [pieces[0]]
    for piece in pieces[1:]:
        if len(lines[-1] + piece) <= width:
            lines[-1] += piece
        else:
            lines.append(piece)
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Read the command line and draw a figure."""
    flags: dict[str, dict[str, Any]] = {
        "pdf": {"type": Path, "required": True, "help": "figure to write, .pdf"},
        "png": {"type": Path, "required": True, "help": "the same to write, .png"},
        "simulated": {"action": "store_true", "help": "say that the scans are simulated"},
        "histories": {"type": Path, "nargs": "+", "required": True, "help": "history.csv of every fold and seed"},
        "predictions": {"type": Path, "required": True, "help": "predictions.csv of the experiment"},
        "metrics": {"type": Path, "required": True, "help": "metrics.json of the experiment"},
        "target": {"default": "value", "help": "name of what is predicted, for the axes"},
        "unit": {"default": "", "help": "its unit"},
        "by": {"choices": ["site", "fold"], "default": "site", "help": "what the colours mean (default: site)"},
        "classes": {"nargs": "+", "required": True, "help": "the classes in order; the last is the positive one"},
        "arrays": {"type": Path, "nargs": "+", "required": True, "help": "shards of the dataset, .npy"},
        "indices": {"type": Path, "nargs": "+", "required": True, "help": "their indices, .csv, in the same order"},
        "labels": {"type": Path, "required": True, "help": "labels.csv of the dataset"},
        "value": {"default": "age", "help": "column of labels.csv to show (default: age)"},
    }
    changes: dict[str, dict[str, dict[str, Any]]] = {
        "learning-curves": {"metrics": {"required": False, "help": "metrics.json, for the number of scans"}},
        "comparison": {"metrics": {"nargs": "+", "help": "metrics.json of every experiment"}},
        "cohort": {
            "indices": {"nargs": "*", "default": [], "required": False, "help": "indices of its shards, .csv"},
            "unit": {"default": "years"},
        },
    }
    parser = stage_parser(__doc__ or "")
    figures = parser.add_subparsers(required=True, metavar="figure")
    for name, (function, own) in FIGURES.items():
        about = (function.__doc__ or "").splitlines()[0]
        command = figures.add_parser(name, help=about, description=about, allow_abbrev=False)
        command.set_defaults(function=function)
        for flag in [*own.split(), "pdf", "png", "simulated"]:
            command.add_argument(f"--{flag}", **flags[flag] | changes.get(name, {}).get(flag, {}))
    arguments = vars(parser.parse_args(argv))
    arguments.pop("function")(**arguments)


FIGURES = {
    "learning-curves": (learning_curves, "histories metrics unit"),
    "predicted-vs-true": (predicted_vs_true, "predictions metrics target unit by"),
    "residual-vs-age": (residual_vs_truth, "predictions metrics target unit by"),
    "roc": (roc, "predictions metrics classes"),
    "confusion-matrix": (confusion_matrix, "predictions classes"),
    "scans": (scans, "arrays indices"),
    "comparison": (comparison, "metrics"),
    "cohort": (cohort, "labels indices value unit"),
}

if __name__ == "__main__":
    run_stage(main)
