"""Trainings that are spoilt on purpose are told of, in words; a good one is not."""

import json

import numpy as np
import pandas as pd
import pytest

from conftest import write_dataset
from mriflow.split import split
from mriflow.training.watchman import of_history
from test_learning import fine_detail  # noqa: F401 - a fixture
from test_train import NONE, SEX, run

WIDE = {"name": "SFCN", "arguments": {"channels": [16, 16, 16], "dropout": 0.0, "head": "flat"}}


def kinds(folder):
    """Return the kinds of warnings that a training wrote."""
    found = json.loads((folder / "warnings.json").read_text())
    assert all(one["text"].endswith(".") for one in found)
    return {one["kind"] for one in found}


@pytest.fixture(scope="module")
def meaningless(tmp_path_factory):
    """A dataset whose labels have nothing to do with its images."""
    folder = tmp_path_factory.mktemp("meaningless")
    files = write_dataset(folder, subjects=32)
    volumes = np.random.default_rng(2).integers(60, 200, (32, 16, 16, 16), dtype=np.uint8)
    np.save(files["arrays"][0], volumes)
    split(files["labels"], folder / "splits.csv", target="age", folds=2, validation=0.3)
    return files | {"splits": folder / "splits.csv"}


def test_a_good_training_says_nothing(data, tmp_path):
    run(tmp_path / "age", data, epochs=30)
    run(tmp_path / "sex", data, target=SEX, epochs=60, augmentation=NONE)
    assert kinds(tmp_path / "age") == kinds(tmp_path / "sex") == set()


def test_one_that_learns_by_heart_is_told(meaningless, tmp_path, caplog):
    run(tmp_path, meaningless, network=WIDE, epochs=40, augmentation=NONE)
    assert "worse than a constant guess" in kinds(tmp_path)
    assert "learns its training scans by heart" in caplog.text


def test_one_that_learns_nothing_is_told(data, tmp_path, caplog):
    for seed in range(8):  # the scans are easy: random weights of some seeds tell the target already
        run(tmp_path / str(seed), data, epochs=8, learning_rate=1e-9, seed=seed)
        if "worse than a constant guess" in kinds(tmp_path / str(seed)):
            break
    assert "worse than a constant guess" in kinds(tmp_path / str(seed))
    assert "does not even learn its training scans" in caplog.text


def test_swings_are_told(data, tmp_path):
    for seed in range(12):  # such a training is chaos: what one does depends on the processor
        run(tmp_path / str(seed), data, epochs=30, learning_rate=1.0, schedule="constant", seed=seed)
        if "swings" in kinds(tmp_path / str(seed)):
            break
    assert "swings" in kinds(tmp_path / str(seed))


def test_scans_blurred_in_training_alone_are_told(fine_detail, tmp_path, monkeypatch):  # noqa: F811
    blur = lambda scans, matrices: sum(scans.roll((x, y), (2, 3)) for x in (0, 1) for y in (0, 1)) / 4  # noqa: E731
    monkeypatch.setattr("mriflow.training.augment.resample", blur)
    run(tmp_path, fine_detail, epochs=12, augmentation=NONE | {"rotate_degrees": 5.0})
    assert "changed scans are of another kind" in kinds(tmp_path)


def test_one_class_alone_is_told(data, tmp_path):
    run(tmp_path, data, target=SEX, epochs=2, learning_rate=1e-9)
    assert "one class" in kinds(tmp_path)


def test_an_end_far_worse_than_the_best_is_told(data, tmp_path):
    history = run(tmp_path, data, epochs=30)
    grown = history["val_mae"] * np.where(history["epoch"] > 20, np.linspace(-18, 8, 30).clip(1), 1)
    found = of_history(history.assign(val_mae=grown), constant=15.0, scans=20)
    assert "end worse than best" in {one["kind"] for one in found}


def test_history_too_short_to_tell_says_nothing():
    history = pd.DataFrame({"unchanged_mae": [50.0, 5.0], "val_mae": [50.0, 5.0], "val_loss": 1.0})
    assert of_history(history, constant=15.0, scans=20) == []


@pytest.mark.parametrize(("scans", "told"), [(17, set()), (200, {"end worse than best"})])
def test_two_or_three_more_wrong_classes_of_seventeen_are_chance_and_thirty_of_two_hundred_are_not(scans, told):
    epochs = np.arange(60)
    right = np.where((epochs > 20) & (epochs < 30), 0.9, 0.745)
    history = pd.DataFrame({"epoch": epochs, "unchanged_accuracy": 1.0, "val_accuracy": right, "val_loss": 1.0})
    assert {one["kind"] for one in of_history(history, constant=0.48, scans=scans)} == told


@pytest.mark.parametrize(("rank", "told"), [(0.86, set()), (0.45, {"worse than a constant guess"})])
def test_a_network_that_weighs_a_rare_class_and_ranks_well_is_not_worse_than_a_guess(rank, told):
    history = pd.DataFrame({"unchanged_accuracy": [0.86] * 20, "val_accuracy": 0.86, "val_auc": rank, "val_loss": 1.0})
    assert {one["kind"] for one in of_history(history, constant=0.1, scans=300)} == told


def test_one_scan_that_flips_among_seventeen_of_which_two_are_of_the_rare_class_is_chance():
    right = np.where(np.arange(30) % 2, 15 / 17, 16 / 17)
    history = pd.DataFrame({"unchanged_accuracy": 1.0, "val_accuracy": right, "val_loss": 1.0})
    assert of_history(history, constant=2 / 17, scans=17) == []
