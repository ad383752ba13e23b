"""mriflow: deep learning on brain MRI. A map of this package.

A file at the top is a command, a stage of the pipeline: ``python -m mriflow.<command> --help`` explains it. A folder holds what
commands share. No folder imports a command, and no command imports another.

The commands, in running order::

    download     one file, whole and right, or not at all
    ukbfetch     the scans of UK Biobank, by its own program
    simulate     the demo cohort
    organize     labels.csv: one row per scan, with what is wrong with it
    layout       the scans in folders of subjects or classes, with a labels.csv
    check        what is wrong with a dataset, before hours are spent on it
    preprocess   the scans on the network's grid, in shards
    quality      how well that went
    split        folds with a training, a validation and a test part
    train        one network on one fold
    choose       what a search over training keys found best in each fold
    evaluate     how good the predictions are, beside the baselines
    plot         a figure, as PDF and PNG
    pages        a page of the report
    discard      what an experiment has learned, removed, to train it anew
    prune        what preprocess kept for the next grid, removed
    reference    the reference pages of the documentation, for those who change mriflow

What they share::

    images/      what opens an image
        find            which file is which scan
        archives        tar archives, and images rewritten as NIfTI
        kinds           which files are images, and the cure for those that are not read
        nifti           one scan's file, or what is wrong with it
        headers         what the header says, voxels unread
        ukb_zip         the zips of UK Biobank
        fingerprint     the same image known again
        scan            what `preprocess` does to one scan
        mask            which voxels are brain
        tissues         grey matter, white matter and CSF
        kept            what takes long, kept for the next grid
        registration    ANTs, and the network's grid
    tables/      what opens a table
        reader          csv, tsv, xls, xlsx
        cells           the value of a cell, or what is wrong with it
        identifiers     those that a spreadsheet has spoilt
        labels          labels.csv, and the index of a shard
        problems        the grammar of the column `problem`
        people          the rows of a dataset's table, joined with the images
        choice          which image stands for a session
        units           units of labels
        sidecars        what BIDS says of a table's columns
        visits          what BIDS tells of a single visit
        ukb_table       the same for UK Biobank
        cohort          who is in, and why others are not
        splits          splits.csv, and the check for leaks
        split_file      a split of one's own
        balance         how evenly a split is spread
    training/    the parts of a training
        setup           what a training reads, and the trainer made of it
        loader          shards as batches
        augment         random changes of a batch
        covariates      numbers beside the image
        networks        SFCN, and those of MONAI
        pretrained      weights to start from
        seen            whose scans a model has seen
        freezing        what of a network is not trained
        objectives      what is learned, and what an error costs
        optimizers      optimiser and learning rate
        forward         precision, compilation, a network run over scans
        loop            the training loop
        averaging       weights averaged over epochs
        watchman        what is wrong with a training, in words
        plan            what an epoch draws, and who takes which scans
        memory          which batch fits
        checkpoint      what an exact resume needs
        lock            one process alone in a work folder
        stop            when to stop early
        device          CPU or GPU
        distributed     several GPUs
        profiling       where the time goes
    evaluation/  how good predictions are
        metrics         metrics and their differences, with intervals
        baselines       the trivial guess, and two linear methods that see the image
        confounders     what head size, site, age and sex predict
        stacking        the network and the classical method together
        site_baseline   what the site alone predicts
    prediction/  what uses trained networks
        ensemble        the networks of a fold together
    reporting/   every figure and page
        canvas          the sheet that figures are drawn on
        cohort_figures  figures of a dataset
        result_figures  figures of an experiment
        html            small web pages
        results         metrics.json, read and in words
        findings        what is wrong with a dataset
        check_page      the page of that
        cohort_page     the page of who is in
        balance_page    the page of a split
        results_page    the page of all metrics
        command_page    the reference page of all commands
    simulation/  the generator of the demo cohort
        brain           one simulated brain
        people          who is in the cohort, and their table
    config/      the config
        resolve         merged, checked, filled in
        checks          what no schema can check
        search          the trials of a search
        mistakes        a mistake in words
        lookup          a dataset by its name
        cost            what a long run will cost
        handover        what the jobs of a run are given
        docs            the tables of config/README.md
    base/        what every stage needs
        cli             arguments, progress bars, how a command ends
        commands        which commands there are
        errors          UserError, and words for its text
        files           whole files
        processes       several processes at once
        recipes         numbers that make work run again
        provenance      what a result needs to be made again
"""

__version__ = "0.1.0"
