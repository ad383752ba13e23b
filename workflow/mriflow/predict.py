"""Predict any scans with a model that the workflow made (results/<experiment>/model).

SCANS are images, folders of them, BIDS datasets, or tables (csv, tsv, xls, xlsx) with a column `path`. They are prepared as the
training scans were, by the same code, and predicted by all networks of the model together. A model that segments writes a label
map of each scan in its own voxels, too. The table that is written has a row for every scan. One that the model was not made for
is refused (`problem`) or doubted (`warning`), in words; a bad one never stops the others.
"""

import logging
import shutil
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from mriflow.base.cli import progress, run_stage, stage_parser
from mriflow.base.errors import UserError
from mriflow.base.files import as_path, write_csv
from mriflow.base.processes import workers as processes
from mriflow.config.label_maps import NETWORK, SHIPPED
from mriflow.prediction.apply import Ensemble, Prepared, prepare
from mriflow.prediction.finished import Finished, Row
from mriflow.prediction.own_space import MapFolder
from mriflow.prediction.sources import find_scans
from mriflow.prediction.stored import CHECKSUMS, read_stored
from mriflow.prediction.tissue_network import TissueNetwork
from mriflow.reporting.scan_figures import one_scan

log = logging.getLogger(__name__)

# Scans whose volumes are kept in memory, or two for each worker, and which are predicted anew if the run is stopped among them.
AT_ONCE = 8


def predict(
    model: Path,
    scans: Sequence[str],
    output: Path,
    *,
    device: str = "auto",
    workers: int = 1,
    figures: Path | None = None,
    maps: Path | None = None,
    probabilities: bool = False,
    stripped: bool | None = None,
    shard: int = 0,
    shards: int = 1,
) -> pd.DataFrame:
    """Write the predictions of scans to `output`, one row for each.

    Stopped and called again with the same model and output, it goes on from the scans that were finished.

    Parameters
    ----------
    model
        The folder that `bundle` made.
    scans
        Images, folders, BIDS datasets, tables (`mriflow.prediction.sources.find_scans`).
    output
        The table to write, .csv.
    device
        ``auto`` (a GPU if there is one), ``cpu`` or ``cuda``.
    workers
        Scans to prepare at once, each in a process of its own. The result is the same.
    figures
        A folder for a picture of each scan as the networks saw it.
    maps, probabilities
        Of a segmentation: the folder for label maps in each scan's own voxels (default: beside `output`, named after it), and
        whether probabilities are written there, too.
    stripped
        Whether the scans show the brain alone, which is otherwise cut out first; None: as the training scans.
    shard, shards
        Of tables, the rows of this part alone (`mriflow.tables.labels.shard_of`), from 0.

    Returns
    -------
    The table written: path; the columns of `mriflow.prediction.calibrated.columns_of`, or of a segmentation
    ``volume_<class>`` (ml, of probabilities), ``certainty`` and ``label_map``, its file; correlation, brain_ml, scale (as in
    the index of `preprocess`); voxel_mm (as scanned); warning; problem (then there is no prediction).

    Raises
    ------
    UserError
        If the model cannot be used, or none of the scans could be predicted (of one shard among several, that is no error).
    """
    given = {Path(as_path(str(text))).resolve() for text in scans}
    check_asked(output, given, workers, shard, shards)
    stored = read_stored(model)
    if stripped is not None:
        stored = stored.for_scans(stripped)
    of_voxels = stored.facts["target"]["type"] == "segmentation"
    if (maps or probabilities) and not of_voxels:
        raise UserError(
            f"--maps, --probabilities: {model} predicts {stored.facts['target']['column']}, and makes no label maps."
        )
    maps = maps or output.with_name(f"{output.stem}_maps")
    if of_voxels and (maps.resolve() in given or (maps.exists() and not maps.is_dir())):
        raise UserError(f"--maps: {maps} is {'one of the SCANS' if maps.is_dir() else 'a file'}; give another folder.")
    folder = MapFolder(maps, stored.facts["target"]["classes"], probabilities) if of_voxels else None
    ensemble = Ensemble(stored, device, folder)
    made_by = f"{(model / CHECKSUMS).read_text(encoding='utf-8')}{figures} {device} {stored.settings.stripped}"
    if folder:
        folder.begin()
        made_by += f" {folder.folder} {probabilities}"
    finished = Finished(output, made_by)
    with TemporaryDirectory() as unpacked, progress(desc="predict", unit="scan") as bar:
        found = find_scans(scans, stored.facts["covariates"], shard, shards)
        if output.resolve() in {Path(scan["path"]).resolve() for scan in found}:
            raise UserError(f"--output: {output} is one of the scans; give another name.")
        rows = [finished.row_of(scan) for scan in found]
        todo = [number for number, row in enumerate(rows) if row is None]
        if found and len(todo) < len(found):
            log.info("%d scans were predicted before the last run was stopped; %d are left", len(found) - len(todo), len(todo))
        bar.reset(total=len(todo))
        with processes(max(1, min(workers, len(todo)))) as each:
            at_once = max(AT_ONCE, 2 * workers)
            for start in range(0, len(todo), at_once):
                numbers = todo[start : start + at_once]
                some, prepared = [found[number] for number in numbers], list[Prepared]()
                for one in each(
                    partial(prepare, stored.settings, of_voxels, Path(unpacked), tissues=TissueNetwork.of(stored)), some
                ):
                    prepared.append(one)
                    bar.update()
                made = ensemble.predict(some, prepared).astype(object).to_dict("records")
                if figures:
                    draw(made, prepared, figures, numbers, stored.facts["preprocess"]["channels"])
                for one in prepared:
                    if Path(unpacked) in one.file.parents:
                        shutil.rmtree(one.file.parent, ignore_errors=True)
                finished.add(some, made)
                for number, row in zip(numbers, made, strict=True):
                    rows[number] = row
    # Where no scan of eight was predicted, their rows lack the columns of a prediction.
    columns = max((list(row) for row in rows if row), key=len, default=list(ensemble.predict([], [])))
    table = pd.DataFrame(rows, columns=columns, dtype=object)
    write_csv(table, output)
    finished.remove()
    failed, doubted = table[table["problem"] != ""], (table["warning"].fillna("") != "").sum()
    log.info("%d scans: %d predicted, %d of these with a warning", len(table), len(table) - len(failed), doubted)
    for path, problem in failed[["path", "problem"]].to_numpy():
        log.warning("not predicted: %s: %s", path, problem)
    if not stored.calibration and not of_voxels:
        log.warning("%s: nothing was fitted for new scans (no calibration.json), so there is no interval", model)
    if len(failed) == len(table) and shards == 1:
        first = failed.iloc[0]
        raise UserError(
            f"none of {len(table)} scans could be predicted; {output} says why. The first: {first['path']}: {first['problem']}"
        )
    return table


def check_asked(output: Path, given: Collection[Path], workers: int, shard: int, shards: int) -> None:
    """Raise a UserError for what cannot be, before anything is read."""
    if workers < 1:
        raise UserError(f"--workers: {workers} is no number of processes; give 1 or more.")
    if not 0 <= shard < shards:
        raise UserError(f"--shard {shard} --shards {shards}: parts have the numbers 0 to {shards - 1}; give 1 part or more.")
    if output.is_dir() or output.suffix.lower() != ".csv":
        what = "a folder" if output.is_dir() else "no .csv"
        raise UserError(f"--output: {output} is {what}; expected the table to write, such as predictions.csv.")
    if output.resolve() in given:
        raise UserError(f"--output: {output} is one of the SCANS, and would be written over; give another name.")


def draw(
    rows: Sequence[Row], prepared: Sequence[Prepared], folder: Path, numbers: Sequence[int], channels: Sequence[str]
) -> None:
    """Draw some scans, of which the first of all has the number 0, as the networks saw them."""
    for number, (result, *_), row in zip(numbers, prepared, rows, strict=True):
        if result.volume is None or row["problem"]:
            continue
        volume = np.asarray(result.volume)
        shown = volume if volume.ndim == 3 else volume[channels.index("image") if "image" in channels else 0]
        value = row.get("prediction", "")
        value = value if isinstance(value, str) else f"{value:.4g}"
        name = Path(row["path"]).name
        one_scan(shown, f"{name}\n{value}", folder / f"{number + 1:04d}_{name.split('.')[0]}.png")


def main(argv: list[str] | None = None) -> None:
    """Read the command line and predict."""
    parser = stage_parser(__doc__)
    parser.add_argument(
        "model",
        type=lambda given: SHIPPED if given == NETWORK else Path(given),
        metavar="MODEL",
        help=f"folder of the model, as results/<experiment>/model; or {NETWORK}, the tissue network that comes with mriflow",
    )
    parser.add_argument("scans", nargs="+", metavar="SCANS", help="images, folders, BIDS datasets, tables with a column path")
    parser.add_argument("--output", type=Path, required=True, help="table to write, one row per scan, .csv")
    parser.add_argument(
        "--device", choices=["auto", "cpu", "cuda"], default="auto", help="(default: auto, a GPU if there is one)"
    )
    parser.add_argument("--workers", type=int, default=1, help="scans to prepare at once, 1.3 GB of memory each (default: 1)")
    parser.add_argument("--figures", type=Path, help="folder for a picture of each scan as the networks saw it")
    parser.add_argument("--maps", type=Path, help="of a segmentation: folder for label maps (default: <output>_maps)")
    parser.add_argument("--probabilities", action="store_true", help="of a segmentation: write probabilities beside label maps")
    parser.add_argument(
        "--stripped",
        choices=["yes", "no"],
        help=f"whether the scans show the brain alone (default: as the training scans; of {NETWORK}, no)",
    )
    parser.add_argument("--shard", type=int, default=0, help="of tables, predict this part of the rows, from 0 (default: 0)")
    parser.add_argument("--shards", type=int, default=1, help="of so many (default: 1, all rows)")
    given = vars(parser.parse_args(argv))
    of_model = False if given["model"].resolve() == SHIPPED else None  # the simulated brains that it learned from have no skull
    predict(**given | {"stripped": {None: of_model, "yes": True, "no": False}[given["stripped"]]})


if __name__ == "__main__":
    run_stage(main)
