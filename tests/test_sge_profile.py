"""What profiles/sge asks of Grid Engine, in the dialects of two sites. Needs none; tests/cluster is about the real one."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from conftest import ROOT
from profiles import load

SGE = load("sge")
dialect, gridengine, lasting_command, Request = SGE.dialect, SGE.scheduler, SGE.command.lasting_command, SGE.dialect.Request

GPU = "-l gpu=true -l 'gpu_type=!(gtx1080ti|p100|titanx|titanxp|v100)'"
HOUR = 3600


@pytest.fixture
def profile(tmp_path, monkeypatch):
    """Return a copy of the profile, with a function that changes keys of its settings."""
    copy = tmp_path / "sge"
    shutil.copytree(ROOT / "profiles/sge", copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(dialect, "PROFILE", copy)
    return copy


def change(file, **keys):
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | keys))


def line(request, warned=False):
    return shlex.join(dialect.check_site().arguments(request, warned))


# What the site says: tmem and h_vmem are of one slot and have the same value, h_vmem is left out of GPU jobs, `-pe smp 1` is
# not to be asked for, several slots reserve (-R y), several GPUs are `-pe gpu N` and count as slots.
@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (Request(2000, 1800), "-l tmem=2000M -l h_vmem=2000M -l h_rt=0:30:00"),
        (Request(8000, 24 * HOUR, threads=3), "-l tmem=2667M -l h_vmem=2667M -l h_rt=24:00:00 -pe smp 3 -R y"),
        (Request(8000, 100 * HOUR, gpu=1), f"-l tmem=8000M -l h_rt=100:00:00 {GPU}"),
        (Request(9000, HOUR, gpu=2), f"-l tmem=4500M -l h_rt=1:00:00 {GPU} -pe gpu 2 -R y"),
        (Request(9000, HOUR, threads=4, gpu=2), f"-l tmem=4500M -l h_rt=1:00:00 {GPU} -pe gpu 2 -R y"),
        (Request(8000, HOUR, gpu=1, gpu_model="a100"), "-l tmem=8000M -l h_rt=1:00:00 -l gpu=true -l gpu_type=a100"),
        (
            Request(2000, 90, threads=2, scratch_mb=5001),
            "-l tmem=1000M -l h_vmem=1000M -l h_rt=0:01:30 -pe smp 2 -R y -l tscratch=2501M",
        ),
    ],
)
def test_request_in_the_dialect_of_ucl_cs(profile, request_, expected):
    assert line(request_) == expected


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (Request(2000, 1800), "-l mem=2G -l h_rt=0:30:00"),
        (Request(8000, 24 * HOUR, threads=3), "-l mem=3G -l h_rt=24:00:00 -pe smp 3"),
        (Request(8000, HOUR, gpu=1), "-l mem=8G -l h_rt=1:00:00 -l gpu=1 -ac allow=L"),
        (Request(8000, HOUR, threads=4, gpu=2), "-l mem=2G -l h_rt=1:00:00 -l gpu=2 -ac allow=L -pe smp 4"),
        (Request(8000, HOUR, gpu=1, gpu_model="EF"), "-l mem=8G -l h_rt=1:00:00 -l gpu=1 -ac allow=EF"),
        (Request(2000, HOUR, threads=2, scratch_mb=15500), "-l mem=1G -l h_rt=1:00:00 -pe smp 2 -l tmpfs=16G"),
    ],
)
def test_request_in_the_dialect_of_ucl_myriad(profile, request_, expected):
    change(profile / "settings.yaml", dialect="ucl-myriad")
    assert line(request_) == expected


def test_job_that_saves_its_progress_is_warned_before_the_kill(profile):
    assert line(Request(1000, HOUR), warned=True).endswith("-l h_rt=1:00:00 -l s_rt=0:57:30 -notify")
    site = dialect.check_site()
    assert (site.margin(Request(1000, HOUR)), site.margin(Request(1000, 60))) == (300, 15)


@pytest.mark.parametrize(
    ("how", "expected"), [("slot", "-l h_vmem=1000M "), ("job", "-l h_vmem=4000M "), ("omit", ""), (None, "-l h_vmem=1000M ")]
)
def test_memory_limit_is_that_of_a_slot_or_of_the_job_or_left_out(profile, how, expected):
    if how:
        change(profile / "settings.yaml", memory_limit=how)
    assert line(Request(4000, HOUR, threads=4)) == f"-l tmem=1000M {expected}-l h_rt=1:00:00 -pe smp 4 -R y"


def test_arguments_of_the_settings_come_last_and_those_for_gpus_only_with_them(profile):
    change(profile / "settings.yaml", qsub="-P 'my project' -q my.q", qsub_gpu="-ac allow=L")
    assert line(Request(1000, HOUR)).endswith("-l h_rt=1:00:00 -P 'my project' -q my.q")
    assert line(Request(1000, HOUR, gpu=1)).endswith("-P 'my project' -q my.q -ac allow=L")


def test_dialect_of_the_readme_works(profile):
    example = re.search(r"```yaml\n(# dialects/.*?)```", (ROOT / "profiles/README.md").read_text(), re.DOTALL)[1]
    (profile / "dialects/apocrita.yaml").write_text(example)
    change(profile / "settings.yaml", dialect="apocrita")
    assert len(example.strip().splitlines()) <= 11
    assert line(Request(8000, HOUR, threads=8, gpu=1)) == "-l h_vmem=1G -l h_rt=1:00:00 -l gpu=1 -pe smp 8"


@pytest.mark.parametrize(
    ("file", "keys", "message"),
    [
        (
            "settings.yaml",
            {"dialect": "nowhere"},
            "settings.yaml: dialect: 'nowhere' is no file of .*there are: ucl-cs, ucl-myriad",
        ),
        ("settings.yaml", {"walltime": 3}, "settings.yaml: top level: .*'walltime' was unexpected"),
        ("settings.yaml", {"margin": "5 min"}, "settings.yaml: margin: '5 min' is not of type 'integer'"),
        ("settings.yaml", {"memory_limit": "core"}, "settings.yaml: memory_limit: 'core' is not one of"),
        ("dialects/ucl-cs.yaml", {"walltime": "-l h_rt"}, "ucl-cs.yaml: walltime: '-l h_rt' has no place {} for the value"),
        ("dialects/ucl-cs.yaml", {"memory": {"qsub": "-l m={}", "per": "slot"}}, "ucl-cs.yaml: memory: 'unit' is a required"),
    ],
)
def test_wrong_settings_are_reported_with_file_and_key(profile, file, keys, message):
    change(profile / file, **keys)
    with pytest.raises(SystemExit, match=message):
        dialect.check_site()


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ({"gpu": 1, "gpu_model": "a100,h_rt=9:0:0"}, "gpu_model='a100,h_rt=9:0:0': only names"),
        ({"gpu": 1, "gpu_model": "a100;rm -r ~"}, "only names"),
        ({"mem_mb": "much"}, "mem_mb='much': a number was expected"),
        ({"mem_mb": 0}, "a job needs memory"),
        ({"runtime": 0}, "a job needs memory and minutes"),
    ],
)
def test_request_that_cannot_be_meant_is_refused(resources, message):
    with pytest.raises(SystemExit, match=re.escape(message)):
        Request.of(resources, threads=1)


def test_site_without_gpus_refuses_a_gpu_job(profile):
    description = yaml.safe_load((profile / "dialects/ucl-cs.yaml").read_text())
    (profile / "dialects/small.yaml").write_text(yaml.safe_dump({k: v for k, v in description.items() if k != "gpu"}))
    change(profile / "settings.yaml", dialect="small")
    with pytest.raises(SystemExit, match="does not say how a GPU is asked for"):
        line(Request(1000, HOUR, gpu=1))


def test_settings_are_read_anew_when_they_change_and_only_then(profile, tmp_path, monkeypatch):
    cache = tmp_path / "site.json"
    assert dialect.read_site(cache) == dialect.check_site()
    monkeypatch.setattr(dialect, "check_site", lambda: pytest.fail("read again"))
    assert dialect.read_site(cache).settings["dialect"] == "ucl-cs"
    monkeypatch.undo()
    monkeypatch.setattr(dialect, "PROFILE", profile)
    change(profile / "settings.yaml", dialect="ucl-myriad")
    assert dialect.read_site(cache).dialect["site"] == "UCL Myriad"


def test_look_at_the_queue_is_shared_and_so_is_its_failure(tmp_path, monkeypatch):
    calls = tmp_path / "calls"
    qstat = tmp_path / "qstat"
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for ending, alive in (("exit 1", False), ("echo '<job_info/>'", True)):
        calls.write_text("")
        qstat.write_text(f"#!/bin/sh\necho x >> {calls}\n{ending}\n")
        qstat.chmod(0o755)
        (tmp_path / str(alive)).mkdir()
        monkeypatch.chdir(tmp_path / str(alive))
        for _ in range(5):
            try:
                assert SGE.look.look(max_age=60).jobs == {}
            except SGE.base.MasterAway:
                assert not alive
        assert calls.read_text().count("x") == 1


@pytest.mark.parametrize(
    "answer", ["7", "7\nQueues are long today.", "Welcome, user 3\n7", 'Your job 7 ("one") has been submitted']
)
def test_id_is_found_whatever_the_site_says_beside_it(tmp_path, monkeypatch, answer):
    qsub = tmp_path / "qsub"
    qsub.write_text(f"#!/bin/sh\n[ \"$1 $2\" = '-b n' ] && cat <<'END'\n{answer}\nEND\n")
    qsub.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert gridengine.submit(["one.sh"]) == "7"


@pytest.mark.parametrize(("failed", "why"), [("25  : rescheduling", "node"), ("100 : assumedly after job", "")])
def test_job_that_was_started_again_to_be_rid_of_it_has_lost_its_node(tmp_path, monkeypatch, failed, why):
    """As on a real cell after `qdel` and `qmod -f -rj` of a job whose host does not answer."""
    (tmp_path / "qacct").write_text(f"#!/bin/sh\necho =====\necho 'failed       {failed}'\n")
    (tmp_path / "qacct").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert gridengine.end_of("7", None, None).why == why
    assert gridengine.end_of("7", None, 1).why == ""


def test_queue_is_read_from_the_xml_of_qstat():
    xml = """<job_info><queue_info><job_list state="running"><JB_job_number>7</JB_job_number><JB_name>train-1a</JB_name>
    <state>r</state></job_list></queue_info><job_info><job_list state="pending"><JB_job_number>8</JB_job_number>
    <JB_name>a &amp; b</JB_name><state>Eqw</state></job_list></job_info></job_info>"""
    queue = gridengine.read_queue(xml)
    assert {job: queued[:2] for job, queued in queue.items()} == {"7": ("train-1a", "r"), "8": ("a & b", "Eqw")}
    assert queue["8"].in_error and not queue["7"].in_error
    with pytest.raises(SGE.base.MasterAway, match="cut off"):
        gridengine.read_queue(xml[:100])


def test_script_outlives_its_snakemake_and_the_config_files(tmp_path):
    folder = tmp_path / "it's a dir" / ".snakemake/tmp.1"
    folder.mkdir(parents=True)
    command = f"cd 'x' && python -m snakemake --wait-for-files {str(folder)!r} 'in put.txt' --configfiles 'a b.yaml'"
    command += " \"c'd.yaml\" --config 'n=1' --mode 'remote' && exit 0 || exit 1"
    (folder / "job.sh").write_text(f"#!/bin/sh\n# properties = {{}}\n{command}\n")
    wanted = "cd 'x' && python -m snakemake --wait-for-files 'in put.txt' --mode 'remote' && exit 0 || exit 1\n"
    lasting = lasting_command(folder / "job.sh", tmp_path / "inputs.txt", ".snakemake/mriflow/1a.yaml")
    assert lasting == f"#!/bin/sh\n# properties = {{}}\nexport JOB_CONFIG=.snakemake/mriflow/1a.yaml\n{wanted}"
    kept = lasting_command(folder / "job.sh", tmp_path / "inputs.txt", None)
    assert "--configfiles 'a b.yaml'" in kept and "tmp.1" not in kept


def test_list_of_many_inputs_outlives_its_snakemake(tmp_path):
    folder = tmp_path / ".snakemake/tmp.1"
    folder.mkdir(parents=True)
    (folder / "list.txt").write_text(f"{folder}\nin.txt\n")
    (folder / "job.sh").write_text(f"#!/bin/sh\nsnakemake --wait-for-files-file '{folder}/list.txt' --mode 'remote'\n")
    lasting = lasting_command(folder / "job.sh", tmp_path / "inputs.txt", None)
    assert lasting.endswith(f"snakemake --wait-for-files-file {tmp_path}/inputs.txt --mode 'remote'\n")
    assert (tmp_path / "inputs.txt").read_text() == "in.txt\n"


@pytest.mark.parametrize("sign", ["2.json", "1.start"])
def test_job_ends_when_another_has_taken_its_place(tmp_path, sign):
    record = tmp_path / ".snakemake/sge/one-1a"
    record.mkdir(parents=True)
    (record / "1.json").write_text("{}")
    (record / "command.sh").write_text("trap '' TERM; echo $$ > process; sleep 60\n")
    site = dialect.check_site()
    site.settings["poll"] = 1
    job = SGE.jobs.Job("one", {}, "one-1a", "", {}, 1, [], None)
    (record / "1.sh").write_text(SGE.jobs.job_script(job, Request(1000, HOUR), site, record.relative_to(tmp_path) / "1", ["6"]))
    environment = os.environ | {"JOB_ID": "7", "QUEUE": "q", "SGE_STDOUT_PATH": os.devnull}
    process = subprocess.Popen(["bash", record / "1.sh"], cwd=tmp_path, env=environment, start_new_session=True)
    end = time.monotonic() + 20
    while not (tmp_path / "process").exists() and time.monotonic() < end:
        time.sleep(0.1)
    (record / sign).write_text('{"id": "7", "host": "another"}')
    assert process.wait(20) == -signal.SIGKILL
    command = Path(f"/proc/{(tmp_path / 'process').read_text().strip()}/stat")
    assert not command.exists() or command.read_text().split()[2] == "Z"
    assert not (record / "1.exit").exists()


def test_job_is_kept_under_the_names_that_earlier_versions_wrote():
    text = (
        '{"rule": "train", "wildcards": {"fold": "0"}, "name": "train-1a", "fingerprint": "2b", "resources": {"gpu": 1}, '
        '"threads": 3, "logs": [], "note": null, "attempt": 1}'
    )
    job = SGE.jobs.Job.from_json(text)
    assert (job.hash, job.threads, str(job)) == ("2b", 3, "train (fold=0)")
    assert job.to_json() == text


def preview(*arguments, program="preview"):
    command = [sys.executable, ROOT / "profiles/sge" / program, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("rule", ["train", "report"])
def test_preview_shows_the_qsub_line_and_how_to_try_the_job_by_hand(rule):
    done = preview(rule, "--configfile", "config/experiments/ixi-age-gpu.yaml")
    assert done.returncode == 0, done.stderr
    assert f"qsub -terse -S /bin/bash -cwd -j y -r n -N {rule}-example -o 'logs/sge/{rule}/$JOB_ID.log' -l tmem=" in done.stdout
    assert re.search(r"^qrsh -cwd .*-l h_rt=0:59:59", done.stdout, re.MULTILINE)
    assert {"train": "python -m mriflow.train", "report": "python -m mriflow.report"}[rule] in done.stdout
    assert ("-l gpu=true" in done.stdout) == (rule == "train")


def test_dry_run_shows_what_is_asked_for():
    command = [Path(sys.executable).parent / "snakemake", "--profile", "profiles/sge", "-n", "--forceall", "--nolock"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    preprocess = shown.stdout.partition("rule preprocess:")[2].partition("resources:")
    assert "threads: 2" in preprocess[0] and "mem_mb=14000" in preprocess[2].partition("\n")[0], shown.stdout + shown.stderr


def test_memory_of_several_threads_is_that_of_all_and_divided_by_the_slots_once():
    done = preview("preprocess", "--set-threads", "preprocess=3")
    assert done.returncode == 0, done.stderr
    assert re.search("^qsub .*-l tmem=6667M -l h_vmem=6667M .*-pe smp 3", done.stdout, re.MULTILINE)
    assert "--threads 3" in done.stdout


def test_default_resources_of_the_command_line_ask_for_no_scratch_space():
    done = preview("quality", "--default-resources", "mem_mb=1500")
    assert done.returncode == 0, done.stderr
    assert re.search("^qsub .*-l tmem=2000M -l h_vmem=2000M -l h_rt=0:30:00$", done.stdout, re.MULTILINE), done.stdout


def test_what_is_set_for_train_is_set_for_the_trials_of_a_search(tmp_path):
    search = {"method": "grid", "keys": {"learning_rate": [0.001, 0.002]}}
    overlay = {"run": ["demo-age"], "experiments": {"demo-age": {"search": "rates"}}, "searches": {"rates": search}}
    (tmp_path / "search.yaml").write_text(yaml.safe_dump(overlay))
    resources = ["train:runtime=120", "train:mem_mb=9000", "train_trial:mem_mb=3000"]
    arguments = ["--configfile", tmp_path / "search.yaml", "--set-threads", "train=3", "--set-resources", *resources]
    done = preview("train_trial", *arguments)
    assert re.search("^qsub .*-l tmem=1000M .*-l h_rt=2:00:00 .*-pe smp 3", done.stdout, re.MULTILINE), (
        done.stdout + done.stderr
    )


def test_preview_of_an_unknown_rule_names_those_there_are():
    done = preview("trian")
    assert done.returncode == 1 and "no job of the rule 'trian'" in done.stderr and "train" in done.stderr


def test_submit_print_names_the_command_that_took_its_place():
    done = preview("--print", "train", "--configfile", "a b.yaml", program="submit.py")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "submit --print is now a command of its own: profiles/sge/preview train --configfile 'a b.yaml'\n"
