"""The tissue network that comes with mriflow: whole, small, of the config that makes it, and of use."""

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import yaml

from conftest import ROOT
from mriflow.config.label_maps import NETWORK, SHIPPED, tissue_network
from mriflow.config.resolve import merge, read_yaml, resolve, settings
from mriflow.predict import main
from mriflow.prediction.stored import METADATA, read_stored
from mriflow.prediction.tissue_network import TissueNetwork
from mriflow.simulation.brain import load_template, make_image, make_label_map
from mriflow.simulation.people import draw_person

RECIPE = ROOT / "config/experiments/tissue-network.yaml"


def config_of(*trees):
    files = [ROOT / "config/config.yaml"]
    config = read_yaml(files[0])
    for tree in trees:
        config = merge(config, tree)
    return resolve(config, files, ROOT)


def test_it_is_small_and_can_be_read_by_this_version():
    stored = read_stored(SHIPPED)
    assert stored.facts["target"]["classes"] == ["csf", "gm", "wm", "ventricles"] and len(stored.models) == 2
    assert sum(file.stat().st_size for file in SHIPPED.rglob("*")) < 10e6
    TissueNetwork(SHIPPED).check(["image", "gm", "wm", "csf"])


def test_it_is_of_the_config_that_is_said_to_make_it():
    used = settings(config_of(read_yaml(RECIPE)), "tissue-network")
    made = json.loads((SHIPPED / METADATA).read_text())["mriflow"]
    told = made["provenance"]["settings"]
    assert made["simulated"] and "ICBM152" in made["dataset"]["licence"]
    for key in ("network", "training", "preprocess"):
        assert told[key] == used[key], key
    cohort = used["dataset"]["simulate"]
    assert cohort["varied_tissues"] and cohort["subjects"] - 2 <= made["seen"]["scans"] <= cohort["subjects"]
    assert made["target"]["classes"] == list(used["dataset"]["label_maps"]["classes"])
    assert len(made["models"]) == used["split"]["folds"]


def test_by_its_name_it_segments_a_brain_and_tells_its_volumes(tmp_path):
    person = draw_person(7, np.random.default_rng(7))
    image, truth = (make(person, load_template(), 2.0, np.random.default_rng(8)) for make in (make_image, make_label_map))
    nib.save(image, tmp_path / "brain.nii.gz")
    main([NETWORK, str(tmp_path / "brain.nii.gz"), "--output", str(tmp_path / "v.csv"), "--stripped", "yes", "--device", "cpu"])
    row = pd.read_csv(tmp_path / "v.csv").iloc[0]
    labels, known = np.asarray(nib.load(row["label_map"]).dataobj), np.asarray(truth.dataobj)
    for number in (2, 3):  # grey and white matter
        dice = 2 * ((labels == number) & (known == number)).sum() / ((labels == number).sum() + (known == number).sum())
        assert dice > 0.8, (number, dice)
    assert row["volume_wm"] == pytest.approx((known == 3).sum() * 0.008, rel=0.15)
    assert 5 < row["volume_ventricles"] < 80
    assert pd.isna(row["warning"]) and pd.isna(row["problem"])


def test_a_preprocess_block_and_a_dataset_to_be_predicted_name_it_wherever_a_run_starts(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    tree = yaml.safe_load(
        f"{{preprocess: {{affine-4mm: {{channels: [image, gm, wm], tissues: {NETWORK}}}}}, run: [demo-age, demo-maps], "
        f"experiments: {{demo-maps: {{dataset: demo, model: {NETWORK}}}}}}}",
    )
    config = config_of(tree)
    name, folder = tissue_network(config, config["experiments"]["demo-age"]["preprocess"])
    assert name == "" and Path(folder).resolve() == SHIPPED
    assert Path(config["applied"]["demo-maps"]["model"]).resolve() == SHIPPED


def test_whole_heads_are_expected_unless_it_is_told_otherwise(monkeypatch):
    asked = []
    monkeypatch.setattr("mriflow.predict.predict", lambda **given: asked.append(given["stripped"]))
    for given in ([NETWORK], [os.path.relpath(SHIPPED)], [NETWORK, "--stripped=yes"], ["a/model"]):
        main([given[0], "scan.nii", "--output", "o.csv", *given[1:]])
    assert asked == [False, False, True, None]
