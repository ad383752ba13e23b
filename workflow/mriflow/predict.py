"""Predict any scans with a model that the workflow made (results/<experiment>/model).

SCANS are images, folders of them, BIDS datasets, or tables (csv, tsv, xls, xlsx) with a column `path`. They are prepared as the
training scans were, by the same code, and predicted by all networks of the model together. The table that is written has a row
for every scan. One that the model was not made for is refused (`problem`) or doubted (`warning`), in words; a bad one never
stops the others.
"""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from mriflow.base.cli import progress, run_stage, stage_parser
from mriflow.base.errors import UserError
from mriflow.base.files import write_csv
from mriflow.base.processes import workers as processes
from mriflow.prediction.apply import Ensemble, Prepared, prepare
from mriflow.prediction.sources import find_scans
from mriflow.prediction.stored import read_stored
from mriflow.reporting.scan_figures import one_scan

log = logging.getLogger(__name__)

AT_ONCE = 32  # scans whose volumes are kept in memory


def predict(
    model: Path, scans: Sequence[str], output: Path, *, device: str = "auto", workers: int = 1, figures: Path | None = None
) -> pd.DataFrame:
    """Write the predictions of scans to `output`, one row for each.

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

    Returns
    -------
    The table written: path; the columns of `mriflow.prediction.calibrated.columns_of`; correlation, brain_ml, scale (as in the
    index of `preprocess`); voxel_mm (as scanned); warning; problem (then there is no prediction).

    Raises
    ------
    UserError
        If the model cannot be used, or none of the scans could be predicted.
    """
    if workers < 1:
        raise UserError(f"--workers: {workers} is no number of processes; give 1 or more.")
    stored = read_stored(model)
    ensemble = Ensemble(stored, device)
    tables: list[pd.DataFrame] = []
    with TemporaryDirectory() as unpacked, progress(desc="predict", unit="scan") as bar:
        found = find_scans(scans, stored.facts["covariates"], Path(unpacked))
        bar.reset(total=len(found))
        with processes(max(1, min(workers, len(found)))) as each:
            for start in range(0, len(found), AT_ONCE):
                some = found[start : start + AT_ONCE]
                prepared: list[Prepared] = []
                for one in each(partial(prepare, stored.settings), some):
                    prepared.append(one)
                    bar.update()
                tables.append(ensemble.predict(some, prepared))
                if figures:
                    draw(tables[-1], prepared, figures, start, stored.facts["preprocess"]["channels"])
    table = pd.concat([table.astype(object) for table in tables], ignore_index=True)[tables[-1].columns]
    write_csv(table, output)
    failed, doubted = table[table["problem"] != ""], (table["warning"].fillna("") != "").sum()
    log.info("%d scans: %d predicted, %d of these with a warning", len(table), len(table) - len(failed), doubted)
    for path, problem in failed[["path", "problem"]].to_numpy():
        log.warning("not predicted: %s: %s", path, problem)
    if not stored.calibration:
        log.warning("%s: nothing was fitted for new scans (no calibration.json), so there is no interval", model)
    if len(failed) == len(table):
        first = failed.iloc[0]
        raise UserError(
            f"none of {len(table)} scans could be predicted; {output} says why. The first: {first['path']}: {first['problem']}"
        )
    return table


def draw(table: pd.DataFrame, prepared: Sequence[Prepared], folder: Path, start: int, channels: Sequence[str]) -> None:
    """Draw each scan of a part of the table, which begins with the scan number `start`, as the networks saw it."""
    for number, ((result, *_), row) in enumerate(zip(prepared, table.to_dict("records"), strict=True), start + 1):
        if result.volume is None or row["problem"]:
            continue
        volume = np.asarray(result.volume)
        shown = volume if volume.ndim == 3 else volume[channels.index("image") if "image" in channels else 0]
        value = row["prediction"] if isinstance(row["prediction"], str) else f"{row['prediction']:.4g}"
        name = Path(row["path"]).name
        one_scan(shown, f"{name}\n{value}", folder / f"{number:04d}_{name.split('.')[0]}.png")


def main(argv: list[str] | None = None) -> None:
    """Read the command line and predict."""
    parser = stage_parser(__doc__)
    parser.add_argument("model", type=Path, metavar="MODEL", help="folder of the model, as results/<experiment>/model")
    parser.add_argument("scans", nargs="+", metavar="SCANS", help="images, folders, BIDS datasets, tables with a column path")
    parser.add_argument("--output", type=Path, required=True, help="table to write, one row per scan, .csv")
    parser.add_argument(
        "--device", choices=["auto", "cpu", "cuda"], default="auto", help="(default: auto, a GPU if there is one)"
    )
    parser.add_argument("--workers", type=int, default=1, help="scans to prepare at once, 1.3 GB of memory each (default: 1)")
    parser.add_argument("--figures", type=Path, help="folder for a picture of each scan as the networks saw it")
    predict(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    run_stage(main)
