"""`mriflow status` tells what is done, running, failed, interrupted and waiting, from what a real Snakemake leaves behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mriflow.base.errors import UserError
from mriflow.status import pace, status

SNAKEFILE = """
rule all:
    input: "results/age/metrics.json"

rule split:
    output: "results/age/splits.csv"
    shell: "touch {output}"

rule train:
    input: "results/age/splits.csv"
    output: model="results/age/fold-{fold}_seed-0/model.pt", warnings="results/age/fold-{fold}_seed-0/warnings.json"
    log: "logs/fold-{fold}.log"
    params: training='{"epochs": 7}'
    shell: "sh train.sh {wildcards.fold} {output.model} {output.warnings} {params.training:q} > {log} 2>&1"

rule evaluate:
    input: expand("results/age/fold-{fold}_seed-0/model.pt", fold=[0, 1])
    output: "results/age/metrics.json"
    shell: "touch {output}"
"""
GOOD = """printf '[{"kind": "swings", "text": "it jumps"}]' > $3; touch $2"""
FAILS = """if [ $1 = 1 ]; then echo 'error: the loss became nan'; exit 1; fi; """
SLEEPS = """if [ $1 = 1 ]; then mkdir -p results/age/fold-1_seed-0/work
printf 'epoch,train_loss,val_loss\n1,0.5,0.75\n2,0.25,0.875\n' > results/age/fold-1_seed-0/work/history.csv
echo 'train: 29%| | 2/7 [00:10<00:25,  5.00s/epoch, val_loss=0.8]'; touch started; sleep 60; fi; """
SNAKEMAKE = [sys.executable, "-m", "snakemake", "--cores", "1", "--quiet", "reason", "host"]


@pytest.fixture
def run_folder(tmp_path, monkeypatch):
    """A folder with a workflow of four jobs, of which the second training does what `train.sh` says."""
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    (tmp_path / "train.sh").write_text(GOOD)
    monkeypatch.delenv("SNAKEMAKE_PROFILE", raising=False)
    return tmp_path


def rows(text: str) -> dict[str, list[str]]:
    """Return the lines of the table of rules, by rule."""
    return {line.split()[0]: line.split()[1:] for line in text.splitlines() if line}


def test_before_a_run_all_waits_and_after_it_all_is_done_with_what_the_watchman_said(run_folder):
    text, code = status(run_folder, [])
    assert (rows(text)["train"], code) == (["2"], 3)
    subprocess.run(SNAKEMAKE, cwd=run_folder, check=True)
    text, code = status(run_folder, [])
    assert code == 0 and text.endswith("4 of 4 jobs done")
    assert "age: swings (2 of them)" in text


def test_a_job_that_failed_is_shown_with_the_end_of_its_log(run_folder):
    (run_folder / "train.sh").write_text(FAILS + GOOD)
    assert subprocess.run([*SNAKEMAKE, "--keep-going"], cwd=run_folder, check=False).returncode
    text, code = status(run_folder, [])
    assert code == 1 and "| error: the loss became nan" in text and "logs/fold-1.log" in text
    assert text.endswith("2 of 4 jobs done; 1 failed, 1 waiting")


def test_a_training_is_running_with_its_epoch_and_interrupted_when_snakemake_was_killed(run_folder):
    (run_folder / "train.sh").write_text(SLEEPS + GOOD)
    snakemake = subprocess.Popen(SNAKEMAKE, cwd=run_folder, start_new_session=True)
    try:
        until = time.monotonic() + 60
        while not (run_folder / "started").exists() and time.monotonic() < until:
            time.sleep(0.1)
        text, code = status(run_folder, [])
        assert code == 3 and "1 running" in text
        assert "age/fold-1_seed-0    2/7   0.25  0.875  0.75 (1)      5.0  00:25" in text
    finally:
        os.killpg(snakemake.pid, signal.SIGKILL)
        snakemake.wait()
    text, code = status(run_folder, [])
    assert code == 1 and "interrupted: train, which makes results/age/fold-1_seed-0/model.pt" in text


def test_a_job_with_a_name_on_a_cluster_runs_whatever_became_of_its_snakemake(run_folder):
    from base64 import urlsafe_b64encode

    subprocess.run([*SNAKEMAKE, "--until", "split"], cwd=run_folder, check=True)
    marker = run_folder / ".snakemake/incomplete" / urlsafe_b64encode(b"results/age/fold-0_seed-0/model.pt").decode()
    marker.write_text(json.dumps({"external_jobid": "7.train-1"}))
    assert "1 running" in status(run_folder, [])[0]
    marker.unlink()


def test_a_run_that_cannot_be_planned_is_told_in_snakemakes_words(run_folder):
    (run_folder / "Snakefile").write_text(SNAKEFILE.replace("expand(", "expnad("))
    with pytest.raises(UserError, match="cannot plan the run"):
        status(run_folder, [])


def test_every_line_fits_into_80_columns(run_folder: Path):
    (run_folder / "Snakefile").write_text(SNAKEFILE.replace("results/age", f"results/{'a' * 70}"))
    assert max(map(len, status(run_folder, [])[0].splitlines())) <= 80


@pytest.mark.parametrize(("log", "expected"), [("2/20 [00:10<01:30,  5.00s/epoch]", ("5.0", "01:30")), ("", ("", ""))])
def test_the_pace_is_that_of_the_last_bar(log, expected):
    assert pace("train: 1/20 [00:05<01:40,  9.00s/epoch]" * bool(log) + log) == expected
