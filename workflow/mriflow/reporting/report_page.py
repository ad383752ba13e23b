"""The report of a run: one page that holds all that was found, how it was found, and what authors must add."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import yaml

from mriflow.base.errors import UserError
from mriflow.base.files import write_csv, write_text
from mriflow.config.external import datasets_of
from mriflow.config.network_checks import needed_by
from mriflow.reporting import result_tables as tables
from mriflow.reporting.claim import table_of_claim
from mriflow.reporting.compute import compute_used
from mriflow.reporting.experiment_sections import sections_of_applied, sections_of_experiment, steps_of_experiment
from mriflow.reporting.html import Markup
from mriflow.reporting.map_sections import sentences_of_maps
from mriflow.reporting.methods_text import methods_paragraph
from mriflow.reporting.parts import List, Part, Section, Table, Text, figure
from mriflow.reporting.results import not_as_made, read_metrics
from mriflow.reporting.words import five_sentences

BLOCKS = {"targets": "target", "preprocess": "preprocess", "splits": "split", "networks": "network", "training": "training"}
TITLE = "Deep learning on brain MRI: report"


def write_report(
    page: Path, csv: Path, *, config: Path, data: Path, preprocessed: Path, benchmarks: Path, workflow: str
) -> str:
    """Write the report and ``results.csv``, the metrics of all experiments.

    Parameters
    ----------
    config
        The merged config of the run. Beside it lie the folders of its experiments and of the cohorts.
    data, preprocessed
        Folders with ``<dataset>/labels.csv`` and ``<dataset>/<block>/shard-*.csv``.
    benchmarks
        Folder of Snakemake's benchmarks; may be missing.
    workflow
        Name of Snakemake's own report, to link to.

    Raises
    ------
    UserError
        If a metrics.json or the config is not as it was made, or an experiment of `report_only` has none.
    """
    folder = config.parent
    run = with_earlier(read_config(config), folder)
    names = [name for name in run["run"] if name in run["experiments"]]
    found = {name: read_metrics(folder / name / "metrics.json") for name in names if (folder / name / "metrics.json").exists()}
    maps = {name: result for name, result in found.items() if result["type"] == "segmentation"}
    results = {name: result for name, result in found.items() if name not in maps}
    steps = {name: steps_of_experiment(name, run, folder, data, preprocessed) for name in names}
    sections = [summary(run, names, results, maps, steps, workflow), *comparison(folder, results)]
    datasets = list(dict.fromkeys(dataset for name in names for dataset in datasets_of(run["experiments"][name])))
    for name in datasets:
        sections += sections_of_dataset(name, run["datasets"][name], folder)
    for name in names:
        sections += sections_of_experiment(name, run, folder, found.get(name), steps[name])
    sections += sections_of_applied(run, folder)
    sections += closing(run, found, benchmarks)
    sections.append(checklist(sections, run, names))
    simulated = [run["datasets"][name]["title"] for name in datasets if "simulate" in run["datasets"][name]]
    text = render(TITLE, sections, simulated)
    write_text(text, page)
    write_csv(tables.long_results(list(results.values())), csv)
    return text


def read_config(path: Path) -> dict[str, Any]:
    """Return the merged config of a run."""
    try:
        found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}). The rule `config` makes it; delete it and run that again."
        ) from None
    if not isinstance(found, dict) or not {"run", "experiments", "datasets"} <= set(found):
        raise UserError(f"{path}: not the merged config of a run, which has `run`, `experiments` and `datasets`.")
    return found


def with_earlier(run: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the config of a run as if it had run the experiments of `report_only`, too, with the blocks that they had."""
    run = {
        **run,
        **{section: dict(run[section]) for section in ("experiments", "targets", "datasets")},
        "run": list(run["run"]),
    }
    for name in run.get("report_only", []):
        if name in run["run"]:
            continue
        path = folder / name / "metrics.json"
        if not path.exists():
            raise UserError(f"report_only: {name} has no {path}. Expected an experiment that has run; put it into `run`.")
        had = provenance(read_metrics(path)).get("settings")
        if not had:
            raise not_as_made(path, "it does not tell with which settings it was made", "evaluate")
        run["run"].append(name)
        run["experiments"][name] = had["names"]
        run["targets"].setdefault(had["names"]["target"], had["target"])
        run["datasets"].setdefault(had["names"]["dataset"], had["dataset"])
    return run


def render(title: str, sections: Sequence[Section], simulated: Sequence[str]) -> str:
    """Return the page."""
    loader = jinja2.PackageLoader("mriflow.reporting", "templates")
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    text: str = environment.get_template("report.html").render(title=title, sections=sections, simulated=simulated)
    return text


def summary(
    run: Mapping[str, Any],
    names: Sequence[str],
    results: Mapping[str, Any],
    maps: Mapping[str, Any],
    steps: Mapping[str, Any],
    workflow: str,
) -> Section:
    """Return the top of the page: what is wrong, five sentences for each experiment, and all metrics."""
    parts: list[Part] = []
    for name in names:
        if name not in {**results, **maps}:
            title = run["datasets"][run["experiments"][name]["dataset"]]["title"]
            parts.append(Text(f"{name}: no network was trained; the scans of {title} were organized and checked alone."))
            continue
        if found := tables.warnings({**results, **maps}[name]):
            parts.append(List(found, f"{name}: look at this first", style="warnings"))
        if name in maps:
            parts.append(List(sentences_of_maps(maps[name], steps[name]), name, "ol"))
        else:
            parts.append(List(five_sentences(results[name], steps[name]), name, "ol"))
    parts += [tables.methods_table(result, f"{name}: metrics by method") for name, result in results.items()]
    parts += [Text(tables.legend(list(results.values())), "small")] if results else []
    link = Markup('How the jobs depended on each other, and when they ran: <a href="{}">{}</a>, beside this file.')
    parts.append(Text(link.format_escaped(workflow, workflow), "small"))
    how = "Read this and the cohort flow first. Bad: a warning, or a network not better than trivial or confounders."
    return Section("summary", "In short", how, parts, 2)


def comparison(folder: Path, results: Mapping[str, Any]) -> list[Section]:
    """Return all experiments side by side, if there are several."""
    if len(results) < 2:
        return []
    simulated = any(result["simulated"] for result in results.values())
    alt = f"Metrics of the methods with 95 % intervals, side by side, of {', '.join(results)}"
    parts = figure(folder / "comparison.png", alt, "Points are the metrics, lines the 95 % intervals.", simulated)
    path = folder / "comparison.csv"
    if path.exists():
        found = pd.read_csv(path)
        found = found[found["experiment"].isin(list(results)) & found["other"].isin(list(results))]
        parts += [List(found["sentence"].dropna().tolist(), "Networks on the same scans")] if len(found) else []
    how = "Compare methods within a panel; panels have scales of their own. Bad: the network beside trivial."
    return [Section("comparison", "Experiments side by side", how, parts, 2)] if parts else []


def sections_of_dataset(name: str, dataset: Mapping[str, Any], folder: Path) -> list[Section]:
    """Return who is in a dataset and what the scans look like."""
    title, cohort, simulated = dataset["title"], folder / "cohorts" / name, "simulate" in dataset
    keys = {
        "dates": "Collected",
        "setting": "Setting",
        "reference_standard": "Reference standard",
        "licence": "Licence",
        "citation": "Cite as",
    }
    about: list[Part] = [Text(f"{label}: {dataset[key]}") for key, label in keys.items() if dataset.get(key)]
    alt = f"Histogram of age by sex, and scans by site, of {title}"
    about += figure(cohort / "cohort.png", alt, f"Age, sex and site of the usable scans of {title}.", simulated)
    sections = [Section(f"data-{name}", f"Data: {title}", "Who was scanned, where, and whose labels these are.", about, 2)]
    montage: list[Part] = []
    for png in sorted(cohort.glob("scans_*.png")):
        alt = f"Slices of several scans of {title} as the network sees them, {png.stem.removeprefix('scans_')}"
        montage += figure(png, alt, f"Scans as the network sees them ({png.stem.removeprefix('scans_')}).", simulated)
    for png in sorted(cohort.glob("quality_*.png")):
        alt = f"Histograms of correlation with the template, brain volume and scale of the scans of {title}"
        montage += figure(png, alt, f"Quality of preprocessing ({png.stem.removeprefix('quality_')}).", simulated)
    how = "Bad: a brain that is cut, tilted or missing, or a scan far from the others."
    return [*sections, *([Section(f"scans-{name}", "Scans and quality", how, montage)] if montage else [])]


def closing(run: Mapping[str, Any], results: Mapping[str, Any], benchmarks: Path) -> list[Section]:
    """Return what the results were made with: compute, software and config, methods."""
    sections = []
    gpus = {name: one["settings"]["training"]["gpu"] for name, result in results.items() if (one := provenance(result))}
    experiments = what_ran(run)["experiments"]
    names = {*experiments, *run.get("applied", {}), *(name for one in experiments.values() for name in datasets_of(one))}
    names |= {one["dataset"] for one in run.get("applied", {}).values()}
    if used := compute_used(benchmarks, gpus, names):
        how = "Time of the jobs as they last ran. Bad: memory near what the machine has, a job far longer than its like."
        sections.append(Section("compute", "Compute used", how, used, 2))
    paragraphs: list[Part] = []
    for name, result in results.items():
        if text := methods_paragraph(result):
            paragraphs += [Text(Markup("<b>{}</b>").format_escaped(name)), Text(text)]
    if paragraphs:
        how = "To copy into a paper, and to edit. The numbers are those of this run."
        sections.append(Section("methods", "Methods paragraph", how, paragraphs, 2))
    parts: list[Part] = []
    made = [(name, one) for name, result in results.items() if (one := provenance(result))]
    if made:
        rows = [
            [name, (one["git_commit"] or "not known")[:12] + ("-dirty" if "dirty" in (one["git_commit"] or "") else ""),
             ", ".join(map(str, results[name]["seeds"])), str(one["settings"]["split"].get("seed", "–")), one["python"],
             ", ".join(f"{key} {value}" for key, value in one["versions"].items())]
            for name, one in made
        ]  # fmt: skip
        parts.append(Table(["experiment", "commit", "seeds", "seed of the split", "Python", "packages"], rows))
    text = yaml.safe_dump(what_ran(run), sort_keys=False, allow_unicode=True)
    parts.append(
        Table(["config.yaml of what was run, defaults filled in, without datasets"], [[preformatted(text)]], "", "The config")
    )
    how = "What is needed to make the numbers again. Bad: a commit that ends in -dirty, for its code is nowhere."
    sections.append(Section("software", "Software, seeds and config", how, parts, 2))
    return sections


def what_ran(run: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a run without its datasets and without the blocks that none of its experiments names."""
    names = [name for name in run["run"] if name in run["experiments"]]
    for name in names:  # it grows: what an experiment starts from, or has its tissues from, was run, too
        others = needed_by(run, name) if "networks" in run else []
        names += [other for other in others if other in run["experiments"] and other not in names]
    experiments = {name: run["experiments"][name] for name in names}
    kept = {key: value for key, value in run.items() if key != "datasets"} | {"experiments": experiments}
    for section, key in BLOCKS.items():
        if section in run:
            named = {experiment[key] for experiment in experiments.values() if key in experiment}
            named |= (
                {name for one in experiments.values() for name in one.get("auxiliary", ())} if section == "targets" else set()
            )
            kept[section] = {name: block for name, block in run[section].items() if name in named}
    return kept


def provenance(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return how a result was made, nothing if that is not known."""
    return result.get("provenance") or {}


def preformatted(text: str) -> Markup:
    """Return text with its lines as they are."""
    return Markup("<pre>{}</pre>").format_escaped(text)


def checklist(sections: Sequence[Section], run: Mapping[str, Any], names: Sequence[str]) -> Section:
    """Return the table of CLAIM 2024."""
    anchors: dict[str, str] = {}
    for section in sections:
        anchors.setdefault(section.id.split("-")[0], section.id)
    datasets = [run["datasets"][run["experiments"][name]["dataset"]] for name in names]
    kinds = {"data": ("dates", "setting"), "reference": ("reference_standard",)}
    full = {kind for kind, keys in kinds.items() if all(one.get(key) for one in datasets for key in keys)}
    if "reference" in full and "data" in anchors:
        anchors["reference"] = anchors["data"]
    full |= {kind for kind in ("external", "robustness", "attention") if kind in anchors}
    how = "CLAIM 2024 (Tejani et al.), items in our words. Bad: an item of which neither this page nor the paper says anything."
    return Section("claim", "Checklist for authors (CLAIM 2024)", how, [table_of_claim(anchors, full)], 2)
