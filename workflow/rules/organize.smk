"""
Join the images of a dataset with its table; lay them out in folders for each target.

INPUT:  resources/<dataset>/<archive of images> and <table>, or the user's own; of UK Biobank fetched.csv
OUTPUT: data/<dataset>/labels.csv            one row per scan, with what is wrong with it
        data/<dataset>/scans.csv             the images to preprocess
        data/<dataset>/<target>/labels.csv   ID, label and path of the folders beside it
"""


rule organize:
    input:
        table=source("table"),
        images=source("images"),
        label_maps=source("label_maps"),
        fetched=lambda wildcards: "<resources>/{dataset}/fetched.csv" if "ukbfetch" in dataset(wildcards) else [],
    output:
        labels="<data>/{dataset}/labels.csv",
        scans="<data>/{dataset}/scans.csv",
    log:
        "<logs>/organize/{dataset}.log",
    benchmark:
        "<benchmarks>/organize/{dataset}.tsv"
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=2000,
        runtime=480,  # every image is read once: 0.2 s for one of IXI
    params:
        columns=lambda wildcards: json.dumps(columns_to_read(CONFIG, wildcards.dataset)),
        table=lambda wildcards, input: option("--table", input.table),
        sheet=lambda wildcards: option("--sheet", dataset(wildcards).get("sheet")),
        fetched=lambda wildcards, input: option("--fetched", input.fetched),
        images=lambda wildcards, input: ["--images", *input.images] if input.images else [],
        # One param, for a new one would make every dataset anew.
        names=lambda wildcards: [
            *option("--pattern", dataset(wildcards).get("pattern")),
            *option("--label-maps", maps_to_read(dataset(wildcards))),
        ],
        map_images=lambda wildcards, input: ["--map-images", *input.label_maps] if input.label_maps else [],
        ignore=lambda wildcards: option("--ignore", dataset(wildcards).get("ignore")),
        affine=lambda wildcards: option("--affine", dataset(wildcards).get("affine")),
        scans_per_session=lambda wildcards: dataset(wildcards)["scans_per_session"],
        expect=lambda wildcards: json.dumps(dataset(wildcards)["expect"]),
        exclude=lambda wildcards: json.dumps(dataset(wildcards)["exclude"]),
        # It asks for no `input`, for Snakemake keeps no params that do, and would not see that one has changed.
        files_inside=lambda wildcards: files_inside(folders_of(dataset(wildcards)), "bids" in dataset(wildcards)),
        recipe=recipes.ORGANIZE,
    shell:
        "python -m mriflow.organize"
        " --labels {output.labels:q}"
        " --scans {output.scans:q}"
        " {params.table:q}"
        " {params.sheet:q}"
        " {params.fetched:q}"
        " {params.images:q}"
        " {params.names:q}"
        " {params.map_images:q}"
        " {params.ignore:q}"
        " {params.affine:q}"
        " --scans-per-session {params.scans_per_session}"
        " --columns {params.columns:q}"
        " --expect {params.expect:q}"
        " --exclude {params.exclude:q}"
        " > {log:q} 2>&1"


rule layout:
    input:
        "<data>/{dataset}/labels.csv",
    output:
        "<data>/{dataset}/{target}/labels.csv",
    log:
        "<logs>/layout/{dataset}_{target}.log",
    benchmark:
        "<benchmarks>/layout/{dataset}_{target}.tsv"
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        column=lambda wildcards: CONFIG["targets"][wildcards.target]["column"],
        classes=lambda wildcards: json.dumps(CONFIG["targets"][wildcards.target].get("classes")),
        recipe=recipes.ORGANIZE,
    shell:
        "python -m mriflow.layout"
        " --labels {input:q}"
        " --table {output:q}"
        " --column {params.column:q}"
        " --classes {params.classes:q}"
        " > {log:q} 2>&1"
