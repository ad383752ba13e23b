"""No name that a user can give collides with one of ours: the names are taken from the lists themselves."""

import numpy as np
import pandas as pd
import pytest

from conftest import write_scan
from mriflow.base.errors import UserError
from mriflow.check import check
from mriflow.config.resolve import BIDS_SUBJECT, described_bids
from mriflow.images.headers import read_header
from mriflow.layout import layout
from mriflow.organize import organize
from mriflow.pages import page_cohort
from mriflow.preprocess import INDEX_COLUMNS
from mriflow.reporting.findings import FIELDS, HEADER
from mriflow.split import split
from mriflow.tables.labels import RESERVED, TEXT_COLUMNS, read_labels
from mriflow.tables.splits import read_splits

SUBJECTS = 24
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Every column that some stage makes beside the labels, by the tables themselves."""
    folder = tmp_path_factory.mktemp("names")
    scan = write_scan(folder / "a.nii", np.ones((16, 16, 16), np.int16), 12)
    own = {*HEADER, *FIELDS, *read_header(scan), *INDEX_COLUMNS, *TEXT_COLUMNS}
    own |= {"part", "fold", "scans", "subjects", "preprocessed", "array", "alternatives", "excluded_from", "far", "voxels"}
    own |= {"truth", "network", "trivial", "classical", "age_mean", "age_difference", "level", "what", "first", "row", "index"}
    return sorted(name for name in own if name.replace("_", "a").isalnum() and name.islower())


def test_a_label_may_be_called_as_any_column_of_ours_in_every_stage(made, tmp_path):
    free = [name for name in made if name not in TEXT_COLUMNS]
    assert len(free) > 30 and {"part", "orientation", "matrix", "spacing", "dtype", "bytes", "fault", "qform_code"} <= set(free)
    numbers = {name: RNG.uniform(1, 99, SUBJECTS).round(2) for name in free}
    voxels = RNG.integers(0, 99, (SUBJECTS, 16, 16, 16)).astype(np.int16)
    paths = [write_scan(tmp_path / f"s{i}.nii", volume, 12) for i, volume in enumerate(voxels)]
    table = pd.DataFrame({"file": [path.name for path in paths], "who": [f"s{i}" for i in range(SUBJECTS)], **numbers})
    table.to_csv(tmp_path / "t.csv", index=False)
    columns = {"path": {"from": "file"}, "subject": {"from": "who"}}
    columns |= {name: {"from": name, "range": [0, 100]} for name in free}
    files = {"labels": tmp_path / "d/labels.csv", "scans": tmp_path / "d/scans.csv", "table": tmp_path / "t.csv"}
    organize(**files, columns=columns, scans_per_session="first")
    labels = read_labels(tmp_path / "d/labels.csv").set_index("subject").loc[table["who"]]
    for name in free:
        assert labels[name].tolist() == numbers[name].tolist(), name
    targets = {name: [] for name in free}
    found = check(tmp_path / "d/labels.csv", targets=targets, csv=tmp_path / "h.csv", page=tmp_path / "h.html")
    assert not [one for one in found if one.level == "error"]
    assert pd.read_csv(tmp_path / "h.csv")["matrix"].tolist() == ["16x16x16"] * SUBJECTS
    page_cohort(
        tmp_path / "d/labels.csv", tmp_path / "c.html", tmp_path / "c.csv",
        indices=[], targets=targets, title="", licence="", citation="",
    )  # fmt: skip
    for name in free:
        laid_out = layout(tmp_path / "d/labels.csv", tmp_path / f"d/{name}/labels.csv", column=name)
        assert sorted(laid_out["label"]) == sorted(numbers[name]), name
        spread = [other for other in ("part", "fold", "scans") if other != name]
        split(
            tmp_path / "d/labels.csv", tmp_path / "s.csv", target=name, folds=2, validation=0.25,
            stratify=spread, balance=tmp_path / "b.csv",
        )  # fmt: skip
        splits = read_splits(tmp_path / "s.csv")
        assert set(splits["part"]) == {"train", "validation", "test"} and set(splits["fold"]) == {0, 1}


def test_a_label_may_be_called_so_where_a_table_is_joined_with_images_and_visits(made, tmp_path):
    free = [*(name for name in made if name not in TEXT_COLUMNS), "_merge", "told", "filename"]
    values = "\t".join(map(str, range(len(free))))
    write_scan(tmp_path / "sub-1/anat/sub-1_T1w.nii", np.ones((4, 4, 4), np.int16))
    (tmp_path / "participants.tsv").write_text("participant_id\t" + "\t".join(free) + f"\nsub-1\t{values}\n")
    described = described_bids(str(tmp_path))
    described |= {"images": [tmp_path], "table": tmp_path / "participants.tsv"}
    columns = {"subject": BIDS_SUBJECT} | {name: {"from": name, "range": [0, 100]} for name in free}
    rows = organize(tmp_path / "d/labels.csv", tmp_path / "d/scans.csv", columns=columns, **described)
    assert rows[free].to_numpy().tolist() == [list(range(len(free)))]


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_a_name_that_cannot_be_a_label_is_refused_in_words(name, tmp_path):
    (tmp_path / "t.csv").write_text("who,file\na,a.nii\n")
    columns = {"subject": {"from": "who"}, "path": {"from": "file"}, name: {"from": "who"}}
    with pytest.raises(UserError, match=f"have '{name}', a name of the workflow's own"):
        organize(tmp_path / "d/labels.csv", tmp_path / "d/scans.csv", table=tmp_path / "t.csv", columns=columns)


@pytest.mark.parametrize("classes", [None, {"f": "Females"}])
def test_subjects_whose_folders_would_be_one_have_one_each(tmp_path, classes):
    subjects = ["P 1", "P-1", "P/1", "p-1", "Pé", "P", "Q", "Q"]
    rows = [
        {"id": f"{'P_1' if i < 2 else i}/{i}", "subject": subject, "age": i, "sex": "f", "path": f"{i}.nii"}
        for i, subject in enumerate(subjects)
    ]
    for row in rows:
        (tmp_path / row["path"]).write_text(row["path"])
    labels = pd.DataFrame(rows).assign(session="", site="", fingerprint="", problem="", notes="")
    labels.to_csv(tmp_path / "labels.csv", index=False)
    for _ in range(2):
        table = layout(tmp_path / "labels.csv", tmp_path / "l/labels.csv", column="sex" if classes else "age", classes=classes)
    assert table["path"].map(str).str.lower().nunique() == len(subjects)
    assert [(tmp_path / "l" / path).read_text() for path in table["path"]] == labels["path"].tolist()
    assert table["ID"].nunique() == len(set(subjects))
    assert table["ID"][1] == "Sub_P-1", "a name that needs no change stays"
