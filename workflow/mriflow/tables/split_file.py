"""A table of one's own that says who is trained on and who is tested: read it, and refuse what cannot be meant.

Its columns: ``id`` of a scan, or ``subject``; ``part``, which is train, validation or test; and, if there are several folds,
``fold``, from 0. A splits.csv that `mriflow.split` wrote is such a table, so that a split can be used again.
"""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from mriflow.base.errors import UserError
from mriflow.tables.cells import as_code, as_text
from mriflow.tables.reader import pick_column, read_table
from mriflow.tables.splits import PARTS

log = logging.getLogger(__name__)

WORDS = dict(zip(PARTS, PARTS, strict=True)) | {"training": "train", "val": "validation", "valid": "validation"}
MOST_NAMES = 20


def folds_of(used: Mapping[str, Any]) -> int:
    """Return how many folds an experiment has, before any of its data is there.

    Parameters
    ----------
    used
        Everything that the experiment uses (`mriflow.config.resolve.settings`).

    Raises
    ------
    UserError
        If it has a split file of its own with a mistake that is seen without the data.
    """
    if used["split"]["method"] == "leave-site-out":
        return len(used["dataset"]["sites"])
    if used["split"]["method"] == "file":
        return int(read_split_file(Path(used["split"]["file"]))["fold"].nunique())
    return used["split"]["folds"]


def read_split_file(file: Path) -> pd.DataFrame:
    """Read such a table.

    Returns
    -------
    One row per fold and scan (or subject): fold, part and, as text, those of id, subject and fingerprint that it has. A row
    that stands there twice is there once. Without a column `fold` all is fold 0.

    Raises
    ------
    UserError
        If something is missing or not known, or a scan or subject stands in two parts of a fold.
    """
    if not file.is_file():
        raise UserError(f"{file}: no such table. Check the `file` of the split.")
    raw = read_table(file)
    names = [name for name in ("id", "subject") if name in raw]
    if not names:
        columns = ", ".join(map(repr, raw.columns))
        raise UserError(
            f"{file}: has neither a column 'id' (of a scan) nor 'subject'; it has {columns}. Rename the one that is."
        )
    rows = pd.DataFrame({name: texts_of(raw[name]) for name in (*names, "fingerprint") if name in raw})
    refuse_rows(rows[names[0]] == "", f"has no {names[0]}", "Fill it in, or delete the row", file)

    words = texts_of(pick_column(raw, "part", file))
    rows["part"] = words.str.lower().map(WORDS)
    for word in words[rows["part"].isna()].head(1):
        refuse_rows(rows["part"].isna(), f"has the part {word!r}", "Expected train, validation or test", file)
    rows["fold"] = read_folds(texts_of(raw["fold"]), file) if "fold" in raw else 0

    # The subject first, for that is the leak that a paper suffers from.
    for name in reversed(names):
        refuse_two_parts(rows, name, file)
    for fold, parts in rows.groupby("fold")["part"].unique().items():
        for part in (part for part in ("train", "test") if part not in parts):
            where = f"fold {fold} has no" if "fold" in raw else "has no"
            raise UserError(f"{file}: {where} {part} part. Every fold needs one for train and one for test.")
    if (count := rows.duplicated().sum()) > 0:
        log.info("%s: %d rows stand there more than once and say the same", file, count)
    return rows.drop_duplicates(ignore_index=True)


def texts_of(column: pd.Series) -> pd.Series:
    """Return the cells of a column as text; each value is read once, for a Snakefile that is read often."""
    return column.map({cell: as_text(cell) for cell in column.unique()})


def read_folds(texts: pd.Series, file: Path) -> pd.Series:
    """Return the column `fold` as numbers, or raise a UserError if they do not count from 0."""
    numbers = texts.map({text: as_code(text) for text in texts.unique()})
    folds = sorted(set(numbers))
    if set(folds) != {str(number) for number in range(len(folds))}:
        raise UserError(f"{file}: found the folds {listed(map(repr, folds))}. Number them from 0, without a gap.")
    return numbers.astype(int)


def refuse_rows(wrong: pd.Series, text: str, advice: str, file: Path) -> None:
    """Raise a UserError that names the first row for which `wrong` is true and counts them."""
    if wrong.any():
        # The first row of a table is its header.
        raise UserError(f"{file}: row {wrong.idxmax() + 2} {text} ({wrong.sum()} such row(s)). {advice}.")


def refuse_two_parts(rows: pd.DataFrame, name: str, file: Path) -> None:
    """Raise a UserError that names every subject (or id) that stands in two parts of a fold."""
    distinct = rows.loc[rows[name] != "", ["fold", name, "part"]].drop_duplicates()
    leaks = distinct[distinct.duplicated(["fold", name], keep=False)]
    if leaks.empty:
        return
    several = rows["fold"].nunique() > 1
    texts = {}
    for (fold, who), parts in leaks.groupby(["fold", name])["part"].unique().items():
        texts[who] = f"{who} ({f'fold {fold}: ' if several else ''}{', '.join(part for part in PARTS if part in parts)})"
    raise UserError(
        f"{file}: leak: {len(texts)} {'subject' if name == 'subject' else name}(s) stand in more than one part"
        f"{' of a fold' if several else ''}: {listed(texts.values())}. "
        "Who is trained on cannot be tested on: keep one part of each, or get a table without leaks."
    )


def parts_from_file(file: Path, scans: pd.DataFrame, labels: Path) -> list[pd.Series]:
    """Return the part of every scan in each fold as `file` says, NaN for a scan that it does not name.

    A file with ids says it of these scans alone, so that it can leave one out; one without says it of all scans of a
    subject. Whose a scan is stands in `scans`, so that two sessions of one person on two sides are found even if the file
    knows nothing of subjects.

    Parameters
    ----------
    scans
        All rows of the dataset's labels.csv, whether they can be used or not.
    labels
        Where that stands, for the messages.

    Raises
    ------
    UserError
        For a mistake in the file (`read_split_file`), if it names something that the dataset does not have, or if a
        subject of the dataset stands in two parts of a fold.
    """
    rows = read_split_file(file)
    key = "id" if "id" in rows else "subject"
    what = "scan" if key == "id" else "subject"
    unknown = rows.loc[~rows[key].isin(scans[key]), key].unique()
    if len(unknown):
        other = "subject" if key == "id" else "id"
        hint = f" It has them as {other!r}: call the column so." if scans[other].isin(unknown).any() else ""
        raise UserError(
            f"{file}: {len(unknown)} {key}(s) are no {what} of {labels}: {listed(unknown, 5)}. "
            f"Expected such as {scans[key].iloc[0]!r}.{hint}"
        )
    if key == "id":
        of_labels = rows["id"].map(scans.set_index("id")["subject"])
        if "subject" in rows and (wrong := (rows["subject"] != of_labels) & (rows["subject"] != "")).any():
            first = wrong.idxmax()
            raise UserError(
                f"{file}: {rows['id'][wrong].nunique()} scan(s) have another subject than in {labels}; the first is "
                f"{rows['id'][first]!r}, of {rows['subject'][first]!r} here and of {of_labels[first]!r} there. Correct the one "
                "that is wrong."
            )
        refuse_two_parts(rows.assign(subject=of_labels), "subject", file)
        if "fingerprint" in rows:
            then, now = rows["fingerprint"], rows["id"].map(scans.set_index("id")["fingerprint"])
            changed = rows.loc[(then != now) & (then != "") & (now != ""), "id"].unique()
            if len(changed):
                log.warning("%d scan(s) are other images than when %s was written: %s", len(changed), file, listed(changed, 5))
    return [scans[key].map(dict(zip(one[key], one["part"], strict=True))) for _, one in rows.groupby("fold")]


def listed(names: Iterable[Any], most: int = MOST_NAMES) -> str:
    """Return names in one line, and how many more there are."""
    texts = list(map(str, names))
    return ", ".join(texts[:most]) + (f" and {len(texts) - most} more" if len(texts) > most else "")
