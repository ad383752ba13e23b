"""The table ``labels.csv``: one row per scan, made by `organize`, read by every later stage.

Columns: ``id`` of the scan, ``subject``, ``session``, ``site``, the dataset's labels (age, sex, …), ``path`` of the image
from the table's own folder, ``fingerprint`` of its content, ``problem`` (why the scan cannot be used) and ``notes`` (what was
left out of a row that can).

How a problem reads stands in `mriflow.tables.problems`. One of the column ``scan`` rules the scan out for everything,
one of another column only for a target in that column.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from mriflow.base.errors import UserError
from mriflow.tables.problems import of_whole_scan, reasons_of

LABEL_MAP = "label_map"  # the column with the path of a scan's label map, and the channel of the shards that holds it
MAP_FINGERPRINT = "label_map_fingerprint"  # of the list of scans
HEAD_SIZE = "head_size"  # no column, but known of every scan that was registered affinely: a covariate
TEXT_COLUMNS = ["id", "subject", "session", "site", "path", "fingerprint", "problem", "notes"]
# Names that no label can have: columns that `organize` writes itself, and words of its problems and notes.
RESERVED = set(TEXT_COLUMNS) - {"subject", "session", "site", "path"} | {"scan", "rows"}

# Columns of predictions.csv that are not taken from labels.csv: no group of people can be named by a label of such a name.
OF_PREDICTIONS = {"fold", "truth", "network", "stacked", "tissue", "classical", "pca", "confounders", "trivial"}
OF_PREDICTIONS |= {"correlation", "brain_ml", "scale", "corrected", "interval_low", "interval_high"}
OF_PREDICTIONS |= {"set", "at_threshold", "at_sensitivity"}


def read_labels(path: str | Path, category: str | Sequence[str] | None = None) -> pd.DataFrame:
    """Read a ``labels.csv``; identifiers and texts stay text (subject 002 is not 2) and empty ones are ''.

    Parameters
    ----------
    category
        A column, or several, whose values are names of classes: they stay text too, even if they look like numbers.

    Raises
    ------
    UserError
        If it is not there, or not such a table.
    """
    text = [*TEXT_COLUMNS, *([category] if isinstance(category, str) else category or [])]
    made = "`python -m mriflow.organize` makes it."
    try:
        labels = pd.read_csv(path, dtype=dict.fromkeys(text, str), keep_default_na=False, na_values=[""], low_memory=False)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such table; {made}") from error
    except ValueError as error:  # pandas' own errors are such
        raise UserError(f"{path}: cannot be read ({str(error).strip()}); {made}") from error
    if lacking := [column for column in TEXT_COLUMNS if column not in labels]:
        raise UserError(f"{path}: has no column {', '.join(lacking)}, so it is no labels.csv; {made}")
    labels[TEXT_COLUMNS] = labels[TEXT_COLUMNS].fillna("")
    if labels["id"].duplicated().any():
        twice = labels["id"][labels["id"].duplicated()].iloc[0]
        raise UserError(f"{path}: the id {twice!r} stands twice; `python -m mriflow.organize` makes it with one row per scan.")
    return labels


def read_index(path: str | Path) -> pd.DataFrame:
    """Read the index of a shard, made by `preprocess`; a scan with a problem has no number (NA) in the column `index`."""
    text = dict.fromkeys(["id", "problem", "notes", "fingerprint", "key"], str)
    table = pd.read_csv(path, dtype={**text, "index": "Int64"}, keep_default_na=False, na_values=[""])
    return table if "notes" in table else table.assign(notes=None)  # shards of earlier versions have none


def read_indices(paths: Sequence[str | Path]) -> pd.DataFrame:
    """Read the indices of several shards as one table."""
    return pd.concat([read_index(path) for path in paths])


def usable(labels: pd.DataFrame, target: str | None = None) -> pd.Series:
    """Return which scans can be used, for anything (``target`` None) or to learn and predict the column `target`.

    Returns
    -------
    pandas.Series of bool, on the index of `labels`.

    Raises
    ------
    UserError
        If `labels` has no column `target`.
    """
    unusable_scan = of_whole_scan(labels["problem"])
    if target is None:
        return ~unusable_scan
    require_column(labels, target)
    return ~unusable_scan & labels[target].notna()


def why_left_out(labels: pd.DataFrame, target: str) -> str:
    """Return how many rows cannot be used for a target, and the commonest reason, as a sentence; '' if all can be."""
    left_out = labels[~usable(labels, target)]
    if left_out.empty:
        return ""
    of_target = (f"{target}: ", "scan: ")
    cells = left_out["problem"].str.cat(left_out["notes"], sep="; ")
    reasons = [[one for one in reasons_of(cell) if one.startswith(of_target)] or [f"{target}: missing"] for cell in cells]
    reason, count = Counter(one for row in reasons for one in row).most_common(1)[0]
    rows = f"{len(left_out)} of {len(labels)} rows cannot be used"
    return f" {rows}, the most of them for {reason!r} ({count}); see `problem` there."


def require_column(labels: pd.DataFrame, target: str) -> None:
    """Raise a UserError if `labels` has no column `target`."""
    if target not in labels:
        raise UserError(
            f"labels.csv has no column {target!r}; it has {', '.join(labels.columns)}. "
            "Name one of them as the target's `column`, or add it to the dataset's `columns`."
        )


def shard_of(scan_id: str, shards: int) -> int:
    """Return the shard of a scan: it depends on nothing but its id, so a new scan changes one shard alone.

    >>> [shard_of(scan, 4) for scan in ("IXI002-Guys-0828-T1", "IXI012-HH-1211-T1")]
    [3, 1]
    """
    return int.from_bytes(hashlib.sha256(scan_id.encode()).digest()[:8], "big") % shards
