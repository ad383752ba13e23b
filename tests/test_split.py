import itertools
import logging
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml

from mriflow.base.errors import UserError
from mriflow.layout import layout
from mriflow.reporting.balance_tables import balance_tables
from mriflow.split import split
from mriflow.tables.balance import balance_of
from mriflow.tables.split_file import folds_of, read_split_file
from mriflow.tables.splits import check_leaks
from test_config import message, resolved, written
from test_workflow import checkout, jobs, snakemake


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


def test_a_subject_is_one_whatever_differs_between_the_sessions(tmp_path):
    """Three sessions in different places of the table, at different sites, with another age, class and file."""
    table = pd.read_csv(make_labels(tmp_path / "labels.csv", subjects=90, sessions=3)).sample(frac=1, random_state=1)
    table["site"] = ["ABC"[i % 3] for i in range(len(table))]
    table["cdr"] = ["none", "some"] * 135
    table.to_csv(tmp_path / "labels.csv", index=False)
    everything = {"target": "cdr", "classes": ["none", "some"], "stratify": ["age", "sex", "site"]}
    for method, seed in itertools.product(("k-fold", "leave-site-out"), range(3)):
        splits = split(tmp_path / "labels.csv", tmp_path / "s.csv", method=method, sites=list("ABC"), seed=seed, **everything)
        assert splits.groupby(["fold", "subject"])["part"].nunique().eq(1).all()
        assert splits["subject"].nunique() == 90


def content_twice(labels, first, second):
    """Give the scan `second` the image of `first`."""
    table = pd.read_csv(labels)
    table.loc[table["id"] == second, "fingerprint"] = table.loc[table["id"] == first, "fingerprint"].iloc[0]
    table.to_csv(labels, index=False)
    return labels


def test_the_same_image_of_two_subjects_on_two_sides_is_an_error(labels, tmp_path):
    """As it is when a copy is given another id and another subject; a hundred other scans change nothing."""
    drawn = split(labels, tmp_path / "s.csv", target="age")
    fold = drawn[drawn["fold"] == 0].set_index("id")["part"]
    trained, tested = fold.index[fold == "train"][0], fold.index[fold == "test"][0]
    (tmp_path / "s.csv").unlink()
    content_twice(labels, trained, tested)
    with pytest.raises(UserError, match=f"leak: .* the same image stands in two parts .*{trained} in train"):
        split(labels, tmp_path / "s.csv", target="age")
    assert not (tmp_path / "s.csv").exists()


# --- balance ---


def uneven_labels(path, subjects=120):
    """Labels of which the file `uneven.csv` beside them tests only the oldest, at one site."""
    table = pd.read_csv(make_labels(path, subjects=subjects))
    table["age"] = np.linspace(20, 80, subjects).round(1)
    table.loc[subjects - 30 :, "site"] = "C"
    table.to_csv(path, index=False)
    parts = ["train"] * (subjects - 60) + ["validation"] * 30 + ["test"] * 30
    pd.DataFrame({"subject": table["subject"], "part": parts}).to_csv(path.parent / "uneven.csv", index=False)
    return path


def test_the_balance_of_every_part_is_written_as_one_would_compute_it(tmp_path):
    labels = uneven_labels(tmp_path / "labels.csv")
    split(labels, tmp_path / "s.csv", target="age", method="file", file=tmp_path / "uneven.csv", balance=tmp_path / "b.csv")
    table, balance = pd.read_csv(labels), pd.read_csv(tmp_path / "b.csv").set_index("part")
    assert list(balance.index) == ["train", "validation", "test", "all"]
    assert list(balance.columns) == [
        "fold", "scans", "subjects", "age_mean", "age_sd", "age_difference", "age_chance", "sex=F", "sex=M", "sex_difference",
        "sex_chance", "site=A", "site=B", "site=C", "site_difference", "site_chance",
    ]  # fmt: skip
    test = table[90:]
    assert balance.loc["test", ["fold", "scans", "subjects"]].tolist() == [0, 30, 30]
    assert balance.loc["all", ["fold", "scans", "subjects"]].tolist() == [0, 120, 120]
    assert balance.loc["test", "age_mean"] == pytest.approx(test["age"].mean(), abs=1e-4)
    assert balance.loc["test", "age_sd"] == pytest.approx(test["age"].std(), abs=1e-4)
    difference = (test["age"].mean() - table["age"].mean()) / table["age"].std(ddof=0)
    assert balance.loc["test", "age_difference"] == pytest.approx(difference, abs=1e-4)
    assert balance.loc["test", ["sex=F", "sex=M", "site=A", "site=B", "site=C"]].tolist() == [0.5, 0.5, 0, 0, 1]
    assert balance.loc["test", "site_difference"] == pytest.approx(1 - (table["site"] == "C").mean(), abs=1e-4)
    assert balance.loc["test", ["sex_difference", "sex_chance"]].tolist() == [0, 1]
    assert balance.loc["test", ["age_chance", "site_chance"]].max() < 0.001
    assert balance.loc["all", ["age_difference", "sex_chance"]].isna().all()


def test_an_uneven_part_is_warned_of_once_for_each_column(tmp_path, caplog):
    labels = uneven_labels(tmp_path / "labels.csv")
    split(labels, tmp_path / "s.csv", target="age", method="file", file=tmp_path / "uneven.csv", balance=tmp_path / "b.csv")
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        "age is spread unevenly: 3 part(s) differ from all of their fold by more than 0.25; most of all test of fold 0 "
        "(standardised mean difference 1.30 with 30 subjects; by chance as much or more in 0 % of draws)",
        "site is spread unevenly: 1 part(s) differ from all of their fold by more than 0.2; most of all test of fold 0 "
        "(total variation distance 0.50 with 30 subjects; by chance as much or more in 0 % of draws)",
    ]


@pytest.mark.parametrize("target", [{"target": "age"}, {"target": "sex", "classes": ["F", "M"]}], ids=["age", "sex"])
def test_a_stratified_split_is_better_than_chance_and_an_unstratified_one_is_not(target, tmp_path, caplog):
    table = pd.read_csv(make_labels(tmp_path / "labels.csv", subjects=300))
    table["site"] = ["AABBBC"[i // 2 % 6] for i in range(300)]
    table.to_csv(tmp_path / "labels.csv", index=False)
    chances = {}
    for stratify in (["sex", "site"], []):
        found = []
        for seed in range(4):
            options = {"stratify": stratify, "seed": seed, "balance": tmp_path / "b.csv"}
            split(tmp_path / "labels.csv", tmp_path / "s.csv", **target, **options)
            balance = pd.read_csv(tmp_path / "b.csv")
            found += balance.loc[balance["part"] == "test", "site_chance"].tolist()
        chances[bool(stratify)] = np.median(found)
        assert not (stratify and re.search("(sex|site) is spread unevenly", caplog.text))
    assert chances[True] > 0.8
    assert 0.2 < chances[False] < 0.8


def test_the_chance_is_that_of_random_draws():
    """Of many parts drawn at random, as many have a chance of at most c as c says: the test is neither shy nor shrill."""
    rng = np.random.default_rng(0)
    people = pd.DataFrame({"subject": [f"s{i}" for i in range(80)], "age": rng.gamma(2, 20, 80), "site": list("AABBBBCD") * 10})
    parts = np.array(["train"] * 50 + ["validation"] * 10 + ["test"] * 20)
    rows = pd.concat([people.assign(fold=fold, part=rng.permutation(parts)) for fold in range(400)])
    tested = balance_of(rows, ["age"], ["site"])
    for part, column in itertools.product(("train", "validation", "test"), ("age_chance", "site_chance")):
        chance = tested.loc[tested["part"] == part, column]
        for found in chance.quantile([0.05, 0.3, 0.6], interpolation="nearest"):
            assert (chance <= found).mean() == pytest.approx(found, abs=0.06), (part, column)


def test_the_page_shows_the_balance_of_every_column_with_what_is_large_in_bold(labels, tmp_path):
    options = {"target": "age", "stratify": ["sex"], "folds": 3, "balance": tmp_path / "b.csv"}
    split(labels, tmp_path / "s.csv", **options)
    table = pd.read_csv(tmp_path / "b.csv")
    table.loc[0, ["age_difference", "age_chance"]] = [-0.61, 0.031]
    table.to_csv(tmp_path / "b.csv", index=False)
    age, sex, site, _ = balance_tables(tmp_path / "b.csv")
    assert [one.title for one in (age, sex, site)] == ["age", "sex", "site"]
    assert all(len(one.rows) == len(table) for one in (age, sex, site))
    mean = f"{table['age_mean'][0]:.1f} ± {table['age_sd'][0]:.1f}"
    assert age.rows[0][-3:] == [mean, "<b>−0.61</b>", "3 %"]
    assert site.rows[0][4] == f"{100 * table['site=A'][0]:.0f} %"
    (tmp_path / "other.csv").write_text("a\n1\n")
    with pytest.raises(UserError, match="not a table of how a split is balanced"):
        balance_tables(tmp_path / "other.csv")


def test_balance_counts_subjects_once_and_the_unknown_as_such(tmp_path):
    table = pd.read_csv(make_labels(tmp_path / "labels.csv", subjects=40, sessions=2))
    table["site"] = ""
    table.loc[table["subject"] == "s0", "sex"] = None
    table.to_csv(tmp_path / "labels.csv", index=False)
    split(tmp_path / "labels.csv", tmp_path / "s.csv", target="age", stratify=["session"], balance=tmp_path / "b.csv")
    balance = pd.read_csv(tmp_path / "b.csv")
    everyone = balance[balance["part"] == "all"]
    assert everyone[["scans", "subjects"]].to_numpy().tolist() == [[80, 40]] * 5
    assert everyone["sex=unknown"].tolist() == [0.025] * 5
    assert not [column for column in balance if column.startswith("site")]


def test_the_site_that_is_left_out_is_not_called_uneven(labels, tmp_path, caplog):
    options = {"target": "age", "method": "leave-site-out", "sites": list("ABC")}
    split(labels, tmp_path / "s.csv", **options, balance=tmp_path / "b.csv")
    balance = pd.read_csv(tmp_path / "b.csv")
    assert balance.loc[balance["part"] == "test", "site_difference"].tolist() == [0.6667] * 3
    assert "site is spread" not in caplog.text


# --- splits from a file ---


def write_parts(path, **columns):
    table = pd.DataFrame(columns)
    if path.suffix == ".xlsx":
        table.to_excel(path, index=False)
    else:
        table.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


def six(**changes):
    """Columns of a file that splits the six subjects s0 to s5, with changes."""
    return {
        "subject": [f"s{i}" for i in range(6)],
        "part": ["train", "train", "train", "validation", "validation", "test"],
    } | changes


@pytest.fixture
def few(tmp_path):
    """Six subjects with two sessions each."""
    return make_labels(tmp_path / "labels.csv", subjects=6, sessions=2)


def from_file(labels, file, **options):
    return split(labels, labels.parent / "s.csv", **{"target": "age", "method": "file", "file": file} | options)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".xlsx"])
def test_a_file_by_subject_divides_all_scans_of_each(few, suffix, tmp_path):
    words = ["Train", "training", "TRAINING", " train", "Val", "TEST"]
    table = from_file(few, write_parts(tmp_path / f"mine{suffix}", **six(part=words), remark=["x"] * 6))
    assert table["fold"].eq(0).all()
    assert table.groupby("subject")["part"].unique().map(list).to_dict() == {
        **{f"s{i}": ["train"] for i in range(4)},
        "s4": ["validation"],
        "s5": ["test"],
    }
    assert len(table) == 12


@pytest.mark.parametrize("word", ["val", "valid", "validation", "Valid", "VALIDATION"])
def test_every_word_for_validation(few, word, tmp_path):
    file = write_parts(tmp_path / "mine.csv", **six(part=["train"] * 4 + [word, "test"]))
    assert from_file(few, file).set_index("subject")["part"]["s4"].tolist() == ["validation"] * 2


def test_a_file_by_id_takes_these_scans_alone_and_tells_of_the_others(few, tmp_path, caplog):
    ids = [f"s{i}-0" for i in range(5)] + ["s5-1"]
    table = from_file(few, write_parts(tmp_path / "mine.csv", id=ids, part=["train"] * 3 + ["val"] * 2 + ["test"]))
    assert table["id"].tolist() == ids
    told = (
        f"fold 0: 6 scan(s) that could be used are not named by {tmp_path}/mine.csv and are left out: s0-1, s1-1, s2-1, s3-1, "
    )
    assert f"{told}s4-1 and 1 more" in caplog.messages


def test_scans_that_are_named_and_cannot_be_used_are_told(few, tmp_path, caplog):
    table = pd.read_csv(few)
    table["problem"] = table["problem"].astype(object)
    table.loc[0, "problem"] = "scan: no image"
    table.to_csv(few, index=False)
    assert len(from_file(few, write_parts(tmp_path / "mine.csv", **six()))) == 11
    told = f"1 scan(s) that {tmp_path}/mine.csv names cannot be used for this target (the column `problem` of {few} says why)"
    assert f"{told}: s0-0" in caplog.messages


def test_a_file_with_folds_gives_each_its_parts_and_repeated_tests_are_told(few, tmp_path, caplog):
    two = {"subject": six()["subject"] * 2, "part": [*six()["part"], "test", *["train"] * 2, *["validation"] * 2, "test"]}
    file = write_parts(tmp_path / "mine.csv", **two, fold=[0] * 6 + [1] * 6)
    table = from_file(few, file)
    tested = table[table["part"] == "test"].groupby("fold")["subject"].unique().map(list).to_dict()
    assert tested == {0: ["s5"], 1: ["s0", "s5"]}
    assert f"2 scan(s) are in the test part of several folds of {file}; every metric counts them as often" in caplog.messages


def test_rows_that_say_the_same_twice_are_no_mistake(few, tmp_path):
    rows = six()
    file = write_parts(tmp_path / "mine.csv", **{name: [*column, column[0]] for name, column in rows.items()})
    assert len(from_file(few, file)) == 12


@pytest.mark.parametrize(
    "options",
    [
        {"target": "age", "folds": 4, "stratify": ["sex", "site"]},
        {"target": "sex", "classes": ["F", "M"], "folds": 3},
        {"target": "age", "method": "leave-site-out", "sites": ["A", "B", "C"]},
    ],
    ids=["k-fold", "classes", "leave-site-out"],
)
def test_a_kept_splits_file_gives_the_same_split_again(options, tmp_path, caplog):
    """Byte for byte, also of a site's split, where some scans of a subject belong to neither side."""
    table = pd.read_csv(make_labels(tmp_path / "labels.csv", sessions=2))
    table.loc[(table["session"] == 1) & (table["subject"].isin(["s0", "s3"])), "site"] = "B"
    table.loc[7, "age"] = np.nan
    table.to_csv(tmp_path / "labels.csv", index=False)
    split(tmp_path / "labels.csv", tmp_path / "s.csv", **options, balance=tmp_path / "b.csv")
    split(
        tmp_path / "labels.csv", tmp_path / "again.csv", target=options["target"], classes=options.get("classes"),
        method="file", file=tmp_path / "s.csv", balance=tmp_path / "b-again.csv",
    )  # fmt: skip
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "s.csv").read_bytes()
    assert (tmp_path / "b-again.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    assert "other images" not in caplog.text
    content_twice(tmp_path / "labels.csv", "s1-0", "s1-1")
    options = {"target": options["target"], "classes": options.get("classes")}
    split(tmp_path / "labels.csv", tmp_path / "again.csv", **options, method="file", file=tmp_path / "s.csv")
    assert f"1 scan(s) are other images than when {tmp_path}/s.csv was written: s1-1" in caplog.messages


def test_the_same_image_of_two_subjects_in_a_file_is_a_leak(few, tmp_path):
    file = write_parts(tmp_path / "mine.csv", **six())
    content_twice(few, "s0-0", "s5-1")
    words = (
        f"{file}: leak: 1 time(s) the same image stands in two parts of a fold; the first is image '0-0' in fold 0 (s0-0 in "
    )
    with pytest.raises(UserError, match=re.escape(words + "train, s5-1 in test)")):
        from_file(few, file)


def test_a_class_that_is_not_in_the_training_part_is_told(few, tmp_path):
    file = write_parts(tmp_path / "mine.csv", **six(part=["train", "test", "train", "test", "train", "val"]))
    words = f"{file}: fold 0 has no scan of class 'F' to train on. Give it one."
    with pytest.raises(UserError, match=re.escape(words)):
        from_file(few, file, target="sex", classes=["F", "M"])


LEAKED = [237, 251, 360, 493, 498, 533, 539, 549, 552, 554, 560]


def published_split():
    """Rows as those of the public IXI split: 588 for 563 images, 14 that repeat another and 11 that contradict one.

    The table itself (xmed-lab/CLSS, IXI/CLSS/BRAIN/FileList.csv) may not be copied here; these are its counts and subjects.
    """
    others = [number for number in range(2, 663) if number not in LEAKED][: 563 - len(LEAKED)]
    subjects = sorted([*others, *LEAKED])
    part = {number: ["TRAIN", "TRAIN", "TRAIN", "VAL", "TEST"][number % 5] for number in subjects}
    second = {"TRAIN": "TEST", "VAL": "TRAIN", "TEST": "VAL"}
    rows = [(number, part[number]) for number in [*subjects, *others[:14]]] + [(n, second[part[n]]) for n in LEAKED]
    return pd.DataFrame(rows, columns=["number", "part"]).sample(frac=1, random_state=0)


@pytest.mark.parametrize("column", ["subject", "id"])
def test_the_public_split_of_ixi_that_leaks_is_refused_and_every_subject_named(column, tmp_path):
    table = published_split()
    assert (len(table), table["number"].nunique()) == (588, 563)
    name = "IXI{:03d}" if column == "subject" else "IXI{:03d}-Guys-0828-T1"
    file = write_parts(tmp_path / "FileList.csv", **{column: table["number"].map(name.format), "part": table["part"]})
    with pytest.raises(UserError) as error:
        read_split_file(file)
    assert f"{file}: leak: 11 {column}(s) stand in more than one part: IXI237" in str(error.value)
    assert re.findall(r"IXI(\d+)", str(error.value)) == list(map(str, LEAKED))
    kept = table.drop_duplicates("number")
    write_parts(file, **{column: kept["number"].map(name.format), "part": kept["part"]})
    assert len(read_split_file(file)) == 563


def test_the_number_of_folds_is_known_before_there_is_any_data(tmp_path):
    one = write_parts(tmp_path / "one.csv", **six())
    two = write_parts(tmp_path / "two.csv", **{n: c * 2 for n, c in six().items()}, fold=["0"] * 6 + ["1.0"] * 6)
    assert folds_of({"split": {"method": "k-fold", "folds": 7}}) == 7
    assert folds_of({"split": {"method": "leave-site-out", "folds": 7}, "dataset": {"sites": ["A", "B"]}}) == 2
    assert folds_of({"split": {"method": "file", "folds": 7, "file": str(one)}}) == 1
    assert folds_of({"split": {"method": "file", "folds": 7, "file": str(two)}}) == 2


def test_the_command_splits_by_a_file_and_needs_one(few, tmp_path):
    write_parts(tmp_path / "mine.csv", **six())
    command = [sys.executable, "-m", "mriflow.split", "--labels=labels.csv", "--splits=s.csv", "--target=age", "--method=file"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (
        1,
        "error: --method file needs the table of the parts; give it with --file.\n",
    )
    subprocess.run([*command, "--file=mine.csv", "--balance=b.csv"], cwd=tmp_path, check=True, capture_output=True)
    assert pd.read_csv(tmp_path / "s.csv")["part"].value_counts().to_dict() == {"train": 6, "validation": 4, "test": 2}
    assert (tmp_path / "b.csv").exists()


@pytest.mark.parametrize(
    ("block", "words"),
    [
        (
            {"method": "file"},
            "missing, expected a table with the part of each scan or subject, for example my-data/splits.csv",
        ),
        (
            {"method": "k-fold", "file": "my.csv"},
            "found 'my.csv' beside `method: k-fold`, expected it with `method: file` alone",
        ),
        (
            {"method": "file", "file": "results/demo-age/splits.csv"},
            "found 'results/demo-age/splits.csv', in the folder of the results, which a run writes anew; copy it to a folder "
            "of your own and name that",
        ),
        ({"method": "file", "file": 3}, "found 3 (a number), expected text; put it in quotes"),
    ],
    ids=["no file", "a file that is not used", "a file that would be overwritten", "no text"],
)
def test_a_split_that_does_not_fit_its_file_is_told_with_the_config(block, words, tmp_path):
    overlay = written(tmp_path, {"splits": {"fixed": block}})
    assert message(overlay) == f"{overlay}: splits.fixed.file: {words}"


def test_a_split_from_a_file_asks_the_dataset_for_no_columns_to_spread(tmp_path):
    fixed = {"splits": {"fixed": {"method": "file", "file": "my.csv", "stratify": ["handedness"]}}}
    overlay = written(tmp_path, {**fixed, "experiments": {"demo-age": {"split": "fixed"}}})
    assert resolved(overlay)["splits"]["fixed"]["file"] == "my.csv"


def test_the_file_is_an_input_of_the_split_and_plans_its_folds(tmp_path):
    folder = checkout(tmp_path / "fixed")
    subjects = [f"SIM{number:03d}" for number in range(1, 7)]
    rows = {"subject": subjects * 2, "part": six()["part"] * 2, "fold": [0] * 6 + [1] * 6}
    overlay = {"run": ["demo-age"], "experiments": {"demo-age": {"split": "fixed"}}}
    overlay["splits"] = {"fixed": {"method": "file", "file": "my split.csv"}}
    (folder / "mine.yaml").write_text(yaml.safe_dump(overlay))
    asked = ["-n", "--configfile", "mine.yaml"]
    missing = snakemake(folder, *asked, check=False)
    assert "my split.csv: no such table. Check the `file` of the split." in missing.stdout + missing.stderr
    write_parts(folder / "my split.csv", **rows)
    planned = snakemake(folder, *asked)
    assert jobs(planned)["train"] == 2
    assert "input: data/demo/labels.csv, my split.csv" in planned.stdout + planned.stderr


def test_too_few_to_validate_on_are_told_by_split_and_how_many_are_needed(tmp_path):
    labels = make_labels(tmp_path / "labels.csv", subjects=16)
    with pytest.raises(UserError, match=r"1 subject\(s\) of 10 outside its test part .* 20 are needed .* at least 0.2\."):
        split(labels, tmp_path / "s.csv", target="age", folds=3, validation=0.1)
    assert not (tmp_path / "s.csv").exists()
    split(labels, tmp_path / "s.csv", target="age", folds=3, validation=0.2)
    with pytest.raises(UserError, match=r"10 subjects outside its test part, too few: 40 are needed .* at least 0.2\."):
        split(labels, tmp_path / "s.csv", target="age", folds=3, validation=0.05)


@pytest.mark.parametrize("part", ["train", "validation"])
def test_a_split_of_ones_own_with_one_scan_to_train_or_validate_on_is_refused(tmp_path, part):
    labels = make_labels(tmp_path / "labels.csv", subjects=6)
    others = [name for name in ("train", "validation") if name != part]
    write_parts(tmp_path / "mine.csv", **six(part=[part, *others * 3, "test", "test"]))
    with pytest.raises(UserError, match=f"mine.csv: fold 0 has 1 scan.s. in the {part} part that can be used"):
        from_file(labels, tmp_path / "mine.csv")


def test_the_commonest_reason_is_told_where_too_few_can_be_used(tmp_path):
    table = pd.read_csv(make_labels(tmp_path / "labels.csv")).astype({"problem": object, "notes": object, "age": object})
    table["problem"] = "scan: no file (x.nii)"
    table.loc[:9, "problem"] = "age: out of range (300, expected 0 to 110 years)"
    table.loc[:9, "age"] = None
    table.to_csv(tmp_path / "labels.csv", index=False)
    for act in (
        lambda: split(tmp_path / "labels.csv", tmp_path / "s.csv", target="age"),
        lambda: layout(tmp_path / "labels.csv", tmp_path / "age/labels.csv", column="age"),
    ):
        with pytest.raises(UserError, match=r"60 of 60 rows cannot be used, the most of them for 'scan: no file' \(50\)"):
            act()
    table.assign(problem="").to_csv(tmp_path / "labels.csv", index=False)
    with pytest.raises(UserError, match=r"0 usable subjects are too few .* 60 scans are of other classes: '[FM]' \("):
        split(tmp_path / "labels.csv", tmp_path / "s.csv", target="sex", classes=["male", "female"])
