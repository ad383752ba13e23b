"""What a job finds where it runs, on real schedulers."""

import subprocess
import sys

import pytest

from conftest import ROOT

# Slots, queue and GPUs of a job in each of the two, and its threads.
LOOK = """
echo ${{NSLOTS:-${{SLURM_CPUS_PER_TASK:-1}}}} ${{QUEUE:-$SLURMD_NODENAME}} $OMP_NUM_THREADS [${{SLURM_JOB_GPUS:-}}] > {output}
""".strip()
SEEN = {
    "sge": ["1 cpu.q 1 []", "2 cpu.q 2 []", "1 gpu.q 1 []", "2 gpu.q 1 []"],
    "slurm": ["1 node 1 []", "2 node 2 []", "1 gpu 1 [0]", "1 gpu 1 [0,1]"],
}


def test_job_gets_the_slots_queue_and_threads_that_it_asked_for(workdir):
    place = workdir(f"""
rule all:
    input: "plain.txt", "threads.txt", "gpu.txt", "gpus.txt"
rule plain:
    output: "plain.txt"
    shell: "{LOOK}"
rule threads:
    output: "threads.txt"
    threads: 2
    shell: "{LOOK}"
rule gpu:
    output: "gpu.txt"
    resources: gpu=1
    shell: "{LOOK}"
rule gpus:
    output: "gpus.txt"
    resources: gpu=2, gpu_model="rtx4090", mem_mb=2000
    shell: "{LOOK}"
""")
    assert place.run() == 0, place.output()
    assert [" ".join(place.read(f"{one}.txt").split()) for one in ("plain", "threads", "gpu", "gpus")] == SEEN[place.cell.name]
    assert f"{place.cell.name}: gpus: {place.cell.submit} -" in place.output(), "the command is shown"


@pytest.mark.only("sge")  # elsewhere the site makes it
def test_scratch_folder_is_made_for_the_job_and_removed_after_it(workdir):
    place = workdir("""
rule one:
    output: "one.txt"
    resources: scratch_mb=100
    shell: "echo x > $TMPDIR/part && echo $TMPDIR > {output}"
""")
    place.change("dialects/ucl-cs.yaml", {"scratch_folder": f"{place.folder}/scratch/$USER/$JOB_ID"})
    assert place.run() == 0, place.output()
    folder = place.read("one.txt").strip()
    assert folder == f"{place.folder}/scratch/mriflow/{place.submissions('one')[0]['id']}"
    assert not [*place.folder.glob("scratch/mriflow/*")]


def test_prologue_is_read_before_the_job(workdir):
    place = workdir('rule one:\n    output: "one.txt"\n    shell: "echo $SITE > {output}"\n')
    (place.folder / place.profile / "prologue.sh").write_text("export SITE='of the prologue'\n")
    assert place.run() == 0, place.output()
    assert place.read("one.txt") == "of the prologue\n"


def test_job_that_the_site_refuses_is_shown_with_its_reason_and_command(workdir, scheduler):
    asks, reason = {
        "sge": ("-l nonsense=1", 'unknown resource "nonsense"'),
        "slurm": ("--gres=nonsense:1", "Invalid generic resource (gres) specification"),
    }[scheduler.name]
    place = workdir('rule one:\n    output: "one.txt"\n    shell: "touch {output}"\n', asks=asks)
    assert place.run() == 1
    assert reason in place.output()
    assert f"{scheduler.submit} -" in place.output()


@pytest.mark.long
def test_whole_workflow_runs_with_training_on_gpus(workdir):
    place = workdir("")
    (place.folder / "Snakefile").unlink()
    for name in ("Snakefile", "config", "workflow", "envs"):
        (place.folder / name).symlink_to(ROOT / name)
    (place.folder / "gpu.yaml").write_text("training: {three-epochs: {gpu: 1, allow_cpu: true}}\n")
    arguments = ["--configfile", "config/experiments/quick.yaml", "gpu.yaml"]
    assert place.run(*arguments, timeout=1200) == 0, place.output()
    assert (place.folder / "quick/results/report.html").stat().st_size > 100_000
    assert len(place.submissions("train")) == 4
    wanted = {"sge": {"gpu=true", "-notify"}, "slurm": {"--gres=gpu:1", "--signal=B:USR1@10"}}[place.cell.name]
    assert all(wanted <= {*place.asked(job)} for job in place.submissions("train"))
    assert len(place.submissions()) == len(place.records("job.json")), "no job ran twice"
    usage = subprocess.run(
        [sys.executable, f"{place.profile}/usage"], cwd=place.folder, capture_output=True, text=True, check=True
    ).stdout
    cells = next(line for line in usage.splitlines() if line.startswith("train")).split()
    assert {"sge": "gpu.q", "slurm": "all"}[place.cell.name] in cells and cells[4].isdigit(), (
        "the memory of the benchmark files"
    )
    assert place.run("-n", *arguments) == 0
    assert "Nothing to be done" in place.output()
