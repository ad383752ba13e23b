"""Organizing: a scan that cannot be used stays in labels.csv with its problem; what concerns the whole table is an error."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from bad_input.cases import ANNEX, DICOM, LFS, NAME, PATTERN, case, of_group
from mriflow.organize import organize
from mriflow.tables.identifiers import AGAIN
from mriflow.tables.labels import read_labels
from mriflow.tables.ukb_table import read_fetched

COLUMNS = {
    "subject": {"from": "ID", "format": "S{:03d}"},
    "age": {"from": "AGE", "range": [5, 110], "required": True, "unit": "years"},
    "sex": {"from": "SEX", "codes": {1: "M", 2: "F"}, "required": True},
    "height": {"from": "HEIGHT", "range": [120, 220], "missing": [0], "unit": "cm"},
}


def write_images(folder: Path, names) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(gzip.compress(name.encode(), mtime=0))
    return folder


def joined(rows: str, *names: str, columns: dict = COLUMNS, scan: str = "S001-A-T1", field: str = "problem", **options):
    """Return the problem of a scan after a join of images of these names with a table of these rows."""

    def act(folder):
        (folder / "t.csv").write_text("ID,AGE,SEX,HEIGHT\n" + rows)
        images = write_images(folder / "images", names or [NAME])
        files = {"labels": folder / "data/labels.csv", "scans": folder / "data/scans.csv", "table": folder / "t.csv"}
        organize(**files, columns=columns, images=[images], pattern=PATTERN, **options)
        return read_labels(folder / "data/labels.csv").set_index("id").loc[scan, field]

    return act


def with_paths(rows: str, scan: str = "0") -> Callable:
    """Return the problem of a row of a table that has the paths of the images."""

    def act(folder):
        (folder / "t.csv").write_text(f"file,who,years\n{rows}")
        (folder / "scan.dcm").write_bytes(DICOM)
        (folder / "empty.nii").touch()
        (folder / "lfs.nii.gz").write_bytes(LFS)
        (folder / "annex.nii").write_bytes(ANNEX)
        (folder / "dead.nii").symlink_to(".git/annex/objects/aa/bb/MD5E-s5663--4b.nii/MD5E-s5663--4b.nii")
        (folder / "folder").mkdir()
        columns = {"path": {"from": "file"}, "subject": {"from": "who"}, "age": {"from": "years", "range": [0, 110]}}
        labels = organize(folder / "d/labels.csv", folder / "d/scans.csv", table=folder / "t.csv", columns=columns)
        return labels["problem"].iloc[int(scan)]

    return act


def labels_csv(content: str) -> Callable:
    """Read a file of this content as the labels.csv that `organize` makes."""

    def act(folder):
        (folder / "labels.csv").write_text(content)
        return str(read_labels(folder / "labels.csv"))

    return act


ROWS = [
    case(
        joined("1,30,1\n2,40\n", columns={name: COLUMNS[name] for name in ("subject", "age")}),
        "",
        id="rows that end before columns that nobody uses",
    ),
    case(
        joined("1,30,1\n2,40\n", columns={name: COLUMNS[name] for name in ("subject", "sex")}),
        "{tmp}/t.csv: line 3 has 2 cell(s), expected 4, for so many columns are named in line 1 (1 such "
        "line(s)). It is the last line: was the file cut short? Name all columns there, leave no cell out, and "
        "put a text that holds the separator in quotes.",
        id="row that ends before a column of the dataset",
    ),
    case(joined("1,,1,170\n"), "age: missing", id="age missing"),
    case(joined("1,thirty,1,170\n"), "age: not a number ('thirty', expected 5 to 110 years)", id="age in words"),
    case(
        joined('1,"30,5",1,170\n'),
        "age: not a number ('30,5', expected 5 to 110 years, with a point for decimals)",
        id="decimal comma",
    ),
    case(joined("1,12.03.1985,1,170\n"), "age: not a number ('12.03.1985', expected 5 to 110 years)", id="date for an age"),
    case(joined("1,1985,1,170\n"), "age: out of range (1985, expected 5 to 110 years)", id="year for an age"),
    case(joined("1,3_0,1,170\n"), "age: not a number ('3_0', expected 5 to 110 years)", id="number as only Python writes it"),
    case(
        joined("1,-999,1,170\n"),
        "age: out of range (-999, expected 5 to 110 years)",
        id="sentinel that the dataset does not know",
    ),
    case(joined("1,300,1,170\n"), "age: out of range (300, expected 5 to 110 years)", id="age out of range"),
    case(joined("1,nan,1,170\n"), "age: missing", id="NaN in the table"),
    case(joined("1,inf,1,170\n"), "age: not a number ('inf', expected 5 to 110 years)", id="infinite age"),
    case(joined("1,30,3,170\n"), "sex: unknown code ('3', expected 1 or 2)", id="unknown code"),
    case(joined("1,30,male,170\n"), "sex: unknown code ('male', expected 1 or 2)", id="meaning in place of the code"),
    case(joined("1,30,,170\n"), "sex: missing", id="sex missing"),
    case(joined("1,30,1,1.7\n", field="notes"), "height: out of range (1.7, expected 120 to 220 cm)", id="height in metres"),
    case(joined("1,30,1,0\n", field="notes"), "", id="sentinel of a height that need not be there"),
    case(
        joined(f"1,{'x' * 100},1,170\n"),
        "age: not a number ('xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...', expected 5 to 110 years)",
        id="a long text for an age",
    ),
    case(
        joined("1,30; scan: x,1,170\n"),
        "age: not a number ('30, scan: x', expected 5 to 110 years)",
        id="a text that looks like a problem",
    ),
    case(joined("1,30,1,170\n1,40,1,170\n"), "age: contradictory (30, 40)", id="two rows that contradict each other"),
    case(
        joined("1,30,1,170\n1,300,1,170\n"), "age: out of range (300, expected 5 to 110 years)", id="two rows, one out of range"
    ),
    case(
        joined("1,30,1,170\n2,40,2,160\n", NAME, "S003-A-T1.nii.gz", scan="S003-A-T1"),
        "scan: no row in the table",
        id="image without a row",
    ),
    case(joined("1,30,1,170\n2,40,2,160\n", scan="S002"), "scan: no image", id="row without an image"),
    case(joined("1,30,1,170\n,40,2,160\n", scan="row-3"), "scan: no subject in the table (row 3)", id="row without a subject"),
    case(
        joined("1,30,1,170\nx7,40,2,160\n", scan="row-3"),
        "scan: no subject in the table (row 3, not a whole number ('x7'))",
        id="subject that is no number",
    ),
    *[
        case(
            joined(f"1,30,1,170\n{spoilt},40,2,160\n", columns=COLUMNS | {"subject": {"from": "ID"}}),
            f"{{tmp}}/t.csv: identifiers in the column 'ID' {what}, such as '{spoilt}' in row 3. {AGAIN}.",
            id=f"identifier that a spreadsheet wrote as {spoilt}",
        )
        for spoilt, what in {
            "1.23457E+15": "are rounded",
            "1.2e+09": "are rounded",
            "5E+14": "are rounded",
            "#NAME?": "are errors of a spreadsheet",
            "########": "are errors of a spreadsheet",
        }.items()
    ],
    case(
        with_paths("".join(f"{name}.nii.gz,{number}0,30\n" for number, name in enumerate("abc", 123456789012345))),
        "{tmp}/t.csv: identifiers in the column 'who' have more than the 15 digits that a spreadsheet keeps of a number, "
        f"such as '1234567890123450' in row 2: the last are lost. {AGAIN}.",
        id="identifiers of 16 digits whose last is lost",
    ),
    case(
        joined("7,30,1,170\n8,30,1,170\n"),
        "{tmp}/t.csv: none of its 2 subject(s) has an image. It has such as 'S007', 'S008', the names of the "
        "images such as 'S001'. Make them alike: by the `format` of the column subject (S{:03d} makes S001 of its "
        "number, also where a spreadsheet lost the zeros), by its `pattern`, or by the `pattern` of the images.",
        id="subjects of whom none has an image",
    ),
    case(
        joined("1,30,1,170\n100,40,2,160\n", NAME, "S100-A-T1.nii.gz", columns=COLUMNS | {"subject": {"from": "ID"}}),
        "{tmp}/t.csv: none of its 2 subject(s) has an image. It has such as '1', '100', the names of the images "
        "such as 'S001', 'S100'. Make them alike: by the `format` of the column subject (S{:03d} makes S001 of "
        "its number, also where a spreadsheet lost the zeros), by its `pattern`, or by the `pattern` of the images.",
        id="subjects without the letter of the images",
    ),
    case(
        joined("S1,30,1,170\nS100,40,2,160\n", NAME, "S100-A-T1.nii.gz", columns=COLUMNS | {"subject": {"from": "ID"}}),
        "scan: no row in the table (but one of 'S1')",
        id="subject whose zeros were lost",
    ),
    case(
        joined("1,30,1,170\n", NAME, "S001-A-T1 (1).nii.gz", scan="S001-A-T1 (1)"),
        "scan: name does not fit the pattern",
        id="a copy with another name",
    ),
    case(
        joined("1,30,1,170\n2,40,2,160\n", NAME, "S002.nii.gz", scan="S002"),
        "scan: name does not fit the pattern",
        id="a stray image that is called as a subject without one",
    ),
    case(
        joined("1,30,1,170\n2,40,2,160\n", NAME, "S002.nii.gz", scan="S002/no-image"),
        "scan: no image",
        id="the row of that subject",
    ),
    case(
        joined("1,30,1,170\n", "wrong.nii.gz"),
        "{tmp}/images: none of its 1 images has a name that fits the `pattern` "
        "'(?P<subject>S\\\\d+)-(?P<site>\\\\w+)-T1\\\\.nii\\\\.gz' of the dataset; the first is 'wrong.nii.gz'. Correct "
        "the `pattern`.",
        id="no name fits",
    ),
    case(
        joined("1,30,1,170\n", exclude={"S009": "motion"}),
        "`exclude` of the dataset names no scan of it: S009. Its first is 'S001-A-T1'.",
        id="a scan left out that there is not",
    ),
    case(
        joined("1,30,1,170\n", exclude={"S001-A-T1": "motion"}), "scan: left out by hand (motion)", id="a scan left out by hand"
    ),
    case(
        joined("1,30,1,170\n", expect={"rows": 2}),
        "{tmp}/t.csv: 1 rows, where the published table has 2: this copy was altered (were blanks filled in, or "
        "rows lost?). Get it from its publisher; if yours is meant to differ, change `expect` of the dataset.",
        id="another number of rows than published",
    ),
    case(
        joined("1,30,1,170\n", expect={"age": 0}),
        "{tmp}/t.csv: 1 rows with a value in 'AGE', where the published table has 0: this copy was altered (were "
        "blanks filled in, or rows lost?). Get it from its publisher; if yours is meant to differ, change "
        "`expect` of the dataset.",
        id="more known ages than published",
    ),
    case(with_paths("nope.nii.gz,a,30\n"), "scan: no file ({tmp}/nope.nii.gz)", id="path of no file"),
    case(
        with_paths(f"{'x' * 300},a,30\n"),
        "scan: no file "
        "({tmp}/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
        "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx)",
        id="path that is too long for a name",
    ),
    case(
        with_paths("folder,a,30\n"),
        "scan: a folder, expected a NIfTI file ({tmp}/folder, dcm2niix makes one of DICOM files)",
        id="path of a folder",
    ),
    case(
        with_paths("scan.dcm,a,30\n"),
        "scan: not a NIfTI file (scan.dcm, dcm2niix makes NIfTI of it)",
        id="path of a DICOM file",
    ),
    case(with_paths("empty.nii,a,30\n"), "scan: file is empty (empty.nii)", id="path of an empty file"),
    case(
        with_paths("lfs.nii.gz,a,30\n"),
        "scan: file is no image (lfs.nii.gz, a pointer of Git LFS, its content is not here: git lfs pull)",
        id="path of a pointer of Git LFS",
    ),
    case(
        with_paths("annex.nii,a,30\n"),
        "scan: file is no image (annex.nii, a pointer of git-annex, its content is not here: datalad get, or git annex get)",
        id="path of a pointer of git-annex",
    ),
    case(
        with_paths("dead.nii,a,30\n"),
        "scan: no file ({tmp}/dead.nii, a link of git-annex, its content is not here: datalad get, or git annex get)",
        id="path of a link of git-annex",
    ),
    case(with_paths("folder\\\\..\\\\empty.nii,a,30\n"), "scan: file is empty (empty.nii)", id="path with backslashes"),
    case(with_paths(",a,30\n"), "scan: no path in the table (row 2)", id="no path"),
    case(
        with_paths("empty.nii,,30\n"),
        "scan: no subject in the table; scan: file is empty (empty.nii)",
        id="path without a subject",
    ),
    case(
        lambda folder: str(read_labels(folder / "labels.csv")),
        "{tmp}/labels.csv: no such table; `python -m mriflow.organize` makes it.",
        id="no labels.csv",
    ),
    case(
        labels_csv("id,path\na,b\n"),
        "{tmp}/labels.csv: has no column subject, session, site, fingerprint, problem, notes, so it is no "
        "labels.csv; `python -m mriflow.organize` makes it.",
        id="another table for labels.csv",
    ),
    case(
        labels_csv("id,path\na,b,c\na,b,c,d,e\n"),
        "{tmp}/labels.csv: cannot be read (Error tokenizing data. C error: Expected 3 fields in line 3, saw 5"
        "); `python -m mriflow.organize` makes it.",
        id="labels.csv that was edited badly",
    ),
    case(
        lambda folder: str(read_fetched(folder / "fetched.csv")),
        "{tmp}/fetched.csv: no such list of scans; `python -m mriflow.ukbfetch` makes it.",
        id="no list of fetched scans",
    ),
]


@pytest.mark.parametrize(("act", "message"), of_group("table", ROWS))
def test_what_the_user_reads(act, message, shown):
    assert shown(act) == message
