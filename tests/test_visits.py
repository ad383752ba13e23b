"""What BIDS tells of a single visit, in sub-*_sessions.tsv and sub-*_scans.tsv, goes before what participants.tsv tells."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from conftest import write_scan
from mriflow.config.resolve import described_bids
from mriflow.organize import organize
from mriflow.tables.labels import read_labels
from test_workflow import checkout, jobs, snakemake

AGE = {"age": {"from": "age", "range": [0, 110], "unit": "years", "required": True}}
TWO = ("sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz", "sub-01/ses-2/anat/sub-01_ses-2_T1w.nii.gz")
ONE = ("sub-01/anat/sub-01_T1w.nii.gz",)
PEOPLE = "participant_id\tage\tsex\nsub-01\t30\tM\n"


def visits(folder: Path, files: dict[str, str], images=TWO, columns: dict = AGE, participants: str = PEOPLE) -> pd.DataFrame:
    """Organize a BIDS dataset of these images with these further files; the labels by the end of the scan's name."""
    for number, name in enumerate(images):
        write_scan(folder / "bids" / name, np.full((4, 4, 4), number, np.uint8))
    for name, text in {"participants.tsv": participants, **files}.items():
        (folder / "bids" / name).write_text(text)
    options = described_bids(str(folder / "bids"))
    options["table"], options["images"] = Path(options["table"]), [Path(one) for one in options["images"]]
    columns = {"subject": {"from": "participant_id"}, **columns}
    organize(folder / "d/labels.csv", folder / "d/scans.csv", columns=columns, **options)
    return read_labels(folder / "d/labels.csv").set_index("id")


WINDOWS = r"ses-2\anat\sub-01_ses-2_T1w.nii.gz"
SESSIONS = "session_id\tage\nses-1\t30\nses-2\t33.5\n"


@pytest.mark.parametrize(
    "files",
    [
        {"sub-01/sub-01_sessions.tsv": SESSIONS},
        {"sub-01/sub-01_sessions.tsv": SESSIONS.replace("ses-", "")},
        {"sub-01/sub-01_sessions.tsv": SESSIONS.replace("ses-", "00")},
        {"sessions.tsv": "participant_id\tsession_id\tage\nsub-01\tses-1\t30\nsub-02\tses-2\t70\nsub-01\tses-2\t33.5\n"},
        {
            "sub-01/ses-1/sub-01_ses-1_scans.tsv": "filename\tage\nanat/sub-01_ses-1_T1w.nii.gz\t30\n",
            "sub-01/ses-2/sub-01_ses-2_scans.tsv": "filename\tage\nanat/sub-01_ses-2_T1w.nii.gz\t33.5\n",
        },
        {"sub-01/sub-01_scans.tsv": f"filename\tage\n./ses-1/anat/sub-01_ses-1_T1w.nii\t30\n{WINDOWS}\t33.5\n"},
    ],
    ids=["sessions", "sessions without ses-", "zeros", "one table of all sessions", "scans", "scans as they were called"],
)
def test_each_visit_has_its_own_age(tmp_path, files):
    labels = visits(tmp_path, files)
    assert labels["age"].tolist() == [30, 33.5]
    assert labels["problem"].tolist() == ["", ""]
    assert labels["notes"].tolist() == ["", "age: of the visit (33.5, where participants.tsv has 30)"]


ONE_ROW = "age: of one row of the table for all sessions of the subject (2 sessions)"


@pytest.mark.parametrize(
    ("files", "notes"),
    [
        ({}, [ONE_ROW, ONE_ROW]),
        ({"sub-01/sub-01_sessions.tsv": SESSIONS.replace("33.5", "30")}, ["", ""]),
        ({"sub-01/ses-1/sub-01_ses-1_scans.tsv": "filename\tage\nanat/sub-01_ses-1_T1w.nii.gz\t30\n"}, ["", ONE_ROW]),
    ],
    ids=["a row per person", "the visits agree", "one visit tells its own"],
)
def test_an_age_that_one_row_tells_of_all_sessions_is_noted(tmp_path, files, notes, caplog):
    labels = visits(tmp_path, files)
    assert labels["notes"].tolist() == notes
    assert labels["problem"].tolist() == ["", ""]
    told = f"one row tells the age of all sessions of a subject, in {notes.count(ONE_ROW)} scans" in caplog.text
    assert told == (ONE_ROW in notes)


def test_a_table_with_a_row_for_each_session_and_people_with_one_session_are_not_noted(tmp_path):
    columns = {"session": {"from": "session_id"}, **AGE}
    people = "participant_id\tsession_id\tage\nsub-01\tses-1\t30\nsub-01\tses-2\t33\n"
    assert visits(tmp_path / "a", {}, columns=columns, participants=people)["notes"].tolist() == ["", ""]
    assert visits(tmp_path / "b", {}, images=TWO[:1])["notes"].tolist() == [""]


def test_a_column_of_the_visits_alone_need_not_be_in_participants(tmp_path):
    labels = visits(tmp_path, {"sub-01/sub-01_sessions.tsv": SESSIONS}, participants="participant_id\tsex\nsub-01\tM\n")
    assert labels["age"].tolist() == [30, 33.5]
    assert labels["problem"].tolist() == labels["notes"].tolist() == ["", ""]


def test_tables_of_a_visit_that_contradict_each_other_are_told(tmp_path):
    scans = "filename\tage\nanat/sub-01_ses-2_T1w.nii.gz\t35\n"
    labels = visits(tmp_path, {"sub-01/sub-01_sessions.tsv": SESSIONS, "sub-01/ses-2/sub-01_ses-2_scans.tsv": scans})
    assert labels["problem"].tolist() == [
        "", "age: contradictory (33.5 in sub-01_sessions.tsv, 35 in sub-01_ses-2_scans.tsv)",
    ]  # fmt: skip
    assert pd.isna(labels["age"].iloc[1])


def test_a_class_that_no_visit_of_the_person_has_is_contradictory_and_one_that_changes_is_not(tmp_path):
    columns = {"sex": {"from": "sex", "required": True}, "group": {"from": "group"}}
    files = {"sub-01/sub-01_sessions.tsv": "session_id\tsex\tgroup\nses-1\tF\twell\nses-2\tF\till\n"}
    labels = visits(tmp_path, files, columns=columns, participants="participant_id\tsex\tgroup\nsub-01\tM\twell\n")
    told = "sex: contradictory (M in participants.tsv, F in sub-01_sessions.tsv)"
    assert labels["problem"].tolist() == [told, told]
    assert labels["group"].tolist() == ["well", "ill"]
    assert labels["notes"].tolist() == ["", "group: of the visit (ill, where participants.tsv has well)"]


def test_what_the_table_of_the_visits_does_not_say_is_told(tmp_path):
    files = {"sub-01/sub-01_sessions.tsv": "session_id\tage\nses-1\t30\nses-2\tn/a\n"}
    labels = visits(tmp_path, files)
    assert labels["age"].tolist() == [30, 30]
    assert labels["notes"].tolist() == ["", "age: of participants.tsv (30), for sub-01_sessions.tsv does not tell it"]


def test_an_age_of_the_visit_mends_a_row_of_participants_that_has_none(tmp_path):
    files = {"sub-01/sub-01_sessions.tsv": SESSIONS}
    labels = visits(tmp_path, files, participants="participant_id\tage\nsub-01\tn/a\n")
    assert labels["age"].tolist() == [30, 33.5]
    assert labels["problem"].tolist() == ["", ""]


def test_an_age_of_the_visit_that_cannot_be_meant_is_a_problem(tmp_path):
    labels = visits(tmp_path, {"sub-01/sub-01_sessions.tsv": SESSIONS.replace("33.5", "335")})
    assert labels["problem"].tolist() == ["", "age: out of range (335, expected 0 to 110 years)"]


@pytest.mark.parametrize(
    ("sidecars", "years"),
    [
        ({"participants.json": '{"age": {"Units": "months"}}'}, 30),
        ({"participants.json": '{"age": {"Units": "Month"}}'}, 30),
        ({"participants.json": '{"age": {"Units": "age in months"}}'}, 30),
        ({"participants.json": '{"age": {"Units": "month(s), rounded"}}'}, 30),
        ({"participants.json": '{"age": {"Units": "weeks"}}'}, 360 * 7 / 365.25),
        ({"participants.json": '{"age": {"Units": "days"}}'}, 360 / 365.25),
        ({"participants.json": '{"age": {"Units": "mo"}}', "sub-01/sub-01_sessions.tsv": "session_id\tage\n1\t372\n"}, 31),
        ({"sessions.json": '{"age": {"Units": "weeks"}}', "sub-01/sub-01_sessions.tsv": "session_id\tage\n1\t52.18\n"}, 1),
        (
            {
                "participants.json": '{"age": {"Units": "months"}}',
                "sub-01/sub-01_sessions.json": '{"age": {"Units": "years"}}',
                "sub-01/sub-01_sessions.tsv": "session_id\tage\n1\t31\n",
            },
            31,
        ),
    ],
)
def test_ages_in_another_unit_become_years(tmp_path, sidecars, years):
    labels = visits(tmp_path, sidecars, images=TWO[:1], participants="participant_id\tage\nsub-01\t360\n")
    assert labels["age"].iloc[0] == pytest.approx(years, abs=0.01)
    assert labels["problem"].iloc[0] == ""


def test_a_unit_that_is_not_known_is_told(tmp_path, caplog):
    visits(tmp_path, {"participants.json": '{"age": {"Units": "fortnights"}}'}, images=ONE)
    assert "participants.json: says that 'age' is in 'fortnights'; it is read as years" in caplog.text


def test_a_table_of_scans_without_labels_changes_nothing(tmp_path):
    files = {"sub-01/sub-01_scans.tsv": "filename\tacq_time\nanat/sub-01_T1w.nii.gz\tn/a\n", "sub-01/sub-01_sessions.tsv": ""}
    labels = visits(tmp_path, files, images=ONE)
    assert labels["age"].tolist() == [30] and labels["notes"].tolist() == [""]


def test_not_available_is_no_level_even_if_it_is_described(tmp_path):
    described = {"participants.json": '{"sex": {"Levels": {"M": "male", "n/a": "not known"}}}'}
    labels = visits(tmp_path, described, ONE, {"sex": {"from": "sex"}}, "participant_id\tsex\nsub-01\tn/a\n")
    assert labels["sex"].isna().all()


def test_a_corrected_age_of_a_visit_is_organized_again_and_an_untouched_folder_is_not(tmp_path):
    folder = checkout(tmp_path / "run")
    for number, name in enumerate(TWO):
        write_scan(folder / "my-bids" / name, np.full((4, 4, 4), number, np.uint8))
    (folder / "my-bids/participants.tsv").write_text("participant_id\tgroup\tgender\tage\nsub-01\tcontrol\tm\t30\n")
    sessions = folder / "my-bids/sub-01/sub-01_sessions.tsv"
    sessions.write_text(SESSIONS)
    asked = ["data/my-bids/labels.csv", "--configfile", "config/experiments/my-bids.yaml"]
    snakemake(folder, *asked)
    assert jobs(snakemake(folder, "-n", *asked)) == {}
    sessions.write_text(SESSIONS.replace("33.5", "34.5"))
    os.utime(sessions, (1, 1))  # the folder's own time, and the clock, tell nothing
    assert jobs(snakemake(folder, "-n", *asked))["organize"] == 1
