"""Figures and pages: they are made, the same every time, wrong input is told, and what they say is true."""

import json
import struct
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mriflow import plot
from mriflow.base.errors import UserError
from mriflow.evaluation.metrics import METHODS
from mriflow.reporting.canvas import DPI
from mriflow.reporting.cohort_page import page_cohort
from mriflow.reporting.html import LISTED
from mriflow.reporting.result_tables import best_method
from mriflow.reporting.results import METRICS, with_interval
from mriflow.reporting.scan_figures import montage
from mriflow.tables.cohort import NOT_PREPROCESSED
from mriflow.tables.labels import TEXT_COLUMNS

N = 24
SITES = ["North", "South"]
ABOUT = {"title": "Demo", "licence": "free", "citation": "nobody"}
WIDTHS = {
    "learning-curves": 7,
    "predicted-vs-true": 3.5,
    "residual-vs-true": 3.5,
    "roc": 3.5,
    "confusion-matrix": 3.5,
    "reliability": 3.5,
    "failures": 7,
    "comparison": 7,
    "scans": 7,
    "cohort": 7,
}


def figures(names, value=4.6):
    return {name: {"value": value, "low": value - 0.6, "high": value + 0.6} for name in names}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Give a folder with tiny results of every stage."""
    folder = tmp_path_factory.mktemp("made")
    rng = np.random.default_rng(0)
    about = {"id": [f"S{i:02d}" for i in range(N)], "subject": [f"S{i:02d}" for i in range(N)]}
    about |= {"session": "", "site": np.resize(SITES, N), "fold": np.arange(N) % 3}
    age = rng.uniform(20, 80, N)
    numbers = {name: age + rng.normal(0, spread, N) for name, spread in (("network", 4), ("trivial", 20), ("classical", 9))}
    pd.DataFrame({**about, "truth": age, **numbers}).to_csv(folder / "age.csv", index=False)
    common = {"dataset": "Demo cohort", "simulated": True, "n": N, "n_excluded": 2, "folds": 3, "seeds": [0]}
    regression = {"experiment": "demo-age", "target": "age", "type": "regression", "unit": "years", **common}
    names = list(METRICS["regression"])
    regression |= {"network": figures(names), "classical": figures(names, 7.0), "trivial": figures(names, 15.0)}
    regression["trivial"]["r"] = {"value": None, "low": None, "high": None}
    pair = {"method": "network", "other": "classical", "metric": "mae", "value": -2.4, "low": -3.4, "high": -1.4}
    regression |= {"differences": [pair | {"verdict": "better"}]}
    regression |= {"notes": {"confounders": "Not made: no confounder is known."}}
    (folder / "age.json").write_text(json.dumps(regression))

    for target, classes in (("sex", ["F", "M"]), ("stage", ["0", "1", "2"])):
        truth = np.resize(classes, N)
        table = pd.DataFrame({**about, "truth": truth})
        for method in METHODS:
            chances = rng.dirichlet(np.ones(len(classes)), N)
            table[method] = np.array(classes)[chances.argmax(1)]
            table[[f"{method}_{name}" for name in classes]] = chances
        table.to_csv(folder / f"{target}.csv", index=False)
        result = {"experiment": f"ixi-{target}", "target": target, "type": "classification", "unit": "", **common}
        counts = pd.crosstab(table["truth"], table["network"]).reindex(index=classes, columns=classes, fill_value=0)
        result |= {"dataset": "IXI", "simulated": False, "classes": classes, "confusion": counts.to_numpy().tolist()}
        result |= {method: figures(["auc", "accuracy"], 0.7) for method in METHODS}
        if target == "sex":
            bins = [
                {"from": low, "to": low + 0.1, "n": 12, "believed": low + 0.04, **figures(["x"], 0.6)["x"]}
                for low in (0.5, 0.9)
            ]
            one = {"n": N, **figures(["brier", "ece"], 0.6), "reliability": bins}
            result |= {"calibration": {"before": one, "after": one}}
        (folder / f"{target}.json").write_text(json.dumps(result))

    for fold in range(3):
        run = folder / f"fold-{fold}_seed-0"
        run.mkdir()
        epochs = np.arange(1, 6 + fold)
        history = {
            "epoch": epochs,
            "learning_rate": 0.1,
            "train_loss": 1 / epochs,
            "unchanged_loss": 0.9 / epochs,
            "unchanged_mae": 7.0,
            "val_loss": 1.2 / epochs,
            "val_mae": 9.0,
        }
        pd.DataFrame(history).to_csv(run / "history.csv", index=False)

    labels = {"id": about["id"], "subject": about["subject"], "session": "", "site": about["site"], "age": age}
    labels |= {"sex": np.resize(["F", "M", "M"], N), "path": "x.nii.gz", "fingerprint": "f", "problem": "", "notes": ""}
    labels = pd.DataFrame(labels).astype({"problem": object, "path": object, "notes": object})
    labels.loc[0, ["problem", "path"]] = ["scan: no image", ""]
    labels.loc[1, "problem"] = "age: contradictory (30 and 40 (row 3); sic); sex: missing"
    labels.loc[1, ["age", "sex"]] = None
    labels.loc[2, "problem"] = "scan: same image as another (S09)"
    labels.loc[3, "notes"] = "height: '0' is not known (row 5)"
    labels.to_csv(folder / "labels.csv", index=False)

    for shard in range(2):
        rows = labels.loc[(labels.index % 2 == shard) & (labels["path"] != "") & (labels.index != 2), ["id"]]
        rows = rows.assign(index=range(len(rows)), problem=None, brain_ml=1400, correlation=np.linspace(0.7, 0.9, len(rows)))
        rows = rows.assign(scale=1, fingerprint="f", key="k").astype({"index": "Int64", "problem": object})
        if shard:
            rows.iloc[-1, 1:3] = [None, "scan: registration failed (correlation 0.1)"]
        rows.to_csv(folder / f"shard-{shard}.csv", index=False)
        worst = rows[rows["problem"].isna()].assign(truth=30.0, network=45.2)
        worst.to_csv(folder / "failures.csv", index=False)
        np.save(folder / f"shard-{shard}.npy", rng.integers(0, 255, (rows["index"].count(), 10, 12, 8), np.uint8))
    return folder


def command(folder, name):
    """Return a figure's command."""
    histories = [str(path) for path in sorted(folder.glob("fold-*/history.csv"))]
    shards = {kind: [str(folder / f"shard-{i}.{kind}") for i in range(2)] for kind in ("npy", "csv")}

    def predicted(target):
        return ["--predictions", f"{folder}/{target}.csv"]

    def metrics(*targets):
        return ["--metrics", *(f"{folder}/{target}.json" for target in targets)]

    return {
        "learning-curves": [*metrics("age"), "--histories", *histories],
        "predicted-vs-true": [*predicted("age"), *metrics("age")],
        "residual-vs-true": [*predicted("age"), *metrics("age")],
        "roc": [*predicted("sex"), *metrics("sex")],
        "confusion-matrix": [*predicted("stage"), *metrics("stage")],
        "reliability": [*predicted("sex"), *metrics("sex")],
        "failures": [
            f"--worst={folder}/failures.csv",
            *metrics("age"),
            "--arrays",
            *shards["npy"],
            "--indices",
            *shards["csv"],
        ],
        "comparison": metrics("age", "sex", "stage"),
        "scans": ["--arrays", *shards["npy"], "--indices", *shards["csv"], "--simulated"],
        "cohort": [f"--labels={folder}/labels.csv", "--indices", *shards["csv"], "--simulated"],
    }[name]


def draw(arguments, folder):
    plot.main([*arguments, f"--pdf={folder}/a.pdf", f"--png={folder}/a.png"])
    return (folder / "a.pdf").read_bytes(), (folder / "a.png").read_bytes()


@pytest.mark.parametrize(("name", "width"), WIDTHS.items())
def test_figure_is_a_pdf_and_a_png_of_its_width_and_the_same_bytes_again(made, tmp_path, name, width):
    arguments = [name, *command(made, name)]
    pdf, png = draw(arguments, tmp_path)
    assert pdf.startswith(b"%PDF") and b"CreationDate" not in pdf
    assert png.startswith(b"\x89PNG") and struct.unpack(">I", png[16:20])[0] == width * DPI
    assert (pdf, png) == draw(arguments, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pdf", "a.png"]


def test_simulated_data_are_noted(made, tmp_path):
    *arguments, flag = ["scans", *command(made, "scans")]
    assert draw(arguments, tmp_path) != draw([*arguments, flag], tmp_path)
    result = json.loads((made / "age.json").read_text()) | {"simulated": False}
    (tmp_path / "age.json").write_text(json.dumps(result))
    arguments = ["predicted-vs-true", f"--predictions={made}/age.csv"]
    real = draw([*arguments, f"--metrics={tmp_path}/age.json"], tmp_path)
    assert real != draw([*arguments, f"--metrics={made}/age.json"], tmp_path)


def test_roc_of_three_classes_and_a_cohort_without_demographics(made, tmp_path):
    draw(["roc", f"--predictions={made}/stage.csv", f"--metrics={made}/stage.json"], tmp_path)
    labels = pd.read_csv(made / "labels.csv").drop(columns=["age", "sex"])
    labels.to_csv(tmp_path / "labels.csv", index=False)
    draw(["cohort", f"--labels={tmp_path}/labels.csv"], tmp_path)


@pytest.mark.parametrize("kept", [1, 3])
def test_scans_copes_with_fewer_than_eight(made, tmp_path, kept):
    index = pd.read_csv(made / "shard-0.csv")[:kept]
    index.to_csv(tmp_path / "shard-0.csv", index=False)
    draw(["scans", "--arrays", f"{made}/shard-0.npy", "--indices", f"{tmp_path}/shard-0.csv"], tmp_path)


def test_montage_is_radiological():
    volume = np.zeros((6, 8, 4), np.uint8)
    volume[-1] = 10  # right
    volume[:, -1] += 1  # anterior
    volume[:, :, -1] += 2  # superior
    image, middles = montage(volume)
    assert image.shape == (8 + 4 + 4, 8) and middles == [4, 10, 14]
    axial, coronal, sagittal = image[:8, 1:-1], image[8:12, 1:-1], image[12:]
    assert (axial[1:, 0] == 10).all() and (axial[:, -1] < 10).all() and (axial[0, 1:] == 1).all()
    assert (coronal[1:, 0] == 10).all() and (coronal[0, 1:] == 2).all()
    assert (sagittal[1:, 0] == 1).all() and (sagittal[0, 1:] == 2).all()


def spoil(tmp_path, source, change):
    table = change(pd.read_csv(source, dtype=str))
    path = tmp_path / source.name
    table.to_csv(path, index=False)
    return path


def test_wrong_predictions_are_told(made, tmp_path):
    path = spoil(tmp_path, made / "age.csv", lambda table: table.drop(columns="network"))
    with pytest.raises(UserError, match=r"age\.csv: has no column network.*mriflow\.evaluate"):
        draw(["predicted-vs-true", f"--predictions={path}", f"--metrics={made}/age.json"], tmp_path)
    with pytest.raises(UserError, match="ixi-sex is a classification; this figure shows a regression"):
        draw(["residual-vs-true", f"--predictions={made}/sex.csv", f"--metrics={made}/sex.json"], tmp_path)


@pytest.mark.parametrize("broken", ["absent", "{", "{}"])
def test_wrong_metrics_are_told(tmp_path, broken):
    path = tmp_path / "metrics.json"
    if broken != "absent":
        path.write_text(broken)
    with pytest.raises(UserError, match=r"metrics\.json: .*mriflow\.evaluate"):
        draw(["comparison", f"--metrics={path}"], tmp_path)


def test_no_scan_is_told_with_the_commonest_problem(made, tmp_path):
    failed = {"index": None, "problem": "scan: no brain found in the image (odd)"}
    path = spoil(tmp_path, made / "shard-0.csv", lambda t: t.assign(**failed))
    with pytest.raises(UserError, match="'scan: no brain found in the image'") as error:
        draw(["scans", "--arrays", f"{made}/shard-0.npy", "--indices", str(path)], tmp_path)
    assert str(path) in str(error.value) and "mriflow.preprocess" in str(error.value)
    labels = spoil(tmp_path, made / "labels.csv", lambda t: t.assign(problem="scan: no image"))
    with pytest.raises(UserError, match="no scan is usable"):
        draw(["cohort", f"--labels={labels}"], tmp_path)


class Tables(HTMLParser):
    """Read the tables of a page as lists of rows of texts, and the names of all its elements."""

    def __init__(self, page):
        super().__init__()
        self.tables, self.elements, self.inside = [], set(), False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.add(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        self.inside = tag in ("td", "th") or (self.inside and tag == "b")

    def handle_endtag(self, tag):
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, text):
        if self.inside:
            self.tables[-1][-1][-1] += text


def write_cohort(made, folder, labels=None, **options):
    shards = [made / f"shard-{i}.csv" for i in range(2)]
    options = {"targets": {"age": []}, **ABOUT, **options}
    page_cohort(labels or made / "labels.csv", folder / "c.html", folder / "c.csv", indices=shards, **options)
    return (folder / "c.html").read_text(), pd.read_csv(folder / "c.csv", keep_default_na=False)


def test_cohort_counts_are_true(made, tmp_path):
    page, excluded = write_cohort(made, tmp_path, simulated=True)
    steps, sites, reasons, listed, notes = Tables(page).tables
    assert "Simulated data" in page
    assert dict(row[:2] for row in steps[1:]) == {
        "scans and rows known": "24",
        "with an image": "23",
        "preprocessed": "21",
        "usable": "21",
        "usable for age": "20",
    }
    assert {row[0]: int(row[1]) for row in reasons[1:]} == {
        "scan: no image": 1,
        "age: contradictory": 1,
        "sex: missing": 1,
        "scan: same image as another": 1,
        "scan: registration failed": 1,
    }
    assert [row[0] for row in listed[1:]] == ["S00", "S01", "S02", "S23"] == excluded["id"].tolist()
    assert excluded["excluded_from"].tolist() == ["everything", "age, sex", "everything", "everything"]
    assert "(30 and 40 (row 3); sic)" in listed[2][-1]
    assert notes[1] == ["height: '0' is not known", "1"]
    assert [row[0] for row in sites[1:]] == ["North", "South", "all"]
    assert sum(int(row[1]) for row in sites[1:-1]) == int(sites[-1][1]) == 21


def test_scan_in_no_shard_is_not_lost_in_silence(made, tmp_path):
    labels = pd.read_csv(made / "labels.csv")
    labels.loc[len(labels)] = {**labels.loc[5], "id": "new", "subject": "new"}
    labels.to_csv(tmp_path / "labels.csv", index=False)
    _, excluded = write_cohort(made, tmp_path, tmp_path / "labels.csv")
    assert excluded.set_index("id").loc["new", "problem"] == NOT_PREPROCESSED


def test_pages_escape_what_they_are_given(made, tmp_path):
    evil = "<script>alert(1)</script>"
    labels = pd.read_csv(made / "labels.csv")
    labels.loc[0, ["id", "subject", "site", "problem", "notes"]] = [evil, evil, evil, f"scan: {evil}", evil]
    labels.loc[5, "site"] = labels.loc[5, "sex"] = evil
    labels.to_csv(tmp_path / "labels.csv", index=False)
    page, _ = write_cohort(made, tmp_path, tmp_path / "labels.csv", **dict.fromkeys(ABOUT, evil))
    assert "&lt;script&gt;" in page and "script" not in Tables(page).elements


def test_long_list_of_exclusions_is_cut_and_says_so(made, tmp_path):
    labels = pd.DataFrame({"id": [f"S{i}" for i in range(LISTED + 37)]})
    labels = labels.reindex(columns=TEXT_COLUMNS, fill_value="").assign(problem="scan: no image")
    labels.to_csv(tmp_path / "labels.csv", index=False)
    page, excluded = write_cohort(made, tmp_path, tmp_path / "labels.csv", targets={})
    assert len(Tables(page).tables[-1]) == 1 + LISTED
    assert "37 more" in page and "c.csv" in page and len(excluded) == LISTED + 37


def test_best_is_told_only_of_intervals_apart():
    def cell(low, high):
        return {"value": low, "low": low, "high": high}

    assert best_method("mae", {"network": cell(1, 2), "classical": cell(3, 4)}) == "network"
    assert best_method("mae", {"network": cell(1, 3), "classical": cell(3, 4)}) is None
    assert (
        best_method("auc", {"network": cell(0.1, 0.2), "classical": cell(0.3, 0.4), "trivial": cell(None, None)}) == "classical"
    )
    assert best_method("specificity", {"network": cell(0.1, 0.2), "trivial": cell(1, 1)}) is None


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (2.143, 2.123, 2.163, "2.143 [2.123, 2.163]"),
        (116.4, 101.2, 130.9, "116 [101, 131]"),
        (0.5, 0.5, 0.5, "0.50 [0.50, 0.50]"),
        (-0.0001, -0.05, 0.05, "0.000 [−0.050, 0.050]"),
        (0.975, None, None, "0.975"),
        (None, None, None, "–"),
    ],
)
def test_digits_follow_the_interval(value, low, high, text):
    assert with_interval({"value": value, "low": low, "high": high}) == text


def test_captions_render(made):
    docutils = pytest.importorskip("docutils.core")
    jinja2 = pytest.importorskip("jinja2")
    report = Path(plot.__file__).parent.parent / "report"
    wildcards = {"experiment": "demo-age", "dataset": "demo", "block": "affine-4mm"}
    experiments = {"demo-age": {"dataset": "demo", "target": "age"}}
    datasets = {"demo": {"simulate": {"subjects": 8}}}
    for config in ({}, {"run": ["demo-age", "absent_"], "experiments": experiments, "datasets": datasets}):
        figures = {
            "predictions": ["predicted-vs-true", "residual-vs-true", "roc", "confusion-matrix", "reliability"],
            "depth": ["training-size", "robustness", "attention"],
        }
        for path, figure in [(p, f) for p in sorted(report.glob("*.rst")) for f in figures.get(p.stem, [""])]:
            template = jinja2.Template(path.read_text(), trim_blocks=True, lstrip_blocks=True)  # as Snakemake does
            text = template.render(snakemake={"config": config, "wildcards": wildcards | {"figure": figure}})
            page = docutils.publish_parts(text, writer="html", settings_overrides={"halt_level": 2})["html_body"]
            assert "demo" in page or not config or "wildcards" not in path.read_text()
            assert ("simulated</strong>" in page) == (path.stem == "workflow" and bool(config))


def test_classes_that_look_like_numbers_stay_names_where_cells_are_empty(tmp_path):
    from mriflow.tables.cohort import read_cohort

    rows = "".join(f"s{i},s{i},,A,{value},x,f{i},,\n" for i, value in enumerate(["0", "1", ""]))
    (tmp_path / "labels.csv").write_text("id,subject,session,site,patient,path,fingerprint,problem,notes\n" + rows)
    table, _ = read_cohort(tmp_path / "labels.csv", [], ["patient", "not-there"])
    assert table["patient"].dropna().tolist() == ["0", "1"]
