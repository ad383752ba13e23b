"""
Draw the figures, each as PDF (for a paper) and PNG (for the report), and write the report's tables.

INPUT:  results/<experiment>/*, data/<dataset>/labels.csv, preprocessed/<dataset>/<block>/*
OUTPUT: results/<experiment>/figures/<figure>.pdf and .png
        results/<experiment>/balance.html    how evenly its parts are filled
        results/cohorts/<dataset>/...    the scans, which were left out and why, and what is wrong with headers and labels
        results/comparison.*, results/results.*    all experiments side by side
"""


rule plot_learning_curves:
    input:
        histories=trained("history.csv"),
        metrics="<results>/{experiment}/metrics.json",
    output:
        pdf="<results>/{experiment}/figures/learning-curves.pdf",
        png=report(
            "<results>/{experiment}/figures/learning-curves.png",
            caption="../report/learning-curves.rst",
            category="{experiment}",
            labels={"figure": "learning curves"},
        ),
    log:
        "<logs>/plot/{experiment}_learning-curves.log",
    benchmark:
        "<benchmarks>/plot_learning_curves/{experiment}.tsv"
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        recipe=recipes.PLOT,
    shell:
        "python -m mriflow.plot learning-curves"
        " --pdf {output.pdf:q}"
        " --png {output.png:q}"
        " --histories {input.histories:q}"
        " --metrics {input.metrics:q}"
        " > {log:q} 2>&1"


rule plot_predictions:
    input:
        predictions="<results>/{experiment}/predictions.csv",
        metrics="<results>/{experiment}/metrics.json",
    output:
        pdf="<results>/{experiment}/figures/{figure}.pdf",
        png=report(
            "<results>/{experiment}/figures/{figure}.png",
            caption="../report/predictions.rst",
            category="{experiment}",
            labels={"figure": "{figure}"},
        ),
    log:
        "<logs>/plot/{experiment}_{figure}.log",
    benchmark:
        "<benchmarks>/plot_predictions/{experiment}_{figure}.tsv"
    wildcard_constraints:
        figure="predicted-vs-true|residual-vs-age|roc|confusion-matrix",
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
        " > {log:q} 2>&1"


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
        simulated=lambda wildcards: option("--simulated", "simulate" in dataset(wildcards)),
        recipe=recipes.PLOT,
    shell:
        "python -m mriflow.plot_cohort scans"
        " --pdf {output.pdf:q}"
        " --png {output.png:q}"
        " --arrays {input.arrays:q}"
        " --indices {input.indices:q}"
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
        simulated=lambda wildcards: option("--simulated", "simulate" in dataset(wildcards)),
        recipe=recipes.PLOT,
    shell:
        "python -m mriflow.plot_cohort cohort"
        " --pdf {output.pdf:q}"
        " --png {output.png:q}"
        " --labels {input.labels:q}"
        " --indices {input.indices:q}"
        " {params.simulated}"
        " > {log:q} 2>&1"


rule plot_comparison:
    input:
        expand("<results>/{experiment}/metrics.json", experiment=TRAINED),
    output:
        pdf="<results>/comparison.pdf",
        png=report(
            "<results>/comparison.png",
            caption="../report/comparison.rst",
            category="results",
            labels={"figure": "comparison"},
        ),
    log:
        "<logs>/plot/comparison.log",
    benchmark:
        "<benchmarks>/plot_comparison/comparison.tsv"
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        recipe=recipes.PLOT,
    shell:
        "python -m mriflow.plot comparison"
        " --pdf {output.pdf:q}"
        " --png {output.png:q}"
        " --metrics {input:q}"
        " > {log:q} 2>&1"


rule tell_cohort:
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
        "<logs>/tell/{dataset}.log",
    benchmark:
        "<benchmarks>/tell_cohort/{dataset}.tsv"
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
        simulated=lambda wildcards: option("--simulated", "simulate" in dataset(wildcards)),
        recipe=recipes.PLOT,
    shell:
        "python -m mriflow.tell cohort"
        " --page {output.page:q}"
        " --csv {output.csv:q}"
        " --labels {input.labels:q}"
        " --indices {input.indices:q}"
        " --targets {params.targets:q}"
        " {params.about:q}"
        " {params.simulated}"
        " > {log:q} 2>&1"


rule check:
    input:
        "<data>/{dataset}/labels.csv",
    output:
        page=report(
            "<results>/cohorts/{dataset}/check.html",
            caption="../report/check.rst",
            category="cohorts",
            subcategory="{dataset}",
            labels={"figure": "check of headers and labels"},
        ),
        csv="<results>/cohorts/{dataset}/headers.csv",
    log:
        "<logs>/check/{dataset}.log",
    benchmark:
        "<benchmarks>/check/{dataset}.tsv"
    priority: 1  # it is meant to be read before hours are spent on the scans
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        title=lambda wildcards: option("--title", dataset(wildcards)["title"]),
        targets=lambda wildcards: json.dumps(cohort_targets(wildcards)),
        simulated=lambda wildcards: option("--simulated", "simulate" in dataset(wildcards)),
        recipe=recipes.PLOT,
    shell:
        "python -m mriflow.check"
        " --labels {input:q}"
        " --page {output.page:q}"
        " --csv {output.csv:q}"
        " --targets {params.targets:q}"
        " {params.title:q}"
        " {params.simulated}"
        " > {log:q} 2>&1"


rule show_balance:
    input:
        "<results>/{experiment}/balance.csv",
    output:
        report(
            "<results>/{experiment}/balance.html",
            caption="../report/balance.rst",
            category="{experiment}",
            labels={"figure": "balance of the parts"},
        ),
    log:
        "<logs>/tell/{experiment}_balance.log",
    benchmark:
        "<benchmarks>/show_balance/{experiment}.tsv"
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        recipe=recipes.PLOT,
    shell:
        "python -m mriflow.balance_page"
        " --balance {input:q}"
        " --page {output:q}"
        " --title {wildcards.experiment:q}"
        " > {log:q} 2>&1"


rule tell_results:
    input:
        expand("<results>/{experiment}/metrics.json", experiment=TRAINED),
    output:
        page=report(
            "<results>/results.html",
            caption="../report/results.rst",
            category="results",
            labels={"figure": "all figures with their intervals"},
        ),
        csv="<results>/results.csv",
    log:
        "<logs>/tell/results.log",
    benchmark:
        "<benchmarks>/tell_results/results.tsv"
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        recipe=recipes.PLOT,
    shell:
        "python -m mriflow.tell results"
        " --page {output.page:q}"
        " --csv {output.csv:q}"
        " --metrics {input:q}"
        " > {log:q} 2>&1"
