"""A network run over scans: in which precision, compiled or not, and how a lack of memory is known."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from mriflow.training.loader import Batch, ScanLoader

log = logging.getLogger(__name__)


def precision(device: torch.device, settings: dict[str, Any]) -> torch.dtype:
    """Return bfloat16 or, on a card without it, float16 for the network's arithmetic on a GPU; float32 if it is turned off."""
    if device.type != "cuda" or settings["mixed_precision"] == "off":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def autocast(device: torch.device, precision: torch.dtype) -> AbstractContextManager:
    """Compute in `precision` what may be computed so; float32 is what is computed anyway."""
    return torch.autocast(device.type, precision, enabled=precision != torch.float32)


def compiled(net: nn.Module) -> Callable[..., Any]:
    """Return a network compiled at its first use; if that fails, it says so and goes on as it is."""
    state: dict[str, Any] = {"forward": torch.compile(net), "tried": False}

    def forward(*inputs: torch.Tensor, **covariates: torch.Tensor) -> Any:
        if state["tried"]:
            return state["forward"](*inputs, **covariates)
        state["tried"] = True
        try:
            return state["forward"](*inputs, **covariates)
        except Exception as error:  # the compiler, and what it calls, fail in many ways
            if out_of_memory(error):
                raise
            log.warning("the network cannot be compiled, going on without: %s", str(error).strip().splitlines()[0])
            state["forward"] = net
            return net(*inputs, **covariates)

    return forward


def out_of_memory(error: BaseException) -> bool:
    """Return whether an error is the lack of memory, in the words of PyTorch, cuDNN, cuBLAS or oneDNN."""
    texts = ("out of memory", "allocate memory", "ALLOC_FAILED", "unable to find an engine", "could not create a primitive")
    return isinstance(error, MemoryError) or any(text in str(error) for text in texts)


def main_output(answer: Any) -> torch.Tensor:
    """Return the outputs of a network; some give a tuple or list with further tensors."""
    return answer[0] if isinstance(answer, tuple | list) else answer


def outputs_of(net: Callable[..., Any], batch: Batch) -> torch.Tensor:
    """Return the outputs of a network for a batch, shape (scans, outputs)."""
    images = batch.images.contiguous(memory_format=torch.channels_last_3d)
    answer = net(images, covariates=batch.covariates) if batch.covariates.shape[1] else net(images)
    return main_output(answer).float()


@torch.inference_mode()
def run_network(
    net: nn.Module,
    scans: ScanLoader,
    batch: int,
    positions: torch.Tensor | None = None,
    precision: torch.dtype = torch.float32,
    change: Callable[[torch.Tensor, slice], torch.Tensor] = lambda images, places: images,
) -> torch.Tensor:
    """Return the outputs of a network in evaluation mode, float32, shape (scans, outputs), for all scans or some.

    Parameters
    ----------
    change
        What is done to the images of a batch first; it is told which of the scans they are.
    """
    net.eval()
    wanted = torch.arange(len(scans)) if positions is None else positions
    outputs: list[torch.Tensor] = []
    for number, volumes in enumerate(scans.batches(wanted, batch)):
        places = slice(number * batch, (number + 1) * batch)
        with autocast(scans.device, precision):
            outputs.append(outputs_of(net, volumes._replace(images=change(volumes.images, places))))
    return torch.cat(outputs)


def mirrored(images: torch.Tensor, places: slice = slice(None)) -> torch.Tensor:
    """Return images with left and right swapped."""
    return images.flip(2)
