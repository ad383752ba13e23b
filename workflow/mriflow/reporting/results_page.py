"""The page of results: the metrics of all experiments for every method, and which differences can be told."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mriflow.base.files import write_csv, write_text
from mriflow.evaluation.metrics import LESS_IS_BETTER, METHODS
from mriflow.reporting.html import PAGE, Markup, paragraph, section
from mriflow.reporting.results import ABOUT, METRICS, read_metrics, with_interval

LEGEND = """
Value [95 % confidence interval, bootstrap over subjects], on scans that were neither trained on nor used to choose a model; all
folds together. Bold: best, and its interval overlaps with none of the others'. Network: as configured. Stacked: the weighted
mean of network and classical. Classical: a linear model of all voxels, standardised (kernel ridge regression). Pca: principal
components with ridge or logistic regression. Confounders: a linear model of head size, site, age and sex, without the image.
Trivial: the median, or the share of each class. Slope of the residual: of predicted minus true on the true value; 0 is
unbiased, −1 a constant guess. Differences: on the same scans, with the paired bootstrap's interval. Better or worse: p is below
0.05, corrected for all comparisons of the experiment (Holm); it does not cover what another training run would change."""
NO_BEST = {"slope", "sensitivity", "specificity"}  # alone they rank nothing: naming one class always gives 1 and 0


def page_results(metrics: Sequence[Path], page: Path, csv: Path) -> pd.DataFrame:
    """Write the metrics of several experiments as a web page and a CSV.

    Returns
    -------
    The table written to `csv`: one row per experiment and metric, with value, low and high of every method (empty where it
    was not made), and the ``best`` method if its interval overlaps with no other's.
    """
    results = [read_metrics(path) for path in metrics]
    rows, sections = [], []
    for result in results:
        methods = [method for method in METHODS if method in result]
        texts: dict[str, list[str]] = {method: [method] for method in methods}
        names = ["method"]
        for metric, label in METRICS[result["type"]].items():
            if metric not in result["network"]:
                continue
            names.append(f"{label} ({result['unit']})" if metric in LESS_IS_BETTER and result["unit"] else label)
            cells = {method: result[method][metric] for method in methods}
            best = best_method(metric, cells)
            numbers = {
                method + suffix: cell[key]
                for method, cell in cells.items()
                for key, suffix in (("value", ""), ("low", "_low"), ("high", "_high"))
            }
            rows.append({**{key: result[key] for key in ABOUT}, "metric": metric, **numbers, "best": best})
            for method, cell in cells.items():
                text = with_interval(cell)
                texts[method].append(Markup(f"<b>{text}</b>") if method == best else text)
        left_out = f" ({result['n_excluded']} left out)" if result["n_excluded"] else ""
        title = f"{result['experiment']}: {result['target']}, {result['dataset']}, {result['n']} scans{left_out}"
        notes = [paragraph(f"{method}: {note}") for method, note in result.get("notes", {}).items()]
        sections += [section(title, names, texts.values()), *warnings(result), *differences(result), *search(result), *notes]
    simulated = [result["experiment"] for result in results if result["simulated"]]
    body = [
        paragraph(f"Simulated data, not real scans: {', '.join(simulated)}." if simulated else ""),
        *sections,
        paragraph(LEGEND),
    ]
    write_text(PAGE.format(title="Results", body="\n".join(body)), page)
    table = pd.DataFrame(rows)
    write_csv(table, csv)
    return table


def warnings(result: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the trainings of an experiment, a line for each kind, with the first text of it."""
    by_kind: dict[str, list[Mapping[str, Any]]] = {}
    for one in result.get("warnings", []):
        by_kind.setdefault(one["kind"], []).append(one)
    lines = []
    for kind, ones in by_kind.items():
        where = ", ".join(f"fold {one['fold']} seed {one['seed']}" for one in ones)
        lines.append(paragraph(f"Warning: {kind} ({where}). {ones[0]['text'][0].upper()}{ones[0]['text'][1:]}"))
    return lines


def differences(result: Mapping[str, Any]) -> list[str]:
    """Return the table of the differences of an experiment's methods, if it has them: a row per pair, a column per metric."""
    found = result.get("differences", [])
    lines: dict[str, list[str]] = {}
    for one in found:
        pair = f"{one['method']} − {one['other']}"
        lines.setdefault(pair, [pair]).append(f"{with_interval(one)}, {one['verdict']}")
    names = [METRICS[result["type"]][metric] for metric in dict.fromkeys(one["metric"] for one in found)]
    return [section("", ["difference", *names], lines.values())] if lines else []


def search(result: Mapping[str, Any]) -> list[str]:
    """Return the keys that a search chose in each fold, a row each, if there was one."""
    found = result.get("search", {"trials": 0, "chosen": []})
    keys = list(dict.fromkeys(key for one in found["chosen"] for key in one["keys"]))
    rows = [[one["fold"], *(one["keys"][key] for key in keys), f"{one['val_loss']:.3g}"] for one in found["chosen"]]
    text = f"Each fold's best of {found['trials']} trials, chosen by its own validation part."
    return [section("", ["fold", *keys, "validation loss"], rows), paragraph(text)] if rows else []


def best_method(metric: str, cells: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return the method whose interval lies beyond those of all others that have the metric, if there is one."""
    known = {method: cell for method, cell in cells.items() if cell["low"] is not None}
    if metric in NO_BEST or len(known) < 2:
        return None

    def beats(one: str, other: str) -> bool:
        less, more = (one, other) if metric in LESS_IS_BETTER else (other, one)
        return bool(known[less]["high"] < known[more]["low"])

    return next((one for one in known if all(beats(one, other) for other in known if other != one)), None)
