"""
Check a dataset before hours are spent on it: every header, every row of labels.csv, and what the site alone tells.

INPUT:  data/<dataset>/labels.csv
OUTPUT: results/cohorts/<dataset>/headers.csv   what the header of every scan says
        results/cohorts/<dataset>/check.html    what is wrong, the gravest first
"""


rule headers:
    input:
        "<data>/{dataset}/labels.csv",
    output:
        "<results>/cohorts/{dataset}/headers.csv",
    log:
        "<logs>/headers/{dataset}.log",
    benchmark:
        "<benchmarks>/headers/{dataset}.tsv"
    priority: 1  # for `check`
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        recipe=recipes.PLOT,
    shell:
        "python -m mriflow.check" " --labels {input:q}" " --csv {output:q}" " > {log:q} 2>&1"


rule check:
    input:
        labels="<data>/{dataset}/labels.csv",
        headers="<results>/cohorts/{dataset}/headers.csv",
    output:
        report(
            "<results>/cohorts/{dataset}/check.html",
            caption="../report/check.rst",
            category="cohorts",
            subcategory="{dataset}",
            labels={"figure": "check of headers and labels"},
        ),
    log:
        "<logs>/check/{dataset}.log",
    benchmark:
        "<benchmarks>/check/{dataset}.tsv"
    priority: 1  # it is meant to be read before hours are spent on the scans
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        title=lambda wildcards: option("--title", dataset(wildcards)["title"]),
        targets=lambda wildcards: json.dumps(cohort_targets(wildcards)),
        simulated=simulated_flag,
        recipe=recipes.PLOT,
    shell:
        "python -m mriflow.check"
        " --labels {input.labels:q}"
        " --headers {input.headers:q}"
        " --page {output:q}"
        " --targets {params.targets:q}"
        " {params.title:q}"
        " {params.simulated}"
        " > {log:q} 2>&1"
