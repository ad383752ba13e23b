"""Keep what takes long to find out of a scan and is the same for every grid: its mask, bias field and transforms.

So a second block of the same dataset, with other voxels or channels, takes a fraction of the time. A file is known by the
scan's content, by all that it depends on, and by the recipe; so it is never out of date, and may be deleted at any time.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mriflow.base import recipes
from mriflow.base.files import whole_file
from mriflow.images.nifti import Scan

log = logging.getLogger(__name__)

FOLDER = ".cache"  # of a dataset, beside its blocks, whose names begin with a letter or digit
DAY = 86400


class Kept:
    """What is kept of one scan.

    Parameters
    ----------
    folder
        Where; None keeps nothing.
    scan
        The scan, as read.
    """

    def __init__(self, folder: Path | None, scan: Scan) -> None:
        self.folder = folder
        if folder is not None:
            placed = [scan.affine.tolist(), scan.data.shape, scan.voxel_ml, scan.in_mni]
            content = hashlib.sha256(np.ascontiguousarray(scan.data).data)
            content.update(json.dumps(placed).encode())
            self.content = content.hexdigest()

    def get(self, step: str, depends_on: Any, make: Callable[[], np.ndarray]) -> np.ndarray:
        """Return the array that a step makes of the scan, from its file or made now, and kept.

        Parameters
        ----------
        step
            The name of the step.
        depends_on
            All settings that may change the array, as JSON can write them.
        make
            The step.
        """
        if self.folder is None:
            return make()
        key = json.dumps([recipes.PREPROCESS, step, depends_on, self.content])
        path = self.folder / f"{step}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz"
        try:
            with np.load(path, allow_pickle=False) as saved:
                array = saved["array"]
            os.utime(path)  # when it was used, for `remove_unused`
            return array
        except FileNotFoundError:
            pass
        except Exception as error:  # whatever the library makes of a damaged file
            log.warning("%s: damaged (%s), made anew", path, error)
        array = make()
        try:
            with whole_file(path, shared=True) as temporary:
                np.savez_compressed(temporary, array=array)
        except OSError as error:  # a full disk: no fault of the scan, which goes on without
            log.warning("%s: cannot be kept (%s)", path, error)
        return array


def pack(mask: np.ndarray) -> np.ndarray:
    """Return a mask as bytes of eight voxels each."""
    return np.packbits(mask)


def unpack(packed: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Return the mask of `shape` that `pack` made small."""
    return np.unpackbits(packed, count=int(np.prod(shape))).reshape(shape).astype(bool)


def remove_unused(preprocessed: Path, days: float) -> tuple[int, int]:
    """Remove what is kept of scans below a folder and was not used for so many days; return how many files and bytes."""
    files = removed = 0
    for path in preprocessed.glob(f"**/{FOLDER}/*.npz"):
        try:
            about = path.stat()
            if time.time() - about.st_mtime < days * DAY:
                continue
            path.unlink()
        except FileNotFoundError:  # another took it away
            continue
        files, removed = files + 1, removed + about.st_size
    return files, removed
