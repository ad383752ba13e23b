"""Label maps: found, checked against their scans, and brought through the same transform onto the same grid."""

import gzip
import json
import tarfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from mriflow.base.errors import UserError
from mriflow.config.resolve import described_bids, described_maps
from mriflow.images.label_maps import GRID_ML, IN_BRAIN, OWN_ML, likeliest, measures_of, note_of, ras_grid, told_of_loss
from mriflow.images.registration import template
from mriflow.organize import organize
from mriflow.preprocess import preprocess
from mriflow.quality import OTHER_TITLE, quality
from mriflow.simulate import simulate
from mriflow.tables import label_maps
from mriflow.tables.labels import TEXT_COLUMNS, read_labels
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
    maps[4] = maps[4].astype(np.float32)
    maps[4][5, 5, 5] = 2.000002
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
        "label_map: labels are no whole numbers from 0 to 1000000 (found 2.00000191)",
        "label_map: label map is on another grid than the scan (its corners lie up to 0.5 voxels beside the scan's)",
        "label_map: several (P6_seg.nii.gz, P6_seg.nii.gz)",
        "label_map: file is not compressed, though its name ends with .gz (an image? rename it to .nii)",
        "label_map: missing",
    ]
    assert rows["label_map"].notna().tolist() == [True] + 8 * [False]
    listed = pd.read_csv(tmp_path / "data/scans.csv", keep_default_na=False)
    assert len(listed) == 9, "all can be used for other targets"
    assert (tmp_path / "data" / listed["label_map"][0]).resolve() == tmp_path / "maps/P0_seg.nii.gz"


def test_a_class_that_may_lack_is_no_fault_of_a_map(tmp_path):
    maps = cohort(tmp_path, 2)
    maps[1][maps[1] == 4] = 2
    for number, labels in enumerate(maps):
        save(tmp_path / f"maps/P{number}_seg.nii.gz", labels)
    assert organized(tmp_path)["problem"].tolist() == ["", "label_map: no voxel of a class (wm)"]
    assert organized(tmp_path, label_maps=MAPS | {"may_lack": ["wm"]})["problem"].tolist() == ["", ""]
    assert organized(tmp_path, label_maps=MAPS | {"may_lack": ["gm"]})["problem"].tolist() == [
        "",
        "label_map: no voxel of a class (wm)",
    ]


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


def visits(folder, scans, maps, **options):
    """Organize a BIDS dataset of these scans, all different, with label maps of these names that fit every one of them."""
    rng = np.random.default_rng(0)
    good = np.zeros(SHAPE, np.uint8)
    good[4:8], good[8:12] = 2, 4
    for name in scans:
        save(folder / f"bids/sub-1/{name}_T1w.nii.gz", rng.integers(0, 200, SHAPE).astype(np.int16))
    for name in maps:
        save(folder / f"bids/derivatives/seg/{name}_dseg.nii.gz", good)
    (folder / "bids/participants.tsv").write_text("participant_id\tage\nsub-1\t40\n")
    read = described_bids(str(folder / "bids")) | {"table": folder / "bids/participants.tsv", "images": [folder / "bids"]}
    described = {"classes": CLASSES, "background": [], **described_maps(str(folder / "bids/derivatives/seg"))}
    given = {"columns": {"subject": {"from": "participant_id"}}, "map_images": [folder / "bids/derivatives/seg"]}
    organize(folder / "data/labels.csv", folder / "data/scans.csv", label_maps=described, **given | read | options)
    rows = read_labels(folder / "data/labels.csv").set_index("id")
    rows.index = rows.index.str.removesuffix("_T1w")
    names = [Path(one).name.removesuffix("_dseg.nii.gz") if isinstance(one, str) else "" for one in rows["label_map"]]
    return rows.assign(map=names), pd.read_csv(folder / "data/scans.csv", keep_default_na=False)


def test_a_map_of_one_run_is_not_taken_for_another_run(tmp_path):
    """The first image of the session stands for it, and what was drawn on the second lies beside its brain."""
    rows, _ = visits(tmp_path, ["sub-1_ses-1_run-1", "sub-1_ses-1_run-2"], ["sub-1_ses-1_run-2"])
    assert rows["problem"].tolist() == [
        "label_map: missing (sub-1_ses-1_run-2_dseg.nii.gz, of another image by its name)",
        "scan: another of the session is used (sub-1_ses-1_run-1_T1w)",
    ]
    assert rows["map"].tolist() == ["", "sub-1_ses-1_run-2"]


def test_of_several_maps_each_scan_takes_that_of_its_own_entities(tmp_path):
    scans = ["sub-1_acq-a_run-1", "sub-1_acq-a_run-2", "sub-1_acq-b"]
    maps = ["sub-1_acq-a_run-02_desc-manual", "sub-1_acq-a_run-01", "sub-1_acq-b"]
    rows, _ = visits(tmp_path, scans, maps, scans_per_session="all")
    assert rows["map"].tolist() == [maps[1], maps[0], maps[2]]
    assert (rows["problem"] == "").all()


def test_a_map_whose_name_tells_less_than_that_of_its_one_scan_is_taken(tmp_path):
    rows, _ = visits(tmp_path, ["sub-1_ses-1_acq-mprage", "sub-1_ses-2_acq-mprage"], ["sub-1_ses-1", "sub-1_ses-2_acq-mprage"])
    assert rows["map"].tolist() == ["sub-1_ses-1", "sub-1_ses-2_acq-mprage"]
    assert (rows["problem"] == "").all()


def test_one_map_is_not_shared_by_several_scans(tmp_path):
    rows, listed = visits(tmp_path, ["sub-1_ses-1", "sub-1_ses-2"], ["sub-1"])
    told = "label_map: one map for 2 scans (sub-1_dseg.nii.gz, of sub-1_ses-1_T1w, sub-1_ses-2_T1w)"
    assert rows["problem"].tolist() == [told, told]
    assert listed["label_map"].tolist() == ["", ""]


def test_one_path_of_a_table_is_not_shared_by_the_sessions_of_a_person(tmp_path):
    maps = cohort(tmp_path, 1)
    save(tmp_path / "map.nii.gz", maps[0])
    save(tmp_path / "t1/P0_2_T1.nii.gz", np.random.default_rng(1).integers(0, 200, SHAPE).astype(np.int16))
    pd.DataFrame({"ID": ["P0"], "AGE": 40, "SEG": ["map.nii.gz"]}).to_csv(tmp_path / "table.csv", index=False)
    columns = {**COLUMNS, "label_map": {"from": "SEG"}}
    rows = organized(tmp_path, columns=columns, map_images=[], pattern=r"(?P<subject>P\d+)(_(?P<session>\d))?_T1\.nii\.gz")
    assert rows["problem"].tolist() == 2 * ["label_map: one map for 2 scans (map.nii.gz, of P0_2_T1, P0_T1)"]


def test_an_alternative_has_its_own_map_or_none_and_a_map_that_may_be_of_either_is_noted(tmp_path):
    two = ["sub-1_run-1", "sub-1_run-2"]
    _, listed = visits(tmp_path / "own", two, two)
    (other,) = json.loads(listed["alternatives"].item())
    assert [Path(one).name for one in (listed["label_map"].item(), other["label_map"])] == [f"{one}_dseg.nii.gz" for one in two]
    rows, listed = visits(tmp_path / "one", two, ["sub-1"])
    (other,) = json.loads(listed["alternatives"].item())
    assert other["label_map"] == "" and listed["label_map"].item().endswith("sub-1_dseg.nii.gz")
    note = "label_map: does not tell which image of the session it was made of (sub-1_dseg.nii.gz)"
    assert rows["notes"].tolist() == [note, ""]


def test_label_maps_of_one_name_in_two_archives_are_refused(tmp_path):
    maps = cohort(tmp_path, 1)
    save(tmp_path / "P0_seg.nii.gz", maps[0])
    for name in ("a.tar", "b.tar"):
        with tarfile.open(tmp_path / name, "w") as tar:
            tar.add(tmp_path / "P0_seg.nii.gz", "P0_seg.nii.gz")
    with pytest.raises(UserError, match=r"b\.tar and .*a\.tar: both hold an image of the name 'P0_seg\.nii\.gz'"):
        organized(tmp_path, map_images=[tmp_path / "a.tar", tmp_path / "b.tar"])


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


def test_the_index_has_the_volume_of_each_class_in_the_maps_own_voxels_and_on_the_grid(shard):
    index = pd.read_csv(shard / "with.csv").iloc[0]
    image, on_grid = nib.load(shard / "map.nii.gz"), np.load(shard / "with.npy")[0, 1]
    own, voxel_ml = np.asarray(image.dataobj), abs(np.linalg.det(image.affine)) / 1000
    for number, (name, label) in enumerate({"gm": 2, "wm": 4}.items(), 1):
        assert index[f"map_ml_{name}"] == pytest.approx((own == label).sum() * voxel_ml, rel=1e-4)
        assert index[f"grid_ml_{name}"] == pytest.approx((on_grid == number).sum() * 0.027 * index["scale"], rel=1e-3)
    assert not [name for name in pd.read_csv(shard / "without.csv") if "_ml_" in name], "other blocks stay as they were"


def test_a_class_that_the_grid_loses_is_told_of_at_the_scan_in_training_and_on_the_quality_page(shard, tmp_path):
    image = nib.load(shard / "map.nii.gz")
    labels = np.asarray(image.dataobj).copy()
    labels[tuple(np.argwhere(labels == 4)[0])] = 7
    nib.save(nib.Nifti1Image(labels, image.affine), tmp_path / "map.nii.gz")
    listed = {"id": "a", "path": str(shard / "t1.nii.gz"), "fingerprint": "1"}
    pd.DataFrame([listed | {"label_map": "map.nii.gz", "label_map_fingerprint": "3"}]).to_csv(
        tmp_path / "scans.csv", index=False
    )
    grid = {"voxel_mm": 8.0, "shape": (20, 24, 20), "stripped": True, "channels": ("image", "label_map")}
    files = [tmp_path / "scans.csv", tmp_path / "a.npy", tmp_path / "a.csv"]
    for _ in range(2):  # the second run takes the first one's result
        preprocess(*files, **grid, label_maps={"classes": CLASSES | {"spot": [7]}, "background": []})
        index = pd.read_csv(files[2])
        assert index["notes"].tolist() == ["label_map: a class is lost on the grid of 8 mm (spot 0 of 0.008 ml)"]
        assert index["map_in_brain"].item() > 0.97
    [text] = told_of_loss(index, [*CLASSES, "spot"], 8.0)
    assert text.startswith("the grid of 8 mm loses the class 'spot' in 1 of the 1 label maps that have it")
    pd.DataFrame([dict.fromkeys(TEXT_COLUMNS, "") | {"id": "a"}]).to_csv(tmp_path / "labels.csv", index=False)
    drawn = [tmp_path / name for name in ("q.html", "q.csv", "q.pdf", "q.png")]
    quality(tmp_path / "labels.csv", [files[1]], [files[2]], *drawn)
    page = drawn[0].read_text()
    assert "Label maps to look at" in page and "lost on the grid" in page and OTHER_TITLE not in page


def test_a_map_that_lies_beside_the_brain_is_noted_and_one_in_it_is_not():
    labels, brain = np.zeros((2, 20, 20, 20), np.uint8)
    labels[4:14, 4:14, 4:14], brain[4:14, 4:14, 4:14] = 1, 1
    for moved, share in ((0, 1.0), (2, 0.8)):
        row = measures_of(labels, np.roll(brain, moved, 0) > 0, labels, ["gm"], 0.008, 0.008)
        assert row["map_in_brain"] == share
        note = "label_map: may be another person's, flipped or shifted (80 % of its labels lie in the brain, expected "
        assert note_of(row, ["gm"], 2.0) == (f"{note}97 % and more)" if moved else "")


def test_a_scan_without_map_is_left_out_and_images_and_other_shards_stay_as_they_were(shard):
    shards = open_shards([shard / "with.npy"], [shard / "with.csv"])
    assert list(shards) == ["a"]
    plain = np.load(shard / "without.npy")
    assert plain.shape == (2, 54, 64, 54)
    assert (plain[0] == shards["a"][0]).all()


def test_an_alternative_image_is_stored_with_its_own_map_and_never_with_that_of_the_first(shard, tmp_path):
    """The head moved between two images of a session: the map of the first lies beside the brain of the second."""
    moved = np.roll(np.asarray(nib.load(shard / "map.nii.gz").dataobj), 9, 0)
    save(tmp_path / "first-map.nii.gz", moved, nib.load(shard / "map.nii.gz").affine)
    (tmp_path / "first.nii.gz").write_bytes(b"broken")
    second = {"path": str(shard / "t1.nii.gz"), "fingerprint": "2"}
    own = {"label_map": str(shard / "map.nii.gz"), "label_map_fingerprint": "2"}
    grid = {"voxel_mm": 3.0, "shape": (54, 64, 54), "stripped": True}
    maps = {"classes": CLASSES, "background": []}
    results = {}
    for name, other in (
        ("own", second | own),
        ("none", second | {"label_map": "", "label_map_fingerprint": ""}),
        ("old", second),
    ):
        listed = {"id": "a", "path": "first.nii.gz", "fingerprint": "1", "alternatives": json.dumps([other])}
        listed |= {"label_map": "first-map.nii.gz", "label_map_fingerprint": "1"}
        pd.DataFrame([listed]).to_csv(tmp_path / "scans.csv", index=False)
        files = [tmp_path / "scans.csv", tmp_path / f"{name}.npy", tmp_path / f"{name}.csv"]
        rows = preprocess(*files, channels=("image", "label_map"), label_maps=maps, **grid)
        results[name] = np.load(files[1]), rows["problem"].fillna("").item()
    assert results["own"][1] == "" and (results["own"][0][0] == np.load(shard / "with.npy")[0]).all()
    for name in ("none", "old"):
        assert len(results[name][0]) == 0 and results[name][1].startswith("scan: file is not compressed")
    rows = preprocess(tmp_path / "scans.csv", tmp_path / "image.npy", tmp_path / "image.csv", **grid)
    assert rows["problem"].isna().all(), "without label maps, the second image stands in as ever"


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
    maps["may_lack"] = ["csf"]
    rows = preprocess(shard / "scans.csv", shard / "lacks.npy", shard / "lacks.csv", label_maps=maps, **grid)
    assert rows["problem"].isna().all() and rows["notes"].isna().all() and rows["map_ml_csf"].tolist() == [0]


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


def test_images_without_a_subject_are_not_compared_with_one_another(monkeypatch):
    """T2 beside T1: names that do not fit the pattern, and have no subject, may be tens of thousands."""
    read = []
    monkeypatch.setattr(label_maps, "entities", lambda path: read.append(path) or {})
    rows = pd.DataFrame({"subject": [None] * 500, "path": [f"sub-{n}_T2w.nii" for n in range(500)]})
    named, passed = label_maps.maps_of(rows, pd.DataFrame({"subject": ["sub-1"], "path": ["sub-1_dseg.nii"]}))
    assert not any(named) and not any(passed) and len(read) <= 500


@pytest.mark.parametrize("unknown", [None, np.nan])
def test_a_map_without_a_label_is_no_fault_to_note_now_or_read_from_a_table(unknown):
    row = {IN_BRAIN: unknown, f"{OWN_ML}lesion": 0.0, f"{GRID_ML}lesion": 0.0}
    assert note_of(row, ["lesion"], 2.0) == ""
    assert "flipped" in note_of(row | {IN_BRAIN: 0.0}, ["lesion"], 2.0)
