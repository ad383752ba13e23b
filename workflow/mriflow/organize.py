"""Join the images of a dataset with its table and write labels.csv, one row per scan.

Nothing is dropped: a scan that cannot be used keeps its row and says why in the column `problem`. The images of an archive
are unpacked beside labels.csv; a folder of images, or paths in the table, are used where they are.
"""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mriflow.base.cli import progress, run_stage, stage_parser
from mriflow.base.errors import UserError
from mriflow.base.files import write_csv
from mriflow.images.find import as_nifti, file_problem, find_images
from mriflow.images.fingerprint import fingerprint, hash_of_voxels, voxels_of
from mriflow.tables.choice import ALTERNATIVES, choose_images
from mriflow.tables.identifiers import tell_of_alike
from mriflow.tables.label_maps import add_label_maps
from mriflow.tables.labels import LABEL_MAP, MAP_FINGERPRINT, RESERVED, TEXT_COLUMNS, usable
from mriflow.tables.people import (
    Columns,
    check_expected,
    join_fetched,
    join_images,
    note_one_row,
    people_of,
    refuse_strangers,
    rows_of_scans,
)
from mriflow.tables.problems import join_problems, reasons_of
from mriflow.tables.reader import read_table
from mriflow.tables.ukb_table import read_fetched, read_participants
from mriflow.tables.visits import Visits, columns_of_people, join_visits, read_visits

log = logging.getLogger(__name__)


def organize(
    labels: Path,
    scans: Path,
    *,
    columns: Columns,
    table: Path | None = None,
    sheet: str | None = None,
    fetched: Path | None = None,
    images: Sequence[Path] = (),
    pattern: str | None = None,
    ignore: str | None = None,
    affine: Sequence[Sequence[float]] | None = None,
    scans_per_session: str = "all",
    expect: Mapping[str, int] | None = None,
    exclude: Mapping[str, str] | None = None,
    label_maps: Mapping[str, Any] | None = None,
    map_images: Sequence[Path] = (),
) -> pd.DataFrame:
    """Write `labels` (see `mriflow.tables.labels`) and `scans`, the list of the images that can be preprocessed.

    `scans` stands apart so that what is preprocessed depends on no label.

    Parameters
    ----------
    columns
        For every column of `labels` where it comes from; see the dataset's schema.
    table, sheet
        The table of subjects or scans, and the sheet if it is an Excel file with several. Without one, the labels are what the
        names of the images tell.
    fetched
        The scans that `mriflow.ukbfetch` listed, in zips, instead of `images`; see `mriflow.tables.ukb_table`.
    images, pattern, ignore, affine
        Archives and folders of images, and how to read them; see `mriflow.images.find.find_images`. Without them the table has
        one row per scan, with a column `path`.
    scans_per_session
        `all`, or `first` to use one scan of a session, the first by name unless another is better
        (`mriflow.tables.choice.choose_images`); the others are its `alternatives` in `scans`.
    expect
        How many rows the published table has (`rows`), and in how many a column is known; one that differs was altered.
    exclude
        Scans to leave out by hand: id and reason.
    label_maps, map_images
        How label maps are read, and archives and folders of them, unless their paths are a column of the table
        (`mriflow.tables.label_maps`).

    Returns
    -------
    The table written to `labels`.

    Raises
    ------
    UserError
        For a table, archive or image folder that is missing, unreadable or not as described.
    """
    if taken := set(columns) & RESERVED:
        raise UserError(f"the dataset's `columns` have {min(taken)!r}, a name of the workflow's own. Choose another.")
    if fetched is not None and table is not None:
        listed = read_fetched(fetched)
        raw, columns = read_participants(table, sheet, listed, columns)
        check_expected(raw, columns, table, expect or {})
        rows = join_fetched(listed, people_of(raw, columns, table, ["subject", "session"]))
    elif images and pattern:
        on_disk = find_images(images, pattern, labels.parent / "images", ignore=ignore, affine=affine)
        visits, of_people = Visits(), columns
        if table is None:
            raw, source = on_disk[on_disk["subject"].notna()].drop(columns=["id", "path"]), images[0]
        else:
            visits = read_visits(on_disk, columns, table)
            of_people = columns_of_people(columns, visits, table, sheet)
            raw, source = read_table(table, sheet, only=[column["from"] for column in of_people.values()]), table
        on_disk = on_disk[[c for c in ("id", "path", "subject", "session", "site") if c in on_disk]]
        check_expected(raw, of_people, source, expect or {})
        keys = [key for key in ("subject", "session") if key in columns and key in on_disk]
        people = people_of(raw, of_people, source, keys)
        refuse_strangers(on_disk, people, source)
        rows = join_visits(join_images(on_disk, people, keys), visits, columns)
        if table is not None and "session" not in keys:
            rows = note_one_row(rows, columns, visits.told, table)
    elif table is not None:
        raw = read_table(table, sheet, only=[column["from"] for column in columns.values()])
        check_expected(raw, columns, table, expect or {})
        rows = rows_of_scans(raw, columns, table)
        rows["path"] = [str(as_nifti(Path(path), labels.parent / "images", affine)) if path else "" for path in rows["path"]]
    else:
        raise UserError("a dataset needs a table, or images with a `pattern` that reads the subject from their names.")
    rows = flag_scans(tell_of_alike(rows), exclude or {}, affine)
    listed = ["id", "path", "fingerprint"]
    if scans_per_session == "first":
        rows = choose_images(rows)
        # A list without alternatives stays as it was, so that nothing is made anew for it.
        listed += [ALTERNATIVES] if (rows[ALTERNATIVES] != "").any() else []
    if label_maps:
        rows = add_label_maps(rows, label_maps, map_images, labels.parent, table)
        listed += [LABEL_MAP, MAP_FINGERPRINT]
    if ALTERNATIVES in rows:
        rows[ALTERNATIVES] = [relative_paths(cell, labels.parent) for cell in rows[ALTERNATIVES]]
    rows["path"] = [os.path.relpath(path, labels.parent) if path else "" for path in rows["path"]]

    write_csv(rows.loc[usable(rows), listed].rename(columns={ALTERNATIVES: "alternatives"}), scans)
    rows = rows.drop(columns=[ALTERNATIVES, MAP_FINGERPRINT], errors="ignore")
    write_csv(rows, labels)
    log_counts(rows)
    return rows


def flag_scans(rows: pd.DataFrame, exclude: Mapping[str, str], affine: Sequence[Sequence[float]] | None = None) -> pd.DataFrame:
    """Add the `fingerprint` of every image and the problems of whole scans: no file, an image twice, left out by hand.

    Raises
    ------
    UserError
        If `exclude` names a scan that is not there.
    """
    rows = rows.sort_values(["id", "path"], ignore_index=True)
    if rows["id"].duplicated().any():
        raise UserError(
            f"two scans have the same id, {rows['id'][rows['id'].duplicated()].iloc[0]!r}. Give their files other names."
        )
    unknown = sorted(set(exclude) - set(rows["id"]))
    if unknown:
        raise UserError(f"`exclude` of the dataset names no scan of it: {', '.join(unknown)}. Its first is {rows['id'][0]!r}.")
    zipped = "fingerprint" in rows  # those of fetched scans are known
    faults = [file_problem(Path(path), zipped, affine) if path else "" for path in rows["path"]]
    by_hand = [f"scan: left out by hand ({exclude[scan]})" if scan in exclude else "" for scan in rows["id"]]
    known = zip(rows["problem"], by_hand, faults, strict=True)
    rows["problem"] = [join_problems(problem, hand or fault) for problem, hand, fault in known]

    if not zipped:
        readable = [index for index, path, fault in zip(rows.index, rows["path"], faults, strict=True) if path and not fault]
        rows["fingerprint"] = ""
        for index in progress(readable, desc="fingerprints", unit="image"):
            path = Path(rows.loc[index, "path"])
            try:
                rows.loc[index, "fingerprint"] = fingerprint(path)
            except OSError as error:
                problem = f"scan: file cannot be read ({path.name}, {error.strerror})"
                rows.loc[index, "problem"] = join_problems(rows.loc[index, "problem"], problem)
    for twins in same_images(rows):
        one_subject = twins["subject"].nunique() == 1
        for index in twins.index[1:] if one_subject else twins.index:
            other = twins["id"].drop(index).iloc[0]
            problem = f"scan: same image as another{'' if one_subject else ' subject'} ({other})"
            rows.loc[index, "problem"] = join_problems(rows.loc[index, "problem"], problem)

    first = ["id", "subject", "session", "site"]
    last = ["path", "fingerprint", "problem", "notes"]
    for column in TEXT_COLUMNS:
        rows[column] = rows[column].fillna("") if column in rows else ""
    return rows[first + [c for c in rows if c not in first + last] + last]


def relative_paths(alternatives: str, folder: Path) -> str:
    """Return a cell of alternatives with their paths from `folder`."""
    if not alternatives:
        return ""
    return json.dumps([{**one, "path": os.path.relpath(one["path"], folder)} for one in json.loads(alternatives)])


def same_images(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the groups of usable scans with the same voxels.

    Files whose fingerprints agree on the voxels are read to be sure of it; where these differ, `fingerprint` is made different.
    """
    usable_scans = rows[usable(rows) & (rows["fingerprint"] != "")]
    voxels = usable_scans["fingerprint"].map(voxels_of)
    groups = []
    for _, scans in usable_scans[voxels.duplicated(keep=False)].groupby(voxels):
        hashes = [hash_of_voxels(Path(path)) if Path(path).is_file() else "" for path in scans["path"]]
        groups += [twins for _, twins in scans.groupby(hashes) if len(twins) > 1]
        if len(set(hashes)) > 1:
            rows.loc[scans.index, "fingerprint"] = [
                f"{one[:16]}-{text}" for one, text in zip(hashes, scans["fingerprint"], strict=True)
            ]
    return groups


def log_counts(rows: pd.DataFrame) -> None:
    """Log how many scans there are and how many are left out, for which reason."""
    kinds = rows["problem"].map(lambda problems: "; ".join(reasons_of(problems)))
    images = (rows["path"] != "").sum()
    log.info("%d rows, %d scans with an image, %d without any problem", len(rows), images, (kinds == "").sum())
    for problem, count in kinds[kinds != ""].value_counts().items():
        log.info("%5d  %s", count, problem)


def main(argv: list[str] | None = None) -> None:
    """Read the command line and organize."""
    parser = stage_parser(__doc__)
    parser.add_argument("--labels", type=Path, required=True, help="the table to write, one row per scan")
    parser.add_argument("--scans", type=Path, required=True, help="the list of images to preprocess to write")
    parser.add_argument("--table", type=Path, help="table of the subjects or scans: .csv, .tsv, .xls, .xlsx")
    parser.add_argument("--sheet", help="sheet of an Excel file (default: the first)")
    parser.add_argument("--columns", type=json.loads, required=True, help="the dataset's `columns`, as JSON")
    parser.add_argument("--fetched", type=Path, help="the scans that ukbfetch listed, instead of images")
    parser.add_argument("--images", type=Path, nargs="+", default=[], help="archives or folders, unless the table has paths")
    parser.add_argument("--pattern", help="regular expression of an image's name, with the group `subject`")
    parser.add_argument("--ignore", help="regular expression of the names of images that are not meant")
    parser.add_argument("--affine", type=json.loads, help="voxel to RAS+ mm of Analyze images, 4 x 4, as JSON")
    parser.add_argument(
        "--scans-per-session",
        choices=["all", "first"],
        default="all",
        help="use all scans, or one: the first by name, unless it is worse",
    )
    parser.add_argument("--expect", type=json.loads, default={}, help="rows and known values of the published table, as JSON")
    parser.add_argument("--exclude", type=json.loads, default={}, help="scans to leave out, as JSON: id and reason")
    parser.add_argument("--label-maps", type=json.loads, help="classes, background and pattern of the label maps, as JSON")
    parser.add_argument("--map-images", type=Path, nargs="+", default=[], help="archives or folders of label maps")
    organize(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    run_stage(main)
