"""What BIDS tells of a single visit: the tables of sessions and scans that lie above the images, to the dataset's folder.

``sub-01_sessions.tsv`` has a row per session, ``sub-01_scans.tsv`` one per image. What they tell of a visit goes before what
participants.tsv tells of the person; where the two differ, or contradict each other, the row of the scan says so.
"""

import os
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from mriflow.images.kinds import suffix_of
from mriflow.tables.cells import as_text, as_written, read_value
from mriflow.tables.identifiers import without_zeros
from mriflow.tables.problems import join_problems, without_column
from mriflow.tables.reader import column_names, pick_column, read_table
from mriflow.tables.sidecars import Described, read_sidecars, with_sidecar

Columns = Mapping[str, Mapping[str, Any]]

VISIT_TABLE = re.compile(r"(?:.+_)?(sessions|scans)\.tsv")
OF_THE_NAME = {"subject", "session", "path"}  # columns that the images themselves tell
WHICH = {"sessions": "session_id", "scans": "filename"}
PERSON = "participant_id"


class Told(NamedTuple):
    """What a table tells of one scan in one column: the value, or what is wrong with it."""

    value: Any
    problem: str
    file: str


@dataclass
class Visits:
    """What is told of the visits: by column and path of the image."""

    told: dict[str, dict[str, list[Told]]] = field(default_factory=dict)

    @property
    def columns(self) -> set[str]:
        """The columns of the dataset of which at least one table tells something."""
        return set(self.told)


def read_visits(images: pd.DataFrame, columns: Columns, participants: Path) -> Visits:
    """Read the tables of sessions and scans that lie between the images and the folder of participants.tsv.

    Parameters
    ----------
    images
        The scans: path, subject and, if their names tell it, session.
    participants
        The dataset's table; with another name, or no folder of the images around it, nothing is read.
    """
    visits = Visits()
    if participants.name != "participants.tsv":
        return visits
    root = Path(os.path.normpath(participants.parent.absolute()))
    wanted = {name: column for name, column in columns.items() if name not in OF_THE_NAME and name not in images}
    general = read_sidecars([participants.with_suffix(".json")])

    @cache
    def read(folder: Path) -> list[tuple[Path, pd.DataFrame, Columns]]:
        return [read_visit_table(file, wanted, root, general) for file in visit_tables(folder)]

    for scan in images.to_dict("records"):
        path = Path(os.path.normpath(Path(scan["path"]).absolute()))
        if not isinstance(scan["subject"], str) or root not in path.parents:
            continue
        for folder in reversed(path.parents[: path.parents.index(root) + 1]):
            for file, table, described in read(folder):
                rows = rows_of_visit(table, scan, path, file)
                for name, column in described.items():
                    cells = rows[column["from"]].unique() if len(rows) else [None]
                    read_cells = [read_value(cell, column) for cell in cells]
                    told = [Told(value, problem, file.name) for value, problem in read_cells]
                    visits.told.setdefault(name, {}).setdefault(scan["path"], []).extend(told)
    return visits


def visit_tables(folder: Path) -> list[Path]:
    """Return the tables of sessions and scans in a folder, the sessions' first."""
    return sorted((path for path in folder.glob("*.tsv") if VISIT_TABLE.fullmatch(path.name)), key=kind_of, reverse=True)


def kind_of(file: Path) -> str:
    """Return whether a table is one of `sessions` or of `scans`."""
    match = VISIT_TABLE.fullmatch(file.name)
    return match[1] if match else ""


def read_visit_table(
    file: Path, wanted: Columns, root: Path, general: Mapping[str, Described]
) -> tuple[Path, pd.DataFrame, Columns]:
    """Return such a table, and the columns of the dataset that it has, as its sidecars describe them."""
    names = column_names(file)
    columns = {name: column for name, column in wanted.items() if column["from"] in names}
    if not columns:
        return file, pd.DataFrame(), {}
    of_one_person = file.name.startswith("sub-") and PERSON not in names
    keys = [WHICH[kind_of(file)], *([] if of_one_person else [PERSON])]
    table = read_table(file, only=[*keys, *(column["from"] for column in columns.values())])
    described = general | read_sidecars([root / f"{kind_of(file)}.json", file.with_suffix(".json")])
    return file, table, with_sidecar(columns, described)


def rows_of_visit(table: pd.DataFrame, scan: Mapping[str, Any], path: Path, file: Path) -> pd.DataFrame:
    """Return the rows of a table of sessions or scans that are about one scan."""
    if table.empty:
        return table
    key = WHICH[kind_of(file)]
    cells = pick_column(table, key, file).map(as_text)
    if key == "filename":
        same = cells.map(bare_path) == bare_path(path.relative_to(file.parent).as_posix())
    else:
        session = scan.get("session")
        cells, session = cells.str.removeprefix("ses-"), (session if isinstance(session, str) else "").removeprefix("ses-")
        same = cells == session
        if not same.any():  # a spreadsheet may have taken the zeros of 01
            same = cells.map(without_zeros) == without_zeros(session)
    if PERSON in table:
        same &= table[PERSON].map(as_text).str.removeprefix("sub-") == scan["subject"].removeprefix("sub-")
    return table[same]


def bare_path(text: str) -> str:
    r"""Return the path of an image as it is compared: without a suffix, for many a table names what was compressed since.

    >>> bare_path(r".\anat\sub-01_T1w.nii") == bare_path("anat/sub-01_T1w.nii.gz")
    True
    """
    path = posixpath.normpath(text.replace("\\", "/"))
    return path[: len(path) - len(suffix_of(path))]


def join_visits(rows: pd.DataFrame, visits: Visits, columns: Columns) -> pd.DataFrame:
    """Give each scan what is told of its visit, and say in `problem` or `notes` where that differs from the person's row."""
    rows = rows.copy()
    for name in sorted(visits.columns, key=list(columns).index):
        of_image = visits.told[name]
        general = rows[name] if name in rows else pd.Series(None, index=rows.index, dtype=object)
        of_subject: dict[Any, set] = {}
        for subject, path in zip(rows["subject"], rows["path"], strict=True):
            of_subject.setdefault(subject, set()).update(told.value for told in of_image.get(path, ()))
        required = "problem" if columns[name].get("required") else "notes"
        values = list(general)
        for place, (index, path, subject) in enumerate(zip(rows.index, rows["path"], rows["subject"], strict=True)):
            if path not in of_image:
                if required == "problem" and name not in rows and path:
                    rows.loc[index, "problem"] = join_problems(rows.loc[index, "problem"], f"{name}: missing")
                continue
            person = None if pd.isna(general[index]) else general[index]
            at_odds = "range" not in columns[name] and person not in of_subject[subject]
            value, field_name, text = settled(of_image[path], person, at_odds)
            if value is None and person is None and not text:
                continue
            values[place] = value
            for cell in ("problem", "notes"):
                rows.loc[index, cell] = without_column(rows.loc[index, cell], name)
            cell = field_name or required
            rows.loc[index, cell] = join_problems(rows.loc[index, cell], f"{name}: {text}" if text else "")
        rows[name] = pd.Series(values, index=rows.index, dtype=object)
    return rows


def settled(told: Iterable[Told], person: Any, at_odds: bool) -> tuple[Any, str, str]:
    """Return the value of a scan, and what is to be said of it: the cell if that is `notes`, and the text.

    Parameters
    ----------
    person
        What participants.tsv tells of the person, None for nothing.
    at_odds
        Whether this is a class that no visit of the person has.
    """
    told = list(told)
    known = {one.value: one for one in reversed(told) if one.value is not None}
    wrong = [one.problem for one in told if one.problem]
    if len(known) > 1:
        places = ", ".join(f"{as_written(value)} in {one.file}" for value, one in reversed(known.items()))
        return None, "", f"contradictory ({places})"
    if wrong:
        return None, "", wrong[0]
    if not known:
        text = f"of participants.tsv ({as_written(person)}), for {told[0].file} does not tell it"
        return person, "notes", "" if person is None else text
    value, one = next(iter(known.items()))
    if person is None or person == value:
        return value, "", ""
    if at_odds:
        return None, "", f"contradictory ({as_written(person)} in participants.tsv, {as_written(value)} in {one.file})"
    return value, "notes", f"of the visit ({as_written(value)}, where participants.tsv has {as_written(person)})"


def columns_of_people(columns: Columns, visits: Visits, participants: Path, sheet: str | None) -> Columns:
    """Return the columns of a dataset without those that stand in the tables of its visits alone."""
    if not visits.columns:
        return columns
    there = column_names(participants, sheet)
    return {name: column for name, column in columns.items() if column["from"] in there or name not in visits.columns}
