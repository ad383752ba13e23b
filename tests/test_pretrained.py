"""Starting from weights: published ones, of their very layout, generated (they have a licence of their own), and models."""

import json
import subprocess
from collections import OrderedDict

import pandas as pd
import pytest
import torch

from conftest import training_inputs, write_dataset
from mriflow.base.errors import UserError
from mriflow.split import split
from mriflow.training.freezing import freeze_features
from mriflow.training.networks import SFCN, build_network
from mriflow.training.pretrained import load_pretrained, read_start, same_outputs
from test_train import AGE, SMALL, command, run, run_until

AGE_CHANNELS, SEX_CHANNELS = [32, 64, 128, 256, 256, 64], [28, 58, 128, 256, 256, 64]


def published(path, channels, outputs):
    """Write weights with the names and shapes of those that Peng et al. published, as saved from training on several GPUs."""
    names = OrderedDict()
    before = 1
    for number, after in enumerate(channels):
        edge = 1 if number == 5 else 3
        names[f"conv_{number}.0.weight"], names[f"conv_{number}.0.bias"] = (after, before, edge, edge, edge), (after,)
        for name in ("weight", "bias", "running_mean", "running_var"):
            names[f"conv_{number}.1.{name}"] = (after,)
        names[f"conv_{number}.1.num_batches_tracked"] = ()
        before = after
    weights = OrderedDict((f"module.feature_extractor.{name}", torch.rand(shape) / 10) for name, shape in names.items())
    for name in [name for name in weights if name.endswith("num_batches_tracked")]:
        weights[name] = torch.tensor(1000)
    weights["module.classifier.conv_6.weight"] = torch.rand(outputs, before, 1, 1, 1)
    weights["module.classifier.conv_6.bias"] = torch.rand(outputs)
    torch.save(weights, path)
    return weights


@pytest.mark.parametrize(("channels", "outputs"), [(AGE_CHANNELS, 40), (SEX_CHANNELS, 2)])
def test_published_weights_are_loaded_whole(tmp_path, caplog, channels, outputs):
    caplog.set_level("INFO")
    weights = published(tmp_path / "weights.p", channels, outputs)
    net = SFCN(outputs, channels)
    load_pretrained(net, read_start(tmp_path / "weights.p"))
    assert all(torch.equal(value, weights[f"module.{name}"]) for name, value in net.state_dict().items())
    assert "44 of 44 tensors loaded" in caplog.text


def test_output_layer_starts_anew_where_the_bins_differ_and_says_so(tmp_path, caplog):
    caplog.set_level("INFO")
    weights = published(tmp_path / "weights.p", AGE_CHANNELS, 40)
    net = SFCN(85)
    head = net.classifier.conv_6.weight.clone()
    load_pretrained(net, read_start(tmp_path / "weights.p"))
    assert torch.equal(net.classifier.conv_6.weight, head)
    assert torch.equal(net.feature_extractor.conv_5[0].weight, weights["module.feature_extractor.conv_5.0.weight"])
    assert "42 of 44 tensors loaded" in caplog.text
    assert "classifier.conv_6.bias starts anew: (40,) in the file, (85,) here" in caplog.text


def test_weights_are_never_loaded_in_part(tmp_path):
    path = tmp_path / "weights.p"
    weights = published(path, SEX_CHANNELS, 2)
    net = SFCN(2)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(UserError) as told:
        load_pretrained(net, read_start(path))
    assert "feature_extractor.conv_0.0.weight: (28, 1, 3, 3, 3) in the file, (32, 1, 3, 3, 3) here" in str(told.value)
    assert "(of SFCN, its `channels`)" in str(told.value)
    del weights["module.feature_extractor.conv_3.1.running_var"]
    torch.save(weights | {"module.extra": torch.zeros(1)}, path)
    with pytest.raises(UserError) as told:
        load_pretrained(SFCN(2, SEX_CHANNELS), read_start(path))
    assert str(told.value).splitlines()[1:3] == [
        "  feature_extractor.conv_3.1.running_var: not in the file",
        "  extra: not in this network",
    ]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_what_is_no_file_of_weights_is_told(tmp_path):
    path = tmp_path / "weights.p"
    with pytest.raises(UserError, match="no such file of weights"):
        read_start(path)
    path.write_text("<html>")
    with pytest.raises(UserError, match="cannot be read as weights of PyTorch"):
        read_start(path)
    torch.save({"epoch": 3}, path)
    with pytest.raises(UserError, match="holds no weights; expected a dict of tensors"):
        read_start(path)


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('code of the file was run')",)


def test_code_in_a_file_of_weights_is_not_run(tmp_path):
    torch.save({"conv": Evil()}, tmp_path / "weights.p")
    with pytest.raises(UserError, match="cannot be read as weights of PyTorch"):
        read_start(tmp_path / "weights.p")


def other_people(folder):
    """Write a second dataset: the subjects have the same names, the images are others."""
    files = write_dataset(folder, seed=1)
    labels = pd.read_csv(files["labels"])
    labels.assign(fingerprint=[f"other-{number}" for number in range(len(labels))]).to_csv(files["labels"], index=False)
    split(files["labels"], folder / "splits.csv", target="age", folds=3, validation=0.25, seed=3)
    return files | {"splits": folder / "splits.csv"}


@pytest.fixture(scope="module")
def pretrained(data, tmp_path_factory):
    """A model of fold 0 of the tiny dataset."""
    folder = tmp_path_factory.mktemp("pretrained")
    run(folder, data, epochs=12, dataset="tiny")
    return folder / "model.pt"


def test_training_starts_from_a_model_of_the_same_fold_and_notices_that_the_file_changed(data, pretrained, tmp_path, caplog):
    start = tmp_path / "start.pt"
    start.write_bytes(pretrained.read_bytes())
    fresh = run(tmp_path / "fresh", data, epochs=1, learning_rate=1e-6)
    further = run(tmp_path / "further", data, epochs=1, learning_rate=1e-6, init=start, dataset="tiny")
    assert further["val_loss"].iloc[0] < 0.6 * fresh["val_loss"].iloc[0]
    assert "of other data or settings" not in caplog.text
    model = torch.load(start, weights_only=True)
    model["weights"]["classifier.conv_3.bias"] += 1
    torch.save(model, start)
    run(tmp_path / "further", data, epochs=1, learning_rate=1e-6, init=start, dataset="tiny")
    assert "of other data or settings" in caplog.text


def test_a_file_that_is_missing_ends_the_command_in_words(data, tmp_path):
    ended = subprocess.run([*command(tmp_path, data), "--init=none.pt"], capture_output=True, text=True)
    assert ended.returncode == 1
    assert "error: none.pt: no such file of weights (`init` of the network)." in ended.stderr


def test_a_model_that_saw_a_test_subject_is_refused_by_content(data, pretrained, tmp_path):
    with pytest.raises(
        UserError, match=r"model.pt: has seen \d+ of the 8 test scans of this fold, .*the same fold of the same split"
    ):
        run(tmp_path / "other-fold", data, fold=1, init=pretrained, dataset="tiny")
    with pytest.raises(UserError, match=r"has seen \d+ of the 8 test scans"):
        run(tmp_path / "renamed", data, fold=1, init=pretrained, dataset="another name")


def test_other_scans_of_a_subject_who_was_seen_are_a_leak_too(data, pretrained, tmp_path):
    """A second session of everybody, in images that no model saw: known by the subject's name, or by the first session."""
    labels = pd.read_csv(data["labels"])
    second = labels.assign(id=labels["id"] + "-2", fingerprint=labels["fingerprint"] + "-2", age=labels["age"])
    both = pd.concat([labels.assign(age=None), second])
    both.to_csv(tmp_path / "labels.csv", index=False)
    split(tmp_path / "labels.csv", tmp_path / "splits.csv", target="age", folds=3, validation=0.25, seed=5)
    splits = pd.read_csv(tmp_path / "splits.csv")
    assert splits["id"].str.endswith("-2").all()
    index = pd.read_csv(data["indices"][0]).assign(id=second["id"].to_numpy())
    index.to_csv(tmp_path / "shard.csv", index=False)
    later = data | {"labels": tmp_path / "labels.csv", "splits": tmp_path / "splits.csv", "indices": [tmp_path / "shard.csv"]}
    for dataset in ("tiny", "renamed"):
        with pytest.raises(UserError, match="or others of their subjects"):
            run(tmp_path / dataset, later, init=pretrained, dataset=dataset)
    second.to_csv(tmp_path / "labels.csv", index=False)
    with pytest.raises(UserError, match="or others of their subjects"):
        run(tmp_path / "alone", later, init=pretrained, dataset="tiny")


def test_what_the_model_before_the_model_saw_is_not_forgotten(data, pretrained, tmp_path, caplog):
    others = other_people(tmp_path / "others")
    run(tmp_path / "second", others, epochs=1, init=pretrained, dataset="others")
    assert "called as those of 5 test scans, in other datasets (tiny)" in caplog.text
    seen = torch.load(tmp_path / "second/model.pt", weights_only=True)["seen"]
    assert seen.keys() == {"tiny", "others"} and all(parts.keys() == {"train", "validation"} for parts in seen.values())
    assert not {"scan-00", "other-0"} & {
        subject for parts in seen.values() for part in parts.values() for subject in part["subjects"]
    }
    with pytest.raises(UserError, match="has seen"):
        run(tmp_path / "third", data, fold=1, init=tmp_path / "second/model.pt", dataset="tiny")
    run(tmp_path / "third", data, epochs=1, init=tmp_path / "second/model.pt", dataset="tiny")


def test_validation_scans_that_were_trained_on_before_are_a_warning_in_the_results(data, pretrained, tmp_path):
    splits = pd.read_csv(data["splits"])
    mine = splits[(splits["fold"] == 0)].copy()
    mine["part"] = mine["part"].replace({"train": "validation", "validation": "train"})
    mine.to_csv(tmp_path / "splits.csv", index=False)
    changed = data | {"splits": tmp_path / "splits.csv"}
    run(tmp_path / "changed", changed, epochs=1, init=pretrained, dataset="tiny")
    warnings = json.loads((tmp_path / "changed/warnings.json").read_text())
    assert warnings[0]["kind"] == "validation scans seen before"
    assert "was trained on 12 of the 12 validation scans" in warnings[0]["text"]
    run(tmp_path / "same", data, epochs=1, init=pretrained, dataset="tiny")
    assert "validation scans seen before" not in (tmp_path / "same/warnings.json").read_text()


def test_a_plain_file_knows_nothing_of_whom_it_saw_and_that_is_said(data, pretrained, tmp_path, caplog):
    caplog.set_level("INFO")
    torch.save(torch.load(pretrained, weights_only=True)["weights"], tmp_path / "plain.pt")
    run(tmp_path, data, fold=1, epochs=1, init=tmp_path / "plain.pt")
    assert caplog.text.count("does not say whose scans it was trained on") == 1
    assert json.loads((tmp_path / "warnings.json").read_text())[0]["kind"] == "start from unknown people"


def test_outputs_for_other_bins_start_anew():
    soft = {"loss": "soft-label", "low": 10, "high": 95, "width": 1, "sigma": 1}
    assert same_outputs(soft, soft | {"sigma": 2}) and not same_outputs(soft, soft | {"high": 170, "width": 2})
    number = {"loss": "l1", "mean": 40.0, "sd": 9.0}
    assert same_outputs(number, number | {"loss": "l2", "mean": 50.0}) and not same_outputs(number, soft)
    joint = {"loss": "joint", "parts": [number, {"loss": "cross-entropy", "classes": ["F", "M"], "weights": [1, 1]}]}
    assert same_outputs(joint, joint) and not same_outputs(joint, joint | {"parts": [number]})


@pytest.mark.parametrize("select", ["last", "average"])
def test_frozen_features_stay_bit_for_bit_and_the_output_layer_learns(data, pretrained, tmp_path, select):
    frozen = run(tmp_path, data, epochs=4, init=pretrained, dataset="tiny", freeze="features", select=select)
    before, after = (torch.load(path, weights_only=True)["weights"] for path in (pretrained, tmp_path / "model.pt"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"classifier.conv_3.weight", "classifier.conv_3.bias"}
    assert frozen["train_loss"].notna().all()


def test_freeze_needs_weights_to_start_from_and_a_network_whose_last_layer_is_its_output(data, tmp_path):
    with pytest.raises(UserError, match="`freeze: features` without weights to start from"):
        run(tmp_path, data, freeze="features")
    for name in ("DenseNet121", "resnet18", "SEResNet50", "EfficientNetBN"):
        arguments = {"model_name": "efficientnet-b0"} if name == "EfficientNetBN" else {}
        net = build_network(name, arguments, 3, (32, 32, 32), covariates=2)
        freeze_features(net, 3)
        trained = [name for name, parameter in net.named_parameters() if parameter.requires_grad]
        assert len(trained) == 3 and trained[-1] == "linear.weight"
    with pytest.raises(UserError, match="its last layer, classifier.conv_3, is not that of the 5 output"):
        freeze_features(SFCN(2, [4, 8, 8]), 5)


def test_a_training_with_start_and_freeze_ends_with_the_same_bytes_when_resumed(data, pretrained, tmp_path, monkeypatch):
    settings = {"init": pretrained, "dataset": "tiny", "freeze": "features", "epochs": 4, "select": "average"}
    run(tmp_path / "whole", data, **settings)
    for looks in (3, 6):
        run_until(looks, tmp_path / "broken", data, monkeypatch, **settings)
    monkeypatch.undo()
    run(tmp_path / "broken", data, **settings)
    assert (tmp_path / "broken/model.pt").read_bytes() == (tmp_path / "whole/model.pt").read_bytes()
    assert (tmp_path / "broken/history.csv").read_bytes() == (tmp_path / "whole/history.csv").read_bytes()


def test_a_network_with_covariates_starts_from_one_without_and_the_other_way_round(data, pretrained, tmp_path, caplog):
    caplog.set_level("INFO")
    inputs = training_inputs(covariates=["sex"])
    still = {"epochs": 1, "learning_rate": 1e-9, "dataset": "tiny"}
    run(tmp_path / "with", data, inputs=inputs, init=pretrained, **still)
    assert "what covariates add to the outputs starts anew" in caplog.text
    run(tmp_path / "same", data, inputs=inputs, init=tmp_path / "with/model.pt", **still)
    assert "what covariates add to the outputs is loaded, too" in caplog.text
    run(tmp_path / "without", data, init=tmp_path / "with/model.pt", **still)
    assert "of that model is left out" in caplog.text
    first, inner, last = (
        torch.load(p, weights_only=True)["weights"]
        for p in (pretrained, tmp_path / "with/model.pt", tmp_path / "without/model.pt")
    )
    name = "feature_extractor.conv_1.0.weight"
    assert torch.allclose(first[name], inner[f"net.{name}"]) and torch.allclose(first[name], last[name])


def test_other_channels_are_refused_and_another_target_gets_an_output_layer_of_its_own(pretrained, caplog):
    caplog.set_level("INFO")
    start = read_start(pretrained)
    with pytest.raises(UserError, match="was trained on scans with the channels image; here they have image, gm"):
        load_pretrained(build_network(**SMALL, outputs=1, shape=(16, 16, 16), channels=2), start, {"channels": ["image", "gm"]})
    net = build_network(**SMALL, outputs=1, shape=(16, 16, 16))
    load_pretrained(net, start, {"target": AGE | {"column": "score"}})
    assert not torch.equal(net.classifier.conv_3.weight, start.weights["classifier.conv_3.weight"])
    assert "classifier.conv_3.weight starts anew: it was trained for another target" in caplog.text
    load_pretrained(net, start, {"target": AGE})
    assert torch.equal(net.classifier.conv_3.weight, start.weights["classifier.conv_3.weight"])


def test_a_flat_head_of_another_grid_starts_anew(caplog, tmp_path):
    caplog.set_level("INFO")
    flat = {"name": "SFCN", "arguments": {"channels": [4, 8, 8], "head": "flat"}}
    torch.save(build_network(**flat, outputs=1, shape=(16, 16, 16)).state_dict(), tmp_path / "weights.pt")
    load_pretrained(build_network(**flat, outputs=1, shape=(24, 16, 16)), read_start(tmp_path / "weights.pt"))
    assert "classifier.conv_3.weight starts anew: (1, 8, 4, 4, 4) in the file, (1, 8, 6, 4, 4) here" in caplog.text
