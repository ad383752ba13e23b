"""mriflow: deep learning on brain MRI, from download to report, as one workflow.

snakemake --cores 2                                                        the demo cohort
snakemake --cores 2 --configfile config/experiments/ixi-age.yaml           real scans
snakemake --profile profiles/sge                                           on a Sun Grid Engine
snakemake --profile profiles/slurm                                         on a Slurm
"""

import os

from snakemake.utils import min_version

min_version("9.25")


# A job on a cluster is given the whole config of the run that submitted it.
configfile: os.environ.get("JOB_CONFIG", "config/config.yaml")


pathvars:
    data="data",
    preprocessed="preprocessed",


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/download.smk"
include: "workflow/rules/simulate.smk"
include: "workflow/rules/organize.smk"
include: "workflow/rules/check.smk"
include: "workflow/rules/preprocess.smk"
include: "workflow/rules/cohort.smk"
include: "workflow/rules/split.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/search.smk"
include: "workflow/rules/external.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/segmentation.smk"
include: "workflow/rules/controls.smk"
include: "workflow/rules/attention.smk"
include: "workflow/rules/model.smk"
include: "workflow/rules/predict.smk"
include: "workflow/rules/plot.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/archive.smk"


rule all:
    default_target: True
    input:
        results,
        "<results>/report.html",
        "<results>/workflow-report.html",
