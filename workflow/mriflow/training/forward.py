"""A network run over scans: in which precision, compiled or not, and how a lack of memory is known."""

import logging
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from mriflow.training.loader import Batch, ScanLoader

log = logging.getLogger(__name__)


# Multiply-adds for each voxel of the grid from which on a CPU is a fifth or more faster in bfloat16, in all that was measured
# (tests/benchmarks/README.md). The demo's network makes 970.
WIDE = 2000


def precision(device: torch.device, settings: dict[str, Any], work: Callable[[], float]) -> torch.dtype:
    """Return the precision of a network's arithmetic in training; float32 if `mixed_precision` is off.

    On a GPU it is bfloat16 or, on a card without it, float16. On a CPU it is bfloat16 if the processor has that and the network
    is wide enough (`work` returns what `work_of` does): a rule instead of a measurement, so that the same bytes come twice.
    """
    if settings["mixed_precision"] == "off":
        return torch.float32
    if device.type == "cpu":
        return torch.bfloat16 if cpu_has_bfloat16() and work() >= WIDE else torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def cpu_has_bfloat16() -> bool:
    """Return whether the processor multiplies numbers in bfloat16 itself; others emulate it, and slowly."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.cpu, "get_capabilities"):  # PyTorch before 2.13
        return False
    return bool(torch.cpu.get_capabilities().get("avx512_bf16", False))


@torch.no_grad()
def work_of(net: nn.Module, shape: Sequence[int], channels: int = 1, covariates: int = 0) -> float:
    """Return how many multiply-adds a network on the CPU makes for each voxel of a scan, in convolutions and linear layers.

    >>> work_of(nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.Flatten(), nn.Linear(2 * 4**3, 1)), (4, 4, 4))
    56.0
    """
    counts: list[int] = []

    def count(layer: nn.Module, inputs: object, outputs: torch.Tensor) -> None:
        counts.append(outputs.numel() * layer.weight[0].numel())  # type: ignore[index]

    layers = [layer for layer in net.modules() if isinstance(layer, nn.Conv3d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    net.eval()
    outputs_of(net, Batch(torch.zeros(1, channels, *shape), torch.zeros(1, covariates), torch.zeros(1, 0)))
    for hook in hooks:
        hook.remove()
    return sum(counts) / math.prod(shape)


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
    images = channels_last(batch.images)
    answer = net(images, covariates=batch.covariates) if batch.covariates.shape[1] else net(images)
    return main_output(answer).float()


def channels_last(images: torch.Tensor) -> torch.Tensor:
    """Return images, shape (scans, channels, x, y, z), with the channels of a voxel beside each other in memory.

    Of a single channel both orders are the same numbers in the same places, and PyTorch takes them for the other one: on a GPU
    the first layer then computes in it, and its outputs, the largest there are, are copied into this one. So the strides tell.
    """
    images = images.contiguous(memory_format=torch.channels_last_3d)
    if images.shape[1] > 1 or images.device.type == "cpu":  # where it makes no difference
        return images
    x, y, z = images.shape[2:]
    return images.as_strided(images.shape, (x * y * z, 1, y * z, z, 1))


@torch.inference_mode()
def run_network(
    net: Callable[..., Any],
    scans: ScanLoader,
    batch: int,
    positions: torch.Tensor | None = None,
    precision: torch.dtype = torch.float32,
    change: Callable[[torch.Tensor, slice], torch.Tensor] = lambda images, places: images,
    keep: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = lambda outputs, labels: outputs,
) -> torch.Tensor:
    """Return the outputs of a network in evaluation mode, float32, shape (scans, outputs), for all scans or some.

    Parameters
    ----------
    change
        What is done to the images of a batch first; it is told which of the scans they are.
    keep
        What is kept of the outputs of a batch, given its labels (`mriflow.training.objectives.Objective.kept`).
    """
    if isinstance(net, nn.Module):
        net.eval()
    wanted = torch.arange(len(scans)) if positions is None else positions
    outputs: list[torch.Tensor] = []
    for number, volumes in enumerate(scans.batches(wanted, batch)):
        places = slice(number * batch, (number + 1) * batch)
        volumes = volumes._replace(images=change(volumes.images, places))  # in float32: there is no Fourier transform in others
        with autocast(scans.device, precision):
            found = outputs_of(net, volumes)
        outputs.append(keep(found, volumes.labels))
    return torch.cat(outputs)


def mirrored(images: torch.Tensor, places: slice = slice(None)) -> torch.Tensor:
    """Return images with left and right swapped."""
    return images.flip(2)
