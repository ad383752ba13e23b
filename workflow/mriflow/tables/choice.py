"""Which of the images of a session stands for it, and which are tried after it."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from mriflow.images.headers import WARNINGS, read_header
from mriflow.images.kinds import without_suffix
from mriflow.tables.labels import usable
from mriflow.tables.problems import join_problems, reasons_of

# BIDS' entity `ce`, and what people write who do not know it.
# In a label of BIDS no sign parts two words: acq-postGd, acq-mprageGd. T1c and T1ce are the names of brain tumour challenges.
CONTRAST = re.compile(
    r"(?i:(?:^|_)ce-|(?:^|[_.-])(?:(?:post|with|plus)?-?(?:gd|gad|gado|gadolinium|contrast)|t1-?(?:c|ce|gd))(?![a-z]))"
    r"|(?<=[a-z0-9])(?<![Nn]o)(?<![Nn]on)(?<![Pp]re)(?<![Ww]ithout)(?:Gd|GD|Gado?|Gadolinium|(?:Post|With|Plus)Contrast)(?![a-z])"
)
ALTERNATIVES = "(alternatives)"  # no label has such a name
SMALL = 0.75  # of the largest field of view among the images of the session, along the shortest axis of each
NAMED = 3  # images that a note names


def choose_images(rows: pd.DataFrame) -> pd.DataFrame:
    """Give all images of a session but one a problem, and the one that is chosen its `alternatives`, the best first, as JSON.

    What was left out by hand or cannot be read is no candidate. A damaged file comes last; then a small field of view; then an
    image with contrast agent; of equals the first by name. Where the one that is used is not the first by name, its notes say
    why.

    Parameters
    ----------
    rows
        As `organize` has them, with id, subject, session, path, fingerprint, problem, notes; the problems of files are known.
    """
    rows = rows.sort_values("id", ignore_index=True)
    rows[ALTERNATIVES] = ""
    images = rows[(rows["path"] != "") & (rows["subject"] != "")]
    for _, scans in images.groupby(["subject", "session"]):
        candidates = scans[usable(scans)]
        if len(scans) < 2 or candidates.empty:
            continue
        seen = look_at(candidates)
        order = sorted(candidates.index, key=lambda index: (rank(seen[index]), candidates.loc[index, "problem"] != ""))
        chosen, others = order[0], order[1:]
        passed = [index for index in scans.index if index < chosen]
        if passed:
            why = [f"{scans.loc[index, 'id']}: {reason(scans.loc[index], seen.get(index))}" for index in passed[:NAMED]]
            more = [f"{len(passed) - NAMED} more"] if len(passed) > NAMED else []
            note = f"session: not its first image is used ({', '.join([*why, *more])})"
            rows.loc[chosen, "notes"] = join_problems(rows.loc[chosen, "notes"], note)
        for index in others:
            problem = f"scan: another of the session is used ({rows.loc[chosen, 'id']})"
            rows.loc[index, "problem"] = join_problems(rows.loc[index, "problem"], problem)
        if others:
            rows.loc[chosen, ALTERNATIVES] = json.dumps(rows.loc[others, ["path", "fingerprint"]].to_dict("records"))
    return rows


def look_at(candidates: pd.DataFrame) -> dict[Any, dict[str, Any]]:
    """Return what is seen of the images of a session: `damaged`, `small` and `contrast`, each '' or in words."""
    headers = {}
    if len(candidates) > 1:
        headers = {index: read_header(Path(path)) for index, path in candidates["path"].items()}
    fields = {index: field_of_view(header) for index, header in headers.items()}
    largest = max(fields.values(), default=0)
    seen = {}
    for index, header in headers.items():
        faults = [fault for fault in reasons_of(header["fault"]) if not fault.startswith(WARNINGS)]
        whole = "." in candidates.loc[index, "fingerprint"] or ".zip/" in candidates.loc[index, "path"]
        small = fields[index] < SMALL * largest
        seen[index] = {
            "damaged": faults[0] if faults else "" if whole else "file is cut short or damaged",
            "small": f"small field of view, {fields[index]:.0f} mm" if small and not faults else "",
            "contrast": "with contrast agent" if has_contrast(Path(candidates.loc[index, "path"])) else "",
        }
    return seen or {index: {} for index in candidates.index}


def rank(seen: Mapping[str, str]) -> tuple[bool, ...]:
    """Return the place of an image among those of its session: the smaller the better."""
    return tuple(bool(seen.get(name)) for name in ("damaged", "small", "contrast"))


def reason(scan: pd.Series, seen: Mapping[str, str] | None) -> str:
    """Return why an image was passed over, as a detail of a note."""
    if seen is None:  # it was no candidate
        return ", ".join(text.removeprefix("scan: ") for text in reasons_of(scan["problem"]))
    texts = [text for text in seen.values() if text] or reasons_of(scan["problem"])
    return re.sub(r"[()]", "", ", ".join(texts))


def field_of_view(header: Mapping[str, Any]) -> float:
    """Return the extent of an image along its shortest axis, mm; 0 if its header does not tell."""
    if "spacing_1" not in header:
        return 0
    sizes = [int(size) for size in header["matrix"].split("x")[:3]]
    return min(size * header[f"spacing_{axis}"] for axis, size in enumerate(sizes, 1))


def has_contrast(image: Path) -> bool:
    """Return whether an image shows contrast agent, as its name (BIDS' `ce`) or the JSON file beside it says."""
    if CONTRAST.search(without_suffix(image)):
        return True
    try:
        described = json.loads((image.parent / f"{without_suffix(image)}.json").read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return False
    agent = described.get("ContrastBolusAgent", "") if isinstance(described, dict) else ""
    return str(agent).strip().lower() not in ("", "none", "n/a", "no")
