"""
Get the files of a dataset, exactly as published. Moves bytes and computes nothing: it runs where Snakemake runs.

OUTPUT: resources/<dataset>/<file>
"""


rule download:
    output:
        "<resources>/{dataset}/{file}",
    log:
        "<logs>/download/{dataset}_{file}.log",
    wildcard_constraints:
        dataset="|".join({name for name, _ in DOWNLOADS}) or "none",
        file="|".join({re.escape(file) for _, file in DOWNLOADS}) or "none",
    localrule: True
    conda:
        "../../envs/conda.yaml"
    params:
        urls=lambda wildcards: [f"--url={url}" for url in described_file(wildcards)["urls"]],
        md5=lambda wildcards: [f"--md5={md5}" for md5 in described_file(wildcards)["md5"]],
        size=lambda wildcards: option("--size", described_file(wildcards).get("size")),
    shell:
        "python -m mriflow.download"
        " --file {output:q}"
        " {params.urls:q}"
        " {params.md5:q}"
        " {params.size:q}"
        " > {log:q} 2>&1"
