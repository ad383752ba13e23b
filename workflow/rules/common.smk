"""What the rules share: the checked config, and small helpers that look something up in it.

Rules say what depends on what and what it may cost; what is done stands in workflow/mriflow/.
"""

import json
import os
import re
import sys
from pathlib import Path

import yaml
from mriflow import recipes
from mriflow.config import resolve, settings
from mriflow.errors import UserError
from snakemake.exceptions import WorkflowError

# The Python that runs Snakemake runs the jobs too, whether its environment is activated or not.
os.environ.update(
    PATH=os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()])
)

# Snakemake lists the config files of the command line first, though they are merged last.
*overlays, first_configfile = workflow.configfiles
try:
    CONFIG = resolve(
        config, [Path(first_configfile), *map(Path, overlays)], Path(workflow.basedir)
    )
except UserError as error:
    raise WorkflowError(str(error)) from None

EXPERIMENTS = CONFIG["run"]
DATASETS = CONFIG["datasets"]
DOWNLOADS = {
    (name, one["file"]): one
    for name, described in DATASETS.items()
    for one in described["downloads"]
}
FIGURES = {
    "regression": ["learning-curves", "predicted-vs-true", "residual-vs-age"],
    "classification": ["learning-curves", "roc", "confusion-matrix"],
}


wildcard_constraints:
    dataset="|".join(DATASETS),
    experiment="|".join(EXPERIMENTS),
    target="|".join(CONFIG["targets"]),
    block="|".join(CONFIG["preprocess"]),
    shard=r"\d+",
    fold=r"\d+",
    seed=r"\d+",


def dataset(wildcards):
    """The description of a dataset."""
    return DATASETS[wildcards.dataset]


def experiment(wildcards):
    """Everything that an experiment uses, and under `names` what its blocks are called."""
    return settings(CONFIG, wildcards.experiment)


def as_json(*keys):
    """A function of the wildcards that gives a part of an experiment as JSON, for a command line."""

    def part(wildcards):
        value = experiment(wildcards)
        for key in keys:
            value = value[key]
        return json.dumps(value)

    return part


def source(key):
    """A function of the wildcards that gives the table or images of a dataset: downloaded, simulated or one's own."""

    def file(wildcards):
        described = dataset(wildcards)
        ours = described["downloads"] or "simulate" in described
        if key not in described:
            return []
        return (
            f"<resources>/{wildcards.dataset}/{described[key]}"
            if ours
            else described[key]
        )

    return file


def shards(name, block, suffix):
    """The preprocessed shards of a dataset: their arrays (.npy) or their indices (.csv)."""
    return [
        f"<preprocessed>/{name}/{block}/shard-{shard:03d}.{suffix}"
        for shard in range(DATASETS[name]["shards"])
    ]


def experiment_shards(suffix):
    """A function of the wildcards that gives the shards of an experiment's dataset."""

    def files(wildcards):
        names = experiment(wildcards)["names"]
        return shards(names["dataset"], names["preprocess"], suffix)

    return files


def experiment_labels(wildcards):
    """The labels.csv of an experiment's dataset."""
    return f"<data>/{experiment(wildcards)['names']['dataset']}/labels.csv"


def folds(name):
    """The numbers of an experiment's folds."""
    used = settings(CONFIG, name)
    by_site = used["split"]["method"] == "leave-site-out"
    return range(len(used["dataset"]["sites"]) if by_site else used["split"]["folds"])


def trained(file):
    """A function of the wildcards that gives a file of every fold and seed of an experiment."""

    def files(wildcards):
        return [
            f"<results>/{wildcards.experiment}/fold-{fold}_seed-{seed}/{file}"
            for fold in folds(wildcards.experiment)
            for seed in experiment(wildcards)["training"]["seeds"]
        ]

    return files


def download(wildcards):
    """The description of one file to download."""
    return DOWNLOADS[wildcards.dataset, wildcards.file]


def simulated(described):
    """The flag that makes a figure say that its scans are simulated."""
    return ["--simulated"] if "simulate" in described else []


def cohort_indices(wildcards):
    """The indices of a dataset's shards, of every preprocess block that an experiment uses."""
    used = [settings(CONFIG, name)["names"] for name in EXPERIMENTS]
    blocks = {
        names["preprocess"] for names in used if names["dataset"] == wildcards.dataset
    }
    return [
        file
        for block in sorted(blocks)
        for file in shards(wildcards.dataset, block, "csv")
    ]


def results(wildcards):
    """Everything that a run makes, but for the report of it."""
    wanted = ["<results>/comparison.png", "<results>/results.html"]
    for name in EXPERIMENTS:
        used = settings(CONFIG, name)
        names = used["names"]
        wanted += [
            f"<results>/{name}/figures/{figure}.png"
            for figure in FIGURES[used["target"]["type"]]
        ]
        wanted += [
            f"<results>/cohorts/{names['dataset']}/scans_{names['preprocess']}.png",
            f"<results>/cohorts/{names['dataset']}/cohort.png",
            f"<results>/cohorts/{names['dataset']}/cohort.html",
            f"<data>/{names['dataset']}/{names['target']}/labels.csv",
        ]
    return list(dict.fromkeys(wanted))
