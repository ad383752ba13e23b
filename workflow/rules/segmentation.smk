"""
Segment the test part of every fold, say how far the label maps agree with the truth, and draw them.

INPUT:  results/<experiment>/fold-*_seed-*/model.pt, preprocessed/<dataset>/<block>/* with label maps
OUTPUT: results/<experiment>/predictions.csv   one row per test scan: agreement and volumes, by class and method
        results/<experiment>/metrics.json      every metric with its 95 % interval
        results/<experiment>/metrics.csv       the same numbers, one a row
        results/<experiment>/overlays.npz      the label maps of the best, the median and the worst test scan
        results/<experiment>/figures/overlays.* and volumes.*
"""


rule agreement:
    input:
        settings="<results>/{experiment}/settings.json",
        models=trained("model.pt"),
        warnings=trained("warnings.json"),
        arrays=experiment_shards("npy"),
        indices=experiment_shards("csv"),
        labels=experiment_labels,
        splits="<results>/{experiment}/splits.csv",
    output:
        predictions="<results>/{experiment}/predictions.csv",
        metrics="<results>/{experiment}/metrics.json",
        beside=multiext("<results>/{experiment}/", "metrics.csv", "overlays.npz"),
    log:
        "<logs>/agreement/{experiment}.log",
    benchmark:
        "<benchmarks>/agreement/{experiment}.tsv"
    wildcard_constraints:
        experiment=one_of(SEGMENTATIONS),
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=8000,
        runtime=minutes_to_predict,
        gpu=gpus_to_predict,
    params:
        recipe=recipes.AGREEMENT,
    shell:
        "python -m mriflow.agreement"
        " --predictions {output.predictions:q}"
        " --metrics {output.metrics:q}"
        " --models {input.models:q}"
        " --warnings {input.warnings:q}"
        " --arrays {input.arrays:q}"
        " --indices {input.indices:q}"
        " --labels {input.labels:q}"
        " --splits {input.splits:q}"
        " --settings {input.settings:q}"
        " > {log:q} 2>&1"


rule plot_overlays:
    input:
        maps="<results>/{experiment}/overlays.npz",
        metrics="<results>/{experiment}/metrics.json",
    output:
        pdf="<results>/{experiment}/figures/overlays.pdf",
        png=report(
            "<results>/{experiment}/figures/overlays.png",
            caption="../report/overlays.rst",
            category="{experiment}",
            labels={"figure": "overlays"},
        ),
    log:
        "<logs>/plot/{experiment}_overlays.log",
    benchmark:
        "<benchmarks>/plot_overlays/{experiment}.tsv"
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        recipe=recipes.PLOT,
    shell:
        "python -m mriflow.plot overlays"
        " --pdf {output.pdf:q}"
        " --png {output.png:q}"
        " --maps {input.maps:q}"
        " --metrics {input.metrics:q}"
        " > {log:q} 2>&1"
