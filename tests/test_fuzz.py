"""Tables and images that nobody would think of: a user's error, or what was written; never a traceback, never another label.

The examples are the same in every run. For many more, and others each time: ``FUZZ=5000 pytest tests/test_fuzz.py``.
"""

import csv
import gzip
import math
import os
import re
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mriflow.base.errors import UserError
from mriflow.images.headers import read_header
from mriflow.images.nifti import BadScan, load_scan
from mriflow.organize import organize
from mriflow.tables.cells import as_text, read_value
from mriflow.tables.labels import read_labels, usable
from mriflow.tables.reader import read_table

MANY = int(os.environ.get("FUZZ", 0))


def examples(count: int):
    """Return hypothesis' settings: `count` examples of the test, or as many as $FUZZ says."""
    # A fixture's folder is used by all examples of a test; each writes its files anew.
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(
        max_examples=MANY or count, derandomize=not MANY, deadline=None, database=None, suppress_health_check=checks
    )


# --- tables ---

PITFALLS = [
    *("001", "1e5", "1_0", "NA", "None", "nan", "-", " x ", "-999", "30,5", "a;b", "a\tb", 'say "x"', '"', "two\nlines"),
    *("1.0", "TRUE", "2020-01-02", "'", "=1+1", "\ufeff", "ÄÖ", "\u00a0", "#", "0x10", "00", "١", "1 000"),
]
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=6)
CELLS = st.sampled_from(PITFALLS) | TEXTS
NAMES = st.lists(
    st.text("abXY_ /().-1é ", min_size=1, max_size=8).filter(str.strip), min_size=2, max_size=5, unique_by=str.strip
)
SUFFIXES = st.sampled_from([".csv", ".tsv", ".xls", ".xlsx"])


def read_or_refuse(path: Path) -> None:
    try:
        table = read_table(path)
    except UserError as error:
        assert str(error).startswith(str(path))
        assert len(str(error).splitlines()) < 20
    else:
        assert table.columns.is_unique and table.columns.map(bool).all() and len(table)


@examples(150)
@given(
    content=st.binary(max_size=200),
    begin=st.sampled_from([b"", b"PK\3\4", b"\xd0\xcf\x11\xe0\xa1\xb1", b"ID,AGE\n"]),
    suffix=SUFFIXES,
)
def test_any_bytes_are_a_table_or_refused(content, begin, suffix, tmp_path):
    path = tmp_path / f"t{suffix}"
    path.write_bytes(begin + content)
    read_or_refuse(path)


@examples(200)
@given(content=st.text('a1,;\t"\n\r .\ufeff\0<', max_size=40), suffix=st.sampled_from([".csv", ".tsv"]))
def test_any_text_is_a_table_or_refused(content, suffix, tmp_path):
    path = tmp_path / f"t{suffix}"
    path.write_text(content, newline="")
    read_or_refuse(path)


@st.composite
def tables(draw):
    names = draw(NAMES)
    rows = draw(st.lists(st.lists(CELLS, min_size=len(names), max_size=len(names)), min_size=1, max_size=6))
    return names, [row for row in rows if any(map(str.strip, row))]


@examples(200)
@given(
    table=tables(),
    separator=st.sampled_from(",;\t"),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    end=st.sampled_from(["\n", "\r\n", "\n\n"]),
    mark=st.booleans(),
    tail=st.integers(0, 2),
)
def test_a_table_is_read_as_it_was_written(table, separator, quoting, end, mark, tail, tmp_path):
    """Cell by cell but for blanks before it, whatever parts and surrounds it; also with empty cells at the ends of lines."""
    names, rows = table
    path = tmp_path / ("t.tsv" if separator == "\t" else "t.csv")
    with open(path, "w", encoding="utf-8-sig" if mark else "utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter=separator, quoting=quoting, lineterminator=end)
        writer.writerows([names, *([*row, *[""] * tail] for row in rows)])
    if not rows:
        read_or_refuse(path)
        return
    columns = {name.strip(): [row[place].lstrip(" ") for row in rows] for place, name in enumerate(names)}
    some = list(columns)[1:]
    for only in (list(columns), some):
        read = {name: [cell.lstrip(" ") for cell in cells] for name, cells in read_table(path, only=only).items()}
        assert read == {name: columns[name] for name in only}
    assert list(read_table(path)) == list(columns)


@examples(15)
@given(
    rows=st.lists(
        st.lists(
            st.integers(-(10**14), 10**14)
            | st.floats(-1e6, 1e6).map(lambda value: round(value, 3))
            | st.sampled_from(["001", "NA", " x ", "1e5", "a,b", "ÄÖ"]),
            min_size=2,
            max_size=2,
        ),
        min_size=1,
        max_size=5,
    )
)
def test_an_excel_table_is_read_as_it_was_written(rows, tmp_path):
    pd.DataFrame(rows, columns=["ID", "AGE"], dtype=object).to_excel(tmp_path / "t.xlsx", index=False)
    read = read_table(tmp_path / "t.xlsx")
    assert [[as_text(cell) for cell in row] for row in read.to_numpy()] == [[as_text(cell) for cell in row] for row in rows]


@examples(200)
@given(
    content=st.lists(
        st.sampled_from(["1,30,170\n", "2,40\n", "3,50,160,\n", "4,60,150,9\n", ",,\n", "\n", "5,7", '6,"70,1\n']), max_size=6
    ),
)
def test_no_row_is_shifted_or_lost(content, tmp_path):
    """A row of another length than the header is refused, unless what is too much is empty; so is an open quotation mark."""
    path = tmp_path / "t.csv"
    path.write_text("ID,AGE,HEIGHT\n" + "".join(content))
    lines = [line for line in path.read_text().splitlines()[1:] if line.strip(",")]
    whole = all(line.rstrip(",").count(",") <= 2 <= line.count(",") for line in lines)
    if lines and whole and '"' not in path.read_text():
        assert read_table(path).to_numpy().tolist() == [line.split(",")[:3] for line in lines]
    else:
        with pytest.raises(UserError, match="has no rows|cell|quotation mark"):
            read_table(path)


NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@examples(300)
@given(cell=CELLS | st.integers() | st.floats() | st.none() | st.from_regex(NUMBER, fullmatch=True))
def test_a_value_is_what_stands_in_the_cell_or_there_is_a_problem(cell):
    text = as_text(cell)
    assert read_value(cell, {}) == (text or None, "")
    number, problem = read_value(cell, {"range": [-50, 50], "missing": [-9]})
    if number is not None:
        assert NUMBER.fullmatch(text) and number == float(text) and -50 <= number <= 50 and not problem
    else:
        unknown = text == "" or (NUMBER.fullmatch(text) and float(text) == -9)
        assert bool(problem) != bool(unknown)
    code, problem = read_value(cell, {"codes": {1: "M", 2: "F"}})
    assert (code, bool(problem)) in {("M", False), ("F", False), (None, False), (None, True)}
    if code:
        assert float(text) == {"M": 1, "F": 2}[code]
    subject, problem = read_value(cell, {"format": "S{:03d}"})
    if subject is not None:
        assert not problem and int(subject[1:]) == (int(text) if re.fullmatch("[+-]?[0-9]+", text) else float(text))
    else:
        assert bool(problem) == bool(text)
    for told in (read_value(cell, {"range": [0, 1]})[1], read_value(cell, {"pattern": "(x)"})[1]):
        assert "; " not in told


# --- the join ---

WAYS = ["{}", "{:03d}", " {}", "{}.0"]  # to write the number of a subject
AGES = ["20", "30.5", "4e1", "50", "", "-999", "n/a", "old", "300"]


@examples(30)
@given(
    rows=st.lists(st.tuples(st.integers(1, 8), st.sampled_from(WAYS), st.sampled_from(AGES), st.integers(1, 2)), max_size=12),
    images=st.sets(st.integers(1, 8), min_size=1),
    order=st.permutations(["ID", "AGE", "SEX", "REMARK"]),
    separator=st.sampled_from(",;"),
)
def test_a_scan_has_the_label_of_its_own_rows_or_a_problem(rows, images, order, separator):
    """Whatever the order of rows and columns, and however often a subject stands in the table."""
    columns = {
        "subject": {"from": "ID", "format": "S{:03d}"},
        "age": {"from": "AGE", "range": [5, 110], "missing": [-999], "required": True},
        "sex": {"from": "SEX", "codes": {1: "M", 2: "F"}, "required": True},
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in images:
            (folder / "images").mkdir(exist_ok=True)
            (folder / f"images/S{number:03d}.nii").write_text(f"image of {number}")
        with open(folder / "t.csv", "w", newline="") as stream:
            writer = csv.writer(stream, delimiter=separator)
            writer.writerow(order)
            for number, way, age, sex in rows:
                cells = {"ID": way.format(number), "AGE": age, "SEX": sex, "REMARK": "x, y; z"}
                writer.writerow([cells[column] for column in order])
        files = {"table": folder / "t.csv", "images": [folder / "images"], "pattern": r"(?P<subject>S\d+)\.nii"}
        try:
            organize(folder / "d/labels.csv", folder / "d/scans.csv", columns=columns, **files)
        except UserError as error:
            assert not rows or not images & {number for number, *_ in rows}, error
            return
        labels = read_labels(folder / "d/labels.csv").set_index("subject")
    assert set(labels.index) == {f"S{number:03d}" for number in images | {number for number, *_ in rows}}
    assert labels.index.is_unique
    for number in images:
        scan, own = labels.loc[f"S{number:03d}"], [row for row in rows if row[0] == number]
        ages = {float(age) for _, _, age, _ in own if age in AGES[:4]}
        odd = {age for _, _, age, _ in own} & {"old", "300"}
        known = len(ages) == 1 and not odd
        assert (scan["age"] == ages.pop()) if known else math.isnan(scan["age"])
        sexes = {sex for *_, sex in own}
        assert scan["sex"] == " MF"[sexes.pop()] if len(sexes) == 1 else pd.isna(scan["sex"])
        assert (scan["problem"] == "") == (known and scan["sex"] in ("M", "F"))
    assert usable(labels.reset_index(), "age").sum() <= len(images)


# --- images ---

SHAPE = (17, 18, 19)
WHOLE = nib.Nifti1Image(np.arange(math.prod(SHAPE), dtype=np.int16).reshape(SHAPE), np.diag([4, 4, 4, 1.0]))
WHOLE.set_qform(WHOLE.affine, 1)
CONTENT = WHOLE.to_bytes()
# Of the header's bytes, above all those of dim, datatype and bitpix, vox_offset, and the two transforms.
PLACES = st.integers(0, 351) | st.integers(40, 55) | st.integers(70, 73) | st.integers(108, 119) | st.integers(252, 327)
FLIPS = st.lists(st.tuples(PLACES, st.integers(0, 7)), max_size=3)
ODD = st.sampled_from([0, 1, -1, 3, 7, 255, 32767, math.nan, math.inf, 1e30])
WRITTEN = st.lists(st.tuples(st.sampled_from(list(WHOLE.header.keys())), ODD), max_size=2)  # a value in a field of the header


def corrupted(flips, fields, cut: int, appended: bytes) -> bytes:
    content = bytearray(CONTENT)
    header = nib.Nifti1Header(bytes(content[:348]), check=False)
    for field, value in fields:
        if header[field].dtype.kind in "iuf":
            with np.errstate(invalid="ignore", over="ignore"):
                header.structarr[field] = np.asarray(value).astype(header[field].dtype)
    content[:348] = header.binaryblock
    for place, bit in flips:
        content[place] ^= 1 << bit
    return bytes(content[: len(content) - cut]) + appended


def read_right_or_refuse(path: Path) -> None:
    assert isinstance(read_header(path)["fault"], str)
    try:
        scan = load_scan(path)
    except BadScan as error:
        assert str(error) and "\n" not in str(error)
        return
    # The axes may have been turned, for the header says how they lie.
    assert sorted(scan.data.shape) == sorted(SHAPE)
    assert np.isfinite(scan.affine).all() and np.isfinite(scan.data).all()
    assert scan.voxel_ml > 0


@pytest.mark.filterwarnings("ignore")
@examples(400)
@given(
    flips=FLIPS,
    fields=WRITTEN,
    cut=st.just(0) | st.integers(1, len(CONTENT)),
    appended=st.just(b"") | st.binary(max_size=20),
    suffix=st.sampled_from([".nii", ".nii.gz"]),
)
def test_a_corrupted_image_is_refused_or_has_its_shape(flips, fields, cut, appended, suffix, tmp_path):
    path = tmp_path / f"scan{suffix}"
    content = corrupted(flips, fields, cut, appended)
    path.write_bytes(gzip.compress(content, 1, mtime=0) if suffix == ".nii.gz" else content)
    read_right_or_refuse(path)


PACKED = gzip.compress(CONTENT, 1, mtime=0)


@pytest.mark.filterwarnings("ignore")
@examples(150)
@given(
    flips=st.lists(st.tuples(st.integers(0, len(PACKED) - 1), st.integers(0, 7)), max_size=3),
    cut=st.just(0) | st.integers(1, len(PACKED)),
    appended=st.just(b"") | st.binary(max_size=20),
)
def test_a_corrupted_gzip_file_is_refused_or_whole(flips, cut, appended, tmp_path):
    content = bytearray(PACKED)
    for place, bit in flips:
        content[place] ^= 1 << bit
    (tmp_path / "scan.nii.gz").write_bytes(bytes(content[: len(content) - cut]) + appended)
    read_right_or_refuse(tmp_path / "scan.nii.gz")
