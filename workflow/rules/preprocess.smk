"""
Bring the scans of a dataset to a network's grid, in shards: each a job, known before anything is downloaded.

INPUT:  data/<dataset>/scans.csv
OUTPUT: preprocessed/<dataset>/<block>/shard-<shard>.npy   uint8, scans (by channels, if several) by x by y by z
        preprocessed/<dataset>/<block>/shard-<shard>.csv   its index, with quality measures and problems
        preprocessed/<dataset>/.cache/             masks, bias fields and transforms, for other blocks: no output of the rule
        results/cohorts/<dataset>/quality_<block>.*        how well that went: a page, a table, a figure
"""


rule preprocess:
    input:
        scans=scans_to_preprocess,
        tissues=lambda wildcards: tissues_of(wildcards.block),
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
    threads: 2  # scans at once
    resources:
        # A scan takes 1.3 GB of memory, but Grid Engine's h_vmem counts address space, of which 4.3 GB were seen.
        mem_mb=lambda wildcards, threads: 2000 + 6000 * threads,
        runtime=minutes_to_preprocess,
    params:
        shards=lambda wildcards: dataset(wildcards)["shards"],
        stripped=lambda wildcards: option("--stripped", dataset(wildcards)["stripped"]),
        block=lambda wildcards: CONFIG["preprocess"][wildcards.block],
        # One param, for a new one would make every scan anew.
        flags=lambda wildcards, input: [
            *option("--n4", CONFIG["preprocess"][wildcards.block]["n4"]),
            *tissue_model(wildcards, input),
            *option("--label-maps", classes_to_store(dataset(wildcards), CONFIG["preprocess"][wildcards.block])),
        ],
        cache=lambda wildcards, output: str(Path(output.array).parents[1] / ".cache"),
        recipe=recipes.PREPROCESS,
    shell:
        "python -m mriflow.preprocess"
        " --scans {input.scans:q}"
        " --array {output.array:q}"
        " --index {output.index:q}"
        " --shard {wildcards.shard}"
        " --shards {params.shards}"
        " --registration {params.block[registration]}"
        " --voxel-mm {params.block[voxel_mm]}"
        " --shape {params.block[shape]}"
        " --percentiles {params.block[percentiles]}"
        " {params.flags:q}"
        " --channels {params.block[channels]}"
        " {params.stripped}"
        " --cache {params.cache:q}"
        " --threads {threads}"
        " > {log:q} 2>&1"


rule quality:
    input:
        labels="<data>/{dataset}/labels.csv",
        arrays=lambda wildcards: shards(wildcards.dataset, wildcards.block, "npy"),
        indices=lambda wildcards: shards(wildcards.dataset, wildcards.block, "csv"),
    output:
        page=report(
            "<results>/cohorts/{dataset}/quality_{block}.html",
            caption="../report/quality.rst",
            category="cohorts",
            subcategory="{dataset}",
            labels={"figure": "quality of preprocessing ({block}), table"},
        ),
        csv="<results>/cohorts/{dataset}/quality_{block}.csv",
        pdf="<results>/cohorts/{dataset}/quality_{block}.pdf",
        png=report(
            "<results>/cohorts/{dataset}/quality_{block}.png",
            caption="../report/quality.rst",
            category="cohorts",
            subcategory="{dataset}",
            labels={"figure": "quality of preprocessing ({block})"},
        ),
    log:
        "<logs>/quality/{dataset}_{block}.log",
    benchmark:
        "<benchmarks>/quality/{dataset}_{block}.tsv"
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        registration=lambda wildcards: CONFIG["preprocess"][wildcards.block]["registration"],
        channel=shown_channel,
        title=lambda wildcards: option("--title", dataset(wildcards)["title"]),
        simulated=simulated_flag,
        recipe=recipes.PLOT,
    shell:
        "python -m mriflow.quality"
        " --page {output.page:q}"
        " --csv {output.csv:q}"
        " --pdf {output.pdf:q}"
        " --png {output.png:q}"
        " --labels {input.labels:q}"
        " --arrays {input.arrays:q}"
        " --indices {input.indices:q}"
        " --registration {params.registration}"
        " --channel {params.channel}"
        " {params.title:q}"
        " {params.simulated}"
        " > {log:q} 2>&1"
