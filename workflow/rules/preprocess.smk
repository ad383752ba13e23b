"""
Bring the scans of a dataset to a network's grid, in shards: each a job, known before anything is downloaded.

INPUT:  data/<dataset>/scans.csv
OUTPUT: preprocessed/<dataset>/<block>/shard-<shard>.npy   uint8, scans by x by y by z
        preprocessed/<dataset>/<block>/shard-<shard>.csv   its index, with quality figures and problems
"""


rule preprocess:
    input:
        "<data>/{dataset}/scans.csv",
    output:
        # `update`: an earlier shard stays until the new one replaces it, and its scans are taken over.
        array=update("<preprocessed>/{dataset}/{block}/shard-{shard}.npy"),
        index=update("<preprocessed>/{dataset}/{block}/shard-{shard}.csv"),
    log:
        "<logs>/preprocess/{dataset}_{block}_shard-{shard}.log",
    benchmark:
        "<benchmarks>/preprocess/{dataset}_{block}_shard-{shard}.tsv"
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=8000,
        runtime=240,
    params:
        shards=lambda wildcards: dataset(wildcards)["shards"],
        stripped=lambda wildcards: option("--stripped", dataset(wildcards)["stripped"]),
        block=lambda wildcards: CONFIG["preprocess"][wildcards.block],
        recipe=recipes.PREPROCESS,
    shell:
        "python -m mriflow.preprocess"
        " --scans {input:q}"
        " --array {output.array:q}"
        " --index {output.index:q}"
        " --shard {wildcards.shard}"
        " --shards {params.shards}"
        " --registration {params.block[registration]}"
        " --voxel-mm {params.block[voxel_mm]}"
        " --shape {params.block[shape]}"
        " --percentiles {params.block[percentiles]}"
        " {params.stripped}"
        " > {log:q} 2>&1"
