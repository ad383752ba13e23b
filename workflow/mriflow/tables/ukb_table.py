"""Join the scans that `ukbfetch` lists with the table of UK Biobank, which has a row per participant, with scan or without."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from mriflow.base.errors import UserError
from mriflow.tables.cells import read_value
from mriflow.tables.reader import pick_column, read_table

log = logging.getLogger(__name__)

SESSION = "(instance of the scan)"  # no column of a table has this name


def read_fetched(fetched: Path) -> pd.DataFrame:
    """Return one row per scan of the table that `mriflow.ukbfetch` wrote: id, path, subject, session, problem, fingerprint."""
    if not fetched.is_file():
        raise UserError(f"{fetched}: no such list of scans; `python -m mriflow.ukbfetch` makes it.")
    rows = pd.read_csv(fetched, dtype=str, keep_default_na=False)
    ids = rows[["eid", "field", "instance", "array"]].agg("_".join, axis=1)
    paths = [os.path.normpath(fetched.parent / path) if path else "" for path in rows["path"]]
    scans = pd.DataFrame({"id": ids, "path": paths, "subject": rows["eid"], "session": rows["instance"]})
    return scans.join(rows[["problem", "fingerprint"]])


def read_participants(
    table: Path, sheet: str | None, scans: pd.DataFrame, columns: Mapping[str, Mapping[str, Any]]
) -> tuple[pd.DataFrame, dict[str, Mapping[str, Any]]]:
    """Return the rows of the participants who were scanned, one for each session, and `columns` with that of the session.

    A column whose `from` holds ``{session}`` is taken from the table's column of that session. Participants without a scan
    are counted, not listed: a table has half a million of them. Of its thousands of columns only those needed are read.
    """
    sessions = sorted(scans["session"].unique())
    names = {column["from"].replace("{session}", session) for column in columns.values() for session in sessions}
    raw = read_table(table, sheet, only=names)
    cells = pick_column(raw, columns["subject"]["from"], table)
    subjects = pd.Series([read_value(cell, columns["subject"])[0] for cell in cells], index=raw.index, dtype=object)
    unscanned = int((~subjects.isin(scans["subject"])).sum())
    log.info("%d rows of %s are of participants without a scan in the bulk file; they are not listed", unscanned, table)

    if unscanned == len(raw):
        raise UserError(
            f"{table}: none of its {len(raw)} participant(s) is in the bulk file. It has such as {subjects.iloc[0]!r}, the "
            f"bulk file {scans['subject'].iloc[0]!r}. Are the two of one application?"
        )
    known = pd.DataFrame({"subject": subjects, "row": raw.index}).dropna()
    pairs = scans[["subject", "session"]].drop_duplicates().merge(known, on="subject")
    rows = raw.loc[pairs["row"]].reset_index(drop=True)
    rows[SESSION] = pairs["session"]
    for column in columns.values():
        if "{session}" in column["from"]:
            cells = pd.Series("", index=rows.index, dtype=object)
            for session in sessions:
                own = rows[SESSION] == session
                cells[own] = pick_column(rows, column["from"].replace("{session}", session), table)[own]
            rows[column["from"]] = cells
    return rows, {**columns, "session": {"from": SESSION}}
