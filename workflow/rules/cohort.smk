"""
Show who is in a dataset: its scans as the network sees them, its people, and who is left out and why.

INPUT:  data/<dataset>/labels.csv, preprocessed/<dataset>/<block>/*
OUTPUT: results/cohorts/<dataset>/scans_<block>.pdf and .png
        results/cohorts/<dataset>/cohort.pdf and .png    age, sex and site
        results/cohorts/<dataset>/cohort.html, exclusions.csv
"""


rule plot_scans:
    input:
        arrays=lambda wildcards: shards(wildcards.dataset, wildcards.block, "npy"),
        indices=lambda wildcards: shards(wildcards.dataset, wildcards.block, "csv"),
    output:
        pdf="<results>/cohorts/{dataset}/scans_{block}.pdf",
        png=report(
            "<results>/cohorts/{dataset}/scans_{block}.png",
            caption="../report/scans.rst",
            category="cohorts",
            subcategory="{dataset}",
            labels={"figure": "scans ({block})"},
        ),
    log:
        "<logs>/plot/{dataset}_scans_{block}.log",
    benchmark:
        "<benchmarks>/plot_scans/{dataset}_{block}.tsv"
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        channel=shown_channel,
        simulated=simulated_flag,
        recipe=recipes.PLOT,
    shell:
        "python -m mriflow.plot scans"
        " --pdf {output.pdf:q}"
        " --png {output.png:q}"
        " --arrays {input.arrays:q}"
        " --indices {input.indices:q}"
        " --channel {params.channel}"
        " {params.simulated}"
        " > {log:q} 2>&1"


rule plot_cohort:
    input:
        labels="<data>/{dataset}/labels.csv",
        indices=cohort_indices,
    output:
        pdf="<results>/cohorts/{dataset}/cohort.pdf",
        png=report(
            "<results>/cohorts/{dataset}/cohort.png",
            caption="../report/cohort.rst",
            category="cohorts",
            subcategory="{dataset}",
            labels={"figure": "age, sex and site"},
        ),
    log:
        "<logs>/plot/{dataset}_cohort.log",
    benchmark:
        "<benchmarks>/plot_cohort/{dataset}.tsv"
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        simulated=simulated_flag,
        recipe=recipes.PLOT,
    shell:
        "python -m mriflow.plot cohort"
        " --pdf {output.pdf:q}"
        " --png {output.png:q}"
        " --labels {input.labels:q}"
        " --indices {input.indices:q}"
        " {params.simulated}"
        " > {log:q} 2>&1"


rule page_cohort:
    input:
        labels="<data>/{dataset}/labels.csv",
        indices=cohort_indices,
    output:
        page=report(
            "<results>/cohorts/{dataset}/cohort.html",
            caption="../report/cohort-table.rst",
            category="cohorts",
            subcategory="{dataset}",
            labels={"figure": "who is in, who is left out and why"},
        ),
        csv="<results>/cohorts/{dataset}/exclusions.csv",
    log:
        "<logs>/pages/{dataset}.log",
    benchmark:
        "<benchmarks>/page_cohort/{dataset}.tsv"
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        about=lambda wildcards: [
            part for key in ("title", "licence", "citation") for part in option(f"--{key}", dataset(wildcards)[key])
        ],
        targets=lambda wildcards: json.dumps(cohort_targets(wildcards)),
        simulated=simulated_flag,
        recipe=recipes.PLOT,
    shell:
        "python -m mriflow.pages cohort"
        " --page {output.page:q}"
        " --csv {output.csv:q}"
        " --labels {input.labels:q}"
        " --indices {input.indices:q}"
        " --targets {params.targets:q}"
        " {params.about:q}"
        " {params.simulated}"
        " > {log:q} 2>&1"
