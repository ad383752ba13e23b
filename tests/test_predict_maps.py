"""A model that segments, used on scans: label maps in each scan's own voxels, volumes in its own size."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from conftest import measure_label_maps, training_inputs, training_settings
from mriflow.agreement import agreement
from mriflow.base.errors import UserError
from mriflow.bundle import bundle
from mriflow.images.fingerprint import fingerprint
from mriflow.images.headers import read_headers
from mriflow.predict import predict
from mriflow.prediction.own_space import plausibility
from mriflow.preprocess import preprocess
from mriflow.split import split
from mriflow.train import train
from test_preprocess import brain, write_brain  # noqa: F401 - a fixture
from test_train import UNET

GRID = {"voxel_mm": 8.0, "shape": [20, 24, 20]}
CLASSES = ["dark", "bright"]
SUBJECTS = 12


@pytest.fixture(scope="module")
def made(tmp_path_factory, brain):  # noqa: F811
    """Twelve brains, their dark and bright halves as label maps, a network trained on them, and its model."""
    folder = tmp_path_factory.mktemp("maps")
    names = [f"sub-{number}" for number in range(SUBJECTS)]
    paths = [write_brain(folder / f"{name}.nii.gz", brain, noise=30, seed=n) for n, name in enumerate(names)]
    table = pd.DataFrame({"id": names, "subject": names, "session": "", "site": "", "age": range(20, 20 + SUBJECTS)})
    table = table.assign(sex=["F", "F", "M"] * 4, path=[path.name for path in paths], label_map=names, problem="", notes="")
    table = table.assign(fingerprint=[fingerprint(path) for path in paths])
    table.to_csv(folder / "labels.csv", index=False)
    read_headers(paths).assign(id=names).to_csv(folder / "headers.csv", index=False)
    shard = {"array": folder / "shard-000.npy", "index": folder / "shard-000.csv"}
    preprocess(folder / "labels.csv", **shard, stripped=True, **GRID)
    images = np.load(shard["array"])
    maps = np.where(images == 0, 0, np.where(images < np.median(images[images > 0]), 1, 2)).astype(np.uint8)
    np.save(shard["array"], np.stack([images, maps], axis=1))
    measure_label_maps(shard["index"], maps, CLASSES, 0.512)
    files = {"arrays": [shard["array"]], "indices": [shard["index"]], "labels": folder / "labels.csv"}
    files["splits"] = folder / "splits.csv"
    split(files["labels"], files["splits"], target="label_map", folds=3, validation=0.25, stratify=[])
    target = {"column": "label_map", "type": "segmentation", "classes": CLASSES, "auxiliary": []}
    models = []
    for fold in range(3):
        out = folder / f"fold-{fold}_seed-0"
        blocks = {"target": target, "inputs": training_inputs(voxel_mm=8, label_map=1), "network": UNET}
        blocks["training"] = training_settings(epochs=30, learning_rate=0.02, tta="mirror")
        outputs = (out / "model.pt", out / "history.csv", out / "warnings.json", out / "work")
        train(*outputs, **files, fold=fold, seed=0, dataset="tiny", **blocks)
        models.append(out / "model.pt")
    settings = {
        "experiment": "halves",
        "names": {"target": "halves"},
        "dataset": {
            **{"title": "Tiny", "licence": "none", "citation": "nobody", "stripped": True, "simulate": {}},
            "label_maps": {"classes": {"dark": [1], "bright": [2]}},
        },
        "target": {"column": "label_map", "type": "segmentation", "unit": ""},
        "preprocess": {
            **{"registration": "affine", **GRID, "percentiles": [0.5, 99.5], "n4": False},
            **{"channels": ["image", "label_map"], "tissues": "mixture"},
        },
        "covariates": [],
        "training": {"tta": "mirror", "seeds": [0]},
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    found = {"settings": folder / "settings.json", "metrics": folder / "metrics.json"}
    warnings = [path.with_name("warnings.json") for path in models]
    agreement(
        folder / "predictions.csv", found["metrics"], models=models, warnings=warnings, settings=found["settings"], **files
    )
    bundle(folder / "model", models=models, headers=folder / "headers.csv", **files, **found)
    return {"folder": folder, "model": folder / "model", "paths": paths}


def test_label_maps_lie_on_the_scan_whatever_the_order_of_its_axes(made, tmp_path):
    scan = nib.load(made["paths"][0])
    turned = scan.as_reoriented(nib.orientations.axcodes2ornt("LIP", (("L", "R"), ("P", "A"), ("I", "S"))))
    nib.save(turned, tmp_path / "turned.nii.gz")
    table = predict(made["model"], [str(made["paths"][0]), str(tmp_path / "turned.nii.gz")], tmp_path / "p.csv", device="cpu")
    for image, row in zip((scan, turned), table.to_dict("records"), strict=True):
        found = nib.load(row["label_map"])
        assert found.shape == image.shape and np.allclose(found.affine, image.affine) and found.get_data_dtype() == np.uint8
        labels, data = np.asarray(found.dataobj), np.asarray(image.dataobj)
        assert 2 * ((labels > 0) & (data > 0)).sum() / ((labels > 0).sum() + (data > 0).sum()) > 0.9
        assert np.median(data[labels == 2]) > 1.1 * np.median(data[labels == 1])
        volume = sum(row[f"volume_{name}"] for name in CLASSES)
        assert volume == pytest.approx(row["brain_ml"], rel=0.1), "in the person's own size"
        assert volume == pytest.approx((labels > 0).sum() * np.prod(image.header.get_zooms()) / 1000, rel=0.1)
        assert 0.5 < row["certainty"] <= 1
    assert table["volume_dark"][0] == pytest.approx(table["volume_dark"][1], rel=0.05)
    assert (tmp_path / "p_maps/dseg.tsv").read_text().split("\n")[2:4] == ["1\tdark", "2\tbright"]
    assert pd.read_csv(tmp_path / "p.csv")["label_map"].str.startswith(str(tmp_path / "p_maps")).all()


def test_probabilities_are_written_when_asked_for_and_one_bad_scan_stops_no_other(made, tmp_path):
    (tmp_path / "broken.nii.gz").write_bytes(b"broken")
    given = [str(tmp_path / "broken.nii.gz"), str(made["paths"][1])]
    table = predict(made["model"], given, tmp_path / "p.csv", device="cpu", maps=tmp_path / "maps", probabilities=True)
    assert table["problem"].tolist()[1] == "" and "not compressed" in table["problem"][0]
    assert pd.isna(table["label_map"][0])
    [probable] = (tmp_path / "maps").glob("*_probseg.nii.gz")
    values = np.asarray(nib.load(probable).dataobj)
    assert values.shape == (*nib.load(made["paths"][1]).shape, 2) and values.min() >= 0 and values.max() <= 1.001


def test_the_model_card_of_a_segmentation_has_its_dice_and_what_is_usual_stands_in_the_model(made):
    card = (made["model"] / "docs/README.md").read_text()
    assert "Dice, dark" in card and "label map in its own voxels" in card and "mean label map of the training scans" in card
    facts = json.loads((made["model"] / "configs/metadata.json").read_text())["mriflow"]
    assert facts["preprocess"]["channels"] == ["image"] and facts["target"]["classes"] == CLASSES
    assert {"certainty", "share of dark"} <= set(facts["seen"]["measures"])
    assert "label_map" not in facts["seen"]["labels"] and ".nii" not in card, "what each file is called is no label"


def test_a_map_whose_classes_have_other_shares_than_usual_is_plain_to_see():
    rows = pd.DataFrame({"volume_a": [600.0, 100.0], "volume_b": [400.0, 900.0], "certainty": [0.9, 0.5]})
    assert plausibility(rows, ["a", "b"])["share of a"].tolist() == [0.6, 0.1]


def test_maps_are_refused_of_a_model_that_makes_none(made, tmp_path, monkeypatch):
    facts = made["model"] / "configs/metadata.json"
    assert '"segmentation"' in facts.read_text()
    monkeypatch.setattr(
        "mriflow.predict.read_stored",
        lambda _: type("Stored", (), {"facts": {"target": {"type": "regression", "column": "age"}}}),
    )
    with pytest.raises(UserError, match="predicts age, and makes no label maps"):
        predict(made["model"], [str(made["paths"][0])], tmp_path / "p.csv", maps=tmp_path / "maps")


def test_a_map_that_is_gone_is_made_again_by_a_run_that_goes_on(made, tmp_path, monkeypatch):
    (tmp_path / "broken.nii.gz").write_bytes(b"broken")
    given = [str(tmp_path / "broken.nii.gz"), *(str(path) for path in made["paths"][:2])]
    monkeypatch.setattr("mriflow.predict.Finished.remove", lambda self: None)
    first = predict(made["model"], given, tmp_path / "p.csv", device="cpu")
    Path(first["label_map"][1]).unlink()
    again = predict(made["model"], given, tmp_path / "p.csv", device="cpu")
    assert all(Path(path).exists() for path in again["label_map"][1:])


def test_both_places_that_a_header_gives_stay(made, tmp_path):
    scan = nib.load(made["paths"][0])
    other = nib.Nifti1Image(np.asarray(scan.dataobj), scan.affine)
    moved = scan.affine.copy()
    moved[0, 3] += 30
    other.set_sform(scan.affine, 4)
    other.set_qform(moved, 1)
    nib.save(other, tmp_path / "two.nii.gz")
    table = predict(made["model"], [str(tmp_path / "two.nii.gz")], tmp_path / "p.csv", device="cpu")
    found = nib.load(table["label_map"][0])
    assert np.allclose(found.get_qform(), moved, atol=1e-3) and np.allclose(found.get_sform(), scan.affine)
    assert (found.header["qform_code"], found.header["sform_code"]) == (1, 4)


def test_a_form_of_a_header_that_is_none_stops_nothing_and_no_scan_is_written_beside(made, tmp_path):
    scan = nib.load(made["paths"][0])
    odd = nib.Nifti1Image(np.asarray(scan.dataobj), scan.affine)
    odd.header["qform_code"], odd.header["quatern_b"], odd.header["quatern_c"] = 0, 0.9, 0.9
    (tmp_path / "scans").mkdir()
    nib.save(odd, tmp_path / "scans/odd.nii.gz")
    table = predict(made["model"], [str(tmp_path / "scans")], tmp_path / "scans.csv", device="cpu")
    assert table["problem"].tolist() == [""] and Path(table["label_map"][0]).parent.name == "scans_maps"
    with pytest.raises(UserError, match="is one of the SCANS"):
        predict(made["model"], [str(tmp_path / "scans")], tmp_path / "p.csv", maps=tmp_path / "scans")
