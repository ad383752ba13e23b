import subprocess
import sys

import pytest

from mriflow.base.files import whole_file, write_json
from mriflow.training.checkpoint import Checkpoints, hash_of

STAGES = [
    "download",
    "simulate",
    "ukbfetch",
    "organize",
    "layout",
    "preprocess",
    "split",
    "train",
    "evaluate",
    "plot",
    "pages",
    "check",
    "quality",
    "reference",
]


@pytest.mark.parametrize("stage", STAGES)
def test_help_says_what_a_stage_does_and_explains_every_flag(stage):
    help_text = subprocess.run(
        [sys.executable, "-m", f"mriflow.{stage}", "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert len(help_text.split("\n\n")[1]) > 40
    for line in help_text.splitlines():
        if line.startswith("  --") and "," not in line:
            flag = line.split()[0]
            after = help_text[help_text.index(line) + len(line) :].lstrip("\n")
            assert "  " in line.strip() or after.startswith("   "), f"{stage} {flag} has no help"


def test_file_is_whole_or_not_there(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("before")
    with pytest.raises(RuntimeError), whole_file(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


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
