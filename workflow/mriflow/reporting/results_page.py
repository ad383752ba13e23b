"""The page of results: the metrics of all experiments, beside their baselines."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mriflow.base.files import write_csv, write_text
from mriflow.evaluation.metrics import METHODS
from mriflow.reporting.html import PAGE, Markup, paragraph, section
from mriflow.reporting.results import ABOUT, LESS_IS_BETTER, METRICS, read_metrics, with_interval

NO_BEST = {"slope", "sensitivity", "specificity"}  # alone they rank nothing: naming one class always gives 1 and 0


def page_results(metrics: Sequence[Path], page: Path, csv: Path) -> pd.DataFrame:
    """Write the metrics of several experiments, beside their baselines, as a web page and a CSV.

    Returns
    -------
    The table written to `csv`: one row per experiment and metric, with value, low and high of every method, and the
    ``best`` method if its interval overlaps with no other's.
    """
    results = [read_metrics(path) for path in metrics]
    rows, lines = [], []
    for result in results:
        known = [name for name in METRICS[result["type"]] if name in result["network"]]
        for metric in known:
            cells = {method: result[method][metric] for method in METHODS}
            best = best_method(metric, cells)
            numbers = {
                method + suffix: cell[key]
                for method, cell in cells.items()
                for key, suffix in (("value", ""), ("low", "_low"), ("high", "_high"))
            }
            rows.append({**{key: result[key] for key in ABOUT}, "metric": metric, **numbers, "best": best})
            first = metric == known[0]
            left_out = f" ({result['n_excluded']})" if result["n_excluded"] else ""
            about = [*(result[key] for key in ("experiment", "dataset", "target")), f"{result['n']}{left_out}"]
            label = METRICS[result["type"]][metric]
            label += f" ({result['unit']})" if metric in LESS_IS_BETTER and result["unit"] else ""
            texts = [Markup(f"<b>{with_interval(c)}</b>") if m == best else with_interval(c) for m, c in cells.items()]
            lines.append([*(about if first else [""] * len(about)), label, *texts])
    simulated = [result["experiment"] for result in results if result["simulated"]]
    body = [
        paragraph(f"Simulated data, not real scans: {', '.join(simulated)}." if simulated else ""),
        section("", ["experiment", "dataset", "target", "scans (left out)", "metric", *METHODS], lines),
        paragraph(
            "Value [95 % confidence interval, bootstrap over subjects], on scans that were neither trained on nor used "
            "to choose a model; all folds together. Bold: best, and its interval overlaps with neither of the others. "
            "Trivial: the median, or the share of each class. Classical: principal components with ridge or logistic "
            "regression. Slope of the residual: of predicted minus true on the true value; 0 is "
            "unbiased, −1 a constant guess."
        ),
    ]
    write_text(PAGE.format(title="Results", body="\n".join(body)), page)
    table = pd.DataFrame(rows)
    write_csv(table, csv)
    return table


def best_method(metric: str, cells: Mapping[str, Mapping[str, Any]]) -> str | None:
    """Return the method whose interval lies beyond those of all others that have the metric, if there is one."""
    known = {method: cell for method, cell in cells.items() if cell["low"] is not None}
    if metric in NO_BEST or len(known) < 2:
        return None

    def beats(one: str, other: str) -> bool:
        less, more = (one, other) if metric in LESS_IS_BETTER else (other, one)
        return bool(known[less]["high"] < known[more]["low"])

    return next((one for one in known if all(beats(one, other) for other in known if other != one)), None)
