"""Predict the test part of every fold with the network trained on the rest, beside simpler methods, and say how good it is.

No scan is predicted by a model that was fitted to it or chosen by it. The same scans are predicted by a linear model of the
standardised voxels (classical), of principal components (pca), of head size, site, age and sex (confounders), by the median or
the share of the classes (trivial), and by the weighted mean of network and classical (stacked).
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
from mriflow.evaluation.baselines import classical, pca, small_images, trivial
from mriflow.evaluation.confounders import NAMES, confounders_of, predict_from_confounders
from mriflow.evaluation.metrics import (
    METHODS,
    Resampled,
    classification_metrics,
    difference,
    intervals,
    regression_metrics,
    resample,
)
from mriflow.evaluation.stacking import blend, share_of_network
from mriflow.prediction.ensemble import predict
from mriflow.tables.labels import read_indices, read_labels
from mriflow.tables.splits import PARTS, read_splits
from mriflow.training.covariates import read_covariates
from mriflow.training.device import choose_device
from mriflow.training.loader import open_shards


def evaluate(
    predictions: Path,
    metrics: Path,
    *,
    models: Sequence[Path],
    warnings: Sequence[Path],
    arrays: Sequence[Path],
    indices: Sequence[Path],
    labels: Path,
    splits: Path,
    settings: Path,
    search: Path | None = None,
) -> dict[str, Any]:
    """Write `predictions` (one row per test scan) and `metrics` (see the return value).

    Parameters
    ----------
    models
        The models of all folds and seeds, made by `train`; the predictions of several seeds are averaged.
    warnings
        What is wrong with the trainings, as `train` wrote it.
    arrays, indices
        The dataset's shards.
    labels, splits
        The dataset's labels.csv and the experiment's splits.csv.
    settings
        JSON file with the experiment's part of the config (`mriflow.config.resolve.settings`).
    search
        What `choose` wrote, if keys of the training block were searched.

    Returns
    -------
    experiment, dataset, simulated (whether its scans are), target, type, unit, n (test scans), n_excluded (of the
    split, but failed preprocessing), folds, seeds; for each method every metric as value, low and high (95 % interval
    over subjects); the differences of the network from each other method (`differences_of`); warnings about trainings; notes
    (what a method was made of, or why it was not made); search (how many trials, and the best of each fold), if there was one;
    classes and confusion matrix of a classification (rows are the truth); and the provenance.

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
    index = read_indices(indices)
    covariates = read_covariates(experiment["covariates"], labels, index)
    features = small_images([shards[scan] for scan in shards])
    row_of = pd.Series(range(len(features)), list(shards))
    sizes = index.set_index("id")[size_column(experiment)]
    confounders = confounders_of(table, sizes, target["column"])
    tested = parts.loc[parts["part"] == "test", "fold"].unique()
    unwatched = sorted(set(tested) - set(parts.loc[parts["part"] == "validation", "fold"]))
    device = choose_device()

    def of_network(fold: int, ids: list[str]) -> np.ndarray:
        return predict(models, fold, shards, ids, covariates, device, experiment["training"]["tta"])

    def fit_classical(known: list[str], ahead: list[str]) -> np.ndarray:
        subjects = table.loc[known, "subject"].to_numpy()
        return classical(features[row_of[known]], label_of[known].to_numpy(), subjects, features[row_of[ahead]], classes)

    rows, shares = [], []
    for fold, fold_parts in progress(parts.groupby("fold"), desc="evaluate", unit="fold"):
        train, validation, test = (fold_parts.loc[fold_parts["part"] == part, "id"].tolist() for part in PARTS)
        if not test:
            continue
        seen = fold_parts.loc[fold_parts["part"] != "test", "id"].tolist()
        labels_seen = label_of[seen].to_numpy()
        made = {
            "network": of_network(int(fold), test),
            "classical": fit_classical(seen, test),
            "pca": pca(features[row_of[seen]], labels_seen, features[row_of[test]], classes),
            "trivial": trivial(labels_seen, classes, len(test)),
        }
        if len(confounders.columns):
            made["confounders"] = predict_from_confounders(confounders.loc[seen], labels_seen, confounders.loc[test], classes)
        if not unwatched:
            truth, of_classical = label_of[validation].to_numpy(), fit_classical(train, validation)
            shares.append(share_of_network(truth, of_network(int(fold), validation), of_classical, classes))
            made["stacked"] = blend(shares[-1], made["network"], made["classical"])
        about = [name for name in ("subject", "session", "site", "age", "sex") if name in table]
        fold_rows = table.loc[test, about].reset_index().assign(fold=fold, truth=label_of[test].to_numpy())
        rows.append(fold_rows.assign(**as_columns({m: made[m] for m in METHODS if m in made}, classes)))
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
    found = {method: resample_method(predicted, method, classes) for method in METHODS if method in made}
    result |= {method: intervals(one) for method, one in found.items()}
    result["differences"] = differences_of(found, classes)
    result["warnings"] = [one for path in warnings for one in json.loads(path.read_text())]
    result["notes"] = notes_of(list(confounders), shares, unwatched)
    if search:
        result["search"] = json.loads(search.read_text())
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


def resample_method(predicted: pd.DataFrame, method: str, classes: list[str] | None) -> Resampled:
    """Return the metrics of one method, with those of the resamples."""
    subjects = predicted["subject"].tolist()
    if classes is None:
        truth, values = predicted["truth"].to_numpy(float), predicted[method].to_numpy(float)
        return resample(regression_metrics, truth, values, subjects)
    truth = predicted["truth"].astype(str).map(classes.index).to_numpy()
    return resample(classification_metrics, truth, predicted[[f"{method}_{c}" for c in classes]].to_numpy(), subjects)


def differences_of(found: dict[str, Resampled], classes: list[str] | None) -> list[dict[str, Any]]:
    """Return the network's metric minus that of each other method, and stacked minus classical.

    Returns
    -------
    For each pair and metric (mae; auc and accuracy, of more than two classes accuracy alone) method, other, metric, value, low,
    high and verdict (`mriflow.evaluation.metrics.difference`).
    """
    metrics = ["mae"] if classes is None else ["auc", "accuracy"] if len(classes) == 2 else ["accuracy"]
    pairs = [("network", other) for other in found if other != "network"]
    pairs += [("stacked", "classical")] if "stacked" in found else []
    return [
        {"method": one, "other": other, "metric": metric, **difference(found[one], found[other], metric)}
        for metric in metrics
        for one, other in pairs
    ]


def size_column(experiment: dict[str, Any]) -> str:
    """Return the column of a shard's index that tells the size of the head."""
    return "scale" if experiment["preprocess"]["registration"] == "affine" else "brain_ml"


def notes_of(confounders: list[str], shares: list[float], unwatched: list[int]) -> dict[str, str]:
    """Return, in words, what was made of `confounders` and `stacked`."""
    names = ", ".join(NAMES[name] for name in confounders)
    if unwatched:
        lacking = f"fold {unwatched[0]} has no validation scans, from which the network's share would be learned"
        stacked = f"Not made: {lacking}."
    else:
        listed = ", ".join(f"{share:.2f}" for share in shares)
        stacked = f"The network's share in the mean of network and classical, by fold: {listed}."
    return {
        "confounders": f"A linear model of {names}." if names else "Not made: no confounder is known, or none differs.",
        "stacked": stacked,
    }


def main(argv: list[str] | None = None) -> None:
    """Read the command line and evaluate."""
    parser = stage_parser(__doc__)
    parser.add_argument("--predictions", type=Path, required=True, help="table to write, one row per test scan, .csv")
    parser.add_argument("--metrics", type=Path, required=True, help="metrics to write, .json")
    parser.add_argument("--models", type=Path, nargs="+", required=True, help="the models of all folds and seeds")
    parser.add_argument("--warnings", type=Path, nargs="+", required=True, help="what is wrong with their trainings, .json")
    parser.add_argument("--arrays", type=Path, nargs="+", required=True, help="shards of the dataset, .npy")
    parser.add_argument("--indices", type=Path, nargs="+", required=True, help="their indices, .csv, in the same order")
    parser.add_argument("--labels", type=Path, required=True, help="the dataset's labels.csv")
    parser.add_argument("--splits", type=Path, required=True, help="the experiment's splits.csv")
    parser.add_argument("--settings", type=Path, required=True, help="the experiment's part of the config, .json")
    parser.add_argument("--search", type=Path, help="what `choose` found best in each fold, .json, if keys were searched")
    evaluate(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    run_stage(main)
