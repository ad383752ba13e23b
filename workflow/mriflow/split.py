"""Split the subjects of a dataset into folds, each with a training, a validation and a test part.

Subjects are split, never scans, so that two sessions of one person never stand on two sides; the target and the `stratify`
columns are spread evenly. A subject, or the same image, on two sides of a fold is an error.
"""

import logging
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold

from mriflow.cli import run_stage, stage_parser
from mriflow.errors import UserError
from mriflow.files import write_csv
from mriflow.labels import read_labels, usable

log = logging.getLogger(__name__)

PARTS = ("train", "validation", "test")


def split(
    labels: Path,
    splits: Path,
    *,
    target: str,
    classes: list[str] | None = None,
    method: str = "k-fold",
    folds: int = 5,
    sites: list[str] | None = None,
    validation: float = 0.15,
    stratify: list[str] | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Write `splits`: one row per fold and scan, with fold, part, id, subject and fingerprint.

    Parameters
    ----------
    labels
        The dataset's labels.csv; only scans usable for `target` are split.
    target, classes
        The column to be predicted and, if it is a category, its values.
    method, folds, sites
        ``k-fold`` with so many folds, or ``leave-site-out`` with one fold for each of `sites`.
    validation
        Share of the subjects outside the test part that goes to the validation part.
    stratify
        Further columns to spread evenly.

    Raises
    ------
    UserError
        If there are too few subjects, a class or site has too few, or a subject or image would stand on two sides.
    """
    scans = read_labels(labels)
    scans = scans[usable(scans, target)]
    if classes is not None:
        scans = scans[scans[target].astype(str).isin(classes)]
    subjects = scans.drop_duplicates("subject").reset_index(drop=True)
    columns = [target_groups(subjects[target], classes)]
    columns += [subjects[name].astype(str) for name in stratify or [] if name in subjects and name != target]

    if method == "leave-site-out":
        tests = [subjects_of_site(subjects, site) for site in sites or []]
    else:
        check_enough(columns[0] if classes else None, len(subjects), folds, labels)
        tests = partition(strata(columns, folds), folds, seed)

    rows = []
    for fold, test in enumerate(tests):
        rest = np.flatnonzero(~test)
        parts = np.full(len(subjects), "train", dtype=object)
        parts[test] = "test"
        shares = max(2, round(1 / validation))
        rest_columns = [column.iloc[rest] for column in columns]
        parts[rest[partition(strata(rest_columns, shares), shares, seed + fold + 1)[0]]] = "validation"
        part_of = dict(zip(subjects["subject"], parts, strict=True))
        part = scans["subject"].map(part_of)
        rows.append(scans[["id", "subject", "fingerprint"]].assign(fold=fold, part=part))
        counts = part.value_counts()
        log.info("fold %d: %s", fold, ", ".join(f"{counts.get(name, 0)} {name}" for name in PARTS))
    table = pd.concat(rows)[["fold", "part", "id", "subject", "fingerprint"]]
    check_leaks(table, str(labels))
    write_csv(table, splits)
    return table


def target_groups(target: pd.Series, classes: list[str] | None) -> pd.Series:
    """Return the target as groups to stratify by: its classes, or the quarters of its distribution."""
    if classes is not None:
        return target.astype(str)
    return pd.qcut(target.astype(float).rank(method="first"), 4, labels=False).astype(str)


def strata(columns: list[pd.Series], at_least: int) -> pd.Series:
    """Combine the columns into strata; one with fewer than `at_least` members is not divided by the further columns."""
    combined = columns[0]
    for column in columns[1:]:
        finer = combined + "|" + column
        combined = finer.where(finer.map(finer.value_counts()) >= at_least, combined)
    return combined


def partition(groups: pd.Series, parts: int, seed: int) -> list[np.ndarray]:
    """Divide members into `parts` random parts with every group spread evenly; return a mask of each, shape (members,)."""
    if groups.value_counts().max() < parts:
        groups = pd.Series("all", index=groups.index)
    with warnings.catch_warnings():
        # A stratum with fewer members than parts is fine: it is spread over some of them.
        warnings.filterwarnings("ignore", message="The least populated class")
        members = [test for _, test in StratifiedKFold(parts, shuffle=True, random_state=seed).split(groups, groups)]
    return [np.isin(np.arange(len(groups)), test) for test in members]


def subjects_of_site(subjects: pd.DataFrame, site: str) -> np.ndarray:
    """Return which subjects are of `site`, shape (subjects,)."""
    test = (subjects["site"] == site).to_numpy()
    if not test.any() or test.all():
        found = subjects["site"].value_counts().to_dict()
        raise UserError(
            f"leave-site-out: site {site!r} of the dataset's `sites` has {test.sum()} usable subjects; found {found}."
        )
    return test


def check_enough(groups: pd.Series | None, subjects: int, folds: int, labels: Path) -> None:
    """Raise a UserError if a fold or a class would be empty."""
    if subjects < 4 * folds:
        raise UserError(f"{labels}: {subjects} usable subjects are too few for {folds} folds; at least {4 * folds} are needed.")
    for name, count in groups.value_counts().items() if groups is not None else []:
        if count < folds:
            raise UserError(f"{labels}: class {name!r} has {count} subjects, {folds} folds need at least {folds}.")


def read_splits(path: Path) -> pd.DataFrame:
    """Read a splits.csv, or raise a UserError if it leaks (`check_leaks`)."""
    text = dict.fromkeys(["part", "id", "subject", "fingerprint"], str)
    splits = pd.read_csv(path, dtype=text, keep_default_na=False)
    check_leaks(splits, str(path))
    return splits


def check_leaks(splits: pd.DataFrame, file: str) -> None:
    """Raise a UserError if, within a fold, a scan, a subject or the same image stands in two parts.

    Parameters
    ----------
    splits
        Columns fold, part, id, subject, fingerprint.
    file
        Where it comes from, for the message.
    """
    for column, what in (("id", "scan"), ("subject", "subject"), ("fingerprint", "image")):
        known = splits[splits[column].fillna("").astype(str) != ""]
        parts = known.groupby(["fold", column])["part"].nunique()
        leaks = parts[parts > 1]
        if len(leaks):
            fold, name = leaks.index[0]
            rows = known[(known["fold"] == fold) & (known[column] == name)]
            where = ", ".join(f"{row.id} in {row.part}" for row in rows.itertuples())
            raise UserError(
                f"{file}: leak: {leaks.size} time(s) the same {what} stands in two parts of a fold; the first is {what} "
                f"{name!r} in fold {fold} ({where}). Give every scan of a subject the same subject, and exclude doubtful scans."
            )


def main(argv: list[str] | None = None) -> None:
    """Read the command line and split."""
    parser = stage_parser(__doc__)
    parser.add_argument("--labels", type=Path, required=True, help="the dataset's labels.csv")
    parser.add_argument("--splits", type=Path, required=True, help="the table to write, one row per fold and scan")
    parser.add_argument("--target", required=True, help="column to be predicted")
    parser.add_argument("--classes", action="append", help="a value of the target, if it is a category (repeat it)")
    parser.add_argument("--method", choices=["k-fold", "leave-site-out"], default="k-fold", help="how to choose test parts")
    parser.add_argument("--folds", type=int, default=5, help="number of folds of k-fold (default: 5)")
    parser.add_argument("--sites", nargs="*", help="the sites, for leave-site-out")
    parser.add_argument("--validation", type=float, default=0.15, help="share of the rest for validation (default: 0.15)")
    parser.add_argument("--stratify", nargs="*", help="further columns to spread evenly over the parts")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random split (default: 0)")
    split(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    run_stage(main)
