"""Join the images of a dataset with its table and write labels.csv, one row per scan.

Nothing is dropped: a scan that cannot be used keeps its row and says why in the column `problem`. The images of an archive
are unpacked beside labels.csv; a folder of images, or paths in the table, are used where they are.
"""

import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mriflow.cli import run_stage, stage_parser
from mriflow.content import fingerprint, hash_of_voxels, voxels_of
from mriflow.errors import UserError
from mriflow.fetched import read_fetched, read_participants
from mriflow.files import write_csv
from mriflow.images import ANALYZE, NIFTI, find_images, scan_id
from mriflow.labels import TEXT_COLUMNS, reasons_of, usable
from mriflow.tables import as_text, pick_column, read_table, read_value
from mriflow.ukbzip import split_path

log = logging.getLogger(__name__)

Columns = Mapping[str, Mapping[str, Any]]


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
) -> pd.DataFrame:
    """Write `labels` (see `mriflow.labels`) and `scans`, the list of the images that can be preprocessed.

    `scans` stands apart so that what is preprocessed depends on no label.

    Parameters
    ----------
    columns
        For every column of `labels` where it comes from; see the dataset's schema.
    table, sheet
        The table of subjects or scans, and the sheet if it is an Excel file with several. Without one, the labels are what the
        names of the images tell.
    fetched
        The scans that `mriflow.ukbfetch` listed, in zips, instead of `images`; see `mriflow.fetched`.
    images, pattern, ignore, affine
        Archives and folders of images, and how to read them; see `mriflow.images.find_images`. Without them the table has one
        row per scan, with a column `path`.
    scans_per_session
        `all`, or `first` to use the first scan of a session by name.
    expect
        How many rows the published table has (`rows`), and in how many a column is known; one that differs was altered.
    exclude
        Scans to leave out by hand: id and reason.

    Returns
    -------
    The table written to `labels`.

    Raises
    ------
    UserError
        For a table, archive or image folder that is missing, unreadable or not as described.
    """
    used = [column["from"] for column in columns.values()]
    if fetched is not None and table is not None:
        found = read_fetched(fetched)
        raw, columns = read_participants(table, sheet, found, columns)
        check_expected(raw, columns, table, expect or {})
        rows = join_fetched(found, people_of(raw, columns, table, ["subject", "session"]))
    elif images and pattern:
        found = find_images(images, pattern, labels.parent / "images", ignore=ignore, affine=affine)
        if table is None:
            raw, source = found[found["subject"].notna()].drop(columns=["id", "path"]), images[0]
        else:
            raw, source = read_table(table, sheet, only=used), table
        found = found[[c for c in ("id", "path", "subject", "session", "site") if c in found]]
        check_expected(raw, columns, source, expect or {})
        keys = [key for key in ("subject", "session") if key in columns and key in found]
        people = people_of(raw, columns, source, keys)
        refuse_strangers(found, people, source)
        rows = join_images(found, people, keys)
    elif table is not None:
        raw = read_table(table, sheet, only=used)
        check_expected(raw, columns, table, expect or {})
        rows = rows_of_scans(raw, columns, table)
    else:
        raise UserError("a dataset needs a table, or images with a `pattern` that reads the subject from their names.")
    if scans_per_session == "first":
        rows = flag_repeats(rows)
    rows = flag_scans(rows, exclude or {})
    rows["path"] = [os.path.relpath(path, labels.parent) if path else "" for path in rows["path"]]

    write_csv(rows, labels)
    write_csv(rows.loc[usable(rows), ["id", "path", "fingerprint"]], scans)
    tell(rows)
    return rows


def check_expected(raw: pd.DataFrame, columns: Columns, file: Path, expect: Mapping[str, int]) -> None:
    """Raise a UserError if a table has not the rows, or not the known values, that the published one has."""
    if not expect:
        return
    values, _ = read_columns(raw, columns, file)
    for name, expected in expect.items():
        count = len(raw) if name == "rows" else int(values[name].notna().sum())
        if count != expected:
            what = "rows" if name == "rows" else f"rows with a value in {columns[name]['from']!r}"
            raise UserError(
                f"{file}: {count} {what}, where the published table has {expected}: this copy was altered (were blanks filled "
                "in, or rows lost?). Get it from its publisher; if yours is meant to differ, change `expect` of the dataset."
            )


def people_of(raw: pd.DataFrame, columns: Columns, file: Path, keys: list[str]) -> pd.DataFrame:
    """Return one row per subject (and session, if that is one of `keys`); a row without a subject is kept, with a problem."""
    values, problems = read_columns(raw, columns, file)
    known = values["subject"].notna()
    rows = merge_twins(values[known], problems[known], keys, columns)
    for index in values.index[~known]:
        why = f", {problems.loc[index, 'subject']}" if problems.loc[index, "subject"] else ""
        problem = f"scan: no subject in the table (row {index + 2}{why})"
        rows.append(values.loc[index].to_dict() | {"problem": problem, "notes": ""})
    return pd.DataFrame(rows)


def rows_of_scans(raw: pd.DataFrame, columns: Columns, file: Path) -> pd.DataFrame:
    """Return one row per image of a table that has a column with their paths, from the table's own folder."""
    values, problems = read_columns(raw, columns, file)
    known = values["path"].notna()
    rows = merge_twins(values[known], problems[known], ["path"], columns)
    for row in rows:
        path = file.parent / row["path"]
        row |= {"path": str(path), "id": scan_id(path)}
        if row["subject"] is None:
            row["problem"] = append_problem(row["problem"], "scan: no subject in the table")
    for index in values.index[~known]:
        problem = f"scan: no path in the table (row {index + 2})"
        rows.append(values.loc[index].to_dict() | {"path": "", "id": f"row-{index + 2}", "problem": problem, "notes": ""})
    table = pd.DataFrame(rows)
    # Files of one name in folders of their own (sub-01/T1.nii.gz) are told apart by their subject and session, or the folders.
    names = [c for c in ("subject", "session", "id") if c in table]
    twins = table["id"].duplicated(keep=False)
    table.loc[twins, "id"] = joined(table.loc[twins, names])
    twins = table["id"].duplicated(keep=False)
    table.loc[twins, "id"] = [re.sub(r"[^\w.-]+", "_", path).strip("_") for path in table["path"][twins]]
    return table


def merge_twins(values: pd.DataFrame, problems: pd.DataFrame, keys: list[str], columns: Columns) -> list[dict[str, Any]]:
    """Return one row for all rows that are equal in `keys`.

    A value that only one of the twins has is taken; two different values, or one that cannot be read, leave the cell empty,
    with a problem.
    """
    rows = []
    twin = values.duplicated(keys, keep=False)
    for row, told in zip(values[~twin].to_dict("records"), problems[~twin].to_dict("records"), strict=True):
        rows.append(row | explain(row, {name: text for name, text in told.items() if text and name not in keys}, columns))
    for key, twins in values[twin].groupby(keys, sort=True, dropna=False):
        row = dict(zip(keys, key, strict=True))
        wrong: dict[str, str] = {}
        for name in values.columns.difference(keys, sort=False):
            distinct = twins[name].dropna().unique()
            faults = problems.loc[twins.index, name]
            row[name] = distinct[0] if len(distinct) == 1 else None
            if len(distinct) > 1:
                wrong[name] = f"contradictory ({', '.join(map(as_text, distinct))})"
            elif (faults != "").any():
                row[name] = None
                wrong[name] = faults[faults != ""].iloc[0]
        told = explain(row, wrong, columns)
        if any(text.startswith("contradictory") for text in wrong.values()):
            kind = "with other values"
        else:
            kind = "one completes another" if len(twins.drop(columns=keys).drop_duplicates()) > 1 else "with the same values"
        told["notes"] = append_problem(told["notes"], f"rows: duplicated, {kind} ({len(twins)})")
        rows.append(row | told)
    return rows


def read_columns(raw: pd.DataFrame, columns: Columns, file: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the values of all `columns` and, in a table of the same shape, what is wrong with them."""
    values, problems = {}, {}
    levels = read_levels(file)
    for name, column in columns.items():
        if not column.keys() & {"codes", "range"} and column["from"] in levels:
            column = {**column, "codes": {level: level for level in levels[column["from"]]}}
        read = [read_value(cell, column) for cell in pick_column(raw, column["from"], file)]
        values[name] = pd.Series([value for value, _ in read], index=raw.index, dtype=object)
        problems[name] = pd.Series([problem for _, problem in read], index=raw.index, dtype=object)
    return pd.DataFrame(values), pd.DataFrame(problems)


def read_levels(table: Path) -> dict[str, list[str]]:
    """Return the levels of a table's columns, as the JSON file that BIDS lays beside a table tells them."""
    described = table.with_suffix(".json")
    if table.suffix != ".tsv" or not described.is_file():
        return {}
    try:
        columns = json.loads(described.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise UserError(f"{described}: not valid JSON ({error}). Correct it, or delete it.") from error
    levels = {}
    for name, column in columns.items() if isinstance(columns, dict) else [("", columns)]:
        told = column.get("Levels", {}) if isinstance(column, dict) else None
        if not isinstance(told, dict | list):
            raise UserError(
                f"{described}: does not describe the columns of {table.name} as BIDS wants it (at {name!r}): expected a block "
                "for each column, in which `Levels` is a block of level and meaning. Correct it, or delete it."
            )
        levels[name] = [str(level) for level in told]
    return {name: told for name, told in levels.items() if told}


def explain(row: Mapping[str, Any], wrong: Mapping[str, str], columns: Columns) -> dict[str, str]:
    """Return the `problem` (required columns) and `notes` (the others) of a row, given what is wrong by column."""
    told = {"problem": "", "notes": ""}
    for name, column in columns.items():
        if name in wrong:
            field = "problem" if column.get("required") else "notes"
            told[field] = append_problem(told[field], f"{name}: {wrong[name]}")
        elif column.get("required") and row.get(name) is None:
            told["problem"] = append_problem(told["problem"], f"{name}: missing")
    return told


def joined(parts: pd.DataFrame) -> list[str]:
    """Return the texts of each row joined to one, without the unknown."""
    return ["_".join(filter(None, row)) for row in parts.fillna("").to_numpy().tolist()]


def append_problem(text: str, problem: str) -> str:
    """Append a problem to those already told."""
    return "; ".join(filter(None, (text, problem)))


def refuse_strangers(found: pd.DataFrame, people: pd.DataFrame, file: Path) -> None:
    """Raise a UserError if the table names no subject of any image: the two are written in different ways."""
    images, rows = (sorted(set(table["subject"].dropna())) for table in (found, people))
    if images and rows and not set(images) & set(rows):
        here, there = (", ".join(map(repr, names[:3])) for names in (rows, images))
        raise UserError(
            f"{file}: none of its {len(rows)} subject(s) has an image. It has such as {here}, the names of the images such as "
            f"{there}. Make them alike: by the `format` of the column subject (S{{:03d}} makes S007 of 7, also where a "
            "spreadsheet lost the zeros), by its `pattern`, or by the `pattern` of the images."
        )


def bare(subject: str) -> str:
    """Return a subject without what often differs between two lists: capitals, signs, leading zeros."""
    return re.sub(r"(?<![0-9])0+(?=[0-9])", "", re.sub(r"[\W_]+", "", subject.lower()))


def join_images(found: pd.DataFrame, people: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Join the images with the rows of their subjects; images without a row and rows without an image are kept."""
    overlap = found.columns.intersection(people.columns).difference(keys)
    people = people.drop(columns=overlap)
    stray, found = found[found["subject"].isna()], found[found["subject"].notna()]
    nobody, people = people[people["subject"].isna()], people[people["subject"].notna()]
    rows = found.merge(people, on=keys, how="outer", indicator=True)
    for column in ("id", "path", "problem", "notes"):
        rows[column] = rows[column].fillna("")
    no_row, no_image = rows["_merge"] == "left_only", rows["_merge"] == "right_only"
    near = {bare(subject): subject for subject in rows.loc[no_image, "subject"]}
    rows.loc[no_row, "problem"] = [
        "scan: no row in the table" + (f" (but one of {near[bare(subject)]!r})" if bare(subject) in near else "")
        for subject in rows.loc[no_row, "subject"]
    ]
    rows.loc[no_image, "problem"] = [append_problem("scan: no image", text) for text in rows.loc[no_image, "problem"]]
    images = {*found["id"], *stray["id"]}  # of which one may be called as the subject is; no file has a slash in its name
    rows.loc[no_image, "id"] = [f"{name}/no-image" if name in images else name for name in joined(rows.loc[no_image, keys])]
    stray = stray.assign(problem="scan: name does not fit the pattern", notes="")
    nobody = nobody.assign(id=[f"row-{index}" for index in nobody["problem"].str.extract(r"row (\d+)", expand=False)], path="")
    return pd.concat([rows.drop(columns="_merge"), stray, nobody], ignore_index=True)


def flag_repeats(rows: pd.DataFrame) -> pd.DataFrame:
    """Give all scans of a session but the first, by name, a problem; one that has a problem already does not count as first."""
    rows = rows.sort_values("id", ignore_index=True)
    session = rows["session"].fillna("") if "session" in rows else pd.Series("", index=rows.index)
    good = (rows["problem"] == "") & (rows["path"] != "") & rows["subject"].notna()
    for _, scans in rows[good].groupby([rows["subject"], session]):
        for index in scans.index[1:]:
            rows.loc[index, "problem"] = f"scan: another of the session is used ({scans['id'].iloc[0]})"
    return rows


def join_fetched(found: pd.DataFrame, people: pd.DataFrame) -> pd.DataFrame:
    """Join the fetched scans with the rows of their participants; each keeps its own problem and fingerprint."""
    rows = join_images(found[["id", "path", "subject", "session"]], people, ["subject", "session"])
    own = found.set_index("id").loc[rows["id"]]
    rows["problem"] = [append_problem(*texts) for texts in zip(own["problem"], rows["problem"], strict=True)]
    return rows.assign(fingerprint=own["fingerprint"].to_numpy())


def flag_scans(rows: pd.DataFrame, exclude: Mapping[str, str]) -> pd.DataFrame:
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
    faults = [file_problem(Path(path), zipped) if path else "" for path in rows["path"]]
    by_hand = [f"scan: left out by hand ({exclude[scan]})" if scan in exclude else "" for scan in rows["id"]]
    told = zip(rows["problem"], by_hand, faults, strict=True)
    rows["problem"] = [append_problem(problem, hand or fault) for problem, hand, fault in told]

    if not zipped:
        rows["fingerprint"] = ""
        for index in rows.index[[bool(path) and not fault for path, fault in zip(rows["path"], faults, strict=True)]]:
            path = Path(rows.loc[index, "path"])
            try:
                rows.loc[index, "fingerprint"] = fingerprint(path)
            except OSError as error:
                problem = f"scan: file cannot be read ({path.name}, {error.strerror})"
                rows.loc[index, "problem"] = append_problem(rows.loc[index, "problem"], problem)
    for twins in same_images(rows):
        one_subject = twins["subject"].nunique() == 1
        for index in twins.index[1:] if one_subject else twins.index:
            other = twins["id"].drop(index).iloc[0]
            problem = f"scan: same image as another{'' if one_subject else ' subject'} ({other})"
            rows.loc[index, "problem"] = append_problem(rows.loc[index, "problem"], problem)

    first = ["id", "subject", "session", "site"]
    last = ["path", "fingerprint", "problem", "notes"]
    for column in TEXT_COLUMNS:
        rows[column] = rows[column].fillna("") if column in rows else ""
    return rows[first + [c for c in rows if c not in first + last] + last]


def same_images(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the groups of usable scans with the same voxels.

    Files whose fingerprints agree on the voxels are read to be sure of it; where these differ, `fingerprint` is told apart.
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


def file_problem(path: Path, zipped: bool) -> str:
    """Return what is wrong with the file of a scan at first sight, '' if nothing is; `zipped` if it may lie in a zip."""
    try:
        if zipped and split_path(path):
            return ""
        size = path.stat().st_size
    except (OSError, ValueError):  # not there, or what cannot be the name of a file
        return f"scan: no file ({path})"
    if path.is_dir():
        return f"scan: a folder, expected a NIfTI file ({path}, dcm2niix makes one of DICOM files)"
    if path.name.endswith(ANALYZE):
        why = "it is damaged" if path.with_suffix(".img").is_file() else "no .img beside it"
        return f"scan: Analyze image cannot be read ({path.name}, {why})"
    if not path.name.endswith(NIFTI):
        return f"scan: not a NIfTI file ({path.name}, expected .nii or .nii.gz)"
    return "" if size else f"scan: file is empty ({path.name})"


def tell(rows: pd.DataFrame) -> None:
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
        "--scans-per-session", choices=["all", "first"], default="all", help="use all scans or the first by name"
    )
    parser.add_argument("--expect", type=json.loads, default={}, help="rows and known values of the published table, as JSON")
    parser.add_argument("--exclude", type=json.loads, default={}, help="scans to leave out, as JSON: id and reason")
    organize(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    run_stage(main)
