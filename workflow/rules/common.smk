"""What the rules share: the checked config, and small helpers that look something up in it.

Rules say what depends on what and what it may cost; what is done stands in workflow/mriflow/.
"""

import json
import os
import re
import sys
from pathlib import Path

import yaml
from mriflow.base import recipes
from mriflow.base.errors import UserError
from mriflow.base.files import files_inside
from mriflow.config.checks import columns_of
from mriflow.config.comparable import comparable
from mriflow.config.controls import asked_for, models_of
from mriflow.config.cost import cost, cpu_minutes
from mriflow.config.external import cohorts_of, datasets_of, external_figures, tested_on
from mriflow.config.handover import hand_over, handed_over
from mriflow.config.label_maps import classes_to_store, folders_of, maps_to_read, segmentations, tissue_network
from mriflow.config.resolve import columns_to_read, resolve, settings, training_part, weights_to_start_from
from mriflow.config.search import ask_alike_for_trials, trial_runs, trials_to_judge
from mriflow.tables.split_file import folds_of
from snakemake.exceptions import WorkflowError

# The Python that runs Snakemake runs the jobs too, whether its environment is activated or not.
os.environ.update(PATH=os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()]))

# Snakemake lists the config files of the command line first, though they are merged last.
*overlays, first_configfile = workflow.configfiles
try:
    CONFIG = handed_over(config, Path(workflow.basedir)) if workflow.remote_exec else None
    CONFIG = CONFIG or resolve(config, [Path(first_configfile), *map(Path, overlays)], Path(workflow.basedir))
    FOLDS = {name: folds_of(settings(CONFIG, name)) for name in CONFIG["experiments"]}
except UserError as error:
    raise WorkflowError(str(error)) from None

# --set-resources and --set-threads
ask_alike_for_trials(workflow.resource_settings.overwrite_resources, workflow.resource_settings.overwrite_threads)
EXPERIMENTS = [name for name in CONFIG["run"] if name in CONFIG["experiments"]]
DATASETS = CONFIG["datasets"]
# The brain mask is made for T1-weighted heads. Scans of which none can be had are organized and checked alone.
PREPROCESSED_DATASETS = [name for name, described in DATASETS.items() if described["modality"] == "T1" or described["stripped"]]
TRAINED_EXPERIMENTS = [name for name in EXPERIMENTS if CONFIG["experiments"][name]["dataset"] in PREPROCESSED_DATASETS]
SEGMENTATIONS = segmentations(CONFIG)
PREDICTING_EXPERIMENTS = [name for name in TRAINED_EXPERIMENTS if name not in SEGMENTATIONS]
COMPARED_EXPERIMENTS = comparable(CONFIG, PREDICTING_EXPERIMENTS)
DOWNLOADS = {(name, one["file"]): one for name, described in DATASETS.items() for one in described["downloads"]}
CHANGES = 31  # kinds and strengths in which `robustness` changes the scans, and unchanged
CHECKSUMS = "SHA256SUMS"  # of a model, in its folder
FIGURES = {
    "regression": ["learning-curves", "predicted-vs-true", "residual-vs-true", "failures"],
    "classification": ["learning-curves", "roc", "confusion-matrix", "reliability", "failures"],
    "segmentation": ["learning-curves", "overlays", "volumes"],
}

if workflow.output_settings.dryrun:
    for line in cost(CONFIG, Path.cwd(), PREPROCESSED_DATASETS):
        print(line, file=sys.stderr)


onstart:
    if workflow.non_local_exec:
        hand_over(CONFIG, Path(workflow.basedir))


wildcard_constraints:
    dataset="|".join(DATASETS),
    experiment="|".join(CONFIG["experiments"]) or "(?!)",
    applied="|".join(CONFIG["applied"]) or "(?!)",
    target="|".join(CONFIG["targets"]),
    block="|".join(CONFIG["preprocess"]),
    shard=r"\d+",
    fold=r"\d+",
    seed=r"\d+",
    trial="[0-9a-f]{8}",
    control="shuffled|fraction-[0-9.]+",


# Look something up in the config
def dataset(wildcards):
    """The description of a dataset."""
    return DATASETS[wildcards.dataset]


def experiment(wildcards):
    """Everything that an experiment uses, and under `names` what its blocks are called."""
    return settings(CONFIG, wildcards.experiment)


def experiments_on(wildcards):
    """Everything that each experiment on a dataset uses, to learn from it or to test on it."""
    return [settings(CONFIG, name) for name in EXPERIMENTS if wildcards.dataset in datasets_of(CONFIG["experiments"][name])]


def option(flag, value):
    """A flag with its value for a command line, or nothing if there is no value."""
    return [] if not value else [flag if value is True else f"{flag}={value}"]


def one_of(names):
    """A pattern of wildcards that fits these names alone, and nothing if there are none."""
    return "|".join(names) or "(?!)"


def simulated_flag(wildcards):
    """The flag of every figure and page of a dataset that says that its scans are simulated."""
    return option("--simulated", "simulate" in dataset(wildcards))


# Organize
def source(key):
    """A function of the wildcards that gives the table, images or label maps of a dataset: downloaded, simulated, one's own."""

    def files(wildcards):
        described = dataset(wildcards)
        given = described.get(key, [])
        given = [given] if key == "table" and given else given
        given = given.get("images", []) if key == "label_maps" and given else given
        provided = [file for file in given if "simulate" in described or (wildcards.dataset, file) in DOWNLOADS]
        return [f"<resources>/{wildcards.dataset}/{file}" if file in provided else file for file in given]

    return files


# Preprocess
def scans_to_preprocess(wildcards):
    """The scans of a dataset, if there can be a brain mask of them."""
    if wildcards.dataset not in PREPROCESSED_DATASETS:
        raise WorkflowError(f"datasets.{wildcards.dataset}: only T1-weighted or stripped scans are preprocessed (`modality`)")
    return "<data>/{dataset}/scans.csv"


def tissues_of(block):
    """What tells the tissues of a preprocess block apart: the model of an experiment, or a model that there is; [] if none."""
    name, folder = tissue_network(CONFIG, block)
    if name or not folder:
        return folder or []
    return str(Path(folder, CHECKSUMS))  # the folder's own date says little


def tissue_model(wildcards, input):
    """The flag with the folder of that model."""
    given = Path(str(input.get("tissues", "")))
    return option("--tissues", given.parent if given.name == CHECKSUMS else given if given.name else "")


def minutes_to_preprocess(wildcards):
    """How long a shard may take: longer if all networks of a segmentation see each scan."""
    name, folder = tissue_network(CONFIG, wildcards.block)
    if not name:
        return 480 if folder else 240
    of_core = 3 * cpu_minutes(CONFIG, name, FOLDS[name], wildcards.dataset) / dataset(wildcards)["shards"]
    return 240 + round(of_core / 2)  # two scans at once


def shards(name, block, suffix):
    """The preprocessed shards of a dataset: their arrays (.npy) or their indices (.csv)."""
    return [f"<preprocessed>/{name}/{block}/shard-{shard:03d}.{suffix}" for shard in range(DATASETS[name]["shards"])]


def shown_channel(wildcards):
    """The number of the channel that figures show: the image, if the block has it."""
    block = wildcards.get("block") or experiment(wildcards)["names"]["preprocess"]
    channels = CONFIG["preprocess"][block]["channels"]
    return channels.index("image") if "image" in channels else 0


def experiment_shards(suffix):
    """A function of the wildcards that gives the shards of an experiment's dataset."""

    def files(wildcards):
        names = experiment(wildcards)["names"]
        return shards(names["dataset"], names["preprocess"], suffix)

    return files


# Check and cohort
def cohort_indices(wildcards):
    """The indices of a dataset's shards, of every preprocess block that an experiment uses."""
    used_here = [used for used in experiments_on(wildcards) if used["experiment"] in TRAINED_EXPERIMENTS]
    blocks = sorted({used["names"]["preprocess"] for used in used_here})
    return [file for block in blocks for file in shards(wildcards.dataset, block, "csv")]


def cohort_targets(wildcards):
    """What is predicted from a dataset: the columns and, of a classification, their classes."""
    used_here = [used["target"] for used in experiments_on(wildcards) if used["experiment"] not in SEGMENTATIONS]
    targets = {target["column"]: list(target.get("classes", [])) for target in used_here}
    return {column: classes for column, classes in targets.items() if column in columns_of(dataset(wildcards))}


# Split
def experiment_labels(wildcards):
    """The labels.csv of an experiment's dataset."""
    return f"<data>/{experiment(wildcards)['names']['dataset']}/labels.csv"


# Train
def for_training(part):
    """A function of the wildcards that gives what training has to know of a part of an experiment, as JSON."""
    return lambda wildcards: json.dumps(
        training_part(experiment(wildcards), part, wildcards.get("trial"), wildcards.get("control"))
    )


def chosen(wildcards):
    """What a search chose in each fold of an experiment, if it searches; its trials themselves have nothing to wait for."""
    final = "search" in experiment(wildcards) and "trial" not in wildcards.keys()
    return f"<results>/{wildcards.experiment}/search.json" if final else []


# Evaluate
def trained(file):
    """A function of the wildcards that gives a file of every fold and seed of an experiment."""

    def files(wildcards):
        folds, seeds = range(FOLDS[wildcards.experiment]), experiment(wildcards)["training"]["seeds"]
        folder = f"<results>/{wildcards.experiment}"
        return [f"{folder}/fold-{fold}_seed-{seed}/{file}" for fold in folds for seed in seeds]

    return files


def minutes_to_predict(wildcards, times=1):
    """How long a job may take in which each scan is predicted so many times by networks of all seeds: three times the rule of
    thumb, or a tenth of that on a GPU."""
    of_core = 3 * predicting_minutes(wildcards, times)
    return max(240, round(of_core / 10 if gpus_to_predict(wildcards, times) else of_core))


def gpus_to_predict(wildcards, times=1):
    """A GPU for such a job, where training has one and without it the job would take more than four hours."""
    return int(experiment(wildcards)["training"]["gpu"] > 0 and 3 * predicting_minutes(wildcards, times) > 240)


def predicting_minutes(wildcards, times):
    """What one core would take; another dataset is predicted by the networks of all folds."""
    dataset = wildcards.get("dataset", "")
    often = times * (FOLDS[wildcards.experiment] if dataset else 1)
    return cpu_minutes(CONFIG, wildcards.experiment, often, dataset)


# Controls
def asked(wildcards):
    """The block `controls` of an experiment."""
    return CONFIG["experiments"][wildcards.experiment]["controls"]


def models_of_controls(names):
    """A function of the wildcards that gives the models of all folds, of one seed, of the trainings that `names` gives."""

    def files(wildcards):
        seed = experiment(wildcards)["training"]["seeds"][0]
        return models_of(wildcards.experiment, names(asked(wildcards)), FOLDS[wildcards.experiment], seed)

    return files


def made_by_alter(file, names):
    """A function of the wildcards that gives the file of the trainings that `names` gives."""
    return lambda wildcards: [f"<results>/{wildcards.experiment}/controls/{name}/{file}" for name in names(asked(wildcards))]


# Predict
def applied(wildcards):
    """The dataset and the model of an experiment that uses a model that there is."""
    return CONFIG["applied"][wildcards.applied]


def applied_shards(wildcards):
    """How many shards its dataset has."""
    return DATASETS[applied(wildcards)["dataset"]]["shards"]


# Report
def of_each_experiment(files, experiments):
    """What `files` gives of the names of each experiment's blocks, each file once."""
    return list(dict.fromkeys(file for name in experiments for file in files(settings(CONFIG, name)["names"])))


def results(wildcards):
    """Everything that a run makes, but for the report of it."""
    wanted = [f"<results>/{name}/predictions.csv" for name in CONFIG["applied"]]
    wanted += ["<results>/comparison.png"] if PREDICTING_EXPERIMENTS else []
    wanted += ["<results>/comparison.csv"] if COMPARED_EXPERIMENTS else []
    for name in EXPERIMENTS:
        used = settings(CONFIG, name)
        names = used["names"]
        cohorts = [f"<results>/cohorts/{one}" for one in datasets_of(CONFIG["experiments"][name])]
        if name in TRAINED_EXPERIMENTS:
            wanted += [f"<results>/{name}/figures/{figure}.png" for figure in FIGURES[used["target"]["type"]]]
            wanted += [f"<results>/{name}/balance.csv", *external_figures(CONFIG, name)]
            wanted += [f"{cohort}/scans_{names['preprocess']}.png" for cohort in cohorts]
            wanted += [f"{cohort}/quality_{names['preprocess']}.{suffix}" for cohort in cohorts for suffix in ("html", "png")]
            wanted += [f"<results>/{name}/model", *asked_for(name, CONFIG["experiments"][name], name in SEGMENTATIONS)]
        wanted += [f"{cohort}/{page}" for cohort in cohorts for page in ("cohort.png", "cohort.html", "check.html")]
        wanted += [] if name in SEGMENTATIONS else [f"<data>/{names['dataset']}/{names['target']}/labels.csv"]
    return list(dict.fromkeys(wanted))
