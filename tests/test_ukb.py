"""UK Biobank through the workflow: zips that are there or fetched by the stand-in, read as they are, joined with the table."""

import json
import os
import time
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import yaml

from conftest import ROOT
from mriflow.base.errors import UserError
from mriflow.config.network_checks import SECTIONS
from mriflow.config.resolve import resolve
from mriflow.images.headers import read_header
from mriflow.images.nifti import BadScan, load_scan
from mriflow.images.registration import template
from mriflow.images.scan import PreprocessSettings, preprocess_scan
from mriflow.images.ukb_zip import BRAIN, MATRIX, MEMBERS, MNI152
from mriflow.layout import layout
from mriflow.organize import organize
from mriflow.tables.labels import read_labels
from mriflow.tables.reader import read_table
from mriflow.tables.ukb_table import read_participants
from test_ukbfetch import APPLICATION, PASSWORD, Biobank
from test_workflow import checkout, jobs, snakemake

COLUMNS = yaml.safe_load((ROOT / "config/datasets/ukb.yaml").read_text())["columns"]
TURN = np.eye(4)  # how the header turns a head against MNI space
TURN[1:3, 1:3] = [[np.cos(0.6), -np.sin(0.6)], [np.sin(0.6), np.cos(0.6)]]
BIGGER = np.diag([1.1, 1.1, 1.1, 1])  # a small head, which its linear transform enlarges


def write_zip(path: Path, seed: int = 0, matrix: bytes | None = None, **members: bytes) -> np.ndarray:
    """Write a T1 zip with the template's brain and noise at 4 mm; return the affine that puts it into MNI space."""
    whole = template()
    voxels = np.asarray(whole.dataobj, np.float32)[::4, ::4, ::4] * 1000
    noise = 30 * np.random.default_rng(seed).normal(size=voxels.shape)
    in_mni = whole.affine @ np.diag([4, 4, 4, 1])
    header = np.linalg.inv(BIGGER) @ TURN @ in_mni
    image = nib.Nifti1Image(np.where(voxels > 0, voxels + noise, 0).clip(0).astype(np.int16), header)
    size = image.header.get_zooms()
    to_fsl = np.diag([*size, 1.0])
    to_fsl[0] = [-size[0], 0, 0, (voxels.shape[0] - 1) * size[0]]  # the determinant is positive
    flirt = np.linalg.inv(MNI152) @ in_mni @ np.linalg.inv(to_fsl)
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("T1/T1.nii.gz", b"the head")
        content = "\n".join("  ".join(map(str, row)) for row in flirt).encode() if matrix is None else matrix
        for name, text in {MATRIX: content, **members}.items():
            if text:
                archive.writestr(name, text)
        if not any(name.startswith("T1/unusable/") for name in members):
            nib.save(image, path.with_suffix(".nii.gz"))
            archive.write(path.with_suffix(".nii.gz"), BRAIN)
            path.with_suffix(".nii.gz").unlink()
    return in_mni


def quality(path: Path) -> dict[str, float]:
    return preprocess_scan(path, PreprocessSettings("none", 4.0, (40, 48, 40), (0.5, 99.5), stripped=True))[1]


def test_a_zipped_scan_lies_in_mni_space_by_its_linear_transform(tmp_path):
    in_mni = write_zip(tmp_path / "a.zip")
    scan = load_scan(tmp_path / "a.zip" / BRAIN)
    assert scan.in_mni
    expected = nib.as_closest_canonical(nib.Nifti1Image(np.zeros(scan.data.shape, np.uint8), in_mni))
    np.testing.assert_allclose(scan.affine, expected.affine, atol=1e-3)
    registered = quality(tmp_path / "a.zip" / BRAIN)
    write_zip(tmp_path / "b.zip", matrix=b"")
    as_scanned = quality(tmp_path / "b.zip" / BRAIN)
    assert registered["correlation"] > 0.95 > 0.8 > as_scanned["correlation"]
    assert registered["brain_ml"] == pytest.approx(as_scanned["brain_ml"], rel=1e-3)  # the person's, not the template's
    assert registered["scale"] == pytest.approx(1 / 1.1**3, rel=1e-3)


def test_the_check_of_a_dataset_reads_the_header_in_a_zip(tmp_path):
    write_zip(tmp_path / "a.zip")
    row = read_header(tmp_path / "a.zip" / BRAIN)
    assert row["matrix"] == "x".join(map(str, load_scan(tmp_path / "a.zip" / BRAIN).data.shape))
    assert row["fault"] == "" and row["dtype"] == "int16" and row["bytes"] > 1000


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ({"matrix": b"1 0 0\n"}, r"not a matrix of FLIRT"),
        ({"T1/unusable/T1.nii.gz": b"bad"}, r"unusable"),
        ({BRAIN: b"no gzip"}, r"damaged|cannot be read"),
    ],
)
def test_a_bad_zip_is_a_bad_scan(tmp_path, members, told):
    if BRAIN in members:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr(BRAIN, members[BRAIN])
    else:
        write_zip(tmp_path / "a.zip", **members)
    with pytest.raises(BadScan, match=told):
        load_scan(tmp_path / "a.zip" / BRAIN)
    with pytest.raises(BadScan, match="no file"):
        load_scan(tmp_path / "b.zip" / BRAIN)


def listed(folder: Path, *scans: tuple[str, str]) -> Path:
    """Write what ukbfetch would list of these scans (participant, instance), with a zip for each."""
    rows = []
    for eid, instance in scans:
        name = f"{eid}_20252_{instance}_0.zip"
        with zipfile.ZipFile(folder / name, "w") as archive:
            archive.writestr(BRAIN, name)
        rows.append([eid, "20252", instance, "0", f"{name}/{BRAIN}", "", name])
    columns = ["eid", "field", "instance", "array", "path", "problem", "fingerprint"]
    pd.DataFrame(rows, columns=columns).to_csv(folder / "fetched.csv", index=False)
    return folder / "fetched.csv"


def organized(folder: Path, table: str, *scans: tuple[str, str], columns: dict = COLUMNS) -> pd.DataFrame:
    (folder / "ukb.csv").write_text(table)
    fetched = listed(folder, *scans)
    organize(folder / "d/labels.csv", folder / "d/scans.csv", columns=columns, table=folder / "ukb.csv", fetched=fetched)
    return read_labels(folder / "d/labels.csv").set_index("id")


def test_each_scan_has_the_age_of_its_own_instance(tmp_path, caplog):
    caplog.set_level("INFO")
    table = "eid,31-0.0,21003-0.0,21003-2.0,21003-3.0\n11,0,50,60,64\n12,1,51,61,\n13,1,40,,\n14,0,44,66,\n15,0,44,66,\n"
    labels = organized(tmp_path, table, ("11", "2"), ("11", "3"), ("12", "3"), ("14", "2"), ("99", "2"))
    assert labels["age"].fillna(0).tolist() == [60, 64, 0, 66, 0]
    assert labels["sex"].fillna("").tolist() == ["F", "F", "M", "F", ""]
    assert labels["session"].tolist() == ["2", "3", "3", "2", "2"]
    assert labels["problem"].tolist() == ["", "", "age: missing", "", "scan: no row in the table"]
    assert labels.loc["11_20252_3_0", "path"] == f"../11_20252_3_0.zip/{BRAIN}"
    assert "2 rows of" in caplog.text and "without a scan" in caplog.text
    assert len(pd.read_csv(tmp_path / "d/scans.csv")) == 4


def test_rows_of_a_participant_that_contradict_each_other_are_told(tmp_path):
    table = "eid,31-0.0,21003-2.0\n11,0,60\n11,0,61\n12,7,60\n"
    labels = organized(tmp_path, table, ("11", "2"), ("12", "2"))
    assert labels["problem"].tolist() == ["age: contradictory (60, 61)", "sex: unknown code ('7', expected 0 or 1)"]
    assert labels.loc["11_20252_2_0", "sex"] == "F"


def test_a_table_without_the_column_of_an_instance_is_told(tmp_path):
    with pytest.raises(UserError, match=r"has no column '21003-3\.0'\. Did you mean '21003-2\.0'"):
        organized(tmp_path, '"eid","31-0.0","21003-2.0"\n11,0,60\n', ("11", "2"), ("11", "3"))


def test_a_table_of_the_research_analysis_platform_needs_only_other_names(tmp_path):
    columns = {
        "subject": {"from": "participant.eid"},
        "age": {"from": "participant.p21003_i{session}", "range": [40, 100]},
        "sex": {"from": "participant.p31", "codes": {"Female": "F", "Male": "M"}},
    }
    table = "participant.eid,participant.p31,participant.p21003_i2\n11,Female,60\n"
    labels = organized(tmp_path, table, ("11", "2"), columns=columns)
    assert labels.loc["11_20252_2_0", ["age", "sex", "problem"]].tolist() == [60, "F", ""]


def test_of_a_wide_table_only_the_columns_needed_are_read_and_a_few_told(tmp_path):
    wide = [f"{field}-0.0" for field in range(1000)]
    (tmp_path / "ukb.csv").write_text(",".join(["eid", *wide]) + "\n" + ",".join(["11"] * 1001) + "\n")
    assert list(read_table(tmp_path / "ukb.csv", only={"eid", "31-0.0"})) == ["eid", "31-0.0"]
    scans = pd.DataFrame({"subject": ["11"], "session": ["2"]})
    with pytest.raises(UserError, match=r"no column '21003-2\.0'") as raised:
        read_participants(tmp_path / "ukb.csv", None, scans, COLUMNS)
    assert len(str(raised.value)) < 1000


def test_a_zip_that_is_gone_is_told_by_name(tmp_path):
    fetched = listed(tmp_path, ("11", "2"), ("12", "2"))
    (tmp_path / "12_20252_2_0.zip").unlink()
    (tmp_path / "ukb.csv").write_text("eid,31-0.0,21003-2.0\n11,0,60\n12,0,60\n")
    labels = organize(
        tmp_path / "l.csv", tmp_path / "s.csv", columns=COLUMNS, table=tmp_path / "ukb.csv", fetched=fetched
    ).set_index("id")
    assert labels["problem"].tolist() == ["", f"scan: no file ({tmp_path / '12_20252_2_0.zip' / BRAIN})"]


def test_a_layout_lists_what_is_in_a_zip_and_links_nothing(tmp_path):
    organized(tmp_path, "eid,31-0.0,21003-2.0\n11,0,60\n12,1,70\n", ("11", "2"), ("12", "2"))
    table = layout(
        tmp_path / "d/labels.csv", tmp_path / "d/sex/labels.csv", column="sex", classes={"F": "Females", "M": "Males"}
    )
    assert table["path"].tolist() == [f"../../{eid}_20252_2_0.zip/{BRAIN}" for eid in (11, 12)]
    assert [path.name for path in (tmp_path / "d/sex").iterdir()] == ["labels.csv"]


def test_the_schema_names_the_images_that_can_be_read():
    schema = yaml.safe_load((ROOT / "workflow/schemas/dataset.schema.yaml").read_text())["properties"]["ukbfetch"]["properties"]
    assert tuple(schema["member"]["enum"]) == MEMBERS
    assert schema["member"]["default"] == BRAIN


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"stripped": False}, "ukb.stripped: found false, expected true for T1/T1_brain.nii.gz"),
        ({"ukbfetch": {"member": "T1/T1.nii.gz"}}, "ukb.*stripped: found true, expected false for T1/T1.nii.gz"),
        ({"ukbfetch": {"calls": 11}}, "ukb.ukbfetch.calls: found 11"),
        ({"ukbfetch": {"kee": "k"}}, "ukb.ukbfetch.kee: unknown key; did you mean 'key'"),
        ({"images": ["scans"], "pattern": "(?P<subject>.*)"}, "ukb.images: found beside `ukbfetch`"),
        ({"columns": {"session": {"from": "visit"}}}, "ukb.columns.session: found beside `ukbfetch`"),
    ],
)
def test_a_wrong_dataset_is_told(tmp_path, changes, told):
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text())
    overlay = yaml.safe_load((ROOT / "config/experiments/ukb-age.yaml").read_text())
    config |= {"run": overlay["run"], "experiments": overlay["experiments"], "datasets": {"ukb": changes}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    assert set(SECTIONS.values()) <= config.keys()
    with pytest.raises(UserError, match=told):
        resolve(config, [tmp_path / "mine.yaml"], ROOT)


def test_ukb_goes_through_the_workflow_with_zips_there_and_zips_to_fetch(tmp_path):
    folder = checkout(tmp_path / "run")
    biobank = Biobank(tmp_path)
    biobank.program.write_text(biobank.program.read_text().replace("exec", f"UKB_SERVICE={biobank.service} exec"))
    mine = folder / "ukb"
    mine.mkdir()
    lines = [f"{1000000 + number} 20252_2_0" for number in range(26)]
    lines += [f"{1000000 + number} 20252_3_0" for number in range(4)]
    (mine / "t1.bulk").write_text("\n".join(lines) + "\n")
    rows = [f"{1000000 + number},{number % 2},50,{55 + number % 20},{60 + number % 20}" for number in range(300) if number != 7]
    (mine / "ukb.csv").write_text("\n".join(["eid,31-0.0,21003-0.0,21003-2.0,21003-3.0", *rows]) + "\n")
    for seed, line in enumerate(lines):
        where = mine / "zips" if seed < 15 else biobank.service
        unusable = {"T1/unusable/T1.nii.gz": b"bad"} if seed == 5 else {}
        write_zip(where / f"{line.replace(' ', '_')}.zip", seed, matrix=b"" if seed == 6 else None, **unusable)
    cut = mine / "zips" / f"{lines[16].replace(' ', '_')}.zip"
    cut.write_bytes((biobank.service / cut.name).read_bytes()[:-100])
    overlay = {
        "preprocess": {"linear": {"registration": "none", "voxel_mm": 4, "shape": [40, 48, 40]}},
        "experiments": {"ukb-age": {"preprocess": "linear", "training": "short", "covariates": []}},
        "datasets": {"ukb": {"shards": 2, "ukbfetch": {"key": str(biobank.key), "program": str(biobank.program)}}},
    }
    (folder / "small.yaml").write_text(yaml.safe_dump(overlay))
    configs = ["--configfile", "config/experiments/ukb-age.yaml", "small.yaml"]
    shards = [f"preprocessed/ukb/linear/shard-00{shard}.csv" for shard in (0, 1)]
    snakemake(folder, *shards, "data/ukb/age/labels.csv", *configs)

    assert sorted(line for call in biobank.asked() for line in call["lines"]) == sorted(lines[15:])
    labels = read_labels(folder / "data/ukb/labels.csv").set_index("id")
    assert len(labels) == 30
    problems = labels["problem"][labels["problem"] != ""]
    assert problems.to_dict() == {
        "1000005_20252_2_0": "scan: unusable (UK Biobank put it under T1/unusable)",
        "1000007_20252_2_0": "scan: no row in the table",
    }
    assert labels.loc["1000002_20252_3_0", ["subject", "session", "age"]].tolist() == ["1000002", "3", 62]
    index = pd.concat(pd.read_csv(folder / shard) for shard in shards).set_index("id")
    assert len(index) == 28 and index["problem"].isna().all()
    assert index["correlation"].drop("1000006_20252_2_0").min() > 0.95 > index.loc["1000006_20252_2_0", "correlation"]
    listed = pd.read_csv(folder / "data/ukb/age/labels.csv")
    assert len(listed) == 28 and all((folder / "data/ukb/age" / path).parents[1].is_file() for path in listed["path"])
    assert not list((folder / "data").rglob("*.nii.gz"))
    told = "".join(path.read_text(errors="replace") for path in folder.glob("logs/**/*.log"))
    assert PASSWORD not in told and APPLICATION not in told

    again = ["-n", *configs]
    planned = jobs(snakemake(folder, *again))
    assert planned["train"] == 5 and not {"ukbfetch", "organize", "preprocess"} & planned.keys()
    del overlay["datasets"]["ukb"]["ukbfetch"]
    overlay["datasets"]["ukb"]["ukbfetch"] = {"calls": 9}
    (folder / "small.yaml").write_text(yaml.safe_dump(overlay))
    assert not {"ukbfetch", "organize", "preprocess"} & jobs(snakemake(folder, *again)).keys()
    (mine / "t1.bulk").write_text("\n".join(lines[:-1]) + "\n")
    assert {"ukbfetch", "organize", "preprocess"} <= jobs(snakemake(folder, *again)).keys()


@pytest.mark.long
def test_40000_scans_are_planned_in_seconds_and_organized_in_under_a_minute(tmp_path):
    """Of zips as small as can be: nothing reads more of a zip than its directory."""
    folder = checkout(tmp_path / "run")
    (folder / "ukb/zips").mkdir(parents=True)
    repeats = [number % 10 // 9 for number in range(40_000)]  # every tenth scan is the second of the one before
    lines = [f"{1000000 + number - repeat} 20252_{2 + repeat}_0" for number, repeat in enumerate(repeats)]
    participants = (f"{1000000 + number},{number % 2},50,{55 + number % 20},{58 + number % 20}\n" for number in range(500_000))
    (folder / "ukb/ukb.csv").write_text("eid,31-0.0,21003-0.0,21003-2.0,21003-3.0\n" + "".join(participants))
    configs, seconds = ["--configfile", "config/experiments/ukb-age.yaml"], {}
    for count in (1, len(lines)):
        for number, line in enumerate(lines[:count]):
            with zipfile.ZipFile(folder / f"ukb/zips/{line.replace(' ', '_')}.zip", "w") as archive:
                archive.writestr(BRAIN, number.to_bytes(4, "big"))
        (folder / "ukb/t1.bulk").write_text("\n".join(lines[:count]) + "\n")
        began = time.monotonic()
        snakemake(folder, "-n", *configs)
        seconds[f"plan of {count}"] = time.monotonic() - began
    began = time.monotonic()
    snakemake(folder, "data/ukb/scans.csv", *configs)
    seconds["ukbfetch and organize"] = time.monotonic() - began
    seconds["organize"] = pd.read_csv(folder / "benchmarks/organize/ukb.tsv", sep="\t").loc[0, "s"]
    print(json.dumps(seconds, indent=2))
    assert seconds[f"plan of {len(lines)}"] < seconds["plan of 1"] + 3
    assert seconds["organize"] < 60
    labels = read_labels(folder / "data/ukb/labels.csv")
    assert len(labels) == len(lines) and (labels["problem"] == "").all()
    assert os.path.getsize(folder / "data/ukb/scans.csv") < 10_000_000
