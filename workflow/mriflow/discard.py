"""Remove what an experiment has learned, so that the next run trains it anew instead of going on from its checkpoints.

mriflow discard results/demo-age

Everything in the folder goes but the split: networks, checkpoints, trials of a search, predictions, figures. With --folds, only
the networks of these folds and what was made from all folds. On a CPU the same settings and seed learn the same again.
"""

import logging
import re
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from mriflow.base.cli import run_stage, stage_parser
from mriflow.base.errors import UserError
from mriflow.training.lock import sole_writer

log = logging.getLogger(__name__)

SPLIT = ("splits.csv", "balance.csv", "balance.html")
TRAINED = re.compile(r"fold-(\d+)_seed-\d+")


def discard(experiment: Path, folds: Sequence[int] = ()) -> list[Path]:
    """Remove what is learned in the results of an experiment, or in some of its folds, and return what was removed.

    Raises
    ------
    UserError
        If that is not the folder of an experiment, it has no such fold, or a training runs there.
    """
    if not (experiment / "splits.csv").is_file():
        raise UserError(f"{experiment}: found no splits.csv, expected the folder of an experiment, such as results/demo-age.")
    there = {path: TRAINED.fullmatch(path.name) for path in sorted(experiment.iterdir()) if path.name not in SPLIT}
    known = {int(match[1]) for match in there.values() if match}
    if absent := sorted(set(folds) - known):
        raise UserError(f"--folds: found {absent[0]}, but {experiment} has only networks of the folds {sorted(known)}.")
    kept = {
        path
        for path, match in there.items()
        if folds and (path.name.startswith("search") or (match and int(match[1]) not in folds))
    }
    removed = [path for path in there if path not in kept]
    with ExitStack() as locks:
        for work in [work for path in removed for work in sorted(path.glob("**/work"))]:
            locks.enter_context(sole_writer(work, save_minutes=0))
        for path in removed:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    log.info("%s: removed %s", experiment, ", ".join(path.name for path in removed) or "nothing, there is nothing learned")
    return removed


def main(argv: list[str] | None = None) -> None:
    """Read the command line and discard."""
    parser = stage_parser(__doc__)
    parser.add_argument("experiment", type=Path, help="its folder, such as results/demo-age")
    parser.add_argument(
        "--folds", type=int, nargs="+", default=[], help="folds whose networks alone are removed (default: all)"
    )
    discard(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    run_stage(main)
