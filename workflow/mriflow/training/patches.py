"""Patches of scans, for networks that segment what does not fit into memory: random ones in training, windows in prediction."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from mriflow.training.forward import main_output
from mriflow.training.loader import Batch

OVERLAP = 0.25  # of neighbouring windows, along each axis


def random_patches(batch: Batch, seeds: Sequence[int], size: Sequence[int]) -> Batch:
    """Cut a patch out of each scan and its label map, at a place that follows from the scan's seed.

    Parameters
    ----------
    batch
        Images of shape (n, channels, x, y, z) and label maps of shape (n, x, y, z).
    seeds
        One for each scan.
    size
        Of a patch, in voxels; no larger than the scans.
    """
    images, labels = [], []
    for image, label, seed in zip(batch.images, batch.labels, seeds, strict=True):
        draws = torch.Generator().manual_seed(seed)
        free = [whole - part + 1 for whole, part in zip(image.shape[1:], size, strict=True)]
        starts = [int(torch.randint(count, (1,), generator=draws)) for count in free]
        place = tuple(slice(start, start + part) for start, part in zip(starts, size, strict=True))
        images.append(image[(slice(None), *place)])
        labels.append(label[place])
    return batch._replace(images=torch.stack(images), labels=torch.stack(labels))


def over_windows(net: nn.Module, size: Sequence[int] | None) -> Callable[..., Any]:
    """Return what runs a network over whole scans in windows of the size of its patches; the network itself if it has none.

    Where windows overlap, what they say is weighted by a Gaussian, for a network knows least about the edge of what it sees.
    """
    if size is None:
        return net
    from monai.inferers import sliding_window_inference

    def whole(images: torch.Tensor) -> torch.Tensor:
        return sliding_window_inference(  # type: ignore[return-value]
            images, tuple(size), 1, lambda window: main_output(net(window)), overlap=OVERLAP, mode="gaussian"
        )

    return whole
