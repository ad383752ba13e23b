"""Images are known again by their voxels, however they are compressed and whatever their header says."""

import bz2
import gzip

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from conftest import write_scan
from mriflow.base.errors import UserError
from mriflow.images.fingerprint import fingerprint, hash_of_voxels, voxels_of
from mriflow.organize import organize
from mriflow.tables.labels import read_labels, usable
from mriflow.tables.splits import check_leaks

VOXELS = np.random.default_rng(0).integers(0, 255, (20, 18, 16), dtype=np.uint8)


def bgzip(data):
    """Compress as bgzip does: several gzip members, the last one empty."""
    return b"".join(gzip.compress(part, mtime=0) for part in (data[:1000], data[1000:], b""))


@pytest.fixture
def image(tmp_path):
    return write_scan(tmp_path / "a.nii", VOXELS)


@pytest.mark.parametrize("form", [nib.Nifti1Image, nib.Nifti2Image])
def test_the_same_file_is_known_however_it_is_compressed(tmp_path, form):
    nib.save(form(VOXELS, np.eye(4)), tmp_path / "a.nii")
    data = (tmp_path / "a.nii").read_bytes()
    packed = {"1": gzip.compress(data, 1), "9": gzip.compress(data, 9), "b": bgzip(data)}
    for name, content in packed.items():
        (tmp_path / f"{name}.nii.gz").write_bytes(content)
        assert fingerprint(tmp_path / f"{name}.nii.gz") == fingerprint(tmp_path / "a.nii")
        assert hash_of_voxels(tmp_path / f"{name}.nii.gz") == hash_of_voxels(tmp_path / "a.nii")


@pytest.mark.parametrize(
    ("suffix", "pack", "expected"),
    [
        (".nii", bytes, "1680-c35eb284.fab3feb8"),
        (".nii.gz", gzip.compress, "1680-c35eb284.fab3feb8"),
        (".nii.gz", bgzip, "1680-c35eb284.fab3feb8"),
        (".nii", lambda data: data[100:], "177c-9a0ebb14.00000000"),  # no NIfTI file
        (".nii.gz", lambda data: b"no gzip", "f4ca5d0cb1de7a397d16768535058352"),
    ],
)
def test_fingerprints_in_the_shards_and_splits_of_earlier_versions_stay_valid(tmp_path, suffix, pack, expected):
    """These values were computed by the earlier code, which read the sum at the end of the gzip file."""
    voxels = (np.arange(20 * 18 * 16) % 251).astype(np.uint8).reshape(20, 18, 16)
    header = nib.Nifti1Image(voxels, np.eye(4)).header
    header.set_data_offset(352)
    (tmp_path / f"a{suffix}").write_bytes(pack(header.binaryblock + bytes(4) + voxels.tobytes(order="F")))
    assert fingerprint(tmp_path / f"a{suffix}") == expected


def test_a_voxel_that_was_damaged_within_the_gzip_file_makes_another_image(tmp_path, image):
    packed = bytearray(gzip.compress(image.read_bytes(), 0))  # level 0: the voxels stand in it as they are
    packed[-100] ^= 1
    (tmp_path / "b.nii.gz").write_bytes(packed)
    assert voxels_of(fingerprint(tmp_path / "b.nii.gz")) != voxels_of(fingerprint(image))


def test_the_same_voxels_are_known_under_another_header(tmp_path, image):
    whole = nib.load(image)
    whole.header["descrip"] = "anonymised"
    whole.set_sform(np.diag([3.0, 4, 5, 1]), 2)
    whole.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 3000))
    nib.save(whole, tmp_path / "b.nii.gz")
    one, other = fingerprint(image), fingerprint(tmp_path / "b.nii.gz")
    assert one != other
    assert voxels_of(one) == voxels_of(other)
    assert hash_of_voxels(image) == hash_of_voxels(tmp_path / "b.nii.gz")


def test_one_other_voxel_is_another_image(tmp_path, image):
    for number, place in enumerate([(0, 0, 0), (19, 17, 15)]):
        changed = VOXELS.copy()
        changed[place] ^= 1
        other = write_scan(tmp_path / f"{number}.nii.gz", changed)
        assert voxels_of(fingerprint(image)) != voxels_of(fingerprint(other))


@pytest.mark.parametrize("spoil", [lambda d: d[:-300], lambda d: d[:5], lambda d: b"", lambda d: b"no gzip", bz2.compress])
def test_a_damaged_file_has_a_fingerprint_too(tmp_path, image, spoil):
    (tmp_path / "b.nii.gz").write_bytes(spoil(gzip.compress(image.read_bytes())))
    assert voxels_of(fingerprint(tmp_path / "b.nii.gz")) != voxels_of(fingerprint(image))
    assert hash_of_voxels(tmp_path / "b.nii.gz")


def organized(folder, **files):
    rows = ["file,who"]
    for name, content in files.items():
        file = f"{name}.nii" + (".gz" if content[:2] == b"\x1f\x8b" else "")
        (folder / file).write_bytes(content)
        rows.append(f"{file},{name}")
    (folder / "t.csv").write_text("\n".join(rows) + "\n")
    columns = {"path": {"from": "file"}, "subject": {"from": "who"}}
    organize(folder / "d/labels.csv", folder / "d/scans.csv", table=folder / "t.csv", columns=columns)
    return read_labels(folder / "d/labels.csv").set_index("id")


def test_a_copy_that_was_compressed_anew_or_renamed_in_its_header_is_found_across_subjects(tmp_path, image):
    data = image.read_bytes()
    renamed = data[:148] + b"another name" + data[160:]  # the field `descrip`
    other = data[:-1] + bytes([data[-1] ^ 1])
    labels = organized(tmp_path, S1=data, S2=gzip.compress(data, 1), S3=gzip.compress(renamed, 9), S4=gzip.compress(other))
    assert labels["problem"].tolist() == [
        "scan: same image as another subject (S2)",
        "scan: same image as another subject (S1)",
        "scan: same image as another subject (S1)",
        "",
    ]


def test_images_whose_sums_are_equal_by_chance_stay_two(tmp_path, image, monkeypatch):
    """Of 40,000 scans two have the same CRC-32 with a chance of one in six."""
    monkeypatch.setattr("mriflow.organize.fingerprint", lambda path: "1680-12345678.9abcdef0")
    data = image.read_bytes()
    labels = organized(tmp_path, S1=data, S2=data[:-1] + bytes([data[-1] ^ 1]))
    assert usable(labels).all()
    assert labels["fingerprint"].map(voxels_of).is_unique
    table = pd.DataFrame({"fold": 0, "part": ["train", "test"], "id": ["S1", "S2"], "subject": ["S1", "S2"]})
    check_leaks(table.assign(fingerprint=labels["fingerprint"].tolist()), "splits.csv")


def test_the_same_voxels_under_two_headers_are_a_leak():
    table = pd.DataFrame({"fold": 0, "part": ["train", "test"], "id": ["a", "b"], "subject": ["a", "b"]})
    with pytest.raises(UserError, match="same image stands in two parts of a fold; the first is image '1680-12345678'"):
        check_leaks(table.assign(fingerprint=["1680-12345678.00000001", "1680-12345678.00000002"]), "splits.csv")
