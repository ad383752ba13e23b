"""
Predict the test part of every fold, beside simpler methods, and say how good the predictions are.

INPUT:  results/<experiment>/fold-*_seed-*/model.pt, preprocessed/<dataset>/<block>/*
OUTPUT: results/<experiment>/settings.json     everything of the config that it uses
        results/<experiment>/predictions.csv   one row per test scan
        results/<experiment>/metrics.json      every metric with its 95 % interval
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
        settings=settings_as_json,
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
    output:
        predictions="<results>/{experiment}/predictions.csv",
        metrics="<results>/{experiment}/metrics.json",
    log:
        "<logs>/evaluate/{experiment}.log",
    benchmark:
        "<benchmarks>/evaluate/{experiment}.tsv"
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=8000,
        runtime=240,
    params:
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
        " > {log:q} 2>&1"
