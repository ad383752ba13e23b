"""IXI: the real table with the real names, every quirk of it, and the kinds of scans that are organized and checked alone."""

import gzip
import hashlib
import re
import tarfile

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import yaml

from conftest import ROOT, shared
from http_server import FileServer
from mriflow.organize import organize
from mriflow.tables.labels import TEXT_COLUMNS, read_labels, usable
from test_workflow import checkout, jobs, snakemake

KINDS = {"T1": "ixi", "T2": "ixi-t2", "PD": "ixi-pd", "MRA": "ixi-mra"}
OVERLAY = ["--configfile", "config/experiments/ixi-t2-pd-mra.yaml"]


def described(kind: str) -> dict:
    return yaml.safe_load((ROOT / f"config/datasets/{KINDS[kind]}.yaml").read_text())


@pytest.fixture(scope="module")
def joined(tmp_path_factory):
    """A function that joins the real table with the names of all images of a kind; those of T2, PD and MRA are the T1's."""
    tables, made = shared("ixi-tables"), {}

    def join(kind: str) -> pd.DataFrame:
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            (folder / "images").mkdir()
            for name in (tables / "IXI_T1_581_subject_ids.txt").read_text().split():
                (folder / f"images/{name}-{kind}.nii.gz").write_bytes(gzip.compress(name.encode(), mtime=0))
            options = {key: described(kind)[key] for key in ("columns", "pattern")}
            files = {"table": tables / "IXI.xls", "images": [folder / "images"]}
            organize(folder / "labels.csv", folder / "scans.csv", **files, **options)
            made[kind] = read_labels(folder / "labels.csv")
        return made[kind]

    return join


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_scan_is_joined_with_the_table(joined, kind):
    labels = joined(kind)
    images = labels[labels["path"] != ""]
    assert len(images) == 581 and images["id"].str.endswith(f"-{kind}").all()
    assert images["problem"].str.fullmatch("scan: no row in the table").sum() == 15
    assert (images["problem"] == "age: missing").sum() == 3
    assert set(images.loc[images["problem"].str.contains("contradictory"), "subject"]) == {"IXI219", "IXI328"}
    good = images[images["problem"] == ""]
    assert good["site"].value_counts().to_dict() == {"Guys": 313, "HH": 180, "IOP": 68}
    assert usable(images, "age").sum() == 561 and usable(images, "sex").sum() == 565


def test_the_kinds_have_the_same_columns_and_say_what_they_are():
    for kind in KINDS:
        assert described(kind)["columns"] == described("T1")["columns"]
        assert described(kind).get("modality", "T1") == kind
        assert re.fullmatch(described(kind)["pattern"], f"IXI012-HH-1211-{kind}.nii.gz")["site"] == "HH"
        assert not any(re.fullmatch(described(kind)["pattern"], f"IXI012-HH-1211-{k}.nii.gz") for k in KINDS if k != kind)


def test_26_people_with_two_rows_are_told(joined):
    labels = joined("T1")
    twice = labels.loc[labels["notes"].str.contains("rows: duplicated"), "notes"]
    kinds = {"with the same values": 1, "one completes another": 21, "with other values": 4}
    assert twice.str.extract(r"rows: duplicated, ([a-z ]+) \(2\)")[0].value_counts().to_dict() == kinds
    contradictory = labels[labels["problem"].str.contains("contradictory")]
    assert contradictory.set_index("subject")["problem"].str.replace(r" \(.*?\)", "", regex=True).to_dict() == {
        "IXI219": "age: contradictory",
        "IXI328": "age: contradictory; sex: contradictory",
    }
    assert labels.loc[labels["subject"] == "IXI513", "problem"].tolist() == ["scan: no image; age: missing"]


def test_zeros_stand_for_not_known(joined):
    labels = joined("T1")
    for column in set(described("T1")["columns"]) - {"subject", "age", "sex"}:
        assert not labels[column].astype(str).isin(["0", "0.0"]).any(), column
    assert labels["height"].min() >= 120 and labels["weight"].max() <= 250


def test_slips_of_height_and_weight_and_unknown_codes_are_left_empty_and_noted(joined):
    notes = joined("T1").set_index("subject")["notes"]
    for subject, note in {
        "IXI416": "height: out of range (1520, expected 120 to 220 cm)",
        "IXI560": "height: out of range (1850, expected 120 to 220 cm)",
        "IXI199": "height: out of range (75, expected 120 to 220 cm)",
        "IXI607": "weight: out of range (960, expected 30 to 250 kg)",
        "IXI368": "weight: out of range (710, expected 30 to 250 kg)",
    }.items():
        assert note in notes[subject], subject
    assert notes.str.contains(r"ethnicity: unknown code \('2', expected 1 or 3 or 4 or 5 or 6\)").sum() == 16


def test_the_codes_are_those_of_the_legends():
    sheets = pd.read_excel(shared("ixi-tables") / "IXI.xls", sheet_name=None)
    columns = described("T1")["columns"]
    names = {
        "ethnicity": "Ethnicity",
        "marital": "Marital Status",
        "occupation": "Occupation",
        "qualification": "Qualification",
    }
    for column, sheet in names.items():
        assert set(columns[column]["codes"]) == set(sheets[sheet]["ID"]), column
    for column in ("ethnicity", "marital"):
        legend = sheets[names[column]].set_index("ID").iloc[:, 0]
        assert columns[column]["codes"] == legend.to_dict()


def t2_archive(path, subjects):
    """Write an archive of T2 scans as IXI publishes them: their voxels are not isotropic; the second is the first once more."""
    rng = np.random.default_rng(0)
    with tarfile.open(path, "w") as tar:
        for number, name in enumerate(subjects):
            voxels = rng.integers(0, 1000, (256, 256, 4)).astype(np.int16) if number != 1 else voxels  # noqa: F821
            image = nib.Nifti1Image(voxels, np.diag([0.9375, 0.9375, 1.25, 1]))
            image.header["descrip"] = name.encode()
            file = path.parent / f"{name}-T2.nii.gz"
            nib.save(image, file)
            tar.add(file, file.name)
            file.unlink()


@pytest.mark.long
def test_t2_scans_are_downloaded_joined_and_checked_and_nothing_is_made_of_them(tmp_path):
    tables = shared("ixi-tables")
    names = (tables / "IXI_T1_581_subject_ids.txt").read_text().split()[:8]
    (tmp_path / "site").mkdir()
    t2_archive(tmp_path / "site/IXI-T2.tar", names)
    (tmp_path / "site/IXI.xls").write_bytes((tables / "IXI.xls").read_bytes())
    folder = checkout(tmp_path / "run")
    with FileServer(tmp_path / "site") as server:
        archive, table = described("T2")["downloads"]
        archive |= {"urls": [server.url("IXI-T2.tar")]}
        archive["md5"] = [hashlib.md5((tmp_path / "site/IXI-T2.tar").read_bytes()).hexdigest()]
        changes = {"downloads": [archive, table | {"urls": [server.url("IXI.xls")]}]}
        (folder / "mine.yaml").write_text(yaml.safe_dump({"run": ["ixi-t2"], "datasets": {"ixi-t2": changes}}))
        made = snakemake(folder, *OVERLAY, "mine.yaml")
    assert not {"preprocess", "split", "train", "evaluate"} & jobs(made).keys()
    labels = read_labels(folder / "data/ixi-t2/labels.csv").set_index("id")
    assert (labels["path"] != "").sum() == 8
    twins = [f"{name}-T2" for name in names[:2]]
    assert labels.loc[twins, "problem"].tolist() == [f"scan: same image as another subject ({one})" for one in reversed(twins)]
    page = (folder / "results/cohorts/ixi-t2/check.html").read_text()
    assert f"{twins[0]} = {twins[1]} (headers differ)" in page
    assert "0.9375x0.9375x1.25" in page
    assert "organized and checked alone" in (folder / "results/report.html").read_text()
    told = snakemake(folder, "results/ixi-t2/metrics.json", "-n", *OVERLAY, "mine.yaml", check=False)
    assert told.returncode == 1
    assert "datasets.ixi-t2: only T1-weighted or stripped scans are preprocessed (`modality`)" in told.stderr + told.stdout
    assert set(TEXT_COLUMNS) <= set(pd.read_csv(folder / "data/ixi-t2/labels.csv").columns)
