"""
Split the subjects of an experiment into folds with a training, a validation and a test part.

INPUT:  data/<dataset>/labels.csv
OUTPUT: results/<experiment>/splits.csv   one row per fold and scan
"""


rule split:
    input:
        experiment_labels,
    output:
        "<results>/{experiment}/splits.csv",
    log:
        "<logs>/split/{experiment}.log",
    benchmark:
        "<benchmarks>/split/{experiment}.tsv"
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=1000,
        runtime=30,
    params:
        target=lambda wildcards: experiment(wildcards)["target"],
        classes=lambda wildcards: [f"--classes={name}" for name in experiment(wildcards)["target"].get("classes", [])],
        split=lambda wildcards: experiment(wildcards)["split"],
        sites=split_sites,
        recipe=recipes.SPLIT,
    shell:
        "python -m mriflow.split"
        " --labels {input:q}"
        " --splits {output:q}"
        " --target {params.target[column]:q}"
        " {params.classes:q}"
        " --method {params.split[method]}"
        " --folds {params.split[folds]}"
        " --sites {params.sites:q}"
        " --validation {params.split[validation]}"
        " --stratify {params.split[stratify]:q}"
        " --seed {params.split[seed]}"
        " > {log:q} 2>&1"
