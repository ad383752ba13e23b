"""
Make the demo cohort (SIMULATED brains) in the form in which a dataset is published.

OUTPUT: resources/demo/DEMO-T1.tar
        resources/demo/DEMO.csv
        resources/demo/DEMO-tissues.tar    where the config names it (`label_maps`): which voxel is of which tissue
"""


rule simulate:
    output:
        archive="<resources>/demo/DEMO-T1.tar",
        table="<resources>/demo/DEMO.csv",
    log:
        "<logs>/simulate/demo.log",
    benchmark:
        "<benchmarks>/simulate/demo.tsv"
    conda:
        "../../envs/conda.yaml"
    threads: 2  # images at once
    resources:
        mem_mb=lambda wildcards, threads: 1000 + 1000 * threads,
        runtime=60,
    params:
        cohort=lookup("demo/simulate", within=DATASETS, default={}),
        varied=option("--varied-tissues", lookup("demo/simulate/varied_tissues", within=DATASETS, default=False)),
        recipe=recipes.SIMULATE,
    shell:
        "python -m mriflow.simulate"
        " --archive {output.archive:q}"
        " --table {output.table:q}"
        " --subjects {params.cohort[subjects]}"
        " --seed {params.cohort[seed]}"
        " --voxel-mm {params.cohort[voxel_mm]}"
        " --threads {threads}"
        " {params.varied}"
        " > {log:q} 2>&1"


rule simulate_label_maps:
    output:
        "<resources>/demo/DEMO-tissues.tar",
    log:
        "<logs>/simulate/demo_label-maps.log",
    benchmark:
        "<benchmarks>/simulate/demo_label-maps.tsv"
    conda:
        "../../envs/conda.yaml"
    threads: 2  # images at once
    resources:
        mem_mb=lambda wildcards, threads: 1000 + 1000 * threads,
        runtime=60,
    params:
        cohort=lookup("demo/simulate", within=DATASETS, default={}),
        varied=option("--varied-tissues", lookup("demo/simulate/varied_tissues", within=DATASETS, default=False)),
        recipe=recipes.SIMULATE,
    shell:
        "python -m mriflow.simulate"
        " --archive {output:q}"
        " --label-maps"
        " --subjects {params.cohort[subjects]}"
        " --seed {params.cohort[seed]}"
        " --voxel-mm {params.cohort[voxel_mm]}"
        " --threads {threads}"
        " {params.varied}"
        " > {log:q} 2>&1"
