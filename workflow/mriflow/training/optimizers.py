"""The optimiser, and the learning rate over the epochs."""

from typing import Any

import torch
from torch import nn


def make_optimizer(net: nn.Module, settings: dict[str, Any]) -> torch.optim.Optimizer:
    """Return AdamW, or SGD with momentum 0.9, each as one operation for all parameters that are trained."""
    rate, decay = settings["learning_rate"], settings["weight_decay"]
    trained = [parameter for parameter in net.parameters() if parameter.requires_grad]
    if settings["optimizer"] == "sgd":
        return torch.optim.SGD(trained, rate, momentum=0.9, weight_decay=decay, fused=True)
    return torch.optim.AdamW(trained, rate, weight_decay=decay, fused=True)


def make_schedule(
    optimizer: torch.optim.Optimizer, settings: dict[str, Any], steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """Return the learning rate's schedule over `settings["epochs"]` epochs of `steps` steps, one step at a time."""
    total = settings["epochs"] * steps
    schedules = torch.optim.lr_scheduler
    match settings["schedule"]:
        case "one-cycle":
            # One step more than there will be: the schedule refuses to be asked once too often.
            return schedules.OneCycleLR(optimizer, settings["learning_rate"], total_steps=total + 1)
        case "cosine":
            return schedules.CosineAnnealingLR(optimizer, total)
        case "step":
            return schedules.StepLR(optimizer, max(1, total // 5), gamma=0.3)
        case _:
            return schedules.ConstantLR(optimizer, factor=1.0)
