"""The tables of results: the metrics of an experiment by method, and what else its metrics.json holds."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from mriflow.evaluation.metrics import LESS_IS_BETTER, METHODS, rival_of
from mriflow.reporting.html import Markup
from mriflow.reporting.parts import Part, Table, Text
from mriflow.reporting.results import ABOUT, METRICS, with_interval

LEGEND = (
    "Value [95 % confidence interval, bootstrap over subjects], on scans that were neither trained on nor used to choose a "
    "model; all folds together. {methods} Slope of the residual: of predicted minus true on the true value; 0 is unbiased, −1 "
    "a constant guess. Differences: on the same scans, with the paired bootstrap's interval. Better or worse: p is below 0.05, "
    "corrected for all comparisons of the experiment (Holm); it does not cover what another training run would change."
)
WHAT_THEY_ARE = {
    "network": "as configured",
    "stacked": "the weighted mean of the network and {rival}",
    "tissue": "kernel ridge regression on smoothed grey matter and the volumes of tissues",
    "classical": "kernel ridge regression on all voxels, standardised, of the scan or, if it is fine, of a coarser copy",
    "pca": "principal components with ridge or logistic regression",
    "confounders": "a linear model of site, age, sex (but the target) and head size, which registration tells; of nothing else",
    "trivial": "the median, or the share of each class",
}
BOLD = " Bold: best, and its interval overlaps with none of the others'."
VERDICTS = (
    "First minus second method [95 % interval of this difference alone]; better or worse is said where p, corrected for all "
    "comparisons of the experiment, is below 0.05. What cannot be told is not therefore equal. The AUCs of fewer than ten "
    "people of a class are not tested."
)
IN_UNITS = {*LESS_IS_BETTER, "bias", "mean", "sd", "lower_limit", "upper_limit"}  # of the target
NO_BEST = {"slope", "sensitivity", "specificity"}  # alone they rank nothing: naming one class always gives 1 and 0


def legend(results: Sequence[Mapping[str, Any]]) -> str:
    """Return how the tables of some experiments are read: what their methods are, and no others."""
    rivals = " or ".join(dict.fromkeys(rival for result in results if "stacked" in result and (rival := rival_of(result))))
    methods = [method for method in METHODS if any(method in result for result in results)]
    told = " ".join(f"{method.capitalize()}: {WHAT_THEY_ARE[method].format(rival=rivals)}." for method in methods)
    bold = any(row["best"] for result in results for row in rows_of(result))
    return LEGEND.format(methods=told) + (BOLD if bold else "")


def rows_of(result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a row per metric of an experiment: value, low and high of every method, and the ``best`` if it is told."""
    for metric in (name for name in METRICS[result["type"]] if name in result["network"]):
        cells = {method: result[method][metric] for method in METHODS if method in result and metric in result[method]}
        numbers = {
            method + suffix: cell[key]
            for method, cell in cells.items()
            for key, suffix in (("value", ""), ("low", "_low"), ("high", "_high"))
        }
        yield {**{key: result[key] for key in ABOUT}, "metric": metric, **numbers, "best": best_method(metric, cells)}


def long_results(results: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return ``results.csv``: one row per experiment and metric (`rows_of`); cells are empty where a method was not made."""
    rows = [row for result in results for row in rows_of(result)]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=[*ABOUT, "metric", "best"])


def methods_table(result: Mapping[str, Any], title: str = "") -> Table:
    """Return the metrics of an experiment: a row for each method, the best in bold."""
    methods = [method for method in METHODS if method in result]
    texts: dict[str, list[str]] = {method: [method] for method in methods}
    names = ["method"]
    for row in rows_of(result):
        metric = row["metric"]
        names.append(named(metric, result))
        for method in methods:
            text = with_interval(result[method][metric]) if metric in result[method] else "–"
            texts[method].append(Markup(f"<b>{text}</b>") if method == row["best"] else text)
    return Table(names, list(texts.values()), title)


def named(metric: str, result: Mapping[str, Any]) -> str:
    """Return the name of a metric, with its unit."""
    label = METRICS[result["type"]].get(metric, metric.replace("_", " "))
    if metric in ("sensitivity", "specificity") and len(result.get("classes", [])) == 2:
        return f"{label} ({result['classes'][1 if metric == 'sensitivity' else 0]} found)"
    return f"{label} ({result['unit']})" if metric in IN_UNITS and result["unit"] else label


def warnings(result: Mapping[str, Any]) -> list[str]:
    """Return in words what is wrong with the trainings of an experiment, a line for each kind, with the first text of it."""
    by_kind: dict[str, list[Mapping[str, Any]]] = {}
    for one in result.get("warnings", []):
        by_kind.setdefault(one["kind"], []).append(one)
    lines = []
    for kind, ones in by_kind.items():
        where = ", ".join(f"fold {one['fold']} seed {one['seed']}" for one in ones)
        lines.append(f"Warning: {kind} ({where}). {ones[0]['text'][0].upper()}{ones[0]['text'][1:]}")
    return lines


def differences(result: Mapping[str, Any]) -> list[Part]:
    """Return the differences of an experiment's methods, if it has them: a row per pair, and all in sentences."""
    found = result.get("differences", [])
    lines: dict[str, list[str]] = {}
    for one in found:
        pair = f"{one['method']} − {one['other']}"
        lines.setdefault(pair, [pair]).append(f"{with_interval(one)}, {one['verdict']}")
    names = [METRICS[result["type"]][metric] for metric in dict.fromkeys(one["metric"] for one in found)]
    table = Table(["difference", *names], list(lines.values()), "Differences on the same scans")
    return [table, Text(VERDICTS, "small")] if lines else []


def search(result: Mapping[str, Any]) -> list[Part]:
    """Return the keys that a search chose in each fold, a row each, if there was one."""
    found = result.get("search", {"trials": 0, "chosen": []})
    keys = list(dict.fromkeys(key for one in found["chosen"] for key in one["keys"]))
    rows = [[str(one["fold"]), *(str(one["keys"][key]) for key in keys), f"{one['val_loss']:.3g}"] for one in found["chosen"]]
    text = f"Each fold's best of {found['trials']} trials, chosen by its own validation part."
    return [Table(["fold", *keys, "validation loss"], rows, "What the search chose"), Text(text, "small")] if rows else []


def subgroups(result: Mapping[str, Any]) -> list[Part]:
    """Return a row for each group, with every metric and its difference from the others."""
    rows: dict[tuple[str, str], list[Any]] = {}
    metrics = list(dict.fromkeys(one["metric"] for one in result.get("subgroups", []) if "metric" in one))
    for one in result.get("subgroups", []):
        row = rows.setdefault((one["column"], one["group"]), [one["column"], one["group"], str(one["n"]), str(one["people"])])
        if "metric" in one:
            away = one["difference"]
            row += [with_interval(one), f"{with_interval(away)}, {away['verdict']}" if away else one["note"]]
        else:
            row += [one["note"]] + [""] * (2 * len(metrics) - 1)
    names = [name for metric in metrics for name in (named(metric, result), "difference from the others")]
    return [Table(["column", "group", "scans", "people", *names], list(rows.values()))] if rows and metrics else []


def calibration(result: Mapping[str, Any]) -> list[Part]:
    """Return how far probabilities are to be believed, before and after the temperature."""
    found = result.get("calibration")
    if not found:
        return []
    rows = [[name, str(one["n"]), *(with_interval(one[key]) for key in ("brier", "ece"))] for name, one in found.items()]
    bins = [
        [f"{one['from']:.1f} to {one['to']:.1f}", str(one["n"]), f"{one['believed']:.2f}", with_interval(one)]
        for one in found["after"]["reliability"]
    ]
    return [
        Table(["temperature", "scans", "Brier score", "ECE"], rows),
        Table(["probability", "scans", "mean probability", "came true"], bins, "Reliability after the temperature"),
    ]


def of_cells(blocks: Mapping[str, Mapping[str, Any]], first: str, result: Mapping[str, Any]) -> list[Part]:
    """Return a row for each block of metrics of an experiment's `result`, a column for each metric that has an interval."""
    ones = {
        name: {key: cell for key, cell in block.items() if isinstance(cell, Mapping) and "low" in cell}
        for name, block in blocks.items()
    }
    keys = list(dict.fromkeys(key for one in ones.values() for key in one))
    rows = [
        [
            name.replace("_", " "),
            str(blocks[name].get("n", "")),
            *(with_interval(one[key]) if key in one else "–" for key in keys),
        ]
        for name, one in ones.items()
    ]
    return [Table([first, "scans", *(named(key, result) for key in keys)], rows)] if rows else []


def by_fold(result: Mapping[str, Any]) -> list[Part]:
    """Return the network's metrics in every fold, their mean, and those of all scans together; and of each seed."""
    found = result.get("by_fold")
    if not found:
        return []
    blocks = {fold: {"n": one["n"], **one["network"]} for fold, one in found["folds"].items()}
    blocks |= {"mean of folds": found["mean"]["network"], "all scans": {"n": result["n"], **result["network"]}}
    blocks |= {f"seed {seed}, all scans": one for seed, one in result.get("single_seeds", {}).items()}
    return [*of_cells(blocks, "fold", result), Text(found["why"], "small")]


def quality(result: Mapping[str, Any]) -> list[Part]:
    """Return whether errors go with the quality of preprocessing."""
    rows = [[one["measure"], str(one["n"]), with_interval(one)] for one in result.get("quality", [])]
    return [Table(["measure", "scans", "rank correlation with the error"], rows, "Errors and quality")] if rows else []


def best_method(metric: str, cells: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return the method whose interval lies beyond those of all others that have the metric, if there is one."""
    known = {method: cell for method, cell in cells.items() if cell["low"] is not None}
    if metric in NO_BEST or len(known) < 2:
        return None

    def beats(one: str, other: str) -> bool:
        less, more = (one, other) if metric in LESS_IS_BETTER else (other, one)
        return bool(known[less]["high"] < known[more]["low"])

    return next((one for one in known if all(beats(one, other) for other in known if other != one)), None)
