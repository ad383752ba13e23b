"""Label maps: found, checked against their scans, and brought through the same transform onto the same grid."""

import gzip
import tarfile

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from mriflow.base.errors import UserError
from mriflow.images.label_maps import likeliest, ras_grid
from mriflow.images.registration import template
from mriflow.organize import organize
from mriflow.preprocess import preprocess
from mriflow.simulate import simulate
from mriflow.training.loader import open_shards

CLASSES = {"gm": [2, 3], "wm": [4]}
COLUMNS = {"subject": {"from": "ID"}, "age": {"from": "AGE", "range": [0, 110], "required": True}}
PATTERN = r"(?P<subject>P\d+)_T1\.nii\.gz"
MAPS = {"classes": CLASSES, "background": [9], "pattern": r"(?P<subject>P\d+)_seg\.nii\.gz"}
SHAPE = (20, 24, 18)


def save(path, data, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, np.diag([2.0, 2, 2, 1]) if affine is None else affine), path)


def cohort(folder, count):
    """Write scans of noise and a table; return good label maps, in the order of the subjects."""
    rng = np.random.default_rng(0)
    for number in range(count):
        save(folder / f"t1/P{number}_T1.nii.gz", rng.integers(0, 200, SHAPE).astype(np.int16))
    pd.DataFrame({"ID": [f"P{n}" for n in range(count)], "AGE": 40}).to_csv(folder / "table.csv", index=False)
    good = np.zeros(SHAPE, np.uint8)
    good[4:8], good[8:12], good[12:14] = 2, 4, 9
    return [good.copy() for _ in range(count)]


def organized(folder, **changes):
    given = {"columns": COLUMNS, "table": folder / "table.csv", "images": [folder / "t1"], "pattern": PATTERN}
    given |= {"label_maps": MAPS, "map_images": [folder / "maps"]}
    return organize(folder / "data/labels.csv", folder / "data/scans.csv", **given | changes).set_index("subject")


def test_each_fault_of_a_label_map_is_told_in_words_and_rules_the_scan_out_for_that_target_alone(tmp_path):
    maps = cohort(tmp_path, 9)
    maps[1][0, 0, 0] = 77
    maps[2][maps[2] == 4] = 2
    maps[3] = maps[3][:-1]
    maps[4] = maps[4] * np.float32(0.5)
    for number, labels in enumerate(maps[:8]):
        moved = np.diag([2.0, 2, 2, 1])
        moved[0, 3] = 1.0 if number == 5 else 0.1
        save(tmp_path / f"maps/P{number}_seg.nii.gz", labels, moved)
    save(tmp_path / "maps/again/P6_seg.nii.gz", maps[6])
    (tmp_path / "maps/P7_seg.nii.gz").write_bytes(b"no image")
    rows = organized(tmp_path)
    assert rows["problem"].tolist() == [
        "",
        "label_map: unknown label (77, in no class of the dataset's label_maps)",
        "label_map: no voxel of a class (wm)",
        "label_map: label map is on another grid than the scan (19x24x18 voxels, expected 20x24x18)",
        "label_map: labels are no whole numbers from 0 to 1000000 (found 0 to 4.5)",
        "label_map: label map is on another grid than the scan (its corners lie up to 0.5 voxels beside the scan's)",
        "label_map: several (P6_seg.nii.gz, P6_seg.nii.gz)",
        "label_map: file is not compressed, though its name ends with .gz (an image? rename it to .nii)",
        "label_map: missing",
    ]
    assert rows["label_map"].notna().tolist() == [True] + 8 * [False]
    listed = pd.read_csv(tmp_path / "data/scans.csv", keep_default_na=False)
    assert len(listed) == 9, "all can be used for other targets"
    assert (tmp_path / "data" / listed["label_map"][0]).resolve() == tmp_path / "maps/P0_seg.nii.gz"


def test_paths_may_stand_in_the_table(tmp_path):
    maps = cohort(tmp_path, 2)
    for number, labels in enumerate(maps):
        save(tmp_path / f"elsewhere/{number}.nii.gz", labels)
    cells = pd.DataFrame({"ID": ["P0", "P1"], "AGE": 40, "SEG": ["elsewhere/0.nii.gz", ""]})
    cells.to_csv(tmp_path / "table.csv", index=False)
    columns = {**COLUMNS, "label_map": {"from": "SEG"}}
    rows = organized(tmp_path, columns=columns, map_images=[])
    assert rows["label_map"].tolist()[0] == "../elsewhere/0.nii.gz"
    assert rows["problem"].tolist() == ["", "label_map: missing"]


def test_a_list_without_label_maps_has_no_column_more(tmp_path):
    cohort(tmp_path, 2)
    rows = organized(tmp_path, label_maps=None, map_images=[])
    assert "label_map" not in rows
    assert list(pd.read_csv(tmp_path / "data/scans.csv")) == ["id", "path", "fingerprint"]


def test_axes_of_a_grid_are_turned_as_nibabel_turns_them():
    rng = np.random.default_rng(0)
    for _ in range(20):
        affine = np.eye(4)
        affine[:3, :3] = np.linalg.qr(rng.normal(size=(3, 3)))[0] * [1, 2, 3]
        affine[:3, 3] = rng.normal(size=3) * 50
        turned = nib.as_closest_canonical(nib.Nifti1Image(np.zeros((5, 6, 7), np.uint8), affine))
        shape, found = ras_grid((5, 6, 7), affine)
        assert shape == turned.shape
        assert np.allclose(found, turned.affine)


def test_likeliest_is_background_where_the_scan_does_not_reach():
    shares = np.array([[0.6, 0.2, 0, 0.3], [0.4, 0.5, 0, 0.3], [0, 0.3, 0, 0.4]], np.float32)
    assert likeliest(shares).tolist() == [0, 1, 0, 2]


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    """A scan with a bright ellipsoid, tilted and shifted, stored in odd axes, with its map in other axes; preprocessed."""
    folder = tmp_path_factory.mktemp("aligned")
    image = template()
    head = np.asarray(image.dataobj, np.float32)[::2, ::2, ::2]
    affine = image.affine @ np.diag([2, 2, 2, 1])
    x, y, z = np.indices(head.shape) - np.array([40, 60, 40])[:, None, None, None]
    away = np.square(x / 8) + np.square(y / 10) + np.square(z / 7)
    blob = away < 1
    scan = np.where(away < 3, 500, 1000 * head)
    scan[blob] = 1200
    turn = nib.affines.from_matvec(np.array([[0.99, -0.14, 0], [0.14, 0.99, 0], [0, 0, 1]]), [7.3, -4.1, 5.7])
    scan_image = nib.Nifti1Image(scan.astype(np.int16), turn @ affine)
    map_image = nib.Nifti1Image(np.where(blob, 4, np.where(head > 0, 2, 0)).astype(np.uint8), turn @ affine)
    codes = [nib.orientations.axcodes2ornt(text) for text in ("PSR", "LAI")]
    now = nib.io_orientation(turn @ affine)
    for name, one, code in (("t1", scan_image, codes[0]), ("map", map_image, codes[1])):
        nib.save(one.as_reoriented(nib.orientations.ornt_transform(now, code)), folder / f"{name}.nii.gz")
    listed = {"id": ["a", "b"], "path": "t1.nii.gz", "fingerprint": "1", "label_map": ["map.nii.gz", ""]}
    pd.DataFrame(listed | {"label_map_fingerprint": ["2", ""]}).to_csv(folder / "scans.csv", index=False)
    grid = {"voxel_mm": 3.0, "shape": (54, 64, 54), "stripped": True}
    maps = {"classes": CLASSES, "background": []}
    preprocess(
        folder / "scans.csv", folder / "with.npy", folder / "with.csv", channels=("image", "label_map"), label_maps=maps, **grid
    )
    preprocess(folder / "scans.csv", folder / "without.npy", folder / "without.csv", **grid)
    return folder


def test_scan_and_map_stay_aligned_to_a_tenth_of_a_voxel(shard):
    image, labels = np.load(shard / "with.npy")[0]
    assert set(np.unique(labels)) == {0, 1, 2}
    near = ndimage.binary_dilation(labels == 2, iterations=2)
    edge = near & ~ndimage.binary_dilation(labels == 2)
    of_image = near * (image - np.median(image[edge])).clip(0)
    away = np.array(ndimage.center_of_mass(of_image)) - ndimage.center_of_mass(labels == 2)
    assert np.abs(away).max() < 0.1
    assert abs(of_image.sum() / np.median(of_image[ndimage.binary_erosion(labels == 2)]) / (labels == 2).sum() - 1) < 0.05


def test_a_scan_without_map_is_left_out_and_images_and_other_shards_stay_as_they_were(shard):
    shards = open_shards([shard / "with.npy"], [shard / "with.csv"])
    assert list(shards) == ["a"]
    plain = np.load(shard / "without.npy")
    assert plain.shape == (2, 54, 64, 54)
    assert (plain[0] == shards["a"][0]).all()


def test_a_list_without_label_maps_has_none_to_store(shard, tmp_path):
    pd.read_csv(shard / "scans.csv").drop(columns="label_map").to_csv(tmp_path / "scans.csv", index=False)
    with pytest.raises(UserError, match="lists no label maps"):
        preprocess(
            tmp_path / "scans.csv",
            tmp_path / "a.npy",
            tmp_path / "a.csv",
            channels=["label_map"],
            label_maps={"classes": CLASSES},
        )


def test_classes_are_part_of_the_name_of_a_finished_scan(shard):
    key = pd.read_csv(shard / "with.csv")["key"][0]
    maps = {"classes": {"gm": [2, 3], "wm": [4], "csf": [1]}, "background": []}
    grid = {"voxel_mm": 3.0, "shape": (54, 64, 54), "stripped": True, "channels": ("image", "label_map")}
    rows = preprocess(shard / "scans.csv", shard / "other.npy", shard / "other.csv", label_maps=maps, **grid)
    assert rows["key"][0] != key
    assert rows["problem"][0] == "scan: no voxel of a class (csf)"


def test_the_simulated_tissues_are_those_of_the_image_and_asking_for_them_changes_no_image(tmp_path):
    simulate(tmp_path / "t1.tar", tmp_path / "table.csv", subjects=20, voxel_mm=8)
    simulate(tmp_path / "maps.tar", subjects=20, voxel_mm=8, label_maps=True)
    with tarfile.open(tmp_path / "t1.tar") as images, tarfile.open(tmp_path / "maps.tar") as maps:
        assert [name.replace("-T1.", "-tissues.") for name in images.getnames()] == maps.getnames()
        for image, labels in zip(images.getmembers()[:3], maps.getmembers()[:3], strict=True):
            scan, tissues = (
                nib.Nifti1Image.from_bytes(gzip.decompress(archive.extractfile(one).read()))
                for archive, one in ((images, image), (maps, labels))
            )
            assert np.allclose(scan.affine, tissues.affine)
            brightness, numbers = np.asarray(scan.dataobj), np.asarray(tissues.dataobj)
            assert np.mean((brightness > 0) == (numbers > 0)) > 0.98
            means = [brightness[numbers == number].mean() for number in (1, 2, 3)]
            assert means == sorted(means)
