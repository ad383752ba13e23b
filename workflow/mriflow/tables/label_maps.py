"""Which label map is which scan's, and what is wrong with it: the column `label_map` of labels.csv."""

import json
import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mriflow.base.cli import progress
from mriflow.base.files import as_path
from mriflow.images.find import file_problem, find_images
from mriflow.images.fingerprint import fingerprint
from mriflow.images.label_maps import fault_of
from mriflow.tables.choice import ALTERNATIVES
from mriflow.tables.labels import LABEL_MAP, MAP_FINGERPRINT, usable
from mriflow.tables.problems import join_problems

log = logging.getLogger(__name__)

# Entities of BIDS that tell one image of a person from another; the others (desc, label) say what was made of it.
OF_IMAGE = {"ses", "acq", "ce", "rec", "run", "echo", "flip", "inv", "mt", "part", "dir"}


def add_label_maps(
    rows: pd.DataFrame, described: Mapping[str, Any], images: Sequence[Path], folder: Path, table: Path | None
) -> pd.DataFrame:
    """Return the rows of scans with their label maps, and a problem where there is none that can be used.

    Parameters
    ----------
    rows
        One per scan, with its `path`. A column `label_map` holds paths from the folder of `table`.
    described
        The block `label_maps` of the dataset: classes, background, may_lack and, where there are `images`, the pattern of their
        names.
    images
        Archives and folders of label maps.
    folder
        That of labels.csv, into which archives are unpacked.

    Returns
    -------
    The rows with the columns label_map (the path, None if it cannot be used) and label_map_fingerprint; alternatives of a
    scan have their own.
    """
    rows = rows.copy()
    if images:
        found = find_images(images, described["pattern"], folder / "label_maps")
        named, passed = maps_of(rows, found)
    else:
        beside = table.parent if table else folder
        named = [([str(beside / as_path(cell))] if isinstance(cell, str) and cell else []) for cell in rows[LABEL_MAP]]
        passed = [[] for _ in named]
    pairs = list(zip(rows["path"], named, strict=True))
    faults = [fault_of_scan(path, maps, described) for path, maps in progress(pairs, desc="label maps", unit="map")]
    of_map: dict[str, list[str]] = {}
    for scan, used, maps, fault in zip(rows["id"], usable(rows), named, faults, strict=True):
        if used and not fault:
            of_map.setdefault(maps[0], []).append(scan)
    paths, prints, problems = [], [], []
    for maps, others, fault in zip(named, passed, faults, strict=True):
        if not maps and others:
            fault = f"missing ({', '.join(Path(one).name for one in others[:3])}, of another image by its name)"
        elif maps and not fault and len(scans := of_map.get(maps[0], [])) > 1:
            fault = f"one map for {len(scans)} scans ({Path(maps[0]).name}, of {', '.join(scans[:3])})"
        good = not fault
        paths.append(os.path.relpath(maps[0], folder) if good else None)
        prints.append(fingerprint(Path(maps[0])) if good else "")
        problems.append(f"{LABEL_MAP}: {fault}" if fault else "")
    rows[LABEL_MAP], rows[MAP_FINGERPRINT] = pd.Series(paths, rows.index, dtype=object), prints
    rows["problem"] = [join_problems(*texts) for texts in zip(rows["problem"], problems, strict=True)]
    return with_maps_of_alternatives(rows) if ALTERNATIVES in rows else rows


def with_maps_of_alternatives(rows: pd.DataFrame) -> pd.DataFrame:
    """Add to the alternatives of each scan their own label maps, '' for none; a map that may be of any of them is noted.

    What was drawn on one image of a session does not lie on another, for between the two the head has moved.
    """
    of_path = rows[rows["path"] != ""].drop_duplicates("path").set_index("path")[[LABEL_MAP, MAP_FINGERPRINT]]
    for index in rows.index[rows[ALTERNATIVES] != ""]:
        mine, others = rows.loc[index, LABEL_MAP], json.loads(rows.loc[index, ALTERNATIVES])
        for other in others:
            path, content = of_path.loc[other["path"]]
            own = path is not None and path != mine
            other |= {LABEL_MAP: path if own else "", MAP_FINGERPRINT: content if own else ""}
        rows.loc[index, ALTERNATIVES] = json.dumps(others)
        if mine is not None and any(of_path.loc[other["path"], LABEL_MAP] == mine for other in others):
            note = f"{LABEL_MAP}: does not tell which image of the session it was made of ({Path(mine).name})"
            rows.loc[index, "notes"] = join_problems(rows.loc[index, "notes"], note)
    return rows


def maps_of(rows: pd.DataFrame, found: pd.DataFrame) -> tuple[list[list[str]], list[list[str]]]:
    """Return for each scan its label maps, and those of its subject and session that are of another image.

    Names tell the subject and, where they tell them, the session and the image: a scan takes the map that has all its entities
    of BIDS (run-2); without one, what contradicts none of them and is no other scan's.
    """
    keys = [key for key in ("subject", "session") if key in found and found[key].notna().any()]
    maps_of_key: dict[tuple[str, ...], list[str]] = {}
    for one in found[found["subject"].notna()].fillna("").to_dict("records"):
        maps_of_key.setdefault(tuple(one[key] for key in keys), []).append(one["path"])
    of_scans = [tuple(scan) for scan in rows[keys].fillna("").to_numpy().tolist()]
    scans_of_key: dict[tuple[str, ...], list[str]] = {}
    for key, path in zip(of_scans, rows["path"], strict=True):
        if path:
            scans_of_key.setdefault(key, []).append(path)
    named: list[list[str]] = []
    passed: list[list[str]] = []
    for key, path in zip(of_scans, rows["path"], strict=True):
        maps, scan = maps_of_key.get(key, []), entities(path)
        if not maps:
            named.append([])
            passed.append([])
            continue
        own = [one for one in maps if entities(one) == scan]
        if not own:
            theirs = [entities(other) for other in scans_of_key.get(key, ())]
            own = [one for one in maps if agree(entities(one), scan) and entities(one) not in theirs]
        named.append(own)
        passed.append([one for one in maps if one not in own])
    return named, passed


def entities(path: str) -> dict[str, str]:
    """Return the entities of BIDS in a file's name that say which image of a person it is, or was made of.

    >>> entities("sub-01_ses-2_run-02_desc-manual_dseg.nii.gz")
    {'ses': '2', 'run': '2'}
    """
    told = re.findall(r"(?:^|_)([a-z]+)-([A-Za-z0-9+]+)", Path(path).name)
    return {key: value.lstrip("0") if value.isdigit() else value for key, value in told if key in OF_IMAGE}


def agree(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Return whether no entity that both names tell differs."""
    return all(one[key] == other[key] for key in one.keys() & other.keys())


def fault_of_scan(scan: str, maps: list[str], described: Mapping[str, Any]) -> str:
    """Return in words why a scan has no label map that can be used, '' if it has."""
    if not maps:
        return "missing"
    if len(maps) > 1:
        return f"several ({', '.join(Path(one).name for one in maps[:3])})"
    path = Path(maps[0])
    if fault := file_problem(path, zipped=False):
        return fault.removeprefix("scan: ")
    others = (described.get(key, ()) for key in ("background", "may_lack"))
    return fault_of(path, Path(scan), described["classes"], *others) if scan else ""
