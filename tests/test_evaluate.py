import json
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.ndimage import gaussian_filter
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.preprocessing import StandardScaler

from conftest import training_settings, write_dataset
from mriflow.base.errors import UserError
from mriflow.config.resolve import training_part
from mriflow.evaluate import evaluate, subgroup_columns
from mriflow.evaluation.baselines import (
    FLAT,
    classical,
    drawn,
    from_axes,
    pca,
    penalty_folds,
    small_images,
    standardised_kernels,
    trivial,
)
from mriflow.evaluation.comparison import difference, judge
from mriflow.evaluation.confounders import confounders_of, predict_from_confounders
from mriflow.evaluation.metrics import (
    METHODS,
    RESAMPLES,
    auc,
    classification_metrics,
    regression_metrics,
    resample,
    with_intervals,
)
from mriflow.evaluation.stacking import PRIOR, share_of_network
from mriflow.evaluation.tissue_baseline import morphometry_of, tissue
from mriflow.prediction import ensemble
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
    files = write_dataset(folder / "data", subjects=30, grey_matter=True)
    training = training_settings(epochs=25, learning_rate=0.02, seeds=[0, 1], augmentation={"mirror": 0})
    found = {"files": files, "folder": folder}
    for name, target in TARGETS.items():
        splits = folder / name / "splits.csv"
        classes = list(target.get("classes", [])) or None
        split(files["labels"], splits, target=target["column"], classes=classes, folds=3)
        settings = {"experiment": name, "dataset": {"title": "Test"}, "names": {"target": name}, "target": target}
        settings |= {"preprocess": {"registration": "affine", "channels": ["image", "gm"], "voxel_mm": 4}, "network": NETWORK}
        settings |= {"training": training, "auxiliary": [], "covariates": [], "impute": False}
        parts = {part: training_part(settings, part) for part in ("target", "inputs", "network", "training")}
        models = []
        for fold in range(3):
            for seed in (0, 1):
                out = folder / name / f"fold-{fold}_seed-{seed}"
                models.append(out / "model.pt")
                train(
                    models[-1], out / "history.csv", out / "warnings.json", out / "work", **files, splits=splits, fold=fold,
                    seed=seed, **parts,
                )  # fmt: skip
        (folder / name / "settings.json").write_text(json.dumps(settings))
        found[name] = {"models": models, "splits": splits, "settings": folder / name / "settings.json"}
        found[name]["warnings"] = [model.with_name("warnings.json") for model in models]
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
    for method in METHODS:
        for figure, cell in metrics[method].items():
            assert set(cell) == {"value", "low", "high"}
            if cell["low"] is not None and figure not in ("r2", "rmse"):
                assert cell["low"] <= cell["value"] <= cell["high"], (method, figure)
    assert {"age", "sex"} <= set(predictions.columns)
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


@pytest.mark.parametrize("name", ["age", "sex"])
def test_no_method_sees_the_labels_of_the_test_part(made, tmp_path, name):
    """Labels of one fold's test part are altered: what is predicted for that fold does not change."""
    files, experiment = made["files"], made[name]
    splits = pd.read_csv(experiment["splits"])
    tested = splits.loc[(splits["fold"] == 0) & (splits["part"] == "test"), "id"]
    labels = pd.read_csv(files["labels"])
    chosen = labels["id"].isin(tested)
    altered = labels.loc[chosen, "age"] + 100 if name == "age" else labels.loc[chosen, "sex"].map({"F": "M", "M": "F"})
    labels.loc[chosen, name] = altered
    labels.to_csv(tmp_path / "labels.csv", index=False)
    evaluate(tmp_path / "p.csv", tmp_path / "m.json", **{**files, "labels": tmp_path / "labels.csv"}, **experiment)
    before, after = (p[p["fold"] == 0].set_index("id") for p in (results(made, name)[0], pd.read_csv(tmp_path / "p.csv")))
    assert (before["truth"] != after["truth"]).all()
    for method in METHODS:
        column = method if name == "age" else f"{method}_M"
        assert after[column].to_numpy() == pytest.approx(before[column].to_numpy()), method


def test_differences_are_of_the_same_scans_and_say_what_they_mean(made):
    _, age = results(made, "age")
    pairs = [(one["method"], one["other"]) for one in age["differences"]]
    assert pairs == [*(("network", other) for other in METHODS[1:]), ("stacked", "tissue")]
    found = {(one["method"], one["other"]): one for one in age["differences"]}
    trivial = found["network", "trivial"]
    assert trivial["value"] == pytest.approx(age["network"]["mae"]["value"] - age["trivial"]["mae"]["value"])
    assert trivial["verdict"] == "better" and trivial["high"] < 0
    _, sex = results(made, "sex")
    assert {one["metric"] for one in sex["differences"]} == {"auc", "accuracy"}


def test_what_the_confounders_are_stands_in_the_metrics(made):
    assert results(made, "age")[1]["notes"]["confounders"] == "A linear model of sex."
    assert results(made, "sex")[1]["notes"]["confounders"] == "A linear model of age."


def test_without_a_validation_part_the_plain_mean_is_stacked_and_a_note_says_why(made, tmp_path):
    splits = pd.read_csv(made["age"]["splits"])
    splits.loc[(splits["fold"] == 1) & (splits["part"] == "validation"), "part"] = "train"
    splits.to_csv(tmp_path / "splits.csv", index=False)
    age = {**made["age"], "splits": tmp_path / "splits.csv"}
    metrics = evaluate(tmp_path / "p.csv", tmp_path / "m.json", **made["files"], **age)
    one = pd.read_csv(tmp_path / "p.csv").query("fold == 1")
    assert one["stacked"].to_numpy() == pytest.approx((one["network"] + one["tissue"]).to_numpy() / 2)
    assert metrics["notes"]["stacked"].endswith(" The plain mean in fold 1, which has no validation scans to learn it from.")
    assert metrics["classical"] == results(made, "age")[1]["classical"]


def test_scans_of_several_channels_are_evaluated(made, tmp_path):
    """All methods but the network, whose models here know one channel."""
    volumes = np.load(made["files"]["arrays"][0])
    features = small_images(list(np.stack([volumes, volumes // 2, 255 - volumes], axis=1)))
    assert features.shape == (30, 3 * volumes[0].size)
    assert features[:, : volumes[0].size] == pytest.approx(small_images(list(volumes)))
    labels = pd.read_csv(made["files"]["labels"])["age"].to_numpy()
    found = classical(features[:20], labels[:20], np.arange(20), features[20:], None)
    assert np.abs(found - labels[20:]).mean() < 0.5 * np.abs(labels[20:] - np.median(labels)).mean()


def test_each_model_is_loaded_once_and_seeds_stand_beside_their_mean(made, tmp_path, monkeypatch):
    loaded, load = [], torch.load
    monkeypatch.setattr(torch, "load", lambda path, **options: (loaded.append(path), load(path, **options))[1])
    monkeypatch.setattr("mriflow.prediction.ensemble.run_network", count := Counting(ensemble.run_network))
    evaluate(tmp_path / "p.csv", tmp_path / "m.json", **made["files"], **made["age"])
    # Each fold opens the models of all folds to see whose they are, and runs its own, each scan and its mirror image.
    assert sorted(loaded) == sorted(made["age"]["models"] * 3) and count.times == len(made["age"]["models"]) * 2
    predictions, metrics = results(made, "age")
    assert predictions["network"].to_numpy() == pytest.approx(predictions[["seed-0", "seed-1"]].mean(axis=1).to_numpy())
    mae = (predictions["seed-1"] - predictions["truth"]).abs().mean()
    assert metrics["single_seeds"]["1"]["mae"]["value"] == pytest.approx(mae)


class Counting:
    """A function that counts how often it is called."""

    def __init__(self, function):
        self.function, self.times = function, 0

    def __call__(self, *args, **options):
        self.times += 1
        return self.function(*args, **options)


@pytest.mark.parametrize("name", ["age", "sex"])
def test_what_stands_beside_the_metrics(made, name):
    folder = made["folder"] / name
    predictions, metrics = results(made, name)
    validated = pd.read_csv(folder / "validation-predictions.csv")
    splits = pd.read_csv(made[name]["splits"])
    parts = splits[splits["part"] == "validation"].merge(validated, on=["fold", "id"])
    assert len(parts) == len(validated) == (splits["part"] == "validation").sum() > 0
    assert {"truth", "network", "tissue", "seed-0", "correlation"} <= set(validated) <= set(predictions)
    calibration = json.loads((folder / "calibration.json").read_text())
    assert (calibration["experiment"], set(calibration["folds"])) == (name, {"0", "1", "2"})
    assert calibration["fitted_on"].startswith("Of each fold the test parts of the other folds"), "validation has 3 scans"
    assert metrics["notes"]["calibration"].startswith("Fitted on: of each fold")
    failures = pd.read_csv(folder / "failures.csv")
    assert len(failures) == 10 and {"id", "error", "image", "brain_ml"} <= set(failures)
    assert len(pd.read_csv(folder / "metrics.csv")) > 100
    assert pd.read_csv(folder / "curves.csv").empty == (name == "age")


def test_groups_of_the_config_are_looked_at(made, tmp_path):
    settings = json.loads(made["age"]["settings"].read_text()) | {"subgroups": ["sex"]}
    (tmp_path / "s.json").write_text(json.dumps(settings))
    age = {**made["age"], "settings": tmp_path / "s.json"}
    metrics = evaluate(tmp_path / "p.csv", tmp_path / "m.json", **made["files"], **age)
    assert {(one["column"], one["group"]) for one in metrics["subgroups"]} == {("sex", "F"), ("sex", "M")}
    assert {one["column"] for one in results(made, "age")[1]["subgroups"]} == {"sex", "age"}, "the one site is no group"
    assert {one["column"] for one in results(made, "sex")[1]["subgroups"]} == {"age"}


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


@pytest.mark.parametrize("classes", [2, 3])
def test_metrics_counted_by_hand_are_those_of_scikit_learn(classes):
    rng = np.random.default_rng(0)
    truth, chances = rng.permutation(np.arange(60) % classes), rng.dirichlet(np.ones(classes), 60).round(1)
    chances[:, 0] += 1 - chances.sum(1)
    wanted = roc_auc_score(truth, chances[:, 1] if classes == 2 else chances, multi_class="ovr")
    assert classification_metrics(truth, chances)["auc"] == pytest.approx(wanted)
    truth, predicted = rng.normal(size=(2, 50))
    assert regression_metrics(truth, predicted)["r2"] == pytest.approx(r2_score(truth, predicted))
    assert np.isnan(auc(np.ones(3), np.arange(3.0)))


def test_a_small_difference_is_told_if_the_methods_err_alike():
    """Both intervals overlap, but one method is better for nearly every scan."""
    rng = np.random.default_rng(0)
    truth = rng.uniform(20, 80, 100)
    errors = rng.normal(size=100) * 8
    better, worse = (resample(regression_metrics, truth, truth + k * errors, range(100)) for k in (0.95, 1))
    assert np.percentile(better.draws["mae"], 97.5) > np.percentile(worse.draws["mae"], 2.5)

    named = {"method": "a", "other": "b", "people": 100, "unit": ""}

    def verdict(one, other, metric):
        return judge([{**named, "metric": metric, **difference(one, other, metric, 100)}])[0]["verdict"]

    assert verdict(better, worse, "mae") == "better"
    assert verdict(worse, better, "mae") == "worse"
    assert verdict(better, better, "mae") == "cannot be told"


def test_a_difference_that_is_not_defined_cannot_be_told():
    truth = np.zeros(10)
    found = resample(regression_metrics, truth, truth + 1, range(10))
    assert difference(found, found, "r", 10) == {"value": None, "low": None, "high": None, "p": None, "test": "bootstrap"}
    named = {"method": "a", "other": "b", "people": 10, "unit": ""}
    [row] = judge([{**named, "metric": "mae", **difference(found, found, "r", 10)}])
    assert row["verdict"] == "cannot be told" and "not defined" in row["sentence"]


def test_a_difference_that_only_the_correction_leaves_untold_is_said_to_be_so():
    row = {"method": "network", "other": "pca", "metric": "mae", "people": 9, "unit": "years"}
    row |= {"value": -1.0, "low": -1.9, "high": -0.1, "p": 0.03}
    told = judge([dict(row) for _ in range(4)])[0]
    assert told["verdict"] == "cannot be told" and "−1.9 to −0.1 years, holds no 0" in told["sentence"]
    assert "better" in judge([dict(row)])[0]["sentence"]


def test_share_is_half_without_knowledge_and_goes_to_the_better_method_with_it():
    rng = np.random.default_rng(0)
    truth = rng.uniform(20, 80, 600)
    good, bad = truth + rng.normal(size=600) * 4, truth + rng.normal(size=600) * 40
    assert share_of_network(truth[:1], good[:1], bad[:1], None) == pytest.approx(0.5, abs=0.04)
    assert share_of_network(truth[:15], good[:15], bad[:15], None) == pytest.approx(0.75, abs=0.05)
    assert share_of_network(truth, good, bad, None) > 0.95
    assert share_of_network(truth, bad, good, None) < 0.05
    one = np.array(["F", "M"] * (PRIOR // 2))
    sure, wrong = np.eye(2)[np.arange(len(one)) % 2] * 0.8 + 0.1, np.full((len(one), 2), 0.5)
    assert share_of_network(one, sure, wrong, ["F", "M"]) > 0.7


def test_confounders_are_what_is_known_beside_the_target():
    ids = [f"s{i}" for i in range(6)]
    labels = pd.DataFrame({"site": list("ABABAB"), "age": [20, None, 40, 50, 60, 70], "sex": ["F", "M", "F", None, "M", "F"]})
    labels.index = pd.Index(ids)
    sizes = pd.Series(np.linspace(0.8, 1.2, 8), [*ids, "other", "another"])
    assert list(confounders_of(labels, sizes, "age")) == ["size", "site", "sex"]
    assert list(confounders_of(labels, sizes, "sex")) == ["size", "site", "age"]
    assert list(confounders_of(labels.assign(site=""), sizes * 0 + 1, "group")) == ["age", "sex"]
    assert list(confounders_of(labels[["site"]], sizes, "group")) == ["size", "site"]


def test_confounders_with_holes_and_new_sites_still_predict():
    rng = np.random.default_rng(0)
    known = pd.DataFrame({"size": rng.normal(1, 0.1, 60), "site": np.resize(["A", "B"], 60), "age": rng.uniform(20, 80, 60)})
    labels = 10 * (known["site"] == "B").to_numpy() + 0.5 * known["age"].to_numpy() + rng.normal(size=60)
    known.loc[::10, "age"] = np.nan
    ahead = pd.DataFrame({"size": [1.0, 1, np.nan], "site": ["A", "B", "C"], "age": [50.0, 50, np.nan]})
    at_a, at_b, elsewhere = predict_from_confounders(known, labels, ahead, None)
    assert at_b - at_a == pytest.approx(10, abs=1.5)
    assert at_a < elsewhere < at_b + 5
    chances = predict_from_confounders(known, np.where(known["site"] == "B", "1", "0"), ahead, ["0", "1"])
    assert chances[0, 0] > 0.8 and chances[1, 1] > 0.8


def test_trivial_is_the_median_or_the_shares():
    assert trivial(np.array([10, 20, 90]), None, 2).tolist() == [20, 20]
    assert trivial(np.array(["F", "M", "M", "M"]), ["F", "M"], 1).tolist() == [[0.25, 0.75]]


def test_kernel_is_that_of_standardised_voxels_without_the_flat_ones():
    rng = np.random.default_rng(0)
    features = rng.uniform(size=(20, 10_000)).astype(np.float32)
    features[:, 500] = 0.5
    features[3, 600] = 0.5 + FLAT
    features[:3, 600] = features[4:, 600] = 0.5
    used = np.delete(np.arange(10_000), [500, 600])
    scaler = StandardScaler().fit(features[:15, used])
    rows, ahead = scaler.transform(features[:15, used]), scaler.transform(features[15:, used])
    own, other = standardised_kernels(features[:15], features[15:])
    assert own == pytest.approx(rows @ rows.T / len(used), abs=1e-5)
    assert other == pytest.approx(ahead @ rows.T / len(used), abs=1e-5)


def test_classical_is_ridge_regression_on_the_voxels(monkeypatch):
    """By the kernel, or by a coefficient for each voxel: with one penalty both predict the same."""
    monkeypatch.setattr("mriflow.evaluation.baselines.np.logspace", lambda *_: [0.1])
    rng = np.random.default_rng(0)
    labels = rng.uniform(20, 80, 40)
    features = rng.uniform(size=(40, 300)) + labels[:, None] / 100
    scaler = StandardScaler().fit(features[:30])
    voxels = Ridge(0.1 * 300).fit(scaler.transform(features[:30]), labels[:30]).predict(scaler.transform(features[30:]))
    assert classical(features[:30], labels[:30], np.arange(30), features[30:], None) == pytest.approx(voxels)


def test_tissue_is_ridge_regression_on_grey_matter_and_volumes_that_count_as_much_in_all():
    rng = np.random.default_rng(0)
    age = rng.uniform(20, 80, 40)
    volumes = rng.integers(0, 255, (40, 3, 8, 8, 8)).astype(np.uint8)
    sizes = pd.DataFrame({"scale": rng.uniform(0.8, 1.2, 40), "brain_ml": rng.uniform(1200, 1600, 40)})
    found = morphometry_of(list(volumes), {"channels": ["wm", "gm", "image"], "voxel_mm": 5}, sizes)
    ml = volumes.astype(float).sum((2, 3, 4)) / 255 * 0.125 * sizes["scale"].to_numpy()[:, None]
    assert found.volumes == pytest.approx(np.column_stack([ml[:, :2], sizes["brain_ml"]]) / 100)
    smoothed = gaussian_filter(volumes[7, 1] / 255, 8 / 2.355 / 5)
    assert found.maps[7] == pytest.approx(smoothed.ravel(), abs=1e-5)
    assert morphometry_of(list(volumes), {"channels": ["image", "wm", "csf"], "voxel_mm": 5}, sizes) is None

    parts = []
    for rows in found:
        rows = rows[:, rows[:30].std(0) > FLAT]
        parts.append((rows - rows[:30].mean(0)) / rows[:30].std(0) / np.sqrt(2 * rows.shape[1]))
    both = np.concatenate(parts, axis=1)
    expected = from_axes(both[:30], both[30:], age[:30], penalty_folds(age[:30], np.arange(30), None), None)
    made = tissue(found.rows(slice(30)), age[:30], np.arange(30), found.rows(slice(30, None)), None)
    assert made == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("classes", [None, ["F", "M"]])
@pytest.mark.parametrize("method", ["classical", "pca"])
def test_what_is_predicted_of_a_scan_depends_on_no_other_that_is_predicted(method, classes):
    rng = np.random.default_rng(0)
    features = rng.uniform(size=(30, 50))
    labels = np.resize(["F", "M"], 20) if classes else rng.uniform(20, 80, 20)
    extra = {"subjects": np.arange(20)} if method == "classical" else {}
    fit = {"classical": classical, "pca": pca}[method]
    all_ahead, few = (
        fit(features[:20], labels, ahead=ahead, classes=classes, **extra) for ahead in (features[20:], features[20:22])
    )
    assert all_ahead[:2] == pytest.approx(few)


def test_linear_methods_learn_from_no_more_than_they_can_hold(monkeypatch):
    ids = [f"scan-{number}" for number in range(30)]
    assert drawn(ids) == ids
    monkeypatch.setattr("mriflow.evaluation.baselines.MOST", 15)
    few = drawn(ids)
    assert len(set(few)) == 15 and few == sorted(few, key=ids.index) and few == drawn(ids)


def test_images_of_many_scans_lie_in_a_file_and_give_the_same_predictions(monkeypatch):
    rng = np.random.default_rng(0)
    age = rng.uniform(20, 80, 40)
    volumes = [(rng.uniform(0, 60, (8, 8, 8)) + one).astype(np.uint8) for one in age]
    found = []
    for most in (40, 39):
        monkeypatch.setattr("mriflow.evaluation.baselines.IN_MEMORY", most)
        monkeypatch.setattr("mriflow.evaluation.baselines.AHEAD", 3)
        features = small_images(volumes)
        assert isinstance(features, np.memmap) == (most < 40) and features.dtype == (np.float32 if most == 40 else np.float16)
        found.append(classical(features[:30], age[:30], np.arange(30), features[30:], None))
        found.append(pca(features[:30], age[:30], features[30:], None))
    assert found[0] == pytest.approx(found[2], abs=0.2) and found[1] == pytest.approx(found[3], abs=0.2)
    assert np.corrcoef(found[2], age[30:])[0, 1] > 0.9


@pytest.mark.parametrize("classes", [None, ["0", "1"]])
def test_penalty_is_chosen_across_subjects_not_scans(classes):
    people = np.repeat(np.arange(20), 3)
    folds = penalty_folds(people % 2, people, classes)
    assert len(folds) == 5
    assert not any(set(people[known]) & set(people[ahead]) for known, ahead in folds)


def test_no_penalty_is_chosen_where_a_class_has_too_few_subjects():
    """Ten scans of the second class, but all of two people; nor where a class would be lacking in one of the folds."""
    labels, people = np.array(["0"] * 10 + ["1"] * 10), np.array([*range(10), *[10] * 5, *[11] * 5])
    assert penalty_folds(labels, people, ["0", "1"]) == []
    assert len(penalty_folds(labels, np.arange(20), ["0", "1"])) == 5
    assert penalty_folds(np.arange(2.0), np.arange(2), None) == []


def test_classical_sees_images_of_about_forty_voxels():
    assert small_images([np.zeros((160, 192, 160), np.uint8)]).shape == (1, 40 * 48 * 40)
    assert small_images([np.full((40, 48, 40), 255, np.uint8)]).max() == 1


def test_classical_with_too_few_of_a_class_is_the_trivial_guess():
    labels = np.array(["0"] * 8 + ["1"] * 2)
    features = np.random.default_rng(0).normal(size=(10, 20))
    assert classical(features, labels, np.arange(10), features[:1], ["0", "1"]).tolist() == [[0.8, 0.2]]


def test_a_target_that_is_the_same_for_all_has_no_r2():
    with warnings.catch_warnings(action="error"):
        metrics = with_intervals(regression_metrics, np.full(6, 30.0), np.arange(6.0), list("abcdef"))
    assert [metrics[name]["value"] for name in ("r2", "r", "slope")] == [None, None, None]
    assert metrics["r2"] == {"value": None, "low": None, "high": None}
    assert metrics["mae"]["value"] == 27.5


def test_groups_are_of_columns_that_a_cohort_has_unless_the_config_names_them():
    age = {"target": {"column": "age", "type": "regression"}}
    assert subgroup_columns(age, ["age", "site"]) == ["site", "age"]
    assert subgroup_columns(age | {"subgroups": ["hand"]}, ["age"]) == ["hand"]
