"""The figures of an experiment: how training went, and how good the predictions are."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from mriflow.base.errors import UserError
from mriflow.evaluation.metrics import METHODS, rival_of
from mriflow.reporting.canvas import COLOURS, GREY, OKABE_ITO, ONE_COLUMN, TWO_COLUMNS, count, legend_above, page, with_unit
from mriflow.reporting.results import not_as_made, read_metrics, with_interval

CURVES = {
    "train_loss": "training, in mid-epoch, augmented",
    "unchanged_loss": "training scans as they are",
    "val_loss": "validation",
}
MARKERS = {"network": "o", "stacked": "D", "tissue": "*", "classical": "s", "pca": "v", "confounders": "P", "trivial": "^"}


def learning_curves(histories: Sequence[Path], metrics: Path, pdf: Path, png: Path) -> None:
    """Draw loss and score by epoch: a thin line per fold and seed, their mean thick as far as all runs go.

    The training loss is that of the steps, with augmentation and in mid-epoch. What can be compared with the validation part
    is a sample of training scans as they are, after the epoch.
    """
    result = read_metrics(metrics)
    runs = [read_made(path, ["epoch", "train_loss", "unchanged_loss"], "train").set_index("epoch") for path in histories]
    score = next(name for name in runs[0] if name.startswith("unchanged_") and name != "unchanged_loss")
    seeds = len(result["seeds"])
    footer = f"n = {result['n']} scans, {count(result['folds'], 'fold')}" + (f" × {seeds} seeds" if seeds > 1 else "")
    panels = [("Loss", ["train_loss", "unchanged_loss", "val_loss"])]
    panels += [(score_label(score, result["unit"]), [score, score.replace("unchanged", "val")])]
    with page(pdf, png, TWO_COLUMNS, 2.5, footer, result["simulated"], ncols=2) as (_, axes):
        for ax, (label, shown) in zip(axes[0], panels, strict=True):
            for name in (name for name in shown if name in runs[0]):
                draw_runs(ax, [run[name] for run in runs], COLOURS[name.split("_")[0]])
            ax.set(xlabel="Epoch", ylabel=label)
            ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        shown = [name for name in panels[0][1] if name in runs[0]]
        losses = np.concatenate([run[shown].to_numpy().ravel() for run in runs])
        if losses.min() > 0 and losses.max() > 20 * losses.min():
            axes[0, 0].set_yscale("log")
        for name in shown:
            axes[0, 0].plot([], [], color=COLOURS[name.split("_")[0]], label=CURVES[name])
        axes[0, 0].legend()
        guess = result.get("trivial", {}).get(score.removeprefix("unchanged_"))
        if guess:
            axes[0, 1].axhline(guess["value"], color=COLOURS["trivial"], lw=0.8, ls="--", label="a guess without the scan")
            axes[0, 1].legend()


def draw_runs(ax: Axes, runs: Sequence[pd.Series], shade: str) -> None:
    """Draw a thin line for each run, and their mean thick as far as all of them go."""
    alone = len(runs) == 1
    for run in runs:
        ax.plot(run.index, run, color=shade, lw=1.2 if alone else 0.5, alpha=1 if alone else 0.6)
    if not alone:
        mean = pd.concat(runs, axis=1).dropna().mean(axis=1)
        ax.plot(mean.index, mean, color=shade, lw=1.8)


def score_label(name: str, unit: str) -> str:
    """Return the label of a score's axis."""
    score = name.removeprefix("unchanged_")
    return with_unit("MAE", unit) if score == "mae" else score.capitalize()


def predicted_vs_true(predictions: Path, metrics: Path, pdf: Path, png: Path, external: str | None = None) -> None:
    """Draw every scan's prediction over its true value, coloured by site, with the line of identity."""
    table, result = read_results(predictions, metrics, "regression", external)
    if table.empty:
        return draw_no_labels(result, pdf, png)
    target, unit = result["target"], result["unit"]
    mae, r = (with_interval(result["network"][name]) for name in ("mae", "r"))
    both = table[["truth", "network"]]
    low, high = both.min().min(), both.max().max()
    margin = 0.04 * (high - low) or 1
    limits = (low - margin, high + margin)
    with page(pdf, png, ONE_COLUMN, 3.7, footer_of(table), result["simulated"]) as (figure, axes):
        ax = axes[0, 0]
        ax.plot(limits, limits, color=GREY, lw=0.8, ls="--", zorder=1)
        scatter(ax, table, table["network"])
        ax.set(xlim=limits, ylim=limits, aspect="equal")
        ax.set(xlabel=with_unit(f"True {target}", unit), ylabel=with_unit(f"Predicted {target}", unit))
        ax.text(0.03, 0.98, f"MAE {mae} {unit}".rstrip() + f"\nr {r}", transform=ax.transAxes, va="top")
        legend_above(figure, ax)


def residual_vs_truth(predictions: Path, metrics: Path, pdf: Path, png: Path) -> None:
    """Draw predicted minus true over the true value with the least-squares line, and how the residuals spread."""
    table, result = read_results(predictions, metrics, "regression")
    target, unit, slope = result["target"], result["unit"], result["network"]["slope"]
    truth, residual = table["truth"], table["network"] - table["truth"]
    grid: dict[str, Any] = {"ncols": 2, "width_ratios": [5, 1], "sharey": True}
    with page(pdf, png, ONE_COLUMN, 2.9, footer_of(table), result["simulated"], **grid) as (figure, axes):
        ax, spread = axes[0]
        ax.axhline(0, color=GREY, lw=0.8, ls="--", zorder=1)
        scatter(ax, table, residual)
        if slope["value"] is not None:
            ends = np.array([truth.min(), truth.max()])
            # A least-squares line goes through the means.
            line = residual.mean() + slope["value"] * (ends - truth.mean())
            ax.plot(ends, line, color="black", lw=1.4)
            ax.text(0.97, 0.98, f"slope {with_interval(slope)}", transform=ax.transAxes, va="top", ha="right")
        reach = residual.abs().max() or 1
        # Room above for the text, so that it hides no scan.
        ax.set(xlabel=with_unit(f"True {target}", unit), ylim=(-1.05 * reach, 1.25 * reach))
        ax.set(ylabel=with_unit(f"Predicted − true {target}", unit))
        legend_above(figure, ax)
        spread.hist(residual, bins=20, orientation="horizontal", color="#BBBBBB")
        spread.axhline(0, color=GREY, lw=0.8, ls="--")
        spread.set(xlabel="Scans")
        spread.tick_params(left=False)


def scatter(ax: Axes, table: pd.DataFrame, heights: pd.Series) -> None:
    """Draw a dot per scan over its true value, coloured by site if there are two to seven."""
    look: dict[str, Any] = {"ls": "", "marker": "o", "mew": 0, "rasterized": len(table) > 2000}
    look |= {"ms": 3 if len(table) < 1000 else 1.5, "alpha": 0.7 if len(table) < 2000 else 0.4}
    sites = table["site"].fillna("not known")
    if not 2 <= sites.nunique() <= len(OKABE_ITO):
        ax.plot(table["truth"], heights, color="C0", **look)
        return
    for number, (site, scans) in enumerate(table.groupby(sites)):
        ax.plot(scans["truth"], heights[scans.index], color=f"C{number}", label=site, **look)


def roc(predictions: Path, metrics: Path, pdf: Path, png: Path, external: str | None = None) -> None:
    """Draw the ROC curves of the network and of what it has to beat; of more than two classes, each against the rest."""
    from sklearn.metrics import roc_curve  # takes as long to import as any figure to draw

    table, result = read_results(predictions, metrics, "classification", external)
    if table.empty:
        return draw_no_labels(result, pdf, png)
    many = len(result["classes"]) > 2
    shown = result["classes"] if many else result["classes"][-1:]
    with page(pdf, png, ONE_COLUMN, 3.6, footer_of(table), result["simulated"]) as (_, axes):
        ax = axes[0, 0]
        ax.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls="--", zorder=1, label="chance")
        rival = rival_of(result)
        for method, dash in (("network", "-"), (rival, ":" if many else "-")):
            for number, name in enumerate(shown):
                truth = table["truth"] == name
                if truth.nunique() == 2:
                    false, true, _ = roc_curve(truth, table[f"{method}_{name}"])
                    ax.plot(false, true, dash, color=f"C{number}" if many else COLOURS[method], clip_on=False)
            auc = with_interval(result[method]["auc"])
            ax.plot([], [], dash, color=GREY if many else COLOURS[method], label=f"{method}, AUC {auc}")
        for number, name in enumerate(shown if many else []):
            ax.plot([], [], color=f"C{number}", label=f"{name} against the rest")
        positive = "" if many else f" for {shown[0]}"
        ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        ax.set(xlabel="1 − specificity (false positive rate)", ylabel=f"Sensitivity{positive} (true positive rate)")
        ax.legend(loc="lower right")


def confusion_matrix(predictions: Path, metrics: Path, pdf: Path, png: Path) -> None:
    """Draw how many scans of each class the network put into which, and the share of each row."""
    table, result = read_results(predictions, metrics, "classification")
    classes, counts = result["classes"], np.array(result["confusion"])
    rows = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(rows, 1)
    side = min(max(3.2, 0.75 * len(classes) + 1.1), TWO_COLUMNS)
    width = ONE_COLUMN if side <= ONE_COLUMN else TWO_COLUMNS
    with page(pdf, png, width, side, footer_of(table), result["simulated"]) as (_, axes):
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


def reliability(predictions: Path, metrics: Path, pdf: Path, png: Path) -> None:
    """Draw how often probabilities came true, before and after the temperature, with intervals."""
    table, result = read_results(predictions, metrics, "classification")
    positive = "the likeliest class" if len(result["classes"]) > 2 else result["classes"][1]
    found = result.get("calibration", {})
    with page(pdf, png, ONE_COLUMN, 4.0, footer_of(table), result["simulated"]) as (_, axes):
        ax = axes[0, 0]
        ax.plot([0, 1], [0, 1], color=GREY, lw=0.8, ls="--", zorder=1, label="as often as said")
        for name, colour, marker in (("before", GREY, "s"), ("after", COLOURS["network"], "o")):
            if name not in found:
                continue
            bins = pd.DataFrame(found[name]["reliability"])
            reach = [bins["value"] - bins["low"], bins["high"] - bins["value"]]
            label = f"{name} the temperature, ECE {with_interval(found[name]['ece'])}"
            look = {"color": colour, "marker": marker, "ms": 4, "lw": 0.8, "capsize": 2, "label": label}
            ax.errorbar(bins["believed"], bins["value"], yerr=reach, ls="", clip_on=False, **look)
        ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        ax.set(xlabel=f"Mean predicted probability of {positive}", ylabel="Share that was so")
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1.02), borderaxespad=0)


def comparison(metrics: Sequence[Path], pdf: Path, png: Path) -> None:
    """Draw every experiment's MAE or AUC of each method; a panel per metric and unit."""
    results = [read_metrics(path) for path in metrics]
    methods = [method for method in METHODS if any(method in result for result in results)]
    panels: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for result in results:
        kind = ("mae", result["unit"]) if result["type"] == "regression" else ("auc", "")
        panels.setdefault(kind, []).append(result)
    heights = [0.14 * len(methods) * len(rows) + 0.25 for rows in panels.values()]
    height = sum(heights) + 0.45 * len(panels) + 0.45
    footer = f"{count(len(results), 'experiment')}, {sum(result['n'] for result in results)} predicted scans"
    simulated = all(result["simulated"] for result in results)  # if only some are, their rows say so
    grid: dict[str, Any] = {"nrows": len(panels), "height_ratios": heights}
    with page(pdf, png, TWO_COLUMNS, height, footer, simulated, **grid) as (figure, axes):
        for ax, ((metric, unit), rows) in zip(axes[:, 0], panels.items(), strict=True):
            for row, result in enumerate(rows):
                draw_methods(ax, row, result, metric, methods)
            ax.set_yticks(range(len(rows)), [row_label(result) for result in rows])
            ax.set(ylim=(len(rows) - 0.5, -0.5))
            ax.grid(axis="x", color="#DDDDDD", lw=0.5)
            ax.set_axisbelow(True)
            if metric == "mae":
                ax.set(xlabel=with_unit("MAE", unit) + ", less is better")
                ax.set_xlim(left=0)
            else:
                ax.axvline(0.5, color=GREY, lw=0.8, ls="--", zorder=1)
                ax.set(xlabel="AUC, more is better (dashed: chance)")
                ax.set_xlim(right=1.01)
        legends = [ax.get_legend_handles_labels() for ax in axes[:, 0]]
        handles = {label: handle for legend in legends for handle, label in zip(*legend, strict=True)}
        figure.legend(handles.values(), handles.keys(), loc="outside upper right", ncols=len(methods))


def draw_methods(ax: Axes, row: int, result: dict[str, Any], metric: str, methods: Sequence[str]) -> None:
    """Draw the metric of each method with its interval, one below the other, in one row of a panel."""
    reach = 0.4 * (1 - 1 / len(methods))
    for offset, method in zip(np.linspace(-reach, reach, len(methods)), methods, strict=True):
        if method not in result:
            continue
        value, low, high = (result[method][metric][key] for key in ("value", "low", "high"))
        if value is None:
            continue
        if low is not None:
            ax.plot([low, high], [row + offset] * 2, color=COLOURS[method])
        look: dict[str, Any] = {"ms": 4.5, "color": COLOURS[method], "label": method, "clip_on": False}
        ax.plot(value, row + offset, MARKERS[method], **look)


def row_label(result: dict[str, Any]) -> str:
    """Return an experiment's name and size, and whether its scans are simulated."""
    note = ", simulated" if result["simulated"] else ""
    return f"{result['experiment']}\nn = {result['n']}, {count(result['folds'], 'fold')}{note}"


def draw_no_labels(result: dict[str, Any], pdf: Path, png: Path) -> None:
    """Draw a page that says that nobody of another dataset has a label."""
    footer = f"n = {result['n_predicted']} scans, predicted"
    with page(pdf, png, ONE_COLUMN, 1.5, footer, result["simulated"]) as (_, axes):
        axes[0, 0].text(0.5, 0.5, f"{result['title']}: no scan has a label", ha="center", va="center", wrap=True)
        axes[0, 0].axis("off")


def read_results(
    predictions: Path, metrics: Path, kind: str, external: str | None = None
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read the two files that `evaluate` made of an experiment whose target is of `kind`.

    Of another dataset, `external`, the predictions are external-predictions.csv, of which its labelled scans are returned.
    """
    result = read_metrics(metrics)
    if result["type"] != kind:
        raise UserError(f"{metrics}: {result['experiment']} is a {result['type']}; this figure shows a {kind}.")
    text = ["id", "subject", "site", *(["truth", *METHODS] if kind == "classification" else [])]
    if external is None:
        return read_made(predictions, ["site", "fold", "truth", "network"], "evaluate", text=text), result
    if external not in result.get("external", {}):
        raise not_as_made(metrics, f"has no external test on {external}", "evaluate")
    table = read_made(predictions, ["dataset", "site", "network", "problem"], "evaluate", text=text)
    kept = (table["dataset"] == external) & table["problem"].isna()
    return table[kept & table["truth"].notna() if "truth" in table else kept & False], result | result["external"][external]


def read_made(path: Path, columns: Sequence[str], maker: str, *, text: Sequence[str] = ()) -> pd.DataFrame:
    """Read a table that the stage `maker` made; `text` columns stay text (subject 002 is not 2)."""
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(text, str), keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:
        raise not_as_made(path, f"cannot be read ({error})", maker) from error
    if missing := [column for column in columns if column not in table]:
        raise not_as_made(path, f"has no column {', '.join(missing)}", maker)
    return table


def footer_of(table: pd.DataFrame) -> str:
    """Return the numbers of scans and folds of a table of predictions."""
    return f"n = {len(table)} scans, {count(table['fold'].nunique(), 'fold') if 'fold' in table else 'of another dataset'}"
