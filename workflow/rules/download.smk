"""
Get the files of a dataset, exactly as published. Moves bytes and computes nothing: it runs where Snakemake runs.

OUTPUT: resources/<dataset>/<file>
        resources/<dataset>/fetched.csv   of UK Biobank: where the zip of each scan is, and whether it can be used
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
        urls=lambda wildcards: [f"--url={url}" for url in DOWNLOADS[wildcards.dataset, wildcards.file]["urls"]],
        md5=lambda wildcards: [f"--md5={md5}" for md5 in DOWNLOADS[wildcards.dataset, wildcards.file]["md5"]],
        size=lambda wildcards: option("--size", DOWNLOADS[wildcards.dataset, wildcards.file].get("size")),
    shell:
        "python -m mriflow.download"
        " --file {output:q}"
        " {params.urls:q}"
        " {params.md5:q}"
        " {params.size:q}"
        " > {log:q} 2>&1"


rule ukbfetch:
    input:
        lambda wildcards: dataset(wildcards)["ukbfetch"]["bulk"],
    output:
        "<resources>/{dataset}/fetched.csv",
    log:
        "<logs>/ukbfetch/{dataset}.log",
    wildcard_constraints:
        dataset="|".join(name for name, described in DATASETS.items() if "ukbfetch" in described) or "none",
    localrule: True
    conda:
        "../../envs/conda.yaml"
    params:
        zips=lambda wildcards: dataset(wildcards)["ukbfetch"]["zips"],
        member=lambda wildcards: dataset(wildcards)["ukbfetch"]["member"],
        # These change nothing of what is fetched. Functions of the output, too, they are not compared with the last run's: a
        # key taken away trains nothing again.
        key=lambda wildcards, output: option("--key", dataset(wildcards)["ukbfetch"].get("key")),
        program=lambda wildcards, output: dataset(wildcards)["ukbfetch"]["program"],
        calls=lambda wildcards, output: dataset(wildcards)["ukbfetch"]["calls"],
    shell:
        "python -m mriflow.ukbfetch"
        " --table {output:q}"
        " --bulk {input:q}"
        " --zips {params.zips:q}"
        " --member {params.member:q}"
        " {params.key:q}"
        " --program {params.program:q}"
        " --calls {params.calls}"
        " > {log:q} 2>&1"
