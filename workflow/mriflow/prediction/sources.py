"""Which scans are meant: files, folders, BIDS datasets, and tables with a column `path`."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

from mriflow.base.errors import UserError
from mriflow.base.files import as_path
from mriflow.config.resolve import BIDS_SUBJECT, described_bids
from mriflow.images.find import file_problem, find_images, hint, images_below
from mriflow.images.kinds import NIFTI, REWRITTEN, suffix_of
from mriflow.tables.cells import read_value
from mriflow.tables.labels import shard_of
from mriflow.tables.problems import of_whole_scan
from mriflow.tables.reader import EXCEL, TEXT, pick_column, read_table

Named = dict[str, Any]
OF_OURS = re.compile(r"_(dseg|probseg)\.nii")  # label maps, by BIDS and `mriflow predict`: what was made of a scan is none


def find_scans(given: Sequence[str], covariates: Sequence[str], shard: int = 0, shards: int = 1) -> list[Named]:
    """Return the scans that files, folders and tables name, in that order.

    Parameters
    ----------
    given
        Images; folders, of which all images are meant; folders of BIDS datasets, of which the T1w images are; and tables
        (csv, tsv, xls, xlsx) with a column `path`, from their own folder.
    covariates
        Columns of labels that are wanted: of a table, or of the participants.tsv of a BIDS dataset.
    shard, shards
        Of tables, the rows of this part alone (`mriflow.tables.labels.shard_of` their path).

    Returns
    -------
    Of each scan `path` as it was given, `file`, `labels` by name (absent where not known), and `problem`, '' if none: a
    folder or table that cannot be used is a row with a problem, too.
    """
    scans: list[Named] = []
    for text in given:
        path = Path(as_path(str(text)))
        try:
            found = list(scans_of(path, covariates, shard, shards))
        except (UserError, OSError) as error:
            found = [{"path": str(path), "file": path, "labels": {}, "problem": str(error).removeprefix(f"{path}: ")}]
        for scan in found:
            if suffix_of(scan["file"]) not in REWRITTEN or not scan["file"].is_file():  # these are looked at when rewritten
                scan["problem"] = scan["problem"] or file_problem(scan["file"], zipped=True).removeprefix("scan: ")
        scans += found
    return scans


def scans_of(path: Path, covariates: Sequence[str], shard: int, shards: int) -> Iterator[Named]:
    """Yield the scans of one image, folder or table."""
    if path.suffix.lower() in (*TEXT, *EXCEL) and path.is_file():
        yield from scans_of_table(path, covariates, shard, shards)
    elif path.is_dir() and any((path / name).is_file() for name in ("dataset_description.json", "participants.tsv")):
        yield from scans_of_bids(path, covariates)
    elif path.is_dir():
        images = [image for image in images_below(path) if not OF_OURS.search(image.name)]
        if not images:
            raise UserError(f"no images in this folder ({', '.join((*NIFTI, *REWRITTEN))}).{hint([path])}")
        yield from (scan_of(image) for image in images)
    else:
        yield scan_of(path)


def scan_of(path: Path, labels: dict[str, str] | None = None) -> Named:
    """Return the row of one image."""
    return {"path": str(path), "file": path, "labels": labels or {}, "problem": ""}


def scans_of_table(table: Path, covariates: Sequence[str], shard: int, shards: int) -> Iterator[Named]:
    """Yield the scans of a table with a column `path`; what a labels.csv says against a scan stands."""
    rows = read_table(table)
    paths = pick_column(rows, "path", table)
    said = rows["problem"].fillna("").astype(str) if "problem" in rows else pd.Series("", rows.index)
    said = said.where(of_whole_scan(said), "")
    for (index, text), labels, problem in zip(paths.items(), labels_of(rows, covariates), said, strict=True):
        named = "" if pd.isna(text) else str(text).strip()
        path = str(table.parent / as_path(named)) if named else f"{table}, row {int(str(index)) + 2}"
        if shard_of(path, shards) != shard:
            continue
        if problem or not named:
            problem = problem.removeprefix("scan: ") or "no path in this row of the table"
            yield {"path": path, "file": table, "labels": {}, "problem": problem}
        else:
            yield scan_of(Path(path), labels)


def scans_of_bids(folder: Path, covariates: Sequence[str]) -> Iterator[Named]:
    """Yield the T1w images of a BIDS dataset, with what participants.tsv says of the subject."""
    described = described_bids(str(folder))
    try:
        with TemporaryDirectory() as unpacked:  # nothing is rewritten: the pattern is of NIfTI
            found = find_images([folder], described["pattern"], Path(unpacked), ignore=described["ignore"])
    except UserError as error:  # it speaks of the config
        raise UserError(f"no T1w image in this BIDS dataset (sub-*/**/*_T1w.nii.gz).{hint([folder])}") from error
    labels: dict[str, dict[str, str]] = {}
    if covariates and (table := Path(described["table"])).is_file():
        people = read_table(table)
        subjects = [read_value(cell, BIDS_SUBJECT)[0] for cell in pick_column(people, "participant_id", table)]
        labels = dict(zip(subjects, labels_of(people, covariates), strict=True))
    for image, subject in zip(found["path"], found["subject"], strict=True):
        yield scan_of(Path(image), labels.get(str(subject)))


def labels_of(rows: pd.DataFrame, names: Sequence[str]) -> list[dict[str, str]]:
    """Return what each row says in some columns, as text; what is empty or BIDS' n/a is left out."""
    cells = [{name: str(row[name]).strip() for name in names if pd.notna(row.get(name))} for row in rows.to_dict("records")]
    return [{name: text for name, text in one.items() if text not in ("", "n/a")} for one in cells]
