"""Tissues of scans told apart by networks that segment, instead of by brightness alone."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from mriflow.base.errors import UserError
from mriflow.bundle import CONTRAST, bundle
from mriflow.images.scan import run_scan
from mriflow.prediction.stored import CHECKSUMS, METADATA, read_stored, sha256
from mriflow.prediction.tissue_network import TissueNetwork
from mriflow.preprocess import preprocess
from test_predict_maps import GRID, made  # noqa: F401 - a fixture
from test_preprocess import brain  # noqa: F401 - a fixture of that one

CHANNELS = ["image", "gm", "wm"]


@pytest.fixture(scope="module")
def tissues(made):  # noqa: F811
    """The model of the dark and bright halves, which calls these grey and white matter."""
    folder = made["folder"] / "tissues"
    shutil.copytree(made["model"], folder)
    metadata = json.loads((folder / METADATA).read_text())
    metadata["mriflow"]["target"]["classes"] = ["gm", "wm"]
    (folder / METADATA).write_text(json.dumps(metadata))
    names = [line.split("  ", 1)[1] for line in (folder / CHECKSUMS).read_text().splitlines()]
    (folder / CHECKSUMS).write_text("".join(f"{sha256(folder / name)}  {name}\n" for name in names))
    return folder


def prepared(made, folder, **options):  # noqa: F811
    """Preprocess the scans with maps of their tissues; return shard and index."""
    array, index = folder / "shard-000.npy", folder / "shard-000.csv"
    folder.mkdir(exist_ok=True)
    preprocess(made["folder"] / "labels.csv", array, index, stripped=True, channels=CHANNELS, **GRID, **options)
    return np.load(array), pd.read_csv(index)


def test_maps_are_the_networks_own_and_known_by_its_weights_wherever_it_lies(made, tissues, tmp_path):  # noqa: F811
    maps, index = prepared(made, tmp_path / "a", tissues=str(tissues), cache=tmp_path / "cache")
    image, grey, white = (maps[:, number].astype(float) for number in range(3))
    inside = image > 0
    assert (grey[~inside] == 0).all() and (white[~inside] == 0).all()
    assert np.median((grey + white)[inside]) > 240, "probabilities of both, of 255"
    halves = np.load(made["folder"] / "shard-000.npy")[:, 1]
    for number, one in ((1, grey), (2, white)):
        own, other = one[halves == number].mean(), one[halves == 3 - number].mean()
        assert own > other + 30, (number, own, other)
    shutil.copytree(tissues, tmp_path / "moved")
    again, same = prepared(made, tmp_path / "b", tissues=str(tmp_path / "moved"))
    assert (again == maps).all() and same["key"].equals(index["key"])
    said = tmp_path / "moved" / METADATA
    said.write_text(said.read_text().replace('"git_commit"', '"git_commit_of_another"'))
    assert TissueNetwork(tmp_path / "moved").version == TissueNetwork(tissues).version, "what is only said changes no map"
    mixed, other = prepared(made, tmp_path / "c")
    assert not set(other["key"]) & set(index["key"]) and not (mixed == maps).all()
    assert (mixed[:, 0] == maps[:, 0]).all(), "the image itself does not depend on it"


def test_a_model_whose_scans_were_prepared_by_it_takes_it_along(made, tissues, tmp_path):  # noqa: F811
    folder = made["folder"]
    given = {name: folder / f"{name}.json" for name in ("settings", "metrics")}
    given |= {name: folder / f"{name}.csv" for name in ("labels", "splits", "headers")}
    models = [folder / f"fold-{fold}_seed-0/model.pt" for fold in range(3)]
    shards = {"arrays": [folder / "shard-000.npy"], "indices": [folder / "shard-000.csv"]}
    bundle(tmp_path / "model", models=models, tissues=tissues, **given, **shards)
    stored = read_stored(tmp_path / "model")
    network = TissueNetwork.of(stored)
    assert network.folder == tmp_path / "model/tissues" and network.version == TissueNetwork(tissues).version
    assert TissueNetwork.of(read_stored(made["model"])) is None
    scan = {"id": "one", "path": str(made["paths"][0]), "fingerprint": ""}
    settings = stored.settings.__class__(**{**vars(stored.settings), "channels": ("gm",)})
    by_copy, by_itself = (run_scan(scan, "", folder, settings, tissues=one).volume for one in (network, TissueNetwork(tissues)))
    assert by_copy.any() and (by_copy == by_itself).all()
    (tmp_path / "model/tissues/models/fold-0_seed-0.pt").write_bytes(b"")
    with pytest.raises(UserError, match=r"tissues/models/fold-0_seed-0\.pt: was changed or damaged"):
        read_stored(tmp_path / "model")


@pytest.mark.parametrize("simulated", [False, True])
def test_a_model_of_generated_images_knows_no_usual_contrast_of_simulated_brains_nothing(made, tmp_path, simulated):  # noqa: F811
    folder = made["folder"]
    given = {name: folder / f"{name}.csv" for name in ("labels", "splits", "headers")}
    given |= {"metrics": folder / "metrics.json", "models": [folder / f"fold-{fold}_seed-0/model.pt" for fold in range(3)]}
    given |= {"arrays": [folder / "shard-000.npy"], "indices": [folder / "shard-000.csv"]}
    settings = json.loads((folder / "settings.json").read_text())
    usual = bundle(tmp_path / "scans", settings=folder / "settings.json", **given)["mriflow"]["seen"]
    settings["training"]["synthesis"] = {"share": 1}
    settings["dataset"].pop("simulate", None)
    settings["dataset"] |= {"simulate": {"subjects": 3}} if simulated else {}
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    seen = bundle(tmp_path / "generated", settings=tmp_path / "settings.json", **given)["mriflow"]["seen"]
    assert usual["voxel_mm"] and usual["measures"].keys() & CONTRAST
    assert seen["voxel_mm"] is None
    assert seen["measures"].keys() == (set() if simulated else usual["measures"].keys() - CONTRAST)
    read_stored(tmp_path / "generated")


@pytest.mark.parametrize(
    ("channels", "told"),
    [(CHANNELS, "tells dark, bright, expected a segmentation with the classes gm, wm"), (["csf"], "expected a segmentation")],
)
def test_a_model_that_does_not_tell_the_tissues_is_refused(made, tmp_path, channels, told):  # noqa: F811
    with pytest.raises(UserError, match=told):
        preprocess(
            made["folder"] / "labels.csv", tmp_path / "s.npy", tmp_path / "s.csv", stripped=True, channels=channels,
            tissues=str(made["model"]), **GRID,
        )  # fmt: skip
