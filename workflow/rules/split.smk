"""
Split the subjects of an experiment into folds with a training, a validation and a test part.

splits.csv can be copied elsewhere and given back as the `file` of a split, to split in the same way again.

INPUT:  data/<dataset>/labels.csv, the user's own table of parts (method: file)
OUTPUT: results/<experiment>/splits.csv    one row per fold and scan
        results/<experiment>/balance.csv   how evenly target, age, sex and site are spread over the parts
"""


rule split:
    input:
        labels=experiment_labels,
        file=lambda wildcards: experiment(wildcards)["split"].get("file", []),
    output:
        splits="<results>/{experiment}/splits.csv",
        balance="<results>/{experiment}/balance.csv",
    log:
        "<logs>/split/{experiment}.log",
    benchmark:
        "<benchmarks>/split/{experiment}.tsv"
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        target=lambda wildcards: experiment(wildcards)["target"],
        classes=lambda wildcards: [f"--classes={name}" for name in experiment(wildcards)["target"].get("classes", [])],
        split=lambda wildcards: experiment(wildcards)["split"],
        sites=lambda wildcards: (
            experiment(wildcards)["dataset"]["sites"] if experiment(wildcards)["split"]["method"] == "leave-site-out" else []
        ),
        file=lambda wildcards, input: option("--file", input.file),
        recipe=recipes.SPLIT,
    shell:
        "python -m mriflow.split"
        " --labels {input.labels:q}"
        " --splits {output.splits:q}"
        " --balance {output.balance:q}"
        " --target {params.target[column]:q}"
        " {params.classes:q}"
        " --method {params.split[method]}"
        " --folds {params.split[folds]}"
        " {params.file:q}"
        " --sites {params.sites:q}"
        " --validation {params.split[validation]}"
        " --stratify {params.split[stratify]:q}"
        " --seed {params.split[seed]}"
        " > {log:q} 2>&1"
