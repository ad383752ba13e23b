"""Which batch fits into memory: how large it is, and what to advise where it is too large."""

import gc
import mmap
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from mriflow.base.errors import UserError
from mriflow.training.forward import autocast, out_of_memory, outputs_of
from mriflow.training.loader import Batch, ScanLoader

# Addresses, not memory, given up to try what fits when there are none left: oneDNN's code for another batch takes some.
RESERVE_BYTES = 128 * 2**20


def batch_sizes(settings: dict[str, Any], scans: int, processes: int) -> tuple[int, int]:
    """Return how many scans a step takes, and how many of them go through the network at once in each process."""
    parts = settings["accumulate"] * processes
    if settings["batch_size"] % parts or settings["batch_size"] // parts < 1:
        raise UserError(
            f"`batch_size: {settings['batch_size']}` of the training block cannot be shared by {processes} process(es) in "
            f"{settings['accumulate']} part(s) each (`accumulate`); expected a multiple of {parts}."
        )
    batch = min(settings["batch_size"], scans // parts * parts)
    if not batch:
        raise UserError(f"{scans} training scans are too few for {parts} parts of a batch; train with fewer GPUs.")
    return batch, batch // parts


class MemoryTrial:
    """Tries which batch of a network fits, after one did not.

    Parameters
    ----------
    net
        On `device`.
    precision
        Of the network's arithmetic (`mriflow.training.forward.precision`).
    """

    def __init__(self, net: nn.Module, device: torch.device, precision: torch.dtype) -> None:
        self.net, self.device, self.precision = net, device, precision
        self.reserve = mmap.mmap(-1, RESERVE_BYTES)

    def advice(self, micro_batch: int, settings: dict[str, Any], scans: ScanLoader, processes: int, failed: str) -> str:
        """Return the message for scans that do not fit into memory, with the largest batch that does.

        Parameters
        ----------
        micro_batch
            How many scans did not fit.
        settings
            The training block.
        scans
            The training scans.
        failed
            What the error says.
        """
        shape = settings.get("patch") or scans.shape
        grid = "x".join(map(str, shape))
        text = f"{micro_batch} scans of {grid} voxels do not fit into the memory of this {self.device.type} ({failed}). "
        self.reserve.close()
        smaller = [2**power for power in range(10, 0, -1) if 2**power < micro_batch]
        largest = next((count for count in smaller if self.fits(count, scans, shape)), 0)
        if not largest:
            return text + "Not even 2 scans fit: use a coarser grid (`preprocess`), a smaller network, or more memory."
        batch, of_all = settings["batch_size"], largest * processes
        text += f"{largest} scans fit. Set `batch_size: {of_all * settings['accumulate']}` in the training block"
        for parts in range(-(-batch // of_all), batch // (2 * processes) + 1):
            if batch % (parts * processes) == 0:
                return f"{text}, or `accumulate: {parts}`, which trains with the same batches of {batch} in smaller parts."
        return f"{text}."

    def fits(self, count: int, scans: ScanLoader, shape: Sequence[int]) -> bool:
        """Return whether a step with `count` empty scans, and half more, works: what a step takes differs between runs.

        Two are tried as two. It is tried as for evaluation, which takes the same memory: batch norm would ask the other
        processes for their share.
        """
        self.net.eval()
        self.net.zero_grad(set_to_none=True)
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        try:
            tried = count if count == 2 else count + count // 2
            images = torch.zeros(tried, scans.channels, *shape, device=self.device)
            covariates = torch.zeros(tried, scans.covariates.shape[1], device=self.device)
            with autocast(self.device, self.precision):
                outputs_of(self.net, Batch(images, covariates, covariates)).sum().backward()
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            return False
        return True
