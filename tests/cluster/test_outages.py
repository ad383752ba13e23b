"""A bad day of the cluster itself, odd names, and very many jobs, on real schedulers. Each test takes minutes."""

import itertools
import os
import re
import shutil
import signal
import statistics
import time
from datetime import datetime

import pytest

pytestmark = pytest.mark.long


def rule(name: str, command: str, needs: str = "", odd_name: str = "") -> str:
    """Return a rule whose every run appends its name to the file `runs`."""
    lines = [f"rule {name}:", f"output: '{name}.txt'"]
    lines += [f"name: {odd_name!r}"] * bool(odd_name) + [f"input: '{needs}.txt'"] * bool(needs)
    return "\n    ".join([*lines, f"shell: {f'echo {name} >> runs; {command}; touch {{output}}'!r}"]) + "\n"


def until(file: str) -> str:
    """Return a command that waits for a file."""
    return f"until [ -e {file} ]; do sleep 0.2; done"


def all_of(*rules: str) -> str:
    """Return the rule that asks for the outputs of others."""
    return f"rule all:\n    input: {[f'{name}.txt' for name in rules]}\n"


def shim(place, command: str, script: str) -> None:
    """Put a bash script before one of the scheduler's commands, which it calls as `real`."""
    file = place.bin / command
    file.write_text(f'#!/bin/bash\nreal() {{ {shutil.which(command)} "$@"; }}\n{script}\n')
    file.chmod(0o755)


def wait_for_note(place, ending: str) -> None:
    """Wait for a file of the first submission of the rule `one`."""
    place.wait_for(lambda: list(place.records(f"1.{ending}", "one")), f"1.{ending}")


def check_that_each_ran_once(place, *rules: str) -> None:
    """Check that a run ended well with one submission and one run of each job, and left nothing in the queue."""
    place.wait_for(lambda: not place.queue(), "the queue to be empty")
    assert sorted(place.read("runs").split()) == sorted(rules), place.output()
    assert len(list(place.folder.glob(f"logs/{place.cell.name}/*/*.log"))) == len(place.submissions()) == len(rules), (
        place.output()
    )
    assert not place.records("*.end"), place.output()


def test_job_that_vanished_without_a_trace_is_run_once_more(workdir):
    place = workdir(rule("one", "ps -o pgid= $$ > group; [ $(wc -l < runs) -gt 1 ] || sleep 600"))
    for accounting in ("qacct", "sacct"):
        (place.bin / accounting).write_text("#!/bin/sh\nexit 1\n")
        (place.bin / accounting).chmod(0o755)
    run = place.start()
    place.wait_until_running("one")
    place.wait_for(lambda: place.read("group").strip(), "the job to note its process group")
    os.killpg(int(place.read("group")), signal.SIGKILL)  # the job script too, so that nobody writes an exit code
    killed = time.time()
    assert run.wait(120) == 0, place.output()
    first, second = place.submissions("one")
    reason = "ended without an exit code: it was killed or deleted, or its node was lost"
    assert f"job {first['id']}: {reason}" in place.output()
    assert place.read("runs").split() == ["one", "one"]
    assert 6 <= second["time"] - killed < 60
    place.wait_for(lambda: not place.queue(), "the queue to be empty")


@pytest.mark.parametrize("ended", [False, True], ids=["runs", "has ended"])
def test_job_whose_submission_was_not_answered_is_not_submitted_again(workdir, ended):
    place = workdir(rule("one", "true" if ended else until("go")))
    lose = f"{{ real \"$@\" > /dev/null; echo '{place.cell.away}' >&2; exit 1; }}"
    shim(place, place.cell.submit, f'mkdir lost 2>/dev/null && {lose}\nreal "$@"')
    if ended:  # the master is away until then
        away = f"[ -e go ] || {{ echo '{place.cell.away}' >&2; exit 1; }}\n"
        shim(place, place.cell.look, away + 'real "$@"')
    run = place.start()
    if ended:
        wait_for_note(place, "exit")
        place.wait_for(lambda: not place.queue(), "the queue to be empty")
    else:
        place.wait_until_running("one")
    (place.folder / "go").touch()
    assert run.wait(120) == 0, place.output()
    assert f"one: trying again in 2 s: {place.cell.away}" in place.output()
    check_that_each_ran_once(place, "one")


def test_unanswered_submission_of_a_killed_snakemake_does_not_answer_for_the_next(workdir):
    place = workdir(rule("one", "[ $(wc -l < runs) -gt 1 ]"))
    shim(place, place.cell.submit, 'real "$@"\nsleep 600')
    run = place.start()
    wait_for_note(place, "exit")
    os.killpg(run.pid, signal.SIGKILL)
    (place.bin / place.cell.submit).unlink()
    assert place.run("--unlock") == 0, place.output()
    assert place.run() == 0, place.output()
    assert place.read("runs").split() == ["one", "one"]


def test_output_that_shows_late_is_waited_for(workdir):
    place = workdir(rule("one", "true"), profile={"latency-wait": 60})
    prologue = place.folder / place.profile / "prologue.sh"
    prologue.write_text("trap 'mv one.txt unseen; finish' EXIT\n")  # the node sees it, Snakemake does not yet
    run = place.start()
    wait_for_note(place, "exit")
    time.sleep(20)
    assert run.poll() is None, place.output()
    (place.folder / "unseen").rename(place.folder / "one.txt")
    assert run.wait(120) == 0, place.output()
    check_that_each_ran_once(place, "one")


def test_exit_code_that_shows_late_is_waited_for(workdir):
    place = workdir(rule("one", "true"), grace=30)
    prologue = place.folder / place.profile / "prologue.sh"
    prologue.write_text("trap 'note unseen \"$job $?\"' EXIT\n")
    run = place.start()
    wait_for_note(place, "gone")
    time.sleep(5)
    (unseen,) = place.records("1.unseen", "one")
    unseen.rename(unseen.with_suffix(".exit"))
    assert run.wait(120) == 0, place.output()
    check_that_each_ran_once(place, "one")


@pytest.mark.parametrize("name", ["1 it's a dir @home", '2 "dirs" 50% %j @home'])
def test_odd_names_of_directories_and_rules(workdir, name):
    odd_names = ["1st", "two words", '3 "quoted" @rule', "a/b = {c}, 100 %", "$HOME*"]
    rules = [f"odd{number}" for number in range(len(odd_names))]
    snakefile = [rule(one, until("go"), odd_name=odd) for one, odd in zip(rules, odd_names, strict=True)]
    place = workdir(all_of(*rules) + "".join(snakefile), name=name)
    run = place.start()
    place.wait_for(lambda: [*place.queue().values()] == ["running"] * len(rules), "all jobs to run", 240)
    os.killpg(run.pid, signal.SIGKILL)
    assert place.run("--unlock") == 0, place.output()
    run = place.start()
    place.wait_for(lambda: place.output().count("is in the queue already") == len(rules), "all jobs to be found")
    (place.folder / "go").touch()
    assert run.wait(120) == 0, place.output()
    check_that_each_ran_once(place, *rules)


def test_two_hundred_jobs_at_once_share_one_look_at_the_queue(workdir):
    jobs = 200
    snakefile = f"""
rule all:
    input: expand("{{number}}.txt", number=range({jobs}))
rule tiny:
    output: "{{number}}.txt"
    shell: "echo {{wildcards.number}} >> runs; touch {{output}}"
"""
    place = workdir(snakefile, poll=10)
    status = f"echo >> status.calls; {place.profile}/status"
    place.change("config.yaml", {"seconds-between-status-checks": 5, "cluster-generic-status-cmd": status})
    # -j, --jobs: about single ones, as those of other tests
    shim(place, place.cell.look, '[[ "$*" == *-j* ]] || echo >> look.calls; real "$@"')
    begun = time.time()
    assert place.run(timeout=1800) == 0, place.output()
    seconds = time.time() - begun
    check_that_each_ran_once(place, *map(str, range(jobs)))
    looks, asked = place.read("look.calls").count("\n"), place.read("status.calls").count("\n")
    print(f"{jobs} jobs in {seconds:.0f} s, {looks} looks at the queue for {asked} of status; {measured(place)}")
    assert looks < seconds / 10 + 2


def measured(place) -> str:
    """Return the time between submissions, and from a job's end to its notice (Snakemake's clock shows whole seconds)."""
    sent = [one["time"] for one in place.submissions()]
    between = sorted(after - before for before, after in itertools.pairwise(sent))
    names = dict(re.findall(r"Submitted job (\d+) with external jobid '\d+\.(.*)'", place.output()))
    delays = []
    for when, number in re.findall(r"\[(.*)\]\nFinished jobid: (\d+) \(Rule: (?!all)", place.output()):
        ended = (place.folder / f".snakemake/{place.cell.name}/{names[number]}/1.exit").stat().st_mtime
        delays.append(datetime.strptime(when, "%a %b %d %H:%M:%S %Y").timestamp() + 0.5 - ended)
    return (
        f"seconds between submissions: median {statistics.median(between):.2f}, max {between[-1]:.1f}; "
        f"from end to noticed: median {statistics.median(delays):.1f}, max {max(delays):.1f}"
    )


@pytest.mark.alone
@pytest.mark.only("sge")
def test_killed_and_restarted_execd_loses_no_job(workdir, admin):
    place = workdir(all_of("one", "two") + rule("one", until("go1")) + rule("two", until("go2")))
    run = place.start()
    place.wait_for(lambda: [*place.queue().values()] == ["running", "running"], "both jobs to run")
    admin("kill-execd")
    (place.folder / "go1").touch()
    place.wait_for(lambda: "(Rule: one)" in place.output(), "the job that ended meanwhile to be noticed")
    admin("start-execd")
    (place.folder / "go2").touch()
    assert run.wait(180) == 0, place.output()
    check_that_each_ran_once(place, "one", "two")


@pytest.mark.alone
def test_master_away_for_a_minute_loses_no_job_and_delays_a_submission(workdir, admin):
    next_one = rule("next", "true", needs="one")
    place = workdir(all_of("next", "two") + rule("one", until("go1")) + next_one + rule("two", until("go2")))
    run = place.start()
    place.wait_for(lambda: [*place.queue().values()] == ["running", "running"], "both jobs to run")
    admin("stop-master")
    down = time.monotonic()
    (place.folder / "go1").touch()
    place.wait_for(lambda: "next: trying again in 10 s" in place.output(), "a submission that fails")
    time.sleep(max(0, 60 - (time.monotonic() - down)))
    assert run.poll() is None, place.output()
    admin("start-master")
    (place.folder / "go2").touch()
    assert run.wait(240) == 0, place.output()
    check_that_each_ran_once(place, "one", "next", "two")
