"""Remove what `preprocess` kept of scans for the next grid, and was not used for some time.

Masks, bias fields and transforms stand in the folder `.cache` of each dataset, some 20 to 100 kB a scan. Nothing is lost but
time: what is needed again is made again. Shards, models and results stay.
"""

import logging
from pathlib import Path

from mriflow.base.cli import run_stage, stage_parser
from mriflow.base.errors import UserError
from mriflow.images.kept import remove_unused

log = logging.getLogger(__name__)


def prune(preprocessed: Path, days: float = 30) -> int:
    """Remove what is kept of the scans of all datasets in a folder and was not used for so many days; return how many bytes.

    Raises
    ------
    UserError
        If there is no such folder.
    """
    if not preprocessed.is_dir():
        raise UserError(f"{preprocessed}: no such folder, expected that of the preprocessed scans (`pathvars.preprocessed`).")
    files, size = remove_unused(preprocessed, days)
    log.info("%d files removed, %.1f MB", files, size / 1e6)
    return size


def main(argv: list[str] | None = None) -> None:
    """Read the command line and prune."""
    parser = stage_parser(__doc__)
    parser.add_argument(
        "--preprocessed",
        type=Path,
        default=Path("preprocessed"),
        help="folder of the preprocessed scans (default: preprocessed)",
    )
    parser.add_argument("--days", type=float, default=30, help="remove what was not used for so long; 0 is all (default: 30)")
    prune(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    run_stage(main)
