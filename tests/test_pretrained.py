"""Starting from published weights: state dicts of their very layout, generated, for the files have a licence of their own."""

import json
import subprocess
from collections import OrderedDict

import pytest
import torch

from conftest import write_dataset
from mriflow.base.errors import UserError
from mriflow.split import split
from mriflow.training.networks import SFCN
from mriflow.training.pretrained import load_pretrained
from test_train import command, run

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
    load_pretrained(net, tmp_path / "weights.p")
    assert all(torch.equal(value, weights[f"module.{name}"]) for name, value in net.state_dict().items())
    assert "44 of 44 tensors loaded" in caplog.text


def test_output_layer_starts_anew_where_the_bins_differ_and_says_so(tmp_path, caplog):
    caplog.set_level("INFO")
    weights = published(tmp_path / "weights.p", AGE_CHANNELS, 40)
    net = SFCN(85)
    head = net.classifier.conv_6.weight.clone()
    load_pretrained(net, tmp_path / "weights.p")
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
        load_pretrained(net, path)
    assert "feature_extractor.conv_0.0.weight: (28, 1, 3, 3, 3) in the file, (32, 1, 3, 3, 3) here" in str(told.value)
    assert "(of SFCN, its `channels`)" in str(told.value)
    del weights["module.feature_extractor.conv_3.1.running_var"]
    torch.save(weights | {"module.extra": torch.zeros(1)}, path)
    with pytest.raises(UserError) as told:
        load_pretrained(SFCN(2, SEX_CHANNELS), path)
    assert str(told.value).splitlines()[1:3] == [
        "  feature_extractor.conv_3.1.running_var: not in the file",
        "  extra: not in this network",
    ]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_what_is_no_file_of_weights_is_told(tmp_path):
    path = tmp_path / "weights.p"
    with pytest.raises(UserError, match="no such file of weights"):
        load_pretrained(SFCN(2), path)
    path.write_text("<html>")
    with pytest.raises(UserError, match="cannot be read as weights of PyTorch"):
        load_pretrained(SFCN(2), path)
    torch.save({"epoch": 3}, path)
    with pytest.raises(UserError, match="holds no weights; expected a dict of tensors"):
        load_pretrained(SFCN(2), path)


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('code of the file was run')",)


def test_code_in_a_file_of_weights_is_not_run(tmp_path):
    torch.save({"conv": Evil()}, tmp_path / "weights.p")
    with pytest.raises(UserError, match="cannot be read as weights of PyTorch"):
        load_pretrained(SFCN(2), tmp_path / "weights.p")


def test_training_starts_from_a_model_of_an_earlier_run_and_notices_that_the_file_changed(tmp_path, caplog):
    files = write_dataset(tmp_path / "data")
    split(files["labels"], tmp_path / "splits.csv", target="age", folds=3, validation=0.25)
    data = files | {"splits": tmp_path / "splits.csv"}
    small = {"name": "SFCN", "arguments": {"channels": [4, 8, 8], "dropout": 0.2}}
    first = run(tmp_path / "first", data, network=small, epochs=12)
    further = small | {"init": {"weights": str(tmp_path / "first/model.pt")}}
    second = run(tmp_path / "second", data, network=further, epochs=1, learning_rate=1e-6)
    assert second["val_loss"].iloc[0] < 0.6 * first["val_loss"].iloc[0]
    run(tmp_path / "first", data, network=small, epochs=2)
    run(tmp_path / "second", data, network=further, epochs=1, learning_rate=1e-6)
    assert "of other data or settings" in caplog.text
    arguments = [f"--network={json.dumps(further | {'init': {'weights': 'none.pt'}})}", *command(tmp_path / "third", data)[3:]]
    arguments = [one for one in arguments if one != f"--network={json.dumps(small)}"]
    ended = subprocess.run([*command(tmp_path, data)[:3], *arguments], capture_output=True, text=True)
    assert ended.returncode == 1
    assert "error: none.pt: no such file of weights (`init` of the network)." in ended.stderr
