"""Weights averaged over epochs (Izmailov et al. 2018, arXiv:1803.05407)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mriflow.training.checkpoint import on_cpu
from mriflow.training.forward import autocast, outputs_of
from mriflow.training.freezing import is_frozen
from mriflow.training.loader import ScanLoader


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
def recalibrate(net: nn.Module, scans: ScanLoader, batch: int, precision: torch.dtype) -> None:
    """Take the statistics of batch norm anew, from scans as they are: those of averaged weights are of none of them."""
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
    whole = len(scans) // batch * batch or len(scans)  # batch norm takes no batch of one
    for volumes in scans.batches(torch.arange(whole), batch):
        with autocast(scans.device, precision):
            outputs_of(net, volumes)
    for norm, before in zip(norms, momentum, strict=True):
        norm.momentum = before
    net.eval()
