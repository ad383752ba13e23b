"""Ctrl-C in the middle of each stage that takes a while: a word, no traceback, nothing half-made under a final name.

Download and train have such tests of their own; the other stages are over in a moment.
"""

import gzip
import json
import os
import signal
import subprocess
import sys
import tarfile
import time

import numpy as np
import pandas as pd
import pytest

from conftest import training_settings, write_dataset
from mriflow.config.resolve import training_part
from mriflow.split import split
from mriflow.train import train


def interrupt(folder, stage, arguments, started):
    """Run a stage, press Ctrl-C as soon as `started` says so, and see that it ends as it should."""
    log = folder / "log.txt"
    with log.open("w") as stream:
        command = [sys.executable, "-m", f"mriflow.{stage}", *map(str, arguments)]
        process = subprocess.Popen(command, stderr=stream)
    while not started(log.read_text()):
        assert process.poll() is None, f"over before it was interrupted: {log.read_text()}"
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130, log.read_text()
    assert "interrupted" in log.read_text()
    assert "Traceback" not in log.read_text()


@pytest.mark.long
def test_simulate(tmp_path):
    files = [f"--archive={tmp_path}/a.tar", f"--table={tmp_path}/a.csv", "--subjects=200"]
    interrupt(tmp_path, "simulate", files, lambda said: " 0/200" in said and not said.endswith(" 0/200"))
    assert not (tmp_path / "a.tar").exists()
    assert not (tmp_path / "a.csv").exists()


def test_organize_unpacks_the_rest_when_run_again(tmp_path):
    image = gzip.compress(os.urandom(2_000_000), compresslevel=0, mtime=0)
    (tmp_path / "image").write_bytes(image)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for i in range(300):
            tar.add(tmp_path / "image", f"S{i:03d}-A-T1.nii.gz")
    (tmp_path / "t.csv").write_text("ID\n" + "\n".join(map(str, range(300))))
    out = tmp_path / "data"
    arguments = [f"--labels={out}/labels.csv", f"--scans={out}/scans.csv", f"--table={tmp_path}/t.csv"]
    arguments += [f"--images={tmp_path}/a.tar", r"--pattern=(?P<subject>S\d+)-A-T1\.nii\.gz"]
    arguments += ["--columns", json.dumps({"subject": {"from": "ID", "format": "S{:03d}"}})]
    interrupt(tmp_path, "organize", arguments, lambda said: list((out / "images").glob("[!.]*.gz")))
    kept = list((out / "images").glob("[!.]*.gz"))
    assert 0 < len(kept) < 300
    assert {path.stat().st_size for path in kept} == {len(image)}
    assert not (out / "labels.csv").exists()
    subprocess.run([sys.executable, "-m", "mriflow.organize", *arguments], check=True, capture_output=True)
    assert len(pd.read_csv(out / "labels.csv")) == 300


def test_preprocess(tmp_path):
    from mriflow.images.registration import template
    from test_preprocess import make_list

    image = template()
    brain = np.asarray(image.dataobj, np.float32)[::4, ::4, ::4] * 1000, image.affine @ np.diag([4, 4, 4, 1])
    scans = make_list(tmp_path, 4, brain)
    arguments = [f"--scans={scans}", f"--array={tmp_path}/s.npy", f"--index={tmp_path}/s.csv", "--stripped", "--voxel-mm=4"]
    arguments += ["--shape", 40, 48, 40]
    interrupt(tmp_path, "preprocess", arguments, lambda said: list((tmp_path / ".s.partial").glob("[!.]*.npz")))
    assert not (tmp_path / "s.npy").exists()
    assert list((tmp_path / ".s.partial").glob("[!.]*.npz")), "the finished scan is kept"


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_evaluate(tmp_path):
    target = {"column": "age", "type": "regression", "unit": "years"}
    files = write_dataset(tmp_path / "data", subjects=24)
    splits, training = tmp_path / "splits.csv", training_settings(epochs=1)
    split(files["labels"], splits, target="age", folds=2)
    models = [tmp_path / f"fold-{fold}" / "model.pt" for fold in (0, 1)]
    settings = {"experiment": "e", "dataset": {"title": "t"}, "names": {"target": "age"}, "target": target}
    settings |= {"preprocess": {"registration": "affine", "channels": ["image"], "voxel_mm": 4}, "training": training}
    settings |= {"network": {"name": "SFCN", "arguments": {"channels": [4, 4]}}, "auxiliary": [], "covariates": []}
    settings |= {"impute": False}
    for fold, model in enumerate(models):
        history, work = model.with_name("history.csv"), model.with_name("work")
        parts = {part: training_part(settings, part) for part in ("target", "inputs", "network", "training")}
        train(model, history, model.with_name("warnings.json"), work, **files, splits=splits, fold=fold, seed=0, **parts)
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    arguments = [f"--predictions={tmp_path}/p.csv", f"--metrics={tmp_path}/m.json", "--models", *models]
    arguments += ["--warnings", *(model.with_name("warnings.json") for model in models)]
    arguments += ["--arrays", *files["arrays"], "--indices", *files["indices"], f"--labels={files['labels']}"]
    arguments += [f"--splits={splits}", f"--settings={tmp_path}/settings.json"]
    interrupt(tmp_path, "evaluate", arguments, lambda said: "2/2" in said)
    assert not (tmp_path / "m.json").exists()
