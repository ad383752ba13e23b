"""
Put into one file all that a paper needs to be repeated from. It is made when it is asked for: snakemake results/archive.zip

INPUT:  results/*
OUTPUT: results/archive.zip   config, splits, metrics, predictions, models, report, versions and commit; no scans
"""


rule archive:
    input:
        results=results,
        page="<results>/report.html",
        config="<results>/config.yaml",
    output:
        "<results>/archive.zip",
    log:
        "<logs>/archive.log",
    benchmark:
        "<benchmarks>/archive/archive.tsv"
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=2000,
        runtime=60,
    shell:
        "python -m mriflow.archive --output {output:q} --config {input.config:q} > {log:q} 2>&1"
