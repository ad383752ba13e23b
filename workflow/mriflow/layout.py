"""Lay the scans of a dataset out in folders, as many tools and tutorials expect them: by links, without a copy.

For a number (regression) a folder per subject, ``Sub_101/T1.nii.gz``; for a category (classification) a folder per class,
``Females/Sub_101_T1.nii.gz``. Beside them a ``labels.csv`` of ID, label and path. Only scans with the label are in it.
A scan in a zip has no link: its path leads into the zip.
"""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from mriflow.base.cli import run_stage, stage_parser
from mriflow.base.errors import UserError
from mriflow.base.files import write_csv
from mriflow.images.kinds import suffix_of
from mriflow.images.ukb_zip import split_path
from mriflow.tables.labels import read_labels, usable, why_left_out


def layout(labels: Path, table: Path, *, column: str, classes: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Make the folders beside `table`, and `table` itself last: ID, label, path (from the table's folder).

    Parameters
    ----------
    labels
        The dataset's labels.csv.
    column
        The label, a column of `labels`.
    classes
        For a category, its values and their folders' names; scans of other values are not laid out.

    Raises
    ------
    UserError
        If no scan has the label.
    """
    scans = read_labels(labels, category=column if classes else None)
    why = why_left_out(scans, column)
    scans = scans[usable(scans, column)]
    if classes is not None:
        scans = scans[scans[column].isin(classes)]
    if scans.empty:
        raise UserError(f"{labels}: no scan has a usable {column!r}.{why}")

    folder = table.parent
    table.unlink(missing_ok=True)
    for old in folder.glob("*/*"):
        if old.is_symlink():
            old.unlink()
    rows = []
    folder_of = folders_of(scans["subject"])
    taken: set[str] = set()
    several = scans["subject"].duplicated(keep=False)
    for (_, scan), one_of_several in zip(scans.iterrows(), several, strict=True):
        subject = folder_of[scan["subject"]]
        path = labels.parent / scan["path"]
        # The image itself, not what it may be a link to: the keys of DataLad have other names.
        image = path.parent.resolve() / path.name
        if split_path(image):
            rows.append({"ID": subject, "label": scan[column], "path": os.path.relpath(image, folder.resolve())})
            continue
        name = (f"{plain(scan['id'])}_" if one_of_several else "") + "T1"
        within = f"{subject}/{name}" if classes is None else f"{classes[scan[column]]}/{subject}_{name}"
        if within.lower() in taken:
            within += f"_{mark(scan['id'])}"
        taken.add(within.lower())
        link = folder / (within + suffix_of(image))
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(image, link.parent.resolve()))
        rows.append({"ID": subject, "label": scan[column], "path": link.relative_to(folder)})
    laid_out = pd.DataFrame(rows)
    write_csv(laid_out, table)
    return laid_out


def folders_of(subjects: Iterable[str]) -> dict[str, str]:
    """Return the folder of each subject; where signs that a folder cannot have make two alike, a mark tells them apart.

    >>> folders_of(["P 1", "P-1", "p2"])
    {'P 1': 'Sub_P-1_6b9061', 'P-1': 'Sub_P-1', 'p2': 'Sub_p2'}
    """
    distinct = list(dict.fromkeys(subjects))
    counts = Counter(plain(subject).lower() for subject in distinct)
    exact = {plain(subject).lower(): subject for subject in reversed(distinct) if plain(subject) == subject}
    return {
        subject: f"Sub_{plain(subject)}" + ("" if counts[name] == 1 or exact.get(name) == subject else f"_{mark(subject)}")
        for subject in distinct
        if (name := plain(subject).lower())
    }


def plain(text: str) -> str:
    """Return a text as the name of a file: letters, digits, dots, _ and -."""
    return re.sub(r"[^\w.-]+", "-", text)


def mark(text: str) -> str:
    """Return a few signs that are always the same of a text, and others of another."""
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def main(argv: list[str] | None = None) -> None:
    """Read the command line and lay the scans out."""
    parser = stage_parser(__doc__)
    parser.add_argument("--labels", type=Path, required=True, help="the dataset's labels.csv")
    parser.add_argument("--table", type=Path, required=True, help="the labels.csv to write; the folders are made beside it")
    parser.add_argument("--column", required=True, help="the label, a column of labels.csv")
    parser.add_argument("--classes", type=json.loads, help="of a category, as JSON: value and name of its folder")
    layout(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    run_stage(main)
