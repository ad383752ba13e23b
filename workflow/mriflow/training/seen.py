"""What a model has seen: whose scans it, and the models that it started from, were trained on. It is kept in model.pt.

Nobody is named in it: scans are known by their voxels (`mriflow.images.fingerprint`), subjects by a hash of what the dataset
calls them.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from mriflow.base.errors import UserError
from mriflow.images.fingerprint import voxels_of
from mriflow.tables.labels import read_labels
from mriflow.tables.splits import read_splits

log = logging.getLogger(__name__)

# By dataset and part (train, validation): `scans` and `subjects`.
Seen = dict[str, dict[str, dict[str, list[str]]]]


def people_of(labels: Path, splits: Path, fold: int) -> pd.DataFrame:
    """Return all scans of a dataset by their ids: `subject` and `scan` as a model knows them, and the `part` ('' for none)."""
    table, rows = read_labels(labels).set_index("id"), read_splits(splits)
    parts = rows[rows["fold"] == fold].set_index("id")["part"]
    return pd.DataFrame(
        {
            "subject": table["subject"].map(hash_of_subject),
            "scan": table["fingerprint"].map(voxels_of),
            "part": parts.reindex(table.index).fillna(""),
        }
    )


def hash_of_subject(subject: str) -> str:
    """Return a hash of a subject's name, or '' if it has none."""
    return hashlib.sha256(subject.encode()).hexdigest()[:16] if subject else ""


def seen_by(people: pd.DataFrame, ids: Mapping[str, Sequence[str]], dataset: str, before: Seen) -> Seen:
    """Return what a training on the scans `ids` of each part has seen, and what the model that it started from had seen."""
    seen = {name: dict(parts) for name, parts in before.items()}
    for part, scans in ids.items():
        rows, known = people.loc[list(scans)], seen.get(dataset, {}).get(part, {})
        of_both = {
            f"{kind}s": sorted({*rows[kind], *known.get(f"{kind}s", [])} - {""})  # sorted: equal content, equal bytes
            for kind in ("scan", "subject")
        }
        seen.setdefault(dataset, {})[part] = of_both
    return seen


def check_seen(seen: Seen, people: pd.DataFrame, dataset: str, model: Path) -> list[dict[str, str]]:
    """Refuse a model to start from that has seen who it will be tested on.

    A scan is known again by its voxels in whatever dataset, and with it all scans of its subject; a subject by its name in the
    dataset of this name alone, for in another one it may be somebody else.

    Parameters
    ----------
    seen
        By the model.
    people
        Of the fold that is to be trained on (`people_of`).
    model
        Its file, for the message.

    Returns
    -------
    What is wrong with the validation part, as a list of `kind` and `text`, as `mriflow.training.watchman` gives it.

    Raises
    ------
    UserError
        If it has seen a scan or a subject of the test part.
    """
    tested, validated = (people[people["part"] == part] for part in ("test", "validation"))
    leaked = tested.index[known_to(seen, ("train", "validation"), tested, people, dataset)]
    if len(leaked):
        raise UserError(
            f"{model}: has seen {len(leaked)} of the {len(tested)} test scans of this fold, or others of their subjects (the "
            f"first is {leaked[0]!r}): its error on them would say nothing. Start from a model of other people, or of the same "
            "fold of the same split (with `method: file` two experiments have one split)."
        )
    others = {
        subject for name, parts in seen.items() if name != dataset for part in parts.values() for subject in part["subjects"]
    }
    if namesakes := int(tested["subject"].isin(others).sum()):
        log.warning(
            "%s has seen other scans of subjects that are called as those of %d test scans, in other datasets (%s): see that "
            "they are other people",
            *(model, namesakes, ", ".join(name for name in seen if name != dataset)),
        )
    count = int(known_to(seen, ("train",), validated, people, dataset).sum())
    if not count:
        return []
    text = (
        f"{model}, the model that this training started from, was trained on {count} of the {len(validated)} validation scans, "
    )
    text += "or on others of their subjects: the validation error is too good, and with it what was chosen by it. The test "
    warning = {"kind": "validation scans seen before", "text": f"{text}scans are not touched."}
    log.warning("%s: %s", *warning.values())
    return [warning]


def known_to(seen: Seen, parts: Sequence[str], rows: pd.DataFrame, people: pd.DataFrame, dataset: str) -> pd.Series:
    """Return which of `rows` a model has seen in some parts: the scan, or another one of its subject."""
    there = [(name, of_parts[part]) for name, of_parts in seen.items() for part in parts if part in of_parts]
    scans = {scan for _, part in there for scan in part["scans"]}
    subjects = {subject for name, part in there if name == dataset for subject in part["subjects"]}
    subjects |= {*people.loc[people["scan"].isin(scans), "subject"]} - {""}
    return rows["scan"].isin(scans) | rows["subject"].isin(subjects)
