"""Finding images: whatever their suffix and wherever their folder, and what is passed over is told."""

import gzip
import logging
import os
import tarfile
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from conftest import write_scan
from mriflow.base.errors import UserError
from mriflow.images.find import find_images
from mriflow.images.headers import fault_of_sizes, read_header
from mriflow.images.nifti import load_scan
from mriflow.organize import organize
from mriflow.tables.labels import read_labels

PATTERN = r"(?P<subject>S\d+)_T1\.nii\.gz"
RNG = np.random.default_rng(0)
VOXELS = RNG.integers(0, 999, (16, 17, 18)).astype(np.int16)
AFFINE = np.array([[0, 0, -2.0, 9], [3, 0, 0, -20], [0, 4, 0, 5], [0, 0, 0, 1]])


def found(folder: Path, pattern: str = PATTERN) -> dict[str, str | None]:
    """Return the subject of each image that is found, by its path in the folder."""
    images = find_images([folder], pattern, folder.parent / "unpacked")
    paths = [Path(path).relative_to(folder).as_posix() for path in images["path"]]
    return dict(zip(paths, images["subject"].where(images["subject"].notna(), None), strict=True))


def test_images_behind_links_to_folders_are_found_once_and_no_circle_is_walked(tmp_path):
    scans, elsewhere = tmp_path / "scans", tmp_path / "disk2"
    write_scan(elsewhere / "S2/S2_T1.nii.gz", VOXELS)
    write_scan(scans / "S1/S1_T1.nii.gz", VOXELS)
    (scans / "S2").symlink_to(elsewhere / "S2")
    (scans / "S1/up").symlink_to("..")
    (scans / "latest").symlink_to("S1")
    assert found(scans) == {"S1/S1_T1.nii.gz": "S1", "S2/S2_T1.nii.gz": "S2"}


def test_of_an_image_in_two_folders_by_a_link_that_counts_whose_name_fits(tmp_path):
    write_scan(tmp_path / "scans/all/S1_T1.nii.gz", VOXELS)
    (tmp_path / "scans/Females").symlink_to("all")
    found_names = found(tmp_path / "scans", r"(?P<sex>Females|Males)/(?P<subject>S\d+)_T1\.nii\.gz")
    assert found_names == {"Females/S1_T1.nii.gz": "S1"}


@pytest.mark.parametrize("suffix", [".NII.GZ", ".Nii.gz", ".nii.GZ"])
def test_a_suffix_in_capitals_is_the_same_suffix_to_every_stage(tmp_path, suffix):
    scan = write_scan(tmp_path / "a.nii.gz", VOXELS)
    image = tmp_path / f"scans/S1_T1{suffix}"
    image.parent.mkdir()
    image.write_bytes(scan.read_bytes())
    columns = {"subject": {"from": "subject"}}
    labels, scans = tmp_path / "d/labels.csv", tmp_path / "d/scans.csv"
    rows = organize(labels, scans, images=[tmp_path / "scans"], pattern=PATTERN, columns=columns)
    assert rows[["id", "subject", "problem"]].to_numpy().tolist() == [["S1_T1", "S1", ""]]
    assert rows["fingerprint"][0] == organize_one(tmp_path, scan)
    assert read_header(image)["matrix"] == "16x17x18"
    assert load_scan(image).data.shape == (16, 17, 18)


def organize_one(folder: Path, scan: Path) -> str:
    """Return the fingerprint of a scan whose path stands in a table."""
    return rows_of_paths(folder, scan.name)["fingerprint"].iloc[0]


def rows_of_paths(folder: Path, *paths: str, **options) -> pd.DataFrame:
    """Organize a table with these paths."""
    (folder / "t.csv").write_text("file,who\n" + "".join(f"{path},S{number}\n" for number, path in enumerate(paths)))
    columns = {"path": {"from": "file"}, "subject": {"from": "who"}}
    organize(folder / "p/labels.csv", folder / "p/scans.csv", table=folder / "t.csv", columns=columns, **options)
    return read_labels(folder / "p/labels.csv")


def test_what_is_no_image_to_us_is_named_with_the_cure(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    write_scan(tmp_path / "scans/S1_T1.nii.gz", VOXELS)
    for name in ("S2_T1.nrrd", "S3_T1.nrrd", "S4.mnc", "S5.nii.bz2", "notes.txt"):
        (tmp_path / "scans" / name).write_bytes(b"x")
    find_images([tmp_path / "scans"], PATTERN, tmp_path / "unpacked")
    assert "passed over 2 .nrrd file(s), such as S2_T1.nrrd: convert it to .nii.gz" in caplog.text
    assert "passed over 1 .mnc file(s)" in caplog.text
    assert "passed over 1 .nii.bz2 file(s), such as S5.nii.bz2: unpack it" in caplog.text
    assert "notes" not in caplog.text


def test_archives_dicom_without_suffix_and_links_that_lead_nowhere_are_named(tmp_path, caplog):
    scans = tmp_path / "scans"
    write_scan(scans / "S1_T1.nii.gz", VOXELS)
    (scans / "S2").symlink_to(tmp_path / "disk2")
    (scans / "S3.zip").write_bytes(b"x")
    (scans / "S4.hdr.gz").write_bytes(b"x")
    (scans / "README").write_bytes(b"x")
    (scans / "S5/1.2.840.7").parent.mkdir()
    for name in ("1.2.840.7", "1.2.840.8"):
        (scans / "S5" / name).write_bytes(bytes(128) + b"DICM")
    assert found(scans) == {"S1_T1.nii.gz": "S1"}
    assert f"passed over 1 link(s), such as {scans / 'S2'}: a link to {tmp_path / 'disk2'}, which is not there" in caplog.text
    assert "passed over 1 .zip file(s), such as S3.zip: unpack it" in caplog.text
    assert "passed over 1 .hdr.gz file(s), such as S4.hdr.gz: unpack it" in caplog.text
    assert "passed over 2 .dcm file(s), such as 1.2.840.7: dcm2niix makes NIfTI of it" in caplog.text
    assert "README" not in caplog.text


@pytest.mark.parametrize("name", ["S1.mgz", "S1.mgh", "S1.MGZ", "S1.hdr", "S1.HDR"])
@pytest.mark.parametrize("by", ["path", "pattern"])
def test_images_of_freesurfer_and_pairs_are_rewritten_where_they_were(tmp_path, name, by):
    (tmp_path / "scans").mkdir()
    kind = nib.MGHImage if "mg" in name.lower() else nib.Nifti1Pair
    nib.save(kind(VOXELS, AFFINE), tmp_path / "scans" / name.lower().replace("s1", "S1"))
    for file in (tmp_path / "scans").iterdir():
        file.rename(file.with_suffix(file.suffix.upper() if Path(name).suffix.isupper() else file.suffix))
    if by == "path":
        rows, data = rows_of_paths(tmp_path, f"scans/{name}"), tmp_path / "p"
    else:
        data = tmp_path / "d"
        columns = {"subject": {"from": "subject"}}
        pattern = r"(?P<subject>S\d)\.(mgz|mgh|hdr)"
        rows = organize(data / "labels.csv", data / "s.csv", images=[tmp_path / "scans"], pattern=pattern, columns=columns)
    assert rows[["id", "problem"]].to_numpy().tolist() == [["S1", ""]]
    image = nib.load(data / rows["path"][0])
    assert np.allclose(image.affine, AFFINE)
    assert np.array_equal(np.asarray(image.dataobj), VOXELS)


def test_kinds_that_are_not_read_say_the_cure_in_their_row(tmp_path):
    names = ["a.nrrd", "a.mnc", "a.dcm", "a.nii.bz2", "a.img", "a.txt", "a.mgz"]
    for name in names:
        (tmp_path / name).write_bytes(gzip.compress(b"not empty"))
    problems = rows_of_paths(tmp_path, *names).set_index("subject").sort_index()["problem"].tolist()
    convert = "convert it to .nii.gz, as docs/your-data.md shows"
    assert problems == [
        f"scan: not a NIfTI file (a.nrrd, {convert})",
        f"scan: not a NIfTI file (a.mnc, {convert})",
        "scan: not a NIfTI file (a.dcm, dcm2niix makes NIfTI of it)",
        "scan: not a NIfTI file (a.nii.bz2, unpack it)",
        "scan: not a NIfTI file (a.img, give the .hdr beside it)",
        "scan: not a NIfTI file (a.txt, expected .nii or .nii.gz)",
        "scan: file cannot be read (a.mgz, it is damaged)",
    ]


def test_a_path_in_a_table_may_begin_with_ones_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    write_scan(tmp_path / "home/scans/S1.nii", VOXELS)
    assert rows_of_paths(tmp_path, "~/scans/S1.nii")["problem"].tolist() == [""]


@pytest.mark.parametrize(
    ("unit", "size"), [("micron", 4000), ("meter", 0.004), ("mm", 4), ("unknown", 4), ("meter", 4), ("micron", 4)]
)
def test_the_unit_of_a_header_is_obeyed_unless_mm_are_meant(tmp_path, unit, size):
    """Some programs write a unit that they do not mean: a head of 200 m is one of 200 mm."""
    image = nib.Nifti1Image(RNG.integers(0, 99, (48, 60, 50)).astype(np.int16), np.diag([size, size, -size, 1]))
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "a.nii")
    scan = load_scan(tmp_path / "a.nii")
    assert np.linalg.norm(scan.affine[:3, :3], axis=0) == pytest.approx([4, 4, 4])
    assert scan.voxel_ml == pytest.approx(0.064)
    header = read_header(tmp_path / "a.nii")
    assert [header["spacing"], header["orientation"], header["fault"]] == ["4x4x4", "RAI", ""]


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
def test_hidden_files_are_no_images(tmp_path, packed, caplog):
    """What a Mac writes beside each file, and what stands in a bin or in .git."""
    caplog.set_level(logging.INFO)
    folder = tmp_path / "scans"
    for name in ("S1_T1.nii.gz", "._S1_T1.nii.gz", ".trash/S2_T1.nii.gz", ".git/annex/S3_T1.nii.gz"):
        write_scan(folder / name, VOXELS)
    source = folder
    if packed:
        source = tmp_path / "scans.tar.gz"
        with tarfile.open(source, "w:gz") as tar:
            tar.add(folder, "./scans")
    images = find_images([source], r"(?P<subject>S\d)_T1\.nii\.gz", tmp_path / "unpacked")
    assert images["id"].tolist() == ["S1_T1"]
    assert packed or "passed over 3 hidden file(s) and folder(s), such as ._S1_T1.nii.gz" in caplog.text


def packed_as(archive: Path, *names: str, value: int = 1) -> Path:
    """Write an archive of images, whose voxels are all alike, and return it."""
    with tempfile.TemporaryDirectory() as folder, tarfile.open(archive, "w") as tar:
        for name in names:
            file = Path(folder) / name
            kind = nib.MGHImage if file.suffix == ".mgh" else nib.Nifti1Image
            nib.save(kind(np.full((16, 17, 18), value, np.int16), AFFINE), file)
            tar.add(file, name)
            if file.with_suffix(".img").is_file():
                tar.add(file.with_suffix(".img"), Path(name).with_suffix(".img"))
    return archive


@pytest.mark.parametrize(("first", "second"), [("S1_T1.nii.gz", "S1_T1.nii.gz"), ("S1_T1.nii", "S1_T1.hdr")])
def test_images_of_one_name_in_two_archives_are_refused_before_one_takes_the_others_place(tmp_path, first, second):
    """Both were unpacked into one folder: patients under the names of controls, the second visit under the first's."""
    one = packed_as(tmp_path / "controls.tar", first, "S2_T1.nii", value=100)
    other = packed_as(tmp_path / "patients.tar", "S3_T1.nii", second, value=200)
    with pytest.raises(UserError) as told:
        find_images([one, other], r"(?P<subject>S\d)_T1\.(hdr|nii|nii\.gz)", tmp_path / "unpacked")
    both = first if first == second else "S1_T1.nii"
    assert str(told.value) == (
        f"{other} and {one}: both hold an image of the name {both!r}, and one would take the other's place. Unpack each by "
        "hand into a folder of its own, and give the folders instead of the archives; or name what is not meant in `ignore`."
    )
    assert nib.load(tmp_path / "unpacked" / first).dataobj[0, 0, 0] == 100
    assert not (tmp_path / "unpacked/S3_T1.nii").exists()


def test_what_fits_no_pattern_may_be_in_two_archives(tmp_path):
    one = packed_as(tmp_path / "1.tar", "S1_T1.nii", "template.nii")
    other = packed_as(tmp_path / "2.tar", "S2_T1.nii", "template.nii")
    images = find_images([one, other], r"(?P<subject>S\d)_T1\.nii", tmp_path / "unpacked")
    assert sorted(images["subject"].dropna()) == ["S1", "S2"]


def test_an_archive_that_is_given_twice_and_one_unpacked_before_are_taken_over(tmp_path):
    one, other = packed_as(tmp_path / "1.tar", "S1_T1.nii.gz"), packed_as(tmp_path / "2.tar", "S2_T1.nii.gz")
    for sources in ([one, other], [one, other], [one, one, other]):
        images = find_images(sources, PATTERN, tmp_path / "unpacked")
        assert sorted(images["id"]) == ["S1_T1", "S2_T1"]


@pytest.mark.parametrize("suffix", [".nii", ".mgh"])
def test_a_corrected_archive_is_unpacked_though_it_is_older_and_its_images_are_of_the_same_size(tmp_path, suffix):
    """As `cp -p` and `rsync -a` leave it; so is the archive that is named in the place of another."""

    def value_of(archive):
        image = find_images([archive], rf"(?P<subject>S\d)_T1\{suffix}", tmp_path / "unpacked")["path"].item()
        return int(nib.load(image).dataobj[0, 0, 0]), Path(image).stat().st_mtime_ns

    first = packed_as(tmp_path / "a.tar", f"S1_T1{suffix}", value=1)
    before = value_of(first)
    assert before[0] == 1
    assert value_of(first) == before, "one that is unchanged is not unpacked again"
    corrected = packed_as(tmp_path / "a.tar", f"S1_T1{suffix}", value=2)
    os.utime(corrected, (time.time() - 86400,) * 2)
    assert value_of(corrected)[0] == 2


def test_images_with_an_affine_of_their_own_need_not_have_the_size_of_the_datasets(tmp_path):
    """The dataset's affine is that of Analyze images alone, which may lie beside others."""
    nib.save(nib.MGHImage(np.ones((4, 4, 4), np.float32), np.diag([2.0, 2, 2, 1])), tmp_path / "a.mgz")
    assert fault_of_sizes(tmp_path / "a.mgz", np.diag([1.0, 1, 3, 1])) == ""
