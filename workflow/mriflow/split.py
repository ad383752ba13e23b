"""Split the subjects of a dataset into folds, each with a training, a validation and a test part.

Subjects are split, never scans, so that two sessions of one person never stand on two sides; the target and the `stratify`
columns are spread evenly. A subject, or the same image, on two sides of a fold is an error.
"""

import logging
import warnings
from fractions import Fraction
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
    scans = read_labels(labels, category=target if classes else None)
    scans = scans[usable(scans, target)]
    if classes is not None:
        others = scans[~scans[target].isin(classes)]
        if len(others):
            log.warning("%d scans of other classes are not used: %s", len(others), others[target].value_counts().to_dict())
        scans = scans[scans[target].isin(classes)]
    subjects = scans.drop_duplicates("subject").reset_index(drop=True)
    columns = [groups_of(subjects[target])]
    columns += [groups_of(subjects[name]) for name in stratify or [] if name in subjects and name != target]

    if method == "leave-site-out":
        tests = [subjects["subject"].isin(subjects_of_site(scans, site)).to_numpy() for site in sites or []]
    else:
        check_enough(columns[0] if classes else None, len(subjects), folds, labels)
        tests = partition(strata(columns, folds), folds, seed)
    # The validation part is so many of so many equal parts of the rest.
    share = Fraction(validation).limit_denominator(max(10, round(1 / validation)))

    rows = []
    for fold, test in enumerate(tests):
        rest = np.flatnonzero(~test)
        if len(rest) < share.denominator:
            raise UserError(
                f"{labels}: a `validation` of {validation} is no whole subject of the {len(rest)} outside fold {fold}'s test."
            )
        divided = partition(
            strata([column.iloc[rest] for column in columns], share.denominator), share.denominator, seed + fold + 1
        )
        parts = np.full(len(subjects), "train", dtype=object)
        parts[test] = "test"
        parts[rest[np.any(divided[: share.numerator], axis=0)]] = "validation"
        part = scans["subject"].map(dict(zip(subjects["subject"], parts, strict=True)))
        kept = scans.assign(part=part, fold=fold)
        if method == "leave-site-out":
            # Scans that the tested subjects have at other sites belong to neither side.
            kept = kept[(kept["part"] != "test") | (kept["site"] == (sites or [])[fold])]
        for name in set(classes or []) - set(kept.loc[kept["part"] == "train", target]):
            raise UserError(f"{labels}: fold {fold} has no scan of class {name!r} to train on. Use fewer folds, or k-fold.")
        rows.append(kept)
        counts = kept["part"].value_counts()
        log.info("fold %d: %s", fold, ", ".join(f"{counts.get(name, 0)} {name}" for name in PARTS))
    table = pd.concat(rows)[["fold", "part", "id", "subject", "fingerprint"]]
    check_leaks(table, str(labels))
    write_csv(table, splits)
    return table


def groups_of(column: pd.Series) -> pd.Series:
    """Return a column as groups to stratify by: its categories, or the quarters of the distribution of a number."""
    if pd.api.types.is_numeric_dtype(column) and column.nunique() > 4:
        return pd.qcut(column.rank(method="first"), 4, labels=False).astype(str)
    return column.astype(str)


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


def subjects_of_site(scans: pd.DataFrame, site: str) -> pd.Series:
    """Return the subjects who have a scan at `site`."""
    found = scans.loc[scans["site"] == site, "subject"]
    if found.empty or found.nunique() == scans["subject"].nunique():
        counts = scans["site"].value_counts().to_dict()
        raise UserError(
            f"leave-site-out: site {site!r} of the dataset's `sites` has {len(found)} usable scans; found {counts}."
        )
    return found


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
