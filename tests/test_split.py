import pandas as pd
import pytest

from mriflow.errors import UserError
from mriflow.split import check_leaks, split


def make_labels(path, subjects=60, sessions=1):
    rows = [
        {
            "id": f"s{s}-{k}",
            "subject": f"s{s}",
            "session": str(k),
            "site": "ABC"[s % 3],
            "age": 20 + s % 47 + k,
            "sex": "MF"[s % 2],
            "path": "x",
            "fingerprint": f"{s}-{k}",
            "problem": "",
            "notes": "",
        }
        for s in range(subjects)
        for k in range(sessions)
    ]
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


@pytest.fixture
def labels(tmp_path):
    return make_labels(tmp_path / "labels.csv", sessions=2)


def test_every_scan_is_tested_once_and_no_subject_stands_on_two_sides(labels, tmp_path):
    table = split(labels, tmp_path / "s.csv", target="age", folds=5, stratify=["sex", "site"])
    assert table[table["part"] == "test"]["id"].value_counts().eq(1).all()
    assert table[table["part"] == "test"]["id"].nunique() == 120
    assert table.groupby(["fold", "subject"])["part"].nunique().eq(1).all()
    assert set(table["part"]) == {"train", "validation", "test"}


def test_parts_are_balanced(tmp_path):
    labels = make_labels(tmp_path / "labels.csv", subjects=300)
    table = split(labels, tmp_path / "s.csv", target="age", folds=5, stratify=["sex", "site"])
    merged = table.merge(pd.read_csv(labels, dtype={"subject": str}), on="id")
    for _, part in merged.groupby(["fold", "part"]):
        assert abs((part["sex"] == "F").mean() - 0.5) < 0.08
        assert abs((part["site"] == "A").mean() - 1 / 3) < 0.08
        assert abs(part["age"].mean() - merged["age"].mean()) < 3.5


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(labels, tmp_path):
    files = [tmp_path / f"{i}.csv" for i in range(3)]
    for file, seed in zip(files, (0, 0, 1), strict=True):
        split(labels, file, target="sex", classes=["F", "M"], seed=seed)
    assert files[0].read_bytes() == files[1].read_bytes() != files[2].read_bytes()


def test_leave_site_out_tests_each_site_once(labels, tmp_path):
    table = split(labels, tmp_path / "s.csv", target="age", method="leave-site-out", sites=["A", "B", "C"])
    merged = table.merge(pd.read_csv(labels), on="id")
    tested = merged[merged["part"] == "test"].groupby("fold")["site"].unique().map(list).to_dict()
    assert tested == {0: ["A"], 1: ["B"], 2: ["C"]}
    with pytest.raises(UserError, match="site 'D'"):
        split(labels, tmp_path / "s.csv", target="age", method="leave-site-out", sites=["A", "D"])


@pytest.mark.parametrize(("column", "what"), [("subject", "subject"), ("fingerprint", "image"), ("id", "scan")])
def test_a_leak_is_an_error_that_names_it(column, what):
    rows = {"fold": [0, 0, 1], "part": ["train", "test", "train"], "id": ["a", "b", "a"]}
    table = pd.DataFrame(rows | {"subject": ["sa", "sb", "sa"], "fingerprint": ["1", "2", "1"]})
    check_leaks(table, "splits.csv")
    table.loc[1, column] = table.loc[0, column]
    with pytest.raises(UserError, match=f"leak: 1 time.* same {what} stands in two parts"):
        check_leaks(table, "splits.csv")


def test_too_few_subjects_or_members_of_a_class_are_told(tmp_path):
    labels = make_labels(tmp_path / "labels.csv", subjects=12)
    with pytest.raises(UserError, match="12 usable subjects are too few for 5 folds"):
        split(labels, tmp_path / "s.csv", target="age", folds=5)
    table = pd.read_csv(make_labels(tmp_path / "labels.csv"))
    table["sex"] = ["F"] * 58 + ["M"] * 2
    table.to_csv(labels, index=False)
    with pytest.raises(UserError, match="class 'M' has 2 subjects, 5 folds need at least 5"):
        split(labels, tmp_path / "s.csv", target="sex", classes=["F", "M"])


def test_scans_with_a_problem_are_not_split_and_a_problem_of_another_column_does_not_matter(labels, tmp_path):
    table = pd.read_csv(labels)
    table["problem"] = table["problem"].astype(object)
    table.loc[0, "problem"], table.loc[2, "problem"] = "scan: left out by hand (motion)", "sex: missing"
    table.to_csv(labels, index=False)
    ids = set(split(labels, tmp_path / "s.csv", target="age")["id"])
    assert "s0-0" not in ids
    assert "s1-0" in ids


def test_no_scan_of_the_left_out_site_or_of_its_subjects_is_trained_on(tmp_path):
    table = pd.read_csv(make_labels(tmp_path / "labels.csv", sessions=2))
    table.loc[(table["session"] == 1) & (table["subject"].isin(["s0", "s3"])), "site"] = "B"  # the first scan was at A
    table.to_csv(tmp_path / "labels.csv", index=False)
    splits = split(tmp_path / "labels.csv", tmp_path / "s.csv", target="age", method="leave-site-out", sites=["A", "B", "C"])
    merged = splits.merge(table[["id", "site"]], on="id")
    for fold, site in enumerate("ABC"):
        part = merged[merged["fold"] == fold]
        assert set(part.loc[part["part"] == "test", "site"]) == {site}
        assert site not in set(part.loc[part["part"] != "test", "site"])


@pytest.mark.parametrize("share", [0.1, 0.15, 0.25, 0.4])
def test_validation_part_is_as_large_as_asked(share, tmp_path):
    table = split(make_labels(tmp_path / "labels.csv", subjects=200), tmp_path / "s.csv", target="age", validation=share)
    rest = table[table["part"] != "test"]
    assert (rest["part"] == "validation").mean() == pytest.approx(share, abs=0.015)


def test_numbers_are_stratified_by_their_quarters(tmp_path):
    table = pd.read_csv(make_labels(tmp_path / "labels.csv", subjects=200))
    table["age"] = range(200)
    table.to_csv(tmp_path / "labels.csv", index=False)
    options = {"target": "sex", "classes": ["F", "M"], "folds": 5, "stratify": ["age"]}
    splits = split(tmp_path / "labels.csv", tmp_path / "s.csv", **options).merge(table[["id", "age"]], on="id")
    means = splits[splits["part"] == "test"].groupby("fold")["age"].mean()
    assert means.max() - means.min() < 8


def test_classes_that_look_like_numbers(tmp_path):
    table = pd.read_csv(make_labels(tmp_path / "labels.csv"))
    table["cdr"] = ["0", "1", ""] * 20
    table.to_csv(tmp_path / "labels.csv", index=False)
    assert split(tmp_path / "labels.csv", tmp_path / "s.csv", target="cdr", classes=["0", "1"], folds=3)["id"].nunique() == 40
