"""Controls and worse scans: labels shuffled, training parts thinned, and test scans with noise, blur, shift and the like."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from conftest import ROOT, training_settings, write_dataset
from mriflow.alter import alter
from mriflow.base.errors import UserError
from mriflow.config.cost import models_of
from mriflow.config.resolve import training_part
from mriflow.controls import controls
from mriflow.evaluation.baselines import classical
from mriflow.evaluation.controls import classical_of_shuffled, shuffled, thinned
from mriflow.plot import main as plot
from mriflow.prediction.perturbations import FWHM, KINDS, OF_INTENSITIES, perturb
from mriflow.robustness import robustness
from mriflow.split import split
from mriflow.train import train
from test_config import message, resolved, written
from test_evaluate import NETWORK, TARGETS
from test_workflow import checkout, jobs, snakemake


def cohort(people: int = 60) -> pd.DataFrame:
    """A table of people at two sites, each third of them scanned twice."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(people):
        for session in range(1 + (number % 3 == 0)):
            about = {"id": f"s{number}-{session}", "subject": f"p{number:02d}", "site": "AB"[number % 2]}
            rows.append({**about, "age": rng.uniform(20, 80), "sex": "FM"[number % 5 < 2]})
    return pd.DataFrame(rows)


def test_labels_are_shuffled_by_person_within_their_site():
    table = cohort()
    used = table["id"][:-4].tolist()
    changed = shuffled(table, used, "sex", seed=0)
    first = table.drop_duplicates("subject")
    assert changed.groupby("subject")["sex"].nunique().max() == 1
    assert (changed["sex"] != table["sex"]).sum() > 10
    assert changed["sex"].tail(4).tolist() == table["sex"].tail(4).tolist()
    new = changed.loc[first.index]
    for site in "AB":
        at = first["site"] == site
        assert sorted(first.loc[at, "sex"]) == sorted(new.loc[at, "sex"])
    assert shuffled(table, used, "sex", seed=0).equals(changed)
    assert not shuffled(table, used, "sex", seed=1).equals(changed)


def test_smaller_part_is_within_the_larger_as_spread_and_nobody_else_moves():
    table = cohort()
    parts = pd.DataFrame({"id": table["id"], "subject": table["subject"], "fold": 0, "part": "train"})
    parts.loc[parts["subject"] > "p49", "part"] = "test"
    everyone = parts.loc[parts["part"] == "train", "subject"].nunique()
    before: set = set()
    for share in (0.25, 0.5, 0.75, 1.0):
        thin = thinned(parts, table, "sex", share, ["site"])
        kept = set(thin.loc[thin["part"] == "train", "subject"])
        assert before <= kept and len(kept) == round(share * everyone)
        women = table.drop_duplicates("subject").set_index("subject").loc[sorted(kept), "sex"].eq("F").mean()
        assert women == pytest.approx(0.6, abs=0.08)
        assert thin[thin["part"] == "test"].equals(parts[parts["part"] == "test"])
        assert set(thin.loc[thin["subject"].isin(kept), "id"]) == set(parts.loc[parts["subject"].isin(kept), "id"])
        before = kept
    with pytest.raises(UserError, match=r"a fraction of 0.01 of the 50 people of fold 0 leaves nobody of sex 'F' to train on"):
        thinned(parts, table, "sex", 0.01)


@pytest.mark.parametrize("classes", [None, ["F", "M"]])
def test_hundred_runs_at_once_predict_what_one_alone_does(classes):
    rng = np.random.default_rng(0)
    features, ahead = rng.uniform(0, 1, (30, 200)).astype(np.float32), rng.uniform(0, 1, (5, 200)).astype(np.float32)
    real = np.where(np.arange(30) % 2, "M", "F") if classes else features[:, :50].mean(1) * 100
    subjects = np.arange(30).astype(str)
    runs = [real, rng.permutation(real)]
    for run, made in zip(runs, classical_of_shuffled(features, ahead, runs, subjects, classes), strict=True):
        assert made == pytest.approx(classical(features, run, subjects, ahead, classes))


def ball(edge: int = 32) -> torch.Tensor:
    """A round brain with a bright half and a map of tissue, shape (2, x, y, z)."""
    places = np.indices((edge,) * 3) - (edge - 1) / 2
    inside = (places**2).sum(0) < (0.36 * edge) ** 2
    image = np.where(inside, np.where(places[0] > 0, 0.6, 0.4), 0)
    return torch.tensor(np.stack([image, inside * 0.5]), dtype=torch.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_stronger_change_is_the_same_one_and_changes_more(kind):
    scan = ball()
    found = [perturb(scan, kind, strength, 2.0, 0, "scan-1") for strength in KINDS[kind].strengths]
    far = [float((one[0] - scan[0]).abs().mean()) for one in found]
    assert len(far) == 5 and far == sorted(far) and 0 < far[0] < far[-1] / 1.5
    assert torch.equal(found[2], perturb(scan, kind, KINDS[kind].strengths[2], 2.0, 0, "scan-1"))
    assert all(one.min() >= 0 and one.max() <= 1 and one.shape == scan.shape for one in found)
    assert all(torch.equal(one[1], scan[1]) == (kind in OF_INTENSITIES) for one in found)
    if kind in OF_INTENSITIES:
        assert torch.equal(perturb(scan, kind, KINDS[kind].strengths[4], 2.0, None, "scan-1"), scan)
        assert all((one[0][scan[0] == 0] == 0).all() for one in found)


def centre(volume: torch.Tensor) -> np.ndarray:
    weights = (volume > 0).numpy().astype(float)
    return np.array([(weights * axis).sum() / weights.sum() for axis in np.indices(weights.shape)])


def test_strengths_are_in_the_units_that_are_named():
    scan = ball()
    inside = scan[0] > 0
    shifted = perturb(scan, "shift", 8, 2.0, 0, "x")
    assert np.linalg.norm(centre(shifted[0]) - centre(scan[0])) * 2.0 == pytest.approx(8, abs=0.5)
    gain = (perturb(scan, "bias field", 10, 2.0, 0, "x")[0][inside] / scan[0][inside]).log()
    assert float(gain.std()) == pytest.approx(0.10, abs=0.01)
    noise = (perturb(scan, "noise", 0.05, 2.0, 0, "x")[0] - scan[0])[inside]
    assert float(noise.std()) == pytest.approx(0.05, rel=0.1)
    flat = inside & (ball()[1] > 0)
    profile = perturb(scan, "blur", 6, 2.0, 0, "x")[0][:, 16, 16]
    steep = float(profile.diff()[12:19].max()) / 2.0  # per mm, where the halves meet: a Gaussian's height times 0.2
    assert steep == pytest.approx(0.2 / (np.sqrt(2 * np.pi) * 6 / FWHM), rel=0.1) and flat.any()
    turned = perturb(scan, "rotation", 15, 2.0, 0, "x")[0] - perturb(scan, "rotation", 15, 2.0, 0, "y")[0]
    assert float(turned.abs().max()) > 0.1  # another scan turns about another axis


@pytest.fixture(scope="module", params=["age", "sex"])
def trained(request, tmp_path_factory):
    """A small experiment, and the same with shuffled labels and with half of the people."""
    name, folder = request.param, tmp_path_factory.mktemp("controls")
    files, target = write_dataset(folder / "data", subjects=30), TARGETS[request.param]
    classes = list(target.get("classes", [])) or None
    split(files["labels"], folder / "splits.csv", target=name, classes=classes, folds=2)
    settings = {"experiment": name, "dataset": {"title": "Test", "simulate": {}}, "names": {"target": name}, "target": target}
    settings |= {"preprocess": {"registration": "affine", "channels": ["image"], "voxel_mm": 4}, "network": NETWORK}
    training = training_settings(epochs=15, learning_rate=0.02, seeds=[0], augmentation={"mirror": 0})
    settings |= {"training": training, "auxiliary": [], "covariates": ["sex"] if name == "age" else [], "impute": False}
    (folder / "settings.json").write_text(json.dumps(settings))
    parts = {part: training_part(settings, part) for part in ("target", "inputs", "network", "training")}
    assert training_part(settings, "training", control="shuffled") == parts["training"]
    assert training_part(settings, "training", control="fraction-0.25")["epochs"] == 4 * 15, "as many steps as with all people"
    made = {}
    for control, flags in {"": None, "shuffled": {"shuffle": 0}, "half": {"fraction": 0.5}}.items():
        used = {"labels": files["labels"], "splits": folder / "splits.csv"}
        if flags:
            altered = {"altered_labels": folder / control / "labels.csv", "altered_splits": folder / control / "splits.csv"}
            alter(**used, **altered, target=name, category=classes is not None, **flags)
            used = {"labels": altered["altered_labels"], "splits": altered["altered_splits"]}
        models = []
        for fold in range(2):
            out = folder / control / f"fold-{fold}"
            models.append(out / "model.pt")
            train(
                models[-1], out / "history.csv", out / "warnings.json", out / "work", **{**files, **used}, fold=fold, seed=0,
                **parts,
            )  # fmt: skip
        made[control] = {**used, "models": models}
    about = {**files, "splits": folder / "splits.csv", "settings": folder / "settings.json", "models": made[""]["models"]}
    return {"name": name, "folder": folder, "about": about, "made": made}


def cells_of(tree) -> list[float]:
    """Every number under value, low or high in a file of results."""
    if isinstance(tree, list):
        return [number for one in tree for number in cells_of(one)]
    if not isinstance(tree, dict):
        return []
    own = [tree[key] for key in ("value", "low", "high") if tree.get(key) is not None and not isinstance(tree[key], str)]
    return own + [number for one in tree.values() for number in cells_of(one)]


def numbers_of(table: pd.DataFrame) -> list[float]:
    return table[["value", "low", "high"]].to_numpy(float).ravel().tolist()


def test_controls_are_at_chance_and_the_table_says_what_the_json_does(trained, monkeypatch):
    monkeypatch.setattr("mriflow.controls.RUNS", 19)
    folder, made = trained["folder"], trained["made"]
    given = {"shuffled_labels": made["shuffled"]["labels"], "shuffled_models": made["shuffled"]["models"]}
    given |= {"fractions": [0.5, 1], "thinned_splits": [made["half"]["splits"]], "thinned_models": made["half"]["models"]}
    found = controls(folder / "controls.json", folder / "controls.csv", **trained["about"], **given)
    control = found["permutation"]
    assert control["at_chance"] and found["simulated"] and found["n"] == 30
    assert control["classical"]["p"] == pytest.approx(1 / 20)
    half, whole = found["fractions"]
    assert half["people"] == pytest.approx(whole["people"] / 2, abs=1)
    metric = found["metric"]
    better = min if metric == "mae" else max
    real = whole["network"][metric]["value"]
    assert better(real, control["network"][metric]["value"]) == real
    table, written_down = pd.read_csv(folder / "controls.csv"), json.loads((folder / "controls.json").read_text())
    real_of_classical = written_down["permutation"]["classical"]["real"]
    expected = sorted([*cells_of(written_down), real_of_classical])
    assert sorted(number for number in numbers_of(table) if not np.isnan(number)) == pytest.approx(expected)
    plot(["training-size", *figure(folder, "size"), f"--result={folder / 'controls.json'}"])
    assert (folder / "size.png").stat().st_size > 5000


def figure(folder, name):
    return [f"--pdf={folder / name}.pdf", f"--png={folder / name}.png"]


def test_robustness_begins_with_the_scans_as_they_are_and_gets_worse(trained):
    folder = trained["folder"]
    found = robustness(folder / "r.json", folder / "r.csv", **trained["about"])
    assert len(found["changes"]) == 6 * 5
    metric = found["metric"]
    for one in found["changes"]:
        difference = one["metrics"][metric]["value"] - found["unchanged"][metric]["value"]
        assert one["difference"]["value"] == pytest.approx(difference)
    if trained["name"] == "age":  # it is told by brightness
        worst = [one for one in found["changes"] if one["kind"] == "contrast"][-1]
        assert worst["difference"]["low"] > 0
    table = pd.read_csv(folder / "r.csv")
    numbers = [number for number in numbers_of(table) if not np.isnan(number)]
    assert sorted(numbers) == pytest.approx(sorted(cells_of(json.loads((folder / "r.json").read_text()))))
    before = (folder / "r.json").read_bytes()
    robustness(folder / "r.json", folder / "r.csv", **trained["about"])
    assert (folder / "r.json").read_bytes() == before
    plot(["robustness", *figure(folder, "robust"), f"--result={folder / 'r.json'}"])
    assert (folder / "robust.png").stat().st_size > 5000


def test_plan_shows_the_trainings_of_controls_and_no_more_by_default(tmp_path):
    folder = checkout(tmp_path / "clean")
    plain = jobs(snakemake(folder, "-n"))
    assert plain["attention"] == plain["plot_depth"] == 2
    assert not {"alter", "train_altered", "controls", "robustness"} & plain.keys()
    asked = {"controls": {"permutation": True, "fractions": [0.25, 0.5, 1], "robustness": True}, "attention": "none"}
    (folder / "more.yaml").write_text(yaml.safe_dump({"experiments": {"demo-age": asked}}))
    planned = jobs(snakemake(folder, "-n", "--configfile", "more.yaml"))
    assert (planned["alter"], planned["train_altered"], planned["train"]) == (3, 9, 6)
    assert planned["controls"] == planned["robustness"] == planned["attention"] == 1


@pytest.mark.parametrize(("changes", "told"), [
    ({"controls": {"fractions": [0]}}, "experiments.demo-age.controls.fractions[0]: found 0, expected a number above 0"),
    ({"controls": {"permutations": True}}, "controls.permutations: unknown key; did you mean 'permutation'?"),
    ({"attention": "gradcam"}, "experiments.demo-age.attention: found 'gradcam', expected one of occlusion, gradients, both"),
])  # fmt: skip
def test_control_that_there_is_not_is_refused_in_words(changes, told, tmp_path):
    assert told in message(written(tmp_path, {"experiments": {"demo-age": changes}}))


def test_cost_counts_the_trainings_of_controls(tmp_path):
    asked = {"controls": {"permutation": True, "fractions": [0.5, 1]}}
    plain = models_of(resolved(), ["demo-age"])["demo-age"]
    more = models_of(resolved(written(tmp_path, {"experiments": {"demo-age": asked}})), ["demo-age"])["demo-age"]
    assert len(plain) == 3 and len(more) == 9 and plain < more


def test_the_rule_knows_how_many_changes_robustness_makes():
    changes = 1 + sum(len(kind.strengths) for kind in KINDS.values())
    assert f"\nCHANGES = {changes}  #" in (ROOT / "workflow/rules/common.smk").read_text()
