"""
Search keys of the training block: train a network per trial and fold, and choose in each fold by its validation part.

A trial is trained by the rule `train` as any other network, with other settings and into another folder.

INPUT:  preprocessed/<dataset>/<block>/*, data/<dataset>/labels.csv, results/<experiment>/splits.csv
OUTPUT: results/<experiment>/search/<trial>/fold-<fold>_seed-<seed>/*
        results/<experiment>/search.csv    one row per fold and trial
        results/<experiment>/search.json   the best trial of each fold
"""


use rule train as train_trial with:
    output:
        model="<results>/{experiment}/search/{trial}/fold-{fold}_seed-{seed}/model.pt",
        history="<results>/{experiment}/search/{trial}/fold-{fold}_seed-{seed}/history.csv",
        warnings="<results>/{experiment}/search/{trial}/fold-{fold}_seed-{seed}/warnings.json",
    log:
        "<logs>/train_trial/{experiment}_{trial}_fold-{fold}_seed-{seed}.log",
    benchmark:
        "<benchmarks>/train_trial/{experiment}_{trial}_fold-{fold}_seed-{seed}.tsv"
    params:
        search="--trial",


rule choose:
    input:
        histories=lambda wildcards: [
            f"<results>/{wildcards.experiment}/search/{run}/history.csv"
            for run in trial_runs(experiment(wildcards), FOLDS[wildcards.experiment])
        ],
    output:
        table="<results>/{experiment}/search.csv",
        chosen="<results>/{experiment}/search.json",
    log:
        "<logs>/choose/{experiment}.log",
    benchmark:
        "<benchmarks>/choose/{experiment}.tsv"
    conda:
        "../../envs/conda.yaml"
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        trials=lambda wildcards: json.dumps(trials_to_judge(experiment(wildcards))),
        folds=lambda wildcards: FOLDS[wildcards.experiment],
    shell:
        "python -m mriflow.choose"
        " --table {output.table:q}"
        " --chosen {output.chosen:q}"
        " --trials {params.trials:q}"
        " --folds {params.folds}"
        " --histories {input.histories:q}"
        " > {log:q} 2>&1"
