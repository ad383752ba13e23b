"""What a job finds where it runs, on a real Grid Engine."""

import subprocess
import sys

import pytest

from conftest import ROOT

LOOK = "echo $NSLOTS $QUEUE $OMP_NUM_THREADS [${{CUDA_VISIBLE_DEVICES:-}}] > {output}"


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
    resources: gpu=2, gpu_model="(a100|rtx4090)", mem_mb=2000
    shell: "{LOOK}"
""")
    assert place.run() == 0, place.output()
    assert place.read("plain.txt") == "1 cpu.q 1 []\n"
    assert place.read("threads.txt") == "2 cpu.q 2 []\n"
    assert place.read("gpu.txt") == "1 gpu.q 1 []\n"
    assert place.read("gpus.txt") == "2 gpu.q 1 []\n"
    assert "sge: gpus: qsub -terse" in place.output(), "the command is shown"


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
    (place.folder / "profiles/sge/prologue.sh").write_text("export SITE='of the prologue'\n")
    assert place.run() == 0, place.output()
    assert place.read("one.txt") == "of the prologue\n"


def test_job_that_the_site_refuses_is_shown_with_its_reason_and_command(workdir):
    place = workdir('rule one:\n    output: "one.txt"\n    shell: "touch {output}"\n', qsub="-l nonsense=1")
    assert place.run() == 1
    assert 'unknown resource "nonsense"' in place.output()
    assert "qsub -terse" in place.output()


@pytest.mark.long
def test_whole_workflow_runs_on_the_cell_with_training_in_the_gpu_queue(workdir):
    place = workdir("")
    (place.folder / "Snakefile").unlink()
    for name in ("Snakefile", "config", "workflow", "envs"):
        (place.folder / name).symlink_to(ROOT / name)
    (place.folder / "gpu.yaml").write_text("training: {three-epochs: {gpu: 1, allow_cpu: true}}\n")
    arguments = ["--configfile", "config/experiments/quick.yaml", "gpu.yaml"]
    assert place.run(*arguments, timeout=1200) == 0, place.output()
    assert (place.folder / "quick/results/report.html").stat().st_size > 100_000
    assert len(place.submissions("train")) == 4
    assert all("gpu=true" in job["qsub"] and "-notify" in job["qsub"] for job in place.submissions("train"))
    names = [job["qsub"][job["qsub"].index("-N") + 1] for job in place.submissions()]
    assert len(names) == len(set(names)), "no job ran twice"
    usage = subprocess.run(
        [sys.executable, "profiles/sge/usage"], cwd=place.folder, capture_output=True, text=True, check=True
    ).stdout
    cells = next(line for line in usage.splitlines() if line.startswith("train")).split()
    assert "gpu.q" in cells and cells[4].isdigit(), "the memory of the benchmark files"
    assert place.run("-n", *arguments) == 0
    assert "Nothing to be done" in place.output()
