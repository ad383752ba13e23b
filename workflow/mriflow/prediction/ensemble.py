"""The prediction of all networks of a fold together."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from mriflow.base.errors import UserError
from mriflow.training.forward import run_network
from mriflow.training.loader import ScanLoader
from mriflow.training.networks import build_network
from mriflow.training.objectives import load_objective


def predict(models: Sequence[Path], fold: int, scans: ScanLoader) -> np.ndarray:
    """Return the mean prediction of all models of a fold: shape (scans,) or (scans, classes)."""
    predictions = []
    for path in models:
        model = torch.load(path, map_location="cpu", weights_only=True)
        if model["fold"] != fold:
            continue
        objective = load_objective(model["objective"])
        net = build_network(model["network"]["name"], model["network"]["arguments"], objective.outputs, model["shape"])
        net.load_state_dict(model["weights"])
        outputs = run_network(net.to(scans.device), scans, batch=2)  # more at 1 mm take more memory than the job asks for
        predictions.append(objective.predict(outputs))
    if not predictions:
        raise UserError(f"none of the {len(models)} models is of fold {fold}; train it first.")
    return np.mean(predictions, axis=0)
