"""The page on the quality of preprocessing: its counts are true, and who is left out or far from the others is named."""

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from mriflow import quality as stage
from mriflow.base.errors import UserError
from mriflow.images.outliers import LEAST_SCANS, far_from_template
from mriflow.quality import far_from_others, quality
from mriflow.reporting.scan_figures import montage

N = 30


@pytest.fixture
def dataset(tmp_path):
    """Two shards of scans: one failed and can be read, one cannot, one is kept but has far too large a brain."""
    rng = np.random.default_rng(0)
    ids = [f"S{i:02d}" for i in range(N)]
    rows = pd.DataFrame({"id": ids, "index": 0, "problem": None, "brain_ml": rng.normal(1400, 50, N)}).astype(
        {"problem": object}
    )
    rows = rows.assign(correlation=rng.normal(0.8, 0.01, N), scale=rng.normal(0.68, 0.02, N), fingerprint=ids, key=ids)
    rows.loc[3, ["problem", "correlation"]] = ["scan: registration failed (correlation with the template 0.31)", 0.31]
    rows.loc[4, ["problem", "correlation", "brain_ml", "scale"]] = ["scan: file is empty", None, None, None]
    rows.loc[7, "brain_ml"] = 2600
    kept = rows["problem"].isna()
    files = {"labels": tmp_path / "labels.csv", "arrays": [], "indices": []}
    for shard in range(2):
        part = rows[rows.index % 2 == shard].copy()
        part["index"] = kept[part.index].cumsum().where(kept[part.index]).sub(1).astype("Int64")
        files["indices"].append(tmp_path / f"shard-{shard}.csv")
        files["arrays"].append(tmp_path / f"shard-{shard}.npy")
        part.to_csv(files["indices"][-1], index=False)
        np.save(files["arrays"][-1], rng.integers(0, 255, (part["index"].count(), 10, 12, 8), np.uint8))
    nib.save(nib.Nifti1Image(rng.normal(size=(20, 24, 40)).astype(np.float32), np.diag([4, 4, 2, 1])), tmp_path / "S03.nii.gz")
    (tmp_path / "S04.nii.gz").write_bytes(b"")
    labels = pd.DataFrame({"id": ids, "subject": ids, "session": "", "site": "A", "path": [f"{scan}.nii.gz" for scan in ids]})
    labels.assign(fingerprint=ids, problem="", notes="").to_csv(files["labels"], index=False)
    return files


def run(dataset, folder, **options):
    folder.mkdir(exist_ok=True)
    names = {"html_page": "q.html", "csv": "q.csv", "pdf": "q.pdf", "png": "q.png"}
    files = {key: folder / name for key, name in names.items()}
    return quality(**dataset, **files, **options), {name: (folder / name).read_bytes() for name in names.values()}


def test_who_is_left_out_or_far_from_the_others_is_named_and_counted(dataset, tmp_path):
    table, files = run(dataset, tmp_path / "out", title="<Mine>")
    page = files["q.html"].decode()
    assert len(table) == N == len(pd.read_csv(tmp_path / "out/q.csv"))
    assert table.loc[table["problem"] != "", "id"].tolist() == ["S04", "S03"]
    assert table.loc[table["far"] != "", "id"].tolist() == ["S07"]
    for told in (
        "scan: registration failed (correlation with the template 0.31)",
        "scan: file is empty",
        "(2600, median",
        "&lt;Mine&gt;",
    ):
        assert told in page
    for step, scans in (
        ("scans to preprocess", N),
        ("left out by a rule", 2),
        ("preprocessed", N - 2),
        ("far from the others or the template", 1),
    ):
        assert f'{step}</td><td class="n">{scans}</td>' in page


def test_the_same_bytes_again_and_only_the_simulated_is_called_so(dataset, tmp_path):
    real, again = (run(dataset, tmp_path / name)[1] for name in ("a", "b"))
    assert real == again
    assert real["q.pdf"].startswith(b"%PDF") and real["q.png"].startswith(b"\x89PNG")
    made = run(dataset, tmp_path / "c", simulated=True)[1]
    assert b"imulated" in made["q.html"] and b"imulated" not in real["q.html"]


def test_every_scan_left_out_is_no_error_and_no_scan_is(dataset, tmp_path):
    for array, index in zip(dataset["arrays"], dataset["indices"], strict=True):
        rows = pd.read_csv(index).assign(index=None, problem="scan: file is empty", correlation=None, brain_ml=None, scale=None)
        rows.to_csv(index, index=False)
        np.save(array, np.zeros((0, 10, 12, 8), np.uint8))
    table, _ = run(dataset, tmp_path / "none")
    assert (table["problem"] != "").all()
    for index in dataset["indices"]:
        rows.head(0).to_csv(index, index=False)
    with pytest.raises(UserError, match="no scans"):
        run(dataset, tmp_path / "empty")


def test_volume_that_the_template_makes_implausible_is_named_though_all_scans_share_it():
    """So it is where air is taken for brain in a whole dataset; then no scan lies far from the others."""
    measures = pd.DataFrame({"correlation": 0.8, "brain_ml": 2600.0, "scale": 0.7}, index=range(30))
    assert (far_from_others(measures) == "").all()
    assert (far_from_template(measures, "affine") == "volume of the brain (2600 ml, by the template 1159 to 1739)").all()
    assert (far_from_template(measures.assign(brain_ml=1480), "affine") == "").all()
    kept_size = measures.assign(scale=1.0)
    assert (far_from_template(kept_size, "rigid") != "").all()
    assert (far_from_template(kept_size.assign(brain_ml=[1100] * 15 + [2000] * 15), "rigid") == "").all()
    assert (far_from_template(measures.assign(scale=np.nan), "affine") == "").all()


def test_image_is_shown_among_several_channels(tmp_path):
    volumes = np.random.default_rng(0).integers(0, 255, (2, 3, 10, 12, 8), np.uint8)
    np.save(tmp_path / "s.npy", volumes)
    scan = {"index": 1, "array": str(tmp_path / "s.npy")}
    assert (stage.picture(scan, tmp_path, channel=2) == montage(volumes[1, 2])[0]).all()
    np.save(tmp_path / "s.npy", volumes[:, 2])
    assert (stage.picture(scan, tmp_path) == montage(volumes[1, 2])[0]).all()


def test_few_scans_and_a_high_correlation_are_not_far():
    measures = pd.DataFrame({"correlation": [*np.linspace(0.79, 0.81, 40), 0.99, 0.5], "brain_ml": 1400.0, "scale": 1.0})
    assert (far_from_others(measures) != "").tolist() == [False] * 41 + [True]
    assert (far_from_others(measures.tail(LEAST_SCANS - 1)) == "").all()


@pytest.mark.parametrize("voxel_mm", [(0.05, 4, 4), (10, 10, 10), (1, 1, 5), (2, 2, 2)])
def test_picture_of_odd_voxels_is_neither_empty_nor_enlarged(tmp_path, voxel_mm):
    data = np.random.default_rng(0).normal(size=(20, 24, 40)).astype(np.float32)
    nib.save(nib.Nifti1Image(data, np.diag([*voxel_mm, 1])), tmp_path / "a.nii")
    height, width = stage.picture({"index": None}, tmp_path / "a.nii").shape
    assert 16 <= width <= 24 and 3 * 16 <= height <= 24 + 40 + 40


def test_picture_for_which_memory_is_too_short_is_grey(tmp_path, monkeypatch):
    def lacking(*_, **__):
        raise MemoryError

    nib.save(nib.Nifti1Image(np.arange(4096, dtype=np.int16).reshape(16, 16, 16), np.eye(4)), tmp_path / "a.nii")
    monkeypatch.setattr(stage, "zoom", lacking)
    assert (stage.picture({"index": None}, tmp_path / "a.nii") == 128).all()
