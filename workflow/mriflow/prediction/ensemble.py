"""The prediction of several networks together."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import nn

from mriflow.base.errors import UserError
from mriflow.training.covariates import Covariates
from mriflow.training.forward import mirrored, run_network
from mriflow.training.loader import ScanLoader, Shards
from mriflow.training.networks import build_network
from mriflow.training.objectives import Objective, load_objective

BATCH = 2  # more at 1 mm take more memory than the job asks for


class Member(NamedTuple):
    """One network of an ensemble, on its device, and how its inputs are encoded and its outputs read."""

    net: nn.Module
    objective: Objective
    covariates: Covariates

    @classmethod
    def of(cls, model: dict[str, Any], device: torch.device) -> "Member":
        """Return the network in the content of a model.pt."""
        objective, numbers = load_objective(model["objective"]), Covariates(model["covariates"])
        name, arguments = model["network"]["name"], model["network"]["arguments"]
        net = build_network(name, arguments, objective.outputs, model["shape"], len(model["channels"]), numbers.width)
        net.load_state_dict(model["weights"])
        return cls(net.to(device).eval(), objective, numbers)


def predict_each(
    models: Sequence[Path],
    fold: int,
    shards: Shards,
    ids: Sequence[str],
    covariates: pd.DataFrame,
    device: torch.device,
    tta: str = "none",
) -> dict[int, np.ndarray]:
    """Return the prediction of each model of a fold for some scans, by its seed; each is loaded once.

    Parameters
    ----------
    covariates
        Of every preprocessed scan (`mriflow.training.covariates.read_covariates`).
    tta
        ``mirror``: the mean over the scans and their mirror images; ``none``: the scans alone.

    Returns
    -------
    Shape (scans,) or (scans, classes) each.
    """
    predictions = {}
    for path in models:
        model = torch.load(path, map_location="cpu", weights_only=True)
        if model["fold"] == fold:
            predictions[model["seed"]] = predict_one(Member.of(model, device), shards, ids, covariates, device, tta, BATCH)
    if not predictions:
        raise UserError(f"none of the {len(models)} models is of fold {fold}; train it first.")
    return predictions


def predict(*args: Any, **options: Any) -> np.ndarray:
    """Return the mean prediction of all models of a fold for some scans; arguments as of `predict_each`."""
    return np.mean(list(predict_each(*args, **options).values()), axis=0)


def predict_one(
    member: Member,
    shards: Shards,
    ids: Sequence[str],
    covariates: pd.DataFrame,
    device: torch.device,
    tta: str,
    batch: int,
) -> np.ndarray:
    """Return the prediction of one network for some scans; see `predict_each`."""
    scans = ScanLoader(shards, ids, device, member.covariates.encode(covariates.loc[list(ids)]))
    both = [member.objective.predict(run_network(member.net, scans, batch))]
    if tta == "mirror":
        both.append(member.objective.predict(run_network(member.net, scans, batch, change=mirrored)))
    return np.mean(both, axis=0)
