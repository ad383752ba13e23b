"""Splitting by a table of one's own: a leak, a missing part, and subjects or scans that are not of the dataset are refused."""

from collections.abc import Callable

import pandas as pd
import pytest

from bad_input.cases import case, of_group
from test_split import from_file, make_labels, six, write_parts


def splits(columns: dict | None) -> Callable:
    """Split six subjects by a file with these columns."""

    def act(folder):
        labels = make_labels(folder / "labels.csv", subjects=6, sessions=2)
        useless = {"id": "nobody-0", "subject": "nobody", "problem": "scan: no image"}
        pd.concat([pd.read_csv(labels), pd.DataFrame([useless])]).to_csv(labels, index=False)
        if columns:
            write_parts(folder / "mine.csv", **columns)
        from_file(labels, folder / "mine.csv")
        return "split"

    return act


SPLITS = [
    case(splits(None), "{tmp}/mine.csv: no such table. Check the `file` of the split.", id="no file"),
    case(
        splits({"name": ["s0"], "part": ["train"]}),
        "{tmp}/mine.csv: has neither a column 'id' (of a scan) nor 'subject'; it has 'name', 'part'. Rename the one that is.",
        id="neither id nor subject",
    ),
    case(
        splits({"subject": ["s0"], "parts": ["train"]}),
        "{tmp}/mine.csv: has no column 'part'. Did you mean 'parts'? It has: 'subject', 'parts'. The first line "
        "has to name the columns.",
        id="no part",
    ),
    case(
        splits(six(part=["train", "dev", "dev", "train", "val", "test"])),
        "{tmp}/mine.csv: row 3 has the part 'dev' (2 such row(s)). Expected train, validation or test.",
        id="an unknown word",
    ),
    case(
        splits(six(part=["train", "train", "train", "", "val", "test"])),
        "{tmp}/mine.csv: row 5 has the part '' (1 such row(s)). Expected train, validation or test.",
        id="an empty part",
    ),
    case(
        splits(six(subject=["s0", "", "s2", "s3", "s4", "s5"])),
        "{tmp}/mine.csv: row 3 has no subject (1 such row(s)). Fill it in, or delete the row.",
        id="an empty subject",
    ),
    case(
        splits(six(part=["val"] * 5 + ["test"])),
        "{tmp}/mine.csv: has no train part. Every fold needs one for train and one for test.",
        id="nothing to train on",
    ),
    case(
        splits({"id": [f"s{i}-0" for i in range(6)], "part": ["train"] * 4 + ["val", "test"]}),
        "{tmp}/mine.csv: fold 0 has 1 scan(s) in the validation part that can be used, expected 0 or at least 2. Give it more.",
        id="one validation scan",
    ),
    case(
        splits(
            {name: column * 2 for name, column in six(fold=[0] * 6).items()}
            | {"fold": [0] * 6 + [1] * 6, "part": [*six()["part"], *["train"] * 5, "val"]}
        ),
        "{tmp}/mine.csv: fold 1 has no test part. Every fold needs one for train and one for test.",
        id="a fold without a test",
    ),
    case(
        splits(six(fold=[1, 1, 1, 2, 2, 2])),
        "{tmp}/mine.csv: found the folds '1', '2'. Number them from 0, without a gap.",
        id="folds from 1",
    ),
    case(
        splits(six(fold=["a"] * 5 + [""])),
        "{tmp}/mine.csv: found the folds '', 'a'. Number them from 0, without a gap.",
        id="folds that are no numbers",
    ),
    case(
        splits({"subject": [*six()["subject"], "s0", "s1"], "part": [*six()["part"], "test", "val"]}),
        "{tmp}/mine.csv: leak: 2 subject(s) stand in more than one part: s0 (train, test), s1 (train, "
        "validation). Who is trained on cannot be tested on: keep one part of each, or get a table without leaks.",
        id="a subject in two parts",
    ),
    case(
        splits({"subject": [*six()["subject"] * 2, "s5"], "part": [*six()["part"] * 2, "train"], "fold": [0] * 6 + [1] * 7}),
        "{tmp}/mine.csv: leak: 1 subject(s) stand in more than one part of a fold: s5 (fold 1: train, test). Who "
        "is trained on cannot be tested on: keep one part of each, or get a table without leaks.",
        id="a subject in two parts of one of the folds",
    ),
    case(
        splits({"id": [*(f"s{i}-0" for i in range(6)), "s2-0"], "part": [*six()["part"], "validation"]}),
        "{tmp}/mine.csv: leak: 1 id(s) stand in more than one part: s2-0 (train, validation). Who is trained on "
        "cannot be tested on: keep one part of each, or get a table without leaks.",
        id="rows of a scan that contradict each other",
    ),
    case(
        splits({"id": [*(f"s{i}-0" for i in range(6)), "s0-1"], "part": [*six()["part"], "test"]}),
        "{tmp}/mine.csv: leak: 1 subject(s) stand in more than one part: s0 (train, test). Who is trained on "
        "cannot be tested on: keep one part of each, or get a table without leaks.",
        id="two sessions on two sides, though the file knows no subjects",
    ),
    case(
        splits(six(subject=["s0", "s1", "s2", "S3", "S4", "S5"])),
        "{tmp}/mine.csv: 3 subject(s) are no subject of {tmp}/labels.csv: S3, S4, S5. Expected such as 's0'.",
        id="subjects that the dataset does not have",
    ),
    case(
        splits({"id": [f"x{i}" for i in range(9)], "part": ["train"] * 7 + ["val", "test"]}),
        "{tmp}/mine.csv: 9 id(s) are no scan of {tmp}/labels.csv: x0, x1, x2, x3, x4 and 4 more. Expected such as 's0-0'.",
        id="many ids that the dataset does not have",
    ),
    case(
        splits({"id": six()["subject"], "part": six()["part"]}),
        "{tmp}/mine.csv: 6 id(s) are no scan of {tmp}/labels.csv: s0, s1, s2, s3, s4 and 1 more. Expected such "
        "as 's0-0'. It has them as 'subject': call the column so.",
        id="subjects in the column of ids",
    ),
    case(
        splits(six(id=[f"s{i}-0" for i in range(6)], subject=["s0", "s1", "s2", "s9", "s4", "s5"])),
        "{tmp}/mine.csv: 1 scan(s) have another subject than in {tmp}/labels.csv; the first is 's3-0', of 's9' "
        "here and of 's3' there. Correct the one that is wrong.",
        id="another subject than the dataset's",
    ),
    case(
        splits(six(subject=["s0", "s1", "s2", "s3", "s4", "nobody"])),
        "{tmp}/mine.csv: none of the 1 scan(s) in the test part of fold 0 can be used for this target. The "
        "column `problem` of {tmp}/labels.csv says why.",
        id="a part of which nothing can be used",
    ),
]


@pytest.mark.parametrize(("act", "message"), of_group("split", SPLITS))
def test_what_the_user_reads(act, message, shown):
    assert shown(act) == message
