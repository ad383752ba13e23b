"""
Put all figures and tables into one self-contained page, to copy home from a cluster that shows no pictures.

OUTPUT: results/report.html
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
    output:
        "<results>/report.html",
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
