"""A model in its folder, used on scans: what it sees and says is the workflow's, and bad input is refused in words."""

import dataclasses
import json
import os
import re
import shutil
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import ndimage

from conftest import training_inputs, training_settings, write_scan
from mriflow import bundle as stage
from mriflow import predict as command
from mriflow.base.errors import UserError
from mriflow.bundle import bundle
from mriflow.gather import gather
from mriflow.images.fingerprint import fingerprint
from mriflow.images.headers import read_headers
from mriflow.images.nifti import load_scan
from mriflow.predict import main, predict
from mriflow.prediction import ensemble
from mriflow.prediction.apply import is_stripped, prepare
from mriflow.prediction.calibrated import columns_of
from mriflow.prediction.finished import Finished
from mriflow.prediction.seen import unlike
from mriflow.prediction.sources import find_scans
from mriflow.prediction.stored import read_stored, sha256
from mriflow.preprocess import preprocess
from mriflow.reporting.model_card import model_card
from mriflow.split import split
from mriflow.train import train
from mriflow.training.loader import open_shards
from test_preprocess import brain, write_brain  # noqa: F401 - a fixture

GRID = {"voxel_mm": 8.0, "shape": [20, 24, 20]}
AGE = {"column": "age", "type": "regression", "classes": [], "auxiliary": []}
SMALL = {"name": "SFCN", "arguments": {"channels": [4, 8, 4], "dropout": 0.0}}
SUBJECTS = 12


@pytest.fixture(scope="module")
def made(tmp_path_factory, brain):  # noqa: F811
    """Twelve brains, preprocessed, split and trained on (one fold, two seeds), with and without a covariate, and the models."""
    folder = tmp_path_factory.mktemp("predict")
    names = [f"sub-{number:02d}" for number in range(SUBJECTS)]
    paths = [write_brain(folder / "scans" / f"{name}.nii.gz", brain, noise=30, seed=n) for n, name in enumerate(names)]
    table = pd.DataFrame({"id": names, "subject": names, "session": "", "site": ["A", "B"] * 6, "age": range(20, 80, 5)})
    table = table.assign(sex=["F", "F", "M"] * 4, path=[f"scans/{path.name}" for path in paths])
    table = table.assign(fingerprint=[fingerprint(path) for path in paths], problem="", notes="")
    table.to_csv(folder / "labels.csv", index=False)
    read_headers(paths).assign(id=names).to_csv(folder / "headers.csv", index=False)
    shard = {"array": folder / "shard-000.npy", "index": folder / "shard-000.csv"}
    preprocess(folder / "labels.csv", **shard, stripped=True, **GRID)
    files = {"arrays": [shard["array"]], "indices": [shard["index"]], "labels": folder / "labels.csv"}
    files["splits"] = folder / "splits.csv"
    split(files["labels"], files["splits"], target="age", folds=3, validation=0.25, stratify=[])
    metric = {"value": 5.0, "low": 4.0, "high": 6.0}
    (folder / "metrics.json").write_text(json.dumps({"network": {"mae": metric}, "trivial": {"mae": metric}, "n": 4}))
    found = {"folder": folder, "files": files, "paths": paths}
    for name, covariates in (("plain", []), ("with-sex", ["sex"])):
        training = training_settings(epochs=1, tta="mirror")
        inputs = training_inputs(voxel_mm=8, covariates=covariates)
        for seed in (0, 1):
            out = folder / name / f"fold-0_seed-{seed}"
            outputs = (out / "model.pt", out / "history.csv", out / "warnings.json", out / "work")
            blocks = {"target": AGE, "inputs": inputs, "network": SMALL, "training": training}
            train(*outputs, **files, fold=0, seed=seed, dataset="tiny", **blocks)
        block = {"registration": "affine", **GRID, "percentiles": [0.5, 99.5], "n4": False, "channels": ["image"]}
        settings = {
            "experiment": name,
            "dataset": {"title": "Tiny", "licence": "none", "citation": "nobody", "stripped": True, "simulate": {}},
            "target": {"column": "age", "type": "regression", "unit": "years"},
            "preprocess": {**block, "tissues": "mixture"},
            "covariates": covariates,
            "training": {"tta": "mirror"},
        }
        (folder / name / "settings.json").write_text(json.dumps(settings))
        fit = {"n": 4, "slope": 0.0, "intercept": 0.0, "half_width": {"0.9": 9.0}}
        (folder / name / "calibration.json").write_text(json.dumps({"type": "regression", "folds": {}, "new": fit}))
        found[name] = folder / name / "model"
        make(found, name)
    return found


def make(made, name, output=None, **changes):
    """Write the model of an experiment into its folder."""
    folder = made["folder"] / name
    given = {key: folder / f"{key}.json" for key in ("settings", "calibration")}
    given |= {"metrics": made["folder"] / "metrics.json", "headers": made["folder"] / "headers.csv"}
    models = [folder / f"fold-0_seed-{seed}" / "model.pt" for seed in (0, 1)]
    return bundle(output or made[name], models=models, **made["files"], **{**given, **changes})


def test_scans_are_prepared_byte_for_byte_as_those_of_training(made):
    shards, stored = open_shards(made["files"]["arrays"], made["files"]["indices"]), read_stored(made["plain"])
    for path in made["paths"][:3]:
        [scan] = find_scans([str(path)], [])
        assert (
            prepare(stored.settings, False, made["folder"], scan).result.volume.tobytes()
            == shards[path.name.split(".")[0]].tobytes()
        )


def test_predictions_are_bit_for_bit_those_of_evaluate_with_the_same_models(made, tmp_path, monkeypatch):
    monkeypatch.setattr(ensemble, "BATCH", 1)
    shards = open_shards(made["files"]["arrays"], made["files"]["indices"])
    models = [made["folder"] / "plain" / f"fold-0_seed-{seed}" / "model.pt" for seed in (0, 1)]
    ids = [path.name.split(".")[0] for path in made["paths"][:3]]
    nothing = pd.DataFrame(index=ids)
    expected = ensemble.predict(models, 0, shards, ids, nothing, torch.device("cpu"), "mirror")
    table = predict(made["plain"], [str(path) for path in made["paths"][:3]], tmp_path / "p.csv", device="cpu")
    assert table["prediction"].tolist() == expected.tolist()
    assert (table["interval_high"] - table["prediction"]).astype(float).round(9).tolist() == [9, 9, 9]
    alone = predict(made["plain"], [str(made["paths"][1])], tmp_path / "q.csv", device="cpu", figures=tmp_path / "pictures")
    assert alone["prediction"][0] == expected[1]  # whatever else is predicted with it
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["0001_sub-01.png"]


def test_files_folders_tables_and_bids_name_the_same_scans(made, tmp_path):
    scans = made["paths"][:2]
    for path in scans:
        image = tmp_path / "bids" / path.name.split(".")[0] / "anat" / path.name.replace(".nii", "_T1w.nii")
        image.parent.mkdir(parents=True)
        image.symlink_to(path)
        (tmp_path / "folder").mkdir(exist_ok=True)
        (tmp_path / "folder" / path.name).symlink_to(path)
    (tmp_path / "bids" / "sub-00" / "anat" / "sub-00_T2w.nii.gz").symlink_to(scans[0])
    (tmp_path / "bids/participants.tsv").write_text("participant_id\tsex\nsub-01\tM\n00\tF\n")
    (tmp_path / "table.csv").write_text("path,sex\nfolder/sub-00.nii.gz,F\nfolder/sub-01.nii.gz,M\n,F\n")
    of_files, of_folder, of_bids, of_table = (
        find_scans(given, ["sex"])
        for given in ([*map(str, scans)], [tmp_path / "folder"], [tmp_path / "bids"], [tmp_path / "table.csv"])
    )
    for found in (of_files, of_folder, of_bids, of_table[:2]):
        assert [scan["file"].resolve() for scan in found] == scans and not any(scan["problem"] for scan in found)
    assert [scan["labels"] for scan in of_bids] == [scan["labels"] for scan in of_table[:2]] == [{"sex": "F"}, {"sex": "M"}]
    assert of_table[2]["problem"] == "no path in this row of the table"


def test_every_bad_scan_has_its_reason_and_stops_no_other(made, brain, tmp_path):  # noqa: F811
    data, affine = brain
    bright = data.astype(np.int16)
    ball = np.linalg.norm(np.indices(data.shape).T - np.array(data.shape) / 2, axis=-1).T < 14
    write_scan(tmp_path / "4d.nii", np.stack([bright, bright], -1))
    nib.save(nib.Nifti1Image(np.where(bright > 0, 1001 - bright, 0).astype(np.int16), affine), tmp_path / "t2.nii")
    nib.save(nib.Nifti1Image(np.where(ball, 800, 0).astype(np.int16), affine), tmp_path / "phantom.nii")
    nib.save(nib.Nifti1Image(np.where(bright > 0, bright, -1000), affine), tmp_path / "ct.nii")
    nib.save(nib.Nifti1Image(bright[:, :, ::-1], affine), tmp_path / "upside-down.nii")
    nib.save(nib.Nifti1Image(bright, affine @ np.diag([0.5, 0.5, 0.5, 1])), tmp_path / "newborn.nii")
    nib.save(nib.Nifti1Image(bright[:, :, ::2], affine @ np.diag([1, 1, 2, 1])), tmp_path / "thick.nii")
    (tmp_path / "cut.nii").write_bytes((tmp_path / "t2.nii").read_bytes()[:5000])
    (tmp_path / "notes.docx").write_text("no image")
    (tmp_path / "empty").mkdir()
    (tmp_path / "bids").mkdir()
    (tmp_path / "bids/dataset_description.json").write_text("{}")
    (tmp_path / "no-path.csv").write_text("file,age\na.nii,30\n")
    refused = {
        "4d.nii": "not 3D",
        "t2.nii": "not like the T1-weighted brain of an adult",
        "phantom.nii": "registration failed",
        "ct.nii": "looks like a CT",
        "upside-down.nii": "registration failed",
        "newborn.nii": "implausible brain volume",
        "cut.nii": "cut short",
        "notes.docx": "not a NIfTI file",
        "empty": "no images in this folder",
        "bids": "no T1w image in this BIDS dataset",
        "nowhere.csv": "no file",
        "no-path.csv": "has no column 'path'",
        "nowhere.nii": "no file",
    }
    names = [*refused, "thick.nii"]
    given = [*(str(tmp_path / name) for name in names), str(made["paths"][0])]
    table = predict(made["plain"], given, tmp_path / "p.csv").set_index("path")
    for name, words in refused.items():
        row = table.loc[str(tmp_path / name)]
        assert words in row["problem"] and pd.isna(row["prediction"]), name
    good = table.loc[[given[-2], given[-1]]]
    assert (good["problem"] == "").all() and good["prediction"].notna().all()
    assert "voxels of 4 x 4 x 8 mm" not in good["warning"].iloc[1]
    assert "voxels of 4 x 4 x 8 mm" in good["warning"].iloc[0]
    assert "the model was trained on this scan" in "".join(good["warning"])


def test_only_where_no_scan_at_all_is_predicted_it_fails(made, tmp_path):
    with pytest.raises(UserError, match="none of 1 scans could be predicted.*no file"):
        main([str(made["plain"]), str(tmp_path / "nowhere.nii"), "--output", str(tmp_path / "p.csv")])
    assert pd.read_csv(tmp_path / "p.csv")["problem"].tolist() == [f"no file ({tmp_path / 'nowhere.nii'})"]


def test_a_model_with_covariates_asks_for_them_and_takes_them_from_a_table(made, tmp_path):
    path = made["paths"][0]
    (tmp_path / "table.csv").write_text(f"path,sex\n{path},F\n{path},M\n{path},X\n")
    table = predict(made["with-sex"], [str(path), str(tmp_path / "table.csv")], tmp_path / "p.csv")
    assert "needs the covariate 'sex' of it: give a table with the columns path, sex" in table["problem"][0]
    assert table["prediction"][1] != table["prediction"][2]
    assert table["problem"][3] == "the covariate 'sex' is 'X', expected one of F, M"


def renewed(folder):
    """Give a changed model checksums that fit again."""
    names = [line.split("  ")[1] for line in (folder / "SHA256SUMS").read_text().splitlines()]
    (folder / "SHA256SUMS").write_text("".join(f"{sha256(folder / name)}  {name}\n" for name in names))


def changed(key, value):
    def change(folder):
        path = folder / "configs/metadata.json"
        metadata = json.loads(path.read_text())
        metadata["mriflow"][key] = value
        path.write_text(json.dumps(metadata))
        renewed(folder)

    return change


def with_code(folder):
    class Code:
        def __reduce__(self):
            return (open, (str(folder / "hacked"), "w"))

    torch.save({"weights": Code()}, folder / "models/fold-0_seed-0.pt")
    renewed(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: (f / "models/fold-0_seed-1.pt").unlink(), r"fold-0_seed-1\.pt: is missing\. Copy the folder"),
        (lambda f: (f / "models/fold-0_seed-1.pt").write_bytes(b"x"), r"fold-0_seed-1\.pt: was changed or damaged"),
        (lambda f: (f / "SHA256SUMS").unlink(), "has no SHA256SUMS"),
        (lambda f: (f / "SHA256SUMS").write_text("0  ../../secret\n"), "not in the folder of the model"),
        (lambda f: shutil.rmtree(f), "no such folder"),
        (changed("recipe", 1), "prepares scans by recipe 1; this version prepares them by"),
        (changed("format", 99), "in the form 99; this version reads the form 1"),
        (changed("tta", "guess"), r"mriflow\.tta: 'guess' is not one of"),
        (changed("models", [{"file": "models/../../x.pt", "fold": 0, "seed": 0}]), r"models\.0\.file"),
        (changed("models", [{"file": "models/other.pt", "fold": 0, "seed": 0}]), "does not list models/other.pt"),
        (with_code, r"cannot be read as weights of PyTorch \(it is damaged, or holds more than tensors, such as code"),
    ],
)
def test_a_model_that_is_not_as_it_was_made_is_refused(made, tmp_path, change, words):
    folder = shutil.copytree(made["plain"], tmp_path / "model")
    change(folder)
    with pytest.raises(UserError, match=words):
        read_stored(folder)
    assert not (folder / "hacked").exists()


def test_what_monai_would_execute_is_never_evaluated(made, tmp_path):
    folder = shutil.copytree(made["plain"], tmp_path / "model")
    (folder / "configs/inference.json").write_text(json.dumps({"run": [f"$open({str(folder / 'hacked')!r}, 'w')"]}))
    renewed(folder)
    predict(folder, [str(made["paths"][0])], tmp_path / "p.csv")
    assert not (folder / "hacked").exists()


def test_monai_finds_network_and_metadata_in_step_and_runs_the_bundle(made, tmp_path):
    from monai.bundle import run, verify_net_in_out

    files = {
        f"{name}_file": str(made["plain"] / "configs" / file)
        for name, file in (("meta", "metadata.json"), ("config", "inference.json"))
    }
    verify_net_in_out("network_def", device="cpu", **files)
    given = [str(made["paths"][0])]
    run(**files, bundle_root=str(made["plain"]), scans=given, output=str(tmp_path / "monai.csv"))
    predict(made["plain"], given, tmp_path / "own.csv")
    assert (tmp_path / "monai.csv").read_bytes() == (tmp_path / "own.csv").read_bytes()


def test_the_folder_is_whole_or_as_before_and_equal_each_time(made, tmp_path, monkeypatch):
    def content(folder):
        return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    make(made, "plain", tmp_path / "model")
    before = content(tmp_path / "model")
    assert before == content(made["plain"])
    monkeypatch.setattr(stage, "model_card", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make(made, "plain", tmp_path / "model")
    assert content(tmp_path / "model") == before
    with pytest.raises(ZeroDivisionError):
        make(made, "plain", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_without_calibration_there_is_no_interval_and_it_says_so(made, tmp_path, caplog):
    make(made, "plain", tmp_path / "model", calibration=None)
    table = predict(tmp_path / "model", [str(made["paths"][0])], tmp_path / "p.csv")
    assert "interval_low" not in table and "nothing was fitted for new scans" in caplog.text
    assert "have no interval" in (tmp_path / "model/docs/README.md").read_text()


def test_the_model_card_has_counts_ranges_results_and_licences(made):
    card = (made["plain"] / "docs/README.md").read_text()
    for words in ("simulated brains", "8 scans of 8 subjects", "| sex | F", "5.0 [4.0, 6.0]", "The scans: none", "voxels (mm)"):
        assert words in card
    assert max(map(len, card.splitlines())) < 140


def test_the_model_card_shows_the_test_on_other_people(made):
    facts = json.loads((made["plain"] / "configs/metadata.json").read_text())["mriflow"]
    result = json.loads((made["folder"] / "metrics.json").read_text())
    assert "other people" not in model_card(facts, result, True)
    result["external"] = {
        "theirs": result | {"title": "Theirs", "n": 7, "simulated": True},
        "unlabelled": {"title": "No ages", "n": 0, "simulated": False},
    }
    card = model_card(facts, result, True)
    assert "## On other people: Theirs (simulated)\n7 scans" in card and card.count("5.0 [4.0, 6.0]") == 4
    assert "No ages" not in card


def test_classes_have_probabilities_calibrated_ones_a_set_and_decisions():
    fitted = {"temperature": 2.0, "conformal": {"0.9": 0.6}, "threshold": 0.5, "threshold_at_sensitivity": {"0.9": 0.15}}
    each = np.array([[[0.9, 0.1], [0.55, 0.45]], [[0.7, 0.3], [0.45, 0.55]]])
    table = columns_of(each, ["F", "M"], fitted)
    assert table["at_threshold"].tolist() == ["F", "M"] and table["at_sensitivity"].tolist() == ["M", "M"]
    assert table["prediction"].tolist() == ["F", "F"] and table["set"].tolist() == ["F", "F|M"]
    assert table["probability_F"].round(6).tolist() == [0.8, 0.5] and table["calibrated_F"].round(3).tolist() == [0.667, 0.5]
    assert table["spread"].round(4).tolist() == [0.1414, 0.0707]
    assert columns_of(each[:1], ["F", "M"], None).columns.tolist() == ["prediction", "spread", "probability_F", "probability_M"]


def test_what_is_not_like_training_is_told():
    usual = {"correlation": {"median": 0.9, "spread": 0.01}, "scale": {"median": 1.0, "spread": 0.05}}
    usual |= {"intensity": {"median": 150.0, "spread": 5.0}}
    seen = {"measures": usual, "voxel_mm": {"low": 0.9, "high": 1.2}, "labels": {"age": {"low": 20.0, "high": 80.0}}}
    facts = {"seen": seen, "preprocess": {"registration": "affine"}, "target": {"column": "age", "type": "regression"}}
    like = {"correlation": 0.9, "brain_ml": 2000.0, "scale": 1.0, "intensity": 150.0}
    assert unlike(facts, like, [1, 1, 1.2], {}, 50.0) == []
    [told] = unlike(facts, like | {"correlation": 0.7, "intensity": 90.0}, [1, 1, 5], {}, 50.0)
    assert told.startswith("unlike the scans of training: correlation with the template (0.7, median 0.9)")
    assert "median intensity" in told and "voxels of 1 x 1 x 5 mm (0.9 to 1.2 in training)" in told
    assert "by the template" in unlike(facts, like | {"brain_ml": 900.0}, [], {}, 50.0)[0]
    for edge in (22.0, 78.0, 85.0):
        assert "at the edge of what was trained on (20 to 80)" in unlike(facts, like, [], {}, edge)[0]


def test_a_brain_that_was_cut_out_is_told_from_a_whole_head(brain, tmp_path):  # noqa: F811
    data, affine = brain
    alone, head = np.pad(data, 8), ndimage.binary_dilation(np.pad(data, 8) > 0, iterations=6)
    brain_ml = (data > 0).sum() * 0.064
    for name, voxels, told in (("brain.nii", alone, True), ("head.nii", np.where(alone > 0, alone, 300 * head), False)):
        nib.save(nib.Nifti1Image(voxels.astype(np.int16), affine), tmp_path / name)
        assert is_stripped(load_scan(tmp_path / name), brain_ml) == told


@pytest.mark.parametrize(("given", "read"), [([], True), (["--stripped", "no"], False), (["--stripped", "yes"], True)])
def test_scans_are_taken_for_brains_or_heads_as_the_training_scans_or_as_is_said(given, read, made, tmp_path, monkeypatch):
    taken = []

    def noted(settings, keep_transform, unpacked, scan, tissues=None):
        taken.append(settings.stripped)
        return prepare(dataclasses.replace(settings, stripped=True), keep_transform, unpacked, scan)

    monkeypatch.setattr(command, "prepare", noted)
    command.main([str(made["plain"]), str(made["paths"][0]), "--output", str(tmp_path / "p.csv"), *given])
    assert taken == [read]


def test_a_run_that_was_stopped_goes_on_from_the_scans_that_were_finished(made, tmp_path, monkeypatch):
    """Ctrl-C ends a run with the words that what was finished is kept: it is, and the table is that of a run in one go."""
    monkeypatch.setattr(command, "AT_ONCE", 1)
    given, output = [str(path) for path in made["paths"][:3]], tmp_path / "p.csv"
    seen = []

    def counted(settings, keep_transform, unpacked, scan, tissues=None, stop_at=None):
        if len(seen) == stop_at:
            raise KeyboardInterrupt
        seen.append(Path(scan["path"]).name)
        return prepare(settings, keep_transform, unpacked, scan)

    monkeypatch.setattr(command, "prepare", partial(counted, stop_at=2))
    with pytest.raises(KeyboardInterrupt):
        predict(made["plain"], given, output)
    assert not output.exists() and len(seen) == 2
    seen.clear()
    monkeypatch.setattr(command, "prepare", counted)
    predict(made["plain"], given, output)
    assert seen == ["sub-02.nii.gz"]
    predict(made["plain"], given, tmp_path / "whole.csv")
    assert output.read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_what_another_model_or_a_scan_that_was_changed_since_would_be_given_is_not_taken_over(made, tmp_path):
    scan = {"path": str(made["paths"][0]), "labels": {}, "problem": ""}
    kept = Finished(tmp_path / "p.csv", "one model")
    kept.add([scan], [{"prediction": 1.5}])
    assert Finished(tmp_path / "p.csv", "one model").row_of(scan) == {"prediction": 1.5}
    assert Finished(tmp_path / "p.csv", "another").row_of(scan) is None
    assert Finished(tmp_path / "p.csv", "one model").row_of({**scan, "labels": {"sex": "F"}}) is None
    with open(kept.path, "a") as stream:
        stream.write('\n["cut sho')
    assert Finished(tmp_path / "p.csv", "one model").row_of(scan) == {"prediction": 1.5}


def test_predictions_stay_if_the_last_scans_are_all_refused(made, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "AT_ONCE", 1)
    table = predict(made["plain"], [str(made["paths"][0]), str(tmp_path / "nowhere.nii")], tmp_path / "p.csv")
    assert pd.notna(table["prediction"][0]) and pd.isna(table["prediction"][1])


def test_shards_of_a_labels_csv_make_the_table_of_the_whole_and_what_is_said_against_a_scan_stands(made, tmp_path):
    labels = pd.read_csv(made["files"]["labels"]).head(5)
    labels["problem"] = ["", "", "", "", "scan: left out by hand (moved)"]
    labels["path"] = [str(path) for path in made["paths"][:5]]
    labels.to_csv(tmp_path / "labels.csv", index=False)
    given = [str(tmp_path / "labels.csv")]
    parts = [tmp_path / f"shard-{shard}.csv" for shard in range(6)]  # one more than scans, so that one is empty
    counts = [len(predict(made["plain"], given, part, shard=shard, shards=6)) for shard, part in enumerate(parts)]
    assert sum(counts) == 5 and 0 in counts
    table = gather(tmp_path / "gathered.csv", parts)
    assert table["problem"].tolist() == ["", "", "", "", "left out by hand (moved)"]
    predict(made["plain"], given, tmp_path / "whole.csv")
    assert (tmp_path / "gathered.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    table.assign(problem="no file").to_csv(parts[0], index=False)
    with pytest.raises(UserError, match="none of 5 scans could be predicted"):
        gather(tmp_path / "gathered.csv", parts[:1])


def test_a_training_can_start_from_a_file_of_the_folder_and_not_if_it_has_seen_who_is_tested(made, tmp_path):
    blocks = {"target": AGE, "inputs": training_inputs(voxel_mm=8), "network": SMALL, "training": training_settings(epochs=1)}
    start = made["plain"] / "models/fold-0_seed-0.pt"
    outputs = [tmp_path / name for name in ("model.pt", "history.csv", "warnings.json", "work")]
    train(*outputs, **made["files"], fold=0, seed=0, dataset="tiny", init=start, **blocks)
    assert outputs[0].exists()
    with pytest.raises(UserError, match="has seen"):
        train(*outputs[:3], tmp_path / "other", **made["files"], fold=1, seed=0, dataset="tiny", init=start, **blocks)


@pytest.mark.parametrize(
    ("given", "options", "told"),
    [
        ("table.csv", {"output": "table.csv"}, "is one of the SCANS, and would be written over"),
        ("table.csv", {"output": "scan.nii.gz"}, "is no .csv; expected the table to write"),
        ("table.csv", {"output": "folder"}, "is a folder; expected the table to write"),
        ("table.csv", {"shards": 0}, "parts have the numbers 0 to -1"),
        ("table.csv", {"shard": 5, "shards": 2}, "parts have the numbers 0 to 1"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_read(made, tmp_path, given, options, told):
    (tmp_path / "table.csv").write_text("path,diagnosis\nscan.nii.gz,AD\n")
    (tmp_path / "folder").mkdir()
    output = tmp_path / options.pop("output", "p.csv")
    with pytest.raises(UserError, match=re.escape(told)):
        predict(made["plain"], [str(tmp_path / given)], output, **options)
    assert (tmp_path / "table.csv").read_text() == "path,diagnosis\nscan.nii.gz,AD\n"


def test_a_covariate_that_is_no_number_or_was_not_in_training_spoils_its_row_alone(made, tmp_path):
    paths = [str(path) for path in made["paths"][:2]]
    pd.DataFrame({"path": paths, "sex": ["other", "F"]}).to_csv(tmp_path / "t.csv", index=False)
    table = predict(made["with-sex"], [str(tmp_path / "t.csv")], tmp_path / "p.csv", device="cpu")
    assert table["problem"].tolist() == ["the covariate 'sex' is 'other', expected one of F, M", ""]


def test_label_maps_of_an_earlier_run_are_no_scans(tmp_path, made):
    for name in ("a_dseg.nii.gz", "a_probseg.nii.gz", "b.nii.gz"):
        shutil.copy(made["paths"][0], tmp_path / name)
    assert [Path(scan["path"]).name for scan in find_scans([str(tmp_path)], [])] == ["b.nii.gz"]


def test_images_of_freesurfer_are_rewritten_one_by_one_and_removed(made, tmp_path, monkeypatch):
    scan = nib.load(made["paths"][0])
    nib.save(nib.MGHImage(np.asarray(scan.dataobj).astype(np.float32), scan.affine), tmp_path / "T1.mgz")
    removed = []
    monkeypatch.setattr(command.shutil, "rmtree", lambda folder, **_: removed.append(os.listdir(folder)))
    table = predict(made["plain"], [str(tmp_path / "T1.mgz"), str(made["paths"][0])], tmp_path / "p.csv", device="cpu")
    assert table["prediction"][0] == pytest.approx(table["prediction"][1], abs=1)
    assert sum(any(name.startswith("T1") for name in names) for names in removed) == 1
