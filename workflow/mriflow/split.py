"""Split the subjects of a dataset into folds, each with a training, a validation and a test part.

Subjects are split, never scans, so that two sessions of one person never stand on two sides; the target and the `stratify`
columns are spread evenly, and how evenly is written beside the split. The parts can also be read from a file. A subject, or
the same image, on two sides of a fold is an error.
"""

import logging
import math
import warnings
from collections.abc import Collection, Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold

from mriflow.base.cli import run_stage, stage_parser
from mriflow.base.errors import UserError
from mriflow.base.files import write_csv
from mriflow.tables.balance import balance_of, warn_of_imbalance
from mriflow.tables.labels import LABEL_MAP, read_labels, usable, why_left_out
from mriflow.tables.split_file import listed, parts_from_file
from mriflow.tables.splits import PARTS, check_leaks
from mriflow.tables.strata import groups_of, is_continuous, strata

LEAST = 2  # scans that training asks for, to train and to validate on

log = logging.getLogger(__name__)


def split(
    labels: Path,
    splits: Path,
    *,
    target: str,
    classes: list[str] | None = None,
    method: str = "k-fold",
    folds: int = 5,
    file: Path | None = None,
    sites: list[str] | None = None,
    validation: float = 0.15,
    stratify: list[str] | None = None,
    seed: int = 0,
    balance: Path | None = None,
) -> pd.DataFrame:
    """Write `splits`: one row per fold and scan, with fold, part, id, subject and fingerprint.

    Parameters
    ----------
    labels
        The dataset's labels.csv; only scans usable for `target` are split.
    target, classes
        The column to be predicted and, if it is a category, its values.
    method, folds, sites, file
        ``k-fold`` with so many folds, ``leave-site-out`` with one fold for each of `sites`, or ``file`` with the folds and
        parts that stand in a table (`mriflow.tables.split_file`).
    validation
        Share of the subjects outside the test part that goes to the validation part; with 0 there is none.
    stratify
        Further columns to spread evenly.
    balance
        Where to write how evenly the target, age, sex, site and the `stratify` columns are spread (`mriflow.tables.balance`).

    Raises
    ------
    UserError
        If there are too few subjects, a class, site or part has too few, `file` has a mistake, or a subject or image would
        stand on two sides.
    """
    everything = read_labels(labels, category=target if classes else None)
    scans = everything[usable(everything, target)]
    why = why_left_out(everything, target)
    # A label may be called as a column of splits.csv is.
    everything, scans = (table.rename(columns=own_name) for table in (everything, scans))
    target, stratify = own_name(target), [own_name(name) for name in stratify or []]
    if classes is not None:
        others = scans[~scans[target].isin(classes)]
        if len(others):
            counts = others[target].value_counts().to_dict()
            log.warning("%d scans of other classes are not used: %s", len(others), counts)
            why += f" {len(others)} scans are of other classes: {', '.join(f'{name!r} ({n})' for name, n in counts.items())}."
        scans = scans[scans[target].isin(classes)]
    if method == "file":
        if file is None:
            raise UserError("--method file needs the table of the parts; give it with --file.")
        chosen = parts_given(scans, everything, file, labels)
    else:
        left_out = (sites or []) if method == "leave-site-out" else None
        chosen = parts_drawn(scans, target, classes, folds, left_out, validation, stratify or [], seed, labels, why)

    source = file if method == "file" else labels
    rows = []
    for fold, part in enumerate(chosen):
        kept = scans.assign(part=part, fold=fold)[part.notna()]
        for name in set(classes or []) - set(kept.loc[kept["part"] == "train", target]):
            raise UserError(
                f"{source}: fold {fold} has no scan of class {name!r} to train on. "
                + ("Give it one." if method == "file" else "Use fewer folds, or k-fold.")
            )
        rows.append(kept)
        counts = kept["part"].value_counts()
        for name, fewest in {"train": str(LEAST), "validation": f"0 or at least {LEAST}"}.items():
            if counts.get(name, 0) < LEAST and not (name == "validation" and "validation" not in counts):
                raise UserError(
                    f"{source}: fold {fold} has {counts.get(name, 0)} scan(s) in the {name} part that can be used, expected "
                    f"{fewest}. " + ("Give it more." if method == "file" else "Change `validation` or `folds` of the split.")
                )
        log.info("fold %d: %s", fold, ", ".join(f"{counts.get(name, 0)} {name}" for name in PARTS))
    whole = pd.concat(rows)
    table = whole[["fold", "part", "id", "subject", "fingerprint"]]
    check_leaks(table, str(source))
    if balance is not None:
        meant = ["site"] if method == "leave-site-out" else []
        write_csv(measure_balance(whole, target, classes, stratify or [], meant), balance)
    write_csv(table, splits)
    return table


def own_name(label: str) -> str:
    """Return the name of a label beside the columns of splits.csv."""
    return f"{label} (label)" if label in ("fold", "part") else label


def parts_drawn(
    scans: pd.DataFrame,
    target: str,
    classes: list[str] | None,
    folds: int,
    sites: list[str] | None,
    validation: float,
    stratify: list[str],
    seed: int,
    labels: Path,
    why: str,
) -> Iterator[pd.Series]:
    """Yield the part of every scan in each fold, drawn at random; with `sites`, each is the test part of one fold.

    `why` says in words why the other scans cannot be used.
    """
    subjects = scans.drop_duplicates("subject").reset_index(drop=True)
    # Label maps are files: no two are alike, and there is nothing of them to spread.
    columns = [groups_of(subjects[target])] if target != LABEL_MAP else [pd.Series("", index=subjects.index)]
    columns += [groups_of(subjects[name]) for name in stratify if name in subjects and name != target]
    if sites is not None:
        tests = [subjects["subject"].isin(subjects_of_site(scans, site)).to_numpy() for site in sites]
    else:
        check_enough(columns[0] if classes else None, len(subjects), folds, labels, why)
        tests = partition(strata(columns, folds), folds, seed)
    # The validation part is so many of so many equal parts of the rest.
    share = Fraction(validation).limit_denominator(max(10, round(1 / validation))) if validation else Fraction(0)
    for fold, test in enumerate(tests):
        rest = np.flatnonzero(~test)
        least = share.denominator * (LEAST if share.numerator < LEAST else 1)
        enough = f"{least} are needed there for a `validation` of {validation}"
        if len(rest) >= 2 * LEAST:
            enough += f", or a `validation` of at least {math.ceil(100 * LEAST / len(rest)) / 100}"
        enough += f".{why}"
        if len(rest) < share.denominator:
            raise UserError(f"{labels}: fold {fold} has {len(rest)} subjects outside its test part, too few: {enough}")
        parts = np.full(len(subjects), "train", dtype=object)
        parts[test] = "test"
        if share:
            among = strata([column.iloc[rest] for column in columns], share.denominator)
            divided = partition(among, share.denominator, seed + fold + 1)
            validated = rest[np.any(divided[: share.numerator], axis=0)]
            if len(validated) < LEAST:
                raise UserError(
                    f"{labels}: fold {fold} has {len(validated)} subject(s) of {len(rest)} outside its test part to validate "
                    f"on, and training needs {LEAST}: {enough}"
                )
            parts[validated] = "validation"
        part = scans["subject"].map(dict(zip(subjects["subject"], parts, strict=True)))
        if sites is not None:
            # Scans that the tested subjects have at other sites belong to neither side.
            part = part.where((part != "test") | (scans["site"] == sites[fold]))
        yield part


def parts_given(scans: pd.DataFrame, everything: pd.DataFrame, file: Path, labels: Path) -> Iterator[pd.Series]:
    """Yield the part of every usable scan in each fold as `file` says, and log which scans are left out.

    Parameters
    ----------
    scans, everything
        The scans that can be used, and all of the dataset.

    Raises
    ------
    UserError
        If the file has a mistake (`mriflow.tables.split_file`), or no scan of one of its parts can be used.
    """
    chosen = parts_from_file(file, everything, labels)
    named = pd.concat(chosen, axis=1).notna().any(axis=1)
    unusable = everything.loc[named & ~everything["id"].isin(scans["id"]), "id"]
    if len(unusable):
        text = "%d scan(s) that %s names cannot be used for this target (the column `problem` of %s says why): %s"
        log.warning(text, len(unusable), file, labels, listed(unusable, 5))
    tested = pd.concat([part == "test" for part in chosen], axis=1).sum(axis=1)
    if (tested > 1).any():
        text = "%d scan(s) are in the test part of several folds of %s; every metric counts them as often"
        log.warning(text, (tested > 1).sum(), file)
    for fold, whole in enumerate(chosen):
        part = whole[scans.index]
        if part.isna().any():
            text = "fold %d: %d scan(s) that could be used are not named by %s and are left out: %s"
            log.warning(text, fold, part.isna().sum(), file, listed(scans.loc[part.isna(), "id"], 5))
        for name in (name for name in PARTS if name in set(whole) - set(part)):
            raise UserError(
                f"{file}: none of the {(whole == name).sum()} scan(s) in the {name} part of fold {fold} can be used for this "
                f"target. The column `problem` of {labels} says why."
            )
        yield part


def measure_balance(
    rows: pd.DataFrame, target: str, classes: list[str] | None, stratify: list[str], meant: Collection[str]
) -> pd.DataFrame:
    """Return how evenly target, `stratify`, age, sex and site are spread (`mriflow.tables.balance`), and warn if they are not.

    Parameters
    ----------
    rows
        The scans of all folds, with fold and part.
    meant
        Columns that are meant to differ between the parts.
    """
    names = [name for name in dict.fromkeys([target, *stratify, "age", "sex", "site"]) if name in rows and name != LABEL_MAP]
    names = [name for name in names if (rows[name].notna() & (rows[name] != "")).any()]
    numbers = [name for name in names if is_continuous(rows[name]) or (name == target and classes is None)]
    categories = [name for name in names if name not in numbers]
    measured = balance_of(rows, numbers, categories)
    warn_of_imbalance(measured, numbers, categories, meant)
    return measured


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
    subjects = scans.loc[scans["site"] == site, "subject"]
    if subjects.empty or subjects.nunique() == scans["subject"].nunique():
        counts = scans["site"].value_counts().to_dict()
        raise UserError(
            f"leave-site-out: site {site!r} of the dataset's `sites` has {len(subjects)} usable scans; found {counts}."
        )
    return subjects


def check_enough(groups: pd.Series | None, subjects: int, folds: int, labels: Path, why: str) -> None:
    """Raise a UserError if a fold or a class would be empty."""
    if subjects < 4 * folds:
        too_few = f"{subjects} usable subjects are too few for {folds} folds; at least {4 * folds} are needed."
        raise UserError(f"{labels}: {too_few}{why}")
    for name, count in groups.value_counts().items() if groups is not None else []:
        if count < folds:
            raise UserError(f"{labels}: class {name!r} has {count} subjects, {folds} folds need at least {folds}.{why}")


def main(argv: list[str] | None = None) -> None:
    """Read the command line and split."""
    parser = stage_parser(__doc__)
    parser.add_argument("--labels", type=Path, required=True, help="the dataset's labels.csv")
    parser.add_argument("--splits", type=Path, required=True, help="the table to write, one row per fold and scan")
    parser.add_argument("--target", required=True, help="column to be predicted")
    parser.add_argument("--classes", action="append", help="a value of the target, if it is a category (repeat it)")
    parser.add_argument(
        "--method", choices=["k-fold", "leave-site-out", "file"], default="k-fold", help="how to choose test parts"
    )
    parser.add_argument("--folds", type=int, default=5, help="number of folds of k-fold (default: 5)")
    parser.add_argument("--file", type=Path, help="table with the part of each scan or subject, for the method file")
    parser.add_argument("--sites", nargs="*", help="the sites, for leave-site-out")
    parser.add_argument("--validation", type=float, default=0.15, help="share of the rest for validation (default: 0.15)")
    parser.add_argument("--stratify", nargs="*", help="further columns to spread evenly over the parts")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random split (default: 0)")
    parser.add_argument("--balance", type=Path, help="the table to write of how evenly the parts are filled")
    split(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    run_stage(main)
