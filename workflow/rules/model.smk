"""
Put the networks of an experiment into one folder, with all that `mriflow predict` needs to use them on other scans.

INPUT:  results/<experiment>/fold-*_seed-*/model.pt, preprocessed/<dataset>/<block>/*, results/cohorts/<dataset>/headers.csv
OUTPUT: results/<experiment>/model/   a MONAI bundle: weights, metadata, a model card, checksums
"""


rule bundle:
    input:
        models=trained("model.pt"),
        arrays=experiment_shards("npy"),
        indices=experiment_shards("csv"),
        labels=experiment_labels,
        splits="<results>/{experiment}/splits.csv",
        headers=lambda wildcards: f"<results>/cohorts/{experiment(wildcards)['names']['dataset']}/headers.csv",
        settings="<results>/{experiment}/settings.json",
        metrics="<results>/{experiment}/metrics.json",
        tissues=lambda wildcards: tissues_of(experiment(wildcards)["names"]["preprocess"]),
        calibration=lambda wildcards: (
            [] if wildcards.experiment in SEGMENTATIONS else f"<results>/{wildcards.experiment}/calibration.json"
        ),
    output:
        directory("<results>/{experiment}/model"),
    log:
        "<logs>/bundle/{experiment}.log",
    benchmark:
        "<benchmarks>/bundle/{experiment}.tsv"
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        calibration=lambda wildcards, input: option("--calibration", input.calibration),
        tissues=tissue_model,
        recipe=recipes.BUNDLE,
    shell:
        "python -m mriflow.bundle"
        " --output {output:q}"
        " --models {input.models:q}"
        " --arrays {input.arrays:q}"
        " --indices {input.indices:q}"
        " --labels {input.labels:q}"
        " --splits {input.splits:q}"
        " --headers {input.headers:q}"
        " --settings {input.settings:q}"
        " --metrics {input.metrics:q}"
        " {params.calibration:q}"
        " {params.tissues:q}"
        " > {log:q} 2>&1"
