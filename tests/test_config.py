"""A config is checked and made whole; every mistake is told with its file, key, what was found and what is allowed."""

import copy
import itertools
import json
import re
from pathlib import Path

import pytest
import yaml

from mriflow.base.errors import UserError
from mriflow.config.comparable import comparable
from mriflow.config.cost import cost, cpu_minutes
from mriflow.config.external import cohorts_of, external_figures
from mriflow.config.mistakes import PATTERNS, Validator
from mriflow.config.resolve import columns_to_read, merge, read_yaml, resolve, settings, training_part, weights_to_start_from
from mriflow.reference import main
from mriflow.tables.cells import read_value

ROOT = Path(__file__).resolve().parents[1]
BASE = ROOT / "config" / "config.yaml"
OVERLAYS = sorted((ROOT / "config" / "experiments").glob("*.yaml"))
SCHEMAS = {p.stem.split(".")[0]: yaml.safe_load(p.read_text()) for p in (ROOT / "workflow" / "schemas").glob("*.yaml")}
DEMO_AGE = {
    "dataset": "demo",
    "target": "age",
    "preprocess": "affine-4mm",
    "split": "three-fold",
    "network": "sfcn-small",
    "training": "short",
}
OWN = {
    "title": "Mine",
    "table": "mine.csv",
    "columns": {
        "subject": {"from": "id"},
        "path": {"from": "file"},
        "age": {"from": "age", "range": [0, 110]},
        "sex": {"from": "sex"},
    },
}


def load(file: Path) -> dict:
    return yaml.safe_load(file.read_text())


def resolved(*overlays: Path, command_line: dict | None = None, folder: Path = ROOT) -> dict:
    """Resolve the shipped config with overlays, merged as Snakemake does."""
    config = load(BASE)
    for overlay in overlays:
        config = merge(config, load(overlay) or {})
    return resolve(merge(config, command_line or {}), [BASE, *overlays], folder)


def written(folder: Path, text: str | dict, name: str = "mine.yaml") -> Path:
    file = folder / name
    file.write_text(text if isinstance(text, str) else yaml.safe_dump(text, sort_keys=False))
    return file


def message(*overlays: Path, **more) -> str:
    with pytest.raises(UserError) as error:
        resolved(*overlays, **more)
    return str(error.value)


# What the user wrote in an overlay, and what the message about it must say.
MISTAKES = {
    "unknown key": (
        "training: {short: {epoch: 3}}",
        ["mine.yaml: training.short.epoch: unknown key; did you mean 'epochs'? Allowed: accumulate, allow_cpu, augm"],
    ),
    "unknown key at the top": (
        "trainings: {}",
        ["mine.yaml: trainings: unknown key; did you mean 'training'? Allowed: d"],
    ),
    "unknown key that resembles none": ("zzz: 1", ["mine.yaml: zzz: unknown key. Allowed: datasets, experiments, n"]),
    "unknown key deep inside": (
        "training: {short: {augmentation: {rotate: 3}}}",
        ["mine.yaml: training.short.augmentation.rotate: unknown key; did you mean 'rotate_degrees'? Allowed: bias_fi"],
    ),
    "a number as a key": (
        "training: {short: {1: 3}}",
        ["mine.yaml: training.short.1: unknown key. Allowed: accumulate"],
    ),
    "text for a whole number": (
        "training: {short: {epochs: ten}}",
        ["mine.yaml: training.short.epochs: found 'ten' (text), expected a whole number of at least 1"],
    ),
    "number in quotes": (
        "training: {short: {epochs: '10'}}",
        ["mine.yaml: training.short.epochs: found '10' (text), expected a whole number", "write 10 without quotes"],
    ),
    "YAML's reading of 4e-3": (
        "training: {short: {learning_rate: 4e-3}}",
        ["training.short.learning_rate: found '4e-3' (text), expected a number above 0; write 0.004 without quotes"],
    ),
    "not a number": ("training: {short: {learning_rate: .nan}}", ["found nan (a number), expected a number above 0"]),
    "below the range": (
        "training: {short: {epochs: 0}}",
        ["mine.yaml: training.short.epochs: found 0, expected a whole number of at least 1"],
    ),
    "beyond the range": (
        "preprocess: {affine-4mm: {voxel_mm: 40}}",
        ["mine.yaml: preprocess.affine-4mm.voxel_mm: found 40, expected a number from 0.5 to 16"],
    ),
    "beyond a half-open range": (
        "training: {short: {learning_rate: 0}}",
        ["mine.yaml: training.short.learning_rate: found 0, expected a number above 0"],
    ),
    "the key of a shift in voxels": (
        "training: {short: {augmentation: {shift_voxels: 2}}}",
        ["training.short.augmentation.shift_voxels: this key has become `shift_mm`, in mm: 2 voxels of 4 mm are 8."],
    ),
    "early stopping without the best epoch": (
        "training: {short: {early_stopping: 5}}",
        ["training.short.early_stopping: found 5 with `select: last`, expected 0, or `select: best`"],
    ),
    "the best epoch without validation": (
        "{splits: {three-fold: {validation: 0}}, training: {short: {select: best}}}",
        ["training.short.select: found 'best', but 'three-fold', the split of experiment 'demo-age', has `validation: 0`"],
    ),
    "a covariate that there is not": (
        "experiments: {demo-age: {covariates: [hight]}}",
        ["experiments.demo-age.covariates: found 'hight', which dataset 'demo' of experiment 'demo-age' does not have"],
    ),
    "the target as a covariate": (
        "experiments: {demo-age: {covariates: [age]}}",
        ["experiments.demo-age.covariates: found 'age', the target itself, expected other columns"],
    ),
    "head size where the scan shows it": (
        "{experiments: {demo-age: {covariates: [head_size]}}, preprocess: {affine-4mm: {registration: rigid}}}",
        ["experiments.demo-age.covariates: found 'head_size' with `registration: rigid`, expected none"],
    ),
    "a group that the dataset does not have": (
        "experiments: {demo-age: {subgroups: [site, sxe]}}",
        ["experiments.demo-age.subgroups: found 'sxe', which dataset 'demo' of experiment 'demo-age' does not have; did you"],
    ),
    "a group that is a column of the predictions": (
        "experiments: {demo-age: {subgroups: [truth]}}",
        ["experiments.demo-age.subgroups: found 'truth', a column that predictions.csv has itself, expected the same under"],
    ),
    "an auxiliary target that there is not": (
        "experiments: {demo-age: {auxiliary: [sec]}}",
        ["experiments.demo-age.auxiliary: found 'sec', which is not in `targets`; did you mean 'sex'?"],
    ),
    "the target as its own auxiliary": (
        "experiments: {demo-age: {auxiliary: [age]}}",
        ["experiments.demo-age.auxiliary: found 'age', the target itself, expected another target"],
    ),
    "a choice that there is not": (
        "training: {short: {optimizer: adam}}",
        ["training.short.optimizer: found 'adam', expected one of adamw, sgd; did you mean 'adamw'?"],
    ),
    "YAML's reading of off": (
        "training: {short: {mixed_precision: off}}",
        ["training.short.mixed_precision: found false, expected one of auto, off; put it in quotes, for YAML takes"],
    ),
    "a text for a list": (
        "run: demo-age",
        ["mine.yaml: run: found 'demo-age' (text), expected a list of texts (at least 1); write [demo-age]"],
    ),
    "an empty list": ("run: []", ["mine.yaml: run: found [], expected a list of texts (at least 1)"]),
    "a name twice": (
        "run: [demo-age, demo-age]",
        ["mine.yaml: run: found 'demo-age' more than once, expected each once"],
    ),
    "a list that is too short": (
        "preprocess: {affine-4mm: {shape: [40, 48]}}",
        ["mine.yaml: preprocess.affine-4mm.shape: found [40, 48], expected a list of 3 whole numbers from 8 to 512"],
    ),
    "a wrong item of a list": (
        "preprocess: {affine-4mm: {shape: [40, 48, 4]}}",
        ["mine.yaml: preprocess.affine-4mm.shape[2]: found 4, expected a whole number from 8 to 512"],
    ),
    "an empty block": ("training: {mine: }", ["mine.yaml: training.mine: found nothing, expected a block of keys"]),
    "an empty section": ("training: ", ["mine.yaml: training: found nothing, expected a block of keys"]),
    "missing keys": (
        "training: {mine: {epochs: 3, batch_size: 8}}",
        ["mine.yaml: training.mine.learning_rate: missing, expected a number above 0, for example 0.003"],
    ),
    "a name with a blank": (
        "training: {my way: {epochs: 3, batch_size: 8, learning_rate: 0.1}}",
        ["mine.yaml: training.my way: found the name 'my way', expected text of letters, digits, _ and -, beginning"],
    ),
    "run of an unknown experiment": (
        "run: [demo-aeg]",
        ["mine.yaml: run: found 'demo-aeg', which is no experiment; did you mean 'demo-age'? Allowed: demo-age, demo"],
    ),
    **{
        f"an unknown block of {section}": (
            {"experiments": {"demo-age": {kind: wrong}}},
            [f"experiments.demo-age.{kind}: found {wrong!r}, which is not in `{section}`; did you mean {near!r}"],
        )
        for kind, section, wrong, near in [
            ("dataset", "datasets", "dem0", "demo"),
            ("target", "targets", "agee", "age"),
            ("preprocess", "preprocess", "afine-4mm", "affine-4mm"),
            ("split", "splits", "thre-fold", "three-fold"),
            ("network", "networks", "SFCN", "sfcn"),
            ("training", "training", "shrt", "short"),
        ]
    },
    "a classification without classes": (
        "targets: {dementia: {column: sex, type: classification}}",
        ["mine.yaml: targets.dementia.classes: missing, expected the classes of a classification, for example {F: Fe"],
    ),
    "a regression with classes": (
        "targets: {sex: {type: regression}}",
        ["targets.sex.classes: found the classes of a regression, expected none (or `type: classification`)"],
    ),
    "one class": (
        "targets: {one: {column: sex, type: classification, classes: {F: Females}}}",
        ["mine.yaml: targets.one.classes: found the block {'F': 'Females'}, expected a block of at least 2 keys"],
    ),
    "classes that YAML reads as truth values": (
        "targets: {ill: {column: sex, type: classification, classes: {no: Healthy, yes: Ill}}}",
        ["mine.yaml: targets.ill.classes: found the class false; put it in quotes, for YAML takes yes, no"],
    ),
    "a class that YAML reads as nothing": (
        "targets: {ill: {column: sex, type: classification, classes: {null: Healthy, some: Ill}}}",
        ["mine.yaml: targets.ill.classes: found the class nothing; put it in quotes, for YAML takes null and ~ for nothing"],
    ),
    "classes in one folder": (
        "targets: {sex: {classes: {F: People, M: people}}}",
        ["mine.yaml: targets.sex.classes: found the folders People, people, expected a folder of its own for each cl"],
    ),
    "an experiment in the folder of the datasets' pages": (
        "experiments: {Cohorts: {dataset: demo, target: age, preprocess: affine-4mm, split: three-fold, network: sfcn-small, "
        "training: short}}",
        ["mine.yaml: experiments.Cohorts: found beside the folder of the datasets' pages, expected another name: folders are"],
    ),
    "an experiment that is called as another but for capitals": (
        "experiments: {Demo-Age: {dataset: demo, target: age, preprocess: affine-4mm, split: three-fold, network: sfcn-small, "
        "training: short}}",
        ["mine.yaml: experiments.Demo-Age: found beside 'demo-age', expected another name: folders are called by it, and on"],
    ),
    "a class that no code stands for": (
        "targets: {sex: {classes: {Female: Women}}}",
        ["mine.yaml: targets.sex.classes: found the class 'Female', which no code of the column 'sex' in dataset 'de"],
    ),
    "a regression of texts": (
        "targets: {age: {column: sex}}",
        ["config/config.yaml: targets.age.type: found 'regression', but the codes of the column 'sex' in data"],
    ),
    "a section that is none": (
        "experiments: 3",
        ["mine.yaml: experiments: found 3 (a number), expected a block of keys"],
    ),
    "a block for a name": (
        "experiments: {demo-age: {dataset: {a: 1}}}",
        ["mine.yaml: experiments.demo-age.dataset: found the block {'a': 1}, expected text"],
    ),
    "a pattern that is none and not needed": (
        {"datasets": {"own": {**OWN, "pattern": "("}}},
        ["mine.yaml: datasets.own.pattern: found '(', expected a regular expression"],
    ),
    "a regression's loss for classes": (
        "training: {short: {loss: l1}}",
        ["mine.yaml: training.short.loss: found 'l1', expected one of auto, cross-entropy, for 'sex', the target of"],
    ),
    "a classification's loss for a number": (
        "training: {short: {loss: cross-entropy}}",
        ["found 'cross-entropy', expected one of auto, l1, l2, soft-label, for 'age', the target of experiment 'demo"],
    ),
    "percentiles the wrong way round": (
        "preprocess: {affine-4mm: {percentiles: [99, 1]}}",
        ["mine.yaml: preprocess.affine-4mm.percentiles: found [99, 1], expected the smaller number first"],
    ),
    "tissues of scans that are not T1-weighted": (
        "{preprocess: {affine-4mm: {channels: [image, gm]}}, datasets: {demo: {modality: T2}}}",
        ["mine.yaml: preprocess.affine-4mm.channels: found gm, expected [image], for tissues are told apart in T1-weighted"],
    ),
    "a channel twice": (
        "preprocess: {affine-4mm: {channels: [image, image]}}",
        ["mine.yaml: preprocess.affine-4mm.channels"],
    ),
    "bins the wrong way round": (
        "training: {short: {bins: [95, 10]}}",
        ["mine.yaml: training.short.bins: found [95, 10], expected the smaller number first"],
    ),
    "a bin wider than all": (
        "training: {short: {bins: [10, 20], bin_width: 15}}",
        ["mine.yaml: training.short.bin_width: found 15, expected at most 10, for the bins go from 10 to 20"],
    ),
    "a range the wrong way round": (
        "datasets: {demo: {columns: {age: {range: [90, 5]}}}}",
        ["mine.yaml: datasets.demo.columns.age.range: found [90, 5], expected the smaller number first"],
    ),
    "a target that the dataset lacks": (
        "targets: {age: {column: agee}}",
        ["targets.age.column: found 'agee', which dataset 'demo' of experiment 'demo-age' does not have; did you mea"],
    ),
    "a column to spread that the dataset lacks": (
        "splits: {three-fold: {stratify: [gender]}}",
        ["mine.yaml: splits.three-fold.stratify: found 'gender', which dataset 'demo' of experiment 'demo-age' does"],
    ),
    "leave-site-out without sites": (
        {"experiments": {"demo-age": {"split": "leave-site-out"}}, "datasets": {"demo": {"sites": ["North"]}}},
        ["mine.yaml: datasets.demo.sites: found ['North'], expected at least 2 sites, for 'leave-site-out', the spli"],
    ),
    "sites that YAML reads as truth values": (
        "datasets: {demo: {sites: [SE, NO]}}",
        ["mine.yaml: datasets.demo.sites[1]: found false (a truth value), expected text; put it in quotes"],
    ),
    "a start named twice": (
        "networks: {sfcn-small: {init: {from: a.pt, weights: a.pt}}}",
        ["mine.yaml: networks.sfcn-small.init.weights: found beside `from`, its name now, expected `from` alone"],
    ),
    "a start without a name": (
        "networks: {sfcn-small: {init: {freeze: features}}}",
        ["networks.sfcn-small.init.from: missing, expected a file of weights, a model.pt, or an experiment of this"],
    ),
    "a start from an experiment that there is not": (
        "networks: {sfcn-small: {init: {from: demo-aeg}}}",
        [
            "networks.sfcn-small.init.from: found 'demo-aeg', which is no experiment; did you mean 'demo-age'?",
            "a file is written with its folder, ./demo-aeg",
        ],
    ),
    "a start from itself": (
        "networks: {sfcn-small: {init: {from: demo-age}}}",
        ["init.from: found 'demo-age', which starts from 'demo-age', expected no circle: one of them needs a network"],
    ),
    "starts in a circle": (
        {
            "experiments": {"demo-age": {"network": "one"}, "again": {**DEMO_AGE, "network": "two"}},
            "networks": {
                name: {"name": "SFCN", "init": {"from": start}} for name, start in (("one", "again"), ("two", "demo-age"))
            },
        },
        ["networks.one.init.from: found 'demo-age', which starts from 'again', which starts from 'demo-age', expected no"],
    ),
    "a start from another network": (
        {
            "experiments": {"demo-age": {"network": "wide"}},
            "networks": {"wide": {"name": "SFCN", "init": {"from": "demo-sex"}}},
        },
        [
            "networks.wide.init.from: found 'demo-sex', which experiment 'demo-age' cannot start from: its network is the",
            "it is of the same dataset, with another split or target, so that it sees subjects who are tested here",
        ],
    ),
    "unknown key of a dataset": (
        "datasets: {demo: {shard: 2}}",
        ["mine.yaml: datasets.demo.shard: unknown key; did you mean 'shards'? Allowed: affine, bids, citation"],
    ),
    "number to predict without a range": (
        {
            "datasets": {"own": {**OWN, "columns": {**OWN["columns"], "age": {"from": "age"}}}},
            "experiments": {"demo-age": {"dataset": "own"}},
        },
        ["mine.yaml: datasets.own.columns.age.range: missing, expected the smallest and largest plausible value of 'age'"],
    ),
    "change to an unknown dataset": (
        "datasets: {dmeo: {shards: 2}}",
        ["mine.yaml: datasets.dmeo: there is no config/datasets/dmeo.yaml to change; did you mean 'demo'? Allowed: d"],
    ),
    "column name with capitals": (
        "datasets: {demo: {columns: {Age: {from: AGE}}}}",
        ["datasets.demo.columns.Age: found the name 'Age', expected text of small letters, digits and _, beginning w"],
    ),
    "column name that is ours": (
        "datasets: {demo: {columns: {problem: {from: QC}}}}",
        ["mine.yaml: datasets.demo.columns.problem: 'problem' is a column that the workflow itself writes to labels."],
    ),
    "dataset without subject": (
        {"datasets": {"own": {**OWN, "columns": {"path": {"from": "file"}}}}},
        ["mine.yaml: datasets.own.columns.subject: missing, expected a block of keys"],
    ),
    "dataset without images": (
        {"datasets": {"own": {**OWN, "columns": {"subject": {"from": "id"}}}}},
        ["mine.yaml: datasets.own.images: missing, expected the archive or folder of the images, or a column `path`"],
    ),
    "dataset with images twice": (
        {"datasets": {"own": {**OWN, "images": ["scans"], "pattern": "(?P<subject>.*)"}}},
        ["mine.yaml: datasets.own.images: found beside the column `path`, expected one of the two"],
    ),
    "images without pattern": (
        {"datasets": {"own": {**OWN, "columns": {"subject": {"from": "id"}}, "images": ["scans"]}}},
        ["mine.yaml: datasets.own.pattern: missing, expected a regular expression with the named group (?P<subject>."],
    ),
    "pattern that is none": (
        r"datasets: {demo: {pattern: '(?P<subject>SIM\d+'}}",
        ["mine.yaml: datasets.demo.pattern: found '(?P<subject>SIM", "missing ), unterminated subpattern"],
    ),
    "a model and what trains one": (
        "experiments: {new: {dataset: demo, model: a/model, network: sfcn}}",
        ["mine.yaml: experiments.new.network: unknown key", "Allowed: dataset, model"],
    ),
    "a model for a dataset that is none": (
        "{run: [new], experiments: {new: {dataset: demmo, model: a/model}}}",
        ["mine.yaml: experiments.new.dataset: found 'demmo', which is not in `datasets`; did you mean 'demo'?"],
    ),
    "external test on the dataset that is learned from": (
        "experiments: {demo-age: {test_on: [demo]}}",
        ["experiments.demo-age.test_on: found 'demo', the dataset that is learned from"],
    ),
    "external test on a dataset that is none": (
        "experiments: {demo-age: {test_on: [oassis]}}",
        ["experiments.demo-age.test_on: found 'oassis', which is not in `datasets`; did you mean 'oasis'?"],
    ),
    "external test on other scans": (
        "experiments: {demo-age: {test_on: [ixi-t2]}}",
        ["experiments.demo-age.test_on: found 'ixi-t2', whose scans are T2, expected T1 as in 'demo'"],
    ),
    "external test without the covariate": (
        "experiments: {demo-age: {test_on: [oasis], covariates: [iq]}}",
        ["experiments.demo-age.test_on: found 'iq', which dataset 'oasis' of experiment 'demo-age' does not have"],
    ),
    "pattern without subject": (
        r"datasets: {demo: {pattern: '(?P<person>\d+)'}}",
        [
            "datasets.demo.pattern: found '(?P<person>",
            "expected a regular expression with the named group (?P<subject>...)",
        ],
    ),
    "simulated and downloaded": (
        "datasets: {demo: {downloads: [{file: a.tar, urls: ['https://x.org/a.tar']}]}}",
        ["config/datasets/demo.yaml: simulate: found beside `downloads`, expected one of the two"],
    ),
    "label maps from nowhere, and a label of two classes": (
        "datasets: {demo: {label_maps: {classes: {gm: [1, 2], wm: [2]}}}}",
        [
            "datasets.demo.label_maps.images: missing, expected one of three: a column `label_map` in `columns`",
            "datasets.demo.label_maps.classes: found the label 2 in 'gm' and in 'wm', expected it in one",
        ],
    ),
    "label maps whose names tell no subject": (
        r"datasets: {demo: {label_maps: {images: [maps], pattern: '\d+_seg', classes: {gm: [1]}}}}",
        [r"datasets.demo.label_maps.pattern: found '\\d+_seg', expected a regular expression with the named group (?P<s"],
    ),
    "a URL that is none": (
        "datasets: {ixi: {downloads: [{file: a.tar, urls: [ftp.x.org/a.tar]}]}}",
        ["datasets.ixi.downloads[0].urls[0]: found 'ftp.x.org/a.tar', expected text beginning with http:// or https:"],
    ),
}


@pytest.mark.parametrize(("overlay", "phrases"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_told_in_the_users_words(overlay, phrases, tmp_path):
    text = message(written(tmp_path, overlay))
    for phrase in phrases:
        assert phrase in text
    for jargon in ("is not of type", "does not match", "additionalProperties", "Failed validating", "None of"):
        assert jargon not in text


def test_all_mistakes_are_told_at_once_but_not_more_than_ten(tmp_path):
    few = message(written(tmp_path, "{run: [nobody], training: {short: {epochs: 0}}, targets: {sex: {column: sexx}}}"))
    assert len(few.splitlines()) == 3
    many = message(written(tmp_path, {"training": {f"t{n}": {"epochs": n} for n in range(10)}}))
    assert len(many.splitlines()) == 11
    assert many.endswith("... and 11 more")


def test_the_file_named_is_the_last_that_sets_the_key(tmp_path):
    first = written(tmp_path, "training: {short: {epochs: 0}}", "first.yaml")
    second = written(tmp_path, "training: {short: {batch_size: 0}}", "second.yaml")
    text = message(first, second)
    assert f"{first}: training.short.epochs: found 0" in text
    assert f"{second}: training.short.batch_size: found 0" in text
    third = written(tmp_path, "training: {short: {epochs: -1}}", "third.yaml")
    assert f"{third}: training.short.epochs: found -1" in message(first, third)
    right = written(tmp_path, "training: {short: {epochs: 2, batch_size: 4}}", "right.yaml")
    assert resolved(first, second, right)["training"]["short"]["epochs"] == 2


def test_the_command_line_is_named_if_no_file_set_the_value():
    text = message(command_line={"run": ["demo-aeg"], "training": {"short": {"epochs": "3"}, "full": {"bins": [3, 2]}}})
    assert "--config on the command line: run: found 'demo-aeg'" in text
    assert "--config on the command line: training.short.epochs: found '3' (text)" in text
    assert "--config on the command line: training.full.bins: found [3, 2]" in text


def test_a_mistake_in_the_shipped_config_is_told_with_its_path_in_the_repository():
    config = load(BASE)
    del config["targets"]
    with pytest.raises(UserError, match=r"^config/config\.yaml: targets: missing, expected a block of keys"):
        resolve(config, [BASE], ROOT)


def test_a_mistake_in_a_dataset_file_is_told_with_the_keys_as_they_stand_in_it(tmp_path):
    datasets = tmp_path / "config" / "datasets"
    datasets.mkdir(parents=True)
    (tmp_path / "workflow").symlink_to(ROOT / "workflow")
    demo = load(ROOT / "config" / "datasets" / "demo.yaml")
    written(datasets, {**demo, "sharrds": 3, "simulate": {"subjects": 3}}, "demo.yaml")
    text = message(folder=tmp_path)
    assert "config/datasets/demo.yaml: sharrds: unknown key; did you mean 'shards'?" in text
    assert "config/datasets/demo.yaml: simulate.subjects: found 3, expected a whole number of at least 20" in text
    overlay = written(tmp_path, "datasets: {demo: {simulate: {subjects: 4}}}")
    assert "\nmine.yaml: datasets.demo.simulate.subjects: found 4" in message(overlay, folder=tmp_path)
    written(datasets, "title: [", "demo.yaml")
    assert "demo.yaml: not valid YAML" in message(folder=tmp_path)


def test_defaults_are_filled_in_at_every_depth(tmp_path):
    config = resolved(written(tmp_path, "training: {short: {augmentation: {noise: 0}}}"))
    assert config["training"]["short"]["loss"] == "auto"
    assert config["training"]["short"]["augmentation"]["noise"] == 0
    assert config["training"]["full"]["augmentation"] == {
        "shift_mm": 0,
        "mirror": 0.5,
        "rotate_degrees": 0,
        "scale": 0,
        "intensity": 0.1,
        "bias_field": 0,
        "noise": 0,
    }
    assert config["preprocess"]["affine-2mm"]["percentiles"] == [0.5, 99.5]
    assert config["networks"]["densenet121"]["arguments"] == {}
    assert config["pathvars"]["results"] == "results"
    assert config["datasets"]["demo"]["columns"]["age"]["missing"] == []
    assert config["datasets"]["demo"]["downloads"] == []
    assert "simulate" not in resolved(ROOT / "config/experiments/ixi-age.yaml")["datasets"]["ixi"]


def test_writing_out_a_default_or_another_order_changes_nothing(tmp_path):
    short = load(BASE)["training"]["short"]
    spelt = {"training": {"short": {"loss": "auto", **dict(reversed(short.items())), "augmentation": {"mirror": 0.5}}}}
    assert repr(resolved(written(tmp_path, spelt))) == repr(resolved())


def test_whole_numbers_written_with_a_point_become_whole(tmp_path):
    epochs = resolved(written(tmp_path, "training: {short: {epochs: 40.0}}"))["training"]["short"]["epochs"]
    assert repr(epochs) == "40"


def test_a_dataset_is_its_file_with_the_configs_changes_key_by_key(tmp_path):
    overlay = written(tmp_path, "datasets: {demo: {simulate: {subjects: 30}, sites: [A, B], columns: {iq: {from: IQ}}}}")
    demo = resolved(overlay)["datasets"]["demo"]
    assert demo["simulate"] == {"subjects": 30, "seed": 0, "voxel_mm": 2, "varied_tissues": False}
    assert demo["sites"] == ["A", "B"]
    assert list(demo["columns"]) == ["subject", "age", "sex", "height", "weight", "iq"]
    assert demo["columns"]["sex"]["codes"] == {1: "M", 2: "F"}


def test_only_the_datasets_of_the_experiments_that_run_are_returned():
    assert list(resolved()["datasets"]) == ["demo"]
    assert list(resolved(ROOT / "config/experiments/ixi-age.yaml")["datasets"]) == ["ixi"]


def test_an_experiment_with_a_model_is_set_apart_and_a_resolved_config_keeps_it(tmp_path):
    file = written(tmp_path, "{run: [new], experiments: {new: {dataset: oasis, model: ~/a/model}}}")
    config = resolved(file)
    assert config["applied"] == {"new": {"dataset": "oasis", "model": str(Path("~/a/model").expanduser())}}
    assert config["run"] == ["new"] and not config["experiments"] and list(config["datasets"]) == ["oasis"]
    assert resolve(config, [], ROOT) == config
    assert cost(config, tmp_path, ["oasis"]) == []


def test_the_datasets_of_an_external_test_belong_to_the_run(tmp_path):
    config = resolved(written(tmp_path, "{run: [demo-age], experiments: {demo-age: {test_on: [oasis]}}}"))
    assert list(config["datasets"]) == ["demo", "oasis"]
    assert cohorts_of(config, "demo-age") == {"oasis": {"title": config["datasets"]["oasis"]["title"], "simulated": False}}
    assert external_figures(config, "demo-age") == ["<results>/demo-age/figures/predicted-vs-true_oasis.png"]


def test_a_dataset_without_sites_can_be_split_with_the_default_stratification(tmp_path):
    own = {
        "run": ["own"],
        "experiments": {"own": {**DEMO_AGE, "dataset": "own", "split": "plain"}},
        "splits": {"plain": {"method": "k-fold"}},
        "datasets": {"own": OWN},
    }
    assert resolved(written(tmp_path, own))["splits"]["plain"]["stratify"] == ["sex", "site"]
    own["experiments"]["own"]["split"] = "leave-site-out"
    assert "datasets.own.columns.site: missing, expected the site in a column" in message(written(tmp_path, own))


def test_a_column_that_the_names_of_the_images_tell_can_be_a_target(tmp_path):
    overlay = {
        "targets": {"site": {"column": "site", "type": "classification", "classes": {"North": "N", "South": "S"}}},
        "experiments": {"demo-site": {**DEMO_AGE, "target": "site"}},
        "run": ["demo-site"],
    }
    assert resolved(written(tmp_path, overlay))["run"] == ["demo-site"]


def test_classes_may_be_numbers(tmp_path):
    overlay = {
        "targets": {"ill": {"column": "ill", "type": "classification", "classes": {0: "Healthy", 1: "Ill"}}},
        "experiments": {"demo-ill": {**DEMO_AGE, "target": "ill"}},
        "datasets": {"demo": {"columns": {"ill": {"from": "CDR", "codes": {0: 0, 0.5: 1, 1: 1}}}}},
    }
    assert resolved(written(tmp_path, overlay))["targets"]["ill"]["classes"] == {0: "Healthy", 1: "Ill"}


@pytest.mark.parametrize("overlay", OVERLAYS, ids=lambda file: file.stem)
def test_every_shipped_overlay_resolves(overlay):
    config = resolved(overlay)
    assert config["run"] == load(overlay)["run"]
    for experiment in config["run"]:
        assert settings(config, experiment)["dataset"]["title"]


def test_the_config_that_is_given_is_not_changed(tmp_path):
    config = merge(load(BASE), {"datasets": {"demo": {"shards": 2}}})
    before = copy.deepcopy(config)
    whole = resolve(config, [BASE], ROOT)
    whole["training"]["short"]["seeds"].append(1)
    whole["training"]["full"]["bins"].append(1)
    assert config == before
    assert resolve(config, [BASE], ROOT)["training"]["full"]["bins"] == [10, 95]


def test_a_resolved_config_stays_as_it_is_when_it_is_resolved_again(tmp_path):
    # The workflow notes it in results/config.yaml, which may be given back as --configfile. Its datasets are cut to
    # those that run; an experiment on another dataset of one's own must not be left behind without it.
    unused = {
        "targets": {"iq": {"column": "iq", "type": "regression"}},
        "experiments": {
            "own": {**DEMO_AGE, "dataset": "own"},
            "ixi-iq": {**DEMO_AGE, "dataset": "ixi", "target": "iq"},
        },
        "datasets": {"own": OWN, "ixi": {"columns": {"iq": {"from": "IQ", "range": [40, 160]}}}, "demo": {"shards": 2}},
    }
    for overlay in (written(tmp_path, unused), *OVERLAYS):
        once = resolved(overlay)
        noted = written(tmp_path, once, "config.yaml")
        assert repr(resolve(once, [noted], ROOT)) == repr(once)
        assert repr(resolved(noted)) == repr(once)  # laid over config/config.yaml, as Snakemake does


def test_experiments_are_comparable_if_dataset_and_target_are_the_same():
    config = resolved()
    ages = {name: {**config["experiments"]["demo-age"], "split": name} for name in ("one", "two")}
    config["experiments"] |= ages
    config["targets"]["height"] = {**config["targets"]["age"], "column": "height"}
    config["experiments"]["three"] = {**ages["one"], "target": "height"}
    assert comparable(config, ["demo-age", "demo-sex"]) == []
    assert comparable(config, ["one", "demo-sex", "three", "two"]) == ["one", "two"]


def test_settings_are_all_that_one_experiment_uses():
    used = settings(resolved(), "demo-sex")
    assert list(used) == ["experiment", "names", *DEMO_AGE, "auxiliary", "covariates", "impute"]
    assert used["names"] == {**DEMO_AGE, "target": "sex"}
    assert used["target"]["classes"] == {"F": "Females", "M": "Males"}
    assert used["training"]["epochs"] == load(BASE)["training"]["short"]["epochs"]
    with pytest.raises(UserError, match="run: has no experiment 'demo-sx'; did you mean 'demo-sex'"):
        settings(resolved(), "demo-sx")


def test_an_experiment_that_another_starts_from_is_kept_though_it_is_not_run(tmp_path):
    small = load(BASE)["networks"]["sfcn-small"]
    overlay = {
        "run": ["third"],
        "experiments": {
            "second": {**DEMO_AGE, "network": "further", "training": "seeds"},
            "third": {**DEMO_AGE, "dataset": "ixi", "network": "furthest", "training": "seeds"},
        },
        "networks": {"further": {**small, "init": {"from": "demo-age"}}, "furthest": {**small, "init": {"from": "second"}}},
        "training": {"seeds": {"epochs": 1, "batch_size": 4, "learning_rate": 0.1, "seeds": [0, 1]}},
    }
    config = resolved(written(tmp_path, overlay))
    assert list(config["experiments"]) == ["third", "second", "demo-age"]
    assert list(config["datasets"]) == ["ixi", "demo"]
    starts = {name: weights_to_start_from(config, name, 2, 1) for name in config["experiments"]}
    assert starts == {
        "third": "<results>/second/fold-0_seed-1/model.pt",
        "second": "<results>/demo-age/fold-2_seed-0/model.pt",
        "demo-age": [],
    }
    assert training_part(settings(config, "second"), "network") == small


@pytest.mark.parametrize(("file", "read"), [("a/weights.p", "a/weights.p"), ("weights", "./weights")])
def test_the_name_of_before_of_a_file_to_start_from_is_still_read(file, read, tmp_path):
    config = resolved(written(tmp_path, {"networks": {"sfcn-small": {"init": {"weights": file}}}}))
    assert config["networks"]["sfcn-small"]["init"] == {"from": read, "freeze": "none"}
    assert weights_to_start_from(config, "demo-age", 2, 1) == read


def schemas_below(schema: dict, at: str = ""):
    """Yield every key of a schema with its own schema, and every schema of an object as '<key>.'."""
    yield f"{at}.", schema
    for key, sub in schema.get("properties", {}).items():
        yield f"{at}.{key}", sub
        yield from schemas_below(sub, f"{at}.{key}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from schemas_below(schema[key], f"{at}.<{key}>")


@pytest.mark.parametrize("name", ["config", "dataset"])
def test_the_schemas_are_strict_and_tell_meaning_example_and_unit(name):
    for key, schema in schemas_below(SCHEMAS[name]):
        if not key.endswith("."):
            assert schema.get("description"), f"{key} has no description"
            assert schema.get("examples"), f"{key} has no examples"
            items = schema.get("items", {}).get("type")
            assert "unit" in schema or not {schema.get("type"), items} & {"number", "integer"}, f"{key} has no unit"
        if "properties" in schema:
            assert schema["additionalProperties"] is False, f"{key} takes unknown keys"
        elif schema.get("type") == "object" and "additionalProperties" not in schema:
            assert key.split(".")[-2] in {"arguments", "codes", "<additionalProperties>"}, f"{key} takes anything"
        assert schema.get("pattern", next(iter(PATTERNS))) in PATTERNS, f"the pattern of {key} has no words"


def test_the_examples_and_defaults_of_the_schemas_are_valid():
    for name in SCHEMAS:
        for key, schema in schemas_below(SCHEMAS[name]):
            for value in [*schema.get("examples", []), *([schema["default"]] if "default" in schema else [])]:
                own = {**schema, "$defs": SCHEMAS["config"]["$defs"]}
                assert not list(Validator(own).iter_errors(value)), f"{key}: {value}"


def test_the_manual_is_in_step_with_the_schemas():
    main(["--check", "--folder", str(ROOT)])


def test_a_manual_out_of_date_is_told_and_can_be_written_anew(tmp_path):
    (tmp_path / "workflow").symlink_to(ROOT / "workflow")
    (tmp_path / "config").mkdir()
    text = (ROOT / "config" / "README.md").read_text()
    manual = written(tmp_path / "config", text.replace("| `training.<name>.epochs` |", "| `epoch` |"), "README.md")
    with pytest.raises(UserError, match="out of date; run python -m"):
        main(["--check", "--folder", str(tmp_path)])
    main(["--folder", str(tmp_path)])
    assert manual.read_text() == text


def test_a_class_or_site_that_is_declared_is_a_value_whatever_it_looks_like(tmp_path):
    overlay = """
run: [one]
experiments:
  one:
    {dataset: mine, target: severity, auxiliary: [drug], preprocess: affine-4mm, split: plain, network: sfcn, training: short}
targets:
  severity: {column: severity, type: classification, classes: {None: Healthy, Mild: Mild, Severe: Severe}}
  drug: {column: drug, type: classification, classes: {none: "No", some: "Yes"}}
splits: {plain: {method: k-fold, stratify: []}}
datasets:
  mine:
    title: Mine
    table: t.csv
    sites: [NA, EU]
    columns:
      path: {from: file}
      subject: {from: who}
      site: {from: where}
      severity: {from: severity}
      drug: {from: drug}
"""
    columns = columns_to_read(resolved(written(tmp_path, overlay)), "mine")
    assert {name: column.get("values") for name, column in columns.items()} == {
        "path": None, "subject": None, "site": ["NA"], "severity": ["None"], "drug": ["none"],
    }  # fmt: skip
    # As JSON, as the command line gives it.
    assert read_value("None", json.loads(json.dumps(columns["severity"]))) == ("None", "")
    assert read_value("", columns["severity"]) == read_value("n/a", columns["severity"]) == (None, "")


def test_paths_may_begin_with_ones_home_and_have_backslashes(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    mine = {"title": "Mine", "table": r"~\my-data\my.csv", "columns": {"subject": {"from": "who"}, "path": {"from": "file"}}}
    bids = {"title": "BIDS", "bids": r"my-bids\raw", "columns": {}}
    names = {"preprocess": "affine-4mm", "split": "plain", "network": "sfcn", "training": "short", "target": "age"}
    overlay = {
        "run": ["one", "two"],
        "experiments": {"one": {"dataset": "mine", **names}, "two": {"dataset": "bids", **names}},
        "splits": {"plain": {"method": "k-fold", "stratify": []}},
        "datasets": {"mine": mine, "bids": bids},
    }
    for dataset in (mine, bids):
        dataset["columns"]["age"] = {"from": "age", "range": [0, 110]}
    config = resolved(written(tmp_path, overlay))
    assert config["datasets"]["mine"]["table"] == "/home/me/my-data/my.csv"
    assert config["datasets"]["bids"]["table"] == "my-bids/raw/participants.tsv"
    assert config["datasets"]["bids"]["images"] == ["my-bids/raw"]


def test_a_place_of_results_that_snakemake_would_not_find_is_refused(tmp_path):
    text = message(written(tmp_path, {"pathvars": {"results": "~/results"}}))
    assert "pathvars.results: found '~/results', expected a path with slashes and without ~" in text


def costs(folder: Path, overlay: str) -> str:
    config = resolved(ROOT / f"config/experiments/{overlay}.yaml")
    return "\n".join(cost(config, folder, config["datasets"]))


def test_a_long_run_is_told_of_with_hours_memory_and_disk_and_a_short_one_is_not(tmp_path):
    text = costs(tmp_path, "ixi-age")
    assert re.search(r"ixi, tissues-4mm: 581 scans \(as published\), [\d.]+ hours of one core \([\d.]+ s a scan\)", text)
    assert re.search(r"ixi-age: 15 networks, 60 epochs of 395 scans, SFCN at 40x48x40: about [\d.]+ hours of one core", text)
    assert re.search(r"memory +2.6 GB for preprocessing, [\d.]+ GB for training", text)
    assert "4.5 GB downloaded, 0.1 GB preprocessed" in text
    # 5 networks, 150 epochs of 395 scans, 160x192x160 voxels, 13,400 multiply-adds a voxel, at 5e12 a second: 1.1 hours.
    assert re.search(r"about [\d,.]+ hours of one core, or 1.1 hours of an H200", costs(tmp_path, "ixi-age-gpu"))
    small = resolved(ROOT / "config/experiments/ixi-age.yaml")
    small["training"]["standard"]["gpu"] = 1
    # 15 networks, 60 epochs of 99 steps, 6 ms each: 9 minutes, however little there is to compute.
    assert "or 9 minutes of an H200" in "\n".join(cost(small, tmp_path, small["datasets"]))
    demo = resolved()
    assert cost(demo, tmp_path, demo["datasets"]) == []


def test_of_an_experiment_that_is_started_from_only_the_models_that_are_needed_cost_something(tmp_path):
    text = costs(tmp_path, "ixi-age-pretrained")
    assert "ixi-age-pretrained: 15 networks" in text
    assert "demo-pretraining: 3 networks" in text


def test_what_is_there_costs_nothing_and_what_was_measured_goes_before_the_rule(tmp_path):
    columns = "s\th:m:s\tmax_rss\tcpu_time\n"
    for kind, name, row in (
        ("preprocess", "ixi_tissues-4mm_shard-000", "50\t0:00:50\t2000\t100"),
        ("train", "ixi-age_fold-0_seed-0", "7200\t2:00:00\t2000\t-"),
        ("train", "ixi-age_fold-1_seed-0", "-\t-\t-\t-"),  # of a job that was killed
    ):
        (tmp_path / "benchmarks" / kind).mkdir(parents=True, exist_ok=True)
        (tmp_path / "benchmarks" / kind / f"{name}.tsv").write_text(f"{columns}{row}\n")
    made = tmp_path / "preprocessed/ixi/tissues-4mm/shard-000.npy"
    model = tmp_path / "results/ixi-age/fold-0_seed-0/model.pt"
    organized = tmp_path / "data/ixi/scans.csv"
    for file in (made, model, organized):
        file.parent.mkdir(parents=True)
        file.write_text("id\n" + "scan\n" * 240)
    text = costs(tmp_path, "ixi-age")
    assert "230 scans (organized), 38 minutes of one core (measured by earlier jobs)" in text
    assert "28 hours" not in text, "it is not known with which settings"
    used = settings(resolved(ROOT / "config/experiments/ixi-age.yaml"), "ixi-age")
    had = tmp_path / "results/ixi-age/settings.json"
    had.write_text(json.dumps(used | {"training": used["training"] | {"epochs": 1}}))
    assert "28 hours" not in costs(tmp_path, "ixi-age"), "a first try of one epoch tells nothing of sixty"
    had.write_text(json.dumps(used))
    text = costs(tmp_path, "ixi-age")
    assert "ixi-age: 14 networks" in text and "28 hours (measured by earlier jobs)" in text
    assert "downloaded" not in text
    for fold, seed in itertools.product(range(5), range(3)):
        model = tmp_path / f"results/ixi-age/fold-{fold}_seed-{seed}/model.pt"
        model.parent.mkdir(exist_ok=True)
        model.touch()
    assert "training" not in costs(tmp_path, "ixi-age")


def test_the_time_of_predictions_grows_with_scans_networks_and_the_grid(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = resolved(ROOT / "config/experiments/ixi-age-gpu.yaml")
    published = cpu_minutes(config, "ixi-age-gpu")
    organized = tmp_path / "data/ixi/scans.csv"
    organized.parent.mkdir(parents=True)
    organized.write_text("id\n" + "scan\n" * 40_000)
    assert cpu_minutes(config, "ixi-age-gpu") == pytest.approx(published * 40_000 / 581)
    assert cpu_minutes(config, "ixi-age-gpu", times=5, dataset="ixi") == pytest.approx(5 * published * 40_000 / 581)
    block = config["training"][config["experiments"]["ixi-age-gpu"]["training"]]
    block["tta"] = {"mirror": "none", "none": "mirror"}[block["tta"]]
    factor = 2 if block["tta"] == "mirror" else 0.5
    assert cpu_minutes(config, "ixi-age-gpu") == pytest.approx(factor * published * 40_000 / 581)


def test_the_trials_of_a_search_cost_something(tmp_path):
    files = [ROOT / "config/config.yaml", ROOT / "config/experiments/ixi-age.yaml"]
    searches = {"s": {"method": "grid", "keys": {"learning_rate": [0.001, 0.002, 0.004]}, "trials": 3, "epochs": 30}}
    overlay = {"searches": searches, "experiments": {"ixi-age": {"search": "s"}}}
    overlay["splits"] = {"of-search": {"method": "k-fold", "folds": 5, "validation": 0.15}}
    overlay["experiments"]["ixi-age"]["split"] = "of-search"
    config = resolve(merge(merge(read_yaml(files[0]), read_yaml(files[1])), overlay), files, ROOT)
    text = "\n".join(cost(config, tmp_path, config["datasets"]))
    assert re.search(r"search +ixi-age: 15 trainings of 30 epochs: about [\d.]+ (hours|minutes) of one core", text)


def test_scans_of_a_table_of_ones_own_are_counted_and_unknown_ones_are_said_to_be_unknown(tmp_path):
    assert "1,000 scans (how many is not known" in costs(tmp_path, "my-data")
    (tmp_path / "my-data").mkdir()
    (tmp_path / "my-data/my.csv").write_text("file\n" + "scan\n" * 300)
    assert "300 scans (rows of my-data/my.csv)" in costs(tmp_path, "my-data")
