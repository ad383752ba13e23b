"""The prediction of all networks of a fold together."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from mriflow.base.errors import UserError
from mriflow.training.covariates import Covariates
from mriflow.training.forward import mirrored, run_network
from mriflow.training.loader import ScanLoader, Shards
from mriflow.training.networks import build_network
from mriflow.training.objectives import load_objective

BATCH = 2  # more at 1 mm take more memory than the job asks for


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
        if model["fold"] != fold:
            continue
        objective, numbers = load_objective(model["objective"]), Covariates(model["covariates"])
        scans = ScanLoader(shards, ids, device, numbers.encode(covariates.loc[list(ids)]))
        name, arguments = model["network"]["name"], model["network"]["arguments"]
        net = build_network(name, arguments, objective.outputs, model["shape"], len(model["channels"]), numbers.width)
        net.load_state_dict(model["weights"])
        net = net.to(device)
        both = [objective.predict(run_network(net, scans, BATCH))]
        if tta == "mirror":
            both.append(objective.predict(run_network(net, scans, BATCH, change=mirrored)))
        predictions[model["seed"]] = np.mean(both, axis=0)
    if not predictions:
        raise UserError(f"none of the {len(models)} models is of fold {fold}; train it first.")
    return predictions


def predict(*args: Any, **options: Any) -> np.ndarray:
    """Return the mean prediction of all models of a fold for some scans; arguments as of `predict_each`."""
    return np.mean(list(predict_each(*args, **options).values()), axis=0)
