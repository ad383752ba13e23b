"""The known datasets, and the forms in which people bring their own, from the published table or folder to labels.csv."""

import io
import logging
import os
import tarfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import yaml

from conftest import ROOT, shared, write_scan
from mriflow.base.errors import UserError
from mriflow.config.resolve import described_bids
from mriflow.organize import organize
from mriflow.tables.labels import read_labels, usable

OASIS = yaml.safe_load((ROOT / "config/datasets/oasis.yaml").read_text())
OASIS_KEYS = ("columns", "pattern", "ignore", "affine", "expect")


def organized(folder: Path, **options) -> pd.DataFrame:
    organize(folder / "labels.csv", folder / "scans.csv", **options)
    return read_labels(folder / "labels.csv", "cdr" if "expect" in options else None).set_index("id")


def analyze(folder: Path, name: str) -> Path:
    """Write an Analyze image as OASIS does: big-endian, axes anterior, superior, left; its mark is at their ends, but right."""
    voxels = np.zeros((8, 9, 7, 1), ">i2")
    voxels[6, 7, 1] = 1000
    voxels[0, 0, 0] = sum(name.encode())  # no two images are the same
    header = nib.AnalyzeHeader(endianness=">")
    header.set_data_shape(voxels.shape)
    header.set_data_dtype(np.int16)
    folder.mkdir(parents=True, exist_ok=True)
    nib.AnalyzeImage(voxels, None, header).to_filename(folder / f"{name}.hdr")
    return folder / f"{name}.hdr"


def disc(folder: Path, sessions: list[str]) -> Path:
    """Write an archive in the form of an OASIS disc: per session two repeats, their average, and the average in an atlas."""
    raw = folder / "raw"
    archive = folder / "disc1.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for session in sessions:
            for part, name in (
                ("RAW", f"{session}_mpr-1_anon"),
                ("RAW", f"{session}_mpr-2_anon"),
                ("PROCESSED/MPRAGE/SUBJ_111", f"{session}_mpr_n4_anon_sbj_111"),
                ("PROCESSED/MPRAGE/T88_111", f"{session}_mpr_n4_anon_111_t88_masked_gfc"),
                ("FSL_SEG", f"{session}_mpr_n4_anon_111_t88_masked_gfc_fseg"),
            ):
                header = analyze(raw, name)
                for file in (header, header.with_suffix(".img")):
                    tar.add(file, f"disc1/{session}/{part}/{file.name}")
    return archive


@pytest.fixture(scope="module")
def oasis(tmp_path_factory) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("oasis")
    archive = disc(folder, ["OAS1_0001_MR1", "OAS1_0003_MR1", "OAS1_0061_MR1", "OAS1_0061_MR2"])
    table = shared("oasis-tables") / "oasis_cross-sectional.csv"
    labels = organized(folder / "data", table=table, images=[archive], **{key: OASIS[key] for key in OASIS_KEYS})
    return labels.assign(folder=str(folder / "data"))


def test_oasis_joins_each_average_with_its_session(oasis):
    images = oasis[oasis["path"] != ""]
    assert sorted(images["subject"] + "/" + images["session"]) == [
        "OAS1_0001/1", "OAS1_0003/1", "OAS1_0061/1", "OAS1_0061/2",
    ]  # fmt: skip
    assert len(oasis) == 436
    assert (oasis["problem"] == "scan: no image").sum() == 432


def test_oasis_session_without_a_rating_is_unknown_and_never_healthy(oasis):
    assert oasis["cdr"].value_counts().to_dict() == {"0": 135, "0.5": 70, "1": 28, "2": 2}
    assert oasis["dementia"].value_counts().to_dict() == {"no": 135, "yes": 100}
    assert oasis.loc["OAS1_0061_MR1_mpr_n4_anon_sbj_111", ["cdr", "dementia"]].isna().all()
    assert usable(oasis[oasis["path"] != ""], "dementia").tolist() == [True, True, False, False]


def test_oasis_image_is_oriented_as_the_project_says(oasis):
    path = Path(oasis["folder"].iloc[0]) / oasis.loc["OAS1_0001_MR1_mpr_n4_anon_sbj_111", "path"]
    image = nib.load(path)
    assert nib.aff2axcodes(image.affine) == ("A", "S", "L")
    ras = nib.as_closest_canonical(image)
    assert ras.shape == (7, 8, 9)
    mark = np.argwhere(ras.get_fdata() == 1000)[0]
    assert mark.tolist() == [5, 6, 7], "right, anterior, superior"
    assert not [*path.parent.glob("*.img")], "no second copy stays"


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        ("Pattiecodes_CDR-blank-filled-with-0", "436 rows with a value in 'CDR', where the published table has 235"),
        ("KristanEsp_renamed-columns", "has no column 'M/F'"),
        ("Paki64_no-header", "has no column 'ID'"),
        ("YashBavishi_with-DISC-CLASS", None),
        ("xiaoyanLi629_UTF8-BOM_reordered", None),
    ],
)
def test_altered_copy_of_the_oasis_table_is_refused_or_read_right(variant, message, oasis, tmp_path):
    table = shared("oasis-tables") / f"variants/{variant}.csv"
    archive = disc(tmp_path, ["OAS1_0001_MR1"])
    options = {"table": table, "images": [archive], **{key: OASIS[key] for key in OASIS_KEYS}}
    if message:
        with pytest.raises(UserError, match=message):
            organized(tmp_path / "data", **options)
        assert not (tmp_path / "data/labels.csv").exists()
    else:
        columns = ["subject", "session", "age", "sex", "cdr", "dementia"]
        whole, altered = (
            one[columns].sort_values(columns[:2]).reset_index(drop=True)
            for one in (oasis, organized(tmp_path / "data", **options))
        )
        pd.testing.assert_frame_equal(whole, altered)


def test_oasis_table_as_excel_reads_the_same(oasis, tmp_path):
    raw = pd.read_csv(shared("oasis-tables") / "oasis_cross-sectional.csv")
    raw.to_excel(tmp_path / "oasis.xlsx", index=False)
    options = {key: OASIS[key] for key in OASIS_KEYS}
    labels = organized(tmp_path / "data", table=tmp_path / "oasis.xlsx", images=[disc(tmp_path, ["OAS1_0001_MR1"])], **options)
    assert labels["cdr"].value_counts().to_dict() == {"0": 135, "0.5": 70, "1": 28, "2": 2}
    assert labels["age"].mean() == oasis["age"].mean()


def bids(folder: Path, columns: dict, **changes) -> pd.DataFrame:
    described = described_bids(str(folder)) | changes
    described["table"], described["images"] = Path(described["table"]), [Path(one) for one in described["images"]]
    return organized(folder.parent / "data", columns={"subject": {"from": "participant_id"}, **columns}, **described)


def test_real_bids_dataset_is_joined_with_its_participants(tmp_path):
    (tmp_path / "bids").symlink_to(shared("ds002748-bids"))
    labels = bids(tmp_path / "bids", {"age": {"from": "age", "range": [0, 110]}, "group": {"from": "group"}})
    assert len(labels) == 72
    images = labels[labels["path"] != ""]
    assert len(images) == 12
    assert usable(images).all()
    assert set(images["group"]) == {"depr", "control"}
    assert images.loc["sub-02_T1w", ["age", "group"]].tolist() == [50, "depr"]


def test_levels_that_differ_in_capitals_from_participants_json_are_matched_and_told(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    (tmp_path / "bids").symlink_to(shared("ds002748-bids"))
    labels = bids(tmp_path / "bids", {"sex": {"from": "gender"}})
    assert set(labels["sex"]) == {"M", "F"}, "the table has m and f where its description has M and F"
    assert "cell(s) 'm' in the column 'gender' are read as the code 'M'" in caplog.text


def test_bids_sessions_runs_and_derivatives(tmp_path):
    for number, name in enumerate(
        [
            "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz",
            "sub-01/ses-b/anat/sub-01_ses-b_run-1_T1w.nii.gz",
            "sub-01/ses-b/anat/sub-01_ses-b_run-2_T1w.nii.gz",
            "sub-01/ses-b/anat/sub-01_ses-b_T2w.nii.gz",
            "sub-02/anat/sub-02_acq-mprage_T1w.nii.gz",
            "derivatives/fmriprep/sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz",
            "derivatives/fmriprep/sub-02/anat/sub-02_desc-preproc_T1w.nii.gz",
        ]
    ):
        write_scan(tmp_path / "bids" / name, np.full((4, 4, 4), number, np.uint8))
    (tmp_path / "bids/participants.tsv").write_text("participant_id\tage\nsub-01\t30\nsub-02\tn/a\n")
    labels = bids(tmp_path / "bids", {"age": {"from": "age", "range": [0, 110], "required": True}})
    assert labels["problem"].to_dict() == {
        "sub-01_ses-a_T1w": "",
        "sub-01_ses-b_run-1_T1w": "",
        "sub-01_ses-b_run-2_T1w": "scan: another of the session is used (sub-01_ses-b_run-1_T1w)",
        "sub-02_acq-mprage_T1w": "age: missing",
    }


def class_folders(folder: Path) -> Path:
    for number, name in enumerate(["Females/Sub_101_T1.nii.gz", "Females/Sub_102_T1.nii.gz", "Males/Sub_103_T1.nii.gz"]):
        write_scan(folder / name, np.full((4, 4, 4), number, np.uint8))
    return folder


CLASSES = {
    "pattern": r"(?P<class>Females|Males)/Sub_(?P<subject>\d+)_T1\.nii\.gz",
    "columns": {"subject": {"from": "subject"}, "sex": {"from": "class", "codes": {"Females": "F", "Males": "M"}}},
}


def test_folders_of_classes_are_read_without_a_table(tmp_path):
    labels = organized(tmp_path / "data", images=[class_folders(tmp_path / "scans")], **CLASSES)
    assert labels["sex"].to_dict() == {"Sub_101_T1": "F", "Sub_102_T1": "F", "Sub_103_T1": "M"}
    assert usable(labels).all()


def test_subject_in_two_folders_of_classes_is_contradictory(tmp_path):
    write_scan(class_folders(tmp_path / "scans") / "Males/Sub_101_T1.nii.gz", np.full((4, 4, 4), 9, np.uint8))
    columns = {**CLASSES["columns"], "sex": {**CLASSES["columns"]["sex"], "required": True}}
    labels = organized(tmp_path / "data", images=[tmp_path / "scans"], pattern=CLASSES["pattern"], columns=columns)
    assert (labels.loc[labels["subject"] == "101", "problem"] == "sex: contradictory (F, M)").all()
    assert len(labels) == 4


def test_layout_with_labels_is_read_back(tmp_path):
    from mriflow.layout import layout

    first = organized(tmp_path / "data", images=[class_folders(tmp_path / "scans")], **CLASSES)
    layout(tmp_path / "data/labels.csv", tmp_path / "data/sex/labels.csv", column="sex", classes={"F": "Females", "M": "Males"})
    columns = {"subject": {"from": "ID"}, "path": {"from": "path"}, "sex": {"from": "label"}}
    again = organized(tmp_path / "again", table=tmp_path / "data/sex/labels.csv", columns=columns)
    labels = dict(zip("Sub_" + first["subject"], first["sex"], strict=True))
    assert dict(zip(again["subject"], again["sex"], strict=True)) == labels


def test_archive_that_holds_half_an_analyze_image_keeps_a_row_of_it(tmp_path):
    header = analyze(tmp_path / "raw", "S1")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("S1.hdr"), io.BytesIO(b""))
        tar.add(header, "S2.hdr")
        tar.add(header, "S3.hdr")
        tar.add(header.with_suffix(".img"), "S3.img")
    columns = {"subject": {"from": "subject"}}
    options = {"pattern": r"(?P<subject>S\d)\.hdr", "columns": columns, "affine": OASIS["affine"]}
    assert organized(tmp_path / "data", images=[tmp_path / "a.tar"], **options)["problem"].to_dict() == {
        "S1.hdr": "scan: Analyze image cannot be read (S1.hdr, no .img beside it)",
        "S2.hdr": "scan: Analyze image cannot be read (S2.hdr, no .img beside it)",
        "S3": "",
    }


ANALYZE = {"pattern": r"(?P<subject>sub-\d)/T1\.hdr", "columns": {"subject": {"from": "subject"}}, "affine": OASIS["affine"]}


@pytest.mark.parametrize("archived", [False, True])
def test_analyze_image_is_rewritten_when_the_dataset_tells_another_affine(tmp_path, archived):
    header = analyze(tmp_path / "raw", "S1")
    source = tmp_path / "raw"
    if archived:
        source = tmp_path / "a.tar"
        with tarfile.open(source, "w") as tar:
            for file in (header, header.with_suffix(".img")):
                tar.add(file, file.name)
    options = ANALYZE | {"pattern": r"(?P<subject>S\d)\.hdr", "images": [source]}
    rows = [organized(tmp_path / "data", **options | {"affine": affine}).loc["S1"] for affine in (np.eye(4), OASIS["affine"])]
    assert rows[0]["fingerprint"] != rows[1]["fingerprint"]
    image = tmp_path / "data" / rows[1]["path"]
    assert (nib.load(image).affine == OASIS["affine"]).all()
    written = image.stat().st_mtime_ns
    organized(tmp_path / "data", **options)
    assert image.stat().st_mtime_ns == written


def test_analyze_images_that_an_earlier_version_rewrote_with_other_voxels_are_found_out(tmp_path):
    header = analyze(tmp_path / "raw", "S1")
    nib.save(nib.AnalyzeImage(nib.load(header).get_fdata().astype(np.int16), np.diag([1, 1, 2.5, 1])), header)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for file in (header, header.with_suffix(".img")):
            tar.add(file, file.name)
    options = ANALYZE | {"pattern": r"(?P<subject>S\d)\.hdr", "images": [tmp_path / "a.tar"]}
    (tmp_path / "data/images").mkdir(parents=True)
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.array(OASIS["affine"], float)), tmp_path / "data/images/S1.nii")
    for _ in range(2):
        assert organized(tmp_path / "data", **options)["problem"].tolist() == [
            "scan: voxel size is not that of the dataset's affine (S1.hdr: 1 x 1 x 2.5 mm, expected 1 x 1 x 1 mm)"
        ]


def test_analyze_image_is_rewritten_when_only_its_voxels_were_replaced(tmp_path):
    headers = [analyze(tmp_path / name / "sub-1", "T1") for name in ("old", "new")]
    analyze(tmp_path / "other", "other").with_suffix(".img").replace(headers[1].with_suffix(".img"))
    options = ANALYZE | {"images": [tmp_path / "old"]}
    first = organized(tmp_path / "data", **options)["fingerprint"].item()
    headers[1].with_suffix(".img").replace(headers[0].with_suffix(".img"))
    os.utime(headers[0].with_suffix(".img"))
    assert organized(tmp_path / "data", **options)["fingerprint"].item() != first


def test_analyze_images_of_one_name_are_not_taken_for_each_other(tmp_path):
    for disc_, name, mark in (("a", "sub-1", "x"), ("a", "sub-2", "y"), ("b", "sub-1", "z")):
        header = analyze(tmp_path / disc_, mark)
        for file in (header, header.with_suffix(".img")):
            target = tmp_path / disc_ / name / f"T1{file.suffix}"
            target.parent.mkdir(exist_ok=True)
            file.replace(target)
    labels = organized(tmp_path / "data", images=[tmp_path / "a", tmp_path / "b"], **ANALYZE)
    assert labels.index.tolist() == ["a_sub-1_T1", "a_sub-2_T1", "b_sub-1_T1"]
    assert labels["fingerprint"].is_unique and (labels["problem"] == "").all()
    for disc_ in ("a", "b"):  # one folder alone, then another in its place
        again = organized(tmp_path / "again", images=[tmp_path / disc_], **ANALYZE)
        assert set(again["fingerprint"]) == set(labels["fingerprint"][labels.index.str.startswith(disc_)])


def test_relative_and_absolute_sources_and_an_archive_may_be_mixed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number, file in enumerate(("f1/S1.nii", "f1/S2.nii", "f2/S1.nii", "raw/S1.nii")):
        write_scan(tmp_path / file, np.full((4, 4, 4), number, np.uint8))
    with tarfile.open("a.tar", "w") as tar:
        tar.add("raw/S1.nii", "S1.nii")
    options = {"pattern": r"(?P<subject>S\d)\.nii", "columns": {"subject": {"from": "subject"}}}
    for sources, ids in (
        ([Path("f1"), tmp_path / "f2", Path("a.tar")], ["S2", "data_images_S1", "f1_S1", "f2_S1"]),
        ([Path("a.tar"), tmp_path / "f1"], ["S2", "data_images_S1", "f1_S1"]),
    ):
        labels = organized(Path("data"), images=sources, **options)
        assert labels.index.tolist() == ids
        assert all(Path("data", path).is_file() for path in labels["path"])
