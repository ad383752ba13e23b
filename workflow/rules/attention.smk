"""
Find which places of the brain the predictions of some test scans depend on.

INPUT:  results/<experiment>/fold-*_seed-*/model.pt, preprocessed/<dataset>/<block>/*
OUTPUT: results/<experiment>/attention.json, attention.csv   checks of the maps
        results/<experiment>/attention/*.nii.gz              the maps, in template space
        results/<experiment>/figures/<figure>.pdf and .png   of these, of controls.json and of robustness.json
"""


rule attention:
    input:
        settings="<results>/{experiment}/settings.json",
        models=trained("model.pt"),
        arrays=experiment_shards("npy"),
        indices=experiment_shards("csv"),
        labels=experiment_labels,
        splits="<results>/{experiment}/splits.csv",
    output:
        result="<results>/{experiment}/attention.json",
        table="<results>/{experiment}/attention.csv",
        maps=directory("<results>/{experiment}/attention"),
    log:
        "<logs>/attention/{experiment}.log",
    benchmark:
        "<benchmarks>/attention/{experiment}.tsv"
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=8000,
        runtime=240,
    params:
        ways=lambda wildcards: CONFIG["experiments"][wildcards.experiment]["attention"],
        scans=lambda wildcards: CONFIG["experiments"][wildcards.experiment]["attention_scans"],
        recipe=recipes.ATTENTION,
    shell:
        "python -m mriflow.attention"
        " --result {output.result:q}"
        " --table {output.table:q}"
        " --maps {output.maps:q}"
        " --models {input.models:q}"
        " --arrays {input.arrays:q}"
        " --indices {input.indices:q}"
        " --labels {input.labels:q}"
        " --splits {input.splits:q}"
        " --settings {input.settings:q}"
        " --ways {params.ways}"
        " --scans {params.scans}"
        " > {log:q} 2>&1"


rule plot_depth:
    input:
        result=lambda wildcards: f"<results>/{wildcards.experiment}/{DEPTH[wildcards.figure]}.json",
        maps=branch(lambda wildcards: wildcards.figure == "attention", then="<results>/{experiment}/attention", otherwise=[]),
    output:
        pdf="<results>/{experiment}/figures/{figure}.pdf",
        png=report(
            "<results>/{experiment}/figures/{figure}.png",
            caption="../report/depth.rst",
            category="{experiment}",
            labels={"figure": "{figure}"},
        ),
    log:
        "<logs>/plot/{experiment}_{figure}.log",
    benchmark:
        "<benchmarks>/plot_depth/{experiment}_{figure}.tsv"
    wildcard_constraints:
        figure="|".join(DEPTH),
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        maps=lambda wildcards, input: option("--maps", input.maps),
        recipe=recipes.PLOT,
    shell:
        "python -m mriflow.plot {wildcards.figure}"
        " --pdf {output.pdf:q}"
        " --png {output.png:q}"
        " --result {input.result:q}"
        " {params.maps:q}"
        " > {log:q} 2>&1"
