"""splits.csv: who is in which part of which fold, and the check that nobody stands in two."""

from pathlib import Path

import pandas as pd

from mriflow.base.errors import UserError
from mriflow.images.fingerprint import voxels_of

PARTS = ("train", "validation", "test")


def read_splits(path: Path) -> pd.DataFrame:
    """Read a splits.csv, or raise a UserError if it leaks (`check_leaks`)."""
    text = dict.fromkeys(["part", "id", "subject", "fingerprint"], str)
    splits = pd.read_csv(path, dtype=text, keep_default_na=False)
    check_leaks(splits, str(path))
    return splits


def check_leaks(splits: pd.DataFrame, file: str) -> None:
    """Raise a UserError if, within a fold, a scan, a subject or the same image stands in two parts.

    Parameters
    ----------
    splits
        Columns fold, part, id, subject, fingerprint.
    file
        Where it comes from, for the message.

    >>> rows = {"fold": 0, "part": ["train", "test"], "id": ["a", "b"], "subject": ["Ann", "Ann"], "fingerprint": ""}
    >>> check_leaks(pd.DataFrame(rows), "splits.csv")
    Traceback (most recent call last):
    ...
    mriflow.base.errors.UserError: splits.csv: leak: 1 time(s) the same subject stands in two parts of a fold; ...
    """
    # Of the fingerprint, what is of the voxels: the same image under another header, or compressed anew, is a leak too.
    splits = splits.assign(fingerprint=splits["fingerprint"].fillna("").astype(str).map(voxels_of))
    for column, what in (("id", "scan"), ("subject", "subject"), ("fingerprint", "image")):
        known = splits[splits[column].fillna("").astype(str) != ""]
        parts = known.groupby(["fold", column])["part"].nunique()
        leaks = parts[parts > 1]
        if len(leaks):
            fold, name = leaks.index[0]
            rows = known[(known["fold"] == fold) & (known[column] == name)]
            where = ", ".join(f"{row.id} in {row.part}" for row in rows.itertuples())
            raise UserError(
                f"{file}: leak: {leaks.size} time(s) the same {what} stands in two parts of a fold; the first is {what} "
                f"{name!r} in fold {fold} ({where}). Give every scan of a subject the same subject, and exclude doubtful scans."
            )
