"""Draw one figure of an experiment or a dataset as PDF and PNG, ready for a paper.

It is 3.5 or 7 inches wide, in colours that the colour-blind can tell, and says how many scans and folds it shows, and
when they are simulated. The same input gives the same bytes.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mriflow.base.cli import run_stage, stage_parser
from mriflow.reporting.cohort_figures import cohort
from mriflow.reporting.depth_figures import attention, robustness, training_size
from mriflow.reporting.map_figures import overlays, volumes
from mriflow.reporting.result_figures import (
    comparison,
    confusion_matrix,
    learning_curves,
    predicted_vs_true,
    reliability,
    residual_vs_truth,
    roc,
)
from mriflow.reporting.scan_figures import failures, scans

PREDICTIONS = {
    "predicted-vs-true": predicted_vs_true,
    "residual-vs-true": residual_vs_truth,
    "roc": roc,
    "confusion-matrix": confusion_matrix,
    "reliability": reliability,
    "volumes": volumes,
}

DEPTH = {"training-size": "controls", "robustness": "robustness", "attention": "attention"}


def add_figure(figures: Any, name: str, draw: Callable[..., None]) -> argparse.ArgumentParser:
    """Add the sub-command `name` that calls `draw`."""
    about = (draw.__doc__ or "").splitlines()[0]
    command: argparse.ArgumentParser = figures.add_parser(name, help=about, description=about, allow_abbrev=False)
    command.set_defaults(draw=draw)
    command.add_argument("--pdf", type=Path, required=True, help="figure to write, .pdf")
    command.add_argument("--png", type=Path, required=True, help="the same to write, .png")
    return command


def main(argv: list[str] | None = None) -> None:
    """Read the command line and draw a figure."""
    parser = stage_parser(__doc__)
    figures = parser.add_subparsers(required=True, metavar="figure")
    curves = add_figure(figures, "learning-curves", learning_curves)
    curves.add_argument("--histories", type=Path, nargs="+", required=True, help="history.csv of every fold and seed")
    curves.add_argument("--metrics", type=Path, required=True, help="metrics.json of the experiment")
    for name, draw in PREDICTIONS.items():
        predicted = add_figure(figures, name, draw)
        predicted.add_argument(
            "--predictions", type=Path, required=True, help="predictions.csv of the experiment, or external-predictions.csv"
        )
        predicted.add_argument("--metrics", type=Path, required=True, help="metrics.json of the experiment")
        if name in ("predicted-vs-true", "roc"):
            predicted.add_argument("--external", help="the dataset of an external test; then predictions are its")
    labelled = add_figure(figures, "overlays", overlays)
    labelled.add_argument("--maps", type=Path, required=True, help="overlays.npz of the experiment")
    labelled.add_argument("--metrics", type=Path, required=True, help="metrics.json of the experiment")
    compared = add_figure(figures, "comparison", comparison)
    compared.add_argument("--metrics", type=Path, nargs="+", required=True, help="metrics.json of every experiment")
    for name, draw in {"training-size": training_size, "robustness": robustness, "attention": attention}.items():
        deeper = add_figure(figures, name, draw)
        deeper.add_argument("--result", type=Path, required=True, help=f"{DEPTH[name]}.json of the experiment")
        if name == "attention":
            deeper.add_argument("--maps", type=Path, required=True, help="folder of its maps")
    montages = add_figure(figures, "scans", scans)
    wrong = add_figure(figures, "failures", failures)
    wrong.add_argument("--worst", type=Path, required=True, help="failures.csv of the experiment")
    wrong.add_argument("--metrics", type=Path, required=True, help="metrics.json of the experiment")
    for figure in (montages, wrong):
        figure.add_argument("--arrays", type=Path, nargs="+", required=True, help="shards of the dataset, .npy")
        figure.add_argument("--indices", type=Path, nargs="+", required=True, help="their indices, .csv, in that order")
        figure.add_argument("--channel", type=int, default=0, help="which is shown, of several, from 0 (default: 0)")
    people = add_figure(figures, "cohort", cohort)
    people.add_argument("--labels", type=Path, required=True, help="labels.csv of the dataset")
    people.add_argument("--indices", type=Path, nargs="*", default=[], help="indices of its shards, .csv")
    for figure in (montages, people):
        figure.add_argument("--simulated", action="store_true", help="say that the scans are simulated")
    arguments = vars(parser.parse_args(argv))
    arguments.pop("draw")(**arguments)


if __name__ == "__main__":
    run_stage(main)
