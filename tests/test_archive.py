"""One file that a paper can be repeated from: whole, without a scan, and equal each time."""

import json
import zipfile
from importlib.metadata import version

import pytest
import yaml

from mriflow.archive import archive
from mriflow.base.errors import UserError


@pytest.fixture
def folder(tmp_path):
    """The results of a run of one experiment, beside those of an earlier one."""
    files = {
        "report.html": "<p>",
        "results.csv": "a\n",
        "age/metrics.json": json.dumps({"n": 3}),
        "age/splits.csv": "id\n",
        "age/predictions.csv": "id\n",
        "age/external/other.csv": "id\n",
        "age/model/models/fold-0_seed-0.pt": "weights",
        "age/fold-0_seed-0/history.csv": "epoch\n",
        "age/fold-0_seed-0/model.pt": "weights",
        "age/attention/sub-01.nii.gz": "an image",
        "earlier/metrics.json": "{}",
    }
    for name, text in files.items():
        (tmp_path / "results" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "results" / name).write_text(text)
    run = {"run": ["age"], "experiments": {"age": {"dataset": "demo"}}, "datasets": {"demo": {}}}
    (tmp_path / "results/config.yaml").write_text(yaml.safe_dump(run))
    return tmp_path / "results"


def test_it_holds_all_but_the_scans_and_what_is_of_no_experiment_of_the_run(folder):
    named = archive(folder / "archive.zip", folder / "config.yaml")
    with zipfile.ZipFile(folder / "archive.zip") as whole:
        assert whole.namelist() == named
        text = whole.read("README.md").decode()
        assert f"torch=={version('torch').split('+')[0]}" in whole.read("environment.txt").decode().splitlines()
        assert whole.read("results/age/metrics.json") == (folder / "age/metrics.json").read_bytes()
        assert whole.read("config.yaml") == (folder / "config.yaml").read_bytes()
    assert {"results/report.html", "results/age/splits.csv", "results/age/predictions.csv", "results/results.csv"} < set(named)
    assert {"results/age/external/other.csv", "results/age/model/models/fold-0_seed-0.pt"} < set(named)
    assert "results/age/fold-0_seed-0/history.csv" in named
    assert not [name for name in named if "earlier" in name or name.endswith((".nii.gz", "fold-0_seed-0/model.pt"))]
    assert "git checkout" in text and "--configfile ARCHIVE/config.yaml" in text and "{" not in text


def test_an_experiment_that_is_reported_alone_is_in_it_and_not_asked_for_again(folder):
    run = yaml.safe_load((folder / "config.yaml").read_text()) | {"report_only": ["earlier"]}
    (folder / "config.yaml").write_text(yaml.safe_dump(run))
    assert "results/earlier/metrics.json" in archive(folder / "archive.zip", folder / "config.yaml")
    with zipfile.ZipFile(folder / "archive.zip") as whole:
        assert yaml.safe_load(whole.read("config.yaml"))["report_only"] == []


def test_the_same_results_give_the_same_bytes(folder):
    archive(folder / "archive.zip", folder / "config.yaml")
    before = (folder / "archive.zip").read_bytes()
    (folder / "age/metrics.json").touch()
    archive(folder / "archive.zip", folder / "config.yaml")
    assert (folder / "archive.zip").read_bytes() == before


def test_a_config_that_is_none_is_told(folder):
    (folder / "config.yaml").write_text("[]")
    with pytest.raises(UserError, match="not the merged config of a run"):
        archive(folder / "archive.zip", folder / "config.yaml")
