"""
Ask more of a result: is it at chance with shuffled labels, would more people help, does it survive worse scans?

All of it is off unless an experiment's `controls` ask for it. A training with other labels or splits is made by the rule
`train` as any other network, into a folder of its own.

INPUT:  preprocessed/<dataset>/<block>/*, data/<dataset>/labels.csv, results/<experiment>/splits.csv and fold-*_seed-*/model.pt
OUTPUT: results/<experiment>/controls/<control>/*                       altered labels and splits, and networks trained with them
        results/<experiment>/controls.json, controls.csv                what comes of them
        results/<experiment>/robustness.json, robustness.csv            metrics on worse scans
"""

from mriflow.config.controls import alterations, shuffled, thinned

DEPTH = {"training-size": "controls", "robustness": "robustness", "attention": "attention"}  # figure: file of its numbers


rule alter:
    input:
        labels=experiment_labels,
        splits="<results>/{experiment}/splits.csv",
    output:
        labels="<results>/{experiment}/controls/{control}/labels.csv",
        splits="<results>/{experiment}/controls/{control}/splits.csv",
    log:
        "<logs>/alter/{experiment}_{control}.log",
    benchmark:
        "<benchmarks>/alter/{experiment}_{control}.tsv"
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        flags=lambda wildcards: alterations(experiment(wildcards), wildcards.control),
    shell:
        "python -m mriflow.alter"
        " --labels {input.labels:q}"
        " --splits {input.splits:q}"
        " --altered-labels {output.labels:q}"
        " --altered-splits {output.splits:q}"
        " {params.flags:q}"
        " > {log:q} 2>&1"


use rule train as train_altered with:
    input:
        arrays=experiment_shards("npy"),
        indices=experiment_shards("csv"),
        labels="<results>/{experiment}/controls/{control}/labels.csv",
        splits="<results>/{experiment}/controls/{control}/splits.csv",
        init=lambda wildcards: weights_to_start_from(CONFIG, wildcards.experiment, int(wildcards.fold), int(wildcards.seed)),
        chosen=chosen,
    output:
        model="<results>/{experiment}/controls/{control}/fold-{fold}_seed-{seed}/model.pt",
        history="<results>/{experiment}/controls/{control}/fold-{fold}_seed-{seed}/history.csv",
        warnings="<results>/{experiment}/controls/{control}/fold-{fold}_seed-{seed}/warnings.json",
    log:
        "<logs>/train_altered/{experiment}_{control}_fold-{fold}_seed-{seed}.log",
    benchmark:
        "<benchmarks>/train_altered/{experiment}_{control}_fold-{fold}_seed-{seed}.tsv"


rule controls:
    input:
        settings="<results>/{experiment}/settings.json",
        models=models_of_controls(lambda controls: [""]),
        arrays=experiment_shards("npy"),
        indices=experiment_shards("csv"),
        labels=experiment_labels,
        splits="<results>/{experiment}/splits.csv",
        shuffled_labels=made_by_alter("labels.csv", shuffled),
        shuffled_models=models_of_controls(shuffled),
        thinned_splits=made_by_alter("splits.csv", thinned),
        thinned_models=models_of_controls(thinned),
    output:
        result="<results>/{experiment}/controls.json",
        table="<results>/{experiment}/controls.csv",
    log:
        "<logs>/controls/{experiment}.log",
    benchmark:
        "<benchmarks>/controls/{experiment}.tsv"
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=8000,
        runtime=480,
    params:
        shuffled=lambda wildcards, input: option("--shuffled-labels", input.shuffled_labels),
        fractions=lambda wildcards: asked(wildcards)["fractions"],
        recipe=recipes.CONTROLS,
    shell:
        "python -m mriflow.controls"
        " --result {output.result:q}"
        " --table {output.table:q}"
        " --models {input.models:q}"
        " --arrays {input.arrays:q}"
        " --indices {input.indices:q}"
        " --labels {input.labels:q}"
        " --splits {input.splits:q}"
        " --settings {input.settings:q}"
        " {params.shuffled:q}"
        " --shuffled-models {input.shuffled_models:q}"
        " --fractions {params.fractions}"
        " --thinned-splits {input.thinned_splits:q}"
        " --thinned-models {input.thinned_models:q}"
        " > {log:q} 2>&1"


rule robustness:
    input:
        settings="<results>/{experiment}/settings.json",
        models=trained("model.pt"),
        arrays=experiment_shards("npy"),
        indices=experiment_shards("csv"),
        labels=experiment_labels,
        splits="<results>/{experiment}/splits.csv",
    output:
        result="<results>/{experiment}/robustness.json",
        table="<results>/{experiment}/robustness.csv",
    log:
        "<logs>/robustness/{experiment}.log",
    benchmark:
        "<benchmarks>/robustness/{experiment}.tsv"
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=8000,
        runtime=lambda wildcards: minutes_to_predict(wildcards, CHANGES),
        gpu=lambda wildcards: gpus_to_predict(wildcards, CHANGES),
    params:
        recipe=recipes.CONTROLS,
    shell:
        "python -m mriflow.robustness"
        " --result {output.result:q}"
        " --table {output.table:q}"
        " --models {input.models:q}"
        " --arrays {input.arrays:q}"
        " --indices {input.indices:q}"
        " --labels {input.labels:q}"
        " --splits {input.splits:q}"
        " --settings {input.settings:q}"
        " > {log:q} 2>&1"
