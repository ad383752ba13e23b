"""The preprocessed scans as the network sees them: batches of float tensors out of memory-mapped shards."""

import resource
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import psutil
import torch

from mriflow.errors import UserError
from mriflow.labels import read_index


def open_shards(arrays: Sequence[Path], indices: Sequence[Path]) -> dict[str, np.ndarray]:
    """Map the shards of a dataset into memory.

    Parameters
    ----------
    arrays, indices
        The .npy and .csv files that `preprocess` made, in the same order.

    Returns
    -------
    For the id of every scan without a problem its volume: uint8, shape (x, y, z), not yet read.

    Raises
    ------
    UserError
        If an array and its index do not belong together, or grids differ.
    """
    volumes: dict[str, np.ndarray] = {}
    for array, index in zip(arrays, indices, strict=True):
        shard = np.load(array, mmap_mode="r", allow_pickle=False)
        rows = read_index(index)
        rows = rows[rows["index"].notna()]
        if len(rows) != len(shard):
            raise UserError(f"{array} holds {len(shard)} scans, {index} lists {len(rows)}. Delete both and run again.")
        volumes |= {scan: shard[position] for scan, position in zip(rows["id"], rows["index"], strict=True)}
    shapes = {volume.shape for volume in volumes.values()}
    if not volumes:
        raise UserError(f"none of the {len(arrays)} shards holds a usable scan; their indices tell why ({indices[0]} ...).")
    if len(shapes) > 1:
        raise UserError(f"the shards have different grids {sorted(shapes)}. Delete them and run again.")
    return volumes


class Volumes:
    """Some scans of a dataset, given out in batches.

    They are kept whole on the device where half of its free memory holds them, else read from the mapped shards.

    Parameters
    ----------
    volumes
        uint8 arrays of one shape (x, y, z).
    device
        Where the batches are wanted.
    """

    def __init__(self, volumes: Sequence[np.ndarray], device: torch.device) -> None:
        self.volumes = volumes
        self.device = device
        size = sum(volume.nbytes for volume in volumes)
        self.resident = torch.from_numpy(np.stack(volumes)).to(device) if size < free_memory(device) / 2 else None

    def __len__(self) -> int:
        return len(self.volumes)

    def batch(self, positions: Sequence[int]) -> torch.Tensor:
        """Return scans as float32 between 0 and 1 on the device, shape (scans, 1, x, y, z)."""
        if self.resident is not None:
            volumes = self.resident[torch.as_tensor(positions, device=self.device)]
        else:
            volumes = torch.from_numpy(np.stack([self.volumes[i] for i in positions])).to(self.device)
        return volumes[:, None].float() / 255


def free_memory(device: torch.device) -> int:
    """Return the free memory of a device in bytes."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    available = psutil.virtual_memory().available
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)  # as a cluster's h_vmem sets it
    return available if limit == resource.RLIM_INFINITY else min(available, limit - psutil.Process().memory_info().vms)
