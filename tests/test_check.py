import gzip
import json
import os
import re
import subprocess
import sys
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.metrics import roc_auc_score

from conftest import ROOT, shared, write_scan
from mriflow import check
from mriflow.base.errors import UserError
from mriflow.evaluation.metrics import auc
from mriflow.evaluation.site_baseline import site_baseline
from mriflow.images.headers import read_header
from mriflow.organize import organize
from mriflow.reporting.findings import level_of_fault
from mriflow.tables.labels import TEXT_COLUMNS
from mriflow.tables.problems import reasons_of

SHAPE = (40, 48, 44)
VOXELS = np.random.default_rng(0).integers(0, 255, SHAPE, dtype=np.uint8)


def header_of(path, change=lambda image: None, data=VOXELS, mm=4.0):
    """Write a scan, change its header, and return what is read of it."""
    image = nib.Nifti1Image(data, np.diag([mm, mm, mm, 1.0]))
    image.set_qform(image.affine, 1)
    image.set_sform(image.affine, 1)
    change(image)
    nib.save(image, path)
    return read_header(path)


def test_a_sound_header_is_told_as_it_is(tmp_path):
    def psr(image):
        affine = np.array([[0, 0, 3.0, -60], [-4, 0, 0, 90], [0, 4, 0, -80], [0, 0, 0, 1]])
        image.set_qform(affine, 1)
        image.set_sform(affine, 2)

    row = header_of(tmp_path / "a.nii.gz", psr)
    assert row.pop("bytes") == (tmp_path / "a.nii.gz").stat().st_size
    assert row == {
        "matrix": "40x48x44", "spacing": "4x4x3", "spacing_1": 4.0, "spacing_2": 4.0, "spacing_3": 3.0,
        "orientation": "PSR", "dtype": "uint8", "qform_code": 1, "sform_code": 2, "qform_sform_mm": 0.0, "fault": "",
    }  # fmt: skip


def rewrite(path, **fields):
    """Write fields of a header as bytes, for nibabel puts right what it saves."""
    data = path.read_bytes()
    header = nib.Nifti1Header(data[:348], check=False)
    for name, value in fields.items():
        header[name] = value
    path.write_bytes(header.binaryblock + data[348:])


UNTOLD = {"qform_code": 0, "sform_code": 0}


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"srow_x": [4, 0, 0, 1.5]}, ""),  # less than half a voxel
        ({"srow_x": [4, 0, 0, 30]}, "qform and sform disagree (by up to 30 mm; tools differ in which they believe)"),
        (UNTOLD, "orientation is not given (neither qform nor sform; left and right may be exchanged)"),
        (
            UNTOLD | {"pixdim": [1, 0.4, 0.4, 0.4, 0, 0, 0, 0]},
            "implausible field of view (16 x 19.2 x 17.6 mm, expected 100 to 500; are these mm?); "
            "orientation is not given (neither qform nor sform; left and right may be exchanged)",
        ),
        (
            {"pixdim": [1, 4, 4, 3, 0, 0, 0, 0], "qform_code": 0},
            "pixdim and affine disagree on the voxel size (affine: 4 x 4 x 4 mm)",
        ),
        ({f"srow_{axis}": [0, 0, 0, 0] for axis in "xyz"}, "the affine of the header places no voxels"),
        ({"srow_x": [np.nan, 0, 0, 0]}, "the affine of the header places no voxels"),
        ({"quatern_b": 7}, "qform is invalid (ValueError: w2 should be positive, but is -4.800000e+01)"),
    ],
)
def test_faults_of_a_header_are_told(tmp_path, fields, fault):
    header_of(tmp_path / "a.nii")
    rewrite(tmp_path / "a.nii", **fields)
    assert read_header(tmp_path / "a.nii")["fault"] == fault


def blocks(data):
    """Compress as bgzip does: several gzip members, the last one empty."""
    return b"".join(gzip.compress(part) for part in (data[:1000], data[1000:], b""))


NII = "a.nii"
GZ = "a.nii.gz"


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        (NII, lambda data: data[:-1], "file is shorter than its header says"),
        (NII, lambda data: data + b"\0", "file is longer than its header says"),
        (NII, lambda data: data[:200], "file cannot be read"),
        (NII, lambda data: b"", "file cannot be read"),
        (NII, lambda data: b"<html>not found</html>" * 50, "file cannot be read"),
        (GZ, lambda data: gzip.compress(data), ""),
        (GZ, blocks, ""),
        (GZ, lambda data: gzip.compress(data)[:-5000], "file is cut short or damaged"),
        (GZ, lambda data: gzip.compress(data[:-1]), "file is shorter than its header says"),
        (GZ, lambda data: gzip.compress(data + b"\0"), "file is longer than its header says"),
        (GZ, lambda data: data, "file cannot be read"),
        (GZ, lambda data: gzip.compress(data)[:10], "file cannot be read"),
        (GZ, lambda data: b"", "file cannot be read"),
    ],
)
def test_a_file_that_cannot_hold_what_its_header_says_is_told(tmp_path, name, change, reason):
    header_of(tmp_path / "whole.nii")
    (tmp_path / name).write_bytes(change((tmp_path / "whole.nii").read_bytes()))
    fault = read_header(tmp_path / name)["fault"]
    assert reasons_of(fault) == [reason] * bool(reason)
    assert not fault or level_of_fault(fault) == "error"  # `preprocess` leaves the scan out


def test_missing_files_and_images_that_are_no_volumes_are_told(tmp_path):
    assert read_header(tmp_path / "none.nii")["fault"].startswith("file cannot be read (FileNotFoundError")
    assert header_of(tmp_path / "a.nii", data=VOXELS[..., None])["fault"] == ""
    assert header_of(tmp_path / "b.nii", data=np.stack([VOXELS] * 3, 3))["fault"] == "image is not 3D (40x48x44x3)"
    colours = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    assert header_of(tmp_path / "c.nii", data=colours)["fault"].startswith("voxels are no plain numbers")


def test_header_in_a_zip_is_read_there(tmp_path):
    header_of(tmp_path / "T1_brain.nii.gz")
    with zipfile.ZipFile(tmp_path / "1000001_20252_2_0.zip", "w") as archive:
        archive.write(tmp_path / "T1_brain.nii.gz", "T1/T1_brain.nii.gz")
    path = tmp_path / "1000001_20252_2_0.zip/T1/T1_brain.nii.gz"
    assert read_header(path) == read_header(tmp_path / "T1_brain.nii.gz")
    path.parents[1].write_bytes(path.parents[1].read_bytes()[:-100])
    assert read_header(path)["fault"].startswith("file cannot be read (BadZipFile")


class Text(HTMLParser):
    """The tables of a page by the title above them: rows of cells."""

    def __init__(self, page):
        super().__init__()
        self.tables, self.tags, self.inside, self.title = {}, set(), "", ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == "h2":
            self.title = ""
        elif tag == "tr":
            self.tables.setdefault(self.title, []).append([])
        elif tag in ("td", "th"):
            self.tables[self.title][-1].append("")
        self.inside = tag if tag in ("h2", "td", "th") else self.inside

    def handle_endtag(self, tag):
        self.inside = "" if tag == self.inside else self.inside

    def handle_data(self, text):
        if self.inside == "h2":
            self.title += text
        elif self.inside:
            self.tables[self.title][-1][-1] += text


@pytest.fixture
def made(tmp_path):
    """Labels of 40 scans of two sites, one of 4 mm and one of 5 mm voxels; sex goes with the site, age does not."""
    rng = np.random.default_rng(1)
    rows = []
    for i in range(40):
        site = "North" if i < 20 else "South"
        path = write_scan(tmp_path / f"S{i:02d}.nii.gz", rng.integers(0, 99, (30, 36, 30), dtype=np.uint8), 4 + (i >= 20))
        sex = "FM"[(i >= 20) ^ (i % 10 == 0)]
        rows.append(
            {"id": f"S{i:02d}", "subject": f"S{i:02d}", "site": site, "path": path.name, "sex": sex, "age": 20 + i % 20}
        )
    table = pd.DataFrame(rows).assign(session="", problem="", notes="", height=170.0, group="0")
    table["fingerprint"] = table["id"]
    table.loc[1, ["path", "problem"]] = ["", "scan: no image"]
    table.loc[2, ["fingerprint", "problem"]] = ["S03", "scan: same image as another subject (S03)"]
    table.loc[3, "problem"] = "scan: same image as another subject (S02)"
    table.loc[4, ["fingerprint", "subject", "problem"]] = ["S05", "S05", "scan: same image as another (S05)"]
    table.loc[6, ["age", "problem"]] = [np.nan, "age: contradictory (3 and 4; sic)"]
    table.loc[[7, 8], ["age", "problem"]] = [np.nan, "age: missing"]
    table.loc[9, ["height", "notes"]] = [np.nan, "height: out of range (17, expected 120 to 220 cm)"]
    table.loc[11, ["age", "problem"]] = [np.nan, "age: out of range (1950, expected 5 to 110 years)"]
    table.loc[12, "problem"] = "scan: left out by hand (moved)"
    table.loc[13, "group"] = np.nan
    table.loc[14, "group"] = "1.5"
    whole = (tmp_path / "S30.nii.gz").read_bytes()
    (tmp_path / "S30.nii.gz").write_bytes(whole[: len(whole) // 2])
    table.to_csv(tmp_path / "labels.csv", index=False)
    return tmp_path


TARGETS = {"age": [], "sex": ["F", "M"], "group": ["0", "1"]}


def test_headers_that_were_read_before_are_not_read_for_other_targets(made, capsys, monkeypatch):
    pages = made / "first.html", made / "second.html"
    check.check(made / "labels.csv", targets={}, csv=made / "headers.csv")
    check.check(made / "labels.csv", targets=TARGETS, page=pages[0])
    monkeypatch.setattr(check, "read_headers", None)
    check.check(made / "labels.csv", targets=TARGETS, page=pages[1], headers=made / "headers.csv")
    assert pages[0].read_bytes() == pages[1].read_bytes()
    labels = pd.read_csv(made / "labels.csv")
    labels[1:].to_csv(made / "labels.csv", index=False)
    with pytest.raises(UserError, match="headers.csv: found other scans than in .*labels.csv"):
        check.check(made / "labels.csv", targets=TARGETS, headers=made / "headers.csv")


def test_findings_are_those_that_were_made(made, capsys):
    page, csv = made / "check.html", made / "headers.csv"
    findings = check.check(made / "labels.csv", targets=TARGETS, title="Ours", page=page, csv=csv)
    told = {finding.what: (finding.level, finding.scans, finding.first) for finding in findings}
    site = next(what for what in told if what.startswith("site alone"))
    assert told.pop(site) == ("warning", 35, "")
    assert site.startswith("site alone predicts sex: accuracy 0.89 [") and "leave-site-out" in site
    assert told == {
        "file is cut short or damaged": ("error", 1, "S30"),
        "same image under several subjects: all but one of the names, and their labels, are wrong": ("error", 2, "S02 = S03"),
        "same image twice of one subject": ("warning", 2, "S04 = S05"),
        "age: contradictory": ("warning", 1, "S06"),
        "age: out of range": ("warning", 1, "S11"),
        "age: missing": ("warning", 2, "S07, S08"),
        "group: missing": ("warning", 1, "S13"),
        "scan: no image": ("note", 1, "S01"),
        "scan: left out by hand": ("note", 1, "S12"),
        "height: out of range": ("note", 1, "S09"),
        "group: not one of the target's classes (1.5)": ("note", 1, "S14"),
        "2 voxel sizes: most are 5x5x5 (20), these are not": ("note", 19, "S00, S02, S03, …"),
        "the usual voxel size differs by site: North 4.00 x 4.00 x 4.00 mm, South 5.00 x 5.00 x 5.00 mm": ("note", 39, ""),
    }
    assert [f.level for f in findings] == sorted((f.level for f in findings), key=list(check.LEVELS).index)

    tables = Text(page.read_text()).tables
    assert [row[1] for row in tables["Counts"][1:]] == ["40", "39", "38", "34", "4"]
    assert len(tables["Findings"]) == 1 + len(findings)
    assert tables["Orientation"][1:] == [["RAS", "39", "South 20, North 19"]]
    assert tables["Voxel sizes (mm)"][1:] == [["5x5x5", "20", "South 20"], ["4x4x4", "19", "North 19"]]
    assert tables["Labels"][1:] == [
        ["sex", "35", "0", "0", "0", "M 20, F 15"],
        ["age", "31", "2", "1", "1", "20 to 39, median 31"],
        ["height", "34", "0", "0", "1", "170 to 170, median 170"],
        ["group", "34", "1", "0", "0", "0 33, 1.5 1"],
    ]
    assert tables["sex by site"][1][:3] == ["North", "15", "15"]
    assert [row[0] for row in tables["sex guessed from the site alone"]] == ["", "accuracy", "AUC"]
    assert [row[0] for row in tables["age guessed from the site alone"]] == ["", "R²", "MAE"]
    headers = pd.read_csv(csv).set_index("id")
    assert len(headers) == 40 and headers.loc["S20", "spacing_2"] == 5 and headers["matrix"].count() == 39
    assert headers.loc["S30", "fault"].startswith("file is cut short") and pd.isna(headers.loc["S01", "dtype"])
    printed = capsys.readouterr().out
    assert "Check of Ours" in printed
    assert all(finding.what in printed for finding in findings)


def test_page_escapes_what_it_is_given(made):
    evil = "<script>alert(1)</script>"
    labels = pd.read_csv(made / "labels.csv", dtype=str)
    labels.loc[0, ["id", "site", "sex"]] = evil
    labels.loc[1, "problem"] = f"scan: {evil}"
    labels.to_csv(made / "labels.csv", index=False)
    check.check(made / "labels.csv", targets={"sex": [evil, "F", "M"]}, title=evil, page=made / "p.html")
    text = (made / "p.html").read_text()
    assert "&lt;script&gt;" in text and "script" not in Text(text).tags


def test_text_where_a_number_is_to_be_predicted_is_told(made):
    labels = pd.read_csv(made / "labels.csv", dtype=str)
    labels.loc[0, "age"] = "old"
    labels.to_csv(made / "labels.csv", index=False)
    findings = check.check(made / "labels.csv", targets={"age": []})
    assert ("warning", "age: not a number", 1) in [(f.level, f.what, f.scans) for f in findings]


def test_a_dataset_without_images_or_sites_or_labels_is_checked_too(tmp_path):
    labels = pd.DataFrame({"id": ["a"], "subject": ["a"]}).reindex(columns=[*TEXT_COLUMNS, "age"])
    labels.to_csv(tmp_path / "labels.csv", index=False)
    assert check.check(tmp_path / "labels.csv", targets={"age": []}, page=tmp_path / "p.html") == []
    assert "Not asked" in (tmp_path / "p.html").read_text()
    with pytest.raises(UserError, match="no column 'sex'"):
        check.check(tmp_path / "labels.csv", targets={"sex": ["F", "M"]})


def people(n=200, seed=0):
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({"subject": [f"S{i}" for i in range(n)], "site": rng.choice(["A", "B", "C"], n)})
    return table.assign(age=rng.normal(50, 10, n), sex=rng.choice(["F", "M"], n), stage=rng.choice(["x", "y", "z"], n))


@pytest.mark.parametrize(("target", "classes"), [("age", []), ("sex", ["F", "M"]), ("stage", ["x", "y", "z"])])
def test_site_alone_tells_nothing_by_chance_and_what_goes_with_it(target, classes):
    independent = people()
    figures = site_baseline(independent, target, classes)
    assert [f.name for f in figures] == {"age": ["r2", "mae"], "sex": ["accuracy", "auc"], "stage": ["accuracy"]}[target]
    assert not any(f.beats_trivial for f in figures)
    site = independent["site"]
    confounded = independent.assign(
        age=independent["age"] + 20 * (site == "A"),
        sex=independent["sex"].where(site != "A", "F").where(site != "B", "M"),
        stage=independent["stage"].where(site != "A", "x").where(site != "B", "y"),
    )
    figures = site_baseline(confounded, target, classes)
    assert all(f.low < f.value < f.high and f.beats_trivial for f in figures)


def test_auc_by_counting_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    truth, scores = rng.integers(0, 2, 300), rng.integers(0, 6, 300) / 6
    assert auc(truth, scores) == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
    assert np.isnan(auc(np.ones(5, int), scores[:5]))


def test_site_alone_meets_no_subject_twice():
    """Where each subject has a site of its own, nothing but another scan of the same subject could tell."""
    table = pd.concat([people(60).assign(site=lambda t: t["subject"])] * 3)
    assert not any(f.beats_trivial for f in site_baseline(table, "age", []) + site_baseline(table, "sex", ["F", "M"]))


def test_site_alone_is_not_asked_of_too_little():
    table = people()
    assert site_baseline(table.assign(site="A"), "age", []) == []
    assert site_baseline(table.head(9), "age", []) == []
    assert site_baseline(table.assign(sex="F"), "sex", ["F", "M"]) == []
    few = table.head(12).assign(stage=list("abcdefabcdef"))
    assert site_baseline(few, "stage", list("abcdef")) == []


def test_the_147_real_scans(tmp_path):
    described = yaml.safe_load((ROOT / "config/datasets/ixi.yaml").read_text())
    organize(
        tmp_path / "labels.csv",
        tmp_path / "scans.csv",
        table=shared("ixi-tables") / "IXI.xls",
        columns=described["columns"],
        images=[shared("ixi-hh-2mm") / "t1"],
        pattern=described["pattern"].replace("-T1", "_T1"),
    )
    findings = check.check(tmp_path / "labels.csv", targets={"age": [], "sex": ["F", "M"]})
    told = {finding.what: (finding.level, finding.scans) for finding in findings}
    assert told == {
        "scan: no row in the table": ("warning", 2),
        "age: contradictory": ("warning", 2),
        "sex: contradictory": ("warning", 1),
        "scan: no image": ("note", 448),
        "height: out of range": ("note", 4),
        "rows: duplicated, one completes another": ("note", 21),
        "rows: duplicated, with the same values": ("note", 1),
        "rows: duplicated, with other values": ("note", 4),
        "ethnicity: unknown code": ("note", 16),
        "marital: contradictory": ("note", 1),
        "qualification: contradictory": ("note", 1),
        "weight: contradictory": ("note", 3),
        "weight: out of range": ("note", 3),
        "height: contradictory": ("note", 2),
    }


def checkout(folder, monkeypatch):
    for name in ("Snakefile", "config", "workflow", "envs", "profiles"):
        (folder / name).symlink_to(ROOT / name)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--dataset=ixy"], "--dataset: there is no dataset 'ixy'; did you mean 'ixi'?"),
        (["--dataset=demo", "--configfile", "none.yaml"], "none.yaml: no such config file"),
        (["--dataset=demo", "--configfile", "config/experiments/quick.yaml"], "quick/data/demo/labels.csv: not made yet"),
        (["--labels=none.csv"], "none.csv: no such file"),
    ],
)
def test_mistakes_are_told(tmp_path, monkeypatch, arguments, told):
    checkout(tmp_path, monkeypatch)
    with pytest.raises(UserError, match=re.escape(told)):
        check.main(arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ["demo"],
        ["ixi"],
        ["demo", "--configfile", "config/experiments/quick.yaml"],
        ["demo", "--configfile", "config/experiments/ixi-age.yaml"],
    ],
)
def test_the_command_that_makes_labels_is_one(tmp_path, monkeypatch, arguments):
    checkout(tmp_path, monkeypatch)
    with pytest.raises(UserError) as error:
        check.main(["--dataset", *arguments])
    command = str(error.value).split("with: ")[1]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # as in an activated environment
    planned = subprocess.run(f"{command} -n", shell=True, capture_output=True, text=True, env=os.environ | {"PATH": path})
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert "organize" in planned.stdout


def test_a_dataset_is_found_by_its_name(made, tmp_path_factory, monkeypatch, capsys):
    folder = checkout(tmp_path_factory.mktemp("run"), monkeypatch)
    (folder / "data/demo").mkdir(parents=True)
    labels = pd.read_csv(made / "labels.csv")
    labels["path"] = [f"{made}/{path}" if isinstance(path, str) else "" for path in labels["path"]]
    labels.to_csv(folder / "data/demo/labels.csv", index=False)
    check.main(["--dataset=demo", "--csv=h.csv"])
    printed = capsys.readouterr().out
    assert "Check of Demo cohort (simulated)" in printed
    assert "age by site" in printed and "sex guessed from the site alone" in printed
    assert len(pd.read_csv("h.csv")) == 40
    check.main(["--labels=data/demo/labels.csv", "--targets", json.dumps({"age": []}), "--page=p.html"])
    assert "sex by site" not in capsys.readouterr().out
