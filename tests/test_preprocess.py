import errno
import gzip
import os
import signal
import subprocess
import sys
import time

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from conftest import shared, write_scan
from mriflow import preprocess as stage
from mriflow.errors import UserError
from mriflow.preprocess import preprocess
from mriflow.scan import BadScan, brain_mask, grid_affine, load_scan, preprocess_scan, template
from mriflow.volumes import open_shards

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


def test_a_scan_comes_out_on_the_template_however_it_lies_and_is_stored(brain, tmp_path):
    data, affine = brain
    straight = preprocess_scan(write_brain(tmp_path / "a.nii.gz", brain), "affine", 4.0, (40, 48, 40), (0.5, 99.5), True)
    turned = nib.Nifti1Image(data.astype(np.int16), affine).as_reoriented(
        nib.orientations.axcodes2ornt("PSR") @ np.diag([1, 1])
    )
    turned.affine[:3, 3] += (12, -9, 7)
    nib.save(nib.Nifti1Image(np.asarray(turned.dataobj), turned.affine), tmp_path / "b.nii.gz")
    assert nib.aff2axcodes(nib.load(tmp_path / "b.nii.gz").affine) != ("R", "A", "S")
    moved = preprocess_scan(tmp_path / "b.nii.gz", "affine", 4.0, (40, 48, 40), (0.5, 99.5), True)
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
        image, quality = preprocess_scan(tmp_path / "small.nii.gz", registration, 4.0, (40, 48, 40), (0.5, 99.5), True)
        sizes[registration] = (image > 0).sum()
    assert sizes["rigid"] < 0.85 * sizes["affine"]
    assert quality["scale"] == 1


def test_intensities_do_not_depend_on_the_scanners_scale(brain, tmp_path):
    data, affine = brain
    write_brain(tmp_path / "a.nii.gz", brain)
    nib.save(nib.Nifti1Image((data * 7.3).astype(np.float32), affine), tmp_path / "b.nii.gz")
    one, two = (preprocess_scan(tmp_path / f"{n}.nii.gz", "affine", 4.0, (40, 48, 40), (0.5, 99.5), True)[0] for n in "ab")
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
    assert index.loc["scan-1", "problem"].startswith("scan: file cannot be read")
    assert index["index"].tolist() == [0, pd.NA, 1]
    assert list(open_shards([tmp_path / "s.npy"], [tmp_path / "s.csv"])) == ["scan-0", "scan-2"]


def spoiled(kind, path, brain):
    data, affine = brain[0].copy(), brain[1]
    if kind == "nan":
        data[5, 5, 5] = np.nan
    elif kind == "constant":
        data[:] = 7
    elif kind == "4D":
        data = np.stack([data] * 3, axis=-1)
    elif kind == "2D slab":
        data = data[:, :, :2]
    elif kind == "flat affine":
        affine = np.diag([0, 4, 4, 1.0])
    if kind == "corrupt":
        noise = bytearray(write_scan(path, data).read_bytes())
        noise[len(noise) // 2 : len(noise) // 2 + 200] = bytes(200)
        path.write_bytes(noise)
    elif kind == "not an image":
        path.write_bytes(gzip.compress(b"<html>please log in</html>" * 50))
    elif kind == "not gzip":
        path.write_bytes(b"<html>please log in</html>" * 50)
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind != "missing":
        image = nib.Nifti1Image(data.astype(np.float32), brain[1])
        image.set_sform(affine, 1)
        image.header["sform_code"] = 1
        nib.save(image, path)
    return path


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("nan", "not a number"),
        ("constant", "constant"),
        ("4D", "dimensions"),
        ("2D slab", "voxels"),
        ("corrupt", "cannot be read"),
        ("not an image", "cannot be read"),
        ("not gzip", "cannot be read"),
        ("empty", "cannot be read"),
        ("missing", "no file"),
        ("flat affine", "affine"),
    ],
)
def test_bad_image_is_told(kind, told, brain, tmp_path):
    with pytest.raises(BadScan, match=told):
        load_scan(spoiled(kind, tmp_path / "scan.nii.gz", brain))


def test_what_is_no_brain_is_told(brain, tmp_path):
    data = np.zeros(brain[0].shape, np.float32)
    data[20:23, 20:23, 20:23] = 100
    write_scan(tmp_path / "speck.nii.gz", data)
    with pytest.raises(BadScan, match="ml"):
        preprocess_scan(tmp_path / "speck.nii.gz", "affine", 4.0, (40, 48, 40), (0.5, 99.5), True)


def test_grown_dataset_redoes_only_the_new_scan_and_changed_settings_all(brain, tmp_path, monkeypatch):
    scans = make_list(tmp_path, 2, brain)
    run(scans, tmp_path)
    before = np.load(tmp_path / "s.npy")
    done = []
    real = stage.preprocess_scan
    monkeypatch.setattr(stage, "preprocess_scan", lambda path, *a: done.append(path.name) or real(path, *a))

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
    image, quality = preprocess_scan(scan, "affine", 4.0, (40, 48, 40), (0.5, 99.5), False)
    assert quality["correlation"] > 0.8
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
    real = stage.preprocess_scan

    def fails(path, *arguments):
        if path.name == "scan-1.nii.gz":
            raise RuntimeError("something")
        return real(path, *arguments)

    monkeypatch.setattr(stage, "preprocess_scan", fails)
    assert run(scans, tmp_path)["problem"].tolist()[1] == "scan: failed (RuntimeError: something)"
    monkeypatch.setattr(stage, "preprocess_scan", real)
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
    real = stage.preprocess_scan

    def fails(path, *arguments):
        if path.name == "scan-0.nii.gz":
            return real(path, *arguments)
        if wrapped:
            raise BadScan("no brain found in the image") from error
        raise error

    monkeypatch.setattr(stage, "preprocess_scan", fails)
    with pytest.raises(UserError, match="too little memory for a scan"):
        run(scans, tmp_path)
    monkeypatch.setattr(stage, "preprocess_scan", real)
    assert run(scans, tmp_path)["problem"].isna().all()


def test_header_with_an_absurd_size_is_that_scans_problem(tmp_path):
    header = nib.Nifti1Header()
    header.set_data_shape((30000, 30000, 30000))
    (tmp_path / "huge.nii").write_bytes(header.binaryblock + bytes(500))
    with pytest.raises(BadScan, match="30000x30000x30000 voxels"):
        load_scan(tmp_path / "huge.nii")


def test_stripped_scan_that_was_centred_on_zero_keeps_its_brain(brain, tmp_path):
    data, affine = brain
    inside = data > 0
    centred = np.where(inside, (data - data[inside].mean()) / data[inside].std(), 0).astype(np.float32)
    nib.save(nib.Nifti1Image(centred, affine), tmp_path / "z.nii.gz")
    _, quality = preprocess_scan(tmp_path / "z.nii.gz", "affine", 4.0, (40, 48, 40), (0.5, 99.5), True)
    _, straight = preprocess_scan(write_brain(tmp_path / "a.nii.gz", brain), "affine", 4.0, (40, 48, 40), (0.5, 99.5), True)
    assert quality["brain_ml"] == pytest.approx(straight["brain_ml"], rel=0.01)
    assert quality["correlation"] > 0.8
