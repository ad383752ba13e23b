"""Shuffle the labels of an experiment, or thin its training parts, for a control.

With --shuffle every person gets the label of another one of the same site: there is nothing left to learn but the site. With
--fraction so many of the people of each training part stay, the target and the columns of --stratify as spread as before, a
smaller fraction within every larger one. Nothing else changes, neither the validation nor the test part.
"""

from pathlib import Path

from mriflow.base.cli import run_stage, stage_parser
from mriflow.base.files import write_csv
from mriflow.evaluation.controls import shuffled, thinned
from mriflow.tables.labels import read_labels
from mriflow.tables.splits import read_splits


def alter(
    labels: Path,
    splits: Path,
    *,
    altered_labels: Path,
    altered_splits: Path,
    target: str,
    category: bool = False,
    shuffle: int | None = None,
    fraction: float = 1.0,
    stratify: list[str] | None = None,
) -> None:
    """Write a labels.csv and a splits.csv for a control.

    Parameters
    ----------
    target, category
        The column to be predicted, and whether its values are classes.
    shuffle
        Seed of the shuffling; None: labels stay.
    fraction, stratify
        See `mriflow.evaluation.controls.thinned`.

    Raises
    ------
    UserError
        If too few people would be left.
    """
    table, parts = read_labels(labels, category=target if category else None), read_splits(splits)
    used = table[table["id"].isin(parts["id"])]
    changed = table if shuffle is None else shuffled(table, parts["id"].tolist(), target, shuffle)
    write_csv(changed, altered_labels)
    write_csv(parts if fraction == 1 else thinned(parts, used, target, fraction, stratify or []), altered_splits)


def main(argv: list[str] | None = None) -> None:
    """Read the command line and alter labels or splits."""
    parser = stage_parser(__doc__)
    parser.add_argument("--labels", type=Path, required=True, help="the dataset's labels.csv")
    parser.add_argument("--splits", type=Path, required=True, help="the experiment's splits.csv")
    parser.add_argument("--altered-labels", type=Path, required=True, help="labels.csv to write")
    parser.add_argument("--altered-splits", type=Path, required=True, help="splits.csv to write")
    parser.add_argument("--target", required=True, help="column to be predicted")
    parser.add_argument("--category", action="store_true", help="its values are classes")
    parser.add_argument("--shuffle", type=int, metavar="SEED", help="shuffle the labels, by this seed")
    parser.add_argument("--fraction", type=float, default=1.0, help="share of the training people to keep (default: 1)")
    parser.add_argument("--stratify", nargs="*", help="further columns that stay as spread as they are")
    alter(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    run_stage(main)
