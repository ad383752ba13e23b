"""
Predict a whole dataset by a model that there is: the experiments with a `model`.

INPUT:  data/<dataset>/labels.csv, the folder of a model
OUTPUT: results/<experiment>/shards/shard-<shard>.csv
        results/<experiment>/predictions.csv   one row per scan, as `mriflow predict` writes it
"""


rule predict:
    input:
        model=lambda wildcards: applied(wildcards)["model"],
        labels=lambda wildcards: f"<data>/{applied(wildcards)['dataset']}/labels.csv",
    output:
        "<results>/{applied}/shards/shard-{shard}.csv",
    log:
        "<logs>/predict/{applied}_shard-{shard}.log",
    benchmark:
        "<benchmarks>/predict/{applied}_shard-{shard}.tsv"
    conda:
        "../../envs/conda.yaml"
    threads: 2  # scans at once
    resources:
        mem_mb=lambda wildcards, threads: 4000 + 6000 * threads,
        runtime=480,
    params:
        shards=applied_shards,
        stripped=lambda wildcards: "yes" if DATASETS[applied(wildcards)["dataset"]]["stripped"] else "no",
        recipe=recipes.PREPROCESS,
    shell:
        "python -m mriflow.predict {input.model:q} {input.labels:q}"
        " --output {output:q}"
        " --workers {threads}"
        " --stripped {params.stripped}"
        " --shard {wildcards.shard}"
        " --shards {params.shards}"
        " > {log:q} 2>&1"


rule gather:
    input:
        lambda wildcards: [
            f"<results>/{wildcards.applied}/shards/shard-{shard:03d}.csv" for shard in range(applied_shards(wildcards))
        ],
    output:
        "<results>/{applied}/predictions.csv",
    log:
        "<logs>/gather/{applied}.log",
    benchmark:
        "<benchmarks>/gather/{applied}.tsv"
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    shell:
        "python -m mriflow.gather --output {output:q} --parts {input:q} > {log:q} 2>&1"
