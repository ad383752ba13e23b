"""
Predict the test part of every fold, beside simpler methods, and say how good the predictions are; compare experiments.

INPUT:  results/<experiment>/fold-*_seed-*/model.pt, preprocessed/<dataset>/<block>/*
OUTPUT: results/<experiment>/settings.json     everything of the config that it uses
        results/<experiment>/predictions.csv   one row per test scan
        results/<experiment>/validation-predictions.csv   the same of the validation parts, by the network and what it has to beat
        results/<experiment>/metrics.json      every metric with its 95 % interval
        results/<experiment>/metrics.csv       the same numbers, one a row
        results/<experiment>/calibration.json  what was fitted to the predictions of scans that were not learned from
        results/<experiment>/failures.csv      the worst test scans
        results/<experiment>/external-predictions.csv   one row per scan of other datasets (rules/external.smk)
        results/<experiment>/curves.csv        ROC and precision-recall curves, of classes
        results/comparison.csv                 differences between experiments on the same scans
"""


rule settings:
    output:
        "<results>/{experiment}/settings.json",
    log:
        "<logs>/settings/{experiment}.log",
    localrule: True
    conda:
        "../../envs/conda.yaml"
    params:
        settings=lambda wildcards: json.dumps(experiment(wildcards)),
    shell:
        "printf '%s\\n' {params.settings:q} > {output:q} 2> {log:q}"


rule evaluate:
    input:
        settings="<results>/{experiment}/settings.json",
        models=trained("model.pt"),
        warnings=trained("warnings.json"),
        arrays=experiment_shards("npy"),
        indices=experiment_shards("csv"),
        labels=experiment_labels,
        splits="<results>/{experiment}/splits.csv",
        search=chosen,
        external=lambda wildcards: [
            f"<results>/{wildcards.experiment}/external/{name}.csv" for name in tested_on(CONFIG, wildcards.experiment)
        ],
    output:
        predictions="<results>/{experiment}/predictions.csv",
        metrics="<results>/{experiment}/metrics.json",
        beside=multiext(
            "<results>/{experiment}/",
            "validation-predictions.csv",
            "metrics.csv",
            "calibration.json",
            "failures.csv",
            "curves.csv",
            "external-predictions.csv",
        ),
    log:
        "<logs>/evaluate/{experiment}.log",
    benchmark:
        "<benchmarks>/evaluate/{experiment}.tsv"
    wildcard_constraints:
        experiment=one_of(name for name in CONFIG["experiments"] if name not in SEGMENTATIONS),
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=8000,
        runtime=minutes_to_predict,
        gpu=gpus_to_predict,
    params:
        search=lambda wildcards, input: option("--search", input.search),
        cohorts=lambda wildcards: json.dumps(cohorts_of(CONFIG, wildcards.experiment)),
        recipe=recipes.EVALUATE,
    shell:
        "python -m mriflow.evaluate"
        " --predictions {output.predictions:q}"
        " --metrics {output.metrics:q}"
        " --models {input.models:q}"
        " --warnings {input.warnings:q}"
        " --arrays {input.arrays:q}"
        " --indices {input.indices:q}"
        " --labels {input.labels:q}"
        " --splits {input.splits:q}"
        " --settings {input.settings:q}"
        " {params.search:q}"
        " --external {input.external:q}"
        " --cohorts {params.cohorts:q}"
        " > {log:q} 2>&1"


rule compare:
    input:
        predictions=expand("<results>/{experiment}/predictions.csv", experiment=COMPARED_EXPERIMENTS),
        metrics=expand("<results>/{experiment}/metrics.json", experiment=COMPARED_EXPERIMENTS),
    output:
        "<results>/comparison.csv",
    log:
        "<logs>/compare.log",
    benchmark:
        "<benchmarks>/compare/comparison.tsv"
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        recipe=recipes.EVALUATE,
    shell:
        "python -m mriflow.compare"
        " --table {output:q}"
        " --predictions {input.predictions:q}"
        " --metrics {input.metrics:q}"
        " > {log:q} 2>&1"
