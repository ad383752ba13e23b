"""Which image stands for a session: one that can be used, shows the whole head, and has no contrast agent."""

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from conftest import write_scan
from mriflow.config.resolve import described_bids
from mriflow.organize import organize

RNG = np.random.default_rng(0)
HEAD, SLAB = (48, 60, 50), (48, 60, 18)  # of 4 mm voxels


def noise(shape: tuple) -> np.ndarray:
    return RNG.integers(0, 99, shape).astype(np.int16)


def chosen(folder: Path, images: dict[str, tuple | bytes], exclude=None, sidecars=None) -> pd.DataFrame:
    """Organize a BIDS dataset with images of these shapes, or with this content, and return its rows; and scans.csv."""
    anat = folder / "bids/sub-01/anat"
    for name, what in images.items():
        file = write_scan(anat / f"sub-01_{name}T1w.nii.gz", noise(what if isinstance(what, tuple) else HEAD))
        if isinstance(what, bytes):
            file.write_bytes(what)
    for name, text in (sidecars or {}).items():
        (anat / f"sub-01_{name}T1w.json").write_text(json.dumps(text))
    (folder / "bids/participants.tsv").write_text("participant_id\tage\nsub-01\t30\n")
    options = described_bids(str(folder / "bids"))
    options["table"], options["images"] = Path(options["table"]), [Path(one) for one in options["images"]]
    columns = {"subject": {"from": "participant_id"}, "age": {"from": "age", "range": [0, 110]}}
    rows = organize(folder / "d/labels.csv", folder / "d/scans.csv", columns=columns, exclude=exclude, **options)
    return rows.set_index("id"), pd.read_csv(folder / "d/scans.csv", dtype=str, keep_default_na=False)


WHOLE = gzip.compress(RNG.bytes(4000), mtime=0)


@pytest.mark.parametrize(
    ("images", "used", "why"),
    [
        ({"run-1_": HEAD, "run-2_": HEAD}, "run-2_", "sub-01_run-1_T1w: left out by hand"),
        ({"run-1_": b"", "run-2_": HEAD}, "run-2_", "sub-01_run-1_T1w: file is empty"),
        ({"run-1_": WHOLE[:-99], "run-2_": HEAD}, "run-2_", "sub-01_run-1_T1w: file cannot be read"),
        ({"run-1_": b"\x1f\x8bno gzip", "run-2_": HEAD}, "run-2_", "sub-01_run-1_T1w: file cannot be read"),
        ({"acq-slab_": SLAB, "acq-whole_": HEAD}, "acq-whole_", "sub-01_acq-slab_T1w: small field of view, 72 mm"),
        ({"acq-mprageGd_": HEAD, "acq-preGd_": HEAD}, "acq-preGd_", "sub-01_acq-mprageGd_T1w: with contrast agent"),
        ({"acq-T1ce_": HEAD, "acq-noContrast_": HEAD}, "acq-noContrast_", "sub-01_acq-T1ce_T1w: with contrast agent"),
        ({"ce-gd_": HEAD, "run-1_": HEAD}, "run-1_", "sub-01_ce-gd_T1w: with contrast agent"),
        ({"acq-slab_": SLAB, "ce-gd_": HEAD}, "ce-gd_", "sub-01_acq-slab_T1w: small field of view, 72 mm"),
        ({"run-1_": (*HEAD, 2), "run-2_": HEAD}, "run-2_", "sub-01_run-1_T1w: image is not 3D"),
        ({"run-1_": HEAD, "run-2_": SLAB, "ce-gd_": HEAD}, "run-1_", "sub-01_ce-gd_T1w: with contrast agent"),
    ],
    ids=[
        "left out",
        "empty",
        "cut short",
        "damaged",
        "slab",
        "two words",
        "T1ce",
        "contrast",
        "slab and contrast",
        "4D",
        "three",
    ],
)
def test_an_image_that_cannot_be_used_or_is_worse_gives_its_place_to_a_sibling(tmp_path, images, used, why):
    exclude = {"sub-01_run-1_T1w": "motion"} if "left out" in why else None
    rows, scans = chosen(tmp_path, images, exclude)
    assert scans["id"].tolist() == [f"sub-01_{used}T1w"]
    assert rows.loc[f"sub-01_{used}T1w", "problem"] == ""
    assert rows.loc[f"sub-01_{used}T1w", "notes"].startswith(f"session: not its first image is used ({why}")
    assert (rows["problem"] != "").sum() == len(images) - 1


def test_contrast_agent_is_known_from_the_sidecar_too(tmp_path):
    _, scans = chosen(tmp_path, {"run-1_": HEAD, "run-2_": HEAD}, sidecars={"run-1_": {"ContrastBolusAgent": "GADAVIST"}})
    assert scans["id"].tolist() == ["sub-01_run-2_T1w"]


def test_the_alternatives_are_listed_the_best_first_and_what_cannot_be_used_is_none(tmp_path):
    images = {"run-1_": HEAD, "ce-gd_": HEAD, "acq-slab_": SLAB, "run-2_": HEAD, "run-3_": b""}
    rows, scans = chosen(tmp_path, images)
    assert scans["id"].tolist() == ["sub-01_run-1_T1w"]
    alternatives = json.loads(scans["alternatives"][0])
    names = [Path(one["path"]).name.removesuffix("_T1w.nii.gz") for one in alternatives]
    assert names == ["sub-01_run-2", "sub-01_ce-gd", "sub-01_acq-slab"]
    for one in alternatives:
        assert (tmp_path / "d" / one["path"]).is_file()
        assert one["fingerprint"] in set(rows["fingerprint"])
    told = "scan: another of the session is used (sub-01_run-1_T1w)"
    assert rows["problem"].value_counts()[told] == 3


def test_a_list_without_alternatives_has_no_such_column(tmp_path):
    _, scans = chosen(tmp_path, {"": HEAD})
    assert list(scans) == ["id", "path", "fingerprint"]
