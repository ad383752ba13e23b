"""
Put all that was found into one self-contained page, to copy home from a cluster that shows no pictures.

OUTPUT: results/report.html            the report
        results/results.csv            metrics of all experiments
        results/workflow-report.html   Snakemake's own: which job made what from what, and when
        results/config.yaml   the merged config with all defaults
"""


rule config:
    output:
        "<results>/config.yaml",
    log:
        "<logs>/config.log",
    localrule: True
    conda:
        "../../envs/conda.yaml"
    params:
        config=lambda wildcards: yaml.safe_dump(CONFIG, sort_keys=False, allow_unicode=True),
    shell:
        "printf '%s' {params.config:q} > {output:q} 2> {log:q}"


rule report:
    input:
        results=results,
        config="<results>/config.yaml",
        labels=lambda wildcards: of_each_experiment(lambda names: [f"<data>/{names['dataset']}/labels.csv"], EXPERIMENTS),
        indices=lambda wildcards: of_each_experiment(
            lambda names: shards(names["dataset"], names["preprocess"], "csv"), TRAINED_EXPERIMENTS
        ),
    output:
        page="<results>/report.html",
        csv="<results>/results.csv",
    log:
        "<logs>/report.log",
    benchmark:
        "<benchmarks>/report/report.tsv"
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        folders=[workflow.pathvars.apply(f"<{name}>") for name in ("data", "preprocessed", "benchmarks")],
        recipe=recipes.PLOT,
    shell:
        "python -m mriflow.report"
        " --page {output.page:q}"
        " --csv {output.csv:q}"
        " --config {input.config:q}"
        " --data {params.folders[0]:q}"
        " --preprocessed {params.folders[1]:q}"
        " --benchmarks {params.folders[2]:q}"
        " > {log:q} 2>&1"


rule workflow_report:
    input:
        results=results,
        config="<results>/config.yaml",
    output:
        "<results>/workflow-report.html",
    log:
        "<logs>/workflow-report.log",
    benchmark:
        "<benchmarks>/workflow_report/workflow-report.tsv"
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        snakefile=workflow.main_snakefile,
    shell:
        # The outer Snakemake holds the lock; this one only reads.
        "snakemake {input.results:q}"
        " --snakefile {params.snakefile:q}"
        " --configfile {input.config:q}"
        " --report {output:q}"
        " --nolock"
        " --quiet"
        " > {log:q} 2>&1"
