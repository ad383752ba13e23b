"""The rows of a dataset's table: read, merged, joined with the images."""

import logging
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from mriflow.base.errors import UserError
from mriflow.base.files import as_path
from mriflow.images.kinds import is_image, without_suffix
from mriflow.tables.cells import as_code, as_text, as_written, read_value, same_code, shown
from mriflow.tables.identifiers import looks_like_date, refuse_spoilt, warn_of_dates
from mriflow.tables.problems import join_problems
from mriflow.tables.reader import EXCEL, TEXT, decimal_comma, pick_column
from mriflow.tables.sidecars import read_sidecars, with_sidecar

log = logging.getLogger(__name__)

Columns = Mapping[str, Mapping[str, Any]]

SIDE = "(side)"  # no label has such a name


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
    return note_dates(pd.DataFrame(rows), columns, file)


def rows_of_scans(raw: pd.DataFrame, columns: Columns, file: Path) -> pd.DataFrame:
    """Return one row per image of a table that has a column with their paths, from the table's own folder."""
    values, problems = read_columns(raw, columns, file)
    known = values["path"].notna()
    values, problems, completed = complete_scans(values, problems)
    rows = merge_twins(values[known], problems[known], ["path"], columns)
    for row in rows:
        row["notes"] = join_problems(row["notes"], completed.get(row["path"], ""))
    known |= values["subject"].isin(values["subject"][known].dropna())  # rows that have completed others
    for row in rows:
        path = file.parent / as_path(row["path"])
        row |= {"path": str(path), "id": without_suffix(path) if is_image(path) else path.name}
        if row["subject"] is None:
            row["problem"] = join_problems(row["problem"], "scan: no subject in the table")
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
    return note_dates(table, columns, file)


def complete_scans(values: pd.DataFrame, problems: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, str]]:
    """Complete the rows of scans from rows of the same subject without a path, as REDCap exports one for each event.

    Returns
    -------
    The values and problems, and by path a note of what was taken from where. A value that two such rows tell differently is
    not taken, with a problem.
    """
    values, problems, notes = values.copy(), problems.copy(), {}
    events = values[values["path"].isna() & values["subject"].notna()]
    rows_of = {subject: rows for subject, rows in events.groupby("subject")}
    for index in values.index[values["path"].notna() & values["subject"].isin(rows_of)]:
        rows, taken = rows_of[values.loc[index, "subject"]], []
        for name in values.columns.difference(["path", "subject", "session"], sort=False):
            if values.loc[index, name] is not None or problems.loc[index, name]:
                continue
            distinct, faults = rows[name].dropna().unique(), problems.loc[rows.index, name]
            if len(distinct) > 1:
                problems.loc[index, name] = f"contradictory ({', '.join(map(as_written, distinct))})"
            elif (faults != "").any():
                problems.loc[index, name] = faults[faults != ""].iloc[0]
            elif len(distinct):
                values.loc[index, name] = distinct[0]
                taken.append(name)
        if taken:
            note = f"rows: {', '.join(taken)} of another row of the subject (without a path)"
            notes[str(values.loc[index, "path"])] = note
    return values, problems, notes


def note_dates(rows: pd.DataFrame, columns: Columns, file: Path) -> pd.DataFrame:
    """Add a note to the rows of subjects whose names look like dates, unless they stand in no table but in names of images."""
    if file.suffix.lower() not in (*TEXT, *EXCEL):
        return rows
    warn_of_dates(rows["subject"], columns["subject"]["from"], file)
    notes = [
        join_problems(note, f"subject: looks like a date ({shown(as_text(subject))})" if looks_like_date(subject) else "")
        for note, subject in zip(rows["notes"], rows["subject"], strict=True)
    ]
    return rows.assign(notes=notes)


def merge_twins(values: pd.DataFrame, problems: pd.DataFrame, keys: list[str], columns: Columns) -> list[dict[str, Any]]:
    """Return one row for all rows that are equal in `keys`.

    A value that only one of the twins has is taken; two different values, or one that cannot be read, leave the cell empty,
    with a problem.
    """
    rows = []
    twin = values.duplicated(keys, keep=False)
    for row, faults in zip(values[~twin].to_dict("records"), problems[~twin].to_dict("records"), strict=True):
        rows.append(row | explain(row, {name: text for name, text in faults.items() if text and name not in keys}, columns))
    for key, twins in values[twin].groupby(keys, sort=True, dropna=False):
        row = dict(zip(keys, key, strict=True))
        wrong: dict[str, str] = {}
        for name in values.columns.difference(keys, sort=False):
            distinct = twins[name].dropna().unique()
            faults = problems.loc[twins.index, name]
            row[name] = distinct[0] if len(distinct) == 1 else None
            if len(distinct) > 1:
                wrong[name] = f"contradictory ({', '.join(map(as_written, distinct))})"
            elif (faults != "").any():
                row[name] = None
                wrong[name] = faults[faults != ""].iloc[0]
        explained = explain(row, wrong, columns)
        if any(text.startswith("contradictory") for text in wrong.values()):
            kind = "with other values"
        else:
            kind = "one completes another" if len(twins.drop(columns=keys).drop_duplicates()) > 1 else "with the same values"
        explained["notes"] = join_problems(explained["notes"], f"rows: duplicated, {kind} ({len(twins)})")
        rows.append(row | explained)
    return rows


def read_columns(raw: pd.DataFrame, columns: Columns, file: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the values of all `columns` and, in a table of the same shape, what is wrong with them."""
    values, problems = {}, {}
    commas = decimal_comma(file)
    described = read_sidecars([file.with_suffix(".json")] if file.suffix == ".tsv" else [])
    for name, column in with_sidecar(columns, described).items():
        if name in ("subject", "session"):
            refuse_spoilt(pick_column(raw, column["from"], file), column["from"], file)
        cells = pick_column(raw, column["from"], file)
        tell_of_codes(cells, column, file)
        if commas and "range" in column:
            cells = cells.map(lambda cell: re.sub(r"^\s*([+-]?\d+),(\d+)\s*$", r"\1.\2", cell))
        read = [read_value(cell, column) for cell in cells]
        values[name] = pd.Series([value for value, _ in read], index=raw.index, dtype=object)
        problems[name] = pd.Series([problem for _, problem in read], index=raw.index, dtype=object)
    return pd.DataFrame(values), pd.DataFrame(problems)


def tell_of_codes(cells: pd.Series, column: Mapping[str, Any], file: Path) -> None:
    """Log which cells of a column are a code but for their capitals or blanks, or a boolean of YAML."""
    codes = column.get("codes", {})
    for cell, count in cells.map(str).value_counts().items() if codes else ():
        code = same_code(cell, codes)
        if code is not None and as_code(code) != as_code(cell):
            log.info("%s: %d cell(s) %r in the column %r are read as the code %r", file, count, cell, column["from"], code)


def explain(row: Mapping[str, Any], wrong: Mapping[str, str], columns: Columns) -> dict[str, str]:
    """Return the `problem` (required columns) and `notes` (the others) of a row, given what is wrong by column."""
    texts = {"problem": "", "notes": ""}
    for name, column in columns.items():
        if name in wrong:
            field = "problem" if column.get("required") else "notes"
            texts[field] = join_problems(texts[field], f"{name}: {wrong[name]}")
        elif column.get("required") and row.get(name) is None:
            texts["problem"] = join_problems(texts["problem"], f"{name}: missing")
    return texts


def joined(parts: pd.DataFrame) -> list[str]:
    """Return the texts of each row joined to one, without the unknown."""
    return ["_".join(filter(None, row)) for row in parts.fillna("").to_numpy().tolist()]


def refuse_strangers(images: pd.DataFrame, people: pd.DataFrame, file: Path) -> None:
    """Raise a UserError if the table names no subject of any image: the two are written in different ways."""
    of_images, of_rows = (sorted(set(table["subject"].dropna())) for table in (images, people))
    if of_images and of_rows and not set(of_images) & set(of_rows):
        in_table, in_names = (", ".join(map(repr, names[:3])) for names in (of_rows, of_images))
        raise UserError(
            f"{file}: none of its {len(of_rows)} subject(s) has an image. It has such as {in_table}, the names of the images "
            f"such as {in_names}. Make them alike: by the `format` of the column subject ({format_of(of_images)} makes "
            f"{of_images[0]} of its number, also where a spreadsheet lost the zeros), by its `pattern`, or by the `pattern` of "
            "the images."
        )


def format_of(subjects: list[str]) -> str:
    """Return the `format` that makes such a subject of its number.

    >>> format_of(["sub-02", "sub-10"]), format_of(["anna"])
    ('sub-{:02d}', 'S{:03d}')
    """
    match = re.fullmatch(r"(.*?)(\d+)", subjects[0])
    return f"{match[1]}{{:0{len(match[2])}d}}" if match else "S{:03d}"


def bare(subject: str) -> str:
    """Return a subject without what often differs between two lists: capitals, signs, leading zeros.

    >>> bare("Sub_007"), bare("sub-7")
    ('sub7', 'sub7')
    """
    return re.sub(r"(?<![0-9])0+(?=[0-9])", "", re.sub(r"[\W_]+", "", subject.lower()))


def join_images(images: pd.DataFrame, people: pd.DataFrame, keys: list[str]) -> pd.DataFrame:
    """Join the images with the rows of their subjects; images without a row and rows without an image are kept."""
    overlap = images.columns.intersection(people.columns).difference(keys)
    people = people.drop(columns=overlap)
    stray, images = images[images["subject"].isna()], images[images["subject"].notna()]
    nobody, people = people[people["subject"].isna()], people[people["subject"].notna()]
    rows = images.merge(people, on=keys, how="outer", indicator=SIDE)
    for column in ("id", "path", "problem", "notes"):
        rows[column] = rows[column].fillna("")
    no_row, no_image = rows[SIDE] == "left_only", rows[SIDE] == "right_only"
    near = {bare(subject): subject for subject in rows.loc[no_image, "subject"]}
    rows.loc[no_row, "problem"] = [
        "scan: no row in the table" + (f" (but one of {near[bare(subject)]!r})" if bare(subject) in near else "")
        for subject in rows.loc[no_row, "subject"]
    ]
    rows.loc[no_image, "problem"] = [join_problems("scan: no image", text) for text in rows.loc[no_image, "problem"]]
    taken = {*images["id"], *stray["id"]}  # of which one may be called as the subject is; no file has a slash in its name
    rows.loc[no_image, "id"] = [f"{name}/no-image" if name in taken else name for name in joined(rows.loc[no_image, keys])]
    stray = stray.assign(problem="scan: name does not fit the pattern", notes="")
    nobody = nobody.assign(id=[f"row-{index}" for index in nobody["problem"].str.extract(r"row (\d+)", expand=False)], path="")
    return pd.concat([rows.drop(columns=SIDE), stray, nobody], ignore_index=True)


def note_one_row(rows: pd.DataFrame, columns: Columns, told: Mapping[str, Collection[str]], file: Path) -> pd.DataFrame:
    """Add a note to the scans of several sessions of a subject that have a number, such as the age, of one row of the table.

    Parameters
    ----------
    told
        By column the paths of the images of which another table tells that of the visit (`mriflow.tables.visits`).
    """
    if "session" not in rows:
        return rows
    rows, images = rows.copy(), rows[rows["path"] != ""]
    sessions = rows["subject"].map(images.groupby("subject")["session"].nunique(dropna=False))
    for name in (name for name, column in columns.items() if "range" in column and column.get("required") and name in rows):
        of_one = (sessions > 1) & (rows["path"] != "") & rows[name].notna() & ~rows["path"].isin(list(told.get(name, ())))
        for index in rows.index[of_one]:
            note = f"{name}: of one row of the table for all sessions of the subject ({sessions[index]:.0f} sessions)"
            rows.loc[index, "notes"] = join_problems(rows.loc[index, "notes"], note)
        if of_one.any():
            log.warning(
                "%s: one row tells the %s of all sessions of a subject, in %d scans. If they were months or years apart, give "
                "it a row for each session and name its column of sessions in `columns`",
                file,
                name,
                of_one.sum(),
            )
    return rows


def join_fetched(fetched: pd.DataFrame, people: pd.DataFrame) -> pd.DataFrame:
    """Join the fetched scans with the rows of their participants; each keeps its own problem and fingerprint."""
    rows = join_images(fetched[["id", "path", "subject", "session"]], people, ["subject", "session"])
    own = fetched.set_index("id").loc[rows["id"]]
    rows["problem"] = [join_problems(*texts) for texts in zip(own["problem"], rows["problem"], strict=True)]
    return rows.assign(fingerprint=own["fingerprint"].to_numpy())
