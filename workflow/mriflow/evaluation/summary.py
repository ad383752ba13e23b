"""Everything that is said of an experiment's predictions: a pure function of the tables that `evaluate` writes."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix

from mriflow.evaluation.calibration import (
    BINS,
    apply_all,
    belief,
    bins_of,
    calibration_metrics,
    fit_all,
    probabilities_of,
    truth_of,
)
from mriflow.evaluation.comparison import Scored, differences_of, judge
from mriflow.evaluation.conformal import coverage, exact_interval
from mriflow.evaluation.decisions import SENSITIVITY, decision_metrics
from mriflow.evaluation.failures import errors_and_quality, errors_of, power_of
from mriflow.evaluation.gaps import gaps_of
from mriflow.evaluation.metrics import (
    METHODS,
    Metrics,
    Resampled,
    classification_metrics,
    intervals,
    mean_of,
    of_a_guess,
    once,
    regression_metrics,
    resample,
    rival_of,
)
from mriflow.evaluation.subgroups import subgroups_of

SEED = re.compile(r"seed-(\d+)")  # the column of a single network's predictions
WHY_TWO = (
    "Pooled: all test scans together. Mean: of the folds, each alone. Of an average such as MAE the two differ only if folds "
    "differ in size. AUC, r and R² rank or spread the scans of several networks together when pooled, so that they are lower "
    "if the networks differ in level, and r and R² are higher if the folds differ in their truths."
)


def summarise(
    predicted: pd.DataFrame, validated: pd.DataFrame, classes: list[str] | None, columns: Sequence[str], unit: str
) -> tuple[pd.DataFrame, dict[str, Any], dict[str, Any]]:
    """Return the predictions with what calibration adds to them, all metrics, and ``calibration.json``.

    Parameters
    ----------
    predicted, validated
        Predictions of the test and of the validation parts.
    classes
        Of a classification.
    columns
        Those whose groups are looked at one by one.
    unit
        Of the target.

    Returns
    -------
    The metrics are: of each method and of each seed alone (single_seeds) every metric with its interval; by_fold; differences;
    subgroups; gap (of a number), or confusion, decisions, calibration (of classes); conformal; quality; power.
    """
    fitted = fit_all(predicted, validated, classes)
    return *summarise_fitted(predicted, fitted, classes, columns, unit), fitted


def summarise_fitted(
    predicted: pd.DataFrame, fitted: dict[str, Any], classes: list[str] | None, columns: Sequence[str], unit: str
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Return what `summarise` does, of predictions to which `fitted` (calibration.json) is applied."""
    predicted = apply_all(predicted, fitted)
    subjects = predicted["subject"].to_numpy(str)
    truth, of_network = values_of(predicted, "network", classes)
    metrics = regression_metrics if classes is None else classification_metrics

    def scored(method: str, scans: np.ndarray | None = None) -> Resampled:
        judged = of_a_guess(metrics) if method == "trivial" else metrics
        return resample(judged, truth, values_of(predicted, method, classes)[1], subjects, scans=scans)

    def ranking(method: str) -> np.ndarray:
        values = values_of(predicted, method, classes)[1]
        return np.full_like(values, 1 / values.shape[1]) if method == "trivial" and classes is not None else values

    methods = [method for method in METHODS if method in predicted]
    seeds = {match[1]: match[0] for match in map(SEED.fullmatch, predicted) if match}
    found: dict[str, Scored] = {one: (scored(one), ranking(one)) for one in methods}
    result: dict[str, Any] = {method: intervals(one) for method, (one, _) in found.items()}
    if classes is not None:
        result = {method: with_exact(cells, truth, subjects) for method, cells in result.items()}
    if len(seeds) > 1:
        result["single_seeds"] = {seed: intervals(scored(name)) for seed, name in seeds.items()}
    folds = {fold: (predicted["fold"] == fold).to_numpy() for fold in predicted["fold"].unique()}
    of_folds = {m: {fold: scored(m, scans) for fold, scans in folds.items()} for m in methods}
    result["by_fold"] = by_fold(of_folds, folds, truth, subjects, classes)
    pairs = [("network", other) for other in methods if other != "network"]
    rival = rival_of(methods)
    pairs += [("stacked", rival)] if "stacked" in methods else []
    result["differences"] = judge(differences_of(found, pairs, truth, subjects, classes, unit))
    result["subgroups"] = subgroups_of(predicted, columns, truth, of_network, classes)
    if classes is None:
        result["gap"] = gaps_of(predicted)
    else:
        result["classes"] = classes
        result["confusion"] = confusion_matrix(predicted["truth"].astype(str), predicted["network"], labels=classes).tolist()
        if len(classes) > 2:
            result["one_against_rest"] = one_against_rest(truth, of_network, subjects, classes)
    if fitted["folds"]:
        result |= of_interval(predicted) if classes is None else of_classes(predicted, classes)
    result["quality"] = errors_and_quality(predicted, errors_of(truth, of_network, classes))
    metric = "mae" if classes is None else "auc"
    result["power"] = power_of(metric, result["network"][metric], len(set(subjects)), result["differences"], rival, unit)
    return predicted, result


def as_columns(predictions: dict[str, np.ndarray], classes: list[str] | None) -> dict[str, np.ndarray]:
    """Return predictions as columns of a table: the number, or the likeliest class and the probability of each."""
    if classes is None:
        return predictions
    columns = {method: np.array(classes)[p.argmax(1)] for method, p in predictions.items()}
    return columns | {f"{method}_{name}": p[:, i] for method, p in predictions.items() for i, name in enumerate(classes)}


def values_of(predicted: pd.DataFrame, method: str, classes: list[str] | None) -> tuple[np.ndarray, np.ndarray]:
    """Return truth and predictions of a method: numbers, or the number of the class and the probability of each."""
    if classes is None:
        return predicted["truth"].to_numpy(float), predicted[method].to_numpy(float)
    return truth_of(predicted, classes), probabilities_of(predicted, method, classes)


def by_fold(
    found: dict[str, dict[Any, Resampled]],
    folds: dict[Any, np.ndarray],
    truth: np.ndarray,
    subjects: np.ndarray,
    classes: list[str] | None,
) -> dict[str, Any]:
    """Return every method's metrics in each fold, their mean over the folds, and why that differs from those of all scans."""
    mean: dict[str, Any] = {}
    each: dict[str, Any] = {str(fold): {"n": int(scans.sum())} for fold, scans in folds.items()}
    for method, of_fold in found.items():
        for fold, one in of_fold.items():
            cells = intervals(one)
            scans = folds[fold]
            each[str(fold)][method] = cells if classes is None else with_exact(cells, truth[scans], subjects[scans])
        ones = list(of_fold.values())
        mean[method] = intervals(mean_over(ones))
    return {"why": WHY_TWO, "mean": mean, "folds": each}


def one_against_rest(truth: np.ndarray, probabilities: np.ndarray, subjects: np.ndarray, classes: list[str]) -> dict[str, Any]:
    """Return for each of several classes n, auc, average_precision and, of the likeliest class, `decision_metrics` and f1.

    Under ``macro`` stands the mean of the classes, each counting alike.
    """
    ones = []
    for number in range(len(classes)):
        score = probabilities[:, number]
        both = resample(classification_metrics, (truth == number).astype(int), np.stack([1 - score, score], 1), subjects)
        decided = resample(decisions_and_f1, truth == number, probabilities.argmax(1) == number, subjects)
        kept = ("auc", "average_precision")
        ones.append(
            Resampled(
                {name: both.metrics[name] for name in kept} | decided.metrics,
                {name: both.draws[name] for name in kept} | decided.draws,
            )
        )
    result: dict[str, Any] = {
        name: {"n": int((truth == number).sum()), **intervals(ones[number])} for number, name in enumerate(classes)
    }
    return {"classes": result, "macro": intervals(mean_over(ones))}


def mean_over(ones: Sequence[Resampled]) -> Resampled:
    """Return the mean of the metrics of several folds or classes, and of their draws."""
    names = ones[0].metrics
    metrics = {name: float(np.mean([one.metrics[name] for one in ones])) for name in names}
    return Resampled(metrics, {name: np.mean([one.draws[name] for one in ones], axis=0) for name in names})


def decisions_and_f1(positive: np.ndarray, decided: np.ndarray, weights: np.ndarray | None = None) -> Metrics:
    """Return `decision_metrics` and f1, the harmonic mean of sensitivity and ppv."""
    found = decision_metrics(positive, decided, weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        return {**found, "f1": 2 / (1 / np.asarray(found["sensitivity"]) + 1 / np.asarray(found["ppv"]))}


def mean_metric(truth: np.ndarray, values: np.ndarray, weights: np.ndarray | None = None) -> Metrics:
    """Return the mean of some values; the truth is not asked for."""
    means = mean_of(values[:, None], once(values) if weights is None else weights)[:, 0]
    return {"mean": float(means[0]) if weights is None else means}


def of_interval(predicted: pd.DataFrame) -> dict[str, Any]:
    """Return how often the conformal intervals hold the truth, and how wide they are on average."""
    known = predicted[predicted["interval_low"].notna()]
    if known.empty:
        return {}
    truth, subjects = known["truth"].to_numpy(float), known["subject"].to_numpy(str)
    held = ((known["interval_low"] <= truth) & (truth <= known["interval_high"])).to_numpy()
    widths = (known["interval_high"] - known["interval_low"]).to_numpy()
    width = intervals(resample(mean_metric, truth, widths, subjects))["mean"]
    return {"conformal": {"coverage": coverage(held, len(set(subjects))), "width": width}}


def of_classes(predicted: pd.DataFrame, classes: list[str]) -> dict[str, Any]:
    """Return decisions, calibration and conformal sets of the scans of folds to which something was fitted."""
    known = predicted[predicted[f"calibrated_{classes[0]}"].notna()]
    truth, subjects = truth_of(known, classes), known["subject"].to_numpy(str)
    people = len(set(subjects))
    result: dict[str, Any] = {}
    if len(classes) == 2:
        for name, column in (("youden", "at_threshold"), (f"sensitivity_{SENSITIVITY}", "at_sensitivity")):
            decided = (known[column] == classes[1]).to_numpy()
            cells = intervals(resample(decision_metrics, truth == 1, decided, subjects))
            result.setdefault("decisions", {})[name] = {"n": len(known), **with_exact(cells, truth, subjects)}
    result["calibration"] = {}
    for name, method in (("before", "network"), ("after", "calibrated")):
        probabilities = probabilities_of(known, method, classes)
        cells = intervals(resample(calibration_metrics, truth, probabilities, subjects))
        cells["ece"] = reflected(cells["ece"])
        table = reliability(truth, probabilities, subjects)
        result["calibration"][name] = {"n": len(known), **cells, "reliability": table}
    sets = [set(text.split("|")) for text in known["set"]]
    held = np.array([name in one for name, one in zip(known["truth"].astype(str), sets, strict=True)])
    sizes = intervals(resample(mean_metric, truth, np.array([len(one) for one in sets], float), subjects))["mean"]
    return {**result, "conformal": {"coverage": coverage(held, people), "size": sizes}}


def with_exact(cells: Mapping[str, Any], truth: np.ndarray, subjects: np.ndarray) -> dict[str, Any]:
    """Return metrics with the exact interval of shares that are 0 or 1: every resample of such a share is the same."""
    sides = {"accuracy": truth >= 0, "sensitivity": truth == 1, "specificity": truth == 0}
    exact = {}
    for name, scans in sides.items():
        cell, people = cells.get(name), len(set(subjects[scans]))
        if cell and people and cell["value"] in (0, 1) and cell["low"] == cell["high"]:
            exact[name] = exact_interval(cell["value"] * people, people)
    return {**cells, **exact}


def reflected(cell: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return a distance with its basic bootstrap interval: that of resamples is further from 0 than it, as a distance is."""
    value, low, high = cell["value"], cell["low"], cell["high"]
    if value is None or low is None or high is None:
        return dict(cell)
    return {"value": value, "low": max(0.0, 2 * value - high), "high": max(value, 2 * value - low)}


def reliability(truth: np.ndarray, probabilities: np.ndarray, subjects: np.ndarray) -> list[dict[str, Any]]:
    """Return for each tenth of the probabilities: from, to, n, believed (their mean), and the share that came true.

    And ``off``, whether both disagree, tested for all tenths together (Bonferroni).
    """
    believed, right = belief(truth, probabilities)
    rows = []
    filled = np.unique(bins := bins_of(believed))
    for number in filled:
        within = bins == number
        people = len(set(subjects[within]))
        hits, mean = float(right[within].mean()) * people, float(believed[within].mean())
        share, wide = exact_interval(hits, people), exact_interval(hits, people, 1 - 0.05 / len(filled))
        off = not (wide["low"] or 0) <= mean <= (wide["high"] or 0)
        edges = {"from": number / BINS, "to": (number + 1) / BINS}
        rows.append({**edges, "n": int(within.sum()), "believed": mean, **share, "off": off})
    return rows
