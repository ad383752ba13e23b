"""
Predict other datasets by all networks of an experiment together (`test_on`); `evaluate` says how good that is.

INPUT:  results/<experiment>/fold-*_seed-*/model.pt, preprocessed/<dataset>/<block>/* of both datasets
OUTPUT: results/<experiment>/external/<dataset>.csv   one row per scan, by networks and simpler methods
        results/<experiment>/figures/predicted-vs-true_<dataset>.pdf and .png, or roc_<dataset>
"""


rule external:
    input:
        settings="<results>/{experiment}/settings.json",
        models=trained("model.pt"),
        arrays=experiment_shards("npy"),
        indices=experiment_shards("csv"),
        labels=experiment_labels,
        splits="<results>/{experiment}/splits.csv",
        other_arrays=lambda wildcards: shards(wildcards.dataset, experiment(wildcards)["names"]["preprocess"], "npy"),
        other_indices=lambda wildcards: shards(wildcards.dataset, experiment(wildcards)["names"]["preprocess"], "csv"),
        other_labels="<data>/{dataset}/labels.csv",
    output:
        "<results>/{experiment}/external/{dataset}.csv",
    log:
        "<logs>/external/{experiment}_{dataset}.log",
    benchmark:
        "<benchmarks>/external/{experiment}_{dataset}.tsv"
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=8000,
        runtime=minutes_to_predict,
        gpu=gpus_to_predict,
    params:
        recipe=recipes.EVALUATE,
    shell:
        "python -m mriflow.external"
        " --table {output:q}"
        " --dataset {wildcards.dataset}"
        " --other-arrays {input.other_arrays:q}"
        " --other-indices {input.other_indices:q}"
        " --other-labels {input.other_labels:q}"
        " --models {input.models:q}"
        " --arrays {input.arrays:q}"
        " --indices {input.indices:q}"
        " --labels {input.labels:q}"
        " --splits {input.splits:q}"
        " --settings {input.settings:q}"
        " > {log:q} 2>&1"


rule plot_external:
    input:
        predictions="<results>/{experiment}/external-predictions.csv",
        metrics="<results>/{experiment}/metrics.json",
    output:
        pdf="<results>/{experiment}/figures/{figure}_{dataset}.pdf",
        png=report(
            "<results>/{experiment}/figures/{figure}_{dataset}.png",
            caption="../report/external.rst",
            category="{experiment}",
            labels={"figure": "{figure}, {dataset}"},
        ),
    log:
        "<logs>/plot/{experiment}_{figure}_{dataset}.log",
    benchmark:
        "<benchmarks>/plot_external/{experiment}_{figure}_{dataset}.tsv"
    wildcard_constraints:
        figure="predicted-vs-true|roc",
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        recipe=recipes.PLOT,
    shell:
        "python -m mriflow.plot {wildcards.figure}"
        " --pdf {output.pdf:q}"
        " --png {output.png:q}"
        " --predictions {input.predictions:q}"
        " --metrics {input.metrics:q}"
        " --external {wildcards.dataset}"
        " > {log:q} 2>&1"
