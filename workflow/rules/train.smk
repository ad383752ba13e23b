"""
Train one network per fold and seed of an experiment.

The checkpoint stands in the undeclared folder `work/`, where Snakemake does not delete it: a failed or killed job goes on
from its last step that was saved when it is run again.

INPUT:  preprocessed/<dataset>/<block>/*, data/<dataset>/labels.csv, results/<experiment>/splits.csv,
        what it starts from (`init`): a file of weights, or the model.pt of another experiment;
        if it searches, results/<experiment>/search.json
OUTPUT: results/<experiment>/fold-<fold>_seed-<seed>/model.pt
        results/<experiment>/fold-<fold>_seed-<seed>/history.csv   losses and metrics after every epoch
        results/<experiment>/fold-<fold>_seed-<seed>/warnings.json what is wrong with the training
"""


rule train:
    input:
        arrays=experiment_shards("npy"),
        indices=experiment_shards("csv"),
        labels=experiment_labels,
        splits="<results>/{experiment}/splits.csv",
        init=lambda wildcards: weights_to_start_from(CONFIG, wildcards.experiment, int(wildcards.fold), int(wildcards.seed)),
        chosen=chosen,
    output:
        model="<results>/{experiment}/fold-{fold}_seed-{seed}/model.pt",
        history="<results>/{experiment}/fold-{fold}_seed-{seed}/history.csv",
        warnings="<results>/{experiment}/fold-{fold}_seed-{seed}/warnings.json",
    log:
        "<logs>/train/{experiment}_fold-{fold}_seed-{seed}.log",
    benchmark:
        "<benchmarks>/train/{experiment}_fold-{fold}_seed-{seed}.tsv"
    conda:
        "../../envs/conda.yaml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=1440,
        gpu=lambda wildcards: experiment(wildcards)["training"]["gpu"],
        scratch_mb=lambda wildcards, input: (input.size_mb if experiment(wildcards)["training"]["copy_to_scratch"] else 0),
    params:
        folder=subpath(output.model, parent=True),
        target=for_training("target"),
        inputs=for_training("inputs"),
        network=for_training("network"),
        dataset=lambda wildcards: experiment(wildcards)["names"]["dataset"],
        init=lambda wildcards, input: option("--init", input.init),
        freeze=lambda wildcards: option("--freeze", experiment(wildcards)["network"].get("init", {}).get("freeze")),
        training=for_training("training"),
        allow_cpu=lambda wildcards: option("--allow-cpu", experiment(wildcards)["training"]["allow_cpu"]),
        search=lambda wildcards, input: option("--chosen", input.chosen),
        recipe=recipes.TRAIN,
    shell:
        "python -m mriflow.train"
        " --model {output.model:q}"
        " --history {output.history:q}"
        " --warnings {output.warnings:q}"
        " --work {params.folder:q}/work"
        " --arrays {input.arrays:q}"
        " --indices {input.indices:q}"
        " --labels {input.labels:q}"
        " --splits {input.splits:q}"
        " --fold {wildcards.fold}"
        " --seed {wildcards.seed}"
        " --target {params.target:q}"
        " --inputs {params.inputs:q}"
        " --network {params.network:q}"
        " --dataset {params.dataset}"
        " {params.init:q}"
        " {params.freeze}"
        " --training {params.training:q}"
        " --gpus {resources.gpu}"
        " {params.allow_cpu}"
        " {params.search:q}"
        " > {log:q} 2>&1"
