"""Scans that are predicted already, kept beside the table that is to be written: a run that was stopped goes on from there."""

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mriflow.prediction.sources import Named

log = logging.getLogger(__name__)

Row = dict[str, Any]


class Finished:
    """The rows of a table of predictions in the making; `add` brings them to disk at once, and `remove` ends it.

    Parameters
    ----------
    output
        The table.
    made_by
        What a row depends on beside its scan, as text: another model finds no row.
    """

    def __init__(self, output: Path, made_by: str) -> None:
        self.path, self.made_by = output.with_name(f".part.{output.name}.rows"), made_by
        self.rows: dict[str, Row] = {}
        if self.path.is_file():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    key, row = json.loads(line)
                except ValueError:  # the line in which it was stopped
                    continue
                self.rows[key] = row

    def row_of(self, scan: Named) -> Row | None:
        """Return the row of a scan, if it is finished, its file unchanged, and its label map, if it has one, still there."""
        row = self.rows.get(self.key(scan))
        made = row.get("label_map") if row else None
        return None if isinstance(made, str) and not Path(made).is_file() else row

    def add(self, scans: Sequence[Named], rows: Sequence[Row]) -> None:
        """Keep the rows of scans."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="utf-8") as stream:
            for scan, row in zip(scans, rows, strict=True):
                stream.write("\n" * (stream.tell() > 0) + json.dumps([self.key(scan), row], default=float))
            stream.flush()
            os.fsync(stream.fileno())

    def remove(self) -> None:
        """Delete what was kept, for the table is written."""
        self.path.unlink(missing_ok=True)

    def key(self, scan: Named) -> str:
        """Return a hash of all that the row of a scan depends on."""
        path = Path(scan["path"])
        state = path.stat() if path.is_file() else None
        file = [state.st_size, state.st_mtime_ns] if state else []
        return hashlib.sha256(json.dumps([self.made_by, str(path), file, scan["labels"], scan["problem"]]).encode()).hexdigest()
