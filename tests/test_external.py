"""Another dataset, predicted by all networks of an experiment together: nothing of it is fitted to, and no scan is known."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from conftest import training_settings, write_dataset
from mriflow.base.errors import UserError
from mriflow.config.resolve import training_part
from mriflow.evaluate import evaluate
from mriflow.evaluation.baselines import classical, small_images
from mriflow.evaluation.tissue_baseline import morphometry_of, tissue
from mriflow.external import external
from mriflow.plot import main as plot
from mriflow.prediction.ensemble import predict_each
from mriflow.reporting.experiment_sections import external as external_section
from mriflow.split import split
from mriflow.tables.labels import read_labels
from mriflow.train import train
from mriflow.training.loader import open_shards
from test_evaluate import NETWORK, TARGETS


def other_dataset(folder, subjects=14, seed=5):
    """Write people of another cohort: the second is one of ours, the third another scan of them, the last has no label."""
    files = write_dataset(folder, subjects=subjects, seed=seed, grey_matter=True)
    labels = pd.read_csv(files["labels"], dtype={"subject": str})
    labels["fingerprint"] = [f"other-{number}" for number in range(subjects)]
    labels.loc[1, "fingerprint"] = "scan-07"
    labels.loc[2, "subject"] = labels.loc[1, "subject"]
    labels.loc[subjects - 1, ["age", "sex"]] = np.nan
    labels.to_csv(files["labels"], index=False)
    return {f"other_{name}": value for name, value in files.items()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Both targets: two folds of one network each, and another dataset predicted by both."""
    folder = tmp_path_factory.mktemp("external")
    files = write_dataset(folder / "data", subjects=24, grey_matter=True)
    found = {"folder": folder, "files": files, "other": other_dataset(folder / "other")}
    training = training_settings(epochs=12, learning_rate=0.02, seeds=[0], augmentation={"mirror": 0})
    for name, target in TARGETS.items():
        out = folder / name
        classes = list(target.get("classes", [])) or None
        split(files["labels"], out / "splits.csv", target=target["column"], classes=classes, folds=2)
        settings = {"experiment": name, "dataset": {"title": "Test"}, "names": {"target": name}, "target": target}
        settings |= {"preprocess": {"registration": "affine", "channels": ["image", "gm"], "voxel_mm": 4}, "network": NETWORK}
        settings |= {"training": training, "auxiliary": [], "covariates": [], "impute": False}
        (out / "settings.json").write_text(json.dumps(settings))
        parts = {part: training_part(settings, part) for part in ("target", "inputs", "network", "training")}
        models = [out / f"fold-{fold}" / "model.pt" for fold in range(2)]
        for fold, model in enumerate(models):
            beside = (model.with_name(file) for file in ("history.csv", "warnings.json", "work"))
            train(model, *beside, **files, splits=out / "splits.csv", fold=fold, seed=0, **parts)
        found[name] = {"models": models, "splits": out / "splits.csv", "settings": out / "settings.json"}
        table = out / "external/elsewhere.csv"
        external(table, dataset="elsewhere", **found["other"], **files, **found[name])
        cohorts = {"elsewhere": {"title": "Elsewhere", "simulated": True}}
        warnings = [model.with_name("warnings.json") for model in models]
        judged = {"external": [table], "cohorts": cohorts, "warnings": warnings}
        evaluate(out / "predictions.csv", out / "metrics.json", **files, **found[name], **judged)
    return found


def results(made, name):
    folder = made["folder"] / name
    table = pd.read_csv(folder / "external-predictions.csv", keep_default_na=False, na_values=[""])
    return table, json.loads((folder / "metrics.json").read_text())["external"]["elsewhere"]


@pytest.mark.parametrize("name", ["age", "sex"])
def test_every_scan_has_its_row_and_every_figure_is_that_of_the_rows(made, name):
    table, found = results(made, name)
    assert len(table) == 14 and found["n_predicted"] == 12 and found["n"] == 11 and found["title"] == "Elsewhere"
    [reason] = found["left_out"]
    assert "own dataset" in reason and found["left_out"][reason] == 2
    assert table["network"].notna().sum() == 12 and table.loc[[1, 2], "network"].isna().all()
    known = table[table["problem"].isna() & table["truth"].notna()]
    if name == "age":
        assert found["network"]["mae"]["value"] == pytest.approx((known["network"] - known["truth"]).abs().mean())
        held = (known["interval_low"] <= known["truth"]) & (known["truth"] <= known["interval_high"])
        assert found["conformal"]["coverage"]["value"] == pytest.approx(held.mean())
    else:
        assert found["network"]["accuracy"]["value"] == pytest.approx((known["network"] == known["truth"]).mean())
        assert known["calibrated_F"].notna().all() and found["calibration"]["after"]["n"] == 11
    for method in ("network", "tissue", "classical", "pca", "trivial", "confounders"):
        assert all(set(cell) == {"value", "low", "high"} for cell in found[method].values())
    assert "by_fold" not in found and found["differences"]
    long = pd.read_csv(made["folder"] / name / "metrics.csv")
    assert set(long.loc[long["part"] == "external: elsewhere", "n"]) == {11}


def test_the_prediction_is_the_mean_of_all_networks_and_the_floor_knows_our_scans_alone(made):
    files, other, one = made["files"], made["other"], made["age"]
    shards = open_shards(other["other_arrays"], other["other_indices"])
    table, _ = results(made, "age")
    good = table[table["problem"].isna()]
    nothing = pd.DataFrame(index=list(shards))
    each = [
        predict_each(one["models"], fold, shards, good["id"].tolist(), nothing, torch.device("cpu"), "mirror")[0]
        for fold in (0, 1)
    ]
    assert good["network"].to_numpy() == pytest.approx(np.mean(each, axis=0))
    assert good["spread"].to_numpy() == pytest.approx(np.std(each, axis=0, ddof=1))
    ours, labels = open_shards(files["arrays"], files["indices"]), read_labels(files["labels"]).set_index("id")
    seen = pd.read_csv(one["splits"]).query("part != 'test'")["id"].unique().tolist()
    features = small_images([*(ours[scan] for scan in seen), *(shards[scan] for scan in good["id"])])
    age, subjects = labels.loc[seen, "age"].to_numpy(), labels.loc[seen, "subject"].to_numpy()
    floor = classical(features[: len(seen)], age, subjects, features[len(seen) :], None)
    assert good["classical"].to_numpy() == pytest.approx(floor, abs=1e-4)
    block, sizes = {"channels": ["image", "gm"], "voxel_mm": 4}, pd.DataFrame({"scale": [1.0] * 36, "brain_ml": 1400.0})
    maps = morphometry_of([*(ours[scan] for scan in seen), *(shards[scan] for scan in good["id"])], block, sizes)
    floor = tissue(maps.rows(slice(len(seen))), age, subjects, maps.rows(slice(len(seen), None)), None)
    assert good["tissue"].to_numpy() == pytest.approx(floor, abs=1e-4)


def test_no_label_of_the_other_dataset_changes_a_prediction_and_without_labels_there_are_predictions_alone(made, tmp_path):
    labels = pd.read_csv(made["other"]["other_labels"])
    labels.drop(columns="age").to_csv(tmp_path / "labels.csv", index=False)
    other = {**made["other"], "other_labels": tmp_path / "labels.csv"}
    table = tmp_path / "elsewhere.csv"
    external(table, dataset="elsewhere", **other, **made["files"], **made["age"])
    before, after = pd.read_csv(made["folder"] / "age/external/elsewhere.csv"), pd.read_csv(table)
    assert "truth" not in after
    assert after[["network", "tissue", "classical", "pca"]].equals(before[["network", "tissue", "classical", "pca"]])
    warnings = [model.with_name("warnings.json") for model in made["age"]["models"]]
    evaluate(tmp_path / "p.csv", tmp_path / "m.json", **made["files"], **made["age"], warnings=warnings, external=[table])
    found = json.loads((tmp_path / "m.json").read_text())["external"]["elsewhere"]
    assert found["n"] == 0 and found["n_predicted"] == 12 and "network" not in found
    assert pd.read_csv(tmp_path / "external-predictions.csv")["interval_low"].notna().sum() == 12


def test_the_same_dataset_under_another_name_is_refused(made, tmp_path):
    ours = {f"other_{name}": value for name, value in made["files"].items()}
    with pytest.raises(UserError, match="none of 24 scans can be predicted.*own dataset"):
        external(tmp_path / "t.csv", dataset="again", **ours, **made["files"], **made["age"])


def test_a_missing_covariate_leaves_a_scan_out_and_stops_no_other(made, tmp_path):
    settings = json.loads(made["age"]["settings"].read_text()) | {"covariates": ["sex"]}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    parts = {part: training_part(settings, part) for part in ("target", "inputs", "network", "training")}
    parts["training"]["epochs"] = 1
    beside = (tmp_path / file for file in ("model.pt", "history.csv", "warnings.json", "work"))
    train(*beside, **made["files"], splits=made["age"]["splits"], fold=0, seed=0, **parts)
    given = {**made["age"], "settings": tmp_path / "settings.json", "models": [tmp_path / "model.pt"]}
    table = external(tmp_path / "t.csv", dataset="elsewhere", **made["other"], **made["files"], **given)
    assert table["problem"].iloc[-1] == "sex: missing" and (table["problem"] == "").sum() == 11
    labels = pd.read_csv(made["other"]["other_labels"])
    labels.loc[0, "sex"] = "X"
    labels.to_csv(tmp_path / "labels.csv", index=False)
    other = made["other"] | {"other_labels": tmp_path / "labels.csv"}
    table = external(tmp_path / "t.csv", dataset="elsewhere", **other, **made["files"], **given)
    assert table["problem"].iloc[0] == "sex: not among the training scans" and (table["problem"] == "").sum() == 10


@pytest.mark.parametrize(("name", "figure"), [("age", "predicted-vs-true"), ("sex", "roc")])
def test_its_figure_is_drawn_and_without_labels_says_so(made, tmp_path, name, figure):
    folder = made["folder"] / name
    files = ["--predictions", str(folder / "external-predictions.csv"), "--metrics", str(folder / "metrics.json")]
    given = ["--pdf", str(tmp_path / "a.pdf"), "--png", str(tmp_path / "a.png"), "--external", "elsewhere"]
    plot([figure, *files, *given])
    table = pd.read_csv(folder / "external-predictions.csv").drop(columns="truth")
    table.to_csv(tmp_path / "p.csv", index=False)
    result = json.loads((folder / "metrics.json").read_text())
    result["external"]["elsewhere"] = {"title": "Elsewhere", "simulated": True, "n": 0, "n_predicted": 12, "left_out": {}}
    (tmp_path / "m.json").write_text(json.dumps(result))
    files = ["--predictions", str(tmp_path / "p.csv"), "--metrics", str(tmp_path / "m.json")]
    before = (tmp_path / "a.png").read_bytes()
    plot([figure, *files, *given])
    assert (tmp_path / "a.png").read_bytes() != before


@pytest.mark.parametrize("name", ["age", "sex"])
def test_the_report_has_a_section_of_it(made, name):
    result = json.loads((made["folder"] / name / "metrics.json").read_text())
    parts = external_section(result, made["folder"])
    assert parts[0].text.startswith("Elsewhere: 12 scans predicted, 11 of them with a label. Left out: scan: in the")
    shown = [row[0] for row in parts[1].rows]
    assert shown == ["network", "tissue", "classical", "pca", "confounders", "trivial"]
    assert external_section({key: one for key, one in result.items() if key != "external"}, made["folder"]) == []
