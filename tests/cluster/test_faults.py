"""What goes wrong on a cluster, on real schedulers: nothing is lost, nothing runs twice, and the user is shown why."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import write_dataset

# A command that hangs, the first time that it is run, and one that waits for the test.
HANGS_ONCE = "[ $(wc -l < started) -gt 1 ] || sleep 600; touch {output}"
WAITS = "until [ -e go ]; do sleep 0.2; done; touch {output}"


def one(command: str, resources: str = "gpu=0", rule: str = "one", more: str = "") -> str:
    """Return a Snakefile with one rule, of which every run notes its process in the file `started`."""
    command = f"echo $$ >> started; {command}"
    return f"rule {rule}:\n    output: 'one.txt'\n    resources: {resources}\n{more}    shell: {command!r}\n"


def before(place, program: str, script: str) -> None:
    """Put a script before a command of the scheduler, or another one."""
    (place.bin / program).write_text(f"#!/bin/bash\n{script}\n")
    (place.bin / program).chmod(0o755)


def started(place) -> list[int]:
    """Return the processes of all runs of the rule's command."""
    return [int(line) for line in place.read("started").splitlines()]


def wait_for_start(place) -> int:
    """Wait until the rule's command runs, and return its process."""
    place.wait_for(lambda: started(place), "the rule's command to run")
    return started(place)[-1]


def ended(place, *messages: str, times: int = 1) -> None:
    """Check that the job was submitted and run so many times and is gone from the queue, and that these messages were shown."""
    assert len(place.submissions()) == len(started(place)) == times, place.output()
    for message in messages:
        assert message in place.output()
    place.wait_for(lambda: not place.queue(), "an empty queue")


def test_killed_at_the_end_of_its_walltime(workdir):
    place = workdir(one("echo half > {output}; sleep 600", "runtime=1"))
    assert place.run("--retries", "0") == 1, place.output()
    ended(place, "killed at the end of its walltime, 0:01:00; give the rule more `runtime`")
    assert not (place.folder / "one.txt").exists()


# A training that pauses after each step: how many walltimes it takes must not depend on the speed of the machine.
PAUSE = 0.1
STEPS_PER_EPOCH = 3
PAUSING = f"""
import runpy, time
from torch.optim.optimizer import register_optimizer_step_post_hook
register_optimizer_step_post_hook(lambda *_: time.sleep({PAUSE}))
runpy.run_module("mriflow.train", run_name="__main__", alter_sys=True)
"""


def training(workdir, scheduler, folder: Path, seconds: float, runtime: int | None = None, first: str = "true"):
    """Return a working directory whose rule `train` trains for more than `seconds`, and what trains the same in `folder`."""
    from mriflow.split import split
    from test_train import command

    data = write_dataset(folder / "data")
    split(data["labels"], folder / "splits.csv", target="age", folds=3, validation=0.25)
    data["splits"] = folder / "splits.csv"
    epochs = round(seconds / PAUSE / STEPS_PER_EPOCH)
    runtime = runtime or scheduler.minutes
    place = workdir(
        f"rule train:\n    output: 'results/model.pt', 'results/history.csv'\n    resources: mem_mb=8000, runtime={runtime}\n"
        f"    shell: 'echo $$ >> started; {first}; bash train.sh'\n"
    )
    python, _, _, *flags = command(place.folder / "results", data, epochs=epochs)
    (place.folder / "train.sh").write_text(shlex.join([python, "-c", PAUSING, *flags]))
    return place, command(folder, data, epochs=epochs)


def test_training_stopped_by_the_clock_goes_on_in_new_jobs_and_ends_with_the_same_bytes(workdir, scheduler, tmp_path):
    place, command = training(workdir, scheduler, tmp_path / "whole", seconds=60 * scheduler.minutes)
    whole = subprocess.Popen(command)
    assert place.run(timeout=900) == 0, place.output()
    windows = place.submissions("train")
    assert len(windows) >= 2
    assert {job["started_from"]["reason"] for job in windows[1:]} <= {*place.cell.walltime}
    ended(place, "when its walltime ended; goes on in a new job", times=len(windows))
    assert "Error" not in place.output(), "no retry is spent"
    assert whole.wait(600) == 0
    for file in ("model.pt", "history.csv"):
        assert (place.folder / "results" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_training_warned_by_the_scheduler_goes_on_in_a_new_job(workdir, scheduler, tmp_path):
    place, _ = training(workdir, scheduler, tmp_path / "whole", seconds=60 * scheduler.minutes, first="unset JOB_DEADLINE")
    assert place.run(timeout=900) == 0, place.output()
    windows = place.submissions("train")
    assert len(windows) >= 2
    assert {job["started_from"]["reason"] for job in windows[1:]} <= {*place.cell.warning}
    ended(place, "when its walltime ended; goes on in a new job", times=len(windows))
    assert "Error" not in place.output(), "no retry is spent"


def test_training_that_was_deleted_goes_on_at_the_next_try(workdir, scheduler, tmp_path):
    place, _ = training(workdir, scheduler, tmp_path / "whole", seconds=30, runtime=30)
    process = place.start()
    place.wait_for((place.folder / "results/work/last.ckpt").exists, "a checkpoint")
    place.cell.delete(place.submissions()[-1]["id"])
    assert process.wait(480) == 0, place.output()
    assert place.submissions()[1]["started_from"]["reason"] == "SIGUSR2"
    ended(place, times=2)


def test_walltime_without_progress_is_an_error(workdir):
    note = '{{"reason": "walltime", "epoch": 1, "step": 0}}'
    place = workdir(one(f"mkdir -p work; echo '{note}' > work/stopped.json; exit 1", rule="train"))
    assert place.run() == 1, place.output()
    ended(place, "goes on in a new job", "made no step in its whole walltime; give the rule more `runtime`", times=2)


def test_job_killed_from_outside_is_run_again(workdir):
    place = workdir(one(HANGS_ONCE))
    process = place.start()
    os.killpg(os.getpgid(wait_for_start(place)), signal.SIGKILL)
    assert process.wait(360) == 0, place.output()
    ended(place, "ended without an exit code: it was killed or deleted, or its node was lost", times=2)
    assert [job["mem_mb"] for job in place.submissions()] == [1000, 1000]


@pytest.mark.only("sge")
@pytest.mark.parametrize("accounting", ["present", "missing"])
def test_accounting_is_shown_where_there_is_one(workdir, accounting):
    place = workdir(one(HANGS_ONCE))
    if accounting == "missing":
        before(place, "qacct", 'exec /usr/bin/qacct -f /nonexistent/accounting "$@"')
    process = place.start()
    os.killpg(os.getpgid(wait_for_start(place)), signal.SIGKILL)
    assert process.wait(360) == 0, place.output()
    assert ("(accounting: " in place.output()) == (accounting == "present")


@pytest.mark.only("sge")
def test_gpu_job_that_was_killed_asks_for_no_more_memory(workdir):
    place = workdir(one(HANGS_ONCE, "gpu=1"))
    before(place, "qacct", "echo 'maxvmem      21.500G'")  # what CUDA reserves, and never uses
    process = place.start()
    os.killpg(os.getpgid(wait_for_start(place)), signal.SIGKILL)
    assert process.wait(360) == 0, place.output()
    ended(place, "ended without an exit code", times=2)
    assert [job["mem_mb"] for job in place.submissions()] == [1000, 1000]


def test_job_whose_command_was_killed_is_run_again(workdir):
    place = workdir(one(HANGS_ONCE))
    process = place.start()
    os.kill(wait_for_start(place), signal.SIGKILL)
    assert process.wait(360) == 0, place.output()
    ended(place, "had a process that was killed", times=2)


# Grid Engine does not say of an ended job who ended it.
DELETED = {"sge": "ended without an exit code: it was killed or deleted, or its node was lost", "slurm": "was deleted"}


def test_job_deleted_from_outside_is_run_again(workdir):
    place = workdir(one(HANGS_ONCE))
    process = place.start()
    wait_for_start(place)
    place.cell.delete(place.submissions()[0]["id"])
    assert process.wait(360) == 0, place.output()
    ended(place, DELETED[place.cell.name], times=2)


@pytest.mark.only("slurm")
@pytest.mark.parametrize("end", ["deleted", "memory", "walltime"])
def test_end_that_the_queue_has_forgotten_is_told_by_the_accounting(workdir, end):
    if subprocess.run(["sacct", "--noheader"], capture_output=True).returncode:
        pytest.skip("this Slurm has no accounting; `tests/slurm/cell.sh start --accounting` starts one that has")
    memory = "[ $(wc -l < started) -gt 1 ] || python3 -c 'int(5e8) * bytes([1])' && touch {output}"
    command = memory if end == "memory" else HANGS_ONCE
    place = workdir(one(command, f"mem_mb=450, runtime={1 if end == 'walltime' else 30}"))
    before(place, "squeue", 'exec /usr/bin/squeue "${@/--states=all/--states=PD,R,CG,CF,S}"')
    process = place.start()
    wait_for_start(place)
    if end == "deleted":
        place.cell.delete(place.submissions()[0]["id"])
    assert process.wait(360) == 0, place.output()
    said = {
        "deleted": "was deleted (Slurm: CANCELLED)",
        "memory": "had too little memory with mem_mb=450; the next try asks for 675 MB",
        "walltime": "killed at the end of its walltime, 0:01:00; give the rule more `runtime` (Slurm: TIMEOUT)",
    }
    ended(place, said[end], times=2)


def test_job_that_exceeds_its_memory_gets_more_at_the_next_try(workdir):
    place = workdir(one("python3 -c 'int(5e8) * bytes([1])' && touch {output}", "mem_mb=450"))
    assert place.run() == 0, place.output()
    ended(place, "had too little memory with mem_mb=450; the next try asks for 675 MB", times=2)
    assert [job["mem_mb"] for job in place.submissions("one")] == [450, 675]


def test_error_of_the_command_is_not_run_again(workdir):
    place = workdir(one("exit 3"))
    assert place.run() == 1, place.output()
    ended(place, "ended with an error", "not run again, for it ended with an error of its own")


@pytest.mark.only("sge")
def test_job_in_the_error_state_is_deleted_and_the_reason_shown(workdir):
    place = workdir(one("touch {output}"), asks="-o /nonexistent/x.log")
    assert place.run("--retries", "0") == 1, place.output()
    assert "was put into the error state and deleted: " in place.output()
    assert "/nonexistent/x.log" in place.output().partition("error state")[2]
    place.wait_for(lambda: not place.queue(), "an empty queue")
    assert not started(place)


@pytest.mark.only("slurm")
def test_job_that_can_never_run_is_deleted_and_the_reason_shown(workdir):
    place = workdir(one("touch {output}", "runtime=7200"))
    assert place.run() == 1, place.output()
    assert "can never run as it asks, and was deleted; Slurm's reason: PartitionTimeLimit" in place.output()
    assert "not run again, for it can never run as it asks" in place.output()
    place.wait_for(lambda: not place.queue(), "an empty queue")
    assert len(place.submissions()) == 1 and not started(place)


def test_look_at_the_queue_that_fails_ten_times_loses_no_job(workdir):
    place = workdir(one(WAITS))
    look, fails = place.cell.look, f"{{ echo '{place.cell.away}' >&2; exit 1; }}"
    before(place, look, f'echo >> looks; [ $(wc -l < looks) -gt 10 ] || {fails}\nexec /usr/bin/{look} "$@"')
    process = place.start()
    place.wait_for(lambda: place.read("looks").count("\n") > 12, "ten looks in vain")
    (place.folder / "go").touch()
    assert process.wait(240) == 0, place.output()
    ended(place)


def killed_and_unlocked(place):
    """Run Snakemake until its job runs, kill it and unlock the working directory."""
    process = place.start()
    wait_for_start(place)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert place.run("--unlock") == 0


def test_running_job_of_a_snakemake_that_was_killed_is_taken_over(workdir):
    place = workdir(one(WAITS))
    killed_and_unlocked(place)
    process = place.start()
    place.wait_for(lambda: "is in the queue already" in place.output(), "the job to be found")
    (place.folder / "go").touch()
    assert process.wait(240) == 0, place.output()
    ended(place)


def test_job_that_ended_after_its_snakemake_was_killed_is_not_run_again(workdir):
    place = workdir(one(WAITS))
    killed_and_unlocked(place)
    (place.folder / "go").touch()
    place.wait_for(lambda: not place.queue(), "the job to end")
    assert place.run() == 0, place.output()
    ended(place)


def test_running_job_whose_parameters_changed_is_deleted_and_replaced(workdir):
    command = "echo {params.value} >> values; sleep {params.value}; echo {params.value} > {output}"
    place = workdir(one(command, more="    params: value=600\n"))
    killed_and_unlocked(place)
    (place.folder / "Snakefile").write_text(one(command, more="    params: value=1\n"))
    assert place.run() == 0, place.output()
    ended(place, times=2)
    assert place.read("values").split() == ["600", "1"]
    assert place.read("one.txt") == "1\n"


def test_running_job_whose_record_was_deleted_is_replaced(workdir):
    place = workdir(one("sleep $(cat seconds); touch {output}"))
    (place.folder / "seconds").write_text("600")
    process = place.start()
    wait_for_start(place)
    first = place.submissions()[0]["id"]
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    shutil.rmtree(place.folder / ".snakemake")
    (place.folder / "seconds").write_text("0")
    assert place.run() == 0, place.output()
    assert f"waiting until an earlier job of the same output is gone ({first})" in place.output()
    assert len(place.submissions()) == 1 and place.submissions()[0]["id"] != first


def test_job_whose_snakemake_ended_by_itself_is_taken_over_and_still_does_its_work(workdir):
    place = workdir(one("sleep 1; touch {output}"), held=True)  # held back
    process = place.start()
    place.wait_for(lambda: "Submitted job" in place.output(), "the job in the queue")
    job = place.submissions()[0]["id"]
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for folder in place.folder.glob(".snakemake/tmp.*"):
        shutil.rmtree(folder)  # as Snakemake does when it ends by itself
    assert place.run("--unlock") == 0
    process = place.start()
    place.wait_for(lambda: "is in the queue already" in place.output(), "the job to be found")
    place.cell.release(job)
    assert process.wait(240) == 0, place.output()
    ended(place)
    assert (place.folder / "one.txt").exists()


@pytest.mark.parametrize("inputs", [1, 30])  # of more than 20 Snakemake writes a list into a folder that it removes
def test_job_that_starts_after_its_snakemake_ended_by_itself_does_its_work(workdir, inputs):
    names = [f"in{number}.txt" for number in range(inputs)]
    ends = {"cluster-generic-status-cmd": "false"}
    place = workdir(one("touch {output}", more=f"    input: {names}\n"), held=True, profile=ends)
    for name in names:
        (place.folder / name).touch()
    assert place.run() == 1
    assert not list(place.folder.glob(".snakemake/tmp.*")) and place.queue(), place.output()
    place.cell.release(*place.queue())
    place.wait_for(lambda: not place.queue(), "the job to end")
    assert (place.folder / "one.txt").exists(), next(place.folder.glob(f"logs/{place.cell.name}/one/*")).read_text()


def test_job_on_a_node_that_does_not_see_its_input_is_not_taken_for_done(workdir):
    place = workdir(one("cat in.txt > {output}", more="    input: 'in.txt'\n").replace("'one.txt'", "update('one.txt')"))
    (place.folder / "one.txt").write_text("old")
    (place.folder / "in.txt").write_text("new")
    os.utime(place.folder / "one.txt", (1e9, 1e9))
    hides = 'mv in.txt hidden.txt; trap "mv hidden.txt in.txt; finish" EXIT'
    prologue = place.folder / place.profile / "prologue.sh"
    prologue.write_text(f"[ -e seen ] || {{ touch seen; {hides}; }}\n")
    assert place.run() == 0, place.output()
    assert "could not start: its node did not see its input in time" in place.output()
    assert place.read("one.txt") == "new"
    assert len(place.submissions()) == 2 and len(started(place)) == 1


def test_mistake_in_the_settings_during_a_run_loses_no_job(workdir):
    place = workdir(one(WAITS))
    process = place.start()
    wait_for_start(place)
    place.change("settings.yaml", {"memory_limits": "omit"})
    place.wait_for(lambda: "'memory_limits' was unexpected" in place.output(), "the mistake to be shown")
    settings = place.folder / place.profile / "settings.yaml"
    settings.write_text(settings.read_text().replace("memory_limits: omit\n", ""))
    (place.folder / "go").touch()
    assert process.wait(240) == 0, place.output()
    ended(place)


def test_training_with_other_settings_is_not_measured_by_the_progress_of_the_old(workdir):
    last = '{{"reason": "SIGINT", "epoch": 50, "step": 3}}'
    new = '{{"reason": "walltime", "epoch": 10, "step": 0}}'
    command = f"[ $(wc -l < started) -gt 1 ] && touch {{output}} || {{{{ echo '{new}' > work/stopped.json; exit 1; }}}}"
    place = workdir(one(command, rule="train"))
    (place.folder / "work").mkdir()
    (place.folder / "work/stopped.json").write_text(last.replace("{{", "{").replace("}}", "}"))
    assert place.run() == 0, place.output()
    ended(place, "saved at epoch 10, step 0 when its walltime ended; goes on in a new job", times=2)


@pytest.mark.parametrize("moment", ["between looks", "during a look"])
def test_ctrl_c_deletes_the_jobs(workdir, moment):
    place = workdir(one(WAITS), profile={"seconds-between-status-checks": 30 if moment == "between looks" else 1})
    if moment == "during a look":
        look = place.cell.look
        before(place, look, f'touch looking; sleep 5; rm looking; exec /usr/bin/{look} "$@"')
    process = place.start()
    wait_for_start(place)
    if moment == "during a look":
        place.wait_for((place.folder / "looking").exists, "a look at the queue")
    else:
        place.wait_for(lambda: place.folder.joinpath(".snakemake", place.cell.name, "queue.json").exists(), "the first look")
        time.sleep(3)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(180) != 0
    ended(place)
    assert "Traceback" not in place.output()


def test_ctrl_c_during_submission_leaves_nothing_in_the_queue(workdir):
    place = workdir(one(WAITS))
    submit = place.cell.submit
    before(place, submit, f'touch submitting; sleep 3; exec /usr/bin/{submit} "$@"')
    process = place.start()
    place.wait_for((place.folder / "submitting").exists, "a submission")
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(180) != 0
    time.sleep(5)  # for what was on its way
    assert not place.queue()
    assert "Traceback" not in place.output()


def test_snakemake_runs_as_a_job_once_the_data_are_there(workdir):
    download = "rule download:\n    output: 'data.txt'\n    localrule: True\n    shell: 'touch {output}'\n"
    place = workdir(one("touch {output}", more="    input: 'data.txt'\n") + download)

    def head(target: str = "one.txt") -> subprocess.CompletedProcess:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = os.environ | {"PATH": path, "HOURS": "1"}
        return subprocess.run(
            [f"{place.profile}/head.sh", target], cwd=place.folder, env=environment, capture_output=True, text=True
        )

    refused = head()
    assert refused.returncode == 1
    assert "  snakemake --cores 1 'one.txt' --until download\n" in refused.stderr
    assert not place.submissions()
    (place.folder / "data.txt").touch()
    (place.folder / ".snakemake/locks").mkdir(parents=True, exist_ok=True)
    (place.folder / ".snakemake/locks/0.input.lock").touch()
    assert "first: snakemake --unlock" in head().stderr
    (place.folder / ".snakemake/locks/0.input.lock").unlink()
    accepted = head()
    assert accepted.returncode == 0, accepted.stderr
    log = place.folder / accepted.stdout.split()[-1]
    place.wait_for(lambda: log.exists() and "1 of 1 steps (100%) done" in log.read_text(), f"{log}")
    ended(place)
