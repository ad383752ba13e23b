import errno
import functools
import gzip
import io
import logging
import os
import tarfile
from pathlib import Path

import pandas as pd
import pytest
import yaml

from conftest import ROOT, shared, write_scan
from mriflow.base.errors import UserError
from mriflow.images.fingerprint import fingerprint
from mriflow.layout import layout
from mriflow.organize import organize
from mriflow.tables.cells import read_value
from mriflow.tables.labels import read_labels, shard_of, usable
from mriflow.tables.people import people_of
from mriflow.tables.reader import read_table

COLUMNS = {
    "subject": {"from": "ID", "format": "S{:03d}"},
    "age": {"from": "AGE", "range": [5, 110], "required": True, "unit": "years"},
    "sex": {"from": "SEX", "codes": {1: "M", 2: "F"}, "required": True},
    "height": {"from": "HEIGHT", "range": [120, 220], "missing": [0], "unit": "cm"},
}
PATTERN = r"(?P<subject>S\d+)-(?P<site>\w+)-T1\.nii\.gz"


def make_images(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(gzip.compress(name.encode(), mtime=0))
    return folder


def organized(tmp_path, images, columns=COLUMNS, **options):
    out = tmp_path / "data"
    organize(
        out / "labels.csv",
        out / "scans.csv",
        table=tmp_path / "table.csv",
        columns=columns,
        images=[images],
        pattern=PATTERN,
        **options,
    )
    return out


def run(tmp_path, table, names=("S001-A-T1.nii.gz",), columns=COLUMNS, **options):
    (tmp_path / "table.csv").write_text(table)
    images = make_images(tmp_path / "images", names)
    return read_labels(organized(tmp_path, images, columns, **options) / "labels.csv").set_index("id")


@pytest.fixture(scope="module")
def ixi(tmp_path_factory):
    """The real IXI table joined with the names of all 581 images."""
    tables = shared("ixi-tables")
    folder = tmp_path_factory.mktemp("ixi")
    names = (tables / "IXI_T1_581_subject_ids.txt").read_text().split()
    images = make_images(folder / "images", [f"{name}-T1.nii.gz" for name in names])
    described = yaml.safe_load((ROOT / "config/datasets/ixi.yaml").read_text())
    organize(
        folder / "labels.csv",
        folder / "scans.csv",
        table=tables / "IXI.xls",
        columns=described["columns"],
        images=[images],
        pattern=described["pattern"],
    )
    return folder


def test_ixi_join_gives_the_exact_truth(ixi):
    labels = read_labels(ixi / "labels.csv")
    images = labels[labels["path"] != ""]
    good = images[images["problem"] == ""]
    assert len(images) == 581
    assert (images["problem"] == "scan: no row in the table").sum() == 15
    assert set(images.loc[images["problem"] == "age: missing", "subject"]) == {"IXI341", "IXI435", "IXI623"}
    assert set(images.loc[images["problem"].str.contains("contradictory"), "subject"]) == {"IXI219", "IXI328"}
    assert len(good) == 561
    assert usable(labels, "sex").sum() == 565
    assert (labels["problem"].str.startswith("scan: no image")).sum() == 27
    assert (good["sex"] == "F").sum() == 311
    assert round(good["age"].mean(), 2) == 48.62
    assert good["site"].value_counts().to_dict() == {"Guys": 313, "HH": 180, "IOP": 68}


def test_ixi_scan_without_a_label_is_still_preprocessed_but_not_one_without_a_row(ixi):
    scans = set(pd.read_csv(ixi / "scans.csv")["id"])
    assert len(scans) == 581 - 15
    assert any(scan.startswith("IXI341-") for scan in scans)


def test_ixi_layouts_are_those_of_the_tutorial(ixi):
    by_class = layout(ixi / "labels.csv", ixi / "sex" / "labels.csv", column="sex", classes={"F": "Females", "M": "Males"})
    by_subject = layout(ixi / "labels.csv", ixi / "age" / "labels.csv", column="age")
    assert len(by_class) == 565
    assert len(by_subject) == 561
    link = ixi / "age" / "Sub_IXI002" / "T1.nii.gz"
    assert link.is_symlink()
    assert link.resolve() == (ixi / "images" / "IXI002-Guys-0828-T1.nii.gz").resolve()
    assert (ixi / "sex" / "Females" / "Sub_IXI002_T1.nii.gz").resolve() == link.resolve()
    assert pd.read_csv(ixi / "sex" / "labels.csv").columns.tolist() == ["ID", "label", "path"]


def test_layout_made_again_has_no_stale_links(tmp_path):
    run(tmp_path, "ID,AGE,SEX,HEIGHT\n1,30,1,170\n2,40,2,160\n", ["S001-A-T1.nii.gz", "S002-A-T1.nii.gz"])
    labels, table = tmp_path / "data/labels.csv", tmp_path / "data/sex/labels.csv"
    layout(labels, table, column="sex", classes={"F": "Females", "M": "Males"})
    changed = pd.read_csv(labels).assign(sex="F")
    changed.to_csv(labels, index=False)
    (table.parent / "notes.txt").write_text("the user's own")
    layout(labels, table, column="sex", classes={"F": "Females", "M": "Males"})
    assert sorted(p.name for p in table.parent.glob("*/*")) == ["Sub_S001_T1.nii.gz", "Sub_S002_T1.nii.gz"]
    assert (table.parent / "notes.txt").exists()


def test_twin_rows_are_merged_and_contradictions_told(tmp_path):
    table = "ID,AGE,SEX,HEIGHT\n1,30,1,170\n1,30,1,0\n2,40,2,160\n2,45,2,160\n3,50,1,170\n3,50,1,150\n"
    labels = run(tmp_path, table, [f"S00{i}-A-T1.nii.gz" for i in (1, 2, 3)])
    assert labels.loc["S001-A-T1", ["age", "height", "problem", "notes"]].tolist() == [
        30, 170, "", "rows: duplicated, one completes another (2)",
    ]  # fmt: skip
    assert labels.loc["S002-A-T1", "problem"] == "age: contradictory (40, 45)"
    assert pd.isna(labels.loc["S002-A-T1", "age"])
    assert labels.loc["S003-A-T1", "problem"] == ""
    assert labels.loc["S003-A-T1", "notes"] == "height: contradictory (170, 150); rows: duplicated, with other values (2)"


def test_scan_left_out_by_hand_keeps_its_row_and_an_unknown_one_is_an_error(tmp_path):
    table = "ID,AGE,SEX,HEIGHT\n1,30,1,170\n"
    labels = run(tmp_path, table, exclude={"S001-A-T1": "motion"})
    assert labels.loc["S001-A-T1", "problem"] == "scan: left out by hand (motion)"
    with pytest.raises(UserError, match="names no scan of it: S002"):
        run(tmp_path, table, exclude={"S002": "motion"})


def test_the_same_image_of_two_subjects_rules_both_out(tmp_path):
    images = tmp_path / "images"
    run(tmp_path, "ID,AGE,SEX,HEIGHT\n1,30,1,170\n2,40,2,160\n3,50,1,180\n", [f"S00{i}-A-T1.nii.gz" for i in (1, 2, 3)])
    (images / "S002-A-T1.nii.gz").write_bytes((images / "S001-A-T1.nii.gz").read_bytes())
    labels = read_labels(organized(tmp_path, images) / "labels.csv").set_index("id")
    assert labels.loc["S001-A-T1", "problem"] == "scan: same image as another subject (S002-A-T1)"
    assert labels.loc["S002-A-T1", "problem"] == "scan: same image as another subject (S001-A-T1)"
    assert usable(labels).sum() == 1


def test_a_table_of_ones_own_with_paths(tmp_path):
    write = lambda name: make_images(tmp_path / name, ["T1.nii.gz"]) / "T1.nii.gz"  # noqa: E731
    write("s1"), write("s2"), write("s4"), write("s 3;$(touch hacked)")
    (tmp_path / "s4/T1.nii.gz").write_bytes(gzip.compress(b"four", mtime=0))
    (tmp_path / "s2/T1.nii.gz").write_bytes(gzip.compress(b"two", mtime=0))
    (tmp_path / "s 3;$(touch hacked)/T1.nii.gz").write_bytes(gzip.compress(b"three", mtime=0))
    table = tmp_path / "my.csv"
    rows = ["s1/T1.nii.gz,a,30", "s2/T1.nii.gz,b,40", "s 3;$(touch hacked)/T1.nii.gz,c,50"]
    rows += ["nope.nii.gz,d,60", ",e,70", "s4/T1.nii.gz,,1", "s2/T1.nii.gz,b,40"]
    table.write_text("\n".join(["file,who,years", *rows]) + "\n")
    columns = {"path": {"from": "file"}, "subject": {"from": "who"}, "age": {"from": "years", "range": [0, 110]}}
    out = tmp_path / "data"
    organize(out / "labels.csv", out / "scans.csv", table=table, columns=columns)
    labels = read_labels(out / "labels.csv")
    assert len(labels) == 6
    assert usable(labels, "age").sum() == 3
    assert (out / labels.loc[labels["subject"] == "b", "path"].iloc[0]).resolve() == (tmp_path / "s2/T1.nii.gz").resolve()
    problems = " | ".join(labels["problem"])
    for told in ("scan: no file (", "scan: no path in the table", "scan: no subject in the table"):
        assert told in problems


def make_tar(path, entries):
    with tarfile.open(path, "w") as tar:
        for info, content in entries:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def unpacked(tmp_path, archive):
    (tmp_path / "table.csv").write_text("ID,AGE,SEX,HEIGHT\n1,30,1,170\n")
    return organized(tmp_path, archive)


def test_truncated_archive_is_told_and_a_whole_one_is_unpacked_once(tmp_path):
    archive = make_tar(
        tmp_path / "a.tar", [(tarfile.TarInfo("S001-A-T1.nii.gz"), gzip.compress(bytes(9000), mtime=0) + bytes(5000))]
    )
    whole = archive.read_bytes()
    archive.write_bytes(whole[:3000])
    with pytest.raises(UserError, match="broken"):
        unpacked(tmp_path, archive)
    assert not (tmp_path / "data/labels.csv").exists()
    assert not list((tmp_path / "data/images").glob("*.nii.gz"))
    archive.write_bytes(whole)
    image = unpacked(tmp_path, archive) / "images/S001-A-T1.nii.gz"
    first = image.stat().st_mtime_ns
    unpacked(tmp_path, archive)
    assert image.stat().st_mtime_ns == first


def test_fingerprint_tells_images_apart(tmp_path):
    import numpy as np

    one = write_scan(tmp_path / "1.nii.gz", np.zeros((16, 16, 16), np.float32))
    two = write_scan(tmp_path / "2.nii.gz", np.ones((16, 16, 16), np.float32))
    assert fingerprint(one) != fingerprint(two)
    (tmp_path / "3.nii.gz").write_bytes(one.read_bytes())
    assert fingerprint(one) == fingerprint(tmp_path / "3.nii.gz")


def test_a_scan_stays_in_its_shard_for_ever():
    """Another hash would preprocess every dataset again."""
    assert [shard_of(f"IXI{i:03d}", 8) for i in (2, 12, 13, 14)] == [2, 3, 2, 1]
    assert {shard_of(f"scan-{i}", 8) for i in range(100)} == set(range(8))


def test_nothing_is_dropped_in_silence(tmp_path):
    """A row without a subject and an image with another name keep a row, with the reason."""
    table = "ID,AGE,SEX,HEIGHT\n1,30,1,170\n,40,2,160\n?,50,2,160\n"
    labels = run(tmp_path, table, ["S001-A-T1.nii.gz", "S001-A-T1 (copy).nii.gz", "other.nii"])
    assert usable(labels.reset_index()).sum() == 1
    assert labels.loc["other", "problem"] == "scan: name does not fit the pattern"
    assert labels.loc["S001-A-T1 (copy)", "problem"] == "scan: name does not fit the pattern"
    assert sorted(labels["problem"][labels["problem"].str.contains("no subject")]) == [
        "scan: no subject in the table (row 3)",
        "scan: no subject in the table (row 4)",
    ]


def test_images_of_one_name_in_two_folders_are_two_scans(tmp_path):
    images = tmp_path / "images"
    for folder in ("visit1", "visit2"):
        (images / folder).mkdir(parents=True)
        (images / folder / "S001-A-T1.nii.gz").write_bytes(gzip.compress(folder.encode(), mtime=0))
    labels = run(tmp_path, "ID,AGE,SEX,HEIGHT\n1,30,1,170\n2,40,2,160\n", ["S002-A-T1.nii.gz"])
    assert {"visit1_S001-A-T1", "visit2_S001-A-T1", "S002-A-T1"} == set(labels.index)
    assert labels.loc["visit1_S001-A-T1", "age"] == 30


def test_a_session_that_the_names_do_not_tell_gives_no_wrong_label(tmp_path):
    columns = COLUMNS | {"session": {"from": "VISIT"}}
    labels = run(tmp_path, "ID,VISIT,AGE,SEX,HEIGHT\n1,a,30,1,170\n1,b,70,1,170\n", columns=columns)
    assert len(labels) == 1
    assert labels.loc["S001-A-T1", "problem"] == "age: contradictory (30, 70)"


def test_contradictory_rows_of_one_image_are_told(tmp_path):
    make_images(tmp_path, ["a.nii.gz"])
    (tmp_path / "my.csv").write_text("file,who,years\na.nii.gz,1,30\na.nii.gz,1,70\n")
    columns = {
        "path": {"from": "file"},
        "subject": {"from": "who"},
        "age": {"from": "years", "range": [0, 110], "required": True},
    }
    organize(tmp_path / "d/labels.csv", tmp_path / "d/scans.csv", table=tmp_path / "my.csv", columns=columns)
    labels = read_labels(tmp_path / "d/labels.csv")
    assert labels["problem"].tolist() == ["age: contradictory (30, 70)"]
    assert usable(labels, "age").sum() == 0


@pytest.mark.parametrize(
    ("cell", "codes", "value"),
    [
        ("-", {"+": "pos", "-": "neg"}, "neg"),
        ("none", {"none": "healthy"}, "healthy"),
        ("1.0", {1: "M"}, "M"),
        (1, {"1.0": "M"}, "M"),
        (" MALE ", {"male": "M", "female": "F"}, "M"),
        ("very  mild", {"Very mild": 1, "None": 0}, "1"),
        ("none", {"None": 0}, "0"),
        ("TRUE", {True: "ill", False: "well"}, "ill"),
        (False, {True: "ill", False: "well"}, "well"),
        ("No", {"true": "ill", "false": "well"}, "well"),
        ("yes", {"yes": "ill", "no": "well"}, "ill"),
    ],
)
def test_a_code_is_a_code_whatever_it_looks_like(cell, codes, value):
    assert read_value(cell, {"codes": codes}) == (value, "")


def test_tables_as_spreadsheets_write_them(tmp_path):
    (tmp_path / "semicolon.csv").write_text("ID;AGE\n1;35\n")
    assert read_table(tmp_path / "semicolon.csv").loc[0].tolist() == ["1", "35"]
    (tmp_path / "comma.csv").write_text("ID,AGE,W\n1,35,70,\n")
    assert read_table(tmp_path / "comma.csv").loc[0, ["ID", "AGE", "W"]].tolist() == ["1", "35", "70"]
    (tmp_path / "bom.csv").write_text("\ufeffID,AGE\n1,35\n", encoding="utf-8")
    assert list(read_table(tmp_path / "bom.csv")) == ["ID", "AGE"]
    (tmp_path / "twice.csv").write_text("AGE, AGE\n1,35\n")
    with pytest.raises(UserError, match="two columns 'AGE'"):
        read_table(tmp_path / "twice.csv")


@pytest.mark.parametrize("compressed", [False, True])
def test_archive_cut_between_two_images_or_damaged_is_told(tmp_path, compressed):
    image = gzip.compress(os.urandom(3000), mtime=0)
    archive = make_tar(tmp_path / "a.tar", [(tarfile.TarInfo(f"S{i:03d}-A-T1.nii.gz"), image) for i in range(9)])
    content = archive.read_bytes()
    if compressed:
        content = bytearray(gzip.compress(content))
        content[len(content) // 2] ^= 255
    else:
        content = content[: 3 * (512 + 3584)]
    archive.write_bytes(content)
    with pytest.raises(UserError, match="broken"):
        unpacked(tmp_path, archive)


def test_image_released_anew_with_the_same_size_is_unpacked_again(tmp_path):
    for content in (b"old-image", b"new-image"):
        out = unpacked(tmp_path, make_tar(tmp_path / "a.tar", [(tarfile.TarInfo("S001-A-T1.nii.gz"), content)]))
        os.utime(tmp_path / "a.tar")
    assert (out / "images/S001-A-T1.nii.gz").read_bytes() == b"new-image"


def test_image_that_may_not_be_read_is_that_scans_problem(tmp_path, monkeypatch):
    def refuse(path):
        if path.name.startswith("S001"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return fingerprint(path)

    monkeypatch.setattr("mriflow.organize.fingerprint", refuse)
    labels = run(tmp_path, "ID,AGE,SEX,HEIGHT\n1,30,1,170\n2,40,2,160\n", ["S001-A-T1.nii.gz", "S002-A-T1.nii.gz"])
    assert labels["problem"].tolist() == ["scan: file cannot be read (S001-A-T1.nii.gz, Permission denied)", ""]


@pytest.mark.parametrize(("name", "link"), [("T1.nii.gz", "T1.nii.gz"), ("T1.nii", "T1.nii"), ("T1.NII.GZ", "T1.nii.gz")])
def test_a_link_is_named_after_the_image_and_not_after_what_that_is_a_link_to(tmp_path, name, link):
    """DataLad's images are links to keys, whose names may have no suffix, or another."""
    key = tmp_path / ".git/annex/objects/MD5-s5--0123"
    key.parent.mkdir(parents=True)
    key.write_bytes(b"image")
    (tmp_path / name).symlink_to(key)
    columns = "id,subject,session,site,age,path,fingerprint,problem,notes"
    (tmp_path / "labels.csv").write_text(f"{columns}\n1,a,,,30,{name},,,\n")
    table = layout(tmp_path / "labels.csv", tmp_path / "age/labels.csv", column="age")
    assert table["path"].map(str).tolist() == [f"Sub_a/{link}"]
    made = tmp_path / "age" / table["path"][0]
    assert made.read_bytes() == b"image"
    assert made.readlink() == Path("../..") / name  # `datalad get` of an image may give it another key


def test_identifiers_that_look_like_dates_are_told(tmp_path, caplog):
    names = ["2-Mar", "Mar-03", "2024-03-02", "2024-3-02T00:00", "S01", "12-13"]
    rows = "".join(f"{name}.nii.gz,{name},30\n" for name in names)
    (tmp_path / "my.csv").write_text(f"file,who,years\n{rows}")
    columns = {"path": {"from": "file"}, "subject": {"from": "who"}, "age": {"from": "years", "range": [0, 110]}}
    organize(tmp_path / "d/labels.csv", tmp_path / "d/scans.csv", table=tmp_path / "my.csv", columns=columns)
    notes = read_labels(tmp_path / "d/labels.csv").set_index("subject")["notes"]
    assert notes.to_dict() == {name: f"subject: looks like a date ({name!r})" for name in names[:4]} | {"S01": "", "12-13": ""}
    assert "4 of the identifiers in the column 'who' look like dates, such as '2-Mar'" in caplog.text


def test_identifiers_of_an_excel_file_are_refused_where_it_has_lost_their_last_digits(tmp_path):
    for number, kept in ((123456789012345, True), (1234567890123456, False)):
        pd.DataFrame({"ID": [number], "AGE": [30]}).to_excel(tmp_path / "t.xlsx", index=False)
        act = functools.partial(people_of, read_table(tmp_path / "t.xlsx"), {"subject": {"from": "ID"}}, tmp_path, ["subject"])
        if kept:
            assert act()["subject"].tolist() == ["123456789012345"]
        else:
            with pytest.raises(UserError, match="the last are lost"):
                act()


def test_codes_that_differ_in_capitals_or_blanks_are_matched_and_told(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    columns = COLUMNS | {"sex": {"from": "SEX", "codes": {"Male": "M", "Female": "F"}}}
    labels = run(tmp_path, "ID,AGE,SEX,HEIGHT\n1,30,male,170\n2,40,FEMALE,160\n3,40,Female,160\n", columns=columns)
    assert labels["sex"].tolist() == ["M", "F", "F"]
    assert "1 cell(s) 'male' in the column 'SEX' are read as the code 'Male'" in caplog.text
    assert "'Female' in the column" not in caplog.text


def test_two_codes_that_differ_in_capitals_are_two(tmp_path):
    codes = {"M": "married", "m": "male"}
    assert [read_value(cell, {"codes": codes})[0] for cell in "Mm"] == ["married", "male"]
    assert read_value("Ab", {"codes": {"AB": 1, "ab": 2}}) == (None, "unknown code ('Ab', expected AB or ab)")
