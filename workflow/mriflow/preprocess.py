"""Bring the scans of one shard of a dataset to the network's grid: one memory-mappable array and its index.

Each scan is turned to RAS, its brain cut out (deepbet) unless that was done, registered to the ICBM152 template (ANTs),
resampled to the grid, and its intensities scaled to 8 bits. A scan that fails keeps its row in the index with its problem.

Finished scans are kept in a partial folder until the shard is whole, and taken over from earlier whole shards, this one or its
neighbours (scans move if there are more or fewer shards): a killed or grown dataset redoes only what is missing. All that moved
are found if the number of shards was divided; else a neighbour may have been written anew before, without them.
"""

import dataclasses
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from mriflow.base import recipes
from mriflow.base.cli import progress, run_stage, stage_parser
from mriflow.base.errors import UserError
from mriflow.base.files import whole_file, write_csv
from mriflow.base.processes import workers
from mriflow.images.label_maps import map_columns, note_of
from mriflow.images.scan import MIXTURE, PreprocessSettings, Result, run_scan
from mriflow.tables.labels import LABEL_MAP, MAP_FINGERPRINT, read_index, shard_of
from mriflow.tables.problems import join_problems

if TYPE_CHECKING:
    from mriflow.prediction.tissue_network import TissueNetwork

log = logging.getLogger(__name__)

CHANNELS = ("image", "gm", "wm", "csf", LABEL_MAP)
INDEX_COLUMNS = ["id", "index", "problem", "notes", "brain_ml", "correlation", "scale", "fingerprint", "key"]


class Shared(NamedTuple):
    """What the scans of a shard have in common.

    Attributes
    ----------
    folder
        From which their paths begin.
    partial
        Where finished scans are kept until the shard is whole.
    settings, cache, label_maps
        As in `preprocess`.
    tissues
        The network that tells their tissues apart, if one does.
    """

    folder: Path
    partial: Path
    settings: PreprocessSettings
    cache: Path | None = None
    label_maps: Mapping[str, Any] | None = None
    tissues: "TissueNetwork | None" = None

    def key(self, scan: Mapping[str, str]) -> str:
        """Return a name for the result of a scan: it changes with its id, its content, the settings and the recipe.

        With the channel label_map it changes with that, too, and with its classes; with a tissue network, with all that its
        maps depend on.
        """
        labelled = [scan[MAP_FINGERPRINT], self.label_maps] if LABEL_MAP in self.settings.channels else []
        by = self.tissues.version if self.tissues else MIXTURE
        settings = dataclasses.astuple(dataclasses.replace(self.settings, tissues=by))
        text = json.dumps([recipes.PREPROCESS, scan["id"], scan["fingerprint"], *settings, *labelled])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def preprocess(
    scans: Path,
    array: Path,
    index: Path,
    *,
    shard: int = 0,
    shards: int = 1,
    registration: str = "affine",
    voxel_mm: float = 2.0,
    shape: Sequence[int] = (80, 96, 80),
    percentiles: Sequence[float] = (0.5, 99.5),
    stripped: bool = False,
    n4: bool = False,
    channels: Sequence[str] = ("image",),
    tissues: str = MIXTURE,
    label_maps: Mapping[str, Any] | None = None,
    cache: Path | None = None,
    threads: int = 1,
) -> pd.DataFrame:
    """Preprocess the scans that belong to `shard`, and write `array` and `index`.

    Parameters
    ----------
    scans
        The list that `organize` made: id, path (from its own folder), fingerprint; and where there are others of the session,
        the `alternatives`, tried in turn if a scan fails; with the channel label_map, those that have a map of their own.
    array
        The .npy file to write: uint8, shape (scans without a problem, x, y, z), axes RAS; with several channels (scans,
        channels, x, y, z).
    index
        The .csv file to write: one row per scan with its position in `array` (empty for a scan with a problem), the problem,
        and quality measures: `brain_ml` (volume of the brain, ml), `correlation` (with the template, see
        `mriflow.images.registration.likeness`), `scale` (volume of the scan over that on the template's grid); with the channel
        label_map, the share of the map in the brain, and of each class its volume in the map's own voxels and on the grid
        (`mriflow.images.label_maps.measures_of`).
    shard, shards
        Which part of the dataset, of how many (`mriflow.tables.labels.shard_of`).
    registration
        ``affine``, ``rigid`` or ``none`` (centres of mass only; nothing if the scan came with a transform to MNI space).
    voxel_mm, shape
        The grid: edge of a voxel in mm, and number of voxels.
    percentiles
        Percentiles of the intensities in the brain that become 1 and 255; the background is 0.
    stripped
        Whether the scans show the brain alone.
    n4
        Whether the bias field is corrected (N4), in the brain.
    channels
        What stands in the array, in this order: ``image``, and the probability (times 255) of ``gm``, ``wm`` and ``csf``, which
        are always told apart in a brain without bias field; and ``label_map``, the number of each voxel's class, from 1 (0 is
        of none), also around the brain. With that, scans without a label map are left out.
    tissues
        How the tissues are told apart: ``mixture`` (`mriflow.images.tissues`), or the folder of a model that segments them.
    label_maps
        Of the channel label_map, the dataset's block of this name: its `classes`, `background` and `may_lack`.
    cache
        A folder for what takes long and is the same for other grids and channels (`mriflow.images.kept`). Several jobs may
        share it. The result is the same without.
    threads
        How many scans are worked on at once, each in a process of its own. The result is the same.

    Returns
    -------
    The table written to `index`.

    Raises
    ------
    UserError
        If `scans` is missing or not such a list, memory is too short, or the model does not tell these tissues. A scan's own
        faults never raise.
    """
    wanted = read_scans(scans)
    if LABEL_MAP in channels:
        wanted = with_label_maps(wanted, scans, label_maps)
    wanted = wanted[[shard_of(scan, shards) == shard for scan in wanted["id"]]].reset_index(drop=True)
    settings = PreprocessSettings(
        registration=registration,
        voxel_mm=voxel_mm,
        shape=tuple(shape),
        percentiles=tuple(percentiles),
        stripped=stripped,
        n4=n4,
        channels=tuple(channels),
        tissues=tissues,
    )
    network = None if tissues == MIXTURE else tissue_network(Path(tissues), channels)
    kept = array.with_name(f".{array.stem}.partial")
    shared = Shared(scans.parent, kept, settings, cache, label_maps, network)
    keys = [shared.key(scan) for scan in wanted.to_dict("records")]
    classes = list(label_maps["classes"]) if label_maps and LABEL_MAP in channels else []
    columns = [*INDEX_COLUMNS, *(map_columns(classes) if classes else ())]
    done = earlier_results(array, index, columns)
    lacking = set(keys) - done.keys()
    for neighbour in sorted(set(array.parent.glob("shard-*.npy")) - {array}):
        if not lacking:
            break
        others = earlier_results(neighbour, neighbour.with_suffix(".csv"), columns)
        # Copied: else hundreds of files would stay open, and another job may replace them.
        done |= {key: Result(np.array(others[key].volume), others[key].row) for key in lacking & others.keys()}
        lacking -= others.keys()

    todo = [(scan, key) for scan, key in zip(wanted.to_dict("records"), keys, strict=True) if key not in done]
    results = []
    with workers(max(1, min(threads, len(todo)))) as each:
        made = each(partial(finish_scan, shared), todo)
        for key in progress(keys, desc=f"preprocess {array.stem}", unit="scan"):
            results.append(done[key] if key in done else next(made))
    results = [noted(result, classes, voxel_mm) for result in results] if classes else results
    several = (len(channels),) if len(channels) > 1 else ()
    table = write_shard(results, (*several, *shape), array, index, columns)
    shutil.rmtree(kept, ignore_errors=True)
    log.info("%d scans, %d with a problem", len(table), table["problem"].notna().sum())
    return table


def tissue_network(folder: Path, channels: Sequence[str]) -> "TissueNetwork":
    """Return the network that tells the tissues among the channels apart, checked."""
    from mriflow.prediction.tissue_network import TissueNetwork  # takes seconds to import

    network = TissueNetwork(folder)
    network.check(channels)
    return network


def with_label_maps(wanted: pd.DataFrame, scans: Path, label_maps: Mapping[str, Any] | None) -> pd.DataFrame:
    """Return the scans that have a label map; raise a UserError if the dataset has none."""
    if not label_maps or not {LABEL_MAP, MAP_FINGERPRINT} <= set(wanted.columns):
        raise UserError(f"{scans}: lists no label maps, as the channel {LABEL_MAP!r} needs; see `label_maps` of the dataset.")
    return wanted[wanted[LABEL_MAP] != ""]


def finish_scan(shared: Shared, scan_and_key: tuple[Mapping[str, str], str]) -> Result:
    """Return the result of a scan, or, if it fails, that of the first of its alternatives that does not, under its id."""
    scan, key = scan_and_key
    result = finish_image(shared, scan, key)
    for other in json.loads(scan.get("alternatives") or "[]") if result.volume is None else ():
        if LABEL_MAP in shared.settings.channels and not other.get(LABEL_MAP):
            continue  # the map of the first was drawn on that: on another image of the session it would lie beside the brain
        instead = {**scan, **other}
        tried = finish_image(shared, instead, shared.key(instead))
        if tried.volume is not None:
            why = re.sub(r"[()]", "", result.row["problem"].removeprefix("scan: "))
            note = f"session: another image is used than labels.csv names ({other['path']}; the first: {why})"
            log.warning("%s: %s", scan["id"], note)
            return tried._replace(row=tried.row | {"notes": note})
    return result


def noted(result: Result, classes: Sequence[str], voxel_mm: float) -> Result:
    """Return a result with a note of what is to be looked at in its label map, if anything is."""
    if result.volume is None or not (note := note_of(result.row, classes, voxel_mm)):
        return result
    log.warning("%s: %s", result.row["id"], note)
    return result._replace(row=result.row | {"notes": join_problems(result.row.get("notes") or "", note)})


def finish_image(shared: Shared, scan: Mapping[str, str], key: str) -> Result:
    """Return the result of an image from the folder `partial`, or make it, and keep it in that folder if it is good."""
    finished = shared.partial / f"{key}.npz"
    if finished.is_file():
        return load_result(finished)
    result = run_scan(scan, key, shared.folder, shared.settings, shared.cache, shared.label_maps, shared.tissues)
    if result.volume is not None:  # a scan that failed is tried again: memory or the network may have been short
        save_result(finished, result)
    return result


def read_scans(path: Path) -> pd.DataFrame:
    """Read the list of scans that `organize` made."""
    if not path.is_file():
        raise UserError(f"{path}: no such list of scans; `python -m mriflow.organize` makes it.")
    scans = pd.read_csv(path, dtype=str, keep_default_na=False)
    if not {"id", "path", "fingerprint"} <= set(scans.columns):
        raise UserError(f"{path}: has columns {', '.join(scans.columns)}; expected id, path, fingerprint.")
    return scans


def earlier_results(array: Path, index: Path, columns: Sequence[str]) -> dict[str, Result]:
    """Return the results in a whole shard made before, by their keys; none if there is no whole shard.

    Another job may be writing it. It takes the old index away before it puts the array in its place, and writes the new index
    after, so that an index that did not change meanwhile belongs to the array.
    """
    try:
        before = index.stat().st_mtime_ns
        rows = read_index(index).astype(object)
        volumes = np.load(array, mmap_mode="r", allow_pickle=False)
        if index.stat().st_mtime_ns != before:
            return {}
    except (OSError, ValueError):
        return {}
    if set(rows.columns) != set(columns) or rows["index"].notna().sum() != len(volumes):
        return {}
    rows = rows.where(rows.notna(), None).drop(columns="notes")  # they told why it stood in for another image then
    return {row["key"]: Result(volumes[row["index"]], row) for row in rows.to_dict("records") if row["index"] is not None}


def save_result(path: Path, result: Result) -> None:
    """Write the result of one good scan, whole or not at all."""
    with whole_file(path) as temporary:
        np.savez(temporary, volume=np.asarray(result.volume), row=np.array(json.dumps(result.row)))


def load_result(path: Path) -> Result:
    """Read what `save_result` wrote."""
    with np.load(path, allow_pickle=False) as saved:
        return Result(saved["volume"], json.loads(str(saved["row"])))


def write_shard(results: list[Result], shape: Sequence[int], array: Path, index: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Write the array and the index of a shard, volumes of `shape`; the index last, for an array without one is not a shard."""
    volumes = [result.volume for result in results if result.volume is not None]
    with whole_file(array) as temporary:
        header = {"descr": "|u1", "fortran_order": False, "shape": (len(volumes), *shape)}
        with open(temporary, "wb") as stream:
            np.lib.format.write_array_header_1_0(stream, header)
            for volume in volumes:
                stream.write(np.ascontiguousarray(volume).tobytes())
            stream.flush()
            os.fsync(stream.fileno())
        index.unlink(missing_ok=True)  # as late as can be: killed before, the earlier shard is whole
    positions = iter(range(len(volumes)))
    rows = [{**result.row, "index": None if result.volume is None else next(positions)} for result in results]
    table = pd.DataFrame(rows, columns=list(columns)).astype({"index": "Int64"})
    write_csv(table, index)
    return table


def main(argv: list[str] | None = None) -> None:
    """Read the command line and preprocess."""
    parser = stage_parser(__doc__)
    parser.add_argument("--scans", type=Path, required=True, help="list of scans made by organize")
    parser.add_argument("--array", type=Path, required=True, help=".npy file to write: uint8, scans by x by y by z")
    parser.add_argument("--index", type=Path, required=True, help=".csv file to write: one row per scan")
    parser.add_argument("--shard", type=int, default=0, help="number of this shard, from 0 (default: 0)")
    parser.add_argument("--shards", type=int, default=1, help="number of shards (default: 1, the whole dataset)")
    parser.add_argument("--registration", choices=["affine", "rigid", "none"], default="affine", help="(default: affine)")
    parser.add_argument("--voxel-mm", type=float, default=2.0, help="edge of a voxel of the grid, mm (default: 2)")
    parser.add_argument("--shape", type=int, nargs=3, default=[80, 96, 80], help="voxels of the grid (default: 80 96 80)")
    parser.add_argument(
        "--percentiles",
        type=float,
        nargs=2,
        default=[0.5, 99.5],
        help="intensities that become 1 and 255 (default: 0.5 99.5)",
    )
    parser.add_argument("--n4", action="store_true", help="correct the bias field")
    parser.add_argument(
        "--channels",
        nargs="+",
        choices=CHANNELS,
        default=["image"],
        help="what stands in the array, in this order: the image, maps of the tissues, the label map (default: image)",
    )
    parser.add_argument(
        "--tissues", default=MIXTURE, help="how these are told apart: mixture, or the folder of a model (default: mixture)"
    )
    parser.add_argument(
        "--label-maps",
        type=json.loads,
        help="of the channel label_map, `classes`, `background` and `may_lack` of the dataset, as JSON",
    )
    parser.add_argument(
        "--cache", type=Path, help="folder for masks, bias fields and transforms, for the next grid (default: none)"
    )
    parser.add_argument("--threads", type=int, default=1, help="scans to work on at once, 1.3 GB of memory each (default: 1)")
    parser.add_argument("--stripped", action="store_true", help="the scans show the brain alone already")
    preprocess(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    run_stage(main)
