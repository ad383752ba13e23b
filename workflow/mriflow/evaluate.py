"""Predict the test part of every fold with the network trained on the rest, beside two baselines, and say how good it is.

No scan is predicted by a model that was fitted to it or chosen by it. The baselines see the same folds: the trivial one
(median, or share of the classes) and the classical one (principal components, ridge or logistic regression).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix

from mriflow.base.cli import progress, run_stage, stage_parser
from mriflow.base.files import write_csv, write_json
from mriflow.base.provenance import provenance
from mriflow.evaluation.baselines import classical, small_images, trivial
from mriflow.evaluation.metrics import METHODS, classification_metrics, regression_metrics, with_intervals
from mriflow.prediction.ensemble import predict
from mriflow.tables.labels import read_labels
from mriflow.tables.splits import read_splits
from mriflow.training.covariates import read_covariates
from mriflow.training.device import choose_device
from mriflow.training.loader import open_shards


def evaluate(
    predictions: Path,
    metrics: Path,
    *,
    models: Sequence[Path],
    arrays: Sequence[Path],
    indices: Sequence[Path],
    labels: Path,
    splits: Path,
    settings: Path,
) -> dict[str, Any]:
    """Write `predictions` (one row per test scan) and `metrics` (see the return value).

    Parameters
    ----------
    models
        The models of all folds and seeds, made by `train`; the predictions of several seeds are averaged.
    arrays, indices
        The dataset's shards.
    labels, splits
        The dataset's labels.csv and the experiment's splits.csv.
    settings
        JSON file with the experiment's part of the config (`mriflow.config.resolve.settings`).

    Returns
    -------
    experiment, dataset, simulated (whether its scans are), target, type, unit, n (test scans), n_excluded (of the
    split, but failed preprocessing), folds, seeds; for each of network, trivial and classical every metric as
    value, low and high (95 % interval over subjects); classes and confusion matrix of a classification (rows are
    the truth); and the provenance.

    Raises
    ------
    UserError
        If a model is missing for a fold, or the splits leak.
    """
    experiment = json.loads(settings.read_text())
    target = experiment["target"]
    classes = list(target["classes"]) if target["type"] == "classification" else None
    parts = read_splits(splits)
    shards = open_shards(arrays, indices)
    table = read_labels(labels, category=target["column"] if classes else None).set_index("id")
    label_of = table[target["column"]]
    preprocessed = parts["id"].isin(shards)
    excluded = parts.loc[~preprocessed & (parts["part"] == "test"), "id"].nunique()
    parts = parts[preprocessed]
    features = dict(zip(shards, small_images(list(shards.values())), strict=True))
    covariates = read_covariates(experiment["covariates"], labels, indices)
    device = choose_device()

    rows = []
    for fold, fold_parts in progress(parts.groupby("fold"), desc="evaluate", unit="fold"):
        test = fold_parts.loc[fold_parts["part"] == "test", "id"].tolist()
        seen = fold_parts.loc[fold_parts["part"] != "test", "id"].tolist()
        if not test:
            continue
        labels_seen = label_of.loc[seen].to_numpy()
        predictions_of = {
            "network": predict(models, int(fold), shards, test, covariates, device, experiment["training"]["tta"]),
            "trivial": trivial(labels_seen, classes, len(test)),
            "classical": classical(
                np.stack([features[s] for s in seen]), labels_seen, np.stack([features[s] for s in test]), classes
            ),
        }
        fold_rows = table.loc[test, ["subject", "session", "site"]].reset_index().assign(fold=fold)
        rows.append(fold_rows.assign(truth=label_of.loc[test].to_numpy(), **as_columns(predictions_of, classes)))
    predicted = pd.concat(rows, ignore_index=True).sort_values(["fold", "id"], ignore_index=True)

    result: dict[str, Any] = {
        "experiment": experiment["experiment"],
        "dataset": experiment["dataset"]["title"],
        "simulated": "simulate" in experiment["dataset"],
        "target": experiment["names"]["target"],
        "type": target["type"],
        "unit": target["unit"],
        "n": len(predicted),
        "n_excluded": int(excluded),
        "folds": int(parts["fold"].nunique()),
        "seeds": experiment["training"]["seeds"],
    }
    for method in METHODS:
        result[method] = metrics_of(predicted, method, classes)
    if classes is not None:
        result["classes"] = classes
        result["confusion"] = confusion_matrix(predicted["truth"].astype(str), predicted["network"], labels=classes).tolist()
    result["provenance"] = provenance(experiment)
    write_csv(predicted, predictions)
    write_json(result, metrics)
    return result


def as_columns(predictions: dict[str, np.ndarray], classes: list[str] | None) -> dict[str, np.ndarray]:
    """Return predictions as columns of a table: the number, or the likeliest class and the probability of each."""
    if classes is None:
        return predictions
    columns = {method: np.array(classes)[p.argmax(1)] for method, p in predictions.items()}
    return columns | {f"{method}_{name}": p[:, i] for method, p in predictions.items() for i, name in enumerate(classes)}


def metrics_of(predicted: pd.DataFrame, method: str, classes: list[str] | None) -> dict[str, Any]:
    """Return the metrics of one method with their intervals."""
    subjects = predicted["subject"].tolist()
    if classes is None:
        truth, values = predicted["truth"].to_numpy(float), predicted[method].to_numpy(float)
        return with_intervals(regression_metrics, truth, values, subjects)
    truth = predicted["truth"].astype(str).map(classes.index).to_numpy()
    return with_intervals(classification_metrics, truth, predicted[[f"{method}_{c}" for c in classes]].to_numpy(), subjects)


def main(argv: list[str] | None = None) -> None:
    """Read the command line and evaluate."""
    parser = stage_parser(__doc__)
    parser.add_argument("--predictions", type=Path, required=True, help="table to write, one row per test scan, .csv")
    parser.add_argument("--metrics", type=Path, required=True, help="metrics to write, .json")
    parser.add_argument("--models", type=Path, nargs="+", required=True, help="the models of all folds and seeds")
    parser.add_argument("--arrays", type=Path, nargs="+", required=True, help="shards of the dataset, .npy")
    parser.add_argument("--indices", type=Path, nargs="+", required=True, help="their indices, .csv, in the same order")
    parser.add_argument("--labels", type=Path, required=True, help="the dataset's labels.csv")
    parser.add_argument("--splits", type=Path, required=True, help="the experiment's splits.csv")
    parser.add_argument("--settings", type=Path, required=True, help="the experiment's part of the config, .json")
    evaluate(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    run_stage(main)
