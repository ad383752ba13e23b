"""From scans to shards: on the template, the same every time, and no failure of one scan, job or machine spoils the others."""

import dataclasses
import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn.datasets import load_mni152_gm_template, load_mni152_wm_template
from nilearn.image import resample_img
from scipy import ndimage

from conftest import shared, write_scan
from mriflow import preprocess as stage
from mriflow.base import recipes
from mriflow.base.errors import UserError
from mriflow.base.processes import workers
from mriflow.images import scan as scan_module
from mriflow.images.kept import Kept
from mriflow.images.mask import brain_mask, surrounded_mask
from mriflow.images.nifti import BadScan, Scan, load_scan
from mriflow.images.registration import TEMPLATE_ML, find_transform, grid_affine, template, to_grid
from mriflow.images.scan import PreprocessSettings, foreground, preprocess_scan
from mriflow.images.tissues import probabilities
from mriflow.preprocess import preprocess
from mriflow.prune import prune
from mriflow.training.loader import open_shards

GRID = {"voxel_mm": 4.0, "shape": (40, 48, 40)}


@pytest.fixture(scope="module")
def brain():
    """The template's brain at 4 mm as voxels and affine: the smallest real brain there is."""
    image = template()
    return np.asarray(image.dataobj, np.float32)[::4, ::4, ::4] * 1000, image.affine @ np.diag([4, 4, 4, 1])


def write_brain(path, brain, shift_mm=(0, 0, 0), noise=0, seed=0):
    data, affine = brain
    moved = affine.copy()
    moved[:3, 3] += shift_mm
    noisy = np.where(data > 0, data + noise * np.random.default_rng(seed).normal(size=data.shape), 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(noisy.clip(0).astype(np.int16), moved), path)
    return path


def make_list(folder, count, brain):
    for i in range(count):
        write_brain(folder / f"scan-{i}.nii.gz", brain, noise=30, seed=i)
    names = [f"scan-{i}" for i in range(count)]
    table = pd.DataFrame({"id": names, "path": [f"{n}.nii.gz" for n in names], "fingerprint": names})
    table.to_csv(folder / "scans.csv", index=False)
    return folder / "scans.csv"


def run(scans, out, **options):
    return preprocess(scans, out / "s.npy", out / "s.csv", stripped=True, **GRID, **options)


def settings(**changed):
    usual = {"registration": "affine", **GRID, "percentiles": (0.5, 99.5), "stripped": True}
    return PreprocessSettings(**usual | changed)


def test_a_scan_comes_out_on_the_template_however_it_lies_and_is_stored(brain, tmp_path):
    data, affine = brain
    straight = preprocess_scan(write_brain(tmp_path / "a.nii.gz", brain), settings())
    turned = nib.Nifti1Image(data.astype(np.int16), affine).as_reoriented(
        nib.orientations.axcodes2ornt("PSR") @ np.diag([1, 1])
    )
    turned.affine[:3, 3] += (12, -9, 7)
    nib.save(nib.Nifti1Image(np.asarray(turned.dataobj), turned.affine), tmp_path / "b.nii.gz")
    assert nib.aff2axcodes(nib.load(tmp_path / "b.nii.gz").affine) != ("R", "A", "S")
    moved = preprocess_scan(tmp_path / "b.nii.gz", settings())
    for image, quality in (straight, moved):
        assert image.dtype == np.uint8
        assert image.shape == (40, 48, 40)
        assert quality["correlation"] > 0.95
        assert quality["scale"] == pytest.approx(1, abs=0.08)
    assert np.corrcoef(straight[0].ravel(), moved[0].ravel())[0, 1] > 0.97


def test_head_size_goes_with_affine_and_stays_with_rigid_registration(brain, tmp_path):
    data, affine = brain
    small = affine @ np.diag([0.9, 0.9, 0.9, 1])
    nib.save(nib.Nifti1Image(data.astype(np.int16), small), tmp_path / "small.nii.gz")
    sizes = {}
    for registration in ("affine", "rigid"):
        image, quality = preprocess_scan(tmp_path / "small.nii.gz", settings(registration=registration))
        sizes[registration] = (image > 0).sum()
    assert sizes["rigid"] < 0.85 * sizes["affine"]
    assert quality["scale"] == 1
    assert quality["correlation"] > 0.9  # a head is no worse for being small


def test_intensities_do_not_depend_on_the_scanners_scale(brain, tmp_path):
    data, affine = brain
    write_brain(tmp_path / "a.nii.gz", brain)
    nib.save(nib.Nifti1Image((data * 7.3).astype(np.float32), affine), tmp_path / "b.nii.gz")
    one, two = (preprocess_scan(tmp_path / f"{n}.nii.gz", settings())[0] for n in "ab")
    assert np.abs(one.astype(int) - two.astype(int)).mean() < 2


def test_grid_is_that_of_the_sfcn_paper():
    affine = grid_affine(1, (160, 192, 160))
    fsl = np.array([[-1, 0, 0, 90], [0, 1, 0, -126], [0, 0, 1, -72], [0, 0, 0, 1.0]])  # MNI152_T1_1mm, 182x218x182
    first = np.linalg.inv(fsl) @ affine @ [0, 0, 0, 1]
    # A crop of the middle: 11, 13 and 11 voxels at each end.
    assert np.allclose(first[:3], [182 - 1 - 11, 13, 11])


def test_one_bad_scan_never_stops_the_cohort(brain, tmp_path):
    scans = make_list(tmp_path, 3, brain)
    good = (tmp_path / "scan-0.nii.gz").read_bytes()
    (tmp_path / "scan-1.nii.gz").write_bytes(good[: len(good) // 2])
    index = run(scans, tmp_path).set_index("id")
    assert index.loc["scan-1", "problem"].startswith("scan: file is cut short or damaged")
    assert index["index"].tolist() == [0, pd.NA, 1]
    assert list(open_shards([tmp_path / "s.npy"], [tmp_path / "s.csv"])) == ["scan-0", "scan-2"]


def test_what_is_no_brain_is_told(brain, tmp_path):
    data = np.zeros(brain[0].shape, np.float32)
    data[20:23, 20:23, 20:23] = 100
    write_scan(tmp_path / "speck.nii.gz", data)
    with pytest.raises(BadScan, match="ml"):
        preprocess_scan(tmp_path / "speck.nii.gz", settings())


def test_grown_dataset_redoes_only_the_new_scan_and_changed_settings_all(brain, tmp_path, monkeypatch):
    scans = make_list(tmp_path, 2, brain)
    run(scans, tmp_path)
    before = np.load(tmp_path / "s.npy")
    done = []
    real = scan_module.preprocess_scan
    monkeypatch.setattr(scan_module, "preprocess_scan", lambda path, *a: done.append(path.name) or real(path, *a))

    grown = make_list(tmp_path, 3, brain)
    run(grown, tmp_path)
    assert done == ["scan-2.nii.gz"]
    assert (np.load(tmp_path / "s.npy")[:2] == before).all()

    done.clear()
    table = pd.read_csv(grown)
    table.loc[0, "fingerprint"] = "another image"
    table.to_csv(grown, index=False)
    run(grown, tmp_path)
    assert done == ["scan-0.nii.gz"]

    done.clear()
    run(grown, tmp_path, percentiles=(1, 99))
    assert len(done) == 3

    done.clear()
    monkeypatch.setattr(recipes, "PREPROCESS", recipes.PREPROCESS + 1)
    run(grown, tmp_path, percentiles=(1, 99))
    assert len(done) == 3


def test_names_of_finished_scans_change_with_the_recipe_alone(tmp_path, monkeypatch):
    """Else all scans would be made again: a field of `PreprocessSettings` was added, or moved, without a new recipe."""
    monkeypatch.setattr(recipes, "PREPROCESS", 3)
    monkeypatch.setattr(scan_module, "preprocess_scan", lambda path, *_: (np.zeros((80, 96, 80), np.uint8), {}))
    scans = tmp_path / "scans.csv"
    pd.DataFrame({"id": ["S1"], "path": ["S1.nii.gz"], "fingerprint": ["1680-12345678.9abcdef0"]}).to_csv(scans, index=False)
    usual = preprocess(scans, tmp_path / "a.npy", tmp_path / "a.csv")
    other = {"registration": "none", "voxel_mm": 1.5, "percentiles": [1, 99.0], "stripped": True, "n4": True}
    others = preprocess(scans, tmp_path / "b.npy", tmp_path / "b.csv", **other)
    assert [usual["key"].item(), others["key"].item()] == ["913663bdfa05fecf", "689b1a9960b8bc50"]


def test_scans_that_move_to_another_shard_are_taken_over(brain, tmp_path, monkeypatch):
    scans = make_list(tmp_path, 4, brain)

    def one(shard, shards):
        files = [tmp_path / f"shard-{shard:03d}.{suffix}" for suffix in ("npy", "csv")]
        return preprocess(scans, *files, shard=shard, shards=shards, stripped=True, **GRID)

    parts = [one(shard, 2) for shard in (0, 1)]
    before = open_shards([tmp_path / f"shard-{i:03d}.npy" for i in (0, 1)], [tmp_path / f"shard-{i:03d}.csv" for i in (0, 1)])
    before = {scan: np.array(volume) for scan, volume in before.items()}
    assert min(map(len, parts)) > 0
    monkeypatch.setattr(scan_module, "preprocess_scan", None)  # nothing is made again
    assert one(0, 1)["problem"].isna().all()
    after = open_shards([tmp_path / "shard-000.npy"], [tmp_path / "shard-000.csv"])
    assert all((after[scan] == volume).all() for scan, volume in before.items())


def test_scans_are_found_in_more_shards_than_files_may_be_open(tmp_path, monkeypatch):
    names = [f"scan-{i}" for i in range(40)]
    scans = tmp_path / "scans.csv"
    pd.DataFrame({"id": names, "path": names, "fingerprint": names}).to_csv(scans, index=False)
    volume = lambda path: np.full(GRID["shape"], int(path.name[5:]), np.uint8)  # noqa: E731
    monkeypatch.setattr(scan_module, "preprocess_scan", lambda path, *_: (volume(path), {}))
    for shard in range(30):
        made = [tmp_path / f"made.{suffix}" for suffix in ("npy", "csv")]
        preprocess(scans, *made, shard=shard, shards=30, **GRID)
        for file in made:
            file.rename(tmp_path / f"shard-{shard:03d}{file.suffix}")
    monkeypatch.setattr(scan_module, "preprocess_scan", None)  # nothing is made again
    _, most = limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 12, most))
    try:
        assert preprocess(scans, tmp_path / "shard-000.npy", tmp_path / "shard-000.csv", **GRID)["problem"].isna().all()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert np.load(tmp_path / "shard-000.npy")[:, 0, 0, 0].tolist() == list(range(40))


def test_neighbours_are_not_read_where_nothing_is_lacking(brain, tmp_path, monkeypatch):
    scans = make_list(tmp_path, 2, brain)
    files = [[tmp_path / f"shard-{number:03d}.{suffix}" for suffix in ("npy", "csv")] for number in range(3)]
    first = preprocess(scans, *files[1], stripped=True, **GRID)
    preprocess(scans, *files[2], stripped=True, **GRID)
    read, real = [], stage.earlier_results
    monkeypatch.setattr(stage, "earlier_results", lambda array, *rest: read.append(array) or real(array, *rest))
    for own in (files[0], files[0]):
        again = preprocess(scans, *own, stripped=True, **GRID)
        pd.testing.assert_frame_equal(again, first, check_dtype=False)
    assert read == [files[0][0], files[1][0], files[0][0]]


def test_shard_that_another_job_is_writing_is_not_taken_over(brain, tmp_path, monkeypatch):
    make_list(tmp_path, 1, brain)
    run(tmp_path / "scans.csv", tmp_path)
    array, index = tmp_path / "s.npy", tmp_path / "s.csv"
    assert stage.earlier_results(array, index, stage.INDEX_COLUMNS)
    load = np.load

    def slowly(*arguments, **options):
        index.write_text(index.read_text())  # meanwhile the other job has finished
        return load(*arguments, **options)

    monkeypatch.setattr(np, "load", slowly)
    assert not stage.earlier_results(array, index, stage.INDEX_COLUMNS)


def test_killed_in_the_middle_it_redoes_only_what_is_missing(brain, tmp_path):
    scans = make_list(tmp_path, 5, brain)
    command = [sys.executable, "-m", "mriflow.preprocess", "--stripped", "--voxel-mm=4", "--shape", "40", "48", "40"]
    command += [f"--scans={scans}", f"--array={tmp_path}/s.npy", f"--index={tmp_path}/s.csv"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    partial = tmp_path / ".s.partial"
    while len(list(partial.glob("[!.]*.npz"))) < 2:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    finished = {path: path.stat().st_mtime_ns for path in partial.glob("[!.]*.npz")}
    assert 2 <= len(finished) < 5
    assert not (tmp_path / "s.npy").exists()

    # The finished scans are not made again: a sign put into one of them comes out in the shard.
    marked = sorted(finished)[0]
    result = stage.load_result(marked)
    stage.save_result(marked, stage.Result(np.full_like(result.volume, 123), result.row))
    subprocess.run(command, check=True, capture_output=True)
    index = pd.read_csv(tmp_path / "s.csv").set_index("id")
    volume = np.load(tmp_path / "s.npy")[index.loc[result.row["id"], "index"]]
    assert (volume == 123).all()
    assert len(index) == 5
    assert not partial.exists()


def test_the_same_scan_twice_gives_the_same_bytes(brain, tmp_path):
    scans = make_list(tmp_path, 2, brain)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        run(scans, tmp_path / name)
    assert (tmp_path / "one/s.npy").read_bytes() == (tmp_path / "two/s.npy").read_bytes()
    assert (tmp_path / "one/s.csv").read_bytes() == (tmp_path / "two/s.csv").read_bytes()


def test_two_processes_give_the_same_bytes_as_one(brain, tmp_path):
    scans = make_list(tmp_path, 3, brain)
    (tmp_path / "scan-1.nii.gz").write_bytes(b"")
    for threads in (1, 2):
        (tmp_path / str(threads)).mkdir()
        run(scans, tmp_path / str(threads), threads=threads, n4=True)
    assert (tmp_path / "1/s.npy").read_bytes() == (tmp_path / "2/s.npy").read_bytes()
    assert (tmp_path / "1/s.csv").read_bytes() == (tmp_path / "2/s.csv").read_bytes()
    assert pd.read_csv(tmp_path / "2/s.csv")["problem"].notna().tolist() == [False, True, False]


def test_errors_of_a_process_are_told_and_a_killed_one_too(tmp_path):
    with pytest.raises(UserError, match="no such list of scans"), workers(2) as each:
        list(each(stage.read_scans, [tmp_path / "absent.csv"] * 2))
    with pytest.raises(UserError, match="one of 2 processes was killed or could not start"), workers(2) as each:
        list(each(signal.raise_signal, [signal.SIGKILL] * 2))


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_processes_end_with_the_one_that_started_them(stop):
    text = "import multiprocessing, time\nfrom mriflow.base.processes import workers\nwith workers(2) as each:\n"
    text += " made = each(time.sleep, [60] * 5)\n"
    text += " print(*(p.pid for p in multiprocessing.active_children()), flush=True)\n list(made)"
    process = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    children = process.stdout.readline().split()
    assert len(children) == 2
    process.send_signal(stop)
    process.wait(30)
    deadline = time.time() + 30
    while any(os.path.exists(f"/proc/{child}/exe") for child in children):
        assert time.time() < deadline
        time.sleep(0.05)


def test_shards_divide_the_scans(brain, tmp_path):
    scans = make_list(tmp_path, 4, brain)
    ids = []
    for shard in range(3):
        index = preprocess(
            scans, tmp_path / f"{shard}.npy", tmp_path / f"{shard}.csv", shard=shard, shards=3, stripped=True, **GRID
        )
        ids += index["id"].tolist()
    assert sorted(ids) == [f"scan-{i}" for i in range(4)]


def test_full_disk_ends_with_a_clear_error_and_no_half_shard(brain, tmp_path, small_disk):
    scans = make_list(tmp_path, 3, brain)
    command = [sys.executable, "-m", "mriflow.preprocess", "--stripped", "--voxel-mm=2", "--shape", "80", "96", "80"]
    command += [f"--scans={scans}", f"--array={small_disk}/s.npy", f"--index={small_disk}/s.csv"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "no space left" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not (small_disk / "s.npy").exists()


def test_real_head_is_stripped_and_registered(tmp_path):
    folder = shared("ixi-hh-2mm")
    scan = folder / "t1" / "IXI012-HH-1211_T1.nii.gz"
    mask = brain_mask(load_scan(scan))
    truth = np.asarray(nib.as_closest_canonical(nib.load(next((folder / "dlmuse_seg").glob("IXI012*")))).dataobj) > 0
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.95
    image, quality = preprocess_scan(scan, settings(stripped=False))
    assert quality["correlation"] > 0.75
    assert 0.2 < (image > 0).mean() < 0.45


def test_ids_that_look_like_numbers_survive_a_grown_shard(brain, tmp_path):
    scans = make_list(tmp_path, 3, brain)
    table = pd.read_csv(scans).assign(id=["001", "002", "003"])
    table.head(2).to_csv(scans, index=False)
    run(scans, tmp_path)
    table.to_csv(scans, index=False)
    run(scans, tmp_path)
    assert list(open_shards([tmp_path / "s.npy"], [tmp_path / "s.csv"])) == ["001", "002", "003"]


def test_failed_scan_is_tried_again(brain, tmp_path, monkeypatch):
    scans = make_list(tmp_path, 2, brain)
    real = scan_module.preprocess_scan

    def fails(path, *arguments):
        if path.name == "scan-1.nii.gz":
            raise RuntimeError("something")
        return real(path, *arguments)

    monkeypatch.setattr(scan_module, "preprocess_scan", fails)
    assert run(scans, tmp_path)["problem"].tolist()[1] == "scan: failed (RuntimeError: something)"
    monkeypatch.setattr(scan_module, "preprocess_scan", real)
    assert run(scans, tmp_path)["problem"].isna().all()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
@pytest.mark.parametrize("wrapped", [False, True])
def test_lack_of_memory_is_told_and_taken_for_no_scans_fault(brain, tmp_path, monkeypatch, error, wrapped):
    scans = make_list(tmp_path, 2, brain)
    real = scan_module.preprocess_scan

    def fails(path, *arguments):
        if path.name == "scan-0.nii.gz":
            return real(path, *arguments)
        if wrapped:
            raise BadScan("no brain found in the image") from error
        raise error

    monkeypatch.setattr(scan_module, "preprocess_scan", fails)
    with pytest.raises(UserError, match="too little memory for a scan"):
        run(scans, tmp_path)
    monkeypatch.setattr(scan_module, "preprocess_scan", real)
    assert run(scans, tmp_path)["problem"].isna().all()


def test_nan_around_a_stripped_brain_is_background(brain, tmp_path):
    data, affine = brain
    images = []
    for around in (0, np.nan):
        nib.save(nib.Nifti1Image(np.where(data > 0, data, around).astype(np.float32), affine), tmp_path / "a.nii.gz")
        images.append(preprocess_scan(tmp_path / "a.nii.gz", settings()))
    assert (images[0][0] == images[1][0]).all() and images[0][1] == images[1][1]
    nib.save(nib.Nifti1Image(np.where(data > 0, data, np.inf).astype(np.float32), affine), tmp_path / "a.nii.gz")
    with pytest.raises(BadScan, match="not a number"):
        load_scan(tmp_path / "a.nii.gz", stripped=True)


def test_stripped_scan_that_was_centred_on_zero_keeps_its_brain(brain, tmp_path):
    data, affine = brain
    inside = data > 0
    centred = np.where(inside, (data - data[inside].mean()) / data[inside].std(), 0).astype(np.float32)
    nib.save(nib.Nifti1Image(centred, affine), tmp_path / "z.nii.gz")
    _, quality = preprocess_scan(tmp_path / "z.nii.gz", settings())
    _, straight = preprocess_scan(write_brain(tmp_path / "a.nii.gz", brain), settings())
    assert quality["brain_ml"] == pytest.approx(straight["brain_ml"], rel=0.01)
    assert quality["correlation"] > 0.8


def test_correlation_does_not_depend_on_the_networks_grid(brain, tmp_path):
    path = write_brain(tmp_path / "a.nii.gz", brain, noise=100)
    coarse, fine = (
        preprocess_scan(path, settings(voxel_mm=voxel_mm, shape=shape))[1]
        for voxel_mm, shape in ((4.0, (40, 48, 40)), (2.0, (80, 96, 80)))
    )
    assert coarse == fine


@pytest.mark.parametrize("registration", ["affine", "rigid"])
def test_scan_that_stands_on_its_head_is_left_out_with_its_measures(brain, tmp_path, registration):
    write_scan(tmp_path / "scan-0.nii.gz", brain[0][:, :, ::-1].astype(np.int16))
    table = pd.DataFrame({"id": ["a"], "path": ["scan-0.nii.gz"], "fingerprint": ["a"]})
    table.to_csv(tmp_path / "scans.csv", index=False)
    row = run(tmp_path / "scans.csv", tmp_path, registration=registration).iloc[0]
    assert row["problem"].startswith("scan: registration failed (correlation with the template")
    assert 0 < row["correlation"] < 0.6
    assert row["brain_ml"] > 1000
    assert pd.isna(row["index"])


def test_n4_takes_a_bias_field_away(brain, tmp_path):
    data, affine = brain
    ramp = np.linspace(0.6, 1.4, data.shape[1], dtype=np.float32)[:, None]
    write_brain(tmp_path / "even.nii.gz", brain)
    write_brain(tmp_path / "biased.nii.gz", (data * ramp, affine))
    even = preprocess_scan(tmp_path / "even.nii.gz", settings())[0]
    biased, corrected = (preprocess_scan(tmp_path / "biased.nii.gz", settings(n4=n4))[0] for n4 in (False, True))
    brain_only = even > 0
    wrong, left = (np.abs(even.astype(float) - image)[brain_only].mean() for image in (biased, corrected))
    assert left < 0.6 * wrong


def test_scan_that_came_in_mni_space_is_not_moved_without_registration(brain, tmp_path):
    scan = load_scan(write_brain(tmp_path / "a.nii.gz", brain, shift_mm=(8, 0, 0)))
    inside = scan.data != 0
    rows = {}
    for in_mni in (False, True):
        placed = dataclasses.replace(scan, in_mni=in_mni)
        data = foreground(scan, inside)
        image = to_grid(placed, data, inside, "none", find_transform(placed, data, "none"), 4.0, (40, 48, 40)).image
        rows[in_mni] = np.average(np.arange(40), weights=image.sum((1, 2)))
    assert rows[True] - rows[False] == pytest.approx(2, abs=0.3)  # voxels


def test_brain_that_is_cut_out_may_have_a_background_of_any_value(brain, tmp_path):
    """Of z-scored scans it is the value of what was 0, well within the brain's range."""
    data, affine = brain
    inside = data > 0
    straight = preprocess_scan(write_brain(tmp_path / "a.nii.gz", brain), settings())[1]
    noise = np.random.default_rng(0).uniform(-1, 1, data.shape)
    for name, level, spread in (
        ("z-scored", -0.57, 0),
        ("nearly constant", 3.2, 0.005),
        ("bright", 9, 0),
        ("in the middle", 0, 0),
    ):
        scored = np.where(inside, (data - data[inside].mean()) / data[inside].std(), level + spread * noise)
        nib.save(nib.Nifti1Image(scored.astype(np.float32), affine), tmp_path / "z.nii.gz")
        found = preprocess_scan(tmp_path / "z.nii.gz", settings())[1]
        assert found["brain_ml"] == pytest.approx(straight["brain_ml"], rel=0.01), name
        assert found["correlation"] > 0.8, name


@pytest.mark.parametrize(
    ("padding", "noise"),
    [
        *[(((9, 9),) * 3, 0), (((0, 30), (0, 0), (0, 0)), 0), (((1, 1), (1, 1), (0, 12)), 0)],
        *[(((0, 0),) * 3, 0.005), (((0, 0),) * 3, 0.007)],
    ],
    ids=["padded with another value", "padded on one side", "a frame", "noisy", "as noisy as can be"],
)
def test_background_of_a_cut_out_brain_may_be_noisy_or_padded_with_another_value(brain, padding, noise):
    """Where a z-scored scan is padded with 0, its background lies within; where it is noisy, no speck of it is brain."""
    data, affine = brain
    for inside in (data > 0, (data > 0) & (np.indices(data.shape)[2] < data.shape[2] // 2)):  # whole, and cut through
        scored = np.where(inside, (data - data[inside].mean()) / data[inside].std(), -3)
        scored += np.random.default_rng(0).normal(0, noise * np.percentile(scored + 3, 99), data.shape)
        padded = np.pad(scored, padding).astype(np.float32)
        found = surrounded_mask(Scan(padded, affine, 0.008, in_mni=False))
        assert found.sum() == pytest.approx(inside.sum(), rel=0.01)
        assert (found & np.pad(inside, padding)).sum() > 0.99 * inside.sum()


def test_what_fills_the_image_to_its_sides_is_no_brain_that_was_cut_out(brain, tmp_path):
    data, affine = brain
    noise = np.random.default_rng(0).normal(size=data.shape)
    ramp = np.indices(data.shape)[0] * 20
    for name, image in (
        ("noise", noise),
        ("a box of brain", noise[:30, :30, :30]),
        ("a slope", np.where(data > 0, data, ramp)),
    ):
        nib.save(nib.Nifti1Image(image.astype(np.float32), affine), tmp_path / "n.nii.gz")
        with pytest.raises(BadScan, match="no background around the brain") as refused:
            preprocess_scan(tmp_path / "n.nii.gz", settings())
        assert "stripped: true" in str(refused.value), name


def test_brain_that_is_cut_out_closely_or_cut_through_keeps_its_volume(brain, tmp_path):
    data, affine = brain
    box = tuple(slice(places.min(), places.max() + 1) for places in np.nonzero(data))
    closely = data[box]
    for image in (closely, closely[:, :, 6:]):
        nib.save(nib.Nifti1Image(image.astype(np.int16), affine), tmp_path / "c.nii.gz")
        mask = surrounded_mask(load_scan(tmp_path / "c.nii.gz", stripped=True))
        assert mask.sum() == pytest.approx((image > 0).sum(), rel=0.01)


def test_volume_of_the_templates_brain():
    data = np.asarray(template().dataobj)
    assert (data > np.median(data[data > 0]) / 2).sum() / 1000 == pytest.approx(TEMPLATE_ML, rel=0.001)


CHANNELS = ("image", "gm", "wm", "csf")


def test_channels_stand_in_the_array_in_the_order_of_the_config(brain, tmp_path):
    scans = make_list(tmp_path, 1, brain)
    (tmp_path / "one").mkdir()
    (tmp_path / "several").mkdir()
    alone = run(scans, tmp_path / "one", n4=True)
    table = run(scans, tmp_path / "several", n4=True, channels=["wm", "image", "csf"])
    assert table.drop(columns="key").equals(alone.drop(columns="key"))
    shards = open_shards([tmp_path / "several/s.npy"], [tmp_path / "several/s.csv"])
    plain = open_shards([tmp_path / "one/s.npy"], [tmp_path / "one/s.csv"])
    assert (shards.shape, shards.channels) == ((40, 48, 40), 3) and (plain.shape, plain.channels) == ((40, 48, 40), 1)
    assert shards["scan-0"].shape == (3, 40, 48, 40) and plain["scan-0"].shape == (40, 48, 40)
    assert (shards["scan-0"][1] == plain["scan-0"]).all()
    alone = preprocess_scan(tmp_path / "scan-0.nii.gz", settings(n4=True, channels=("csf",)))[0]
    assert (alone == shards["scan-0"][2]).all() and (alone != shards["scan-0"][0]).any()


def test_tissues_are_where_the_templates_are_and_their_probabilities_are_one_in_all(tmp_path):
    """The template is an average of many brains and smooth, so that its tissues part less clearly than one brain's."""
    image = template()
    data = np.asarray(image.dataobj, np.float32)[::2, ::2, ::2] * 1000
    affine = image.affine @ np.diag([2, 2, 2, 1])
    ramp = np.linspace(0.8, 1.2, data.shape[1], dtype=np.float32)[:, None]  # a bias field, though `n4` is off
    path = write_brain(tmp_path / "a.nii.gz", (data * ramp, affine), noise=20)
    found, _ = preprocess_scan(path, settings(channels=CHANNELS))
    brain = found[0] > 0
    inner = ndimage.binary_erosion(brain, iterations=2)
    assert np.abs(found[1:].sum(0, dtype=int)[inner] - 255).max() <= 3
    assert not found[1:, ~brain].any()
    on_grid = partial(resample_img, target_affine=grid_affine(4, (40, 48, 40)), target_shape=(40, 48, 40), force_resample=True)
    for channel, true, least in (
        (1, load_mni152_gm_template(resolution=1), 0.6),
        (2, load_mni152_wm_template(resolution=1), 0.8),
    ):
        expected = on_grid(true, copy_header=True).get_fdata()
        assert np.corrcoef(found[channel][brain], expected[brain])[0, 1] > least
    brightness = [np.average(found[0][inner], weights=found[channel][inner]) for channel in (3, 1, 2)]
    assert brightness == sorted(brightness)


def test_tissues_of_three_brightnesses_are_told_apart_whatever_the_scanners_scale():
    rng = np.random.default_rng(0)
    true = np.repeat([0, 1, 2], [20_000, 90_000, 70_000])
    brightness = np.array([200, 600, 880])[true] + rng.normal(size=len(true)) * np.array([80, 70, 50])[true]
    found = probabilities(brightness)
    assert np.allclose(found.sum(1), 1)
    assert (found.argmax(1) == true).mean() > 0.95
    assert np.allclose(found, probabilities(brightness * 0.037 - 5), atol=1e-6)
    # Beyond the brightest and the darkest tissue nothing turns back.
    far = probabilities(np.append(brightness, [3000, -900]))[-2:]
    assert far[0].argmax() == 2 and far[1].argmax() == 0


def kept_files(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*")}


def test_what_is_kept_of_a_scan_changes_no_byte_and_no_step_is_done_twice(brain, tmp_path, monkeypatch):
    path, cache = write_brain(tmp_path / "a.nii.gz", brain, noise=30), tmp_path / "cache"
    done = []
    for step in ("mask_of", "bias_field", "find_transform"):
        real = getattr(scan_module, step)
        monkeypatch.setattr(scan_module, step, lambda *a, real=real, step=step: done.append(step) or real(*a))
    blocks = {
        "first": {},
        "other voxels": {"voxel_mm": 8.0, "shape": (20, 24, 20)},
        "n4": {"n4": True},
        "channels": {"n4": True, "channels": CHANNELS},
        "channels without n4": {"channels": ("image", "gm")},
        "rigid": {"registration": "rigid"},
    }
    made = {}
    for name, changed in blocks.items():
        done.clear()
        image, quality = preprocess_scan(path, settings(**changed), cache)
        made[name] = list(done)
        again = [preprocess_scan(path, settings(**changed), folder) for folder in (cache, None)]
        assert all((image == other).all() and quality == measured for other, measured in again), name
    assert made == {
        "first": ["mask_of", "find_transform"],
        "other voxels": [],
        "n4": ["bias_field", "find_transform"],
        "channels": [],
        "channels without n4": [],
        "rigid": ["find_transform"],
    }
    assert sum(map(len, kept_files(cache).values())) < 300e3


def test_what_is_kept_is_of_this_scan_this_recipe_and_whole(brain, tmp_path, monkeypatch):
    path, cache = write_brain(tmp_path / "a.nii.gz", brain, noise=30), tmp_path / "cache"
    alone = preprocess_scan(path, settings(n4=True), cache)
    first = kept_files(cache)
    assert len(first) == 3
    shutil.copy(path, tmp_path / "b.nii.gz")  # the same scan by another name
    preprocess_scan(tmp_path / "b.nii.gz", settings(n4=True), cache)
    assert kept_files(cache) == first

    for damage in (
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: content[:100] + bytes([content[100] ^ 255]) + content[101:],
    ):
        for file in cache.iterdir():
            file.write_bytes(damage(file.read_bytes()))
        image, quality = preprocess_scan(path, settings(n4=True), cache)
        assert (image == alone[0]).all() and quality == alone[1]
        assert kept_files(cache) == first

    write_brain(path, brain, noise=30, seed=1)
    preprocess_scan(path, settings(n4=True), cache)
    assert len(kept_files(cache)) == 6
    monkeypatch.setattr(recipes, "PREPROCESS", recipes.PREPROCESS + 1)
    preprocess_scan(path, settings(n4=True), cache)
    assert len(kept_files(cache)) == 9


def test_jobs_that_keep_the_same_at_the_same_time_leave_whole_files(tmp_path):
    scan = Scan(np.arange(4096, dtype=np.float32).reshape(16, 16, 16), np.eye(4), 0.001, in_mni=False)
    meet = threading.Barrier(8, timeout=30)

    def make():
        meet.wait()  # all find nothing there
        return np.arange(50_000)

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: Kept(tmp_path, scan).get("mask", None, make), range(8)))
    assert all((array == made[0]).all() for array in made)
    assert [path.name[:5] for path in tmp_path.iterdir()] == ["mask-"]
    assert (Kept(tmp_path, scan).get("mask", None, lambda: None) == made[0]).all()


def test_disk_too_full_to_keep_anything_is_no_fault_of_the_scan(brain, tmp_path):
    path = write_brain(tmp_path / "a.nii.gz", brain)
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert (preprocess_scan(path, settings(), tmp_path / "cache")[0] == preprocess_scan(path, settings())[0]).all()


def test_prune_removes_what_was_not_used_and_nothing_else(brain, tmp_path, caplog):
    cache = tmp_path / "preprocessed/mine/.cache"
    scans = make_list(tmp_path, 2, brain)
    shard = tmp_path / "preprocessed/mine/affine"
    shard.mkdir(parents=True)
    run(scans, shard, cache=cache)
    before = (shard / "s.npy").read_bytes()
    old = time.time() - 40 * 86400
    for file in cache.iterdir():
        os.utime(file, (old, old))
    for file in shard.iterdir():
        os.utime(file, (old, old))
    preprocess_scan(tmp_path / "scan-0.nii.gz", settings(), cache)  # used now
    assert len(list(cache.iterdir())) == 4
    prune(tmp_path / "preprocessed")
    assert len(list(cache.iterdir())) == 2
    prune(tmp_path / "preprocessed", days=0)
    assert not list(cache.iterdir())
    assert (shard / "s.npy").read_bytes() == before
    with pytest.raises(UserError, match="no such folder"):
        prune(tmp_path / "absent")


def test_an_alternative_stands_in_for_a_scan_that_fails_under_the_same_id(brain, tmp_path, caplog):
    scans = make_list(tmp_path, 4, brain)
    table = pd.read_csv(scans)
    for number in (0, 1):
        (tmp_path / f"scan-{number}.nii.gz").write_bytes(b"broken")
    others = json.dumps([{"path": f"scan-{n}.nii.gz", "fingerprint": f"scan-{n}"} for n in (1, 3, 2)])
    table = table[:1].assign(alternatives=others)
    table.to_csv(scans, index=False)
    index = run(scans, tmp_path / "out")
    assert index[["id", "fingerprint"]].to_numpy().tolist() == [["scan-0", "scan-3"]] and index["problem"].isna().all()
    note = "session: another image is used than labels.csv names (scan-3.nii.gz; the first: file is not compressed"
    assert f"scan-0: {note}" in caplog.text and index["notes"][0].startswith(note)
    again = run(scans, tmp_path / "out")
    assert again["notes"].tolist() == index["notes"].tolist(), "a second run says it, too"
    table.assign(alternatives=others.replace("scan-3", "scan-1").replace("scan-2", "scan-1")).to_csv(scans, index=False)
    index = run(scans, tmp_path / "none")
    assert index["problem"].str.startswith("scan: file is not compressed").all(), "the problem is that of the first choice"
    write_brain(tmp_path / "scan-0.nii.gz", brain)
    table.assign(fingerprint="mended").to_csv(scans, index=False)
    mended = run(scans, tmp_path / "out")
    assert mended["fingerprint"].tolist() == ["mended"] and mended["notes"].isna().all()
