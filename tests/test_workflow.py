"""The workflow as a user runs it: dry runs of every config, and whole runs on the demo cohort and on real scans."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from conftest import ROOT, shared

SNAKEMAKE = Path(sys.executable).parent / "snakemake"
OVERLAYS = sorted((ROOT / "config/experiments").glob("*.yaml"))


def checkout(folder: Path) -> Path:
    """Return a folder with the project's files (links), in which a run does not touch the real one's results."""
    folder.mkdir()
    for name in ("Snakefile", "config", "workflow", "envs", "profiles"):
        (folder / name).symlink_to(ROOT / name)
    return folder


def snakemake(folder: Path, *arguments: str, check: bool = True, **options) -> subprocess.CompletedProcess:
    """Run Snakemake without activating its environment, as `.venv/bin/snakemake` is."""
    environment = {"HOME": os.environ.get("HOME", "/"), "PATH": "/usr/bin:/bin", "NO_PROXY": "127.0.0.1"}
    environment["OMP_NUM_THREADS"] = "1"  # other tests run beside it
    environment["CUDA_VISIBLE_DEVICES"] = ""
    command = [str(SNAKEMAKE), "--cores", "2", *arguments]
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, **options)
    if check:
        assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-6000:]
    return ended


def jobs(ended: subprocess.CompletedProcess) -> dict[str, int]:
    """Return how many jobs of each rule a dry run lists."""
    lines = (ended.stdout + ended.stderr).split("Job stats:")[-1].splitlines()
    counts = [line.split() for line in lines if len(line.split()) == 2]
    return {rule: int(count) for rule, count in counts if count.isdigit()}


@pytest.mark.parametrize("overlay", [None, *OVERLAYS], ids=lambda path: path.stem if path else "default")
def test_dry_run_of_a_clean_checkout_shows_the_whole_run(overlay, tmp_path):
    folder = checkout(tmp_path / "clean")
    if overlay and overlay.stem == "my-data":
        (folder / "my-data").mkdir()
        (folder / "my-data/my.csv").write_text("file,participant,age,sex\n")
    if overlay and overlay.stem == "my-bids":
        (folder / "my-bids").mkdir()
        (folder / "my-bids/participants.tsv").write_text("participant_id\tgroup\n")
    if overlay and overlay.stem == "ukb-age":
        (folder / "ukb").mkdir()
        (folder / "ukb/t1.bulk").write_text("1002532 20252_2_0\n")
        (folder / "ukb/ukb.csv").write_text("eid,31-0.0,21003-2.0\n")
    planned = jobs(snakemake(folder, "-n", *(["--configfile", str(overlay)] if overlay else [])))
    if overlay and overlay.stem == "ixi-t2-pd-mra":
        assert planned["check"] == planned["organize"] == 3 and not {"preprocess", "train"} & planned.keys()
        return
    judge = "agreement" if overlay and overlay.stem in ("demo-tissues", "tissue-network") else "evaluate"
    for rule in ("organize", "preprocess", "split", "workflow_report", "train", judge, "check", "plot_scans", "report"):
        assert planned[rule] >= 1, rule
    if overlay is None:
        assert planned["train"] == 6
        assert planned["preprocess"] == 2
    if overlay and overlay.stem in ("ixi-age", "ixi-sex"):
        assert planned["download"] == 2
        assert planned["train"] == 15


def test_an_experiment_that_is_started_from_is_trained_first_and_no_more_of_it_is_made(tmp_path):
    overlay = ROOT / "config/experiments/ixi-age-pretrained.yaml"
    ended = snakemake(checkout(tmp_path / "clean"), "-n", "-p", "--configfile", str(overlay))
    planned = jobs(ended)
    assert planned["train"] == 5 * 3 + 3
    assert planned["split"] == 2
    assert planned["evaluate"] == planned["plot_cohort"] == 1
    trainings = re.findall(r"rule train:.*?(?=\nrule |\nlocalrule |\Z)", ended.stdout + ended.stderr, re.DOTALL)
    first = "results/demo-pretraining/fold-0_seed-1/model.pt"
    assert sum(f"output: {first}" in one for one in trainings) == 1
    assert sum(f"--init={first} --freeze=none" in one for one in trainings) == 5


def test_dag_is_drawn_without_any_data(tmp_path):
    drawn = snakemake(checkout(tmp_path / "clean"), "--dag").stdout
    assert drawn.count("train") >= 6
    assert "digraph" in drawn


def test_plan_of_many_scans_costs_no_more(tmp_path):
    """The plan knows shards, not scans: a cohort of 40,000 has as many jobs as one of 40."""
    folder = checkout(tmp_path / "clean")
    plans = []
    for subjects in (40, 40000):
        overlay = tmp_path / f"{subjects}.yaml"
        overlay.write_text(yaml.safe_dump({"datasets": {"demo": {"simulate": {"subjects": subjects}}}}))
        plans.append(jobs(snakemake(folder, "-n", "--configfile", str(overlay))))
    assert plans[0] == plans[1]


@pytest.mark.parametrize(
    ("overlay", "told"),
    [
        ({"training": {"short": {"epoch": 3}}}, "training.short.epoch: unknown key; did you mean 'epochs'?"),
        ({"training": {"short": {"epochs": "ten"}}}, "training.short.epochs: found 'ten'"),
        ({"run": ["demo-aeg"]}, "did you mean 'demo-age'?"),
    ],
)
def test_wrong_config_stops_before_any_job_and_names_its_file(overlay, told, tmp_path):
    folder = checkout(tmp_path / "clean")
    (folder / "mine.yaml").write_text(yaml.safe_dump(overlay))
    ended = snakemake(folder, "--configfile", "mine.yaml", check=False)
    said = ended.stdout + ended.stderr
    assert ended.returncode == 1
    assert told in said
    assert "mine.yaml" in said
    assert "Traceback" not in said
    assert not (folder / "resources").exists()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of the quick experiments."""
    folder = checkout(tmp_path_factory.mktemp("run") / "quick")
    snakemake(folder, "--configfile", "config/experiments/quick.yaml")
    return folder


QUICK = ["--configfile", "config/experiments/quick.yaml"]  # it makes everything in the folder quick/


def test_whole_run_makes_what_it_promises(finished):
    for experiment, figures in (("quick-age", 5), ("quick-sex", 5)):
        metrics = json.loads((finished / f"quick/results/{experiment}/metrics.json").read_text())
        assert metrics["n"] == len(pd.read_csv(finished / f"quick/results/{experiment}/predictions.csv")) > 15
        assert len(list((finished / f"quick/results/{experiment}/figures").glob("*.pdf"))) == figures
        assert len(list((finished / f"quick/results/{experiment}").glob("fold-*/model.pt"))) == 2
    labels = pd.read_csv(finished / "quick/data/demo/labels.csv")
    assert (labels["problem"].fillna("") == "scan: no row in the table").sum() == 1
    assert labels["problem"].fillna("").str.contains("contradictory").sum() == 1
    assert (finished / "quick/data/demo/sex/Females").is_dir()
    written = yaml.safe_load((finished / "quick/results/config.yaml").read_text())
    assert written["training"]["three-epochs"]["epochs"] == 3
    assert not list((finished / "quick/preprocessed").rglob(".*partial*"))


def test_tests_that_share_a_run_are_in_one_process(finished, request):
    assert "PYTEST_XDIST_WORKER" not in os.environ or request.node.nodeid.endswith("@test_workflow.py")


def test_report_is_one_file_that_holds_the_figures(finished):
    report = (finished / "quick/results/report.html").read_text()
    assert report.count("data:image/png;") >= 8
    assert "quick-age" in report and "<script" not in report
    other = (finished / "quick/results/workflow-report.html").read_text()
    for text in (report, other):
        assert not re.findall(r'(?:src|href)="https?://[^"]*\.(?:js|css)', text), "a report asks the network for a part of it"
    assert "Compute used" in report and "<td>train</td>" in report


def test_report_opens_in_a_browser(finished, tmp_path):
    browser = next((b for b in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if b), None)
    if browser is None:
        pytest.skip("no Chromium on this machine")
    quiet = [
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-sync",
        "--disable-component-update",
    ]
    page = (finished / "quick/results/report.html").as_uri()
    command = [
        browser,
        "--headless",
        "--no-sandbox",
        *quiet,
        f"--user-data-dir={tmp_path}/profile",
        "--virtual-time-budget=20000",
    ]
    shown = subprocess.run([*command, "--dump-dom", page], capture_output=True, text=True, timeout=120).stdout
    for text in ("mriflow", "Results", "Simulated", "quick-age"):
        assert text in shown, text


def test_finished_run_has_nothing_to_do(finished):
    assert "Nothing to be done" in snakemake(finished, "-n", *QUICK).stdout


def test_changed_training_key_runs_training_and_what_follows_alone(finished, tmp_path):
    overlay = tmp_path / "change.yaml"
    overlay.write_text(yaml.safe_dump({"training": {"three-epochs": {"weight_decay": 0.02}}}))
    planned = jobs(snakemake(finished, "-n", *QUICK, str(overlay)))
    assert planned["train"] == 4
    assert planned["evaluate"] == 2
    assert not {"simulate", "organize", "check", "preprocess", "split", "layout", "plot_scans", "plot_cohort"} & set(planned)


def test_one_more_seed_trains_no_other_again(finished, tmp_path):
    overlay = tmp_path / "seed.yaml"
    overlay.write_text(yaml.safe_dump({"training": {"three-epochs": {"seeds": [0, 1]}}}))
    assert jobs(snakemake(finished, "-n", *QUICK, str(overlay)))["train"] == 4


def test_deleted_figure_runs_its_plot_and_the_report_alone(finished):
    figure = finished / "quick/results/quick-sex/figures/roc.png"
    kept = figure.read_bytes()
    figure.unlink()
    try:
        planned = jobs(snakemake(finished, "-n", *QUICK))
    finally:
        figure.write_bytes(kept)
    plots = {rule: count for rule, count in planned.items() if rule not in ("all", "report", "workflow_report", "total")}
    assert plots == {"plot_predictions": 1}


def test_same_config_twice_gives_the_same_bytes(finished, tmp_path):
    again = checkout(tmp_path / "again")
    figure = "quick/results/quick-age/figures/learning-curves.pdf"
    snakemake(again, figure, *QUICK)
    for name in (
        "predictions.csv",
        "metrics.json",
        "splits.csv",
        "fold-0_seed-0/model.pt",
        "figures/learning-curves.pdf",
    ):
        assert (again / "quick/results/quick-age" / name).read_bytes() == (
            finished / "quick/results/quick-age" / name
        ).read_bytes(), name
    assert (again / "quick/preprocessed/demo/affine-4mm/shard-000.npy").read_bytes() == (
        finished / "quick/preprocessed/demo/affine-4mm/shard-000.npy"
    ).read_bytes()


@pytest.mark.long
def test_a_fresh_clone_reruns_from_the_archive_with_the_same_figures(finished, tmp_path):
    snakemake(finished, *QUICK, "--", "quick/results/archive.zip")
    with zipfile.ZipFile(finished / "quick/results/archive.zip") as whole:
        assert not [name for name in whole.namelist() if name.endswith((".nii", ".nii.gz", ".npy", ".tar"))]
        whole.extractall(tmp_path / "archive")
    clone = checkout(tmp_path / "clone")
    wanted = [f"quick/results/quick-{target}/metrics.json" for target in ("age", "sex")]
    snakemake(clone, "--configfile", str(tmp_path / "archive/config.yaml"), "--", *wanted)
    for target in ("age", "sex"):
        for name in ("splits.csv", "predictions.csv", "metrics.json"):
            made = clone / f"quick/results/quick-{target}/{name}"
            assert made.read_bytes() == (tmp_path / f"archive/results/quick-{target}/{name}").read_bytes(), (target, name)


def test_failed_job_says_where_its_log_is_and_why(finished, tmp_path):
    overlay = tmp_path / "gpu.yaml"
    overlay.write_text(yaml.safe_dump({"training": {"three-epochs": {"gpu": 1, "weight_decay": 0.5}}, "run": ["quick-age"]}))
    ended = snakemake(finished, *QUICK, str(overlay), "--until", "train", check=False)
    assert ended.returncode == 1
    assert "asked for 1 GPU and sees none" in ended.stderr
    assert "quick/logs/train/quick-age_fold-0_seed-0.log" in ended.stderr


def test_a_table_of_ones_own_goes_through_all_stages(tmp_path):
    """A dataset as a user has it: no licence, classes named 0 and 1, ids with zeros, braces in the config."""
    folder = checkout(tmp_path / "own")
    subprocess.run(
        [sys.executable, "-m", "mriflow.simulate", "--archive=a.tar", "--table=t.csv", "--subjects=24", "--voxel-mm=4"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    with tarfile.open(folder / "a.tar") as tar:
        tar.extractall(folder / "my scans", filter="data")
    table = pd.read_csv(folder / "t.csv").drop_duplicates("SIM_ID").set_index("SIM_ID")
    rows = ["file,who,group"]
    for path in sorted((folder / "my scans").iterdir()):
        number = int(path.name[3:6])
        if number in table.index:
            rows.append(f"my scans/{path.name},{number:03d},{table.loc[number, 'SEX_ID (1=m, 2=f)'] - 1}")
    (folder / "my.csv").write_text("\n".join([*rows, "my scans/missing.nii.gz,099,1", "my scans/missing2.nii.gz,098,2"]) + "\n")
    overlay = {
        "run": ["mine"],
        "experiments": {
            "mine": {"dataset": "mine", "target": "group", "preprocess": "affine-4mm", "split": "two"}
            | {"network": "tiny", "training": "brief", "attention": "none"}
        },
        "targets": {"group": {"column": "group", "type": "classification", "classes": {"0": "Controls", "1": "Patients"}}},
        "splits": {"two": {"method": "k-fold", "folds": 2, "validation": 0.25, "stratify": []}},
        "networks": {"tiny": {"name": "SFCN", "arguments": {"channels": [4, 4]}}},
        "training": {"brief": {"epochs": 1, "batch_size": 4, "learning_rate": 0.01}},
        "datasets": {
            "mine": {
                "title": "Mine {1}",
                "table": "my.csv",
                "columns": {"path": {"from": "file"}, "subject": {"from": "who"}, "group": {"from": "group"}},
                "stripped": True,
                "shards": 1,
            }
        },
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(overlay))
    snakemake(folder, "--configfile", "mine.yaml")
    metrics = json.loads((folder / "results/mine/metrics.json").read_text())
    assert metrics["n"] == len(rows) - 1
    assert "001" in set(pd.read_csv(folder / "results/mine/predictions.csv", dtype=str)["subject"])
    assert (folder / "data/mine/group/Patients").is_dir()
    assert (folder / "results/report.html").stat().st_size > 100_000


def ixi_overlay(folder: Path, name: str, url: str, size: int, md5: str, **training) -> Path:
    others = {"attention": "none"}  # it would take as long as all else
    published = yaml.safe_load((ROOT / "config/datasets/ixi.yaml").read_text())["downloads"]
    overlay = {
        "experiments": {
            name: {"preprocess": "affine-4mm", "split": "few", "network": "sfcn-small", "training": "few"} | others
        },
        "splits": {"few": {"method": "k-fold", "folds": training.pop("folds"), "validation": 0.2, "stratify": ["sex"]}},
        "training": {"few": {"batch_size": 4, "learning_rate": 0.004, "seeds": [0]} | training},
        "datasets": {
            "ixi": {
                "downloads": [
                    {"file": "IXI-T1.tar", "urls": [f"{url}/IXI-T1.tar"], "md5": [md5], "size": size},
                    published[1] | {"urls": [f"{url}/IXI.xls"]},
                ],
                "shards": 2,
            }
        },
    }
    path = folder / "loopback.yaml"
    path.write_text(yaml.safe_dump(overlay))
    return path


def run_ixi(folder: Path, scans: int, name: str, **training) -> dict:
    """Serve real IXI bytes under their real names from a loopback server, and run an IXI experiment on them."""
    import hashlib

    from http_server import FileServer

    images, tables = shared("ixi-hh-2mm") / "t1", shared("ixi-tables")
    site = folder / "site"
    site.mkdir()
    with tarfile.open(site / "IXI-T1.tar", "w") as tar:
        for path in sorted(images.glob("*.nii.gz"))[:scans]:
            tar.add(path, path.name.replace("_T1", "-T1"))
    shutil.copy(tables / "IXI.xls", site)
    archive = (site / "IXI-T1.tar").read_bytes()
    run = checkout(folder / "run")
    with FileServer(site) as server:
        base = server.url("IXI-T1.tar").rsplit("/", 1)[0]
        overlay = ixi_overlay(folder, name, base, len(archive), hashlib.md5(archive).hexdigest(), **training)
        configs = ["--configfile", f"config/experiments/{name}.yaml", str(overlay)]
        server.misbehave("IXI-T1.tar", drop_at=0.4, times=1)
        snakemake(run, *configs)
        ranges = [request.range for request in server.requests if request.path.endswith("IXI-T1.tar")]
        assert any(ranges), "the dropped download was not resumed"
    labels = pd.read_csv(run / "data/ixi/labels.csv")
    metrics = json.loads((run / f"results/{name}/metrics.json").read_text())
    return {"labels": labels, "metrics": metrics, "folder": run}


def test_real_ixi_scans_go_through_all_stages(tmp_path):
    found = run_ixi(tmp_path, scans=12, name="ixi-age", epochs=2, folds=2)
    assert (found["labels"]["path"].notna()).sum() == 12
    assert found["metrics"]["n"] == 12
    assert found["metrics"]["n_excluded"] == 0
    index = pd.concat(pd.read_csv(path) for path in found["folder"].glob("preprocessed/ixi/affine-4mm/*.csv"))
    assert index["correlation"].min() > 0.7
    report = (found["folder"] / "results/report.html").read_text()
    assert "CC BY-SA 3.0" in report


@pytest.mark.long
def test_all_147_real_scans(tmp_path):
    found = run_ixi(tmp_path, scans=147, name="ixi-age", epochs=40, folds=5)
    labels = found["labels"]
    assert labels.loc[labels["path"].notna(), "problem"].fillna("").eq("scan: no row in the table").sum() == 2
    metrics = found["metrics"]
    # 145 have a row; that of IXI328 is contradictory.
    assert metrics["n"] == 144 - metrics["n_excluded"] >= 140
    assert metrics["network"]["mae"]["value"] < 0.8 * metrics["trivial"]["mae"]["value"]


@pytest.mark.long
def test_the_real_bids_set_goes_through_all_stages(tmp_path):
    """12 of its 72 participants have an image; the images show the brain alone already."""
    folder = checkout(tmp_path / "run")
    overlay = {
        "experiments": {"my-group": {"preprocess": "affine-4mm", "split": "two", "network": "sfcn-small", "training": "few"}},
        "splits": {"two": {"method": "k-fold", "folds": 2, "validation": 0.2, "stratify": ["sex"]}},
        "training": {"few": {"epochs": 3, "batch_size": 2, "learning_rate": 0.004, "seeds": [0]}},
        "datasets": {"my-bids": {"bids": str(shared("ds002748-bids")), "stripped": True, "shards": 2}},
    }
    (folder / "small.yaml").write_text(yaml.safe_dump(overlay))
    snakemake(folder, "--configfile", "config/experiments/my-bids.yaml", "small.yaml")
    labels = pd.read_csv(folder / "data/my-bids/labels.csv")
    assert len(labels) == 72
    assert labels["problem"].value_counts().to_dict() == {"scan: no image": 60}
    assert labels["group"].value_counts().to_dict() == {"patient": 51, "control": 21}
    assert labels["sex"].value_counts().to_dict() == {"F": 53, "M": 19}
    images = labels[labels["problem"].isna()]
    assert images["group"].value_counts().to_dict() == {"patient": 6, "control": 6}
    assert len(list((folder / "data/my-bids/group/Patients").glob("*.nii.gz"))) == 6
    index = pd.concat(pd.read_csv(path) for path in folder.glob("preprocessed/my-bids/affine-4mm/*.csv")).set_index("id")
    assert len(index) == 12 and index["problem"].isna().all()
    predictions = pd.read_csv(folder / "results/my-group/predictions.csv")
    assert sorted(predictions["id"]) == sorted(images["id"])
    assert json.loads((folder / "results/my-group/metrics.json").read_text())["n"] == 12
    balance = pd.read_csv(folder / "results/my-group/balance.csv")
    assert {"group=control", "age_mean", "sex=F"} <= set(balance.columns)
    report = (folder / "results/report.html").read_text()
    assert "Parts and their balance" in report
    report = (folder / "results/workflow-report.html").read_text()
    for page in ("check of headers and labels", "who is in, who is left out and why"):
        assert page in report, page


@pytest.mark.long
def test_demo_reaches_its_figures(tmp_path):
    folder = checkout(tmp_path / "demo")
    snakemake(folder)
    age = json.loads((folder / "results/demo-age/metrics.json").read_text())
    sex = json.loads((folder / "results/demo-sex/metrics.json").read_text())
    assert age["network"]["mae"]["value"] <= 0.5 * age["trivial"]["mae"]["value"]
    assert sex["network"]["accuracy"]["value"] >= 0.85


def test_killed_workflow_goes_on_where_it_was(tmp_path):
    """Kill -9 the whole run in the middle of training; the next run resumes the training from its checkpoint."""
    folder = checkout(tmp_path / "killed")
    overlay = tmp_path / "long.yaml"
    overlay.write_text(yaml.safe_dump({"run": ["quick-age"], "training": {"three-epochs": {"epochs": 15}}}))
    configs, wanted = [*QUICK, str(overlay)], "quick/results/quick-age/metrics.json"
    environment = os.environ | {"PATH": "/usr/bin:/bin"}
    with open(tmp_path / "out.txt", "w") as out:
        process = subprocess.Popen(
            [str(SNAKEMAKE), "--cores", "1", wanted, *configs],
            cwd=folder,
            env=environment,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
        while not list(folder.glob("quick/results/quick-age/fold-*/work/last.ckpt")):
            assert process.poll() is None, (tmp_path / "out.txt").read_text()[-3000:]
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    arrays = {path: path.stat().st_mtime_ns for path in folder.glob("quick/preprocessed/**/*.npy")}
    assert len(arrays) == 2
    killed = next(folder.glob("quick/results/quick-age/fold-*/work/last.ckpt")).parents[1].name
    snakemake(folder, "--unlock", *configs)
    snakemake(folder, wanted, *configs)
    assert {path: path.stat().st_mtime_ns for path in arrays} == arrays
    log = (folder / f"quick/logs/train/quick-age_{killed}.log").read_text()
    assert "going on after epoch" in log
    history = pd.read_csv(folder / f"quick/results/quick-age/{killed}/history.csv")
    assert np.array_equal(history["epoch"], range(1, 16))
