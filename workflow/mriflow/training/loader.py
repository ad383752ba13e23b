"""The preprocessed scans as the network sees them: batches of float tensors out of memory-mapped shards.

`open_shards` maps the shards of a dataset into memory; a `ScanLoader` gives some of its scans out in batches.
"""

import errno
import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from mriflow.base.errors import UserError
from mriflow.tables.labels import read_index

log = logging.getLogger(__name__)

AHEAD = 3  # batches that are read before they are asked for


class Batch(NamedTuple):
    """Some scans, and what is known of each.

    Attributes
    ----------
    images
        float32 between 0 and 1, shape (scans, channels, x, y, z).
    covariates
        float32, shape (scans, covariates).
    labels
        As an objective encodes them, float32, shape (scans, width); or label maps, uint8, shape (scans, x, y, z).
    """

    images: torch.Tensor
    covariates: torch.Tensor
    labels: torch.Tensor


class Shards(Mapping[str, np.ndarray]):
    """The shards of a dataset, mapped into memory: for the id of every scan its volume, not yet read.

    A volume is uint8, shape (x, y, z), or (channels, x, y, z) if there are several channels.

    Parameters
    ----------
    arrays
        uint8, shape (scans, x, y, z) or (scans, channels, x, y, z), all of one grid.
    places
        For each id the number of its array and its row there.
    label_map
        Which of the channels is the scan's label map, which no network sees; None if there is none.
    """

    def __init__(
        self, arrays: Sequence[np.ndarray], places: Mapping[str, tuple[int, int]], label_map: int | None = None
    ) -> None:
        self.arrays, self.places, self.label_map = arrays, places, label_map

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
        """Number of channels of a scan, without the label map."""
        return (1 if self.arrays[0].ndim == 4 else self.arrays[0].shape[1]) - (self.label_map is not None)

    def maps_of(self, scan: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the channels of a scan that networks see, shape (channels, x, y, z), and its label map, shape (x, y, z)."""
        volume = self[scan]
        return volume[[number for number in range(len(volume)) if number != self.label_map]], volume[self.label_map]


def open_shards(arrays: Sequence[Path], indices: Sequence[Path], label_map: int | None = None) -> Shards:
    """Map the shards of a dataset into memory; scans with a problem are not in them.

    Parameters
    ----------
    arrays, indices
        The .npy and .csv files that `preprocess` made, in the same order.
    label_map
        Which of their channels is the label map, if there is one.

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
    return Shards(mapped, places, label_map)


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
    covariates, labels
        As `Batch` has them, on the CPU; none by default.
    """

    def __init__(
        self,
        shards: Shards,
        ids: Sequence[str],
        device: torch.device,
        covariates: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
    ) -> None:
        self.arrays = shards.arrays
        self.shape, self.channels, self.label_map = shards.shape, shards.channels, shards.label_map
        self.stored = self.channels + (self.label_map is not None)  # channels, with the label map
        places = np.array([shards.places[scan] for scan in ids]).reshape(-1, 2)
        self.array_of, self.row_of = places[:, 0], places[:, 1]
        self.device = device
        self.covariates = torch.zeros(len(ids), 0) if covariates is None else covariates
        self.labels = torch.zeros(len(ids), 0) if labels is None else labels
        self.copying = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.resident = self.load_all() if device.type == "cuda" else None

    def __len__(self) -> int:
        return len(self.row_of)

    def load_all(self) -> torch.Tensor | None:
        """Return all scans on the device, or None if they do not fit."""
        free, _ = torch.cuda.mem_get_info(self.device)
        size = len(self) * self.stored * int(np.prod(self.shape))
        fits = size < free / 2
        where = "kept whole on the GPU" if fits else "read from the shards while it computes"
        log.info("%d scans (%.1f GB; the GPU has %.1f GB free): %s", len(self), size / 1e9, free / 1e9, where)
        if not fits:
            return None
        volumes = torch.empty((len(self), self.stored, *self.shape), dtype=torch.uint8, device=self.device)
        for chunk in torch.arange(len(self)).split(64):
            volumes[chunk.to(self.device)] = self.read(chunk).to(self.device)
        return volumes

    def batches(self, positions: torch.Tensor, size: int) -> Iterator[Batch]:
        """Give the scans at `positions` (int64, on the CPU) in batches of `size`, on the device; the last may be smaller."""
        covariates, labels = self.covariates[positions].to(self.device), self.labels[positions].to(self.device)
        of_each = zip(covariates.split(size), labels.split(size), strict=True)
        for volumes, (covariate, label) in zip(self.volumes(positions, size), of_each, strict=True):
            if self.label_map is None:
                yield Batch(as_float(volumes), covariate, label)
            else:
                seen = [number for number in range(self.stored) if number != self.label_map]
                yield Batch(as_float(volumes[:, seen]), covariate, volumes[:, self.label_map])

    def volumes(self, positions: torch.Tensor, size: int) -> Iterator[torch.Tensor]:
        """Give the scans of `batches` as the shards hold them."""
        if self.resident is not None:
            for chosen in positions.to(self.device).split(size):
                yield self.resident[chosen]
            return
        reader = ThreadPoolExecutor(1)
        ahead: deque = deque()
        try:
            for chosen in positions.split(size):
                ahead.append(reader.submit(self.fetch, chosen))
                if len(ahead) > AHEAD:
                    yield self.arrived(*ahead.popleft().result())
            while ahead:
                yield self.arrived(*ahead.popleft().result())
        finally:
            reader.shutdown(cancel_futures=True)

    def read(self, positions: torch.Tensor) -> torch.Tensor:
        """Return scans as the shards hold them, uint8, shape (scans, channels, x, y, z), in memory that a GPU can copy from."""
        size = (len(positions), self.stored, *self.shape)
        volumes = torch.empty(size, dtype=torch.uint8, pin_memory=self.copying is not None)
        # With NumPy, for torch would start threads of its own in the reader's thread, which take the cores from the network's.
        arrays, rows, read = self.array_of[positions.numpy()], self.row_of[positions.numpy()], volumes.numpy()
        for array in np.unique(arrays):
            of_array = arrays == array
            read[of_array] = self.arrays[array][rows[of_array]].reshape(-1, *size[1:])
        return volumes

    def fetch(self, positions: torch.Tensor) -> tuple[torch.Tensor, "torch.cuda.Event | None"]:
        """Return scans on the device, and what tells when their copy is done."""
        if self.copying is None:
            return self.read(positions), None
        with torch.cuda.stream(self.copying):  # reading, too: it allocates for the card of the current stream
            volumes = self.read(positions).to(self.device, non_blocking=True)
            return volumes, self.copying.record_event()

    def arrived(self, volumes: torch.Tensor, copied: "torch.cuda.Event | None") -> torch.Tensor:
        """Return volumes once their copy is done."""
        if copied is not None:
            now = torch.cuda.current_stream(self.device)
            now.wait_event(copied)
            volumes.record_stream(now)  # else their memory might be given away before it was read
        return volumes


def as_float(volumes: torch.Tensor) -> torch.Tensor:
    """Return uint8 volumes as the network wants them."""
    return volumes.float().div_(255)
