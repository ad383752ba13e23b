"""Put the predictions of the parts of a dataset, made by `mriflow predict --shard`, into one table."""

import logging
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from mriflow.base.cli import run_stage, stage_parser
from mriflow.base.errors import UserError
from mriflow.base.files import write_csv

log = logging.getLogger(__name__)


def gather(output: Path, parts: Sequence[Path]) -> pd.DataFrame:
    """Write `output`, the rows of all parts, sorted by path.

    Raises
    ------
    UserError
        If there is no scan, or none could be predicted; the table is written all the same.
    """
    tables = [pd.read_csv(part, dtype=str, keep_default_na=False) for part in parts]  # numbers stay as they are written
    columns = max(tables, key=lambda table: len(table.columns)).columns
    table = pd.concat(tables, ignore_index=True).reindex(columns=columns).fillna("")
    table = table.sort_values("path", kind="stable", ignore_index=True)
    write_csv(table, output)
    failed = table[table["problem"] != ""]
    log.info("%d scans: %d predicted", len(table), len(table) - len(failed))
    if len(failed) == len(table):
        why = f"; the first: {failed.iloc[0]['path']}: {failed.iloc[0]['problem']}" if len(failed) else ""
        raise UserError(f"{output}: none of {len(table)} scans could be predicted{why}")
    return table


def main(argv: list[str] | None = None) -> None:
    """Read the command line and gather."""
    parser = stage_parser(__doc__)
    parser.add_argument("--output", type=Path, required=True, help="table to write, .csv")
    parser.add_argument("--parts", type=Path, nargs="+", required=True, help="tables of predictions, .csv")
    gather(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    run_stage(main)
