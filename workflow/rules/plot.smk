"""
Draw the figures of the experiments, each as PDF (for a paper) and PNG (for the report).

INPUT:  results/<experiment>/*
OUTPUT: results/<experiment>/figures/<figure>.pdf and .png
        results/comparison.*    all experiments side by side
"""


rule plot_learning_curves:
    input:
        histories=trained("history.csv"),
        metrics="<results>/{experiment}/metrics.json",
    output:
        pdf="<results>/{experiment}/figures/learning-curves.pdf",
        png=report(
            "<results>/{experiment}/figures/learning-curves.png",
            caption="../report/learning-curves.rst",
            category="{experiment}",
            labels={"figure": "learning curves"},
        ),
    log:
        "<logs>/plot/{experiment}_learning-curves.log",
    benchmark:
        "<benchmarks>/plot_learning_curves/{experiment}.tsv"
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        recipe=recipes.PLOT,
    shell:
        "python -m mriflow.plot learning-curves"
        " --pdf {output.pdf:q}"
        " --png {output.png:q}"
        " --histories {input.histories:q}"
        " --metrics {input.metrics:q}"
        " > {log:q} 2>&1"


rule plot_predictions:
    input:
        predictions="<results>/{experiment}/predictions.csv",
        metrics="<results>/{experiment}/metrics.json",
    output:
        pdf="<results>/{experiment}/figures/{figure}.pdf",
        png=report(
            "<results>/{experiment}/figures/{figure}.png",
            caption="../report/predictions.rst",
            category="{experiment}",
            labels={"figure": "{figure}"},
        ),
    log:
        "<logs>/plot/{experiment}_{figure}.log",
    benchmark:
        "<benchmarks>/plot_predictions/{experiment}_{figure}.tsv"
    wildcard_constraints:
        figure="|".join({name for names in FIGURES.values() for name in names} - {"learning-curves", "failures", "overlays"}),
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        recipe=recipes.PLOT,
    shell:
        "python -m mriflow.plot {wildcards.figure}"
        " --pdf {output.pdf:q}"
        " --png {output.png:q}"
        " --predictions {input.predictions:q}"
        " --metrics {input.metrics:q}"
        " > {log:q} 2>&1"


rule plot_failures:
    input:
        worst="<results>/{experiment}/failures.csv",
        metrics="<results>/{experiment}/metrics.json",
        arrays=experiment_shards("npy"),
        indices=experiment_shards("csv"),
    output:
        pdf="<results>/{experiment}/figures/failures.pdf",
        png=report(
            "<results>/{experiment}/figures/failures.png",
            caption="../report/failures.rst",
            category="{experiment}",
            labels={"figure": "failures"},
        ),
    log:
        "<logs>/plot/{experiment}_failures.log",
    benchmark:
        "<benchmarks>/plot_failures/{experiment}.tsv"
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        channel=shown_channel,
        recipe=recipes.PLOT,
    shell:
        "python -m mriflow.plot failures"
        " --pdf {output.pdf:q}"
        " --png {output.png:q}"
        " --worst {input.worst:q}"
        " --metrics {input.metrics:q}"
        " --arrays {input.arrays:q}"
        " --indices {input.indices:q}"
        " --channel {params.channel}"
        " > {log:q} 2>&1"


rule plot_comparison:
    input:
        expand("<results>/{experiment}/metrics.json", experiment=PREDICTING_EXPERIMENTS),
    output:
        pdf="<results>/comparison.pdf",
        png=report(
            "<results>/comparison.png",
            caption="../report/comparison.rst",
            category="results",
            labels={"figure": "comparison"},
        ),
    log:
        "<logs>/plot/comparison.log",
    benchmark:
        "<benchmarks>/plot_comparison/comparison.tsv"
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        recipe=recipes.PLOT,
    shell:
        "python -m mriflow.plot comparison"
        " --pdf {output.pdf:q}"
        " --png {output.png:q}"
        " --metrics {input:q}"
        " > {log:q} 2>&1"
