"""Compare experiments that predict the same of the same scans: which network is better, or that it cannot be told.

Of each two experiments on one dataset and target, the scans that both have tested are compared, in pairs. All comparisons of a
table are corrected together (`mriflow.evaluation.comparison`).
"""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd

from mriflow.base.cli import run_stage, stage_parser
from mriflow.base.errors import UserError
from mriflow.base.files import write_csv
from mriflow.evaluation.comparison import differences_of, judge
from mriflow.evaluation.metrics import classification_metrics, regression_metrics, resample
from mriflow.evaluation.summary import values_of
from mriflow.reporting.result_figures import read_results
from mriflow.reporting.results import read_metrics

LEAST = 10  # people whom both experiments have tested
COLUMNS = ["dataset", "target", "experiment", "other", "metric", "unit", "n", "people"]
COLUMNS += ["value", "low", "high", "p", "test", "p_holm", "verdict", "sentence"]


def compare(table: Path, *, predictions: Sequence[Path], metrics: Sequence[Path]) -> pd.DataFrame:
    """Write `table`: for every two experiments with the same dataset and target, and every metric, the difference.

    Parameters
    ----------
    predictions, metrics
        What `evaluate` made of each experiment, in the same order. A scan that an experiment has tested several times counts as
        it was tested first.

    Returns
    -------
    Columns dataset, target, experiment, other, metric, unit, n (scans that both have tested), people, value (experiment minus
    other), low, high, p, test, p_holm, verdict and sentence. Pairs with fewer than 10 people in common have no numbers.

    Raises
    ------
    UserError
        If no two of the experiments share dataset and target.
    """
    results = [read_metrics(path) for path in metrics]
    read = [read_results(*paths, one["type"])[0] for *paths, one in zip(predictions, metrics, results, strict=True)]
    tables = [one.drop_duplicates("id").set_index("id") for one in read]
    pairs = [(a, b) for a, b in combinations(range(len(results)), 2) if same_question(results[a], results[b])]
    if not pairs:
        raise UserError(f"{', '.join(map(str, metrics))}: no two of these share dataset and target; give at least two that do.")
    rows: list[dict[str, Any]] = []
    for a, b in pairs:
        one, other = results[a], results[b]
        common = tables[a].index.intersection(tables[b].index).sort_values()
        ours, theirs = tables[a].loc[common], tables[b].loc[common]
        people = ours["subject"].nunique()
        about = {"dataset": one["dataset"], "target": one["target"], "n": len(common), "people": people}
        about |= {"experiment": one["experiment"], "other": other["experiment"]}
        if people < LEAST:
            told = f"Too few: {people} people were tested by both, fewer than {LEAST}."
            rows.append({**about, "verdict": "cannot be told", "sentence": told})
            continue
        classes, subjects = one.get("classes"), ours["subject"].to_numpy(str)
        kind = regression_metrics if classes is None else classification_metrics
        truth, values = values_of(ours, "network", classes)
        others = values_of(theirs, "network", classes)[1]
        names = (one["experiment"], other["experiment"])
        scored = {name: (resample(kind, truth, v, subjects), v) for name, v in zip(names, (values, others), strict=True)}
        rows += [about | row for row in differences_of(scored, [names], truth, subjects, classes, one["unit"])]
    judge([row for row in rows if "metric" in row])
    result = pd.DataFrame(rows).reindex(columns=COLUMNS)
    write_csv(result, table)
    return result


def same_question(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether two experiments predict the same of the same dataset."""
    return all(one.get(key) == other.get(key) for key in ("dataset", "target", "type", "classes"))


def main(argv: list[str] | None = None) -> None:
    """Read the command line and compare."""
    parser = stage_parser(__doc__)
    parser.add_argument("--table", type=Path, required=True, help="table to write, one row per pair and metric, .csv")
    parser.add_argument("--predictions", type=Path, nargs="+", required=True, help="predictions.csv of every experiment")
    parser.add_argument(
        "--metrics", type=Path, nargs="+", required=True, help="metrics.json of every experiment, in that order"
    )
    compare(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    run_stage(main)
