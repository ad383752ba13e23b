"""What predictions depend on: maps find the place that a network uses, and are told apart from maps of nothing."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from conftest import training_settings, write_dataset
from mriflow.attention import attention
from mriflow.config.resolve import training_part
from mriflow.plot import main as plot
from mriflow.prediction.ensemble import Trained
from mriflow.prediction.explain import Explained, gradients, occlusion
from mriflow.prediction.maps import by_chance, overlap, sampled, sanity
from mriflow.simulation.changes import changes_of
from mriflow.split import split
from mriflow.train import train
from mriflow.training.covariates import Covariates
from mriflow.training.objectives import Classification, Regression
from test_evaluate import NETWORK, TARGETS

EDGE = 24
PLACE = (slice(12, 18), slice(4, 10), slice(6, 12))


class Looks(nn.Module):
    """A network that sums the second of two channels in one place, and adds its covariate."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.outputs, self.scale, self.dropout = outputs, nn.Parameter(torch.ones(1)), nn.Dropout(0.5)

    def forward(self, scans: torch.Tensor, covariates: torch.Tensor) -> torch.Tensor:
        found = self.scale * self.dropout(scans)[:, 1][(slice(None), *PLACE)].square().mean((1, 2, 3)) + covariates[:, 0]
        return torch.stack([found, -found], 1)[:, : self.outputs]


def explained(objective) -> Explained:
    networks = [Trained(Looks(objective.outputs).eval(), objective, Covariates({}))]
    return Explained(networks, [torch.full((1, 1), 0.5)], torch.full((2, EDGE, EDGE, EDGE), 0.2))


@pytest.mark.parametrize("objective", [Regression("l1", 50.0, 10.0), Classification(["F", "M"], [1, 1])])
def test_both_ways_find_the_place_that_a_network_uses(objective):
    looked_into = explained(objective)
    looked_into.predicted_class = 0 if objective.outputs == 2 else None
    scan = torch.rand(1, 2, EDGE, EDGE, EDGE, generator=torch.Generator().manual_seed(0))
    brain = np.ones((EDGE,) * 3, bool)
    brain[:2] = False
    for found in (occlusion(looked_into, scan, brain, voxel_mm=5.0), gradients(looked_into, scan, brain, seed=0)):
        assert found.shape == brain.shape and found.dtype == np.float32
        assert (found[~brain] == 0).all()
        assert found[PLACE].mean() > 3 * found[brain].mean()


def test_occluded_place_is_worth_what_its_difference_from_the_average_is():
    """By hand: everywhere like the average but for one place, which a single cube covers."""
    looked_into = explained(Regression("l1", 50.0, 10.0))
    scan = torch.zeros(1, 2, EDGE, EDGE, EDGE)
    scan[0, 0], scan[0, 1][PLACE] = 0.01, 0.3
    found = occlusion(looked_into, scan, np.ones((EDGE,) * 3, bool), voxel_mm=2.0)  # a cube of 16 voxels
    worth = 10.0 * (0.5**2 - 0.2**2)  # years: the scale times the network's change
    assert found.max() == pytest.approx(worth, rel=1e-3)
    scan[0, 1] = 0
    same = occlusion(looked_into, scan, np.ones((EDGE,) * 3, bool), voxel_mm=2.0)
    assert (same == 0).all()


def test_networks_that_are_sure_still_show_what_they_look_at():
    """By hand: log-odds of the difference of two outputs, where the probability is 1 to eight digits."""
    looked_into = explained(Classification(["F", "M"], [1, 1]))
    looked_into.predicted_class = 0
    looked_into.nets[0].scale.data[:] = 40
    scan = torch.zeros(1, 2, EDGE, EDGE, EDGE)
    scan[0, 0], scan[0, 1][PLACE] = 0.01, 0.3
    assert looked_into.values(scan)[0, 0] > 1 - 1e-8
    found = occlusion(looked_into, scan, np.ones((EDGE,) * 3, bool), voxel_mm=2.0)
    assert found.max() == pytest.approx(2 * 40 * (0.5**2 - 0.2**2), rel=1e-3)


def test_maps_of_a_scan_do_not_depend_on_what_was_looked_at_before():
    """MONAI's methods put a module back into training that it was given in training; dropout would then be active."""
    looked_into = explained(Regression("l1", 50.0, 10.0))
    scan, brain = torch.rand(1, 2, EDGE, EDGE, EDGE, generator=torch.Generator().manual_seed(0)), np.ones((EDGE,) * 3, bool)
    first = occlusion(looked_into, scan, brain, voxel_mm=5.0), gradients(looked_into, scan, brain, seed=0)
    again = occlusion(looked_into, scan, brain, voxel_mm=5.0), gradients(looked_into, scan, brain, seed=0)
    assert not looked_into.nets[0].training
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)


def maps_at(place: slice, seed: int, scans: int = 6) -> np.ndarray:
    maps = np.random.default_rng(seed).uniform(0, 0.3, (scans, 500))
    maps[:, place] += 1
    return maps


def test_sanity_tells_what_was_learned_from_what_random_weights_show():
    learned, random, again = maps_at(slice(0, 250), 0), maps_at(slice(100, 350), 1), maps_at(slice(0, 250), 2)
    found = sanity(learned, random, again)
    assert found["verdict"] == "passed"
    assert found["random_weights"]["high"] < found["other_fold"]["low"]
    assert sanity(learned, again, random)["verdict"] == "failed"
    alone = sanity(learned, random, None)
    assert alone["verdict"] == "cannot be told" and alone["other_fold"] is None
    assert sanity(learned, np.zeros_like(learned), again)["random_weights"]["value"] is None


def test_overlap_is_one_where_a_map_is_right_and_no_more_than_chance_where_it_is_not():
    brain = np.ones((16, 16, 16), bool)
    region = np.zeros(brain.shape, bool)
    region[2:10, 2:10, 2:9] = True
    places = sampled(brain)
    right = np.tile(region.flat[places].astype(float), (6, 1))
    assert overlap(right, region.flat[places]) == {"value": 1.0, "low": 1.0, "high": 1.0}
    chance, p = by_chance(right[0], places, region, brain)
    # More than the region's share: a map that is turned stays as far from the centre, and so does the region.
    assert p < 0.05 and region.mean() < chance["value"] < chance["high"] < 0.9
    wrong = np.random.default_rng(0).uniform(0, 1, right.shape)
    low, high = (overlap(wrong, region.flat[places])[key] for key in ("low", "high"))
    assert low < region.mean() + 0.05 and high < 0.3
    assert by_chance(wrong.mean(0), places, region, brain)[1] > 0.05


def test_the_simulator_itself_says_what_age_and_sex_change():
    grid = (8.0, (20, 24, 20))
    age, sex = changes_of("age", *grid), changes_of("sex", *grid)
    assert age.shape == sex.shape == (20, 24, 20)
    assert np.corrcoef(age.ravel(), sex.ravel())[0, 1] < 0.8
    x, y, _ = np.unravel_index(age.argmax(), age.shape)
    assert 8 <= x <= 11 and 8 <= y <= 18  # near the midline, where the ventricles are
    assert changes_of("group", *grid) is None


@pytest.mark.parametrize("name", ["age", "sex"])
def test_attention_of_an_experiment_is_written_drawn_and_the_same_twice(name, tmp_path):
    files, target = write_dataset(tmp_path / "data", subjects=24), TARGETS[name]
    classes = list(target.get("classes", [])) or None
    split(files["labels"], tmp_path / "splits.csv", target=name, classes=classes, folds=2)
    settings = {"experiment": name, "dataset": {"title": "Test", "simulate": {}}, "names": {"target": name}, "target": target}
    settings |= {"preprocess": {"registration": "affine", "channels": ["image"], "voxel_mm": 8}, "network": NETWORK}
    training = training_settings(epochs=15, learning_rate=0.02, seeds=[0], augmentation={"mirror": 0})
    settings |= {"training": training, "auxiliary": [], "covariates": ["sex"] if name == "age" else [], "impute": False}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    parts = {part: training_part(settings, part) for part in ("target", "inputs", "network", "training")}
    about = {**files, "splits": tmp_path / "splits.csv"}
    models = []
    for fold in range(2):
        out = tmp_path / f"fold-{fold}"
        models.append(out / "model.pt")
        train(models[-1], out / "h.csv", out / "w.json", out / "work", **about, fold=fold, seed=0, **parts)
    written = [tmp_path / "a.json", tmp_path / "a.csv", tmp_path / "maps"]
    given = {**about, "models": models, "settings": tmp_path / "settings.json", "ways": "both", "scans": 4}
    found = attention(*written, **given)
    assert found["n"] == 4 and set(found["ways"]) == {"occlusion", "gradients"}
    assert found["value"] == ("years" if name == "age" else "log-odds of the predicted class")
    maps = {path.name.split(".")[0]: nib.load(path) for path in (tmp_path / "maps").iterdir()}
    assert set(maps) == {"brain", "truth", "occlusion", "gradients"}
    assert maps["occlusion"].shape == (16, 16, 16) and maps["occlusion"].affine[0, 0] == 8
    assert maps["occlusion"].get_fdata().max() > 0
    table = pd.read_csv(tmp_path / "a.csv")
    row = table[(table["way"] == "occlusion") & (table["measure"] == "truth.overlap")].iloc[0]
    assert row[["value", "low", "high"]].to_dict() == pytest.approx(found["ways"]["occlusion"]["truth"]["overlap"])
    before = [path.read_bytes() for path in (*written[:2], *sorted(written[2].iterdir()))]
    attention(*written, **given)
    assert [path.read_bytes() for path in (*written[:2], *sorted(written[2].iterdir()))] == before
    plot(
        [
            "attention",
            f"--pdf={tmp_path / 'f.pdf'}",
            f"--png={tmp_path / 'f.png'}",
            f"--result={written[0]}",
            f"--maps={written[2]}",
        ]
    )
    assert (tmp_path / "f.png").stat().st_size > 20_000
