"""The preprocessed scans as the network sees them: batches of float tensors out of memory-mapped shards.

`open_shards` maps the shards of a dataset into memory; a `ScanLoader` gives some of its scans out in batches.
"""

import errno
import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from mriflow.base.errors import UserError
from mriflow.tables.labels import read_index

log = logging.getLogger(__name__)

AHEAD = 3  # batches that are read before they are asked for


class Shards(Mapping[str, np.ndarray]):
    """The shards of a dataset, mapped into memory: for the id of every scan its volume, uint8, not yet read.

    A volume has the shape (x, y, z), or with several channels (channels, x, y, z).

    Parameters
    ----------
    arrays
        uint8, shape (scans, x, y, z) or (scans, channels, x, y, z), all of one grid.
    places
        For each id the number of its array and its row there.
    """

    def __init__(self, arrays: Sequence[np.ndarray], places: Mapping[str, tuple[int, int]]) -> None:
        self.arrays, self.places = arrays, places

    def __getitem__(self, scan: str) -> np.ndarray:
        array, row = self.places[scan]
        return self.arrays[array][row]

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    @property
    def shape(self) -> tuple[int, ...]:
        """The grid, in voxels."""
        return self.arrays[0].shape[-3:]

    @property
    def channels(self) -> int:
        """How many images of a scan there are."""
        return self.arrays[0].shape[1] if self.arrays[0].ndim == 5 else 1


def open_shards(arrays: Sequence[Path], indices: Sequence[Path]) -> Shards:
    """Map the shards of a dataset into memory; scans with a problem are not in them.

    Parameters
    ----------
    arrays, indices
        The .npy and .csv files that `preprocess` made, in the same order.

    Raises
    ------
    UserError
        If an array and its index do not belong together, grids differ, or the job's limit on memory is below the shards' size.
    """
    mapped: list[np.ndarray] = []
    places: dict[str, tuple[int, int]] = {}
    for array, index in zip(arrays, indices, strict=True):
        try:
            shard = np.load(array, mmap_mode="r", allow_pickle=False)
        except OSError as error:
            if error.errno != errno.ENOMEM:
                raise
            size = sum(path.stat().st_size for path in arrays) / 1e6
            raise UserError(
                f"{array}: cannot be mapped into memory, for the job's memory is limited. The shards take {size:.0f} MB of "
                "address space: add that to `mem_mb` of the rule (nothing is read before it is needed)."
            ) from error
        rows = read_index(index)
        rows = rows[rows["index"].notna()]
        if len(rows) != len(shard):
            raise UserError(f"{array} holds {len(shard)} scans, {index} lists {len(rows)}. Delete both and run again.")
        if len(shard):
            places |= {scan: (len(mapped), int(row)) for scan, row in zip(rows["id"], rows["index"], strict=True)}
            mapped.append(shard)
    shapes = {shard.shape[1:] for shard in mapped}
    if not mapped:
        raise UserError(f"none of the {len(arrays)} shards holds a usable scan; their indices say why ({indices[0]} ...).")
    if len(shapes) > 1:
        raise UserError(f"the shards have different grids {sorted(shapes)}. Delete them and run again.")
    return Shards(mapped, places)


class ScanLoader:
    """Some scans of a dataset, given out in batches.

    On a GPU they are kept whole in its memory where half of what is free holds them. Else they are read from the mapped
    shards, and copied, while the device computes; on a CPU the system keeps in memory what was read, as long as it fits.

    Parameters
    ----------
    shards
        The dataset.
    ids
        The scans.
    device
        Where the batches are wanted.
    """

    def __init__(self, shards: Shards, ids: Sequence[str], device: torch.device) -> None:
        self.arrays = shards.arrays
        self.shape = shards.shape
        places = np.array([shards.places[scan] for scan in ids]).reshape(-1, 2)
        self.array_of, self.row_of = places[:, 0], places[:, 1]
        self.device = device
        self.copying = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.resident = self.load_all() if device.type == "cuda" else None

    def __len__(self) -> int:
        return len(self.row_of)

    def load_all(self) -> torch.Tensor | None:
        """Return all scans on the device, or None if they do not fit."""
        free, _ = torch.cuda.mem_get_info(self.device)
        size = len(self) * int(np.prod(self.shape))
        fits = size < free / 2
        where = "kept whole on the GPU" if fits else "read from the shards while it computes"
        log.info("%d scans (%.1f GB; the GPU has %.1f GB free): %s", len(self), size / 1e9, free / 1e9, where)
        if not fits:
            return None
        volumes = torch.empty((len(self), *self.shape), dtype=torch.uint8, device=self.device)
        for chunk in torch.arange(len(self)).split(64):
            volumes[chunk.to(self.device)] = self.read(chunk).to(self.device)
        return volumes

    def batches(self, positions: torch.Tensor, size: int) -> Iterator[torch.Tensor]:
        """Give the scans at `positions` (int64, on the CPU) in batches of `size`; the last may be smaller.

        Yields
        ------
        float32 between 0 and 1 on the device, shape (scans, 1, x, y, z).
        """
        if self.resident is not None:
            for chosen in positions.to(self.device).split(size):
                yield self.as_float(self.resident[chosen])
            return
        reader = ThreadPoolExecutor(1)
        ahead: deque = deque()
        try:
            for chosen in positions.split(size):
                ahead.append(reader.submit(self.fetch, chosen))
                if len(ahead) > AHEAD:
                    yield self.as_float(*ahead.popleft().result())
            while ahead:
                yield self.as_float(*ahead.popleft().result())
        finally:
            reader.shutdown(cancel_futures=True)

    def read(self, positions: torch.Tensor) -> torch.Tensor:
        """Return scans as they stand in the shards, uint8, shape (scans, x, y, z), in memory that a GPU can copy from."""
        volumes = torch.empty((len(positions), *self.shape), dtype=torch.uint8, pin_memory=self.copying is not None)
        # With NumPy, for torch would start threads of its own in the reader's thread, which take the cores from the network's.
        arrays, rows, read = self.array_of[positions.numpy()], self.row_of[positions.numpy()], volumes.numpy()
        for array in np.unique(arrays):
            of_array = arrays == array
            read[of_array] = self.arrays[array][rows[of_array]]
        return volumes

    def fetch(self, positions: torch.Tensor) -> tuple[torch.Tensor, "torch.cuda.Event | None"]:
        """Return scans on the device, and what tells when their copy is done."""
        if self.copying is None:
            return self.read(positions), None
        with torch.cuda.stream(self.copying):  # reading, too: it allocates for the card of the current stream
            volumes = self.read(positions).to(self.device, non_blocking=True)
            return volumes, self.copying.record_event()

    def as_float(self, volumes: torch.Tensor, copied: "torch.cuda.Event | None" = None) -> torch.Tensor:
        """Return uint8 volumes as the network wants them, once their copy is done."""
        if copied is not None:
            now = torch.cuda.current_stream(self.device)
            now.wait_event(copied)
            volumes.record_stream(now)  # else their memory might be given away before it was read
        return volumes[:, None].float().div_(255)
