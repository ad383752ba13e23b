"""Segmentation: learned from scans and from generated images, by the loop of all trainings, and judged."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from scipy import ndimage

from conftest import ROOT, measure_label_maps, synthesis
from mriflow.agreement import agreement
from mriflow.base.errors import UserError
from mriflow.config.resolve import merge, read_yaml, resolve, settings, training_part
from mriflow.evaluation.label_maps import long_rows, summarise_maps, surface_distances
from mriflow.plot import main as plot
from mriflow.prediction.ensemble import Trained
from mriflow.prediction.segment import probabilities_of
from mriflow.reporting.map_sections import of_maps, sentences_of_maps, table_of_lacking, table_of_maps
from mriflow.reporting.results import read_metrics
from mriflow.robustness import robustness
from mriflow.training.augment import augment, draw_changes, moved_maps
from mriflow.training.forward import mirrored
from mriflow.training.loader import Batch, ScanLoader, Shards, open_shards
from mriflow.training.objectives import Segmentation, load_objective
from mriflow.training.overlap import counts, dice_and_cross_entropy, dice_of
from mriflow.training.patches import over_windows, random_patches
from mriflow.training.sides import check_mirror, sided_classes
from mriflow.training.synthesis import blurred, draw, generate
from test_train import NONE, SEGMENTATION, run

CLASSES = ["csf", "gm", "wm"]
PLAIN = dict.fromkeys(
    ("texture", "rotate_degrees", "scale", "shear", "elastic_mm", "blur_mm", "thick", "bias_field", "noise", "gamma"), 0.0
)


def spheres(count=2, size=24):
    """Return images and label maps of nested spheres of csf, gm and wm."""
    away = np.linalg.norm(np.indices([size] * 3) - np.array([size / 2 - 1] * 3)[:, None, None, None], axis=0)
    labels = torch.tensor(np.digitize(-away, [-size / 2.4, -size / 3, -size / 4.5])).to(torch.uint8)
    labels = labels.expand(count, -1, -1, -1).clone()
    return (labels > 0)[:, None].float(), labels


def test_a_perfect_map_has_no_loss_and_a_dice_of_one():
    _, labels = spheres()
    outputs = torch.nn.functional.one_hot(labels.long(), 4).movedim(-1, 1) * 40.0
    assert dice_and_cross_entropy(outputs, labels).flatten().tolist() == pytest.approx([0, 0], abs=1e-4)
    objective = load_objective(Segmentation(CLASSES).state())
    kept = objective.kept(outputs, labels)
    assert objective.predict(kept).tolist() == [[1.0] * 3] * 2
    assert objective.loss(kept, torch.zeros(2, 1)).item() == pytest.approx(0, abs=1e-4)


def test_dice_is_twice_the_overlap_over_both_sizes():
    one, other = torch.tensor([[1, 1, 0, 0, 0]]), torch.tensor([[0, 1, 1, 1, 0]])
    assert dice_of(counts(one, other, 2))[0, 0].item() == pytest.approx(2 * 1 / (2 + 3))
    assert dice_of(counts(one, other, 2))[0, 1].isnan()
    assert dice_of(counts(one, other * 0, 2))[0, 0].isnan(), "nothing is there: what is found has no overlap to tell"


def test_batches_of_shards_with_label_maps_have_them_as_labels_and_not_as_a_channel(labelled):
    shards = open_shards(labelled["arrays"], labelled["indices"], label_map=1)
    scans = ScanLoader(shards, list(shards)[:5], torch.device("cpu"))
    batch = next(scans.batches(torch.tensor([4, 2]), 2))
    stored = np.load(labelled["arrays"][0])[[4, 2]]
    assert shards.channels == 1
    assert (batch.images[:, 0].numpy() * 255).round().tolist() == stored[:, 0].tolist()
    assert batch.labels.tolist() == stored[:, 1].tolist()


@pytest.mark.parametrize(
    "change",
    [{"mirror": 1.0}, {"shift_mm": 12.0}, {"rotate_degrees": 20.0}, {"scale": 0.2}, {"rotate_degrees": 10.0, "mirror": 1.0}],
)
def test_augmentation_moves_image_and_map_together(change):
    x, y, z = np.indices((48, 48, 48)) - np.array([26.6, 20.3, 25.2])[:, None, None, None]
    x, y = x + 0.4 * y + 0.3 * z, y - 0.3 * z  # tilted: no edge falls on voxels' edges everywhere at once
    blob = np.square(x / 9.3) + np.square(y / 11.7) + np.square(z / 8.1) < 1  # in no middle
    images = torch.tensor(0.2 + 0.6 * ndimage.gaussian_filter(blob.astype(np.float32), 1)).expand(4, 1, -1, -1, -1)
    labels = torch.tensor(blob * 3, dtype=torch.uint8).expand(4, -1, -1, -1)
    settings = NONE | change
    changes = draw_changes(4, 4.0, settings, torch.Generator().manual_seed(0))
    moved, maps = augment(images, changes, settings), moved_maps(labels, changes, settings)
    assert not torch.equal(maps, labels)
    for image, one in zip(moved[:, 0], maps, strict=True):
        bright = (image.numpy() - 0.2).clip(0.05) - 0.05
        away = np.subtract(ndimage.center_of_mass(bright), ndimage.center_of_mass((one == 3).numpy()))
        # Where a map is scaled along its axes alone, whole planes of it are left out or doubled.
        assert np.abs(away).max() < (0.3 if "scale" in change else 0.1)


def test_it_learns_to_segment_and_tells_dice_of_each_class(labelled, tmp_path):
    table = run(tmp_path, labelled, epochs=12, **SEGMENTATION)
    assert {"val_loss", "val_dice", "val_dice_csf", "val_dice_gm", "val_dice_wm", "unchanged_dice"} <= set(table)
    assert table["val_dice"].iloc[-1] > 0.85
    model = torch.load(tmp_path / "model.pt", weights_only=True)
    assert (model["objective"], model["channels"]) == ({"loss": "dice-ce", "classes": CLASSES}, ["image"])


def test_from_generated_images_alone_it_segments_scans_that_it_never_saw(labelled, tmp_path):
    table = run(tmp_path, labelled, epochs=20, **SEGMENTATION, synthesis=synthesis(slice_mm=0, blur_mm=2, scale=0.05))
    assert table["val_dice"].iloc[-1] > 0.7


def test_it_learns_from_patches_and_segments_whole_scans_in_windows(labelled, tmp_path):
    run(tmp_path, labelled, epochs=12, patch=[8, 12, 16], learning_rate=0.02, **SEGMENTATION)
    last = pd.read_csv(tmp_path / "history.csv").iloc[-1]
    assert last["val_dice"] > 0.8
    model = torch.load(tmp_path / "model.pt", weights_only=True)
    assert model["shape"] == [8, 12, 16]
    network = Trained.of(model, torch.device("cpu"))
    volume = np.load(labelled["arrays"][0])[0, :1]
    found = probabilities_of([network], volume, torch.device("cpu"), "none")
    assert found.shape == (4, 16, 16, 16) and found.sum(0) == pytest.approx(1, abs=1e-5)
    [expected] = over_windows(network.net, [8, 12, 16])(torch.tensor(volume)[None] / 255).softmax(1).detach().numpy()
    assert found == pytest.approx(expected, abs=1e-5)


def test_a_patch_is_cut_at_a_place_that_follows_from_its_scans_seed_alone_image_and_map_alike():
    values = torch.arange(2 * 10 * 10 * 10).reshape(2, 10, 10, 10)
    batch = Batch(values[:, None].float(), torch.zeros(2, 0), values)
    cut = random_patches(batch, [5, 9], [4, 10, 6])
    assert cut.images.shape == (2, 1, 4, 10, 6) and torch.equal(cut.images[:, 0], cut.labels.float())
    alone = random_patches(Batch(*(part[1:] for part in batch)), [9], [4, 10, 6])
    assert torch.equal(alone.labels[0], cut.labels[1])
    places = {int(random_patches(batch, [seed, 0], [4, 10, 6]).labels[0, 0, 0, 0]) for seed in range(40)}
    assert len(places) > 15


def test_what_is_generated_of_a_scan_follows_from_its_seed_whatever_is_beside_it():
    images, labels = spheres(3)
    settings = synthesis(thick=1)
    together = generate(images, labels, [5, 6, 7], CLASSES, settings, 2.0)
    alone = generate(images[1:2], labels[1:2], [6], CLASSES, settings, 2.0)
    assert torch.allclose(together[0][1], alone[0][0], atol=1e-5)
    assert torch.equal(together[1][1], alone[1][0])
    assert not torch.equal(together[0][0], together[0][2])


def test_without_any_change_the_map_stays_and_each_class_has_one_brightness():
    images, labels = spheres(1)
    images[0, 0, :3, :3, :3] = 1  # brain of no class
    made, truth = generate(images, labels, [1], CLASSES, synthesis(**PLAIN), 2.0)
    assert torch.equal(truth, labels)
    assert made[0, 0][images[0, 0] == 0].max() == 0
    inner = ndimage.binary_erosion(labels[0].numpy() == 3, iterations=2)
    assert made[0, 0].numpy()[inner].std() < 0.02


def test_image_and_map_are_bent_together():
    images, labels = spheres(6)
    settings = synthesis(**PLAIN | {"elastic_mm": 4.0, "rotate_degrees": 15.0, "scale": 0.1}, ordered=1)
    made, truth = generate(images, labels, list(range(6)), CLASSES, settings, 2.0)
    assert not torch.equal(truth, labels)
    for image, one in zip(made[:, 0].numpy(), truth.numpy(), strict=True):
        means = [image[ndimage.binary_erosion(one == number)].mean() for number in (1, 2, 3)]
        spread = [image[ndimage.binary_erosion(one == number)].std() for number in (1, 2, 3)]
        assert max(spread) < 0.3 * min(np.diff(means)), "the classes of the image are not where the map has them"


@pytest.mark.long
def test_tissues_keep_their_order_in_the_share_that_is_asked_for():
    def share(ordered):
        means = torch.stack([draw(seed, CLASSES, synthesis(ordered=ordered), 2.0).mean[1:4] for seed in range(200)])
        return float((means.diff(dim=1) > 0).all(1).float().mean())

    assert share(1) == 1
    assert 0.05 < share(0) < 0.3  # one in six by chance


def test_many_tissues_keep_their_order_too():
    names = [f"c{number}" for number in range(16)]
    settings = synthesis(ordered=1, order=[[name] for name in names])
    means = torch.stack([draw(seed, names, settings, 2.0).mean[1:17] for seed in range(60)])
    assert (means.diff(dim=1) > 0).all() and means.max() <= 1


def test_a_share_of_the_images_may_be_scans():
    images, labels = spheres(40, size=12)
    images = images * 0.37
    made, truth = generate(images, labels, list(range(40)), CLASSES, synthesis(share=0.5), 2.0)
    kept = (made == images).flatten(1).all(1)
    assert 10 <= int(kept.sum()) <= 30
    assert torch.equal(truth[kept], labels[kept])


def test_blur_is_a_gaussian_of_each_scans_own_width():
    spot = torch.zeros(2, 21, 21, 21)
    spot[:, 10, 10, 10] = 1
    made = blurred(spot, torch.tensor([[1.0, 1.0, 1.0], [2.0, 2.0, 0.0]])).numpy()
    assert np.allclose(made[0], ndimage.gaussian_filter(spot[0].numpy(), 1.0, truncate=8), atol=1e-4)
    assert np.allclose(made[1], ndimage.gaussian_filter(spot[1].numpy(), [2, 2, 0], truncate=4), atol=1e-4)


def test_thick_slices_and_bias_field_and_noise_are_drawn_within_what_is_asked_for():
    drawn = [draw(seed, CLASSES, synthesis(thick=1, slice_mm=6), 2.0) for seed in range(50)]
    thickness = torch.stack([one.slices for one in drawn])
    assert ((thickness > 1).sum(1) <= 1).all()
    assert 2 < thickness.max() <= 3
    assert max(float(one.noise) for one in drawn) <= 0.06


def test_surfaces_of_boxes_a_voxel_apart_are_a_voxel_apart():
    mask = np.zeros((20, 20, 20), bool)
    mask[5:15, 5:15, 5:15] = True
    assert surface_distances(mask, mask, 2.0) == (0, 0)
    larger = ndimage.binary_dilation(mask, np.ones((3, 3, 3)))
    hd95, mean = surface_distances(mask, larger, 2.0)
    assert 2 <= hd95 <= 2 * 3**0.5
    assert 2 <= mean < 2.2
    assert np.isnan(surface_distances(mask, ~mask & mask, 2.0)).all()


def test_measures_are_those_of_monai():
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

    rng = np.random.default_rng(0)
    ours, theirs = (ndimage.gaussian_filter(rng.normal(size=(20, 22, 24)), 3) > 0 for _ in range(2))
    hd95, mean = surface_distances(ours, theirs, 1.5)
    given = [torch.tensor(one)[None, None].float() for one in (ours, theirs)]
    assert hd95 == pytest.approx(float(compute_hausdorff_distance(*given, True, percentile=95, spacing=1.5)), rel=0.02)
    symmetric = compute_average_surface_distance(*given, True, symmetric=True, spacing=1.5)
    assert mean == pytest.approx(float(symmetric), rel=0.02)


def test_intervals_are_over_subjects_and_a_scan_without_a_distance_is_left_out():
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"subject": [f"s{n // 2}" for n in range(40)], "true_gm": 100.0})
    for method, better in (("network", 0.1), ("atlas", 0.0)):
        rows[f"{method}_dice_gm"] = 0.7 + better + rng.normal(0, 0.02, 40)
        rows[f"{method}_hd95_gm"] = np.where(np.arange(40) == 3, np.nan, 2.0)
        rows[f"{method}_surface_gm"], rows[f"{method}_volume_gm"] = 1.0, 110.0
    found = summarise_maps(rows, ["network", "atlas"], ["gm"])
    assert found["network"]["hd95_gm"]["value"] == pytest.approx(2)
    assert found["network"]["volume_error_gm"]["value"] == pytest.approx(10)
    assert found["network"]["volume_error_percent_gm"]["value"] == pytest.approx(10)
    away = next(one for one in found["differences"] if one["metric"] == "dice_gm")
    assert away["low"] < 0.1 < away["high"] and away["people"] == 20
    assert found["network"]["dice"] == found["network"]["dice_gm"]


def test_a_class_that_maps_lack_gives_no_perfect_volume_and_each_metric_says_of_how_many_scans_it_is():
    rows = pd.DataFrame({"subject": [f"s{n}" for n in range(10)], "true_gm": [0.0] * 4 + [5.0] * 6})
    rows["network_volume_gm"] = [0.0] * 3 + [8.0] + [6.0] * 6
    rows["network_dice_gm"] = rows["network_hd95_gm"] = rows["network_surface_gm"] = [np.nan] * 4 + [0.5] * 6
    found = summarise_maps(rows, ["network"], ["gm"])
    for metric, value in {"dice_gm": 0.5, "volume_error_gm": 1, "volume_error_percent_gm": 20}.items():
        assert (found["network"][metric]["value"], found["network"][metric]["n"]) == (value, 6)
    assert found["volumes"]["gm"]["n"] == 6
    long = long_rows(found | {"n": 10}).set_index("metric")["n"]
    assert long["dice_gm"] == 6
    nowhere = summarise_maps(rows.assign(true_gm=0.0), ["network"], ["gm"])
    assert found["lacking"]["gm"]["n"] == 4 and found["lacking"]["gm"]["found_ml"]["value"] == 2
    assert 0 <= found["lacking"]["gm"]["found_ml"]["low"] < 2 < found["lacking"]["gm"]["found_ml"]["high"]
    assert table_of_lacking(found).rows[0][:2] == ["gm", 4] and long["found_ml"] == 4
    assert nowhere["network"]["volume_error_gm"]["value"] is None and nowhere["volumes"] == {}


def test_a_class_that_the_grid_loses_is_a_warning_of_the_training(labelled, tmp_path):
    index = pd.read_csv(labelled["indices"][0])
    index.loc[:11, "grid_ml_gm"] = 0
    index.to_csv(tmp_path / "index.csv", index=False)
    run(tmp_path, labelled | {"indices": [tmp_path / "index.csv"]}, epochs=1, **SEGMENTATION)
    [warning] = [one for one in json.loads((tmp_path / "warnings.json").read_text()) if one["kind"] == "class lost on the grid"]
    assert warning["text"].startswith("the grid of 4 mm loses the class 'gm' in ")


def test_shards_of_before_that_do_not_tell_volumes_of_label_maps_are_named(labelled, tmp_path):
    pd.read_csv(labelled["indices"][0]).drop(columns="map_ml_gm").to_csv(tmp_path / "index.csv", index=False)
    with pytest.raises(
        UserError, match=r"has no column map_ml_gm, for an earlier version made it\. Delete it, run `preprocess`"
    ):
        run(tmp_path, labelled | {"indices": [tmp_path / "index.csv"]}, epochs=1, **SEGMENTATION)


def test_limits_of_agreement_are_those_of_the_differences_of_volumes():
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"subject": [f"s{n}" for n in range(50)], "true_gm": rng.normal(600, 50, 50)})
    rows["network_volume_gm"] = rows["true_gm"] + rng.normal(5, 20, 50)
    rows[["network_dice_gm", "network_hd95_gm", "network_surface_gm"]] = 0.8, 2.0, 1.0
    found = summarise_maps(rows, ["network"], ["gm"])["volumes"]["gm"]
    error = rows["network_volume_gm"] - rows["true_gm"]
    assert found["mean"]["value"] == pytest.approx(error.mean())
    assert found["upper_limit"]["value"] == pytest.approx(error.mean() + 1.96 * error.std())
    assert found["lower_limit"]["low"] < error.mean() - 1.96 * error.std() < found["lower_limit"]["high"]


def settings_of(folder, **changes):
    """Write the settings of an experiment on the tiny dataset with label maps."""
    dataset = {"title": "Tiny", "label_maps": {"classes": {name: [number] for number, name in enumerate(CLASSES, 1)}}}
    preprocess = {"channels": ["image", "label_map"], "voxel_mm": 4.0, "registration": "affine", "shape": [16, 16, 16]}
    settings = {"experiment": "tissues", "names": {"target": "tissues"}, "dataset": dataset, "preprocess": preprocess}
    settings |= {
        "target": {"column": "label_map", "type": "segmentation", "unit": ""},
        "training": {"tta": "mirror", "seeds": [0]},
        "covariates": [],
    }
    (folder / "settings.json").write_text(json.dumps(settings | changes))
    return folder / "settings.json"


def test_agreement_is_measured_on_each_test_scan_drawn_and_reported(labelled, tmp_path):
    for fold in range(3):
        run(tmp_path / str(fold), labelled, fold=fold, epochs=8, **SEGMENTATION)
    models, warnings = ([tmp_path / str(fold) / name for fold in range(3)] for name in ("model.pt", "warnings.json"))
    files = {"predictions": tmp_path / "predictions.csv", "metrics": tmp_path / "metrics.json"}
    result = agreement(**files, models=models, warnings=warnings, settings=settings_of(tmp_path), **labelled)
    table = pd.read_csv(files["predictions"])
    assert result["n"] == len(table) == 24
    assert {"network", "atlas", "template", "mixture"} <= set(result)
    assert result["network"]["dice"]["value"] > 0.8
    assert result["network"]["dice"]["value"] == pytest.approx(table[[f"network_dice_{c}" for c in CLASSES]].to_numpy().mean())
    assert result["mixture"]["dice_gm"]["value"] > 0.8, "three brightnesses are told apart"
    index = pd.read_csv(labelled["indices"][0]).set_index("id").loc[table["id"]]
    assert table["true_gm"].tolist() == index["map_ml_gm"].tolist(), "the map's own volume, of which the grid lost a tenth"
    volumes, network = np.load(labelled["arrays"][0]), Trained.of(torch.load(models[0], weights_only=True), torch.device("cpu"))
    row = table.iloc[0]
    volume = volumes[index.loc[row["id"], "index"], :1]
    found = probabilities_of([network], volume, torch.device("cpu"), "mirror")
    near = ndimage.binary_dilation(volume[0] > 0, iterations=2)
    assert row["network_volume_gm"] == pytest.approx(found[2][near].sum() * 0.064, abs=0.006), "as `predict` tells it"
    long = pd.read_csv(tmp_path / "metrics.csv")
    assert {"network", "network - atlas"} <= set(long["method"])
    assert "volume of gm" in set(long["group"])
    for name, inputs in {
        "overlays": {"maps": tmp_path / "overlays.npz"},
        "volumes": {"predictions": files["predictions"]},
    }.items():
        flags = [word for key, path in {**inputs, "metrics": files["metrics"]}.items() for word in (f"--{key}", str(path))]
        plot([name, "--pdf", str(tmp_path / f"{name}.pdf"), "--png", str(tmp_path / f"{name}.png"), *flags])
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
    worse = {"result": tmp_path / "robustness.json", "table": tmp_path / "robustness.csv"}
    found = robustness(**worse, models=models, settings=tmp_path / "settings.json", **labelled)
    assert found["unchanged"]["dice"]["value"] == pytest.approx(result["network"]["dice"]["value"])
    by_kind = {(one["kind"], one["strength"]): one["metrics"]["dice"]["value"] for one in found["changes"]}
    assert by_kind["inverted contrast", 1] < by_kind["noise", 0.02] - 0.2, "it was shown one contrast alone"
    assert [strength for kind, strength in by_kind if kind == "thick slices"] == [5, 6, 8], "voxels have 4 mm already"
    assert by_kind["thick slices", 8] != found["unchanged"]["dice"]["value"]
    assert {"dice", "dice_gm", "dice_difference"} <= set(pd.read_csv(worse["table"])["metric"])
    drawings = [f"--{name}={tmp_path / f'robustness.{name}'}" for name in ("pdf", "png")]
    plot(["robustness", f"--result={worse['result']}", *drawings])
    read = read_metrics(files["metrics"])
    assert len(sentences_of_maps(read)) == 5
    assert len(table_of_maps(read).rows) == 3 * 4
    parts = of_maps(read, tmp_path)
    assert parts["results"] and not parts["training"], "a figure that is not there is absent"


def one_sided(labelled, folder, scans=None, size=3):
    """Return the labelled dataset with the class csf in a cube on the left alone, in all scans or some."""
    volumes = np.load(labelled["arrays"][0])
    volumes[:, 1][volumes[:, 1] == 1] = 0
    volumes[slice(scans), 1, 1 : 1 + size, 6:9, 6:9] = 1
    np.save(folder / "shard.npy", volumes)
    shutil.copy(labelled["indices"][0], folder / "shard.csv")
    for name in ("csf", "gist"):
        measure_label_maps(folder / "shard.csv", volumes[:, 1], [name, *CLASSES[1:]], 0.064)
    return labelled | {"arrays": [folder / "shard.npy"], "indices": [folder / "shard.csv"]}


@pytest.mark.parametrize("class_names", [CLASSES, ["gist", "gm", "wm"]])
def test_a_class_of_one_side_is_not_mirrored_in_training_nor_in_prediction_whatever_its_name(labelled, tmp_path, class_names):
    data, given = one_sided(labelled, tmp_path), SEGMENTATION | {"target": SEGMENTATION["target"] | {"classes": class_names}}
    with pytest.raises(UserError) as told:
        run(tmp_path / "mirrored", data, epochs=1, **given)
    assert str(told.value) == (
        f"the class {class_names[0]!r} lies on the left of the grid's middle with 100% of its voxels, in the label maps of 12 "
        "training scans, and scans are mirrored: so it is taught or predicted on the other side, too. Set `augmentation: "
        "{mirror: 0}` and `tta: none` in the training block."
    )
    run(tmp_path / "plain", data, epochs=1, augmentation={"mirror": 0}, **given)
    if class_names == CLASSES:
        paths = {"models": [tmp_path / "plain/model.pt"], "warnings": [tmp_path / "plain/warnings.json"]}
        paths |= {"predictions": tmp_path / "predictions.csv", "metrics": tmp_path / "metrics.json"}
        with pytest.raises(UserError, match=r"'csf' lies on the left .* Set `tta: none` in the training block"):
            agreement(**paths, settings=settings_of(tmp_path), **data)


def test_a_class_that_few_maps_have_on_one_side_is_a_warning_and_what_lies_on_both_is_none(labelled, tmp_path):
    shards = open_shards(one_sided(labelled, tmp_path, scans=4)["arrays"], labelled["indices"], label_map=1)
    (warning,) = check_mirror(shards, list(shards), CLASSES, "`tta: none`")
    assert warning["kind"] == "class of one side" and "'csf'" in warning["text"]
    assert sided_classes(open_shards(labelled["arrays"], labelled["indices"], label_map=1), list(shards), CLASSES) == []
    tiny = open_shards(one_sided(labelled, tmp_path, scans=4, size=1)["arrays"], labelled["indices"], label_map=1)
    assert sided_classes(tiny, list(tiny), CLASSES) == [], "36 voxels tell nothing"


def test_one_large_lesion_does_not_make_its_class_one_of_a_side():
    volumes = np.zeros((12, 2, 16, 16, 16), np.uint8)
    volumes[0, 1, 9:16] = 1
    for number in range(1, 12):
        volumes[number, 1, 2 if number % 2 else 13, 4:8, 4:8] = 1
    shards = Shards([volumes], {str(number): (0, number) for number in range(12)}, label_map=1)
    assert sided_classes(shards, list(shards), ["lesion"]) == []


def test_the_middle_about_which_sides_are_told_is_that_of_mirror_images():
    """On grids of an odd and an even number of voxels: what lies on the left is on the right in the mirror image."""
    for size in (15, 16):
        volumes = np.zeros((9, 2, size, 16, 16), np.uint8)
        volumes[:, 1, size // 2 - 1, 4:8, 4:8] = 1
        for turned, side in ((volumes, "left"), (mirrored(torch.tensor(volumes)).numpy(), "right")):
            shards = Shards([turned], {str(number): (0, number) for number in range(9)}, label_map=1)
            assert [one[1] for one in sided_classes(shards, list(shards), ["a"])] == [side]


@pytest.mark.parametrize(
    ("overlay", "phrase"),
    [
        ("experiments: {demo-tissues: {preprocess: affine-4mm}}", "channels: found [image], expected [image, label_map]"),
        ("experiments: {demo-age: {preprocess: labels-4mm}}", "channels: found 'label_map', expected a block without it"),
        ("experiments: {demo-age: {training: segment-generated}}", "synthesis: found in the training of experiment 'demo-age'"),
        ("training: {segment-generated: {synthesis: {order: [[grey]]}}}", "order: found 'grey', which is no class of dataset"),
        (
            "experiments: {demo-tissues: {covariates: [height]}}",
            "covariates: found ['height'], expected none of a segmentation",
        ),
        ("experiments: {demo-tissues: {controls: {permutation: true}}}", "found in a segmentation, which has robustness alone"),
        ("targets: {tissues: {classes: {gm: a, wm: b}}}", "expected none: they stand in the dataset's `label_maps`"),
        (
            "datasets: {demo: {label_maps: {may_lack: [wn]}}}",
            "may_lack: found 'wn', expected one of `classes`",
        ),
        ("targets: {tissues: {column: age}}", "column: found 'age', expected label_map"),
        ("training: {segment: {loss: l1}}", "found 'l1', expected one of auto, dice-ce"),
        ("training: {segment: {patch: [48, 48, 40]}}", "patch: found [48, 48, 40], expected no more than [40, 48, 40]"),
        ("training: {segment: {patch: [18, 18, 18]}}", "patch: found [18, 18, 18], expected multiples of 4, by which"),
        ("training: {short: {patch: [16, 16, 16]}}", "patch: found in the training of experiment 'demo-age', which segments"),
    ],
)
def test_a_mistake_in_the_config_of_a_segmentation_is_told(overlay, phrase):
    files = [ROOT / "config/config.yaml", ROOT / "config/experiments/demo-tissues.yaml"]
    config = {}
    for tree in [
        *map(read_yaml, files),
        {"run": ["demo-tissues", "demo-tissues-generated", "demo-age"]},
        yaml.safe_load(overlay),
    ]:
        config = merge(config, tree)
    with pytest.raises(UserError) as told:
        resolve(config, files, ROOT)
    assert phrase in str(told.value)


def test_an_experiment_is_told_which_one_on_its_people_tells_their_tissues_apart():
    files = [ROOT / "config/config.yaml", ROOT / "config/experiments/demo-tissues.yaml"]
    block = {"affine-4mm": {"channels": ["image", "gm"], "tissues": "demo-tissues"}}
    tree = merge(merge(read_yaml(files[0]), read_yaml(files[1])), {"run": ["demo-age"], "preprocess": block})
    whole = resolve(tree, files, ROOT)
    assert settings(whole, "demo-age")["tissues_of"] == "demo-tissues"
    assert "tissues_of" not in settings(whole, "demo-tissues")


def test_a_training_is_told_the_classes_and_where_the_label_map_is():
    files = [ROOT / "config/config.yaml", ROOT / "config/experiments/demo-tissues.yaml"]
    whole = resolve(merge(read_yaml(files[0]), read_yaml(files[1])), files, ROOT)
    used = settings(whole, "demo-tissues")
    assert training_part(used, "target")["classes"] == CLASSES
    assert training_part(used, "inputs") == {
        "channels": ["image"], "voxel_mm": 4, "covariates": [], "impute": False, "label_map": 1
    }  # fmt: skip
