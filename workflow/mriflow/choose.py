"""Choose, in each fold by its validation part alone, what a search over training keys found best.

It reads nothing but the histories of the trials: no scan, no label and no prediction, of the test part or any other.
"""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mriflow.base.cli import run_stage, stage_parser
from mriflow.base.errors import UserError
from mriflow.base.files import write_csv, write_json

EPOCHS = 3  # over which validation is averaged; one alone is noisy


def choose(
    table: Path, chosen: Path, *, trials: dict[str, dict[str, Any]], folds: int, histories: Sequence[Path]
) -> dict[str, Any]:
    """Write `table`, one row per fold and trial, and `chosen`, the keys of the best trial of each fold.

    Parameters
    ----------
    trials
        The keys of every trial by its name; `select` is among them if the trainings keep their best epoch.
    folds
        How many folds there are.
    histories
        The trials' history.csv: of the first trial those of all folds, then of the second ...

    Returns
    -------
    What is written to `chosen`: how many ``trials`` there are, and of each fold in ``chosen`` the fold, the trial, its keys and
    its val_loss, the mean validation loss of the last three epochs; of a training that keeps its best epoch, of the best three
    in a row. Of equals it is the first. A trial that diverged is never chosen.

    Raises
    ------
    UserError
        If a trial has no validation loss, or in a fold all of them diverged.
    """
    rows: list[dict[str, Any]] = []
    for (name, keys), fold in itertools.product(trials.items(), range(folds)):
        path = histories[len(rows)]
        history = pd.read_csv(path)
        if "val_loss" not in history:
            raise UserError(f"{path}: has no val_loss: fold {fold} has no validation scans, by which a trial would be chosen.")
        means = history.filter(regex="^val_").rolling(EPOCHS, min_periods=min(EPOCHS, len(history))).mean()
        kept_best = keys.get("select") == "best" and pd.notna(means["val_loss"].iloc[-1])
        scores = means.loc[means["val_loss"].idxmin()] if kept_best else means.iloc[-1]
        rows.append({"fold": fold, "trial": name, **keys, **scores})
    found = pd.DataFrame(rows).sort_values("fold", kind="stable", ignore_index=True)
    lost = [fold for fold, losses in found.groupby("fold")["val_loss"] if losses.isna().all()]
    if lost:
        raise UserError(f"fold {lost[0]}: every trial diverged. Try lower values of `learning_rate`, fewer changes.")
    best = found.loc[found.groupby("fold")["val_loss"].idxmin()]
    result = {
        "trials": len(trials),
        "chosen": [
            {"fold": int(row["fold"]), "trial": row["trial"], "keys": trials[row["trial"]], "val_loss": float(row["val_loss"])}
            for row in best.to_dict("records")
        ],
    }
    write_csv(found.assign(chosen=found.index.isin(best.index)), table)
    write_json(result, chosen)
    return result


def main(argv: list[str] | None = None) -> None:
    """Read the command line and choose."""
    parser = stage_parser(__doc__)
    parser.add_argument("--table", type=Path, required=True, help="table to write, one row per fold and trial, .csv")
    parser.add_argument("--chosen", type=Path, required=True, help="the best trial of each fold to write, .json")
    parser.add_argument("--trials", type=json.loads, required=True, help="the keys of every trial by its name, as JSON")
    parser.add_argument("--folds", type=int, required=True, help="how many folds there are")
    parser.add_argument(
        "--histories", type=Path, nargs="+", required=True, help="history.csv of every trial, and within it of every fold"
    )
    choose(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    run_stage(main)
