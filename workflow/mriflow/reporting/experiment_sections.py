"""The sections of one experiment."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mriflow.config.external import FIGURE
from mriflow.reporting import result_tables as tables
from mriflow.reporting.balance_tables import balance_tables
from mriflow.reporting.cohort_page import by_site
from mriflow.reporting.flow import Step, drawing_of, steps_of
from mriflow.reporting.html import Markup
from mriflow.reporting.map_sections import of_maps
from mriflow.reporting.parts import Drawing, List, Part, Section, Table, Text, figure, table_of
from mriflow.reporting.results import ABOUT, with_interval
from mriflow.reporting.words import can_be_trusted, worst_group
from mriflow.tables.problems import count_reasons

FIGURES = {
    "predicted-vs-true": "Predicted over true {target} of {n} test scans, a point each, with the line of identity",
    "residual-vs-true": "Predicted minus true {target} over true {target} of {n} test scans, with a fitted line",
    "roc": "ROC curves of the methods for {target}, {n} test scans",
    "confusion-matrix": "Counts of true and predicted {target}, {n} test scans",
}
HOW = {
    "flow": "Counts from all rows that are known to the scans that were tested. Bad: many left out, or for a reason "
    "that has to do with the target.",
    "parts": "Those who are tested should be like those who are learned from. Bad: a large difference (bold) that chance would "
    "rarely give.",
    "training": "Curves should fall together and flatten. Bad: validation that rises while training falls, or that jumps to "
    "the end.",
    "results": "The metrics stand on top of the page; read the differences, not them alone. Bad: not better than trivial or "
    "confounders.",
    "subgroups": "The network in each group of people; verdicts are corrected for all of them, intervals are not. Bad: a group "
    "that differs; what cannot be told is no proof of fairness.",
    "calibration": "Whether 0.8 comes true eight times in ten. Bad: an ECE that the temperature does not lower, or a mean "
    "probability outside the interval beside it.",
    "gap": "Predicted minus true, raw and with the line on the truth taken away, which needs the true value. 95 % of gaps lie "
    "between the limits, if they are normal. Bad: a corrected slope far from 0.",
    "conformal": "How often intervals or sets meant to hold the truth nine times in ten do so. Bad: an interval below 0.9, or "
    "a width as large as the range of the target.",
    "folds": "Each fold and seed alone. Bad: folds far apart, or a mean far from that of all scans.",
    "failures": "The worst test scans; look at their images. Bad: errors that go with poor quality, or all from one site.",
    "controls": "Shuffled labels must give chance; more people a smaller error. p: how often 100 shuffles were as good as the "
    "real labels, of the classical method. Bad: better than chance when shuffled.",
    "robustness": "The same test scans, made worse after preprocessing: noise, bias field and contrast change no "
    "map of tissues. Bad: a metric that falls at a strength that real scans have.",
    "attention": "Where predictions depend on the image, and whether random weights give another map. Bad: a failed check.",
    "external": "People of another dataset, predicted by all networks together; every method was fitted to this experiment's "
    "dataset alone. Bad: an interval that does not overlap with that above, or a network not better than trivial.",
    "model": "The networks with all that their use on other scans needs.",
}
CHECKS = {  # part and name in attention.json
    ("sanity", "other_fold"): "rank correlation with the map by networks of another fold",
    ("sanity", "random_weights"): "rank correlation with the map by random weights",
    ("sanity", "verdict"): "more like that of another fold than that of random weights?",
    ("truth", "overlap"): "share of the strongest tenth that the simulator changes most",
    ("truth", "chance"): "the same of maps turned at random",
    ("truth", "random_weights"): "the same of maps by random weights",
    ("truth", "p"): "p, of turned maps",
}
TITLES = {
    "flow": "Cohort flow",
    "parts": "Parts and their balance",
    "training": "Learning curves",
    "results": "Results",
    "subgroups": "Subgroups",
    "calibration": "Calibration",
    "gap": "Gap, raw and corrected",
    "conformal": "Conformal intervals",
    "folds": "By fold and seed",
    "failures": "Failures",
    "controls": "Controls",
    "robustness": "Robustness",
    "attention": "What it looks at",
    "external": "External test",
    "model": "Model",
}


def tested_of(folder: Path) -> list[str]:
    """Return the ids of the scans that an experiment has tested, none if it has not."""
    path = folder / "predictions.csv"
    return pd.read_csv(path, usecols=["id"], dtype=str, keep_default_na=False)["id"].tolist() if path.exists() else []


def steps_of_experiment(name: str, run: Mapping[str, Any], folder: Path, data: Path, preprocessed: Path) -> list[Step]:
    """Return who came to the test of an experiment, nothing if the labels of its dataset are not there."""
    used = run["experiments"][name]
    labels = data / used["dataset"] / "labels.csv"
    if not labels.exists():
        return []
    target = run["targets"][used["target"]]
    of_block = sorted((preprocessed / used["dataset"] / used["preprocess"]).glob("shard-*.csv"))
    return steps_of(labels, of_block, target["column"], list(target.get("classes", [])), tested_of(folder / name))


def sections_of_experiment(
    name: str, run: Mapping[str, Any], folder: Path, result: Mapping[str, Any] | None, steps: Sequence[Step]
) -> list[Section]:
    """Return the heading and the sections of an experiment; those that nothing is known of are left out."""
    place = folder / name
    used = run["experiments"][name]
    blocks = ", ".join(f"{kind} {used[kind]}" for kind in ("dataset", "target", "preprocess", "split", "network", "training"))
    found: dict[str, list[Part]] = {"flow": flow(steps)}
    if result:
        found |= of_maps(result, place) if result["type"] == "segmentation" else of_result(result, place)
    heading = Section(f"experiment-{name}", f"Experiment {name}", "", [Text(f"Blocks of the config: {blocks}.", "small")], 2)
    return [heading, *(Section(f"{kind}-{name}", TITLES[kind], HOW[kind], parts) for kind, parts in found.items() if parts)]


def flow(steps: Sequence[Step]) -> list[Part]:
    """Return the diagram of who came to the test."""
    caption = "Each scan that is left out counts under its first reason."
    return [Drawing(drawing_of(steps), caption)] if steps else []


def of_result(result: Mapping[str, Any], place: Path) -> dict[str, list[Part]]:
    """Return the parts of the sections of an experiment that was trained."""
    simulated, metric = result["simulated"], "mae" if result["type"] == "regression" else "auc"
    drawings = place / "figures"

    def drawn(stem: str, alt: str, caption: str) -> list[Part]:
        return figure(drawings / f"{stem}.png", alt, caption, simulated)

    pictures: list[Part] = []
    for stem, words in FIGURES.items():
        about = words.format(target=result["target"], n=result["n"])
        pictures += drawn(stem, about, f"{about}.")
    balance = place / "balance.csv"
    curves = (
        "Loss and score of training scans and, where there are any, of validation scans by epoch, one line for each fold and "
    )
    curves += "seed, the mean thick"
    reliable = "Share of test scans that were of a class over its predicted probability, before and after the temperature"
    decisions = tables.of_cells(result.get("decisions", {}), "threshold, chosen on other scans", result)
    against_rest = result.get("one_against_rest", {"classes": {}})["classes"]
    worst_alt = "Slices of the test scans that the network is most wrong about, with true and predicted value"
    notes = [Text(f"{method}: {note}", "small") for method, note in result.get("notes", {}).items()]
    power = [List(result["power"]["sentences"], "What so many people can tell")] if result.get("power") else []
    worst, trusted = worst_group(result), can_be_trusted(result)
    groups = tables.subgroups(result)
    calibrated = tables.calibration(result)
    return {
        "parts": [*demographics(place), *(balance_tables(balance) if balance.exists() else [])],
        "training": [
            *[List(found, style="warnings") for found in [tables.warnings(result)] if found],
            *drawn("learning-curves", curves, f"{curves}."),
            *tables.search(result),
        ],
        "results": [
            *tables.differences(result),
            *pictures,
            *tables.of_cells(against_rest, "class against the rest", result),
            *decisions,
            *power,
            *notes,
        ],
        "subgroups": [*([Text(worst)] if worst and groups else []), *groups],
        "calibration": [
            *([Text(trusted)] if trusted else []),
            *(drawn("reliability", reliable, f"{reliable}.") if calibrated else []),
            *calibrated,
        ],
        "gap": tables.of_cells(result.get("gap", {}), "gap", result),
        "conformal": conformal(result),
        "folds": tables.by_fold(result),
        "external": external(result, drawings),
        "failures": [
            *drawn("failures", worst_alt, "The worst first."),
            *table_of(place / "failures.csv", "The worst test scans", without=("image",)),
            *tables.quality(result),
        ],
        "controls": [
            *drawn("training-size", f"{metric.upper()} by number of training scans, network and classical", "By size."),
            *table_of(place / "controls.csv", "Controls"),
        ],
        "robustness": [
            *drawn("robustness", f"{metric.upper()} by strength of each change of the scans", "On scans that were made worse."),
            *table_of(place / "robustness.csv", "On changed scans, and the difference", (metric, f"{metric}_difference")),
        ],
        "attention": [
            *drawn("attention", "Slices of the template with the mean map of what predictions depend on", "Mean map."),
            *checks_of_maps(place / "attention.json"),
        ],
        "model": model(place, result),
    }


def demographics(place: Path) -> list[Part]:
    """Return age and sex of the people who were tested, by site."""
    path = place / "predictions.csv"
    if not path.exists():
        return []
    text = dict.fromkeys(["id", "subject", "site", "sex"], str)
    table = pd.read_csv(path, dtype=text, keep_default_na=False, na_values=[""])
    if not {"subject", "site"} <= set(table):
        return []
    table = table.drop_duplicates("id").fillna({"subject": "", "site": ""})
    names, rows = by_site(table)
    return [Table(names, rows, "Tested, by site")]


def conformal(result: Mapping[str, Any]) -> list[Part]:
    """Return coverage and size of the conformal intervals or sets."""
    found = result.get("conformal")
    if not found:
        return []
    names = {"coverage": "held the truth", "width": f"mean width ({result['unit']})", "size": "mean number of classes"}
    rows = [[names[key], with_interval(cell)] for key, cell in found.items() if key in names]
    return [Table([f"{found['coverage']['n']} scans, meant for {found['coverage']['level']:.0%}", "value"], rows)]


def checks_of_maps(path: Path) -> list[Part]:
    """Return what tells whether maps of attention are to be believed, if they were made."""
    if not path.exists():
        return []
    found = json.loads(path.read_text(encoding="utf-8"))
    rows = []
    for way, about in found["ways"].items():
        for (part, name), words in CHECKS.items():
            if (cell := about.get(part, {}).get(name)) is not None:
                text = with_interval(cell) if isinstance(cell, dict) else cell if isinstance(cell, str) else f"{cell:.3g}"
                rows.append([way, words, text])
    return [Table(["way", "check", "value"], rows, f"Checks of the maps of {found['n']} scans")]


def sections_of_applied(run: Mapping[str, Any], folder: Path) -> list[Section]:
    """Return a section for each experiment that used a model that there was: how many scans it predicted, and its doubts."""
    sections = []
    for name, used in run.get("applied", {}).items():
        path = folder / name / "predictions.csv"
        if not path.exists():
            continue
        table = pd.read_csv(path, keep_default_na=False, dtype=str)
        made = table[table["problem"] == ""]
        doubted = int((made["warning"] != "").sum())
        text = f"Of {len(table)} scans of {run['datasets'][used['dataset']]['title']}, {len(made)} were predicted by "
        text += f"{used['model']}, {doubted} of them with a warning. Each has a row in {name}/predictions.csv."
        rows = [[reason, str(count)] for reason, count in count_reasons(table["problem"])]
        parts: list[Part] = [Text(text), *([Table(["not predicted", "scans"], rows)] if rows else [])]
        how = "What a model says of scans whose labels it was not asked about. Bad: many warnings, or many that it refuses."
        sections.append(Section(f"applied-{name}", f"Predictions {name}", how, parts, 2))
    return sections


def external(result: Mapping[str, Any], drawings: Path) -> list[Part]:
    """Return how good the predictions of other datasets are, and who was left out."""
    parts: list[Part] = []
    for name, found in result.get("external", {}).items():
        whole = {**{key: result[key] for key in (*ABOUT, "type")}, **found}
        reasons = "; ".join(f"{reason}: {count}" for reason, count in found["left_out"].items())
        counts = f"{found['n_predicted']} scans predicted, {found['n']} of them with a label"
        parts.append(Text(f"{found['title']}: {counts}.{f' Left out: {reasons}.' if reasons else ''}"))
        if not found["n"]:
            continue
        stem = f"{FIGURE[result['type']]}_{name}"
        alt = f"Predictions of {found['n']} scans of {found['title']}"
        parts += [tables.methods_table(whole, name), *tables.differences(whole), *conformal(whole)]
        parts += figure(drawings / f"{stem}.png", alt, f"{alt}, of which nothing was learned.", found["simulated"])
    return parts


def model(place: Path, result: Mapping[str, Any]) -> list[Part]:
    """Return where the model lies and how it is used, if it was put together."""
    folder = place / "model"
    if not folder.exists():
        return []
    command = f"mriflow predict results/{place.name}/model scan.nii.gz --output predictions.csv"
    text = Markup("{} holds the networks; its card is docs/README.md in it. Use: <code>{}</code>")
    return [Text(text.format_escaped(f"{place.name}/model", command))]
