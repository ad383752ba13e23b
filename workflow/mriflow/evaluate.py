"""Predict the test part of every fold with the network trained on the rest, beside simpler methods, and say how good it is.

No scan is predicted by a model that was fitted to it or chosen by it. The same scans are predicted by a linear model of the
standardised voxels (classical), of smoothed grey matter and the volumes of tissues (tissue, where the channels have these), of
principal components (pca), of head size, site, age and sex (confounders), by the median or the share of the classes (trivial),
and by the weighted mean of the network and tissue, or else classical (stacked).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mriflow.base.cli import progress, run_stage, stage_parser
from mriflow.base.files import write_csv, write_json
from mriflow.base.provenance import provenance
from mriflow.evaluation.baselines import MOST, classical, drawn, pca, small_images, trivial
from mriflow.evaluation.confounders import NAMES, confounders_of, predict_from_confounders, size_column
from mriflow.evaluation.decisions import curves_of
from mriflow.evaluation.external import judge_all, read_external
from mriflow.evaluation.failures import QUALITY, errors_of, worst
from mriflow.evaluation.long_table import long_table
from mriflow.evaluation.metrics import METHODS
from mriflow.evaluation.stacking import PLAIN_MEAN, blend, share_of_network
from mriflow.evaluation.subgroups import subgroup_columns
from mriflow.evaluation.summary import as_columns, summarise, values_of
from mriflow.evaluation.tissue_baseline import morphometry_of, tissue
from mriflow.prediction.ensemble import predict_each
from mriflow.prediction.tested import about_experiment, add_trained
from mriflow.tables.labels import LABEL_MAP, read_indices, read_labels
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
    external: Sequence[Path] = (),
    cohorts: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Write `predictions` (one row per test scan), `metrics` (see the return value) and, beside `metrics`, six more files.

    They are validation-predictions.csv (the validation parts, predicted by the network and its rival alone), calibration.json
    (`mriflow.evaluation.calibration`), metrics.csv (`mriflow.evaluation.long_table`), failures.csv (the worst test scans),
    curves.csv (ROC and precision-recall, of classes; of a number it is empty) and external-predictions.csv (other datasets;
    empty without them).

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
    external, cohorts
        Predictions of other datasets, made by `mriflow.external`, each named for its dataset; and the `title` of each, and
        whether it is `simulated`.

    Returns
    -------
    experiment, dataset, simulated (whether its scans are), target, type, unit, n (test scans), n_excluded (of the
    split, but failed preprocessing), folds, seeds; what `mriflow.evaluation.summary.summarise` returns; warnings about
    trainings; notes (what a method was made of, or why it was not made); search (how many trials, and the best of each fold),
    if there was one; tissues_of (which experiment tells the tissues apart that learns from label maps of how many of the people
    tested), if one does; external (of each other dataset, `mriflow.evaluation.external.judge`), if there is one; and the
    provenance.

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
    label_of, groups = table[target["column"]], subgroup_columns(experiment, table.columns)
    preprocessed = parts["id"].isin(shards)
    excluded = parts.loc[~preprocessed & (parts["part"] == "test"), "id"].nunique()
    parts = parts[preprocessed]
    index = read_indices(indices)
    covariates = read_covariates(experiment["covariates"], labels, index)
    features = small_images([shards[scan] for scan in shards])
    row_of = pd.Series(range(len(features)), list(shards))
    measures = index.set_index("id")[list(QUALITY)]
    maps = morphometry_of([shards[scan] for scan in shards], experiment["preprocess"], measures.loc[list(shards)])
    rival = "classical" if maps is None else "tissue"
    confounders = confounders_of(table, measures[size_column(experiment)], target["column"])
    about = [name for name in dict.fromkeys(["subject", "session", "site", "age", "sex", *groups]) if name in table]
    device = choose_device()

    def of_networks(fold: int, ids: list[str]) -> dict[str, np.ndarray]:
        each = predict_each(models, fold, shards, ids, covariates, device, experiment["training"]["tta"])
        seeds = {f"seed-{seed}": one for seed, one in each.items()} if len(each) > 1 else {}
        return {"network": np.mean(list(each.values()), axis=0), **seeds}

    def fit_classical(known: list[str], ahead: list[str]) -> np.ndarray:
        known = drawn(known)
        subjects = table.loc[known, "subject"].to_numpy()
        return classical(features[row_of[known]], label_of[known].to_numpy(), subjects, features[row_of[ahead]], classes)

    def fit_tissue(known: list[str], ahead: list[str]) -> np.ndarray:
        known = drawn(known)
        subjects = table.loc[known, "subject"].to_numpy()
        assert maps is not None
        return tissue(maps.rows(row_of[known]), label_of[known].to_numpy(), subjects, maps.rows(row_of[ahead]), classes)

    def fit_pca(known: list[str], ahead: list[str]) -> np.ndarray:
        known = drawn(known)
        return pca(features[row_of[known]], label_of[known].to_numpy(), features[row_of[ahead]], classes)

    def rows_of(fold: int, ids: list[str], made: dict[str, np.ndarray]) -> pd.DataFrame:
        names = [*(method for method in METHODS if method in made), *(name for name in made if name not in METHODS)]
        rows = table.loc[ids, about].reset_index().assign(fold=fold, truth=label_of[ids].to_numpy())
        rows = rows.assign(**as_columns({name: made[name] for name in names}, classes))
        return rows.assign(**{name: measures.loc[ids, name].to_numpy() for name in QUALITY})

    rows, rows_of_validation = [], []
    shares: dict[Any, float | None] = {}
    for fold, fold_parts in progress(parts.groupby("fold"), desc="evaluate", unit="fold"):
        train, validation, test = (fold_parts.loc[fold_parts["part"] == part, "id"].tolist() for part in PARTS)
        if not test:
            continue
        seen = fold_parts.loc[fold_parts["part"] != "test", "id"].tolist()
        labels_seen = label_of[seen].to_numpy()
        both = of_networks(int(fold), [*test, *validation])
        made = {
            **{name: one[: len(test)] for name, one in both.items()},
            "classical": fit_classical(seen, test),
            "pca": fit_pca(seen, test),
            "trivial": trivial(labels_seen, classes, len(test)),
        }
        if maps is not None:
            made["tissue"] = fit_tissue(seen, test)
        if len(confounders.columns):
            made["confounders"] = predict_from_confounders(confounders.loc[seen], labels_seen, confounders.loc[test], classes)
        share = PLAIN_MEAN
        if validation:
            fit = fit_classical if maps is None else fit_tissue
            before = {name: one[len(test) :] for name, one in both.items()} | {rival: fit(train, validation)}
            rows_of_validation.append(rows_of(int(fold), validation, before))
            share = share_of_network(label_of[validation].to_numpy(), before["network"], before[rival], classes)
        shares[fold] = share if validation else None
        made["stacked"] = blend(share, made["network"], made[rival])
        rows.append(rows_of(int(fold), test, made))
    predicted = pd.concat(rows).sort_values(["fold", "id"], ignore_index=True)
    validated = pd.concat(rows_of_validation or [predicted.iloc[:0]]).sort_values(["fold", "id"], ignore_index=True)
    predicted, found, calibration = summarise(predicted, validated, classes, groups, target["unit"])

    result: dict[str, Any] = {
        **about_experiment(experiment),
        "n": len(predicted),
        "n_excluded": int(excluded),
        "folds": int(parts["fold"].nunique()),
        "seeds": experiment["training"]["seeds"],
        **found,
        "warnings": [one for path in warnings for one in json.loads(path.read_text())],
        "notes": notes_of(list(confounders), shares, rival, calibration["fitted_on"])
        | few_learned_from(parts, maps is not None),
    }
    if "tissues_of" in experiment:
        result["tissues_of"] = teachers_of_tissues(experiment["tissues_of"], table.loc[predicted["id"].unique()])
    if search:
        result["search"] = json.loads(search.read_text())
    others = {path.stem: read_external(path, classes) for path in external}
    elsewhere, judged = judge_all(others, cohorts or {}, calibration.get("new"), classes, groups, target["unit"])
    if judged:
        result["external"] = judged
    result["provenance"] = provenance(experiment)
    images = table.loc[predicted["id"], "path"].to_numpy()
    failures = worst(predicted.assign(image=images), errors_of(*values_of(predicted, "network", classes), classes))
    scores = {method: values_of(predicted, method, classes) for method in ("network", rival) if classes}
    write_csv(validated, metrics.with_name("validation-predictions.csv"))
    write_json({"experiment": experiment["experiment"], **calibration}, metrics.with_name("calibration.json"))
    write_csv(failures, metrics.with_name("failures.csv"))
    write_csv(curves_of(scores, classes or []), metrics.with_name("curves.csv"))
    write_csv(long_table(result), metrics.with_name("metrics.csv"))
    write_csv(elsewhere, metrics.with_name("external-predictions.csv"))
    write_csv(predicted, predictions)
    write_json(result, metrics)
    return result


def notes_of(confounders: list[str], shares: Mapping[Any, float | None], rival: str, fitted_on: str) -> dict[str, str]:
    """Return, in words, what was made of `confounders` and `stacked`, and what calibration was fitted on."""
    names = ", ".join(NAMES[name] for name in confounders)
    listed = ", ".join(f"{PLAIN_MEAN if share is None else share:.2f}" for share in shares.values())
    stacked = f"The network's share in the mean of network and {rival}, by fold: {listed}."
    if unwatched := [str(fold) for fold, share in shares.items() if share is None]:
        stacked += f" The plain mean in fold {', '.join(unwatched)}, which has no validation scans to learn it from."
    return {
        "confounders": f"A linear model of {names}." if names else "Not made: no confounder is known, or none differs.",
        "stacked": stacked,
        "calibration": f"Fitted on: {fitted_on[0].lower()}{fitted_on[1:]}",
    }


def few_learned_from(parts: pd.DataFrame, with_tissue: bool) -> dict[str, str]:
    """Return a note if the linear methods learn from fewer scans than the networks do."""
    most = int(parts[parts["part"] != "test"].groupby("fold")["id"].nunique().max())
    if most <= MOST:
        return {}
    few = f"Learned from {MOST:,} scans of each fold, drawn at random; the networks from up to {most:,}."
    return dict.fromkeys(["classical", "pca", *(["tissue"] if with_tissue else [])], few)


def teachers_of_tissues(name: str, tested: pd.DataFrame) -> dict[str, Any]:
    """Return which experiment tells the tissues apart, and how many people among the tested scans have a label map for it."""
    labelled = tested[tested[LABEL_MAP].notna()] if LABEL_MAP in tested else tested[:0]
    return {"experiment": name, "people": int(labelled["subject"].nunique())}


def main(argv: list[str] | None = None) -> None:
    """Read the command line and evaluate."""
    parser = stage_parser(__doc__)
    parser.add_argument("--predictions", type=Path, required=True, help="table to write, one row per test scan, .csv")
    parser.add_argument("--metrics", type=Path, required=True, help="metrics to write, .json; more is written beside them")
    add_trained(parser)
    parser.add_argument("--warnings", type=Path, nargs="+", required=True, help="what is wrong with their trainings, .json")
    parser.add_argument("--search", type=Path, help="what `choose` found best in each fold, .json, if keys were searched")
    parser.add_argument("--external", type=Path, nargs="*", default=[], help="predictions of other datasets, made by external")
    parser.add_argument("--cohorts", type=json.loads, help="title of each of these datasets and whether it is simulated, JSON")
    evaluate(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    run_stage(main)
