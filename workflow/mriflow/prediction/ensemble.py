"""The prediction of several networks together."""

from collections.abc import Callable, Iterator, Sequence
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
from mriflow.training.objectives import Objective, Segmentation, load_objective

BATCH = 2  # more at 1 mm take more memory than the job asks for

Change = Callable[[torch.Tensor, slice], torch.Tensor]


def unchanged(images: torch.Tensor, places: slice) -> torch.Tensor:
    """Return images as they are."""
    return images


class Trained(NamedTuple):
    """A trained network in evaluation mode, what makes predictions of its outputs, numbers of its covariates, its seed.

    And the shape of what it was trained on: the grid, or a patch of it.
    """

    net: nn.Module
    objective: Objective
    covariates: Covariates
    seed: int = 0
    shape: Sequence[int] = ()

    @classmethod
    def of(cls, model: dict[str, Any], device: torch.device, random_seed: int | None = None) -> "Trained":
        """Return the network in the content of a model.pt; with `random_seed`, with random numbers instead of its weights."""
        objective, numbers = load_objective(model["objective"]), Covariates(model["covariates"])
        name, arguments = model["network"]["name"], model["network"]["arguments"]
        if "classification_head.0.weight" in model["weights"]:  # a ViT of before, which ended in a tanh
            arguments = {"post_activation": "Tanh", **arguments}
        if random_seed is not None:
            torch.manual_seed(random_seed)
        of_voxels = isinstance(objective, Segmentation)
        sizes = (model["shape"], len(model["channels"]), numbers.width)
        net = build_network(name, arguments, objective.outputs, *sizes, of_voxels=of_voxels)
        if random_seed is None:
            net.load_state_dict(model["weights"])
        return cls(net.to(device).eval(), objective, numbers, model["seed"], model["shape"])


def load_networks(models: Sequence[Path], fold: int, device: torch.device, random_seed: int | None = None) -> Iterator[Trained]:
    """Yield the networks of a fold one by one; with `random_seed`, their weights are random numbers instead of the trained.

    Raises
    ------
    UserError
        If there is none.
    """
    found = 0
    for path in models:
        model = torch.load(path, map_location="cpu", weights_only=True)
        if model["fold"] != fold:
            continue
        yield Trained.of(model, device, None if random_seed is None else random_seed + found)
        found += 1
    if not found:
        raise UserError(f"none of the {len(models)} models is of fold {fold}; train it first.")


def predict_each(
    models: Sequence[Path],
    fold: int,
    shards: Shards,
    ids: Sequence[str],
    covariates: pd.DataFrame,
    device: torch.device,
    tta: str = "none",
    change: Change = unchanged,
) -> dict[int, np.ndarray]:
    """Return the prediction of each model of a fold for some scans, by its seed; each is loaded once.

    Parameters
    ----------
    covariates
        Of every preprocessed scan (`mriflow.training.covariates.read_covariates`).
    tta
        ``mirror``: the mean over the scans and their mirror images; ``none``: the scans alone.
    change
        What is done to the images of a batch first (`mriflow.training.forward.run_network`).

    Returns
    -------
    Shape (scans,) or (scans, classes) each.
    """
    networks = load_networks(models, fold, device)
    return {one.seed: predict_one(one, shards, ids, covariates, device, tta, BATCH, change) for one in networks}


def predict(*args: Any, **options: Any) -> np.ndarray:
    """Return the mean prediction of all models of a fold for some scans; arguments as of `predict_each`."""
    return np.mean(list(predict_each(*args, **options).values()), axis=0)


def predict_one(
    network: Trained,
    shards: Shards,
    ids: Sequence[str],
    covariates: pd.DataFrame,
    device: torch.device,
    tta: str,
    batch: int,
    change: Change = unchanged,
) -> np.ndarray:
    """Return the prediction of one network for some scans; see `predict_each`."""
    scans = ScanLoader(shards, ids, device, network.covariates.encode(covariates.loc[list(ids)]))
    both = [network.objective.predict(run_network(network.net, scans, batch, change=change))]
    if tta == "mirror":
        swapped = run_network(network.net, scans, batch, change=lambda images, places: mirrored(change(images, places)))
        both.append(network.objective.predict(swapped))
    return np.mean(both, axis=0)
