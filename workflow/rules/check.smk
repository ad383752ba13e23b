"""
Check a dataset before hours are spent on it: every header, every row of labels.csv, and what the site alone tells.

INPUT:  data/<dataset>/labels.csv
OUTPUT: results/cohorts/<dataset>/check.html    what is wrong, the gravest first
        results/cohorts/<dataset>/headers.csv   what the header of every scan says
"""


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
        simulated=simulated_flag,
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
