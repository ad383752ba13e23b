"""Loading a scan: one that is damaged, no NIfTI image, too small or not of plain numbers is refused, with its cure."""

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bad_input.cases import ANNEX, DICOM, GZ, LFS, NII, WEB_PAGE, case, of_group
from mriflow.images.nifti import load_scan
from mriflow.images.ukb_zip import BRAIN, MATRIX, read_flirt
from test_ukbfetch import zipped

CURE = "fslmaths SCAN -nan NEW makes them 0, or `stripped: true` if they surround a brain"
STORED = gzip.compress(NII, 0, mtime=0)  # not compressed, so that a change of a byte is one of the image
DAMAGED = NII[1000:1010], bytes(10)


def loaded(content: bytes, name: str = "scan.nii.gz") -> Callable:
    """Read a file of this content as a scan."""

    def act(folder):
        (folder / name).write_bytes(content)
        return str(load_scan(folder / name).data.shape)

    return act


def linked(folder: Path, target: str) -> str:
    """Read a scan that is a link to something that is not there."""
    (folder / "scan.nii.gz").symlink_to(target)
    return str(load_scan(folder / "scan.nii.gz").data.shape)


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
    *[
        case(
            loaded(content, name), f"file is no image (a pointer of {of}, its content is not here: {cure})", id=f"{of}: {name}"
        )
        for content, of, cure in (
            (LFS, "Git LFS", "git lfs pull"),
            (ANNEX, "git-annex", "datalad get, or git annex get"),
        )
        for name in ("scan.nii.gz", "scan.nii")
    ],
    case(
        lambda folder: linked(folder, "../.git/annex/objects/aa/bb/MD5E-s5663--4b/MD5E-s5663--4b.nii.gz"),
        "no file (a link of git-annex, its content is not here: datalad get, or git annex get)",
        id="link of DataLad without its content",
    ),
    case(
        lambda folder: linked(folder, "/disk2/scan.nii.gz"),
        "no file (a link to /disk2/scan.nii.gz, which is not there)",
        id="link that leads nowhere",
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
        header(dim=[3, 30000, 30000, 30000, 1, 1, 1, 1]),
        "its header says 30000x30000x30000 voxels",
        id="header of a giant",
    ),
    case(
        header(dim=[3, 512, 512, 512, 1, 1, 1, 1]),
        "file does not fit its header (8544 bytes, expected 268435808, cut short or damaged)",
        id="header of a large image, file of a small one",
    ),
    case(header(dim=[3, -16, -16, 16, 1, 1, 1, 1]), "its header says -16x-16x16 voxels", id="negative sizes"),
    case(header(dim=[0, 0, 0, 0, 0, 0, 0, 0]), "its header says 0 voxels", id="no dimensions"),
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


@pytest.mark.parametrize(("act", "message"), of_group("scan", SCANS))
def test_what_the_user_reads(act, message, shown):
    assert shown(act) == message
