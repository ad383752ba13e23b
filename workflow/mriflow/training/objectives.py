"""What a network is to learn: how a label becomes numbers, what an error costs, how outputs become a prediction."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from mriflow.base.errors import UserError
from mriflow.evaluation.metrics import classification_metrics
from mriflow.training.overlap import counts, dice_and_cross_entropy, dice_of


class Objective(ABC):
    """What is learned at once: one target and its loss, or several (`Joint`).

    Attributes
    ----------
    outputs
        Number of outputs of the network.
    width
        Numbers that an encoded label takes.
    """

    outputs: int
    width: int = 1

    @abstractmethod
    def encode(self, labels: np.ndarray) -> torch.Tensor:
        """Return labels as numbers, float32, shape (scans, self.width); those of a missing label are NaN."""

    def kept(self, outputs: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
        """Return what is kept of the outputs of a batch until all scans are run, from which the rest is made."""
        return outputs

    @abstractmethod
    def losses(self, outputs: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
        """Return the loss of each scan and target, shape (scans, targets); `outputs` has shape (scans, self.outputs)."""

    def weights(self, encoded: torch.Tensor) -> torch.Tensor:
        """Return how much each scan counts for each target, shape (scans, targets): 0 if its label is missing."""
        return (~encoded[:, :1].isnan()).float()

    def loss(self, outputs: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
        """Return the loss of some scans: for each target the weighted mean, summed over the targets."""
        return (self.losses(outputs, encoded) * shares(self.weights(encoded))).sum()

    @abstractmethod
    def values(self, outputs: torch.Tensor) -> torch.Tensor:
        """Return predictions, double: shape (scans,) in the target's unit, or class probabilities, shape (scans, classes)."""

    def predict(self, outputs: torch.Tensor) -> np.ndarray:
        """Return `values` as an array."""
        return self.values(outputs).cpu().numpy()

    @abstractmethod
    def metrics(self, predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Return what is shown after every epoch."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return numbers and texts from which `load_objective` makes the same objective again."""


def shares(weights: torch.Tensor) -> torch.Tensor:
    """Return weights, shape (scans, targets), that sum to 1 over the scans of a target, or to 0 if it has none.

    >>> shares(torch.tensor([[1.0, 0.0], [3.0, 0.0]]))
    tensor([[0.2500, 0.0000],
            [0.7500, 0.0000]])
    """
    return weights / weights.sum(0, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)


class Regression(Objective):
    """A number, learned in units of its standard deviation over the training scans."""

    outputs = 1

    def __init__(self, loss: str, mean: float, sd: float) -> None:
        self.name, self.mean, self.sd = loss, mean, sd

    def encode(self, labels: np.ndarray) -> torch.Tensor:
        return torch.tensor((labels.astype(float) - self.mean) / self.sd, dtype=torch.float32)[:, None]

    def losses(self, outputs: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
        errors = torch.where(encoded.isnan(), 0, outputs - encoded.nan_to_num())
        return errors.abs() if self.name == "l1" else errors.square()

    def values(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs[:, 0].double() * self.sd + self.mean

    def metrics(self, predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        return {"mae": float(np.abs(predictions - labels.astype(float)).mean())}

    def state(self) -> dict[str, Any]:
        return {"loss": self.name, "mean": self.mean, "sd": self.sd}


class SoftLabel(Objective):
    """A number as a normal distribution over bins (Peng et al. 2021); the prediction is the mean over the bins.

    >>> objective = SoftLabel(low=40, high=44, width=1, sigma=1)
    >>> objective.encode(np.array([42.0])).round(decimals=2)
    tensor([[0.1400, 0.3600, 0.3600, 0.1400]])
    >>> objective.predict(torch.tensor([[0.0, 5.0, 5.0, 0.0]])).round(2)
    array([42.])
    """

    def __init__(self, low: float, high: float, width: float, sigma: float) -> None:
        self.low, self.high, self.bin_width, self.sigma = low, high, width, sigma
        self.outputs = self.width = round((high - low) / width)
        self.edges = torch.linspace(low, high, self.outputs + 1)
        self.centres = (self.edges[1:] + self.edges[:-1]) / 2

    def encode(self, labels: np.ndarray) -> torch.Tensor:
        ages = torch.tensor(labels.astype(float), dtype=torch.float32)[:, None]
        below = torch.distributions.Normal(ages.nan_to_num(), self.sigma).cdf(self.edges)
        shares = below[:, 1:] - below[:, :-1]
        # A label far outside the bins has no share in any: it goes whole to the nearest.
        nearest = F.one_hot((ages.nan_to_num() - self.centres).abs().argmin(1), self.outputs).float()
        total = shares.sum(1, keepdim=True)
        return torch.where(ages.isnan(), torch.nan, torch.where(total > 1e-3, shares / total.clamp(min=1e-3), nearest))

    def losses(self, outputs: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
        return F.kl_div(outputs.float().log_softmax(1), encoded.nan_to_num(), reduction="none").sum(1, keepdim=True)

    def values(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs.double().softmax(1) @ self.centres.double().to(outputs.device)

    metrics = Regression.metrics

    def state(self) -> dict[str, Any]:
        return {"loss": "soft-label", "low": self.low, "high": self.high, "width": self.bin_width, "sigma": self.sigma}


class Classification(Objective):
    """One of some classes, each weighted by the inverse of its frequency in the training scans."""

    def __init__(self, classes: Sequence[str], weights: Sequence[float]) -> None:
        self.classes, self.class_weights = list(classes), list(weights)
        self.outputs = len(self.classes)

    def encode(self, labels: np.ndarray) -> torch.Tensor:
        numbers = {name: float(number) for number, name in enumerate(self.classes)}
        return torch.tensor([numbers.get(str(label), torch.nan) for label in labels])[:, None]

    def losses(self, outputs: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(outputs.float(), encoded[:, 0].nan_to_num().long(), reduction="none")[:, None]

    def weights(self, encoded: torch.Tensor) -> torch.Tensor:
        known = super().weights(encoded)
        return known * torch.tensor(self.class_weights, device=encoded.device)[encoded.nan_to_num().long()]

    def values(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs.double().softmax(1)

    def metrics(self, predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        metrics = classification_metrics(self.encode(labels)[:, 0].numpy().astype(int), predictions)
        return {name: metrics[name] for name in ("accuracy", "auc")}

    def state(self) -> dict[str, Any]:
        return {"loss": "cross-entropy", "classes": self.classes, "weights": self.class_weights}


class Segmentation(Objective):
    """The class of every voxel. Its encoded labels are label maps, uint8, shape (scans, x, y, z), which the shards hold.

    Of a scan's outputs only its loss and the counts of its Dice are kept (`kept`): the rest would fill the memory.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = list(classes)
        self.outputs = 1 + len(self.classes)

    def encode(self, labels: np.ndarray) -> torch.Tensor:
        """Return one number a scan, which says no more than that it has a map."""
        return torch.zeros(len(labels), 1)

    def losses(self, outputs: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
        return dice_and_cross_entropy(outputs.float(), encoded)

    def kept(self, outputs: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
        counted = counts(outputs.argmax(1), encoded, len(self.classes))
        return torch.cat([self.losses(outputs, encoded), counted], dim=1)

    def loss(self, outputs: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
        return outputs[:, 0].mean()

    def values(self, outputs: torch.Tensor) -> torch.Tensor:
        return dice_of(outputs[:, 1:]).double()

    def metrics(self, predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Return the mean Dice over scans and classes, and that of each class."""
        each = np.nanmean(predictions, axis=0)
        named = {f"dice_{name}": float(value) for name, value in zip(self.classes, each, strict=True)}
        return {"dice": float(np.nanmean(each)), **named}

    def state(self) -> dict[str, Any]:
        return {"loss": "dice-ce", "classes": self.classes}


class Joint(Objective):
    """A target and others that are learned with it (auxiliary ones), each with its own outputs; the first alone is predicted.

    A scan without the label of an auxiliary target counts for the others.
    """

    def __init__(self, parts: Sequence[Objective]) -> None:
        self.parts = list(parts)
        self.outputs, self.width = sum(part.outputs for part in parts), sum(part.width for part in parts)

    def encode(self, labels: np.ndarray) -> torch.Tensor:
        """Return labels, shape (scans, targets), as numbers."""
        return torch.cat([part.encode(labels[:, number]) for number, part in enumerate(self.parts)], dim=1)

    def losses(self, outputs: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
        of_each = zip(self.parts, self.outputs_of(outputs), self.of(encoded), strict=True)
        return torch.cat([part.losses(theirs, labels) for part, theirs, labels in of_each], dim=1)

    def weights(self, encoded: torch.Tensor) -> torch.Tensor:
        return torch.cat([part.weights(e) for part, e in zip(self.parts, self.of(encoded), strict=True)], dim=1)

    def outputs_of(self, outputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the outputs for each target."""
        return outputs.split([part.outputs for part in self.parts], dim=1)

    def of(self, encoded: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the encoded labels of each target."""
        return encoded.split([part.width for part in self.parts], dim=1)

    def loss(self, outputs: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
        """Return the loss of the target alone: the others help to learn, and choose nothing."""
        return self.parts[0].loss(self.outputs_of(outputs)[0], self.of(encoded)[0])

    def values(self, outputs: torch.Tensor) -> torch.Tensor:
        return self.parts[0].values(self.outputs_of(outputs)[0])

    def metrics(self, predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        return self.parts[0].metrics(predictions, labels[:, 0])

    def state(self) -> dict[str, Any]:
        return {"loss": "joint", "parts": [part.state() for part in self.parts]}


def make_objective(target: dict[str, Any], training: dict[str, Any], labels: np.ndarray) -> Objective:
    """Return the objective of a target (a block of the config) with the settings and the labels of training.

    Parameters
    ----------
    target
        With its auxiliary targets in the list `auxiliary`, if it has any.
    labels
        Of the training scans, shape (scans,), or (scans, 1 + auxiliary targets).
    """
    auxiliary = target.get("auxiliary", [])
    if not auxiliary:
        return make_single(target, training, labels)
    first = make_single(target, training, labels[:, 0])
    others = [make_single(one, {"loss": "auto"}, labels[:, number]) for number, one in enumerate(auxiliary, 1)]
    return Joint([first, *others])


def make_single(target: dict[str, Any], training: dict[str, Any], labels: np.ndarray) -> Objective:
    """Return the objective of one target; labels may be missing."""
    labels = labels[~pd.isna(labels)]
    if not len(labels):
        raise UserError(f"no training scan has a value of {target['column']!r}, an auxiliary target; leave it out.")
    if target["type"] == "segmentation":
        return Segmentation(target["classes"])
    if target["type"] == "classification":
        classes = list(target["classes"])
        frequencies = np.array([(labels.astype(str) == name).sum() for name in classes])
        return Classification(classes, (len(labels) / (len(classes) * np.maximum(frequencies, 1))).tolist())
    numbers = labels.astype(float)
    if training["loss"] == "soft-label":
        low, high = training["bins"]
        outside = ((numbers < low) | (numbers > high)).mean()
        if outside > 0.05:
            raise UserError(
                f"{outside:.0%} of the training labels lie outside the `bins` {low} to {high} of the training block. Set "
                f"`bins` to the range of {target['column']!r}, {numbers.min():g} to {numbers.max():g} here."
            )
        return SoftLabel(low, high, training["bin_width"], training["bin_sigma"])
    return Regression("l2" if training["loss"] == "l2" else "l1", float(numbers.mean()), float(numbers.std()) or 1.0)


def load_objective(state: dict[str, Any]) -> Objective:
    """Return the objective that `state` was taken from."""
    arguments = {key: value for key, value in state.items() if key != "loss"}
    match state["loss"]:
        case "joint":
            return Joint([load_objective(part) for part in state["parts"]])
        case "soft-label":
            return SoftLabel(**arguments)
        case "dice-ce":
            return Segmentation(**arguments)
        case "cross-entropy":
            return Classification(**arguments)
        case loss:
            return Regression(loss, **arguments)
