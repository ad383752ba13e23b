"""What real sites and their users do to a run, on real schedulers: nothing is silently wrong, nothing runs twice."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml

from cluster.test_faults import WAITS, before, ended, one, started, wait_for_start
from conftest import ROOT


def held_demo(workdir):
    """Return a working directory with the workflow, where the simulation of twenty people is held in the queue."""
    place = workdir("", held=True, profile={"printshellcmds": True})
    (place.folder / "Snakefile").unlink()
    for name in ("Snakefile", "envs"):
        (place.folder / name).symlink_to(ROOT / name)
    for name in ("config", "workflow"):
        shutil.copytree(ROOT / name, place.folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    overlay(place, subjects=20, voxel_mm=4)
    process = place.start("--configfile", "mine.yaml", "--", "resources/demo/DEMO.csv")
    place.wait_for(lambda: "Submitted job" in place.output(), "the job in the queue")
    return place, process


def overlay(place, **simulate) -> None:
    (place.folder / "mine.yaml").write_text(yaml.safe_dump({"datasets": {"demo": {"simulate": simulate}}}))


@pytest.mark.parametrize("edit", ["changed", "half saved"])
def test_config_that_is_edited_while_a_job_waits_is_not_that_of_the_job(workdir, edit):
    place, process = held_demo(workdir)
    (job,) = place.queue()
    if edit == "changed":
        overlay(place, subjects=30, voxel_mm=4)
        dataset = place.folder / "config/datasets/demo.yaml"
        dataset.write_text(dataset.read_text().replace("seed: 0", "seed: 1"))
        (place.folder / "workflow/mriflow/base/recipes.py").open("a").write("# one more line\n")
    else:
        (place.folder / "mine.yaml").unlink()
        (place.folder / "config/config.yaml").write_text("run: [demo-\n  age")
    place.cell.release(job)
    assert process.wait(240) == 0, place.output()
    log = place.read(f"logs/{place.cell.name}/simulate/{job}.log")
    assert "--subjects 20 --seed 0 --voxel-mm 4" in log, log
    assert ("the code changed since this job was submitted" in place.output()) == (edit == "changed")


def test_job_that_fails_before_its_stage_shows_its_own_output_and_no_earlier_log(workdir):
    place = workdir(one("echo mistake $((6 * 7)) > {log}; exit 3", more="    log: 'one.log'\n"))
    assert place.run() == 1
    first = place.submissions()[0]["id"]
    shown = place.output().count("mistake 42")
    (place.folder / place.profile / "prologue.sh").write_text("echo there is no such module; exit 1\n")
    assert place.run() == 1
    assert "there is no such module" in place.output()
    assert place.output().count("mistake 42") == shown > 0
    assert place.read(f"logs/{place.cell.name}/one/{first}-one.log") == "mistake 42\n"


@pytest.mark.parametrize("failure", ["exit 1", "echo Fatal Python error"])
def test_state_that_cannot_be_asked_for_ends_no_run(workdir, failure):
    place = workdir(one(WAITS))
    fails = f"[ -e go ] || {{ echo >> asked; {failure}; }}"
    before(place, "python3", f'case "$1" in *status*) {fails};; esac; exec {sys.executable} "$@"')
    process = place.start()
    wait_for_start(place)
    place.wait_for(lambda: place.read("asked").count("\n") > 2, "questions in vain")
    (place.folder / "go").touch()
    assert process.wait(240) == 0, place.output()
    ended(place)


@pytest.mark.only("sge")
def test_waiting_job_that_the_users_qstat_leaves_out_is_not_taken_for_lost(workdir):
    place = workdir(one("touch {output}"), held=True, grace=2)
    before(place, "qstat", f'HOME={place.folder} exec /usr/bin/qstat "$@"')
    (place.folder / ".sge_qstat").write_text("-s r\n")
    process = place.start()
    place.wait_for(lambda: "Submitted job" in place.output(), "the job in the queue")
    time.sleep(8)
    place.cell.release(place.submissions()[0]["id"])
    assert process.wait(240) == 0, place.output()
    ended(place)


RENAMES = """#!/bin/bash
source "$SGE_ROOT/util/resources/jsv/jsv_include.sh"
jsv_on_start() { :; }
jsv_on_verify() { jsv_set_param N "site_$(jsv_get_param N)"; jsv_correct; }
jsv_main
"""


def test_job_that_the_site_renames_is_known_again(workdir):
    place = workdir(one(WAITS), grace=2)
    if place.cell.name == "sge":
        (place.folder / "renames.jsv").write_text(RENAMES)
        (place.folder / "renames.jsv").chmod(0o755)
        place.change("settings.yaml", {"qsub": f"-jsv {place.folder}/renames.jsv"})
        before(place, "qsub", 'export SGE_ROOT=/var/lib/gridengine; exec /usr/bin/qsub "$@"')
    process = place.start()
    wait_for_start(place)
    if place.cell.name == "slurm":
        subprocess.run(["scontrol", "update", f"jobid={place.submissions()[0]['id']}", "name=site_one"], check=True)
    (job,) = [one["id"] for one in place.submissions()]
    time.sleep(6)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert place.run("--unlock") == 0
    process = place.start()
    place.wait_for(lambda: "is in the queue already" in place.output(), "the job to be found")
    described = {"sge": ["qstat", "-j", job], "slurm": ["scontrol", "show", "job", job]}[place.cell.name]
    assert "site_one" in subprocess.run(described, capture_output=True, text=True, check=True).stdout
    (place.folder / "go").touch()
    assert process.wait(240) == 0, place.output()
    ended(place)


# A training that saves and ends when it is warned, as it is before it is killed.
SAVES = """
mkdir -p work
trap 'echo "{\\"reason\\": \\"SIGUSR2\\", \\"epoch\\": 1, \\"step\\": $RANDOM}" > work/stopped.json; exit 1' USR2
if [ $(wc -l < started) -gt 1 ] && kill -0 $(head -1 started); then touch overlap; fi
until [ -e go ]; do sleep 0.2; done
touch $1
"""


@pytest.mark.long
@pytest.mark.only("sge")
def test_training_that_an_admin_starts_again_runs_once_at_a_time(workdir, admin):
    place = workdir(one("bash train.sh {output}", rule="train"))
    (place.folder / "train.sh").write_text(SAVES)
    process = place.start()
    wait_for_start(place)
    admin("reschedule", place.submissions()[0]["id"])
    place.wait_for(lambda: len(started(place)) == 2, "the second start", 120)
    time.sleep(3)
    (place.folder / "go").touch()
    assert process.wait(240) == 0, place.output()
    assert len(started(place)) == 2, place.output()
    assert not (place.folder / "overlap").exists()


@pytest.mark.parametrize("way", [0, 1])
def test_full_site_is_waited_for_longer_than_a_master_and_told_once(workdir, way):
    place = workdir(one("touch {output}"), patience=2)
    submit, refusal = place.cell.submit, f"echo '{place.cell.full[way]}' >&2; exit 1"
    before(place, submit, f'[ -e go ] || {{ echo >> asked; {refusal}; }}; exec /usr/bin/{submit} "$@"')
    process = place.start()
    place.wait_for(lambda: place.read("asked").count("\n") > 6, "submissions in vain")
    (place.folder / "go").touch()
    assert process.wait(240) == 0, place.output()
    ended(place)
    assert place.output().count("the site takes no more jobs now") == 1


@pytest.mark.parametrize("hosts", ["one", "several"])
def test_failure_of_the_machine_is_none_of_the_users(workdir, hosts):
    stale = "OSError: [Errno 116] Stale file handle"
    fails = f"[ $(wc -l < started) -gt 1 ] || {{{{ echo '{stale}' > {{log}}; exit 1; }}}}; touch {{output}}"
    place = workdir(one(fails, more="    log: 'one.log'\n"))
    avoids = {"sge": "hostname=!{}", "slurm": "--exclude={}"}[place.cell.name]
    if place.cell.name == "slurm" and hosts == "one":
        place.change("settings.yaml", {"sbatch": "--partition=single"})
    if place.cell.name == "sge" and hosts == "several":  # for all that qsub says; the job goes where it can
        found = '[[ "$*" != *"-w v"* ]] || { echo found suitable queue; exit; }'
        before(place, "qsub", f'{found}; exec /usr/bin/qsub "${{@/hostname=!*/hostname=*}}"')
    assert place.run() == 0, place.output()
    host = json.loads(place.records("1.start", "one")[0].read_text())["host"]
    ended(place, f"failed by its machine, {host}, which the next try avoids", "Stale file handle", times=2)
    assert (avoids.format(host) in place.asked(place.submissions()[1])) == (hosts == "several")


@pytest.mark.only("sge")
@pytest.mark.parametrize(
    ("resources", "why"), [("mem_mb=100000", "No queue of this site could ever run it"), ("gpu=0", "held")]
)
def test_job_that_waits_long_is_told_why_once(workdir, resources, why):
    place = workdir(one("touch {output}", resources), held="mem_mb" not in resources)
    place.start()
    place.wait_for(lambda: "has waited for" in place.output(), "a word")
    time.sleep(5)
    assert place.output().count("has waited for") == 1
    assert why in place.output().partition("has waited for")[2]
    assert ("offers only hc:tmem=64" in place.output()) == ("mem_mb" in resources)


@pytest.mark.only("slurm")
@pytest.mark.parametrize(("asks", "why"), [("--hold", "It is held (JobHeldUser)"), ("--begin=now+600", "reason: BeginTime")])
def test_job_that_waits_long_is_told_the_reason_of_slurm_once(workdir, asks, why):
    place = workdir(one("touch {output}"), asks=asks)
    place.start()
    place.wait_for(lambda: "has waited for" in place.output(), "a word")
    time.sleep(5)
    assert place.output().count("has waited for") == 1
    assert why in place.output().partition("has waited for")[2]


# The first time a job that its node does not end; then one that fails if that one is alive.
LIVES_ON = "[ $(wc -l < started) -gt 1 ] || sleep 600; ! kill -0 $(head -1 started) 2> /dev/null && touch {output}"


@pytest.mark.long
@pytest.mark.alone
@pytest.mark.only("sge")
def test_job_of_a_lost_node_is_waited_for_until_its_user_is_rid_of_it(workdir, admin):
    place = workdir(one(LIVES_ON))
    process = place.start()
    wait_for_start(place)
    (job,) = place.queue()
    admin("kill-execd")
    time.sleep(70)  # after 60 Grid Engine says that it knows nothing of the host
    assert place.queue() == {job: "running"} and len(place.submissions()) == 1
    subprocess.run(["qdel", job], check=True)
    place.wait_for(lambda: place.queue() == {job: "dr"}, "its being deleted")
    subprocess.run(["qmod", "-f", "-rj", job], check=True)
    log = f"logs/sge/one/{job}.log"
    place.wait_for(lambda: f"another job has taken the place of job {job}" in place.read(log), "the old job to end itself")
    assert "-a" in place.asked(place.submissions()[1])
    admin("start-execd")
    assert process.wait(240) == 0, place.output()
    ended(place, "lost its node (accounting: failed 25", times=2)


@pytest.mark.only("slurm")
def test_job_of_a_lost_node_runs_again_after_the_old_one_was_ended(workdir, admin):
    place = workdir(one(LIVES_ON), asks="--partition=spare")
    process = place.start()
    wait_for_start(place)
    place.change("settings.yaml", {"sbatch": ""})
    admin("kill-node")
    assert process.wait(240) == 0, place.output()
    ended(place, "lost its node (Slurm: NODE_FAIL", times=2)
    first = place.submissions()[0]["id"]
    assert f"another job has taken the place of job {first}" in place.read(f"logs/slurm/one/{first}.log")
