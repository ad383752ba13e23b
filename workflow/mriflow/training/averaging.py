"""Weights averaged over epochs (Izmailov et al. 2018, arXiv:1803.05407), and statistics of batch norm that fit the weights."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mriflow.training.checkpoint import on_cpu
from mriflow.training.forward import autocast, outputs_of
from mriflow.training.freezing import is_frozen
from mriflow.training.loader import Batch


class RunningMean:
    """The mean of several states of a network, taken up one after the other.

    >>> mean = RunningMean()
    >>> for weight in (1.0, 2.0, 6.0):
    ...     mean.add({"weight": torch.tensor(weight)})
    >>> mean.mean["weight"].item(), mean.count
    (3.0, 3)
    """

    def __init__(self, mean: Mapping[str, torch.Tensor] | None = None, count: int = 0) -> None:
        self.mean, self.count = dict(mean or {}), count

    def add(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take up one more state; what is no real number (counters) is kept as it is last."""
        self.count += 1
        for name, value in on_cpu(dict(state)).items():
            before = self.mean.get(name, value)
            self.mean[name] = before + (value - before) / self.count if value.is_floating_point() else value

    def state(self) -> dict[str, Any]:
        """Return what makes the same mean again."""
        return {"mean": self.mean, "count": self.count}


@torch.no_grad()
def recalibrate(net: nn.Module, batches: Iterable[Batch], precision: torch.dtype) -> None:
    """Take the statistics of batch norm anew, from some scans of the training, as the mean of their batches' own.

    The idea is Wu & Johnson's (2021, arXiv:2105.07576), who pool the scans of all batches; here a batch is normalised as one of
    training is, without the differences between batches. The running ones of small batches lag behind weights that change fast,
    by tens of years of age, and averaged weights have none at all. Nothing is done to a network without batch norm.
    """
    norms = [module for module in net.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    norms = [norm for norm in norms if not is_frozen(norm)]
    if not norms:
        return
    net.eval()
    momentum = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    for batch in batches:
        with autocast(batch.images.device, precision):
            outputs_of(net, batch)
    for norm, before in zip(norms, momentum, strict=True):
        norm.momentum = before
    net.eval()
