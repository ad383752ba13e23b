"""What is said of predictions: three numbers by hand, what is fitted to whom, what is found where something was planted."""

import json

import numpy as np
import pandas as pd
import pytest

from mriflow.base.errors import UserError
from mriflow.compare import compare
from mriflow.evaluation.calibration import (
    LEAST_VALIDATED,
    ON_OTHERS,
    ON_VALIDATION,
    apply_all,
    calibration_metrics,
    enough,
    fit,
    fit_all,
    fit_temperature,
    with_temperature,
)
from mriflow.evaluation.comparison import delong, delong_difference, differences_of, judge
from mriflow.evaluation.conformal import conformal_quantile, coverage, prediction_sets
from mriflow.evaluation.decisions import POINTS, curves_of, decision_metrics, threshold_of_sensitivity, youden_threshold
from mriflow.evaluation.failures import WORST, errors_and_quality, worst
from mriflow.evaluation.gaps import gaps_of
from mriflow.evaluation.long_table import long_table
from mriflow.evaluation.metrics import METHODS, intervals, regression_metrics, resample
from mriflow.evaluation.subgroups import groups_of, subgroups_of
from mriflow.evaluation.summary import reflected, reliability, summarise, values_of
from mriflow.tables.labels import OF_PREDICTIONS

ONE_SCAN_EACH = [f"p{i}" for i in range(4)]


def numbers(scans=90, folds=3, seed=0, shrink=0.7, **columns):
    """Predictions of an age, shrunk to the mean as those of networks are."""
    rng = np.random.default_rng(seed)
    truth = rng.uniform(20, 80, scans)
    table = pd.DataFrame({"id": [f"s{i:04d}" for i in range(scans)], "subject": [f"p{i:04d}" for i in range(scans)]})
    table = table.assign(site=np.resize(["North", "South"], scans), age=truth, fold=np.arange(scans) % folds, truth=truth)
    for number, method in enumerate(METHODS):
        table[method] = 50 + shrink * (truth - 50) + rng.normal(0, 4 + 2 * number, scans)
    return table.assign(correlation=rng.uniform(0.7, 1, scans), brain_ml=1400.0, scale=rng.normal(1, 0.1, scans), **columns)


def categories(classes, scans=90, folds=3, seed=0):
    """Predictions of a class, each method worse than the one before."""
    rng = np.random.default_rng(seed)
    truth = np.arange(scans) // folds % len(classes)
    about = numbers(scans, folds)[["id", "subject", "site", "age", "fold", "correlation", "scale"]]
    table = about.assign(truth=np.array(classes)[truth])
    for number, method in enumerate(METHODS):
        logits = rng.normal(0, 1, (scans, len(classes))) + (3 - 0.4 * number) * np.eye(len(classes))[truth]
        chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        table[method] = np.array(classes)[chances.argmax(1)]
        table[[f"{method}_{name}" for name in classes]] = chances
    return table


def test_a_guess_ranks_nobody_where_folds_differ_so_that_noise_is_not_better_than_it():
    """Leave-site-out: the share of the other sites' people is high where that of the site is low."""
    rng = np.random.default_rng(0)
    table = categories(["F", "M"], 180)
    share = table["fold"].map({0: 0.2, 1: 0.5, 2: 0.8}).to_numpy(float)
    table["truth"] = np.where(rng.random(180) < share, "M", "F")
    for method, of_m in (("trivial", 0.5 - (share - 0.5) / 2), ("network", rng.random(180))):
        table[f"{method}_F"], table[f"{method}_M"] = 1 - of_m, of_m
        table[method] = np.where(of_m > 0.5, "M", "F")
    found = summarise(table, table.iloc[:0], ["F", "M"], [], "")[1]
    assert found["trivial"]["auc"] == {"value": 0.5, "low": 0.5, "high": 0.5}
    assert found["trivial"]["average_precision"]["value"] == pytest.approx((table["truth"] == "M").mean())
    assert found["trivial"]["accuracy"]["value"] == pytest.approx((table["truth"] == table["trivial"]).mean())
    [row] = [one for one in found["differences"] if (one["other"], one["metric"]) == ("trivial", "auc")]
    assert row["verdict"] == "cannot be told" and row["delong_low"] < 0 < row["delong_high"]
    ages = numbers(90).assign(truth=lambda rows: rows["fold"] * 10.0 + 40, trivial=lambda rows: 60 - rows["fold"] * 5.0)
    assert summarise(ages, ages.iloc[:0], None, [], "years")[1]["trivial"]["r"]["value"] is None


# Three numbers by hand
def test_delong_by_hand():
    """Positive scans score 3 and 1, the others 2 and 0: three of four pairs are right.

    Of the positive, 3 is above both others and 1 above one (1, 1/2); of the others, 2 is below one and 0 below both (1/2, 1).
    Each pair has the variance 1/8, and each counts over its two scans: 1/8 / 2 + 1/8 / 2.
    """
    positive, scores = np.array([True, True, False, False]), np.array([[3.0, 1, 2, 0]])
    aucs, covariance = delong(positive, scores, ONE_SCAN_EACH)
    assert (aucs[0], covariance[0, 0]) == (0.75, pytest.approx(1 / 8))
    twice = delong(np.tile(positive, 2), np.tile(scores, 2), ONE_SCAN_EACH * 2)
    assert twice[0][0] == 0.75 and twice[1][0, 0] == pytest.approx(1 / 8), "the same scan twice tells nothing more"


def test_conformal_half_width_by_hand():
    """Of nine errors, 1 to 9, the ceil(10 x 0.9) = 9th; of eight there is no 9th, and any width might be too small."""
    table = pd.DataFrame({"truth": np.zeros(9), "network": [-1, 2, -3, 4, -5, 6, -7, 8, -9.0], "subject": list("abcdefghi")})
    assert fit(table.assign(truth=np.linspace(0, 1e-9, 9)), None)["half_width"]["0.9"] == pytest.approx(9)
    assert fit(table.head(8).assign(truth=np.linspace(0, 1e-9, 8)), None)["half_width"]["0.9"] is None


def test_conformal_intervals_hold_the_truth_of_new_people_also_where_some_have_many_scans():
    rng, held = np.random.default_rng(0), []
    for _ in range(400):
        scans = rng.integers(1, 9, 40)
        person = np.repeat(np.arange(40), scans)
        errors = np.abs(rng.normal(size=40)[person] + 0.2 * rng.normal(size=len(person)))
        new = np.abs(rng.normal(size=200) + 0.2 * rng.normal(size=200))
        held.append((new <= conformal_quantile(errors, person)).mean())
    assert 0.9 - 0.01 < np.mean(held) < 0.93


def test_scans_of_few_people_are_not_fitted_to():
    ten = numbers(60).assign(subject=np.resize([f"s{n}" for n in range(5)], 60))
    assert not enough(ten, None) and enough(ten.assign(subject=[f"s{n}" for n in range(60)]), None)


def test_calibration_by_hand():
    """Four scans, each in a bin of its own: gaps .05, .85, .15 and .05, on average .275; squares on average .1875."""
    second = np.array([0.95, 0.85, 0.15, 0.05])
    found = calibration_metrics(np.array([1, 0, 0, 0]), np.stack([1 - second, second], 1))
    assert (found["ece"], found["brier"]) == (pytest.approx(0.275), pytest.approx(0.1875))


def test_temperature_by_hand():
    """Sure by .9 (a logit of log 9), right three times in four (log 3, half of it): the temperature is 2."""
    truth = np.resize([1, 1, 1, 0], 4000)
    assert fit_temperature(truth, np.tile([0.1, 0.9], (4000, 1))) == pytest.approx(2, abs=0.01)
    assert with_temperature(np.array([[0.1, 0.9]]), 2)[0, 1] == pytest.approx(0.75)
    right = np.tile([0.1, 0.9], (12, 1))
    assert 0.3 < fit_temperature(np.ones(12, int), right) < 1, "twelve scans that are right are no proof of certainty"


# Nothing is fitted to a fold's own test part
@pytest.mark.parametrize("classes", [None, ["F", "M"]])
@pytest.mark.parametrize("validated", [False, True])
def test_what_is_fitted_to_a_fold_does_not_know_its_test_part(classes, validated):
    predicted = numbers() if classes is None else categories(classes)
    validation = (numbers(60, seed=1) if classes is None else categories(classes, 60, seed=1)).iloc[: 60 if validated else 0]
    before = fit_all(predicted, validation, classes)
    assert before["fitted_on"].startswith(ON_VALIDATION if validated else ON_OTHERS)
    assert sorted(before["folds"]) == ["0", "1", "2"]
    altered = predicted.copy()
    own = altered["fold"] == 0
    altered.loc[own, "truth"] = 99.0 if classes is None else altered.loc[own, "truth"].map({"F": "M", "M": "F"})
    after = fit_all(altered, validation, classes)
    assert after["folds"]["0"] == before["folds"]["0"]
    assert (after["folds"]["1"] == before["folds"]["1"]) == validated
    assert after["new"] != before["new"]


def test_a_person_tested_in_two_folds_is_not_fitted_to_for_either():
    predicted = numbers()
    predicted.loc[predicted["id"] == "s0001", "subject"] = "p0000"  # of fold 1, the same person as s0000 of fold 0
    fits = fit_all(predicted, predicted.iloc[:0], None)["folds"]
    assert [fits[fold]["n"] for fold in "012"] == [59, 59, 60]


def test_too_few_validation_scans_are_not_fitted_to_and_a_single_fold_says_so():
    predicted = numbers(folds=1)
    few = fit_all(predicted, numbers(LEAST_VALIDATED - 1, 1), None)
    assert few["folds"] == {} and few["fitted_on"].startswith("No fold") and few["new"]["n"] == 90
    assert fit_all(predicted, numbers(LEAST_VALIDATED, 1), None)["folds"]["0"]["n"] == LEAST_VALIDATED
    _, found, _ = summarise(predicted, predicted.iloc[:0], None, [], "years")
    assert "conformal" not in found and set(found["gap"]) == {"raw"}


def test_the_calibration_that_predict_reads_has_its_keys():
    fitted = fit_all(numbers(), numbers(60, seed=1), None)
    assert list(fitted) == ["type", "fitted_on", "folds", "new"]
    assert set(fitted["new"]) == {"n", "slope", "intercept", "half_width"} and set(fitted["new"]["half_width"]) == {"0.9"}
    fitted = fit_all(categories(["F", "M"]), categories(["F", "M"], 60), ["F", "M"])
    assert fitted["classes"] == ["F", "M"] and fitted["type"] == "classification"
    assert set(fitted["new"]) == {"n", "temperature", "threshold", "threshold_at_sensitivity", "conformal"}
    many = fit_all(categories(list("abc")), categories(list("abc"), 60), list("abc"))
    assert set(many["new"]) == {"n", "temperature", "conformal"}


# Of numbers
def test_the_gap_is_told_raw_and_corrected():
    predicted = numbers(300, shrink=0.6)
    gaps = gaps_of(apply_all(predicted, fit_all(predicted, predicted.iloc[:0], None)))
    assert gaps["raw"]["slope"]["value"] == pytest.approx(-0.4, abs=0.05) and gaps["raw"]["slope"]["high"] < 0
    assert gaps["corrected"]["slope"]["low"] < 0 < gaps["corrected"]["slope"]["high"]
    residual = predicted["network"] - predicted["truth"]
    assert gaps["raw"]["upper_limit"]["value"] == pytest.approx(residual.mean() + 1.96 * residual.std())


def test_ninety_percent_intervals_hold_the_truth_nine_times_in_ten():
    rng = np.random.default_rng(0)
    held = []
    for _ in range(300):
        errors, new = np.abs(rng.standard_t(3, 40)), np.abs(rng.standard_t(3, 200))
        held.append((new <= conformal_quantile(errors, np.arange(len(errors)))).mean())
    assert np.mean(held) == pytest.approx(37 / 41, abs=0.01)  # the 37th of 40: what theory says, and no less than 0.9
    predicted = numbers(600)
    _, found, _ = summarise(predicted, predicted.iloc[:0], None, [], "years")
    cell = found["conformal"]["coverage"]
    assert cell["low"] <= 0.9 <= cell["high"] and cell["n"] == 600


def test_coverage_counts_people_not_scans():
    once, twice = coverage(np.arange(20) < 18, 20), coverage(np.arange(40) < 36, 20)
    assert (once["value"], once["low"], once["high"]) == pytest.approx((twice["value"], twice["low"], twice["high"]))


# Of classes
def test_thresholds_and_decisions():
    positive, scores = np.array([False, False, True, False, True, True]), np.array([0.1, 0.2, 0.3, 0.4, 0.8, 0.9])
    assert youden_threshold(positive, scores) == pytest.approx(0.6)
    assert threshold_of_sensitivity(positive, scores, 0.9) == 0.3
    found = decision_metrics(positive, scores >= 0.3)
    assert found == {"sensitivity": 1, "specificity": pytest.approx(2 / 3), "ppv": 0.75, "npv": 1}


def test_sets_always_hold_the_likeliest_class_and_all_if_nothing_is_known():
    chances = np.array([[0.5, 0.3, 0.2], [0.34, 0.33, 0.33]])
    assert prediction_sets(chances, 0.75).tolist() == [[True, True, False], [True, True, True]]
    assert prediction_sets(chances, 0.1).sum(1).tolist() == [1, 1]
    assert prediction_sets(chances, None).all()


def test_curves_have_at_most_two_hundred_points_from_end_to_end():
    table = categories(["F", "M"], 3000)
    curves = curves_of({"network": values_of(table, "network", ["F", "M"])}, ["F", "M"])
    assert set(curves["curve"]) == {"roc", "precision-recall"} and set(curves["class"]) == {"M"}
    assert curves.groupby("curve").size().max() <= POINTS
    roc = curves[curves["curve"] == "roc"]
    assert (roc[["x", "y"]].iloc[0].tolist(), roc[["x", "y"]].iloc[-1].tolist()) == ([0, 0], [1, 1])


def test_several_classes_are_each_told_from_the_rest():
    table = categories(list("abc"), 150)
    _, found, _ = summarise(table, table.iloc[:0], list("abc"), ["site"], "")
    each = found["one_against_rest"]["classes"]
    assert found["one_against_rest"]["macro"]["auc"]["value"] == pytest.approx(found["network"]["auc"]["value"])
    assert found["one_against_rest"]["macro"]["sensitivity"]["value"] == pytest.approx(
        found["network"]["balanced_accuracy"]["value"]
    )
    assert {name: one["n"] for name, one in each.items()} == {"a": 51, "b": 51, "c": 48}


# Comparisons
def test_delong_rejects_equal_methods_one_time_in_twenty_and_agrees_with_the_bootstrap():
    rng = np.random.default_rng(0)
    rejected, repeats, subjects = 0, 400, [f"p{i}" for i in range(80)]
    for _ in range(repeats):
        positive = np.arange(80) < 40
        common = positive + rng.normal(0, 1, 80)
        found = delong_difference(positive, common + rng.normal(0, 1, 80), common + rng.normal(0, 1, 80), subjects)
        rejected += found["p"] < 0.05
    assert 0.02 < rejected / repeats < 0.09
    table = categories(["F", "M"], 300)
    _, metrics, _ = summarise(table, table.iloc[:0], ["F", "M"], [], "")
    row = next(one for one in metrics["differences"] if (one["other"], one["metric"]) == ("trivial", "auc"))
    assert row["test"] == "DeLong" and row["verdict"] == "better" and "higher than that of trivial" in row["sentence"]
    assert row["delong_high"] - row["delong_low"] == pytest.approx(row["high"] - row["low"], rel=0.15)


def test_p_of_few_people_is_not_too_small():
    told = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        truth = rng.uniform(20, 80, 10)
        methods = {name: truth + rng.normal(0, 8, 10) for name in "ab"}
        found = {name: (resample(regression_metrics, truth, made, range(10)), made) for name, made in methods.items()}
        [row] = differences_of(found, [("a", "b")], truth, range(10), None)
        told += row["p"] < 0.05
    assert told / 300 < 0.085, "0.099 with a normal distribution"


def test_an_auc_of_few_people_of_a_class_has_no_p_and_a_perfect_one_is_better_than_a_guess():
    rng = np.random.default_rng(0)
    few = delong_difference(np.arange(40) < 3, rng.normal(size=40), rng.normal(size=40), list(range(40)))
    assert few["p"] is None and few["test"] == "none: fewer than 10 people of a class"
    positive = np.arange(40) < 20
    perfect = delong_difference(positive, positive + 0.0, np.zeros(40), list(range(40)))
    assert perfect["p"] < 1e-6


def test_of_groups_with_few_people_of_a_class_no_auc_is_compared():
    table = categories(["F", "M"], 120).assign(site=["A"] * 100 + ["B"] * 20)
    table.loc[table["site"] == "B", "truth"] = ["F"] * 15 + ["M"] * 5
    rows = subgroups_of(table, ["site"], *values_of(table, "network", ["F", "M"]), ["F", "M"])
    of_b = {row["metric"]: row for row in rows if row["group"] == "B"}
    of_a = {row["metric"]: row for row in rows if row["group"] == "A"}
    assert of_a["auc"]["difference"] is None and of_a["auc"]["note"] == "too few to compare AUCs, others: 5 M"
    assert of_a["accuracy"]["difference"] and of_b["auc"]["value"] is not None


def test_a_share_that_is_whole_has_the_exact_interval():
    table = categories(["F", "M"], 60)
    table["network_M"] = (table["truth"] == "M").astype(float)
    table["network_F"], table["network"] = 1 - table["network_M"], table["truth"]
    _, found, _ = summarise(table, table.iloc[:0], ["F", "M"], [], "")
    assert found["network"]["accuracy"]["value"] == 1 and 0.93 < found["network"]["accuracy"]["low"] < 0.95


def test_well_calibrated_probabilities_are_seldom_said_to_be_off_and_the_error_lies_in_its_interval():
    off = outside = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        chance = rng.uniform(0.02, 0.98, 145)
        truth, both = (rng.uniform(size=145) < chance).astype(int), np.stack([1 - chance, chance], 1)
        off += any(row["off"] for row in reliability(truth, both, np.arange(145)))
        cell = reflected(intervals(resample(calibration_metrics, truth, both, range(145)))["ece"])
        outside += not cell["low"] <= cell["value"] <= cell["high"]
    assert off <= 7 and outside == 0


def test_many_comparisons_ask_for_more():
    row = {"method": "a", "other": "b", "metric": "mae", "people": 100, "unit": "years", "value": -1.0, "low": -2, "high": -0.2}
    [alone] = judge([row | {"p": 0.01}])
    assert alone["verdict"] == "better" and alone["p_holm"] == 0.01
    among = judge([row | {"p": 0.01}, *(row | {"p": 0.9} for _ in range(5))])[0]
    assert among["verdict"] == "cannot be told" and among["p_holm"] == pytest.approx(0.06)
    assert "−2 to −0.2 years" in among["sentence"] and "6 comparisons are corrected for" in among["sentence"]


def write_experiment(folder, name, table, **about):
    folder.mkdir(parents=True, exist_ok=True)
    cell = {"value": 1.0, "low": 0.5, "high": 1.5}
    result = {"experiment": name, "dataset": "D", "target": "age", "type": "regression", "unit": "years", "n": len(table)}
    result |= {"n_excluded": 0, "folds": 3, "simulated": True, "seeds": [0]} | about
    result |= {method: {"mae": cell} for method in ("network", "classical", "trivial")}
    (folder / f"{name}.json").write_text(json.dumps(result))
    table.to_csv(folder / f"{name}.csv", index=False)
    return folder / f"{name}.csv", folder / f"{name}.json"


def test_experiments_are_compared_on_the_scans_that_both_have_tested(tmp_path):
    good = numbers(200)
    bad = good.assign(network=good["truth"] + 1.5 * (good["network"] - good["truth"])).iloc[50:].sample(frac=1, random_state=0)
    few = good.iloc[:9]
    files = [write_experiment(tmp_path, *one) for one in (("good", good), ("bad", bad), ("few", few))]
    files.append(write_experiment(tmp_path, "other", good, target="height"))
    found = compare(tmp_path / "c.csv", predictions=[one for one, _ in files], metrics=[one for _, one in files])
    assert found[["experiment", "other", "n"]].to_numpy().tolist() == [
        ["good", "bad", 150],
        ["good", "few", 9],
        ["bad", "few", 0],
    ]
    both = good.iloc[50:]
    assert found["value"][0] == pytest.approx(-0.5 * (both["network"] - both["truth"]).abs().mean())
    assert found["verdict"].tolist() == ["better", "cannot be told", "cannot be told"]
    assert found["sentence"][0].startswith("The MAE of good is") and found["sentence"][1].startswith("Too few: 9 people")
    assert found[["value", "p"]].iloc[1:].isna().all(axis=None)
    with pytest.raises(UserError, match="no two of these share dataset and target"):
        compare(tmp_path / "c.csv", predictions=[files[0][0], files[3][0]], metrics=[files[0][1], files[3][1]])


# Subgroups
def test_a_group_that_differs_is_found_and_small_ones_have_no_numbers():
    table = numbers(200, handedness=np.resize(["left", *["right"] * 24], 200))
    table.loc[table["site"] == "South", "network"] += 6
    truth, values = values_of(table, "network", None)
    rows = subgroups_of(table, ["site", "age", "handedness"], truth, values, None)
    of = {(row["column"], row["group"], row["metric"]): row for row in rows}
    south = table["site"] == "South"
    north = of["site", "North", "bias"]
    assert north["value"] == pytest.approx((values - truth)[~south].mean()) and north["n"] == 100
    assert north["difference"]["verdict"] == "differs" and north["difference"]["high"] < -3
    assert of["site", "South", "bias"]["difference"] is None, "the same test is made once"
    left = of["handedness", "left", "mae"]
    assert left["value"] is None and left["note"] == "too few: 8 people, fewer than 10"
    bands = [group for column, group, metric in of if column == "age" and metric == "mae"]
    assert bands == ["below 30", "30 to 40", "40 to 50", "50 to 60", "60 to 70", "70 or more"]
    assert sum(of["age", band, "mae"]["n"] for band in bands) == 200


def test_a_group_of_no_difference_is_rarely_said_to_differ():
    said = 0
    for seed in range(40):
        table = numbers(80, seed=seed)
        rows = subgroups_of(table, ["site"], *values_of(table, "network", None), None)
        said += any(row["difference"] and row["difference"]["verdict"] == "differs" for row in rows)
    assert said <= 6


def test_groups_are_values_bands_and_what_is_not_known():
    codes = pd.Series([1.0, 2, 1, np.nan])
    assert [(name, scans.tolist()) for name, scans in groups_of(codes)] == [
        ("1", [True, False, True, False]),
        ("2", [False, True, False, False]),
        ("not known", [False, False, False, True]),
    ]
    assert list(groups_of(pd.Series(["A", "A"]))) == [] and list(groups_of(pd.Series(["", ""]))) == []
    skewed = pd.Series([*np.linspace(0.001, 0.002, 50), 1000.0])
    assert sum(scans.sum() for _, scans in groups_of(skewed)) == 51


def test_a_column_of_very_many_groups_says_so():
    table = numbers(100)
    [row] = subgroups_of(table, ["id"], *values_of(table, "network", None), None)
    assert "100 groups, more than 30" in row["note"] and "metric" not in row


# Failures
def test_the_worst_scans_and_what_their_quality_has_to_do_with_it():
    table = numbers(120)
    errors = np.random.default_rng(0).normal(0, 1, 120) * (1 - table["correlation"].to_numpy()) * 30
    found = worst(table, errors)
    assert len(found) == WORST and found["error"].abs().is_monotonic_decreasing
    assert found["id"].iloc[0] == table["id"][np.abs(errors).argmax()]
    of = {one["measure"]: one for one in errors_and_quality(table, errors)}
    expected = pd.Series(np.abs(errors)).corr(table["correlation"], method="spearman")
    assert of["correlation"]["value"] == pytest.approx(expected) and of["correlation"]["high"] < 0
    assert of["scale"]["low"] < 0 < of["scale"]["high"] and of["brain_ml"]["value"] is None


# All together
def numbers_of(result):
    """Yield every value with an interval of a metrics.json, whatever it is called."""
    if isinstance(result, list):
        for one in result:
            yield from numbers_of(one)
    elif isinstance(result, dict):
        if {"value", "low", "high"} <= result.keys():
            yield result["value"], result["low"], result["high"]
            if "delong_low" in result:
                yield result["value"], result["delong_low"], result["delong_high"]
        for one in result.values():
            yield from numbers_of(one)


@pytest.mark.parametrize("classes", [None, ["F", "M"], ["a", "b", "c"]])
def test_every_number_of_the_csv_is_that_of_the_json(classes, tmp_path):
    predicted = numbers() if classes is None else categories(classes)
    for seed in (0, 1):
        for column in [column for column in predicted if column.split("_")[0] == "network"]:
            predicted[column.replace("network", f"seed-{seed}")] = predicted[column]
    _, found, _ = summarise(predicted, predicted.iloc[:0], classes, ["site", "age"], "")
    result = json.loads(json.dumps({"n": len(predicted), **found}, allow_nan=False))
    assert set(result["single_seeds"]) == {"0", "1"}
    assert {name: cell["value"] for name, cell in result["single_seeds"]["1"].items()} == {
        name: cell["value"] for name, cell in result["network"].items()
    }
    long_table(result).to_csv(tmp_path / "metrics.csv", index=False)
    table = pd.read_csv(tmp_path / "metrics.csv")
    assert not table.duplicated(["part", "method", "group", "metric"]).any()
    assert (table["n"] > 0).all()
    table = table[table["metric"] != "believed"]
    written = [tuple(None if np.isnan(x) else x for x in row) for row in table[["value", "low", "high"]].to_numpy()]
    key = lambda row: [(x is None, x or 0) for x in row]  # noqa: E731
    assert sorted(written, key=key) == sorted(numbers_of(result), key=key)


def test_pooled_and_mean_of_folds_differ_where_networks_differ_in_level():
    table = categories(["F", "M"], 300)
    first = table["fold"] == 0
    shifted = 1 / (1 + np.exp(-(np.log(table.loc[first, "network_M"] / table.loc[first, "network_F"]) + 4)))
    table.loc[first, "network_M"], table.loc[first, "network_F"] = shifted, 1 - shifted
    _, found, _ = summarise(table, table.iloc[:0], ["F", "M"], [], "")
    folds = [found["by_fold"]["folds"][fold]["network"]["auc"]["value"] for fold in "012"]
    assert found["by_fold"]["mean"]["network"]["auc"]["value"] == pytest.approx(np.mean(folds))
    assert found["network"]["auc"]["value"] < np.mean(folds) - 0.02
    assert "Pooled" in found["by_fold"]["why"]


def test_twice_the_people_and_a_null_result_are_told():
    table = numbers(100)
    power = summarise(table, table.iloc[:0], None, [], "years")[1]["power"]
    assert power["width_at_twice"] == pytest.approx(power["width"] / 2**0.5)
    assert "twice the people (200)" in power["sentences"][0] and "do not call the methods equal" in power["sentences"][1]


def test_methods_are_no_names_of_groups():
    assert set(METHODS) <= OF_PREDICTIONS


def test_differences_carry_people_and_unit():
    table = numbers(60)
    truth, values = values_of(table, "network", None)
    subjects = table["subject"].to_numpy(str)
    scored = {"a": (resample(regression_metrics, truth, values, subjects), values)}
    [row] = differences_of(scored | {"b": scored["a"]}, [("a", "b")], truth, subjects, None, "years")
    assert (row["people"], row["unit"], row["value"], row["p"]) == (60, "years", 0, None)
