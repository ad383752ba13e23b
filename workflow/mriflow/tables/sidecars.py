"""What BIDS says of a table's columns, in the JSON file beside the table: their levels, and their units."""

import json
import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mriflow.base.errors import UserError
from mriflow.tables.units import in_unit

log = logging.getLogger(__name__)

NOT_A_LEVEL = "n/a"  # BIDS' word for a value that is not known, described or not


class Described(NamedTuple):
    """What a sidecar says of a column."""

    levels: list[str]
    units: str
    file: Path


def read_sidecars(files: Iterable[Path]) -> dict[str, Described]:
    """Return what those of these JSON files that are there say of each column; a later file goes before an earlier."""
    described: dict[str, Described] = {}
    for file in files:
        if file.is_file():
            described |= read_sidecar(file)
    return described


def read_sidecar(file: Path) -> dict[str, Described]:
    """Return what a JSON file says of the columns of the table of its name.

    Raises
    ------
    UserError
        If it is not such a file.
    """
    try:
        columns = json.loads(file.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise UserError(f"{file}: not valid JSON ({error}). Correct it, or delete it.") from error
    described = {}
    for name, column in columns.items() if isinstance(columns, dict) else [("", columns)]:
        levels = column.get("Levels", {}) if isinstance(column, dict) else None
        if not isinstance(levels, dict | list):
            raise UserError(
                f"{file}: does not describe the columns of {file.stem}.tsv as BIDS wants it (at {name!r}): expected a block "
                "for each column, in which `Levels` is a block of level and meaning. Correct it, or delete it."
            )
        known = [str(level) for level in levels if str(level) != NOT_A_LEVEL]
        described[name] = Described(known, str(column.get("Units") or ""), file)
    return described


def with_sidecar(columns: Mapping[str, Mapping[str, Any]], described: Mapping[str, Described]) -> dict[str, Mapping[str, Any]]:
    """Return the dataset's columns with what a sidecar adds: the levels as `codes`, and the `factor` of another unit."""
    told = {}
    for name, column in columns.items():
        known = described.get(column["from"])
        if known and known.levels and not column.keys() & {"codes", "range"}:
            column = {**column, "codes": {level: level for level in known.levels}}
        if known and known.units and "range" in column:
            column = {**column, "factor": factor_of(name, column, known)}
        told[name] = column
    return told


def factor_of(name: str, column: Mapping[str, Any], known: Described) -> float:
    """Return what a value has to be multiplied with to be in the dataset's unit; 1, and a warning, if that is not known."""
    wanted = column.get("unit") or ("years" if name == "age" else "")
    if not wanted:
        return 1
    if factor := in_unit(known.units, wanted):
        return factor
    words = {*re.findall(r"[a-z]+", known.units.lower())} - {
        "a",
        "in",
    }  # of "age in months"; neither years nor inches are meant
    factors = {factor for word in words if (factor := in_unit(word, wanted))}
    if len(factors) == 1:
        return factors.pop()
    if known.units.strip().lower() != wanted.strip().lower():
        log.warning("%s: says that %r is in %r; it is read as %s", known.file, column["from"], known.units, wanted)
    return 1
