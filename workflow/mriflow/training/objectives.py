"""What a network is to learn: how a label becomes numbers, what an error costs, how outputs become a prediction."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from mriflow.base.errors import UserError
from mriflow.evaluation.metrics import classification_metrics


class Objective(ABC):
    """One kind of target and loss.

    Attributes
    ----------
    outputs
        Number of outputs of the network.
    """

    outputs: int

    @abstractmethod
    def encode(self, labels: np.ndarray) -> torch.Tensor:
        """Return labels as the tensor that `loss` wants, one row a scan."""

    @abstractmethod
    def loss(self, outputs: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of a batch; `outputs` has shape (scans, self.outputs)."""

    def weights(self, encoded: torch.Tensor) -> torch.Tensor:
        """Return how much each scan counts in the mean that `loss` is, shape (scans,)."""
        return torch.ones(len(encoded))

    @abstractmethod
    def predict(self, outputs: torch.Tensor) -> np.ndarray:
        """Return predictions: shape (scans,) in the target's unit, or class probabilities, shape (scans, classes)."""

    @abstractmethod
    def metrics(self, predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Return what is shown after every epoch."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return numbers and texts from which `load_objective` makes the same objective again."""


class Regression(Objective):
    """A number, learned in units of its standard deviation over the training scans."""

    outputs = 1

    def __init__(self, loss: str, mean: float, sd: float) -> None:
        self.name, self.mean, self.sd = loss, mean, sd

    def encode(self, labels: np.ndarray) -> torch.Tensor:
        return torch.tensor((labels.astype(float) - self.mean) / self.sd, dtype=torch.float32)[:, None]

    def loss(self, outputs: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
        return F.l1_loss(outputs, encoded) if self.name == "l1" else F.mse_loss(outputs, encoded)

    def predict(self, outputs: torch.Tensor) -> np.ndarray:
        return outputs[:, 0].double().cpu().numpy() * self.sd + self.mean

    def metrics(self, predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        return {"val_mae": float(np.abs(predictions - labels.astype(float)).mean())}

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
        self.low, self.high, self.width, self.sigma = low, high, width, sigma
        self.outputs = round((high - low) / width)
        self.edges = torch.linspace(low, high, self.outputs + 1)
        self.centres = (self.edges[1:] + self.edges[:-1]) / 2

    def encode(self, labels: np.ndarray) -> torch.Tensor:
        ages = torch.tensor(labels.astype(float), dtype=torch.float32)[:, None]
        below = torch.distributions.Normal(ages, self.sigma).cdf(self.edges)
        shares = below[:, 1:] - below[:, :-1]
        # A label far outside the bins has no share in any: it goes whole to the nearest.
        nearest = F.one_hot((ages - self.centres).abs().argmin(1), self.outputs).float()
        total = shares.sum(1, keepdim=True)
        return torch.where(total > 1e-3, shares / total.clamp(min=1e-3), nearest)

    def loss(self, outputs: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
        return F.kl_div(outputs.float().log_softmax(1), encoded, reduction="batchmean")

    def predict(self, outputs: torch.Tensor) -> np.ndarray:
        return (outputs.double().softmax(1).cpu() @ self.centres.double()).numpy()

    metrics = Regression.metrics

    def state(self) -> dict[str, Any]:
        return {"loss": "soft-label", "low": self.low, "high": self.high, "width": self.width, "sigma": self.sigma}


class Classification(Objective):
    """One of some classes, each weighted by the inverse of its frequency in the training scans."""

    def __init__(self, classes: Sequence[str], weights: Sequence[float]) -> None:
        self.classes, self.class_weights = list(classes), list(weights)
        self.outputs = len(self.classes)

    def encode(self, labels: np.ndarray) -> torch.Tensor:
        return torch.tensor([self.classes.index(str(label)) for label in labels])

    def loss(self, outputs: torch.Tensor, encoded: torch.Tensor) -> torch.Tensor:
        weights = self.weights(torch.arange(self.outputs)).to(outputs.device, non_blocking=True)
        return F.cross_entropy(outputs.float(), encoded, weights)

    def weights(self, encoded: torch.Tensor) -> torch.Tensor:
        return torch.tensor(self.class_weights, dtype=torch.float32)[encoded]

    def predict(self, outputs: torch.Tensor) -> np.ndarray:
        return outputs.double().softmax(1).cpu().numpy()

    def metrics(self, predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        metrics = classification_metrics(self.encode(labels).numpy(), predictions)
        return {f"val_{name}": metrics[name] for name in ("accuracy", "auc")}

    def state(self) -> dict[str, Any]:
        return {"loss": "cross-entropy", "classes": self.classes, "weights": self.class_weights}


def make_objective(target: dict[str, Any], training: dict[str, Any], labels: np.ndarray) -> Objective:
    """Return the objective of a target (a block of the config) with the settings and the labels of training."""
    if target["type"] == "classification":
        classes = list(target["classes"])
        counts = np.array([(labels.astype(str) == name).sum() for name in classes])
        return Classification(classes, (len(labels) / (len(classes) * np.maximum(counts, 1))).tolist())
    if training["loss"] == "soft-label":
        low, high = training["bins"]
        numbers = labels.astype(float)
        outside = ((numbers < low) | (numbers > high)).mean()
        if outside > 0.05:
            raise UserError(
                f"{outside:.0%} of the training labels lie outside the `bins` {low} to {high} of the training block. Set "
                f"`bins` to the range of {target['column']!r}, {numbers.min():g} to {numbers.max():g} here."
            )
        return SoftLabel(low, high, training["bin_width"], training["bin_sigma"])
    numbers = labels.astype(float)
    return Regression("l2" if training["loss"] == "l2" else "l1", float(numbers.mean()), float(numbers.std()) or 1.0)


def load_objective(state: dict[str, Any]) -> Objective:
    """Return the objective that `state` was taken from."""
    arguments = {key: value for key, value in state.items() if key != "loss"}
    match state["loss"]:
        case "soft-label":
            return SoftLabel(**arguments)
        case "cross-entropy":
            return Classification(**arguments)
        case loss:
            return Regression(loss, **arguments)
