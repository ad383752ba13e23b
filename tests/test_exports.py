"""Tables as other programs export them, and files as they lie there, are read; what was made of them is told."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from conftest import shared, write_scan
from mriflow.base.errors import UserError
from mriflow.config.resolve import BIDS_SUBJECT, described_bids
from mriflow.images.archives import ignored
from mriflow.images.find import read_name
from mriflow.organize import organize
from mriflow.tables.cells import read_value
from mriflow.tables.labels import read_labels
from mriflow.tables.reader import read_table

VOXELS = np.random.default_rng(0).integers(0, 99, (16, 16, 16)).astype(np.int16)
AGE = {"from": "age", "range": [0, 110], "required": True}


def with_paths(folder: Path, table: str | bytes, **columns) -> pd.DataFrame:
    """Organize a table with paths, of images that are there."""
    (folder / "t.csv").write_bytes(table if isinstance(table, bytes) else table.encode())
    for number in range(3):
        write_scan(folder / f"s{number}.nii", VOXELS + number)
    columns = {"path": {"from": "file"}, "subject": {"from": "who"}, **columns}
    organize(folder / "d/labels.csv", folder / "d/scans.csv", table=folder / "t.csv", columns=columns)
    return read_labels(folder / "d/labels.csv").set_index("id")


@pytest.mark.parametrize(
    ("name", "subject"),
    [
        ("sub-01_part-mag_T1w.nii.gz", "sub-01"),
        ("sub-01_echo-1_T1w.nii.gz", "sub-01"),
        ("sub-01_ses-a_acq-mprage_dir-AP_run-1_echo-1_part-mag_T1w.nii", "sub-01"),
        ("sub-A+b_acq-3T+x_T1w.nii.gz", "sub-A+b"),
        ("sub-01_part-phase_T1w.nii.gz", "ignored"),
        ("sub-01_ses-a_run-1_part-imag_T1w.nii.gz", "ignored"),
        ("sub-01_T2w.nii.gz", "ignored"),
        ("sub-01_desc-T1w_mask.mgz", "ignored"),
        ("sub-01 copy_T1w.nii.gz", None),
    ],
)
def test_names_of_bids(name, subject):
    described = described_bids("bids")
    groups = read_name(Path(name), described["pattern"]) or {}
    found = "ignored" if ignored(name, described["ignore"]) else groups.get("subject")
    assert found == subject


def test_an_image_beside_its_compressed_copy_does_no_harm(tmp_path):
    for name in ("S1.nii", "S1.nii.gz", "S2.nii"):
        write_scan(tmp_path / "scans" / name, VOXELS + int(name[1]))
    options = {"images": [tmp_path / "scans"], "pattern": r"(?P<subject>S\d)\.nii(\.gz)?"}
    rows = organize(tmp_path / "d/labels.csv", tmp_path / "d/scans.csv", columns={"subject": {"from": "subject"}}, **options)
    problems = dict(zip(rows["id"], rows["problem"], strict=True))
    assert problems == {"S1": "", "S1.nii": "scan: same image as another (S1)", "S2": ""}


def test_rows_of_redcap_events_complete_those_of_the_scans(tmp_path):
    table = (
        "who,redcap_event_name,file,age,sex\na,baseline_arm_1,,30,M\na,scan_arm_1,s0.nii,,\nb,baseline_arm_1,,40,F\n"
        "b,month_6_arm_1,,41,\nb,scan_arm_1,s1.nii,,\nc,baseline_arm_1,,50,F\n"
    )
    labels = with_paths(tmp_path, table, age=AGE, sex={"from": "sex"})
    assert labels.loc["s0", ["age", "sex", "problem"]].tolist() == [30, "M", ""]
    assert labels.loc["s0", "notes"] == "rows: age, sex of another row of the subject (without a path)"
    assert labels.loc["s1", "problem"] == "age: contradictory (40, 41)" and labels.loc["s1", "sex"] == "F"
    assert labels["problem"].drop(["s0", "s1"]).tolist() == ["scan: no path in the table (row 7)"]


@pytest.mark.parametrize(
    "cells", [("", "300", "out of range (300, expected 0 to 110)"), ("abc", "30", "not a number ('abc', expected 0 to 110)")]
)
def test_what_is_wrong_in_a_row_of_an_event_is_told_in_that_of_the_scan(tmp_path, cells):
    labels = with_paths(tmp_path, f"who,file,age\na,,{cells[0]}\na,,{cells[1]}\na,s0.nii,\n", age=AGE)
    assert labels.loc["s0", "problem"] == f"age: {cells[2]}"


@pytest.mark.parametrize("cell", ["1,23457E+15", "1.2E+10", "1E+15"])
@pytest.mark.parametrize("column", ["who", "visit"])
def test_identifiers_that_a_spreadsheet_has_rounded_are_refused_also_with_a_decimal_comma(tmp_path, column, cell):
    rows = pd.DataFrame({"who": ["a", "b"], "file": ["s0.nii", "s1.nii"], "visit": ["1", "2"]})
    rows.loc[1, column] = cell
    with pytest.raises(UserError, match="identifiers in the column .* are rounded, such as .* in row 3"):
        with_paths(tmp_path, rows.to_csv(sep=";", index=False), session={"from": "visit"})


def test_a_stray_quotation_mark_in_a_column_that_nobody_uses_is_told_and_one_elsewhere_refused(tmp_path, caplog):
    table = 'who,file,age,remark\n"a",s0.nii,30,"tall\nb,s1.nii,40,6\' 2"\nc,s2.nii,50,"fine"\n'
    labels = with_paths(tmp_path, table, age=AGE)
    assert labels["age"].tolist() == [30, 40, 50] and labels["subject"].tolist() == ["a", "b", "c"]
    assert "line 2 has a quotation mark out of place" in caplog.text
    with pytest.raises(UserError, match="quotation mark out of place"):
        with_paths(tmp_path, table, age=AGE, remark={"from": "remark"})


def test_a_stray_quotation_mark_does_no_harm_beside_texts_in_quotes(tmp_path):
    table = 'who,name,file,age,remark\na,Doe,s0.nii,30,"tall\nb,"Roe, R",s1.nii,40,\nc,"Poe, E",s2.nii,50,"a, b"\n'
    labels = with_paths(tmp_path, table, age=AGE)
    assert labels["age"].tolist() == [30, 40, 50] and labels["subject"].tolist() == ["a", "b", "c"]
    with pytest.raises(UserError, match="quotation mark out of place"):
        with_paths(tmp_path, table.replace('"tall', '"tall, or so'), age=AGE)


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8", "utf-8-sig"])
def test_a_table_as_excel_writes_it_in_much_of_europe(tmp_path, caplog, encoding):
    caplog.set_level(logging.INFO)
    text = "who;file;age;place\nMüller;s0.nii;30,5;Köln\nÖz;s1.nii;41;Paris – €\n"
    labels = with_paths(tmp_path, text.encode(encoding), age=AGE, place={"from": "place"})
    assert labels["age"].tolist() == [30.5, 41]
    assert labels["subject"].tolist() == ["Müller", "Öz"] and labels["place"].tolist() == ["Köln", "Paris – €"]
    assert ("cp1252" in caplog.text) == (encoding == "cp1252")


def test_a_table_of_commas_is_still_refused_if_it_is_no_utf8(tmp_path):
    (tmp_path / "t.csv").write_bytes("who,place\na,Köln\n".encode("cp1252"))
    with pytest.raises(UserError, match="is not UTF-8 text"):
        read_table(tmp_path / "t.csv")


@pytest.mark.parametrize(
    ("cell", "form", "subject"),
    [
        *[("A01", "sub-{}", "sub-A01"), ("7", "S{:03d}", "S007"), (7.0, "P{}", "P7"), ("x", "S{:03d}", None)],
        *[("01", "sub-{}", "sub-01"), ("7.0", "P{}", "P7")],
    ],
)
def test_identifiers_get_a_prefix(cell, form, subject):
    assert read_value(cell, {"format": form})[0] == subject


@pytest.mark.parametrize(
    ("cell", "unit", "value"),
    [
        *[("045Y", "years", 45), ("018M", "years", 1.5), ("365D", "years", 0.9993), ("6 months", "years", 0.5)],
        *[("45 y", "years", 45), ("1.7 m", "cm", 170), ("45 kg", "years", None), ("90+", "years", None), ("045Y", "", None)],
    ],
)
def test_a_number_may_be_written_with_its_unit_as_dicom_does(cell, unit, value):
    column = {"range": [0, 250], "unit": unit, "factor": 1 / 12}  # of a sidecar, for numbers without one
    found, problem = read_value(cell, column)
    assert found == value and ("not a number" in problem) == (value is None)


@pytest.mark.parametrize("prefix", ["sub-", "", "Sub-"])
def test_participants_of_bids_may_lack_the_prefix(tmp_path, prefix):
    bids = tmp_path / "bids"
    for number in ("01", "10"):
        write_scan(bids / f"sub-{number}/anat/sub-{number}_T1w.nii.gz", VOXELS + int(number))
    (bids / "participants.tsv").write_text(f"participant_id\tage\n{prefix}01\t30\n{prefix}10\t40\n")
    described = {key: value for key, value in described_bids(str(bids)).items() if key != "table"}
    images = {**described, "images": [bids], "table": bids / "participants.tsv"}
    columns = {"subject": BIDS_SUBJECT, "age": AGE}
    rows = organize(tmp_path / "d/labels.csv", tmp_path / "d/scans.csv", columns=columns, **images)
    assert rows[["subject", "age", "problem"]].to_numpy().tolist() == [["sub-01", 30, ""], ["sub-10", 40, ""]]


@pytest.mark.parametrize("other", ["p1", "P01", "P1.0"])
def test_sites_of_two_spellings_are_one_and_such_subjects_are_told(tmp_path, caplog, other):
    table = f"who,file,place\nP1,s0.nii,Guys\n{other},s1.nii,GUYS \nP2,s2.nii,Guys\n"
    labels = with_paths(tmp_path, table, site={"from": "place"})
    assert labels["site"].tolist() == ["Guys"] * 3
    assert (
        "site: 'GUYS' is read as 'Guys'" in caplog.text
        and f"{' and '.join(map(repr, sorted(['P1', other])))} are taken for different people" in caplog.text
    )
    note = "subject: another differs in capitals, blanks or zeros alone"
    assert labels["notes"].tolist() == [f"{note} ({other!r})", f"{note} ('P1')", ""]


def test_the_log_of_an_excel_file_has_no_warning_of_pandas(tmp_path):
    """An old Excel file, of which pandas says that its reader will be gone one day."""
    table = shared("ixi-tables") / "IXI.xls"
    write_scan(tmp_path / "images/IXI002-Guys-0828-T1.nii.gz", VOXELS)
    columns = {"subject": {"from": "IXI_ID", "format": "IXI{:03d}"}}
    flags = ["--table", table, "--images", tmp_path / "images", "--pattern", r"(?P<subject>IXI\d+)-.*"]
    flags += ["--columns", json.dumps(columns)]
    files = ["--labels", tmp_path / "d/labels.csv", "--scans", tmp_path / "d/scans.csv"]
    run = subprocess.run([sys.executable, "-m", "mriflow.organize", *flags, *files], capture_output=True, text=True, check=True)
    assert "arning" not in run.stderr
