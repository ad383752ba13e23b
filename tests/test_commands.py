import errno
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from mriflow.base.cli import run_stage
from mriflow.base.commands import COMMANDS
from mriflow.base.files import whole_file, write_json
from mriflow.training.checkpoint import Checkpoints, hash_of

BIN = Path(sys.executable).parent


def run(*words):
    return subprocess.run([str(word) for word in words], capture_output=True, text=True)


@pytest.mark.parametrize("stage", COMMANDS)
def test_help_says_what_a_stage_does_and_explains_every_flag(stage, capsys):
    with pytest.raises(SystemExit) as ended:
        import_module(f"mriflow.{stage}").main(["--help"])
    assert not ended.value.code
    help_text = capsys.readouterr().out
    assert len(help_text.split("\n\n")[1]) > 40
    help_text = help_text[help_text.index("\noptions:") :]  # the usage above has flags without words
    for line in help_text.splitlines():
        if line.startswith("  --") and "," not in line:
            flag = line.split()[0]
            after = help_text[help_text.index(line) + len(line) :].lstrip("\n")
            assert "  " in line.strip() or after.startswith("   "), f"{stage} {flag} has no help"


def test_mriflow_lists_the_stages_in_order_without_loading_torch():
    code = "import sys; from mriflow.__main__ import main; main(['--help']); sys.exit('torch' in sys.modules)"
    listed = run(sys.executable, "-c", code)
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout == run(BIN / "mriflow").stdout == run(sys.executable, "-m", "mriflow", "-h").stdout
    found = [
        listed.stdout.index(f"\n  {name} ") for name in ("simulate", "organize", "preprocess", "split", "train", "evaluate")
    ]
    assert found == sorted(found)
    assert all(len(line) <= 110 for line in listed.stdout.splitlines())


def test_mriflow_command_is_the_same_as_python_m(tmp_path):
    own, module = (
        run(*words, "--help").stdout for words in ([BIN / "mriflow", "train"], [sys.executable, "-m", "mriflow.train"])
    )
    assert own.partition("\n\n")[2] == module.partition("\n\n")[2] and "usage: mriflow train" in own
    flags = [f"--labels={tmp_path}/none.csv", f"--splits={tmp_path}/s.csv", "--target=age"]
    own, module = run(BIN / "mriflow", "split", *flags), run(sys.executable, "-m", "mriflow.split", *flags)
    assert own.returncode == module.returncode == 1
    assert own.stderr == module.stderr and own.stderr.startswith(f"error: {tmp_path}/none.csv: no such table")


def test_mriflow_names_the_command_that_was_meant():
    wrong = run(BIN / "mriflow", "trian")
    assert wrong.returncode == 1 and "there is no command 'trian'. Did you mean 'train'?" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_file_is_whole_or_not_there(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("before")
    with pytest.raises(RuntimeError), whole_file(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize(
    ("number", "told"),
    [(errno.EACCES, "You may not write or read there"), (errno.ESTALE, "no mistake of yours"), (errno.ENOSPC, "no space left")],
)
def test_what_the_machine_refuses_is_told_in_words(number, told):
    def stage():
        raise OSError(number, os.strerror(number), "results/work")

    with pytest.raises(SystemExit, match="^error: ") as ended:
        run_stage(stage)
    assert told in str(ended.value) and "results/work" in str(ended.value)


def test_nan_is_no_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json({"mae": float("nan")}, tmp_path / "m.json")
    assert not (tmp_path / "m.json").exists()


def test_hash_changes_with_every_part_and_not_with_their_order():
    assert hash_of(a=1, b=[1, 2]) == hash_of(b=[1, 2], a=1)
    assert hash_of(a=1, b=[1, 2]) != hash_of(a=1, b=[2, 1])


def test_checkpoint_holds_no_code(tmp_path):
    """A checkpoint from elsewhere that holds more than tensors, numbers and texts is not loaded."""
    import torch

    marker = tmp_path / "hacked"

    class Evil:
        def __reduce__(self):
            return (open, (str(marker), "w"))

    torch.save({"fingerprint": "x", "evil": Evil()}, tmp_path / "last.ckpt")
    checkpoints = Checkpoints(tmp_path, "x")
    assert checkpoints.load() is None
    assert not marker.exists()
    checkpoints.save({"history": [{"epoch": 1}]})
    checkpoints.wait()
    assert checkpoints.load()["history"] == [{"epoch": 1}]


def test_checkpoint_written_before_its_hash_had_this_name_is_read_and_put_aside_alike(tmp_path):
    import torch

    torch.save({"fingerprint": "x", "history": [{"epoch": 3}]}, tmp_path / "last.ckpt")
    assert Checkpoints(tmp_path, "x").load()["history"] == [{"epoch": 3}]
    assert Checkpoints(tmp_path, "y").load() is None
    assert (tmp_path / "x-last.ckpt").exists()
    assert Checkpoints(tmp_path, "x").load()["history"] == [{"epoch": 3}]
