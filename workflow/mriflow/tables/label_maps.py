"""Which label map is which scan's, and what is wrong with it: the column `label_map` of labels.csv."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mriflow.base.cli import progress
from mriflow.base.files import as_path
from mriflow.images.find import file_problem, find_images
from mriflow.images.fingerprint import fingerprint
from mriflow.images.label_maps import fault_of
from mriflow.tables.labels import LABEL_MAP, MAP_FINGERPRINT
from mriflow.tables.problems import join_problems

log = logging.getLogger(__name__)


def add_label_maps(
    rows: pd.DataFrame, described: Mapping[str, Any], images: Sequence[Path], folder: Path, table: Path | None
) -> pd.DataFrame:
    """Return the rows of scans with their label maps, and a problem where there is none that can be used.

    Parameters
    ----------
    rows
        One per scan, with its `path`. A column `label_map` holds paths from the folder of `table`.
    described
        The block `label_maps` of the dataset: classes, background and, where there are `images`, the pattern of their names.
    images
        Archives and folders of label maps.
    folder
        That of labels.csv, into which archives are unpacked.

    Returns
    -------
    The rows with the columns label_map (the path, None if it cannot be used) and label_map_fingerprint.
    """
    rows = rows.copy()
    if images:
        found = find_images(images, described["pattern"], folder / "label_maps")
        named = maps_of(rows, found)
    else:
        beside = table.parent if table else folder
        named = [([str(beside / as_path(cell))] if isinstance(cell, str) and cell else []) for cell in rows[LABEL_MAP]]
    paths, prints, problems = [], [], []
    for scan, maps in progress(list(zip(rows["path"], named, strict=True)), desc="label maps", unit="map"):
        fault = fault_of_scan(scan, maps, described)
        good = not fault
        paths.append(os.path.relpath(maps[0], folder) if good else None)
        prints.append(fingerprint(Path(maps[0])) if good else "")
        problems.append(f"{LABEL_MAP}: {fault}" if fault else "")
    rows[LABEL_MAP], rows[MAP_FINGERPRINT] = pd.Series(paths, rows.index, dtype=object), prints
    rows["problem"] = [join_problems(*texts) for texts in zip(rows["problem"], problems, strict=True)]
    return rows


def maps_of(rows: pd.DataFrame, found: pd.DataFrame) -> list[list[str]]:
    """Return for each scan the label maps whose names tell its subject and, where they tell it, its session."""
    keys = [key for key in ("subject", "session") if key in found and found[key].notna().any()]
    of_key: dict[tuple[str, ...], list[str]] = {}
    for one in found[found["subject"].notna()].fillna("").to_dict("records"):
        of_key.setdefault(tuple(one[key] for key in keys), []).append(one["path"])
    return [of_key.get(tuple(scan), []) for scan in rows[keys].fillna("").to_numpy().tolist()]


def fault_of_scan(scan: str, maps: list[str], described: Mapping[str, Any]) -> str:
    """Return in words why a scan has no label map that can be used, '' if it has."""
    if not maps:
        return "missing"
    if len(maps) > 1:
        return f"several ({', '.join(Path(one).name for one in maps[:3])})"
    path = Path(maps[0])
    if fault := file_problem(path, zipped=False):
        return fault.removeprefix("scan: ")
    return fault_of(path, Path(scan), described["classes"], described.get("background", ())) if scan else ""
