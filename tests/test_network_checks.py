"""Mistakes about networks, batches and trials are told before anything runs, not after days of preprocessing."""

import inspect
import json

import pytest
import yaml

from conftest import ROOT
from mriflow.base.errors import UserError
from mriflow.config import network_checks
from mriflow.config.map_checks import sided
from mriflow.config.resolve import merge, read_yaml, resolve
from mriflow.training.networks import NORMS, SFCN, SFCN_CHANNELS

SEARCH = "{searches: {s: {method: grid, keys: %s, trials: 9}}, experiments: {demo-age: {search: s}}}"


def told_of(overlay, *others):
    """Return what is said of the default config with an overlay."""
    files = [ROOT / "config/config.yaml", *(ROOT / f"config/experiments/{name}.yaml" for name in others)]
    config = {}
    for tree in [*map(read_yaml, files), yaml.safe_load(overlay)]:
        config = merge(config, tree)
    with pytest.raises(UserError) as told:
        resolve(config, files, ROOT)
    return str(told.value)


@pytest.mark.parametrize(
    ("overlay", "phrase"),
    [
        ("networks: {densenet121: {name: DenseNet1212}}", "found 'DenseNet1212', expected SFCN or a network of MONAI"),
        (
            "networks: {sfcn-small: {arguments: {chanels: [8, 8]}}}",
            "not an argument of SFCN; did you mean 'channels'?",
        ),
        ("networks: {sfcn-small: {arguments: {head: flatt}}}", "head: found 'flatt', expected one of average, flat"),
        ("networks: {sfcn-small: {arguments: {norm: layer}}}", "norm: found 'layer', expected one of batch, instance, group"),
        ("networks: {sfcn-small: {arguments: {channels: []}}}", "channels: found [], expected the channels of two blocks"),
        ("networks: {sfcn-small: {arguments: {channels: [a, 8]}}}", "channels: found ['a', 8], expected the channels of two"),
        ("networks: {sfcn-small: {arguments: {dropout: 1}}}", "dropout: found 1, expected a share"),
        ("networks: {sfcn-small: {arguments: {channels: [8, 8, 8, 8, 8, 8, 8]}}}", "halve the grid 6 times"),
        (
            "training: {short: {accumulate: 3}}",
            "batch_size: found 4 with `accumulate: 3` and `gpu: 0`, expected a multiple of 3",
        ),
        ("training: {short: {gpu: 3}}", "expected a multiple of 3"),
        ("training: {short: {augmentation: {shift_mm: 2}}}", "found 2, less than a voxel of 'affine-4mm'"),
        (
            "{preprocess: {affine-4mm: {channels: [gm]}}, datasets: {demo: {stripped: true}}, "
            "training: {short: {augmentation: {noise: 0.1}}}}",
            "found 0.1, which changes the image alone",
        ),
        ("preprocess: {affine-4mm: {tissues: demo-sex}}", "but `channels` has no csf, gm, wm"),
        (
            "preprocess: {affine-4mm: {channels: [gm], tissues: demo-sex}}",
            "'demo-sex', which predicts sex, expected an",
        ),
        ("preprocess: {affine-4mm: {channels: [gm], tissues: demo-sx}}", "'demo-sx', which is no experiment; did you mean"),
        (
            "preprocess: {affine-4mm: {channels: [gm], tissues: ./nowhere}}",
            "where there is no model, expected",
        ),
        (SEARCH % "{augmentation.shift_mm: [4, 2]}", "searches.s.keys.augmentation.shift_mm: found 2, less than a voxel"),
        ("preprocess: {affine-4mm: {channels: [gm, image], tissues: demo-age}}", "itself needs experiment 'demo-"),
        (
            "{preprocess: {affine-4mm: {channels: [gm, image], tissues: other}, rigid: {registration: rigid, voxel_mm: 4, "
            "shape: [40, 48, 40], channels: [gm, image], tissues: demo-age}}, experiments: {other: {dataset: demo, "
            "target: age, preprocess: rigid, split: three-fold, network: sfcn-small, training: short}}}",
            "'other', which itself needs experiment 'demo-age', expected no circle",
        ),
        (SEARCH % "{batch_size: [4, 6], accumulate: [1, 4]}", "expected a multiple of 4"),
        (SEARCH % "{synthesis: [{share: 0.5}, {share: 1}]}", "not a key that can be searched"),
        ("experiments: {demo-age: {covariates: [subject]}}", "found 'subject', which is no measure of a person"),
        ("experiments: {demo-age: {covariates: [site], split: leave-site-out}}", "of a site are tested that was not trained"),
        (
            "{targets: {years: {column: age, type: regression}}, experiments: {demo-age: {auxiliary: [years]}}}",
            "found 'years', the target itself",
        ),
    ],
)
def test_it_is_told_before_the_run(overlay, phrase):
    assert phrase in told_of(overlay)


@pytest.mark.parametrize(("training", "refused"), [({}, True), ({"synthesis": {"share": 1}}, False)])
def test_a_model_of_another_modality_tells_no_tissues_unless_it_learned_from_generated_images(tmp_path, training, refused):
    facts = {"dataset": {"modality": "T1"}, "provenance": {"settings": {"training": training}}}
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/metadata.json").write_text(json.dumps({"mriflow": facts}))
    (tmp_path / "SHA256SUMS").write_text("")
    overlay = f"{{preprocess: {{affine-4mm: {{channels: [gm], tissues: {tmp_path}}}}}, datasets: {{demo: {{modality: %s}}}}, "
    overlay += "networks: {densenet121: {name: nothing}}}"
    told = "which learns from T1 scans, and these are T2: expected T2, or `synthesis`"
    assert (told in told_of(overlay % "T2")) == refused


def test_what_fits_is_taken():
    files = [ROOT / "config/config.yaml"]
    overlay = "{training: {short: {batch_size: 6, accumulate: 3, gpu: 2}}, networks: {densenet121: {name: resnet18}}}"
    assert resolve(merge(read_yaml(files[0]), yaml.safe_load(overlay)), files, ROOT)["training"]["short"]["accumulate"] == 3


@pytest.mark.parametrize(
    ("classes", "named"),
    [
        ("left_gm, right_gm", "'left_gm' and 'right_gm' are of one side by name"),
        ("lesion, hippocampus_l", "'hippocampus_l' is of one side by name"),
        ("lobe_l1, hipl, hipr", "'hipl' and 'hipr' are of one side by name"),
    ],
)
def test_classes_of_one_side_take_no_mirror_images(classes, named):
    maps = ", ".join(f"{name}: [{number}]" for number, name in enumerate(classes.split(", "), 12))
    order = f"segment-generated: {{synthesis: {{order: [[csf], [gm, {classes}], [wm]]}}}}"
    overlay = f"{{datasets: {{demo: {{label_maps: {{classes: {{{maps}}}}}}}}}, training: {{{order}}}, "
    search = SEARCH.replace("demo-age", "demo-tissues") % "{augmentation.mirror: [0, 0.5]}"
    told = told_of(overlay + search[1:], "demo-tissues")
    assert f"mirror: found 0.5, expected 0, for {named}" in told
    assert f"tta: found 'mirror', expected none, for {named}" in told
    assert f"augmentation.mirror: found [0, 0.5], expected no value but 0, for {named}" in told


def test_every_way_to_write_a_side_is_known_and_no_other_word_is_taken_for_one():
    alone = ["left-hippocampus", "Right_Putamen", "hippocampusL", "HippR", "L_hippo", "hip_lt", "rh", "lh_gm", "LThalamus"]
    alone += ["lefthippocampus", "hippocampus_right", "gm.r"]
    assert [name for name in alone if not sided([name])] == []
    assert sided(["hippl", "hippr", "lthalamus", "rthalamus"]) == ["hippl", "hippr", "lthalamus", "rthalamus"]
    others = ["gm", "WM", "CSF", "glial", "bright_spots", "cleft", "layer_l1", "ventricles", "lesion", "R2star", "lobule"]
    assert sided(others) == []


def test_what_sfcn_takes_is_what_it_has():
    of_data = {"outputs", "in_channels", "shape"}
    assert set(inspect.signature(SFCN).parameters) - of_data == set(network_checks.SFCN_ARGUMENTS)
    assert set(network_checks.SFCN_CHOICES["norm"]) == set(NORMS)
    assert tuple(network_checks.SFCN_CHANNELS) == SFCN_CHANNELS
