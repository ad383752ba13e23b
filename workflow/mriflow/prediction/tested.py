"""An experiment whose networks are trained: its scans, labels and parts, for what predicts its test parts once more."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from mriflow.config.label_maps import seen_and_map
from mriflow.evaluation.label_maps import resample_means
from mriflow.evaluation.metrics import Resampled, classification_metrics, of_a_guess, regression_metrics, resample
from mriflow.tables.labels import read_indices, read_labels
from mriflow.tables.splits import read_splits
from mriflow.training.covariates import read_covariates
from mriflow.training.device import choose_device
from mriflow.training.loader import Shards, open_shards

DECIDES = {"regression": "mae", "classification": "auc", "segmentation": "dice"}  # the metric that comparisons are about


class Tested(NamedTuple):
    """What is read of an experiment.

    Attributes
    ----------
    settings
        Its part of the config.
    shards, covariates
        All preprocessed scans, and their covariates.
    labels
        The rows of labels.csv by the scans' ids.
    parts
        splits.csv without scans that failed preprocessing.
    classes
        Of a classification or a segmentation.
    device
        Where its networks are run.
    """

    settings: dict[str, Any]
    shards: Shards
    covariates: pd.DataFrame
    labels: pd.DataFrame
    parts: pd.DataFrame
    classes: list[str] | None
    device: torch.device

    @property
    def truth(self) -> pd.Series:
        """The target of every scan, by id."""
        return self.labels[self.settings["target"]["column"]]

    @property
    def image(self) -> int | None:
        """The number of the channel that is the image, among those that networks see, if there is one."""
        channels, _ = seen_and_map(self.settings["preprocess"]["channels"])
        return channels.index("image") if "image" in channels else None

    def ids(self, fold: int, *parts: str) -> list[str]:
        """Return the scans in some parts of a fold."""
        rows = self.parts[(self.parts["fold"] == fold) & self.parts["part"].isin(parts)]
        return rows["id"].tolist()

    def tested_folds(self) -> list[int]:
        """Return the folds that have a test part."""
        return sorted(self.parts.loc[self.parts["part"] == "test", "fold"].unique().tolist())

    def measure(
        self, ids: Sequence[str], predictions: np.ndarray, labels: pd.Series | None = None, guess: bool = False
    ) -> Resampled:
        """Return the metrics of predictions for some scans, with those of the resamples of the people.

        The scans are true to `labels`, or to the target's own. Of a segmentation, predictions are the Dice of each class.
        Those of a `guess` did not look at a scan (`mriflow.evaluation.metrics.of_a_guess`).
        """
        subjects = self.labels.loc[list(ids), "subject"].tolist()
        if self.settings["target"]["type"] == "segmentation":
            assert self.classes is not None
            table = pd.DataFrame(predictions, columns=[f"dice_{name}" for name in self.classes])
            return resample_means(table.assign(dice=table.mean(axis=1)), np.array(subjects, str))
        truth = self.numbers((self.truth if labels is None else labels).loc[list(ids)])
        metrics = regression_metrics if self.classes is None else classification_metrics
        return resample(of_a_guess(metrics) if guess else metrics, truth, predictions, subjects)

    def score(self, ids: Sequence[str], predictions: np.ndarray, labels: pd.Series) -> float:
        """Return the metric that decides, without its interval."""
        truth = self.numbers(labels.loc[list(ids)])
        metrics = regression_metrics if self.classes is None else classification_metrics
        return metrics(truth, predictions)[DECIDES[self.settings["target"]["type"]]]

    def numbers(self, labels: pd.Series) -> np.ndarray:
        """Return labels as the metrics take them: numbers, or the number of the class."""
        if self.classes is None:
            return labels.to_numpy(float)
        return labels.astype(str).map(self.classes.index).to_numpy()

    def pair(self, method: str, other: str, ids: Sequence[str]) -> dict[str, Any]:
        """Return what a comparison of two on the same scans is about (`mriflow.evaluation.comparison.against`)."""
        about, people = self.about(), self.labels.loc[list(ids), "subject"].nunique()
        unit = about["unit"] if self.classes is None else ""
        return {"method": method, "other": other, "people": people, "unit": unit}

    def about(self) -> dict[str, Any]:
        """Return what a file of results says of the experiment."""
        return about_experiment(self.settings) | {"metric": DECIDES[self.settings["target"]["type"]]}


def about_experiment(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what every file of results says first of an experiment, from its part of the config."""
    target = settings["target"]
    return {
        "experiment": settings["experiment"],
        "dataset": settings["dataset"]["title"],
        "simulated": "simulate" in settings["dataset"],
        "target": settings["names"]["target"],
        "type": target["type"],
        "unit": target["unit"],
    }


def read_tested(arrays: Sequence[Path], indices: Sequence[Path], labels: Path, splits: Path, settings: Path) -> Tested:
    """Read an experiment.

    Parameters
    ----------
    arrays, indices
        The dataset's shards.
    labels, splits, settings
        The dataset's labels.csv, the experiment's splits.csv and settings.json.

    Raises
    ------
    UserError
        If the splits leak, or a file is not as it was made.
    """
    used = json.loads(settings.read_text())
    target = used["target"]
    classes = list(target["classes"]) if target["type"] == "classification" else None
    shards, parts = open_shards(arrays, indices, seen_and_map(used["preprocess"]["channels"])[1]), read_splits(splits)
    table = read_labels(labels, category=target["column"] if classes else None).set_index("id")
    classes = list(used["dataset"]["label_maps"]["classes"]) if target["type"] == "segmentation" else classes
    covariates = read_covariates(used["covariates"], labels, read_indices(indices))
    return Tested(used, shards, covariates, table, parts[parts["id"].isin(shards)], classes, choose_device())


def add_tested(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say what to write, and those of `add_trained`."""
    parser.add_argument("--result", type=Path, required=True, help="what was found, to write, .json")
    parser.add_argument("--table", type=Path, required=True, help="the same as a table, .csv")
    add_trained(parser)


def add_trained(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which experiment is meant: its models, and those of `read_tested`."""
    parser.add_argument("--models", type=Path, nargs="+", required=True, help="the models of all folds and seeds")
    parser.add_argument("--arrays", type=Path, nargs="+", required=True, help="shards of the dataset, .npy")
    parser.add_argument("--indices", type=Path, nargs="+", required=True, help="their indices, .csv, in the same order")
    parser.add_argument("--labels", type=Path, required=True, help="the dataset's labels.csv")
    parser.add_argument("--splits", type=Path, required=True, help="the experiment's splits.csv")
    parser.add_argument("--settings", type=Path, required=True, help="the experiment's part of the config, .json")
