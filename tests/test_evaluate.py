import json
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from conftest import training_settings, write_dataset
from mriflow.base.errors import UserError
from mriflow.evaluate import evaluate
from mriflow.evaluation.baselines import classical, small_images, trivial
from mriflow.evaluation.metrics import RESAMPLES, classification_metrics, regression_metrics, with_intervals
from mriflow.split import split
from mriflow.train import train

TARGETS = {
    "age": {"column": "age", "type": "regression", "unit": "years"},
    "sex": {"column": "sex", "type": "classification", "unit": "", "classes": {"F": "Females", "M": "Males"}},
}
NETWORK = {"name": "SFCN", "arguments": {"channels": [4, 8, 8], "dropout": 0.0}}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Both targets, split, trained for a few epochs with two seeds, and evaluated."""
    folder = tmp_path_factory.mktemp("evaluate")
    files = write_dataset(folder / "data", subjects=30)
    training = training_settings(epochs=25, learning_rate=0.02, seeds=[0, 1], augmentation={"mirror": 0})
    found = {"files": files, "folder": folder}
    for name, target in TARGETS.items():
        splits = folder / name / "splits.csv"
        classes = list(target.get("classes", [])) or None
        split(files["labels"], splits, target=target["column"], classes=classes, folds=3)
        models = []
        for fold in range(3):
            for seed in (0, 1):
                out = folder / name / f"fold-{fold}_seed-{seed}"
                models.append(out / "model.pt")
                train(
                    models[-1], out / "history.csv", out / "work", **files, splits=splits, fold=fold, seed=seed,
                    target=target, network=NETWORK, training=training,
                )  # fmt: skip
        settings = {"experiment": name, "dataset": {"title": "Test"}, "names": {"target": name}, "target": target}
        (folder / name / "settings.json").write_text(json.dumps(settings | {"training": training}))
        found[name] = {"models": models, "splits": splits, "settings": folder / name / "settings.json"}
        evaluate(folder / name / "p.csv", folder / name / "m.json", **files, **found[name])
    return found


def results(made, name):
    folder = made["folder"] / name
    return pd.read_csv(folder / "p.csv"), json.loads((folder / "m.json").read_text())


@pytest.mark.parametrize("name", ["age", "sex"])
def test_every_scan_is_predicted_once_and_every_figure_has_an_interval(made, name):
    predictions, metrics = results(made, name)
    assert predictions["id"].is_unique
    assert metrics["n"] == len(predictions) == 30
    for method in ("network", "trivial", "classical"):
        for figure, cell in metrics[method].items():
            assert set(cell) == {"value", "low", "high"}
            if cell["low"] is not None and figure not in ("r2", "rmse"):
                assert cell["low"] <= cell["value"] <= cell["high"], (method, figure)
    assert metrics["provenance"]["versions"]["torch"] == torch.__version__
    assert metrics["provenance"]["settings"]["training"]["epochs"] == 25


def test_network_and_classical_beat_the_trivial_guess_where_the_image_tells_the_label(made):
    _, age = results(made, "age")
    assert age["network"]["mae"]["value"] < 0.6 * age["trivial"]["mae"]["value"]
    assert age["classical"]["mae"]["value"] < 0.6 * age["trivial"]["mae"]["value"]
    _, sex = results(made, "sex")
    assert sex["classical"]["auc"]["value"] > 0.9
    assert np.trace(sex["confusion"]) / 30 == pytest.approx(sex["network"]["accuracy"]["value"])


def test_figures_stand_on_the_predictions_that_are_written(made):
    predictions, metrics = results(made, "age")
    mae = (predictions["network"] - predictions["truth"]).abs().mean()
    assert metrics["network"]["mae"]["value"] == pytest.approx(mae)
    predictions, metrics = results(made, "sex")
    assert (predictions["network"] == predictions["truth"]).mean() == pytest.approx(metrics["network"]["accuracy"]["value"])
    assert (predictions["network_F"] + predictions["network_M"]).to_numpy() == pytest.approx(1)


def test_no_baseline_sees_the_labels_of_the_test_part(made, tmp_path):
    """Labels of one fold's test part are scrambled: what is predicted for that fold does not change."""
    files, age = made["files"], made["age"]
    splits = pd.read_csv(age["splits"])
    tested = splits.loc[(splits["fold"] == 0) & (splits["part"] == "test"), "id"]
    labels = pd.read_csv(files["labels"])
    chosen = labels["id"].isin(tested)
    labels.loc[chosen, "age"] = labels.loc[chosen, "age"].to_numpy()[::-1] + 100
    labels.to_csv(tmp_path / "labels.csv", index=False)
    evaluate(tmp_path / "p.csv", tmp_path / "m.json", **{**files, "labels": tmp_path / "labels.csv"}, **age)
    before, after = (p[p["fold"] == 0].set_index("id") for p in (results(made, "age")[0], pd.read_csv(tmp_path / "p.csv")))
    for method in ("network", "trivial", "classical"):
        assert after[method].to_numpy() == pytest.approx(before[method].to_numpy()), method


def test_a_fold_without_a_model_is_told(made, tmp_path):
    age = {**made["age"], "models": made["age"]["models"][2:]}
    with pytest.raises(UserError, match="none of the 4 models is of fold 0"):
        evaluate(tmp_path / "p.csv", tmp_path / "m.json", **made["files"], **age)
    assert not (tmp_path / "m.json").exists()


def test_scan_that_failed_preprocessing_is_counted(made, tmp_path):
    index = pd.read_csv(made["files"]["indices"][0], dtype={"index": "Int64", "problem": str})
    volumes = np.load(made["files"]["arrays"][0])
    index.loc[29, ["index", "problem"]] = [pd.NA, "scan: constant"]
    index.to_csv(tmp_path / "s.csv", index=False)
    np.save(tmp_path / "s.npy", volumes[:29])
    files = {**made["files"], "arrays": [tmp_path / "s.npy"], "indices": [tmp_path / "s.csv"]}
    metrics = evaluate(tmp_path / "p.csv", tmp_path / "m.json", **files, **made["age"])
    assert (metrics["n"], metrics["n_excluded"]) == (29, 1)


def test_same_input_same_bytes(made, tmp_path):
    evaluate(tmp_path / "p.csv", tmp_path / "m.json", **made["files"], **made["age"])
    assert (tmp_path / "p.csv").read_bytes() == (made["folder"] / "age/p.csv").read_bytes()
    assert (tmp_path / "m.json").read_bytes() == (made["folder"] / "age/m.json").read_bytes()


def test_regression_figures_are_the_known_ones():
    truth = np.array([20.0, 40, 60, 80])
    guess = regression_metrics(truth, np.full(4, 50.0))
    assert (guess["mae"], guess["slope"], guess["r2"]) == (20, pytest.approx(-1), 0)
    assert np.isnan(guess["r"])
    perfect = regression_metrics(truth, truth + 1)
    assert (perfect["mae"], perfect["rmse"], perfect["r"]) == (1, 1, pytest.approx(1))
    assert perfect["slope"] == pytest.approx(0, abs=1e-9)


def test_classification_figures_are_the_known_ones():
    truth = np.array([0, 0, 0, 1])
    chances = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])
    figures = classification_metrics(truth, chances)
    assert figures["accuracy"] == 0.75
    assert figures["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert figures["sensitivity"] == 1
    assert figures["specificity"] == pytest.approx(2 / 3)
    assert figures["auc"] == pytest.approx(2 / 3)


def test_interval_covers_the_truth_as_often_as_it_says(monkeypatch):
    monkeypatch.setattr("mriflow.evaluation.metrics.RESAMPLES", 200)
    rng = np.random.default_rng(0)
    covered = 0
    for repeat in range(60):
        errors = rng.normal(size=50)
        truth = rng.uniform(20, 80, 50)
        found = with_intervals(regression_metrics, truth, truth + errors, range(50), seed=repeat)["mae"]
        covered += found["low"] <= np.sqrt(2 / np.pi) <= found["high"]
    assert 51 <= covered < 60


def test_two_scans_of_a_subject_are_not_two_observations():
    rng = np.random.default_rng(0)
    truth = rng.uniform(20, 80, 40)
    predicted = truth + rng.normal(size=40) * 5
    alone = with_intervals(regression_metrics, truth, predicted, range(40))["mae"]
    twice = with_intervals(regression_metrics, np.repeat(truth, 2), np.repeat(predicted, 2), np.repeat(range(40), 2))["mae"]
    as_if = with_intervals(regression_metrics, np.repeat(truth, 2), np.repeat(predicted, 2), range(80))["mae"]
    width = lambda cell: cell["high"] - cell["low"]  # noqa: E731
    assert width(twice) == pytest.approx(width(alone), rel=0.05)
    assert width(as_if) < 0.85 * width(alone)


@pytest.mark.parametrize("people", [60, 20])
def test_intervals_are_those_of_whole_subjects_drawn_one_by_one(people):
    rng = np.random.default_rng(0)
    truth = rng.uniform(20, 80, 60)
    predicted = truth + rng.normal(size=60) * 5
    subjects = rng.permutation(60) % people
    found = with_intervals(regression_metrics, truth, predicted, subjects, seed=7)["mae"]
    draws, rng = [], np.random.default_rng(7)
    for _ in range(RESAMPLES):
        scans = np.concatenate([np.flatnonzero(subjects == one) for one in rng.integers(0, people, people)])
        draws.append(np.abs(predicted[scans] - truth[scans]).mean())
    assert [found["low"], found["high"]] == pytest.approx(np.percentile(draws, [2.5, 97.5]), abs=1e-12)


def test_trivial_is_the_median_or_the_shares():
    assert trivial(np.array([10, 20, 90]), None, 2).tolist() == [20, 20]
    assert trivial(np.array(["F", "M", "M", "M"]), ["F", "M"], 1).tolist() == [[0.25, 0.75]]


def test_classical_gives_probabilities_in_the_order_of_the_classes():
    rng = np.random.default_rng(0)
    labels = np.array(["M", "F"] * 15)
    features = rng.normal(size=(30, 50)) + 3 * (labels == "M")[:, None]
    chances = classical(features, labels, features[:2], ["F", "M"])
    assert chances[0, 1] > 0.8
    assert chances[1, 0] > 0.8


def test_classical_sees_images_of_about_forty_voxels():
    assert small_images([np.zeros((160, 192, 160), np.uint8)]).shape == (1, 40 * 48 * 40)
    assert small_images([np.full((40, 48, 40), 255, np.uint8)]).max() == 1


def test_classical_with_too_few_of_a_class_is_the_trivial_guess():
    labels = np.array(["0"] * 8 + ["1"] * 2)
    features = np.random.default_rng(0).normal(size=(10, 20))
    assert classical(features, labels, features[:1], ["0", "1"]).tolist() == [[0.8, 0.2]]


def test_a_target_that_is_the_same_for_all_has_no_r2():
    with warnings.catch_warnings(action="error"):
        metrics = with_intervals(regression_metrics, np.full(6, 30.0), np.arange(6.0), list("abcdef"))
    assert [metrics[name]["value"] for name in ("r2", "r", "slope")] == [None, None, None]
    assert metrics["r2"] == {"value": None, "low": None, "high": None}
    assert metrics["mae"]["value"] == 27.5
