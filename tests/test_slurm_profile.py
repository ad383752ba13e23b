"""What profiles/slurm asks of Slurm, and what its jobs do. Needs none; tests/cluster is about the real one."""

import inspect
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml

from conftest import ROOT
from profiles import load

SLURM, SGE = load("slurm"), load("sge")
Request, slurm = SLURM.dialect.Request, SLURM.scheduler
HOUR = 3600


@pytest.fixture
def profile(tmp_path, monkeypatch):
    """Return a copy of the profile whose settings may be changed."""
    copy = tmp_path / "slurm"
    shutil.copytree(ROOT / "profiles/slurm", copy, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(SLURM.dialect, "PROFILE", copy)
    return copy


def line(profile, request, warned=False, **settings):
    file = profile / "settings.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | settings))
    return shlex.join(SLURM.dialect.check_site().arguments(request, warned))


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (Request(2000, 1800), "--mem-per-cpu=2000M --time=0:30:00"),
        (Request(8000, 24 * HOUR, threads=3), "--mem-per-cpu=2667M --time=24:00:00 --cpus-per-task=3"),
        (Request(8000, 100 * HOUR, gpu=2), "--mem-per-cpu=8000M --time=100:00:00 --gres=gpu:2"),
        (Request(8000, HOUR, gpu=1, gpu_model="a100"), "--mem-per-cpu=8000M --time=1:00:00 --gres=gpu:a100:1"),
        (Request(8000, HOUR, gpu=1, scratch_mb=19500), "--mem-per-cpu=8000M --time=1:00:00 --gres=gpu:1,tmpfs:20G"),
    ],
)
def test_request_in_the_dialect_of_ucl(profile, request_, expected):
    assert line(profile, request_) == expected


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (Request(8000, HOUR, threads=3, scratch_mb=500), "--mem=8000M --time=1:00:00 --cpus-per-task=3 --tmp=500M"),
        (Request(8000, HOUR, gpu=2, gpu_model="h100"), "--mem=8000M --time=1:00:00 --gpus=h100:2"),
    ],
)
def test_request_in_the_dialect_of_a_slurm_as_it_comes(profile, request_, expected):
    assert line(profile, request_, dialect="generic") == expected


def test_job_that_saves_its_progress_is_warned_and_settings_come_last(profile):
    asks = line(profile, Request(1000, HOUR, gpu=1), True, sbatch="-p cpu --gres tmpfs:5G", sbatch_gpu="-p gpu")
    assert asks == "--mem-per-cpu=1000M --time=1:00:00 --signal=B:USR1@150 -p cpu -p gpu --gres=gpu:1,tmpfs:5G"


def test_template_of_a_gpu_of_a_kind_needs_both_places(profile):
    dialect = profile / "dialects/ucl.yaml"
    dialect.write_text(dialect.read_text().replace("gpu:{model}:{}", "gpu:{}"))
    with pytest.raises(SystemExit, match="ucl.yaml: gpu_of_model: '--gres=gpu:{}' has no place"):
        line(profile, Request(1000, HOUR))


def test_queue_is_read_with_what_is_over_and_why():
    text = "7|RUNNING|None|(null)|train-1a\n8|PENDING|PartitionTimeLimit|a.sh|a|b\n9|COMPLETING|None|(null)|x\n"
    text += "10|NODE_FAIL|NodeDown|(null)|y\n11|OUT_OF_MEMORY|OutOfMemory|(null)|z\n"
    text += "12|PENDING|QOSMaxCpuPerUserLimit|(null)|w\n13|FAILED|NonZeroExitCode|(null)|v\n"
    text += "14|PENDING|QOSMinGRES|/home/me/.snakemake/slurm/one-1a/2.sh|renamed\n"
    queue = slurm.read_queue(text)
    assert {job: queued.name for job, queued in queue.items() if not queued.over} == {
        "7": "train-1a",
        "8": "a|b",
        "9": "x",
        "12": "w",
        "14": "one-1a",
    }
    assert [job for job, queued in queue.items() if queued.in_error] == ["8", "14"]
    assert [job for job, queued in queue.items() if queued.waits] == ["8", "12", "14"]
    assert queue["9"].being_deleted
    assert {job: queued.why for job, queued in queue.items() if queued.over} == {"10": "node", "11": "memory", "13": ""}


def test_job_with_a_name_in_another_encoding_hides_no_job(tmp_path, monkeypatch):
    (tmp_path / "squeue").write_text("#!/bin/sh\nprintf '7|RUNNING|None|(null)|caf\\351\\n8|RUNNING|None|(null)|one-1a\\n'\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    jobs, _ = slurm.list_jobs(tmp_path, {})
    assert jobs["8"].name == "one-1a"


def test_percent_sign_in_the_path_of_the_folder_is_none_of_slurms(tmp_path, monkeypatch):
    (tmp_path / "50% %j").mkdir()
    monkeypatch.chdir(tmp_path / "50% %j")
    assert slurm.job_arguments("one-1a", "logs/%j.log")[-1] == f"--output={tmp_path}/50%% %%j/logs/%j.log"


@pytest.mark.parametrize("answer", ["7", "7;young", "Welcome, user 3\n7"])
def test_id_is_found_and_what_a_job_knows_is_not_handed_on(tmp_path, monkeypatch, answer):
    (tmp_path / "sbatch").write_text(f"#!/bin/sh\nenv > {tmp_path}/seen\ncat <<'END'\n{answer}\nEND\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for name in ("SLURM_JOB_ID", "SLURM_CONF", "SBATCH_ACCOUNT", "SQUEUE_PARTITION"):
        monkeypatch.setenv(name, "mine")
    assert slurm.submit(["one.sh"]) == "7"
    seen = (tmp_path / "seen").read_text()
    assert "SLURM_CONF=mine" in seen and "SBATCH_ACCOUNT=mine" in seen
    assert "SLURM_JOB_ID" not in seen and "SQUEUE" not in seen


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)", "MasterAway"),
        ("sbatch: error: AssocMaxSubmitJobLimit\nsbatch: error: Batch job submission failed: Job violates", "Full"),
        ("sbatch: error: AssocGrpSubmitJobsLimit\nsbatch: error: Batch job submission failed: Job violates", "Full"),
        ("sbatch: error: Batch job submission failed: Requested node configuration is not available", "Refused"),
    ],
)
def test_failure_of_sbatch_is_an_outage_a_full_site_or_a_refusal(tmp_path, monkeypatch, message, kind):
    (tmp_path / "sbatch").write_text(f"#!/bin/sh\necho '{message}' >&2\nexit 1\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises((SLURM.base.MasterAway, SLURM.base.Refused)) as error:
        slurm.submit(["one.sh"])
    assert error.type.__name__ == kind


@pytest.mark.parametrize(
    ("accounting", "why"),
    [
        ("echo 'CANCELLED by 1001'", "deleted"),
        ("echo OUT_OF_MEMORY", "memory"),
        ("echo RUNNING", ""),
        ("true", ""),
        ("echo 'Slurm accounting storage is disabled' >&2; exit 1", ""),
    ],
)
def test_end_is_asked_of_the_accounting_only_where_the_queue_has_forgotten_it(tmp_path, monkeypatch, accounting, why):
    (tmp_path / "sacct").write_text(f"#!/bin/sh\n{accounting}\n")
    (tmp_path / "sacct").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert slurm.end_of("7", None, None).why == why
    assert slurm.end_of("7", slurm.read_queue("7|TIMEOUT|TimeLimit|(null)|one")["7"], None).why == "walltime"


def test_both_schedulers_answer_the_same_questions():
    """What a third one has to answer, too; profiles/README.md lists it."""

    def questions(scheduler):
        used = set(re.findall(r"\bscheduler\.(\w+)", "\n".join(file.read_text() for file in SHARED)))
        return {
            name: len(inspect.signature(value).parameters) if callable(value := getattr(scheduler, name)) else type(value)
            for name in used - {"py", "__file__"}
        }

    SHARED = [file for file in (ROOT / "profiles/cluster").iterdir() if file.is_file() and file.suffix in ("", ".py")]
    assert questions(slurm) == questions(SGE.scheduler)
    manual = (ROOT / "profiles/README.md").read_text()
    assert not [name for name in questions(slurm) if f"`{name}`" not in manual]


class Job:
    """A job's script as Slurm runs it, in a process group of its own; signals go to its shell alone."""

    def __init__(self, folder, command, saves=False):
        record = folder / ".snakemake/slurm/one-1a"
        record.mkdir(parents=True)
        (record / "1.json").write_text("{}")
        (record / "command.sh").write_text(command)
        job = SLURM.jobs.Job("one", {}, "one-1a", "", {}, 1, [], "note" if saves else None)
        site = SLURM.dialect.check_site()
        script = SLURM.jobs.job_script(job, Request(1000, HOUR), site, record.relative_to(folder) / "1", [])
        (record / "1.sh").write_text(script)
        slurm = {"SLURM_SUBMIT_DIR": str(folder), "SLURM_JOB_ID": "7", "SLURM_JOB_PARTITION": "p", "SLURMD_NODENAME": "n"}
        self.folder, self.exit = folder, record / "1.exit"
        self.process = subprocess.Popen(["bash", record / "1.sh"], cwd="/", env=os.environ | slurm, start_new_session=True)
        end = time.monotonic() + 60
        while not (folder / "begun").exists() and time.monotonic() < end:
            time.sleep(0.05)


# As Snakemake runs a rule's command: below a shell that knows of no signal.
TRAINING = f"""{sys.executable} -c '
import signal, sys, time
for one in (signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(one, lambda number, _: (open("note", "w").write(signal.Signals(number).name), sys.exit(1)))
open("begun", "w")
time.sleep(60)
'
exit $?
"""


@pytest.mark.parametrize(("sent", "seen"), [(signal.SIGUSR1, "SIGUSR1"), (signal.SIGTERM, "SIGUSR2")])
def test_signal_of_slurm_reaches_the_training(tmp_path, sent, seen):
    job = Job(tmp_path, TRAINING, saves=True)
    job.process.send_signal(sent)
    assert job.process.wait(30) == 1
    assert (tmp_path / "note").read_text() == seen
    assert job.exit.read_text() == "7 1\n"


def test_job_that_saves_nothing_ends_at_once_when_it_is_deleted(tmp_path):
    job = Job(tmp_path, TRAINING, saves=False)
    job.process.send_signal(signal.SIGTERM)
    assert job.process.wait(10) == -signal.SIGKILL
    assert not (tmp_path / "note").exists() and not job.exit.exists()


def test_warning_changes_nothing_of_a_job_that_does_not_heed_it(tmp_path):
    job = Job(tmp_path, "trap '' USR1; touch begun; until [ -e go ]; do sleep 0.1; done; exit 4\n", saves=True)
    for _ in range(3):
        job.process.send_signal(signal.SIGUSR1)
        time.sleep(0.2)
    (tmp_path / "go").touch()
    assert job.process.wait(30) == 4
    assert job.exit.read_text() == "7 4\n"


def test_prologue_that_ends_the_job_is_no_success(tmp_path, profile, monkeypatch):
    (profile / "prologue.sh").write_text("touch begun; exit 0\n")
    monkeypatch.setattr(SLURM.jobs, "PROFILE", profile)
    job = Job(tmp_path, "touch ran\n")
    job.process.wait(30)
    assert job.exit.read_text() == "7 75\n" and not (tmp_path / "ran").exists()


@pytest.mark.parametrize("rule", ["train", "report"])
def test_preview_shows_the_sbatch_line_and_how_to_try_the_job_by_hand(rule):
    command = [sys.executable, ROOT / "profiles/slurm/preview", rule, "--configfile", "config/experiments/ixi-age-gpu.yaml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"sbatch --parsable --no-requeue --nodes=1 --ntasks=1 --job-name={rule}-example --output=" in done.stdout
    assert re.search(r"^srun .*--time=0:\d\d:\d\d.* --pty bash$", done.stdout, re.MULTILINE)
    assert ("--gres=gpu:1" in done.stdout) == (rule == "train")
