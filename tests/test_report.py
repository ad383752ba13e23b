"""The report: its numbers are those of metrics.json, it is whole by itself, and it leaves out what is not known."""

import json
import re
import shutil
import time
from html.parser import HTMLParser
from itertools import pairwise

import pandas as pd
import pytest
import yaml

from mriflow import report
from mriflow.base.errors import UserError
from mriflow.base.provenance import provenance
from mriflow.config.resolve import settings
from mriflow.evaluate import teachers_of_tissues
from mriflow.evaluation.baselines import EDGE
from mriflow.evaluation.metrics import METHODS
from mriflow.reporting.claim import ITEMS
from mriflow.reporting.flow import steps_of
from mriflow.reporting.methods_text import REFERENCES, divided, trained
from mriflow.reporting.report_page import what_ran
from mriflow.reporting.result_tables import warnings
from mriflow.reporting.results import with_interval
from mriflow.reporting.words import careful, five_sentences, given_beside
from test_config import resolved
from test_plot import N, Tables, made  # noqa: F401, a fixture

TARGETS = {
    "age": {"column": "age", "type": "regression", "unit": "years"},
    "sex": {"column": "sex", "type": "classification", "classes": {"F": "Females", "M": "Males"}},
}
PNG = bytes.fromhex("89504e470d0a1a0a") + b"not more"


class Page(HTMLParser):
    """Read what a page links to, its ids, its images and its text."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.images, self.elements, self.texts = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.elements.append(tag)
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.links += [attrs["href"]] if tag == "a" else []
        self.images += [attrs] if tag == "img" else []

    def handle_data(self, text):
        self.texts.append(text)


def run_of(results, folder, names, **dataset):
    """Lay out the folders of a run whose experiments have the numbers of `results`, and give what the command takes."""
    for name in names:
        kind = name.split("-")[1]
        place = folder / "results" / name
        (place / "figures").mkdir(parents=True)
        result = json.loads((results / f"{kind}.json").read_text()) | {"experiment": name}
        (place / "metrics.json").write_text(json.dumps(result))
        shutil.copy(results / f"{kind}.csv", place / "predictions.csv")
        (place / "figures/learning-curves.png").write_bytes(PNG)
    (folder / "results/cohorts/demo").mkdir(parents=True)
    (folder / "results/cohorts/demo/cohort.png").write_bytes(PNG)
    blocks = {"dataset": "demo", "preprocess": "block", "split": "s", "network": "n", "training": "t"}
    config = {
        "run": list(names),
        "experiments": {name: {**blocks, "target": name.split("-")[1]} for name in names},
        "targets": TARGETS,
        "datasets": {"demo": {"title": "Demo", "simulate": {}, "licence": "free", **dataset}},
    }
    (folder / "results/config.yaml").write_text(yaml.safe_dump(config))
    (folder / "demo/block").mkdir(parents=True)
    shutil.copy(results / "labels.csv", folder / "demo")
    for shard in range(2):
        shutil.copy(results / f"shard-{shard}.csv", folder / "demo/block")
    return folder


def write(folder):
    page, csv = folder / "results/report.html", folder / "results/results.csv"
    arguments = [
        f"--page={page}",
        f"--csv={csv}",
        f"--config={folder}/results/config.yaml",
        f"--benchmarks={folder}/benchmarks",
    ]
    report.main([*arguments, f"--data={folder}", f"--preprocessed={folder}"])
    return page.read_text()


def test_numbers_of_the_page_are_those_of_metrics_json(made, tmp_path):  # noqa: F811
    text = write(run_of(made, tmp_path, ["my-age", "my-sex"]))
    rows = {(row[0], table[0][1]): row for table in Tables(text).tables for row in table[1:] if row[0] in METHODS}
    age, sex = (json.loads((tmp_path / f"results/my-{name}/metrics.json").read_text()) for name in ("age", "sex"))
    for method in ("network", "classical", "trivial"):
        assert rows[method, "MAE (years)"][1:] == [with_interval(age[method][m]) for m in ("mae", "rmse", "r2", "r", "slope")]
    for method in METHODS:
        assert rows[method, "AUC"][1:] == [with_interval(sex[method][m]) for m in ("auc", "accuracy")]
    whole = " ".join(Page(text).texts)
    assert f"off by {with_interval(age['network']['mae'])} years on average" in whole
    assert f"AUC is {with_interval(sex['network']['auc'])}" in whole
    age["network"]["mae"] = {"value": 3.21, "low": 2.98, "high": 3.44}
    (tmp_path / "results/my-age/metrics.json").write_text(json.dumps(age))
    assert write(tmp_path).count("3.21 [2.98, 3.44]") == 2  # the sentence and the table on top
    table = pd.read_csv(tmp_path / "results/results.csv")
    assert table["n"].eq(N).all() and table.loc[0, ["network", "network_low"]].tolist() == [3.21, 2.98]
    assert table.loc[0, "best"] == "network"


def test_report_only_shows_an_experiment_that_ran_before_as_it_was_then(made, tmp_path):  # noqa: F811
    folder = run_of(made, tmp_path, ["my-age", "my-sex"])
    both = write(folder)
    path = folder / "results/config.yaml"
    config = yaml.safe_load(path.read_text())
    names = config["experiments"].pop("my-sex")
    metrics = folder / "results/my-sex/metrics.json"
    found = json.loads(metrics.read_text())
    used = settings(resolved(), "demo-sex")
    found["provenance"] = provenance({**used, "names": {**used["names"], **names}})
    path.write_text(yaml.safe_dump({**config, "run": ["my-age"], "report_only": ["my-sex"]}))
    with pytest.raises(UserError, match="does not tell with which settings"):
        write(folder)
    metrics.write_text(json.dumps(found))
    text = write(folder)
    assert set(Page(both).ids) < set(Page(text).ids) and "methods" in Page(text).ids
    path.write_text(yaml.safe_dump({**config, "run": ["my-age"], "report_only": ["another"]}))
    with pytest.raises(UserError, match="report_only: another has no .*put it into `run`"):
        write(folder)


def test_page_is_whole_by_itself_and_its_contents_lead_somewhere(made, tmp_path):  # noqa: F811
    page = Page(text := write(run_of(made, tmp_path, ["my-age", "my-sex"])))
    assert "script" not in page.elements and "link" not in page.elements
    assert not re.search(r'(?:src|srcset)="(?!data:)|url\(|@import', text)
    inside = [link[1:] for link in page.links if link.startswith("#")]
    assert len(inside) > 10 and set(inside) <= set(page.ids) and len(page.ids) == len(set(page.ids))
    assert [link for link in page.links if not link.startswith("#")] == ["workflow-report.html"]
    of_people, of_age, of_sex = (image["alt"] for image in page.images)  # the sex experiment of `made` is of real scans
    assert all(one.startswith("Simulated data. ") for one in (of_people, of_age)) and of_sex.startswith("Loss")
    assert all(image["src"].startswith("data:image/png;base64,") for image in page.images)


def test_sections_without_data_are_absent(made, tmp_path):  # noqa: F811
    folder = run_of(made, tmp_path, ["my-age"])
    before = Page(write(folder)).ids
    assert "results-my-age" in before
    for kind in ("calibration", "conformal", "folds", "failures", "robustness", "controls", "attention", "external", "model"):
        assert f"{kind}-my-age" not in before
    assert not {"comparison", "compute", "methods"} & set(before)
    rows = ["unchanged,0,,mae,7.1,6,8,24", "noise,0.1,,mae,7.25,6,8,24", "noise,0.1,,r,0.9,0.8,1,24"]
    rows += ["noise,0.1,,mae_difference,-0.15,-0.3,0,24"]
    (folder / "results/my-age/robustness.csv").write_text("\n".join(["kind,strength,unit,metric,value,low,high,n", *rows]))
    (folder / "results/my-age/model").mkdir()
    (folder / "benchmarks/train").mkdir(parents=True)
    (folder / "benchmarks/train/my-age_fold-0_seed-0.tsv").write_text("s\tmax_rss\tcpu_time\n75.0\t2100.0\t-\n")
    shutil.copy(folder / "benchmarks/train/my-age_fold-0_seed-0.tsv", folder / "benchmarks/train/other_fold-0_seed-0.tsv")
    text = write(folder)
    changed = next(table for table in Tables(text).tables if table[0] == ["kind", "strength", "n", "mae", "mae difference"])
    assert changed[1:] == [
        ["unchanged", "0", "24", "7.1 [6.0, 8.0]", ""],
        ["noise", "0.1", "24", "7.2 [6.0, 8.0]", "−0.15 [−0.30, 0.00]"],
    ]
    assert {"robustness-my-age", "model-my-age", "compute"} <= set(Page(text).ids)
    assert ["train", "1", "1 min 15 s", "1 min 15 s", "0.0 s", "2.1 GB"] in [row for t in Tables(text).tables for row in t]


def test_every_scan_that_is_left_out_counts_once_and_under_its_reason(made):  # noqa: F811
    steps = steps_of(made / "labels.csv", [made / f"shard-{i}.csv" for i in range(2)], "age", [], ["S05", "S06"])
    for one, other in pairwise(steps):
        assert one.scans - other.scans == sum(count for _, count in other.reasons)
    reasons = dict(reason for step in steps for reason in step.reasons)
    assert steps[0].scans == N and steps[-1].scans == 2
    assert reasons["same image as another"] == reasons["registration failed"] == reasons["age: contradictory"] == 1
    assert reasons["in no test part"] == steps[-2].scans - 2


def test_careful_names_the_gravest(made):  # noqa: F811
    result = json.loads((made / "age.json").read_text())
    assert careful(result).startswith("Careful: the data are simulated")
    row = {"column": "site", "group": "South", "metric": "mae", "value": 9.0, "low": 8.0, "high": 10.0}
    result |= {"simulated": False, "subgroups": [row | {"difference": {"value": 3.0, "verdict": "differs"}}]}
    result["conformal"] = {"coverage": {"level": 0.9, "value": 0.7, "low": 0.6, "high": 0.8}}
    told = careful(result)
    assert "worse for site South (MAE 9.0 [8.0, 10.0])" in told and "hold the truth in 90% do so in 0.70 [0.60, 0.80]" in told
    assert len(five_sentences(result)) == 5


def test_what_is_worse_is_called_so_and_single_networks_and_other_people_are_named(made):  # noqa: F811
    result = json.loads((made / "age.json").read_text())
    for one in result["differences"]:
        one["verdict"] = "worse" if one["other"] == "classical" else "better"
    assert "the network is worse than classical" in careful(result)
    tested = pd.DataFrame({"subject": ["a", "a", "b", "c"], "label_map": ["1", "2", "3", None]})
    told = careful(result | {"tissues_of": teachers_of_tissues("my-tissues", tested)})
    assert "my-tissues, which tells the tissues apart, learns from label maps of 2 of the people tested here" in told
    cell = {"value": 5.25, "low": 5.0, "high": 5.5}
    result["single_seeds"] = {seed: {"mae": cell | {"value": value}} for seed, value in (("0", 5.12), ("1", 7.34))}
    result["external"] = {"theirs": {"title": "Theirs", "n": 7, "network": {"mae": cell}}, "none": {"title": "None", "n": 0}}
    told = five_sentences(result)[2]
    assert "Networks of one seed alone: MAE 5.12 and 7.34." in told
    assert "On other people (Theirs, 7 scans): MAE 5.25 [5.00, 5.50]." in told and "None" not in told


def test_methods_tell_what_the_network_was_given_and_learned_beside():
    used = {"covariates": ["head_size", "sex"], "auxiliary": [{"column": "sex"}], "target": {"column": "age"}}
    assert given_beside(used) == "the network was told the size of the head and sex and learned sex beside age"
    assert given_beside({"target": {"column": "age"}}) == ""


def test_methods_tell_the_settings_that_were_used_and_no_split_that_was_not_made():
    training = {
        "epochs": 16,
        "batch_size": 8,
        "accumulate": 4,
        "optimizer": "adamw",
        "learning_rate": 0.1,
        "weight_decay": 0.05,
    }
    training |= {"schedule": "one-cycle", "select": "best", "early_stopping": 5, "augmentation": {"mirror": 0.5}}
    used = {"network": {"name": "SFCN"}, "training": training, "target": {"column": "age", "type": "regression"}}
    result = {"target": "age", "seeds": [0], "folds": 2}
    text = trained(result, used)[0]
    assert "at most 16 epochs, and no longer than 5 without a better one, with batches of 8 (adamw, learning rate 0.1" in text
    chosen = [{"keys": {"learning_rate": rate, "epochs": 40, "augmentation.mirror": 0}} for rate in (0.01, 0.02)]
    text = " ".join(trained(result | {"search": {"trials": 4, "chosen": chosen}}, used))
    assert "at most 40 epochs" in text and "learning rate 0.01 or 0.02," in text and "mirrored" not in text
    split = {"validation": 0.15, "stratify": ["sex"]}
    assert "stratified" not in divided(result, used | {"split": split | {"method": "file"}})
    assert "validation" not in divided(result, used | {"split": split | {"method": "file"}})
    by_site = divided(result, used | {"split": split | {"method": "leave-site-out"}})
    assert by_site.endswith("leave-one-site-out (2 folds); 15% of the learning subjects of each fold were set aside for "
                            "validation, stratified by age and sex as far as known.")  # fmt: skip
    assert "stratified by age and sex as far as known; 15%" in divided(result, used | {"split": split | {"method": "k-fold"}})
    assert f"about {EDGE} along the shortest axis" in REFERENCES["classical"]


def test_the_config_on_the_page_is_that_of_what_ran():
    run = {"run": ["a"], "experiments": {"a": {"network": "n"}, "b": {"network": "m"}}, "networks": {"n": {}, "m": {}}}
    assert what_ran(run) == {"run": ["a"], "experiments": {"a": {"network": "n"}}, "networks": {"n": {}}}
    run["networks"]["n"] = {"init": {"from": "b"}}
    run |= {"targets": {"age": {}, "sex": {}, "iq": {}}}
    run["experiments"]["a"] |= {"target": "age", "auxiliary": ["sex"]}
    assert what_ran(run)["experiments"].keys() == {"a", "b"} and what_ran(run)["targets"].keys() == {"age", "sex"}


def test_warnings_of_a_training_stand_before_everything(made, tmp_path):  # noqa: F811
    folder = run_of(made, tmp_path, ["my-age"])
    path = folder / "results/my-age/metrics.json"
    warned = [{"kind": "swings", "text": "it <swings>.", "fold": fold, "seed": 0} for fold in (0, 2)]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"warnings": warned}))
    text = write(folder)
    told = "Warning: swings (fold 0 seed 0, fold 2 seed 0). It &lt;swings&gt;."
    assert warnings(json.loads(path.read_text())) == [told.replace("&lt;", "<").replace("&gt;", ">")]
    assert text.index(told) < text.index("Asked: how well")


def test_checklist_has_every_item_once_and_links_what_is_answered(made, tmp_path):  # noqa: F811
    assert [item.number for item in ITEMS] == list(range(1, 45))
    empty = write(run_of(made, tmp_path / "a", ["my-age"]))
    full = write(run_of(made, tmp_path / "b", ["my-age"], dates="2005", setting="London", reference_standard="asked"))
    [before], [after] = ([t for t in Tables(page).tables if t[0][0] == "item"] for page in (empty, full))
    assert "reference_standard" in before[14][3] and after[14][3] == "" and "Reference standard: asked" in full
    assert all(row[3] for row in before[1:] if row[2] == "–" and row[0] not in ("9", "20", "25", "26", "27"))


def test_page_escapes_what_it_is_given(made, tmp_path):  # noqa: F811
    evil = "<script>alert(1)</script>"
    folder = run_of(made, tmp_path, ["my-age"], title=evil, citation=evil)
    path = folder / "results/my-age/metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"dataset": evil, "unit": evil, "notes": {"stacked": evil}}))
    text = write(folder)
    assert "&lt;script&gt;" in text and "script" not in Page(text).elements


def test_wrong_config_is_told(made, tmp_path):  # noqa: F811
    folder = run_of(made, tmp_path, ["my-age"])
    (folder / "results/config.yaml").write_text("a: 1")
    with pytest.raises(UserError, match=r"config\.yaml: not the merged config of a run"):
        write(folder)


def test_ten_experiments_are_small_and_quick(made, tmp_path):  # noqa: F811
    folder = run_of(made, tmp_path, [f"e{i}-{('age', 'sex')[i % 2]}" for i in range(10)])
    for png in folder.rglob("*.png"):
        png.write_bytes(PNG + bytes(150_000))  # as large as the demo's
    start = time.monotonic()
    assert len(write(folder)) < 20e6
    assert time.monotonic() - start < 30
