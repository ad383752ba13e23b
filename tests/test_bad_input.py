"""What a user reads who brings something bad: for every kind of it the exact words, and never a traceback.

A case is an act and the text that it ends with: an error's, or what stands in the column `problem` of the scan. Paths
below the test's folder read {tmp} there, addresses of its web server {server}.
"""

import gzip
import io
import logging
import re
import socket
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import yaml

import mriflow.download
from conftest import ROOT, write_scan
from http_server import FileServer
from mriflow.base.errors import UserError
from mriflow.config.resolve import described_bids, read_yaml
from mriflow.download import download
from mriflow.images.find import find_images
from mriflow.images.nifti import BadScan, load_scan
from mriflow.images.ukb_zip import BRAIN, MATRIX, read_flirt
from mriflow.organize import organize
from mriflow.tables.labels import read_labels
from mriflow.tables.reader import pick_column, read_table
from mriflow.tables.ukb_table import read_fetched
from mriflow.ukbfetch import fetch
from test_config import resolved, written
from test_split import from_file, make_labels, six, write_parts
from test_ukbfetch import APPLICATION, PASSWORD, zipped

case = pytest.param
WEB_PAGE = b"<!DOCTYPE html>\n<html><body>Please log in</body></html>"
NAME = "S001-A-T1.nii.gz"
PATTERN = r"(?P<subject>S\d+)-(?P<site>\w+)-T1\.nii\.gz"
COLUMNS = {
    "subject": {"from": "ID", "format": "S{:03d}"},
    "age": {"from": "AGE", "range": [5, 110], "required": True, "unit": "years"},
    "sex": {"from": "SEX", "codes": {1: "M", 2: "F"}, "required": True},
    "height": {"from": "HEIGHT", "range": [120, 220], "missing": [0], "unit": "cm"},
}


@pytest.fixture(autouse=True)
def quick(monkeypatch, caplog):
    monkeypatch.setattr(mriflow.download, "PAUSE", 0)
    caplog.set_level(logging.INFO)


def told(act: Callable[[Path], str], folder: Path) -> str:
    """Return what the user reads of an act in a folder."""
    try:
        text = act(folder)
    except (UserError, BadScan) as error:
        text = str(error)
    return re.sub(r"http://127\.0\.0\.1:\d+", "{server}", text.replace(str(folder), "{tmp}"))


# --- scans ---

NII = nib.Nifti1Image(np.arange(16**3, dtype=np.int16).reshape(16, 16, 16), np.diag([4, 4, 4, 1.0])).to_bytes()
GZ = gzip.compress(NII, mtime=0)


def loaded(content: bytes, name: str = "scan.nii.gz") -> Callable:
    """Read a file of this content as a scan."""

    def act(folder):
        (folder / name).write_bytes(content)
        return str(load_scan(folder / name).data.shape)

    return act


def voxels(data: np.ndarray) -> Callable:
    """Read a scan of these voxels."""
    return loaded(nib.Nifti1Image(data, np.diag([4, 4, 4, 1.0])).to_bytes(), "scan.nii")


def header(**changes) -> Callable:
    """Read a scan whose header has these changes, written as they are."""
    content = bytearray(NII)
    changed = nib.Nifti1Header(bytes(content[:348]), check=False)
    for key, value in changes.items():
        changed[key] = value
    content[:348] = changed.binaryblock
    return loaded(bytes(content), "scan.nii")


def in_zip(**members: bytes) -> Callable:
    """Read a scan in a zip of UK Biobank with these members."""

    def act(folder):
        (folder / "1_20252_2_0.zip").write_bytes(zipped(members))
        return str(load_scan(folder / "1_20252_2_0.zip" / BRAIN).data.shape)

    return act


def spiked(value: float) -> np.ndarray:
    data = np.arange(16**3, dtype=np.float32).reshape(16, 16, 16)
    data[3, 3, 3] = value
    return data


DICOM = bytes(128) + b"DICM" + bytes(400)
CURE = "fslmaths SCAN -nan NEW makes them 0, or `stripped: true` if they surround a brain"
STORED = gzip.compress(NII, 0, mtime=0)  # not compressed, so that a change of a byte is one of the image
DAMAGED = NII[1000:1010], bytes(10)

SCANS = [
    case(
        loaded(GZ[: len(GZ) // 2]),
        "file is cut short or damaged (EOFError: Compressed file ended before the end-of-stream marker was reached)",
        id="gz cut in the middle",
    ),
    case(
        loaded(GZ[:-8] + b"\1\2\3\4" + GZ[-4:]),
        "file is cut short or damaged (BadGzipFile: CRC check failed 0x4030201 != 0xb34a2c2f)",
        id="gz with a wrong checksum",
    ),
    case(
        loaded(GZ[:-4] + b"\1\2\3\4"),
        "file is cut short or damaged (BadGzipFile: Incorrect length of data produced)",
        id="gz with a wrong length",
    ),
    case(
        loaded(GZ + b"more"),
        "file is cut short or damaged (BadGzipFile: Not a gzipped file b'mo')",
        id="gz with bytes after its end",
    ),
    case(
        loaded(STORED.replace(*DAMAGED)),
        f"file is cut short or damaged (BadGzipFile: CRC check failed 0xb34a2c2f != {zlib.crc32(NII.replace(*DAMAGED)):#x})",
        id="gz damaged inside",
    ),
    case(
        loaded(b"ID,AGE\n1,30\n"),
        "file is not compressed, though its name ends with .gz (an image? rename it to .nii)",
        id="text called nii.gz",
    ),
    case(
        loaded(gzip.compress(b"ID,AGE\n1,30\n" * 100, mtime=0)),
        "file is no NIfTI image, whatever its name says",
        id="text, compressed and called nii.gz",
    ),
    case(loaded(b"ID,AGE\n1,30\n" * 100, "scan.nii"), "file is no NIfTI image, whatever its name says", id="text called nii"),
    case(
        loaded(WEB_PAGE),
        "file is a web page, not an image (log in at its site and download it again)",
        id="web page called nii.gz",
    ),
    case(
        loaded(NII),
        "file is not compressed, though its name ends with .gz (an image? rename it to .nii)",
        id="nii called nii.gz",
    ),
    case(
        loaded(GZ, "scan.nii"),
        "file is compressed, though its name does not say so (rename it to .nii.gz)",
        id="nii.gz called nii",
    ),
    case(loaded(b""), "file is empty", id="empty file"),
    case(loaded(gzip.compress(b"", mtime=0)), "file is cut short (0 bytes, less than a header)", id="compressed nothing"),
    case(
        loaded(NII[:-100], "scan.nii"),
        "file does not fit its header (8444 bytes, expected 8544, cut short or damaged)",
        id="nii cut short",
    ),
    case(loaded(NII[:100], "scan.nii"), "file is cut short (100 bytes, less than a header)", id="nii cut within its header"),
    case(
        loaded(NII + bytes(100), "scan.nii"),
        "file is longer than its header says (8644 bytes, expected 8544, of another image or with something appended)",
        id="nii with bytes after its end",
    ),
    case(loaded(DICOM, "scan.nii"), "file is DICOM, not NIfTI (convert it with dcm2niix)", id="DICOM called nii"),
    case(loaded(DICOM), "file is DICOM, not NIfTI (convert it with dcm2niix)", id="DICOM called nii.gz"),
    case(lambda folder: str(load_scan(folder / "scan.nii.gz")), "no file", id="no file"),
    case(lambda folder: str(load_scan(folder)), "a folder, expected a NIfTI file", id="a folder"),
    case(voxels(np.zeros((16, 16, 16, 3), np.int16)), "image is not 3D (4 dimensions, 16x16x16x3)", id="4D"),
    case(voxels(np.zeros((256, 256), np.int16)), "image is not 3D (2 dimensions, 256x256)", id="2D"),
    case(
        voxels(np.zeros((64, 64, 5), np.int16)),
        "image is too small (64x64x5 voxels, expected at least 16 along each axis)",
        id="a slab",
    ),
    case(
        voxels(np.zeros((4, 4, 4), np.int16)),
        "image is too small (4x4x4 voxels, expected at least 16 along each axis)",
        id="tiny",
    ),
    case(voxels(spiked(np.nan)), f"image has voxels that are not a number (1, {CURE})", id="a voxel that is NaN"),
    case(voxels(spiked(np.inf)), f"image has voxels that are not a number (1, {CURE})", id="a voxel that is infinite"),
    case(voxels(np.full((16, 16, 16), 7, np.int16)), "image is constant (7 everywhere)", id="constant"),
    case(voxels(np.ones((16, 16, 16), np.complex64)), "its voxels are no plain numbers (complex64)", id="complex voxels"),
    case(
        voxels(np.ones((16, 16, 16), [("R", "u1"), ("G", "u1"), ("B", "u1")])),
        "its voxels are no plain numbers ([('R', 'u1'), ('G', 'u1'), ('B', 'u1')])",
        id="coloured voxels",
    ),
    case(header(srow_x=[0, 0, 0, 9]), "the affine of the header places no voxels", id="affine without a first axis"),
    case(header(srow_x=[np.nan, 0, 0, 0]), "the affine of the header places no voxels", id="affine with NaN"),
    case(header(srow_x=[1e30, 0, 0, 0]), "the affine of the header places no voxels", id="affine beyond all bounds"),
    case(
        header(dim=[3, 30000, 30000, 30000, 1, 1, 1, 1]), "its header tells of 30000x30000x30000 voxels", id="header of a giant"
    ),
    case(
        header(dim=[3, 512, 512, 512, 1, 1, 1, 1]),
        "file does not fit its header (8544 bytes, expected 268435808, cut short or damaged)",
        id="header of a large image, file of a small one",
    ),
    case(header(dim=[3, -16, -16, 16, 1, 1, 1, 1]), "its header tells of -16x-16x16 voxels", id="negative sizes"),
    case(header(dim=[0, 0, 0, 0, 0, 0, 0, 0]), "its header tells of 0 voxels", id="no dimensions"),
    case(
        header(datatype=9999),
        "file cannot be read (HeaderDataError: data code 9999 not recognized)",
        id="unknown type of voxels",
    ),
    case(
        header(vox_offset=np.nan),
        "file cannot be read (ValueError: cannot convert float NaN to integer)",
        id="offset that is no number",
    ),
    case(
        header(vox_offset=1e30),
        "file does not fit its header (8544 bytes, expected 1000000015047466219876688863232, cut short or damaged)",
        id="offset beyond all files",
    ),
    case(
        header(qform_code=1, sform_code=0, quatern_b=9),
        "file cannot be read (ValueError: w2 should be positive, but is -8.000000e+01)",
        id="quaternion that is none",
    ),
    case(header(magic=b"xyz"), "file is no NIfTI image, whatever its name says", id="no magic number"),
    case(
        in_zip(**{BRAIN: b"no gzip"}),
        "file cannot be read (BadGzipFile: Not a gzipped file b'no')",
        id="zip with a scan that is none",
    ),
    case(
        in_zip(**{BRAIN: GZ[:-4]}),
        "file cannot be read (EOFError: Compressed file ended before the end-of-stream marker was reached)",
        id="zip with a scan that was cut",
    ),
    case(
        in_zip(**{BRAIN: GZ, MATRIX: b"1 0 0\n"}),
        "{tmp}/1_20252_2_0.zip, its linear matrix: not a matrix of FLIRT, expected 4 rows of 4 numbers that can "
        "be inverted. Fetch it again",
        id="zip with a broken matrix",
    ),
    case(
        in_zip(**{BRAIN: GZ, "T1/unusable/T1.nii.gz": b""}),
        "{tmp}/1_20252_2_0.zip: scan: unusable (UK Biobank put it under T1/unusable). Leave it out",
        id="zip of an unusable scan",
    ),
    case(
        in_zip(**{"T1/T1.nii.gz": GZ}),
        "{tmp}/1_20252_2_0.zip: scan: no T1/T1_brain.nii.gz in the zip. Leave it out",
        id="zip without the brain",
    ),
    case(
        lambda folder: str(read_flirt(b"\xff\xfe", folder / "m.mat")),
        "{tmp}/m.mat: not a matrix of FLIRT, expected 4 rows of 4 numbers that can be inverted. Fetch it again.",
        id="matrix that is no text",
    ),
]

# --- tables ---


def table(content: str | bytes, name: str = "t.csv", **options) -> Callable:
    """Read a file of this content as a table."""

    def act(folder):
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
        return str(read_table(folder / name, **options).to_dict("list"))

    return act


def column(content: str, name: str) -> Callable:
    """Take the column `name` of a table."""

    def act(folder):
        (folder / "t.csv").write_text(content)
        return str(list(pick_column(read_table(folder / "t.csv"), name, folder / "t.csv")))

    return act


def excel(sheet=None, **sheets: list) -> Callable:
    """Read an Excel file with these sheets of rows."""

    def act(folder):
        with pd.ExcelWriter(folder / "t.xlsx") as book:
            for title, rows in sheets.items():
                pd.DataFrame(rows).to_excel(book, sheet_name=title, index=False, header=False)
        return str(read_table(folder / "t.xlsx", sheet).to_dict("list"))

    return act


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


TABLES = [
    case(
        lambda folder: str(read_table(folder / "t.csv")),
        "{tmp}/t.csv: no such table. Check the `table` of the dataset.",
        id="no such table",
    ),
    case(
        lambda folder: str(read_table(folder)),
        "{tmp}: a folder, not a table. Check the `table` of the dataset.",
        id="a folder for a table",
    ),
    case(
        table(""),
        "{tmp}/t.csv: the table is empty. Its first line has to name the columns, each further one is a row.",
        id="empty table",
    ),
    case(
        table("\n \n"),
        "{tmp}/t.csv: the table is empty. Its first line has to name the columns, each further one is a row.",
        id="table of blank lines",
    ),
    case(
        table("ID,AGE\n"),
        "{tmp}/t.csv: the table has no rows below line 1, which names the columns. Is it the whole table?",
        id="header alone",
    ),
    case(
        table("ID,AGE\n1,30\n", "t.pdf"),
        "{tmp}/t.pdf: a table must be .csv, .tsv, .xls, .xlsx, found .pdf. Save it as one.",
        id="another suffix",
    ),
    case(
        table("ID,AGE\n1,30\n", "table"),
        "{tmp}/table: a table must be .csv, .tsv, .xls, .xlsx, found no suffix. Save it as one.",
        id="no suffix",
    ),
    case(
        column("S1,F,30\nS2,M,40\n", "ID"),
        "{tmp}/t.csv: has no column 'ID'. It has: 'S1', 'F', '30'. The first line has to name the columns.",
        id="no header",
    ),
    case(
        column("# exported today\nID,AGE\n1,30\n", "ID"),
        "{tmp}/t.csv: line 2 has 2 cell(s), expected 1, for so many columns are named in line 1 (2 such "
        "line(s)). Name all columns there, leave no cell out, and put a text that holds the separator in quotes.",
        id="a remark above the header",
    ),
    case(
        column("ID,age\n1,30\n", "AGE"),
        "{tmp}/t.csv: has no column 'AGE'. Did you mean 'age'? It has: 'ID', 'age'. The first line has to name the columns.",
        id="column with other capitals",
    ),
    case(
        column("ID,AGES\n1,30\n", "AGE"),
        "{tmp}/t.csv: has no column 'AGE'. Did you mean 'AGES'? It has: 'ID', 'AGES'. The first line has to name the columns.",
        id="column with another name",
    ),
    case(
        table("ID,AGE,AGE\n1,30,31\n"),
        "{tmp}/t.csv: has two columns 'AGE'. Give one of them another name, or delete it.",
        id="column twice",
    ),
    case(
        table("ID,AGE, AGE\n1,30,31\n"),
        "{tmp}/t.csv: has two columns 'AGE'. Give one of them another name, or delete it.",
        id="column twice, with a blank",
    ),
    case(
        table("ID,AGE,SEX\n1,30,1\n2,40,2,7\n3,50,1\n4,60,1,,8\n"),
        "{tmp}/t.csv: line 3 has 4 cell(s), expected 3, for so many columns are named in line 1 (2 such "
        "line(s)). Name all columns there, leave no cell out, and put a text that holds the separator in quotes.",
        id="rows with more cells than the header",
    ),
    case(
        table("ID,AGE,SEX\n1,30,5,1\n2,40,5,2\n"),
        "{tmp}/t.csv: line 2 has 4 cell(s), expected 3, for so many columns are named in line 1 (2 such "
        "line(s)). Name all columns there, leave no cell out, and put a text that holds the separator in quotes.",
        id="decimal commas between commas",
    ),
    case(
        table("AGE,SEX\na,30,1\nb,40,2\n"),
        "{tmp}/t.csv: line 2 has 3 cell(s), expected 2, for so many columns are named in line 1 (2 such "
        "line(s)). Name all columns there, leave no cell out, and put a text that holds the separator in quotes.",
        id="header without the rows' names, as R writes it",
    ),
    case(
        table("ID,AGE,SEX\n1,30\n2,40,2\n"),
        "{tmp}/t.csv: line 2 has 2 cell(s), expected 3, for so many columns are named in line 1 (1 such "
        "line(s)). Name all columns there, leave no cell out, and put a text that holds the separator in quotes.",
        id="row with fewer cells",
    ),
    case(
        table("ID,AGE,SEX\n1,30,1\n2,4"),
        "{tmp}/t.csv: line 3 has 2 cell(s), expected 3, for so many columns are named in line 1 (1 such "
        "line(s)). It is the last line: was the file cut short? Name all columns there, leave no cell out, and "
        "put a text that holds the separator in quotes.",
        id="last line cut off",
    ),
    case(
        table("ID,AGE,SEX\n\n1,30,1\n\n2\n"),
        "{tmp}/t.csv: line 5 has 1 cell(s), expected 3, for so many columns are named in line 1 (1 such "
        "line(s)). It is the last line: was the file cut short? Name all columns there, leave no cell out, and "
        "put a text that holds the separator in quotes.",
        id="the line is that of the file, blank ones counted",
    ),
    case(
        table("ID,AGE,NOTE\n1,30,x\n2,40\n3\n", only=["ID", "AGE"]),
        "{tmp}/t.csv: line 4 has 1 cell(s), expected 3, for so many columns are named in line 1 (1 such "
        "line(s)). It is the last line: was the file cut short? Name all columns there, leave no cell out, and "
        "put a text that holds the separator in quotes.",
        id="row that ends before a column that is used",
    ),
    case(
        table("ID,AGE,NOTE,NOTE\n1,30,x,y\n2,40,,,5\n", only=["ID", "AGE"]),
        "{tmp}/t.csv: line 3 has 5 cell(s), expected 4, for so many columns are named in line 1 (1 such "
        "line(s)). It is the last line: was the file cut short? Name all columns there, leave no cell out, and "
        "put a text that holds the separator in quotes.",
        id="row that is too long, whatever columns are used",
    ),
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
    case(
        table("ID,AGE,NOTE,NOTE\n1,30,x,y\n", only=["ID", "AGE"]),
        "{'ID': ['1'], 'AGE': ['30']}",
        id="column twice that nobody uses",
    ),
    case(
        table("ID;AGE,y\n1;30,5\n2;40,5\n"),
        "{'ID': ['1', '2'], 'AGE,y': ['30,5', '40,5']}",
        id="semicolons that part as evenly as decimal commas",
    ),
    case(table("sep=|\r\nID|AGE\r\n1|30\r\n"), "{'ID': ['1'], 'AGE': ['30']}", id="Excel's line that tells the separator"),
    case(
        table("\ufeffsep=\t\nID\tAGE\n1\t30\t7\n"),
        "{tmp}/t.csv: line 3 has 3 cell(s), expected 2, for so many columns are named in line 2 (1 such "
        "line(s)). It is the last line: was the file cut short? Name all columns there, leave no cell out, and "
        "put a text that holds the separator in quotes.",
        id="lines are counted with that of the separator",
    ),
    case(
        table('ID, AGE, "NOTE"\n1, 30, "a, b"\n'),
        "{'ID': ['1'], 'AGE': ['30'], 'NOTE': ['a, b']}",
        id="quotation marks after a blank",
    ),
    case(
        table('ID,AGE\n"1,30\n2,40\n'),
        "{tmp}/t.csv: the row that begins in line 2 has a quotation mark out of place (unexpected end of data). "
        "Correct it, or save the table again.",
        id="quotation mark that is not closed",
    ),
    case(
        table('ID,AGE\n1,"30\n2,"40\n'),
        "{tmp}/t.csv: the row that begins in line 2 has a quotation mark out of place (',' expected after '\"'). "
        "Correct it, or save the table again.",
        id="quotation marks that swallow a line",
    ),
    case(table("ID\tAGE\n1\t30\n", "t.csv"), "{'ID': ['1'], 'AGE': ['30']}", id="tabs in a csv are read"),
    case(table("ID;AGE\n1;30,5\n", "t.csv"), "{'ID': ['1'], 'AGE': ['30,5']}", id="semicolons in a csv are read"),
    case(
        table("ID,AGE\n1,30\n", "t.tsv"),
        "{tmp}/t.tsv: its columns are parted by ',', those of a .tsv file by tabs. Rename it to .csv.",
        id="commas in a tsv",
    ),
    case(table("\ufeffID,AGE\n1,30\n"), "{'ID': ['1'], 'AGE': ['30']}", id="byte order mark is dropped"),
    case(
        table("ID,AGE\n1,30\n".encode("utf-16")),
        "{tmp}/t.csv: is no UTF-8 text (UTF-16, or no text at all). Save it again as 'CSV UTF-8'.",
        id="UTF-16",
    ),
    case(
        table("ID,AGE\n1,30\n".encode("utf-16-le")),
        "{tmp}/t.csv: is no UTF-8 text (UTF-16, or no text at all). Save it again as 'CSV UTF-8'.",
        id="UTF-16 without its mark",
    ),
    case(
        table("ID,SITE\n1,Köln\n2,Zürich\n".encode("latin-1")),
        "{tmp}/t.csv: line 2 is not UTF-8 text (found the byte 0xf6). Save it again as 'CSV UTF-8'.",
        id="Latin-1",
    ),
    case(
        table(WEB_PAGE),
        "{tmp}/t.csv: is a web page, not a table. If it was saved from a site, log in there and get it again; if "
        "a program wrote it as HTML, open it in a spreadsheet and save it as .xlsx or .csv.",
        id="web page called csv",
    ),
    case(
        table(WEB_PAGE, "t.xls"),
        "{tmp}/t.xls: is a web page, not a table. If it was saved from a site, log in there and get it again; if "
        "a program wrote it as HTML, open it in a spreadsheet and save it as .xlsx or .csv.",
        id="web page called xls",
    ),
    case(
        table("ID,AGE\n1,30\n", "t.xls"),
        "{tmp}/t.xls: is no Excel file (it begins with b'ID,AGE\\n1,30\\n'). If it is text, call it .csv; else "
        "open it in a spreadsheet and save it as .xlsx or .csv.",
        id="csv called xls",
    ),
    case(
        table("", "t.xlsx"),
        "{tmp}/t.xlsx: is no Excel file (it begins with b''). If it is text, call it .csv; else open it in a "
        "spreadsheet and save it as .xlsx or .csv.",
        id="empty xlsx",
    ),
    case(
        table(zipped({"a.txt": b"no sheet"}), "t.xlsx"),
        "{tmp}/t.xlsx: cannot be read as an Excel file (no workbook in it). Get it again, or open it in a "
        "spreadsheet and save it as .xlsx or .csv.",
        id="zip called xlsx",
    ),
    case(
        excel("Data", Sheet1=[["ID"], [1]], Notes=[["x"]]),
        "{tmp}/t.xlsx: has no sheet 'Data'. It has: 'Sheet1', 'Notes'. Correct the `sheet` of the dataset.",
        id="sheet that there is not",
    ),
    case(
        excel(Data=[["ID", "AGE", "AGE"], [1, 2, 3]]),
        "{tmp}/t.xlsx: has two columns 'AGE'. Give one of them another name, or delete it.",
        id="Excel column twice",
    ),
    case(
        excel(Data=[["ID", "AGE"]]),
        "{tmp}/t.xlsx: the table has no rows below line 1, which names the columns. Is it the whole table?",
        id="Excel header alone",
    ),
    case(
        column('"Table 1",\nID,AGE\n1,30\n', "ID"),
        "{tmp}/t.csv: has no column 'ID'. It has: 'Table 1'. The first line has to name the columns.",
        id="a title above the header",
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
    case(
        joined("7,30,1,170\n8,30,1,170\n"),
        "{tmp}/t.csv: none of its 2 subject(s) has an image. It has such as 'S007', 'S008', the names of the "
        "images such as 'S001'. Make them alike: by the `format` of the column subject (S{:03d} makes S007 of 7, "
        "also where a spreadsheet lost the zeros), by its `pattern`, or by the `pattern` of the images.",
        id="subjects of whom none has an image",
    ),
    case(
        joined("1,30,1,170\n100,40,2,160\n", NAME, "S100-A-T1.nii.gz", columns=COLUMNS | {"subject": {"from": "ID"}}),
        "{tmp}/t.csv: none of its 2 subject(s) has an image. It has such as '1', '100', the names of the images "
        "such as 'S001', 'S100'. Make them alike: by the `format` of the column subject (S{:03d} makes S007 of "
        "7, also where a spreadsheet lost the zeros), by its `pattern`, or by the `pattern` of the images.",
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
        with_paths("scan.dcm,a,30\n"), "scan: not a NIfTI file (scan.dcm, expected .nii or .nii.gz)", id="path of a DICOM file"
    ),
    case(with_paths("empty.nii,a,30\n"), "scan: file is empty (empty.nii)", id="path of an empty file"),
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

# --- archives and folders of images ---


def archive(*entries: tarfile.TarInfo | str, cut: slice = slice(None), name: str = "a.tar") -> Callable:
    """Take the images of a tar archive with these entries."""

    def act(folder):
        with tarfile.open(folder / name, "w:gz" if name.endswith("gz") else "w") as tar:
            for entry in entries:
                info = entry if isinstance(entry, tarfile.TarInfo) else tarfile.TarInfo(entry)
                content = GZ if info.isreg() else b""
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        (folder / name).write_bytes((folder / name).read_bytes()[cut])
        found = find_images([folder / name], PATTERN, folder / "unpacked")
        assert not (folder.parent / NAME).exists()
        return ", ".join(found["id"])

    return act


def entry(kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(NAME)
    info.type, info.linkname = kind, target
    return info


def file(content: bytes, name: str = "a.tar") -> Callable:
    """Take the images of a file that is no archive."""

    def act(folder):
        (folder / name).write_bytes(content)
        return str(find_images([folder / name], PATTERN, folder / "unpacked"))

    return act


def images(*files: tuple[str, bytes], pattern: str = r"(?P<subject>S\d+)\.(hdr|nii)", affine=None) -> Callable:
    """Take the images of a folder; return the first problem that a scan has."""

    def act(folder):
        for name, content in files:
            (folder / "scans" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "scans" / name).write_bytes(content)
        labels, scans = folder / "data/labels.csv", folder / "data/scans.csv"
        columns = {"subject": {"from": "subject"}}
        found = organize(labels, scans, images=[folder / "scans"], pattern=pattern, affine=affine, columns=columns)
        return found.sort_values("problem", ascending=False)["problem"].iloc[0]

    return act


def analyze() -> tuple[bytes, bytes]:
    """Return header and voxels of an Analyze image."""
    scan = nib.AnalyzeImage(np.zeros((16, 16, 16), np.int16), np.eye(4))
    files = {kind: io.BytesIO() for kind in ("header", "image")}
    scan.to_file_map({kind: nib.FileHolder(fileobj=stream) for kind, stream in files.items()})
    return files["header"].getvalue(), files["image"].getvalue()


HDR, IMG = analyze()

ARCHIVES = [
    case(
        archive(NAME, cut=slice(700)),
        "{tmp}/a.tar: broken or no tar archive (it ends too early). Delete it and download it again.",
        id="tar cut short",
    ),
    case(
        archive(NAME, "S002-A-T1.nii.gz", cut=slice(-8192)),
        "{tmp}/a.tar: broken or no tar archive (it ends too early). Delete it and download it again.",
        id="tar without its end",
    ),
    case(
        archive(NAME, name="a.tar.gz", cut=slice(-20)),
        "{tmp}/a.tar.gz: broken or no tar archive (Compressed file ended before the end-of-stream marker was "
        "reached). Delete it and download it again.",
        id="tar.gz cut short",
    ),
    case(
        archive(f"../{NAME}"),
        "{tmp}/a.tar: refused, for its entry '../S001-A-T1.nii.gz' is unsafe (name that leads outside). Get it "
        "from its publisher.",
        id="name that leads outside",
    ),
    case(
        archive(f"a/../../{NAME}"),
        "{tmp}/a.tar: refused, for its entry 'a/../../S001-A-T1.nii.gz' is unsafe (name that leads outside). Get "
        "it from its publisher.",
        id="name that leads outside, hidden",
    ),
    case(archive(f"/etc/{NAME}"), "S001-A-T1", id="absolute name, made harmless"),
    case(
        archive(entry(tarfile.SYMTYPE, "/etc/passwd")),
        "{tmp}/a.tar: refused, for its entry 'S001-A-T1.nii.gz' is unsafe (link that leads outside). Get it from "
        "its publisher.",
        id="link to outside",
    ),
    case(
        archive(entry(tarfile.SYMTYPE, "b.nii.gz")),
        "{tmp}/a.tar: S001-A-T1.nii.gz is a link, not an image. Get the archive from its publisher.",
        id="link within",
    ),
    case(
        archive(entry(tarfile.LNKTYPE, "../b.nii.gz")),
        "{tmp}/a.tar: refused, for its entry 'S001-A-T1.nii.gz' is unsafe (link that leads outside). Get it from "
        "its publisher.",
        id="hard link to outside",
    ),
    case(
        archive(entry(tarfile.CHRTYPE)),
        "{tmp}/a.tar: refused, for its entry 'S001-A-T1.nii.gz' is unsafe (special file). Get it from its publisher.",
        id="device",
    ),
    case(
        archive(entry(tarfile.FIFOTYPE)),
        "{tmp}/a.tar: refused, for its entry 'S001-A-T1.nii.gz' is unsafe (special file). Get it from its publisher.",
        id="pipe",
    ),
    case(
        archive("readme.txt"),
        "{tmp}/a.tar: no images in it (.nii, .nii.gz, .hdr). Check the `images` of the dataset.",
        id="archive without images",
    ),
    case(
        archive("wrong.nii.gz"),
        "{tmp}/a.tar: none of its 1 images has a name that fits the `pattern` "
        "'(?P<subject>S\\\\d+)-(?P<site>\\\\w+)-T1\\\\.nii\\\\.gz' of the dataset; the first is 'wrong.nii.gz'. Correct "
        "the `pattern`.",
        id="archive of images with other names",
    ),
    case(
        archive(f"a/{NAME}", f"b/{NAME}"),
        "{tmp}/a.tar: holds two images of the name 'S001-A-T1.nii.gz', in different folders. Unpack it by hand "
        "and give the folder.",
        id="two images of one name",
    ),
    case(
        file(zipped({NAME: GZ})),
        "{tmp}/a.tar: is zip, expected .tar or .tar.gz. Unpack it and give the folder.",
        id="zip for a tar",
    ),
    case(
        file(b"7z\xbc\xaf\x27\x1c" + bytes(99)),
        "{tmp}/a.tar: is 7z, expected .tar or .tar.gz. Unpack it and give the folder.",
        id="7z for a tar",
    ),
    case(
        file(b"\xfd7zXZ\0" + bytes(99), "a.tar.xz"),
        "{tmp}/a.tar.xz: is xz, expected .tar or .tar.gz. Unpack it and give the folder.",
        id="xz",
    ),
    case(
        file(WEB_PAGE),
        "{tmp}/a.tar: is a web page, not an archive. Log in at the site, delete it and download it again.",
        id="web page for a tar",
    ),
    case(
        file(WEB_PAGE, "a.tar.gz"),
        "{tmp}/a.tar.gz: is a web page, not an archive. Log in at the site, delete it and download it again.",
        id="web page for a tar.gz",
    ),
    case(file(b""), "{tmp}/a.tar: the file is empty. Delete it and download it again.", id="empty file for a tar"),
    case(
        file(GZ, NAME),
        "{tmp}/S001-A-T1.nii.gz: is an image, not an archive. Give the folder that it is in as `images`.",
        id="an image for an archive",
    ),
    case(
        file(b"no archive" * 200),
        "{tmp}/a.tar: broken or no tar archive (it ends too early). Delete it and download it again.",
        id="text for a tar",
    ),
    case(
        lambda folder: str(find_images([folder / "a.tar"], PATTERN, folder)),
        "{tmp}/a.tar: no such archive or folder of images. Check the `images` (or `bids`) of the dataset.",
        id="no archive",
    ),
    case(
        lambda folder: str(find_images([folder], PATTERN, folder)),
        "{tmp}: no images in it (.nii, .nii.gz, .hdr). Check the `images` of the dataset.",
        id="folder without images",
    ),
    case(
        images(("IM0001", DICOM)),
        "{tmp}/scans: no images in it (.nii, .nii.gz, .hdr). Check the `images` of the dataset. "
        "{tmp}/scans/IM0001 is DICOM: make NIfTI files of it first, with dcm2niix "
        "(https://github.com/rordenlab/dcm2niix): dcm2niix -z y -o nifti FOLDER.",
        id="folder of DICOM files",
    ),
    case(
        images(("a/1.dcm", b"")),
        "{tmp}/scans: no images in it (.nii, .nii.gz, .hdr). Check the `images` of the dataset. "
        "{tmp}/scans/a/1.dcm is DICOM: make NIfTI files of it first, with dcm2niix "
        "(https://github.com/rordenlab/dcm2niix): dcm2niix -z y -o nifti FOLDER.",
        id="folder of files called dcm",
    ),
    case(
        images(("S1.hdr", HDR), ("S1.img", IMG)),
        "{tmp}/scans/S1.hdr: the header of an Analyze image does not say how it is oriented. Give the dataset's "
        "`affine` (4 x 4, voxel to RAS+ mm).",
        id="Analyze image without a given orientation",
    ),
    case(
        images(("S1.hdr", HDR), affine=np.eye(4)),
        "scan: Analyze image cannot be read (S1.hdr, no .img beside it)",
        id="Analyze header without its voxels",
    ),
    case(
        images(("S1.hdr", HDR), ("S1.img", IMG[:99]), affine=np.eye(4)),
        "scan: Analyze image cannot be read (S1.hdr, it is damaged)",
        id="Analyze image cut short",
    ),
    case(
        images(("S1.hdr", b""), ("S1.img", IMG), affine=np.eye(4)),
        "scan: Analyze image cannot be read (S1.hdr, it is damaged)",
        id="Analyze image with an empty header",
    ),
    case(images(("S1.nii", NII), ("S2.nii", NII)), "scan: same image as another subject (S2)", id="one image of two subjects"),
    case(images(("S1.nii", NII), ("S2.nii", b"")), "scan: file is empty (S2.nii)", id="an empty file among images"),
]

# --- servers ---


def asked(content: bytes = b"x" * 5000, path: str = "a.tar", known=None, **behaviour) -> Callable:
    """Download a file from a server that answers so."""

    def act(folder):
        (folder / "served").mkdir()
        (folder / "served/a.tar").write_bytes(content)
        with FileServer(folder / "served") as server:
            server.misbehave("a.tar", **behaviour)
            download(folder / "resources/a.tar", urls=[server.url(path)], attempts=2, **(known or {}))
        return "downloaded"

    return act


def nobody_listens(folder: Path) -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    try:
        download(folder / "a.tar", urls=[f"http://127.0.0.1:{port}/a.tar"], attempts=1)
    except UserError as error:
        raise UserError(str(error).replace(str(port), "PORT")) from error
    return "downloaded"


def address(url: str, **known) -> Callable:
    return lambda folder: str(download(folder / "a.tar", urls=[url], **known))


SERVERS = [
    case(
        asked(path="b.tar"),
        "could not download {tmp}/resources/a.tar:\n"
        "  {server}/b.tar: the server answered 404 Not Found\n"
        "Check the network (compute nodes of a cluster often have none) and the addresses, and run the same "
        "command again: it goes on from what has come. Or download it by hand and put it at "
        "{tmp}/resources/a.tar.",
        id="404",
    ),
    case(
        asked(status=403),
        "could not download {tmp}/resources/a.tar:\n"
        "  {server}/a.tar: the server answered 403 Forbidden\n"
        "Check the network (compute nodes of a cluster often have none) and the addresses, and run the same "
        "command again: it goes on from what has come. Or download it by hand and put it at "
        "{tmp}/resources/a.tar.",
        id="403",
    ),
    case(
        asked(status=500),
        "could not download {tmp}/resources/a.tar:\n"
        "  {server}/a.tar: the server answered 500 Internal Server Error (attempts in a row without progress: 2)\n"
        "Check the network (compute nodes of a cluster often have none) and the addresses, and run the same "
        "command again: it goes on from what has come. Or download it by hand and put it at "
        "{tmp}/resources/a.tar.",
        id="500",
    ),
    case(
        asked(drop_at=0.4),
        "could not download {tmp}/resources/a.tar:\n"
        "  {server}/a.tar: the connection broke off (IncompleteRead(0 bytes read, 3000 more expected)) (attempts "
        "in a row without progress: 2)\n"
        "Check the network (compute nodes of a cluster often have none) and the addresses, and run the same "
        "command again: it goes on from what has come. Or download it by hand and put it at "
        "{tmp}/resources/a.tar.",
        id="connection dropped",
    ),
    case(
        asked(known={"size": 6000}),
        "could not download {tmp}/resources/a.tar:\n"
        "  {server}/a.tar: the file there is 5000 bytes long, expected 6000\n"
        "Check the network (compute nodes of a cluster often have none) and the addresses, and run the same "
        "command again: it goes on from what has come. Or download it by hand and put it at "
        "{tmp}/resources/a.tar.",
        id="another length than expected",
    ),
    case(
        asked(length=False, known={"size": 6000}),
        "could not download {tmp}/resources/a.tar:\n"
        "  {server}/a.tar: what it sent for {tmp}/resources/a.tar is 5000 bytes long, expected 6000. It was "
        "deleted. If the publisher replaced the file and you trust the new one, give its own md5 and size\n"
        "Check the network (compute nodes of a cluster often have none) and the addresses, and run the same "
        "command again: it goes on from what has come. Or download it by hand and put it at "
        "{tmp}/resources/a.tar.",
        id="another length, not told before",
    ),
    case(
        asked(known={"md5": ["0" * 32]}),
        "could not download {tmp}/resources/a.tar:\n"
        "  {server}/a.tar: what it sent for {tmp}/resources/a.tar has md5 a6bb7bde3251ca2d810d32dadd9e8ae7, "
        "expected 00000000000000000000000000000000. It was deleted. If the publisher replaced the file and you "
        "trust the new one, give its own md5 and size\n"
        "Check the network (compute nodes of a cluster often have none) and the addresses, and run the same "
        "command again: it goes on from what has come. Or download it by hand and put it at "
        "{tmp}/resources/a.tar.",
        id="another checksum",
    ),
    case(
        asked(login_page="text/html"),
        "could not download {tmp}/resources/a.tar:\n"
        "  {server}/a.tar: a web page came instead of the file: probably the login page of a network (captive "
        "portal) or of the site. Open the address in a browser, log in or accept the terms, then run the same "
        "command again\n"
        "Check the network (compute nodes of a cluster often have none) and the addresses, and run the same "
        "command again: it goes on from what has come. Or download it by hand and put it at "
        "{tmp}/resources/a.tar.",
        id="login page in place of the file",
    ),
    case(
        asked(login_page="application/x-tar"),
        "could not download {tmp}/resources/a.tar:\n"
        "  {server}/a.tar: a web page came instead of the file: probably the login page of a network (captive "
        "portal) or of the site. Open the address in a browser, log in or accept the terms, then run the same "
        "command again\n"
        "Check the network (compute nodes of a cluster often have none) and the addresses, and run the same "
        "command again: it goes on from what has come. Or download it by hand and put it at "
        "{tmp}/resources/a.tar.",
        id="login page that calls itself tar",
    ),
    case(
        asked(b"", known={"size": 6000}),
        "could not download {tmp}/resources/a.tar:\n"
        "  {server}/a.tar: the file there is 0 bytes long, expected 6000\n"
        "Check the network (compute nodes of a cluster often have none) and the addresses, and run the same "
        "command again: it goes on from what has come. Or download it by hand and put it at "
        "{tmp}/resources/a.tar.",
        id="empty answer",
    ),
    case(
        nobody_listens,
        "could not download {tmp}/a.tar:\n"
        "  http://127.0.0.1:PORT/a.tar: HTTPConnection(host='127.0.0.1', port=PORT): Failed to establish a new "
        "connection: [Errno 111] Connection refused (attempts in a row without progress: 1)\n"
        "Check the network (compute nodes of a cluster often have none) and the addresses, and run the same "
        "command again: it goes on from what has come. Or download it by hand and put it at {tmp}/a.tar.",
        id="no network",
    ),
    case(
        address("ftp://127.0.0.1/a.tar"),
        "cannot download {tmp}/a.tar from 'ftp://127.0.0.1/a.tar': expected an address that begins http:// or https://",
        id="address that is not http",
    ),
    case(
        address("http://127.0.0.1/a.tar", md5=["1234"]),
        "the md5 given for {tmp}/a.tar is '1234'; expected 32 hexadecimal digits",
        id="checksum that is none",
    ),
]

# --- BIDS ---

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
        "{tmp}/bids: no images in it (.nii, .nii.gz, .hdr). Check the `images` of the dataset.",
        id="BIDS without images",
    ),
    case(
        bids(names=("sub-01/anat/sub-01_T2w.nii.gz",)),
        "{tmp}/bids: none of its 1 images, such as 'sub-01_T2w.nii.gz', is meant. Correct the `ignore` of the "
        "dataset, '.*(?<!_T1w)\\\\.nii(\\\\.gz)?'.",
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
        bids("participant_id\tage\tsex\n01\t30\tM\n"),
        "{tmp}/bids/participants.tsv: none of its 1 subject(s) has an image. It has such as '01', the names of "
        "the images such as 'sub-01'. Make them alike: by the `format` of the column subject (S{:03d} makes S007 "
        "of 7, also where a spreadsheet lost the zeros), by its `pattern`, or by the `pattern` of the images.",
        id="participants without sub-",
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
        bids(described='{"sex": {"Levels": {"m": "male"}}}'),
        "sex: unknown code ('M', expected m)",
        id="a level that is not described",
    ),
]

# --- UK Biobank: key, bulk file, table ---

BULK = "1002532 20252_2_0\n"


def key(content: str | None, mode: int = 0o600, bulk: str = BULK, **options) -> Callable:
    """Fetch a scan with a key file of this content, or a folder in its place (None)."""

    def act(folder):
        file = folder / ".ukbkey"
        file.mkdir() if content is None else file.write_text(content)
        file.chmod(mode)
        (folder / "ukb.bulk").write_text(bulk)
        given = {"bulk": folder / "ukb.bulk", "zips": folder / "zips", "key": file, "program": "no-such-ukbfetch"} | options
        return str(fetch(folder / "fetched.csv", **given))

    return act


def participants(text: str, columns: dict | None = None) -> Callable:
    """Join a scan of participant 11 at instance 2 with a table of UK Biobank."""

    def act(folder):
        (folder / "1.zip").write_bytes(zipped({BRAIN: GZ}))
        rows = {"eid": "11", "field": "20252", "instance": "2", "array": "0", "path": f"1.zip/{BRAIN}", "problem": ""}
        pd.DataFrame([rows | {"fingerprint": "f"}]).to_csv(folder / "fetched.csv", index=False)
        (folder / "ukb.csv").write_text(text)
        own = yaml.safe_load((ROOT / "config/datasets/ukb.yaml").read_text())["columns"]
        files = {"table": folder / "ukb.csv", "fetched": folder / "fetched.csv"}
        return organize(folder / "l.csv", folder / "s.csv", columns=columns or own, **files)["problem"].iloc[0]

    return act


BIOBANK = [
    case(
        key(f"{APPLICATION}\n{PASSWORD}\n", 0o640),
        "{tmp}/.ukbkey: the key file is open to others (mode 640), expected its owner alone. Run: chmod 600 {tmp}/.ukbkey",
        id="key open to the group",
    ),
    case(
        key(f"{APPLICATION}\n{PASSWORD}\n", 0o604),
        "{tmp}/.ukbkey: the key file is open to others (mode 604), expected its owner alone. Run: chmod 600 {tmp}/.ukbkey",
        id="key open to others",
    ),
    case(
        key(""),
        "{tmp}/.ukbkey: found 0 lines, expected two: the number of the application, then the password. Save it "
        "again from UK Biobank's e-mail.",
        id="empty key",
    ),
    case(
        key(f"{PASSWORD}\n"),
        "{tmp}/.ukbkey: found 1 lines, expected two: the number of the application, then the password. Save it "
        "again from UK Biobank's e-mail.",
        id="key of one line",
    ),
    case(
        key(f"{PASSWORD}\n{APPLICATION}\n"),
        "{tmp}/.ukbkey: found 2 lines, expected two: the number of the application, then the password. Save it "
        "again from UK Biobank's e-mail.",
        id="key with its lines exchanged",
    ),
    case(
        key(f"{APPLICATION}\n{PASSWORD}\n{PASSWORD}\n"),
        "{tmp}/.ukbkey: found 3 lines, expected two: the number of the application, then the password. Save it "
        "again from UK Biobank's e-mail.",
        id="key of three lines",
    ),
    case(
        key(f"{APPLICATION}\n{PASSWORD[:9]} {PASSWORD[9:]}\n"),
        "{tmp}/.ukbkey: found 2 lines, expected two: the number of the application, then the password. Save it "
        "again from UK Biobank's e-mail.",
        id="key with a blank in the password",
    ),
    case(
        key(None, 0o700),
        "{tmp}/.ukbkey: a folder, not a key file. 1 of the 1 zips for {tmp}/ukb.bulk are missing or cut in "
        "{tmp}/zips, first 1002532_20252_2_0.zip. UK Biobank sent it by e-mail; or put the zips there yourself.",
        id="folder for a key",
    ),
    case(
        key("", key=None),
        "1 of the 1 zips for {tmp}/ukb.bulk are missing or cut in {tmp}/zips, first 1002532_20252_2_0.zip. Give "
        "--key, the key file (.ukbkey) that UK Biobank sent, or put the zips there yourself.",
        id="no key given",
    ),
    case(
        key("", key=Path("/no/such/key")),
        "/no/such/key: no such key file, or not yours. 1 of the 1 zips for {tmp}/ukb.bulk are missing or cut in "
        "{tmp}/zips, first 1002532_20252_2_0.zip. UK Biobank sent it by e-mail; or put the zips there yourself.",
        id="no such key",
    ),
    case(
        key(f"{APPLICATION}\n{PASSWORD}\n"),
        "no-such-ukbfetch: no such program. 1 of the 1 zips for {tmp}/ukb.bulk are missing or cut in {tmp}/zips, "
        "first 1002532_20252_2_0.zip. Get ukbfetch from https://biobank.ndph.ox.ac.uk/showcase/download.cgi, "
        "make it executable (chmod +x) and give its path as --program. Zips that you have already do as well: "
        "put them into {tmp}/zips.",
        id="no ukbfetch",
    ),
    case(
        key("", calls=11),
        "--calls 11: UK Biobank allows at most 10 calls at once for one application; give 1 to 10.",
        id="too many calls at once",
    ),
    case(
        key("", bulk=""),
        "{tmp}/ukb.bulk: the bulk file has no lines; make it with: ukbconv ukb.enc_ukb bulk -s20252",
        id="empty bulk file",
    ),
    case(
        key("", bulk="1002532 20252_2_0\n\n1002533\n"),
        "{tmp}/ukb.bulk, line 3: found '1002533', expected a participant and a data file like '1002532 "
        "20252_2_0'. Correct it, or make it with: ukbconv ukb.enc_ukb bulk -s20252",
        id="bulk line without a data file",
    ),
    case(
        key("", bulk="eid,field\n"),
        "{tmp}/ukb.bulk, line 1: found 'eid,field', expected a participant and a data file like '1002532 "
        "20252_2_0'. Correct it, or make it with: ukbconv ukb.enc_ukb bulk -s20252",
        id="table for a bulk file",
    ),
    case(
        key("", bulk="../../x 20252_2_0\n"),
        "{tmp}/ukb.bulk, line 1: found '../../x 20252_2_0', expected a participant and a data file like '1002532 "
        "20252_2_0'. Correct it, or make it with: ukbconv ukb.enc_ukb bulk -s20252",
        id="bulk line that leads outside",
    ),
    case(
        participants("eid,31-0.0,21003-2.0\n11,7,60\n"),
        "sex: unknown code ('7', expected 0 or 1)",
        id="code of UK Biobank that there is not",
    ),
    case(
        participants("eid,31-0.0,21003-2.0\n11,0,60\n11,0,61\n"), "age: contradictory (60, 61)", id="participant with two ages"
    ),
    case(
        participants("eid,31-0.0\n11,0\n"),
        "{tmp}/ukb.csv: has no column '21003-2.0'. It has: 'eid', '31-0.0'. The first line has to name the columns.",
        id="table without the age at the scan",
    ),
    case(
        participants("eid,31-0.0,21003-2.0\n12,0,60\n"),
        "{tmp}/ukb.csv: none of its 1 participant(s) is in the bulk file. It has such as '12', the bulk file "
        "'11'. Are the two of one application?",
        id="table of other participants",
    ),
]

# --- config ---


def config(text: str) -> Callable:
    """Resolve the shipped config with this one over it."""
    return lambda folder: str(resolved(written(folder, text))["run"])


def yaml_file(text: str) -> Callable:
    """Read a file of the config."""
    return lambda folder: str(read_yaml(written(folder, text)))


CONFIGS = [
    case(
        config("splits: {three-fold: {fold: 3}}"),
        "{tmp}/mine.yaml: splits.three-fold.fold: unknown key; did you mean 'folds'? Allowed: file, folds, "
        "method, seed, stratify, validation",
        id="unknown key",
    ),
    case(
        config("training: {short: {learning_rate: 4e-3}}"),
        "{tmp}/mine.yaml: training.short.learning_rate: found '4e-3' (text), expected a number above 0; write "
        "0.004 without quotes (YAML takes 4e-3 for text)",
        id="4e-3, which YAML takes for text",
    ),
    case(
        config("training: {short: {epochs: '10'}}"),
        "{tmp}/mine.yaml: training.short.epochs: found '10' (text), expected a whole number of at least 1; write "
        "10 without quotes (YAML takes 4e-3 for text)",
        id="number in quotes",
    ),
    case(
        config("experiments: {demo-age: {dataset: iix}}"),
        "{tmp}/mine.yaml: experiments.demo-age.dataset: found 'iix', which is not in `datasets`; did you mean "
        "'ixi'? Allowed: demo, ixi, ixi-mra, ixi-pd, ixi-t2, oasis, ukb",
        id="dataset that there is not",
    ),
    case(
        config("run: [demo-aeg]"),
        "{tmp}/mine.yaml: run: found 'demo-aeg', which is no experiment; did you mean 'demo-age'? Allowed: demo-age, demo-sex",
        id="experiment that there is not",
    ),
    case(
        config("datasets: {dmeo: {shards: 2}}"),
        "{tmp}/mine.yaml: datasets.dmeo: there is no config/datasets/dmeo.yaml to change; did you mean 'demo'? "
        "Allowed: demo, ixi, ixi-mra, ixi-pd, ixi-t2, oasis, ukb\n"
        "{tmp}/mine.yaml: datasets.dmeo.title: missing, expected text, for example IXI\n"
        "{tmp}/mine.yaml: datasets.dmeo.columns: missing, expected a block of keys, for example {subject: {from: "
        "ID}, age: {from: AGE, unit: years, range: [5, 110], required: true}}",
        id="change of a dataset that there is not",
    ),
    case(
        yaml_file("training:\n  short: {epochs: 3}\n  short: {epochs: 9}\n"),
        "{tmp}/mine.yaml: not valid YAML: the key 'short' stands twice\n"
        '  in "<unicode string>", line 3, column 3:\n'
        "      short: {epochs: 9}\n"
        "      ^",
        id="key twice",
    ),
    case(
        yaml_file("run: [demo-age"),
        "{tmp}/mine.yaml: not valid YAML: while parsing a flow sequence\n"
        '  in "<unicode string>", line 1, column 6:\n'
        "    run: [demo-age\n"
        "         ^\n"
        "expected ',' or ']', but got '<stream end>'\n"
        '  in "<unicode string>", line 1, column 15:\n'
        "    run: [demo-age\n"
        "                  ^",
        id="YAML that is none",
    ),
    case(yaml_file("- run\n"), "{tmp}/mine.yaml: found ['run'], expected a block of keys", id="a list for a config"),
    case(
        yaml_file("run:\n\t- demo-age\n"),
        "{tmp}/mine.yaml: not valid YAML: while scanning for the next token\n"
        "found character '\\t' that cannot start any token\n"
        '  in "<unicode string>", line 2, column 1:\n'
        "    \t- demo-age\n"
        "    ^",
        id="tab in YAML",
    ),
    case(
        config("datasets: {demo: {columns: {age: {pattern: '[0-9]+'}}}}"),
        "{tmp}/mine.yaml: datasets.demo.columns.age.pattern: found '[0-9]+' with 0 groups, expected one, (...), "
        "that is the value",
        id="pattern without a group",
    ),
]

# --- splits ---


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
        splits(six(part=["train"] * 5 + ["test"])),
        "{tmp}/mine.csv: has no validation part. Every fold needs one for train, validation and test.",
        id="no validation",
    ),
    case(
        splits(
            {name: column * 2 for name, column in six(fold=[0] * 6).items()}
            | {"fold": [0] * 6 + [1] * 6, "part": [*six()["part"], *["train"] * 5, "val"]}
        ),
        "{tmp}/mine.csv: fold 1 has no test part. Every fold needs one for train, validation and test.",
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
        splits({"id": [*(f"s{i}-0" for i in range(6)), "s3-0"], "part": [*six()["part"], "validation"]}),
        "{tmp}/mine.csv: leak: 1 id(s) stand in more than one part: s3-0 (train, validation). Who is trained on "
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

GROUPS = {
    "scan": SCANS,
    "table": TABLES,
    "archive": ARCHIVES,
    "server": SERVERS,
    "bids": BIDS_SETS,
    "biobank": BIOBANK,
    "config": CONFIGS,
    "split": SPLITS,
}
CASES = [case(*one.values, id=f"{group}: {one.id}") for group, cases in GROUPS.items() for one in cases]  # noqa: PD011


@pytest.mark.parametrize(("act", "message"), CASES)
def test_what_the_user_reads(act, message, tmp_path, caplog):
    text = told(act, tmp_path)
    assert text == message
    for secret in (APPLICATION, PASSWORD, PASSWORD[:9]):
        assert secret not in text + caplog.text


@pytest.mark.parametrize(
    ("module", "flags", "message"),
    [
        (
            "organize",
            ["--labels=l.csv", "--scans=s.csv", "--columns={}", "--table=none.csv"],
            "none.csv: no such table. Check the `table` of the dataset.",
        ),
        (
            "download",
            ["--file=a.tar", "--url=ftp://x.org/a.tar"],
            "cannot download a.tar from 'ftp://x.org/a.tar': expected an address that begins http:// or https://",
        ),
        (
            "ukbfetch",
            ["--table=t.csv", "--bulk=ukb.bulk", "--zips=zips"],
            "ukb.bulk: no such bulk file; make it with: ukbconv ukb.enc_ukb bulk -s20252",
        ),
    ],
)
def test_a_command_ends_with_1_and_these_words_alone(module, flags, message, tmp_path):
    ended = subprocess.run([sys.executable, "-m", f"mriflow.{module}", *flags], cwd=tmp_path, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", f"error: {message}\n")
    assert list(tmp_path.iterdir()) == []
