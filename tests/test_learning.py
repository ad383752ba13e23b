"""What a network is shown in training is of the kind that it predicts, and what else decides whether it learns."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from scipy.ndimage import gaussian_filter

from conftest import ROOT, training_inputs, write_dataset
from mriflow.base.errors import UserError
from mriflow.prediction.ensemble import predict
from mriflow.split import split
from mriflow.tables.labels import read_indices
from mriflow.training.augment import augment, draw_changes
from mriflow.training.covariates import Covariates, read_covariates
from mriflow.training.loader import open_shards
from mriflow.training.objectives import Classification, Joint, Regression, make_objective, shares
from test_train import AGE, NONE, SEX, run, run_until

AUGMENTATION = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())["properties"]["training"][
    "additionalProperties"
]["properties"]["augmentation"]["properties"]
# As strong as one would set each kind; one that is added is tested as strong as the example of its key.
STRENGTHS = {name: max(key["default"], key["examples"][0]) for name, key in AUGMENTATION.items()}
INTENSITY = {"intensity", "bias_field", "noise"}


def brains(count=6, shape=(40, 48, 40)):
    """Textures with the spectrum of a T1 scan (power falls with about the third power of frequency) in an ellipsoid."""
    frequencies = torch.meshgrid(*(torch.fft.fftfreq(n) for n in shape), indexing="ij")
    distance = sum(f**2 for f in frequencies).sqrt().clamp(min=1 / 48)
    noise = torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))
    texture = torch.fft.ifftn(torch.fft.fftn(noise, dim=(1, 2, 3)) * distance**-1.5, dim=(1, 2, 3)).real
    texture = 0.6 + 0.12 * texture / texture.std()
    places = torch.meshgrid(*(torch.linspace(-1.15, 1.15, n) for n in shape), indexing="ij")
    edge = torch.sigmoid(20 * (1 - sum(place**2 for place in places).sqrt()))  # the partial volume of a brain's edge
    scans = (texture * edge).clamp(0, 1)
    return (scans * (edge > 0.5))[:, None]


def bands(scans, count=8):
    """Return the share of the power in bands of frequency up to Nyquist's, shape (count,)."""
    power = torch.fft.fftn(scans, dim=(2, 3, 4)).abs().square().sum((0, 1))
    axes = torch.meshgrid(*(torch.fft.fftfreq(n).abs() * 2 for n in scans.shape[2:]), indexing="ij")
    distance = sum(axis**2 for axis in axes).sqrt()
    powers = torch.stack([power[(distance >= i / count) & (distance < (i + 1) / count)].sum() for i in range(count)])
    return powers / power.sum()


@pytest.mark.parametrize("kind", sorted(set(STRENGTHS) - INTENSITY))
def test_geometric_changes_keep_the_sharpness_of_a_scan_in_every_band(kind):
    scans = brains().repeat(4, 1, 1, 1, 1)
    settings = NONE | {kind: STRENGTHS[kind]}
    changed = augment(scans, draw_changes(len(scans), 4, settings, torch.Generator().manual_seed(1)), settings)
    assert (changed - scans).abs().mean() > 0.01, "it changes something"
    assert (bands(changed) / bands(scans)).tolist() == pytest.approx([1.0] * 8, abs=0.05)


def test_linear_interpolation_would_not_keep_it():
    scans = brains()
    shifted = (scans[:, :, 1:] + scans[:, :, :-1]) / 2
    assert (bands(shifted) / bands(scans[:, :, 1:])).min() < 0.6


@pytest.fixture(scope="module")
def fine_detail(tmp_path_factory):
    """A tiny dataset in which the fine detail of a scan, and nothing else, tells the target: what blurs shifts predictions."""
    folder = tmp_path_factory.mktemp("fine")
    files = write_dataset(folder, subjects=64)
    age = pd.read_csv(files["labels"])["age"].to_numpy()
    random = np.random.default_rng(1)
    texture = gaussian_filter(random.normal(0, 1, (len(age), 16, 16, 16)), 0.7, axes=(1, 2, 3))
    volumes = (128 + texture / texture.std() * (10 + 0.4 * age)[:, None, None, None]).clip(1, 255)
    for volume in volumes:  # a ball, whose edge no grid of pooling fits better than another
        distance = sum((axis - random.uniform(7, 8)) ** 2 for axis in np.indices(volume.shape)) ** 0.5
        volume[distance > random.uniform(5, 6)] = 0
    np.save(files["arrays"][0], volumes.astype(np.uint8))
    split(files["labels"], folder / "splits.csv", target="age", folds=2, validation=0.25)
    return files | {"splits": folder / "splits.csv"}


def bias(data, folder, augmentation, blurred=False, seed=0):
    """Return how much older a training's own scans are predicted if they are changed, in SDs of the target."""
    table = run(folder, data, seed=seed, epochs=50, batch_size=4, learning_rate=0.01, augmentation=augmentation)
    if not blurred:
        assert table["unchanged_mae"].iloc[-1] < 9, "it learned: a constant guess has 17"
    splits = pd.read_csv(data["splits"])
    ids = splits.loc[(splits["fold"] == 0) & (splits["part"] == "train"), "id"].tolist()
    changed = folder / "changed"
    changed.mkdir()
    shards = open_shards(data["arrays"], data["indices"])
    scans = torch.stack([torch.from_numpy(np.array(shards[scan])) for scan in shards])[:, None].float() / 255
    differences = []
    nothing = pd.DataFrame(index=list(shards))
    plain = predict([folder / "model.pt"], 0, shards, ids, nothing, torch.device("cpu"))
    for seed in range(4):
        changes = draw_changes(len(scans), 4, augmentation, torch.Generator().manual_seed(seed))
        volumes = augment(scans, changes, augmentation).mul(255).round().clamp(0, 255)[:, 0].byte().numpy()
        np.save(changed / "shard.npy", volumes)
        of_changed = open_shards([changed / "shard.npy"], data["indices"])
        differences.append(predict([folder / "model.pt"], 0, of_changed, ids, nothing, torch.device("cpu")) - plain)
    return np.mean(differences) / pd.read_csv(data["labels"])["age"].std()


@pytest.mark.parametrize("kind", sorted(STRENGTHS))
def test_changed_training_scans_are_predicted_as_unchanged_ones_are(fine_detail, tmp_path, kind):
    """On average: a single training is off by as much, one way or the other, and otherwise on another processor."""
    biases = [bias(fine_detail, tmp_path / str(seed), NONE | {kind: STRENGTHS[kind]}, seed=seed) for seed in range(8)]
    assert abs(np.mean(biases)) < 0.1, biases


def test_linear_interpolation_would_shift_predictions(fine_detail, tmp_path, monkeypatch):
    def blurred(scans, matrices):
        return (scans + scans.roll(1, 2)) / 2

    monkeypatch.setattr("mriflow.training.augment.resample", blurred)
    assert abs(bias(fine_detail, tmp_path, NONE | {"rotate_degrees": 5.0}, blurred=True)) > 0.5


@pytest.fixture(scope="module")
def two_channels(tmp_path_factory):
    """The tiny dataset with a second channel, a column with gaps, and head size."""
    folder = tmp_path_factory.mktemp("channels")
    files = write_dataset(folder)
    volumes = np.load(files["arrays"][0])
    np.save(files["arrays"][0], np.stack([volumes, 255 - volumes], axis=1))
    index = pd.read_csv(files["indices"][0])
    index.assign(scale=np.linspace(0.8, 1.2, len(index))).to_csv(files["indices"][0], index=False)
    labels = pd.read_csv(files["labels"])
    labels["hand"] = ["left", "right", None] * (len(labels) // 3)
    labels["score"] = np.where(np.arange(len(labels)) % 4, labels["age"] / 2, np.nan)
    labels.to_csv(files["labels"], index=False)
    split(files["labels"], folder / "splits.csv", target="age", folds=3, validation=0.25, stratify=["sex"])
    return files | {"splits": folder / "splits.csv"}


BOTH = training_inputs(channels=["image", "gm"], covariates=["head_size", "score"], impute=True)
ANY_3D = {"name": "DenseNet", "arguments": {"init_features": 4, "growth_rate": 4, "block_config": [1, 1], "bn_size": 1}}
SFCNS = [{"name": "SFCN", "arguments": {"channels": [4, 8, 8], "head": head, "norm": norm}} for head, norm in
         (("flat", "batch"), ("average", "instance"), ("flat", "group"))]  # fmt: skip


@pytest.mark.parametrize("network", [ANY_3D, *SFCNS])
def test_channels_covariates_and_auxiliary_targets_go_through_training_and_prediction(two_channels, tmp_path, network):
    target = AGE | {"auxiliary": [SEX]}
    table = run(tmp_path, two_channels, target=target, inputs=BOTH, network=network, epochs=2)
    assert np.isfinite(table).all().all()
    shards = open_shards(two_channels["arrays"], two_channels["indices"])
    covariates = read_covariates(BOTH["covariates"], two_channels["labels"], read_indices(two_channels["indices"]))
    for tta in ("none", "mirror"):
        found = predict([tmp_path / "model.pt"], 0, shards, list(shards), covariates, torch.device("cpu"), tta)
        assert found.shape == (24,)
    shifted = covariates.assign(head_size=covariates["head_size"] + 1)
    assert (
        np.abs(predict([tmp_path / "model.pt"], 0, shards, list(shards), shifted, torch.device("cpu"), tta) - found).min() > 0
    )


def test_a_training_with_all_of_these_ends_with_the_same_bytes_when_resumed(two_channels, tmp_path, monkeypatch):
    everything = {
        "target": AGE | {"auxiliary": [SEX]},
        "inputs": BOTH,
        "select": "average",
        "epochs": 4,
        "augmentation": STRENGTHS,
    }
    run(tmp_path / "whole", two_channels, **everything)
    for looks in (3, 6, 5):
        run_until(looks, tmp_path / "broken", two_channels, monkeypatch, **everything)
    monkeypatch.undo()
    run(tmp_path / "broken", two_channels, **everything)
    assert (tmp_path / "broken/model.pt").read_bytes() == (tmp_path / "whole/model.pt").read_bytes()
    assert (tmp_path / "broken/history.csv").read_bytes() == (tmp_path / "whole/history.csv").read_bytes()


def test_a_batch_in_parts_trains_as_a_whole_one_with_all_of_these(two_channels, tmp_path):
    network = {"name": "SFCN", "arguments": {"channels": [4, 8, 8], "norm": "instance", "dropout": 0.0}}
    for name, parts in (("whole", 1), ("parts", 2)):
        options = {"target": AGE | {"auxiliary": [SEX]}, "inputs": BOTH, "network": network, "optimizer": "sgd"}
        run(tmp_path / name, two_channels, accumulate=parts, **options)
    whole, parts = (torch.load(tmp_path / name / "model.pt", weights_only=True)["weights"] for name in ("whole", "parts"))
    assert all(torch.allclose(whole[name], parts[name], atol=1e-4) for name in whole)


def test_intensities_of_maps_are_never_changed():
    scans = brains(2).repeat(1, 3, 1, 1, 1)
    settings = STRENGTHS | dict.fromkeys(set(STRENGTHS) - INTENSITY, 0.0) | dict.fromkeys(INTENSITY, 0.3)
    changes = draw_changes(2, 4, settings, torch.Generator().manual_seed(0))
    for image in (0, 1):
        changed = augment(scans, changes, settings, image)
        for channel in range(3):
            assert torch.equal(changed[:, channel], scans[:, channel]) == (channel != image)
    assert torch.equal(augment(scans, changes, settings, None), scans)


def test_missing_covariate_is_refused_or_taken_for_the_training_mean(two_channels, tmp_path):
    with pytest.raises(UserError, match=r"covariate 'score' is missing for \d+ of \d+ scans .*`impute: true`"):
        run(tmp_path, two_channels, inputs=BOTH | {"impute": False})
    covariates = read_covariates(["score", "hand"], two_channels["labels"], read_indices(two_channels["indices"]))
    known = Covariates.fit(covariates, impute=True)
    encoded = known.encode(covariates)
    assert encoded.shape == (24, 2)
    assert encoded[covariates["score"].isna().to_numpy(), 0].abs().max() < 1e-6
    assert encoded[:, 1].unique().tolist() == [0, 1]
    again = Covariates(json.loads(json.dumps(known.columns)))
    assert torch.equal(again.encode(covariates), encoded)
    with pytest.raises(UserError, match="is the same|tells nothing"):
        Covariates.fit(covariates.assign(score=1.0), impute=True)


def test_auxiliary_target_that_is_missing_adds_nothing_and_the_first_alone_is_predicted():
    labels = np.array([[50.0, "F"], [60.0, "M"], [70.0, None]], dtype=object)
    objective = make_objective(AGE | {"auxiliary": [SEX]}, {"loss": "l1"}, labels)
    assert isinstance(objective, Joint)
    encoded = objective.encode(labels)
    outputs = torch.tensor([[0.0, 1.0, -1.0]] * 3, requires_grad=True)
    total = (objective.losses(outputs, encoded) * shares(objective.weights(encoded))).sum()
    total.backward()
    assert outputs.grad[2, 0] != 0
    assert outputs.grad[2, 1:].tolist() == [0, 0]
    assert objective.predict(outputs.detach()).tolist() == pytest.approx([60] * 3)
    alone = Regression("l1", 60, objective.parts[0].sd).loss(outputs[:, :1], encoded[:, :1])
    other = Classification(["F", "M"], [1, 1]).loss(outputs[:2, 1:], encoded[:2, 1:])
    assert total.item() == pytest.approx((alone + other).item())
    assert objective.loss(outputs, encoded).item() == pytest.approx(alone.item()), "what is followed is the target's"


def test_without_a_validation_part_all_are_trained_on_and_the_curves_show_unchanged_scans(tmp_path):
    files = write_dataset(tmp_path)
    split(files["labels"], tmp_path / "splits.csv", target="age", folds=3, validation=0)
    assert set(pd.read_csv(tmp_path / "splits.csv")["part"]) == {"train", "test"}
    table = run(tmp_path / "run", files | {"splits": tmp_path / "splits.csv"}, epochs=3)
    assert {"unchanged_loss", "unchanged_mae"} <= set(table)
    assert not any(name.startswith("val_") for name in table)
    with pytest.raises(UserError, match="`select: best` needs a validation part"):
        run(tmp_path / "best", files | {"splits": tmp_path / "splits.csv"}, select="best")


@pytest.mark.parametrize("select", ["best", "average"])
def test_other_weights_than_the_last_can_be_the_result(data, tmp_path, select):
    for seed in range(5):  # until the last epoch is not the best, whatever the processor makes of the sums
        swinging = {"epochs": 12, "learning_rate": 0.03, "schedule": "constant", "seed": seed}
        table = run(tmp_path / f"last-{seed}", data, **swinging)
        if table["val_loss"].idxmin() < 11:
            break
    run(tmp_path / select, data, **swinging, select=select)
    (tmp_path / f"last-{seed}").rename(tmp_path / "last")
    last, other = (torch.load(tmp_path / name / "model.pt", weights_only=True) for name in ("last", select))
    assert last["epoch"] == 12
    assert any(not torch.equal(last["weights"][name], other["weights"][name]) for name in last["weights"])
    if select == "best":
        assert other["epoch"] == table["val_loss"].idxmin() + 1 < 12


def test_statistics_of_batch_norm_are_those_of_the_weights_after_every_epoch(data, tmp_path):
    network = {"name": "SFCN", "arguments": {"channels": [4, 8, 8]}}
    run(tmp_path, data, network=network, epochs=3, batch_size=4, learning_rate=0.05, schedule="constant", augmentation=NONE)
    parts = pd.read_csv(data["splits"])
    ids = parts.loc[(parts["fold"] == 0) & (parts["part"] == "train"), "id"].to_numpy()
    count = len(ids) // 4 * 4
    chosen = ids[np.linspace(0, len(ids) - 1, count).round().astype(int)]
    shards = open_shards(data["arrays"], data["indices"])
    scans = torch.tensor(np.stack([shards[scan] for scan in chosen])).float()[:, None] / 255
    weights = torch.load(tmp_path / "model.pt", weights_only=True)["weights"]
    layer = "feature_extractor.conv_0"
    seen = torch.nn.functional.conv3d(scans, weights[f"{layer}.0.weight"], weights[f"{layer}.0.bias"], padding=1)
    assert torch.allclose(weights[f"{layer}.1.running_mean"], seen.mean((0, 2, 3, 4)), rtol=1e-3, atol=1e-4)


def test_instance_norm_over_a_single_voxel_is_refused(data, tmp_path):
    network = {"name": "SFCN", "arguments": {"channels": [4, 8, 8, 8, 8], "norm": "instance"}}
    with pytest.raises(UserError, match="leaves a single voxel"):
        run(tmp_path, data, network=network)


def test_a_covariate_that_no_training_scan_has_is_refused_or_imputed_and_never_taken_for_the_first():
    table = pd.DataFrame({"site": ["A", "B", "A"], "score": [1.0, 2.0, 4.0]}, index=["s1", "s2", "s3"])
    ahead = pd.DataFrame({"site": ["A", "NEW"], "score": [1.0, 2.0]}, index=["s4", "s5"])
    with pytest.raises(UserError, match=r"'site' is 'NEW' for s5 \(1 of 2 scans\), expected one of A, B"):
        Covariates.fit(table, impute=False).encode(ahead)
    of_missing = Covariates.fit(table, impute=True).encode(ahead.assign(site=["A", None]))
    assert Covariates.fit(table, impute=True).encode(ahead).tolist() == of_missing.tolist()
    with pytest.raises(UserError, match="'score' is 'high' for s5 .* expected a number"):
        Covariates.fit(table, impute=True).encode(ahead.assign(score=["1", "high"]))


def test_a_covariate_that_a_test_scan_lacks_is_told_before_the_training(data, tmp_path):
    labels, parts = pd.read_csv(data["labels"]), pd.read_csv(data["splits"])
    tested = parts.loc[(parts["fold"] == 0) & (parts["part"] == "test"), "id"].iloc[0]
    labels["score"] = np.arange(len(labels)) % 7 + 1.0
    labels.loc[labels["id"] == tested, "score"] = np.nan
    labels.to_csv(tmp_path / "labels.csv", index=False)
    with pytest.raises(UserError, match=f"'score' is missing for 1 of .* \\({tested}"):
        run(tmp_path, data | {"labels": tmp_path / "labels.csv"}, inputs=training_inputs(covariates=["score"]))
    run(tmp_path, data | {"labels": tmp_path / "labels.csv"}, fold=1, inputs=training_inputs(covariates=["score"], impute=True))
