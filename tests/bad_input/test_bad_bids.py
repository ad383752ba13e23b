"""Organizing a BIDS dataset: what its tables or images lack is named; a description that BIDS wants may be missing."""

from pathlib import Path

import numpy as np
import pytest

from bad_input.cases import case, of_group
from conftest import write_scan
from mriflow.config.resolve import described_bids
from mriflow.organize import organize

BIDS = {"age": {"from": "age", "range": [0, 110], "required": True}, "sex": {"from": "sex"}}
PEOPLE = "participant_id\tage\tsex\nsub-01\t30\tM\n"


def bids(participants: str | None = PEOPLE, scan: str = "", described: str = "", names=("sub-01/anat/sub-01_T1w.nii.gz",)):
    """Return the problem or note of a scan of a BIDS dataset."""

    def act(folder):
        (folder / "bids").mkdir()
        for number, name in enumerate(names):
            write_scan(folder / "bids" / name, np.full((4, 4, 4), number, np.uint8))
        if participants is not None:
            (folder / "bids/participants.tsv").write_text(participants)
        if described:
            (folder / "bids/participants.json").write_text(described)
        options = described_bids(str(folder / "bids"))
        options["table"], options["images"] = Path(options["table"]), [Path(one) for one in options["images"]]
        columns = {"subject": {"from": "participant_id"}, **BIDS}
        rows = organize(folder / "d/labels.csv", folder / "d/scans.csv", columns=columns, **options).set_index("id")
        scan_id = scan or "sub-01_T1w"
        return rows.loc[scan_id, "problem"] + rows.loc[scan_id, "notes"]

    return act


TWO = PEOPLE + "sub-02\t40\tF\n"
SUB_01, SUB_02 = "sub-01/anat/sub-01_T1w.nii.gz", "sub-02/anat/sub-02_T1w.nii.gz"

BIDS_SETS = [
    case(bids(), "", id="no dataset_description.json is no fault"),
    case(
        bids(None),
        "{tmp}/bids/participants.tsv: no such table. Check the `table` of the dataset (the folder of `bids` has to hold it).",
        id="no participants.tsv",
    ),
    case(
        bids(names=()),
        "{tmp}/bids: no images in it (.nii, .nii.gz, .hdr, .mgz, .mgh). Check the `images` of the dataset.",
        id="BIDS without images",
    ),
    case(
        bids(names=("sub-01/anat/sub-01_T2w.nii.gz",)),
        "{tmp}/bids: none of its 1 images, such as 'sub-01_T2w.nii.gz', is meant. Correct the `ignore` of the "
        "dataset, '.*_part-(phase|real|imag)_.*|(?!.*_T1w\\\\.nii(\\\\.gz)?$).*'.",
        id="BIDS without T1w images",
    ),
    case(bids(names=("sub-01/anat/sub-01_T1w.nii.gz", "derivatives/x/sub-02_T1w.nii.gz")), "", id="derivatives are left out"),
    case(bids(TWO, scan="sub-02"), "scan: no image", id="participant without an image"),
    case(bids(names=(SUB_01, SUB_02), scan="sub-02_T1w"), "scan: no row in the table", id="image without a participant"),
    case(
        bids("participant_id\tsex\nsub-01\tM\n"),
        "{tmp}/bids/participants.tsv: has no column 'age'. It has: 'participant_id', 'sex'. The first line has "
        "to name the columns.",
        id="BIDS without the column",
    ),
    case(
        bids("age\tsex\n30\tM\n"),
        "{tmp}/bids/participants.tsv: has no column 'participant_id'. It has: 'age', 'sex'. The first line has "
        "to name the columns.",
        id="no participant_id",
    ),
    case(
        bids("participant_id\tage\tsex\n1\t30\tM\n"),
        "{tmp}/bids/participants.tsv: none of its 1 subject(s) has an image. It has such as '1', the names of "
        "the images such as 'sub-01'. Make them alike: by the `format` of the column subject (sub-{:02d} makes sub-01 "
        "of its number, also where a spreadsheet lost the zeros), by its `pattern`, or by the `pattern` of the images.",
        id="participants whose zeros were lost",
    ),
    case(
        bids("participant_id,age,sex\nsub-01,30,M\n"),
        "{tmp}/bids/participants.tsv: its columns are parted by ',', those of a .tsv file by tabs. Rename it to .csv.",
        id="participants.tsv with commas",
    ),
    case(
        bids("participant_id  age  sex\nsub-01  30  M\n"),
        "{tmp}/bids/participants.tsv: has no column 'participant_id'. Did you mean 'participant_id  age  sex'? "
        "It has: 'participant_id  age  sex'. The first line has to name the columns.",
        id="participants.tsv with blanks",
    ),
    case(bids("participant_id\tage\tsex\nsub-01\tn/a\tM\n"), "age: missing", id="n/a"),
    case(
        bids(names=("sub-01/sub-01_run-1_T1w.nii.gz", "sub-01/sub-01_run-2_T1w.nii.gz"), scan="sub-01_run-2_T1w"),
        "scan: another of the session is used (sub-01_run-1_T1w)",
        id="a second run",
    ),
    case(
        bids(described="{age: }"),
        "{tmp}/bids/participants.json: not valid JSON (Expecting property name enclosed in double quotes: line 1 "
        "column 2 (char 1)). Correct it, or delete it.",
        id="participants.json that is none",
    ),
    case(
        bids(described="[1]"),
        "{tmp}/bids/participants.json: does not describe the columns of participants.tsv as BIDS wants it (at "
        "''): expected a block for each column, in which `Levels` is a block of level and meaning. Correct it, "
        "or delete it.",
        id="participants.json with a list",
    ),
    case(
        bids(described='{"sex": "M or F"}'),
        "{tmp}/bids/participants.json: does not describe the columns of participants.tsv as BIDS wants it (at "
        "'sex'): expected a block for each column, in which `Levels` is a block of level and meaning. Correct "
        "it, or delete it.",
        id="participants.json with a text for a column",
    ),
    case(
        bids(described='{"sex": {"Levels": "MF"}}'),
        "{tmp}/bids/participants.json: does not describe the columns of participants.tsv as BIDS wants it (at "
        "'sex'): expected a block for each column, in which `Levels` is a block of level and meaning. Correct "
        "it, or delete it.",
        id="Levels that are a text",
    ),
    case(
        bids(described='{"sex": {"Levels": {"1": "male"}}}'),
        "sex: unknown code ('M', expected 1)",
        id="a level that is not described",
    ),
]


@pytest.mark.parametrize(("act", "message"), of_group("bids", BIDS_SETS))
def test_what_the_user_reads(act, message, shown):
    assert shown(act) == message
