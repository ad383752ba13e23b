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
    external     predictions of another dataset, by all networks together
    evaluate     how good the predictions are, beside the baselines
    agreement    how far label maps agree with the truth, beside what needs no network
    compare      which of several experiments is better, or that it cannot be told
    alter        labels shuffled, or fewer people to train on, for a control
    controls     what comes of shuffled labels, and of fewer people
    robustness   how good the predictions of worse scans are
    attention    which places of the brain predictions depend on
    bundle       a model with all that its use on other scans needs
    predict      predictions of any scans, by such a model
    gather       such predictions, made in parts, as one table
    plot         a figure, as PDF and PNG
    pages        a page to read before a run has ended
    report       the report: one page with all that was found
    archive      all that a paper needs to be repeated from, in one file
    status       how far a run is: what is done, running, failed and waiting
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
        outliers        what lies far from what is usual
        kept            what takes long, kept for the next grid
        label_maps      which voxel is of which class
        registration    ANTs, and the network's grid
    tables/      what opens a table
        reader          csv, tsv, xls, xlsx
        cells           the value of a cell, or what is wrong with it
        identifiers     those that a spreadsheet has spoilt
        labels          labels.csv, and the index of a shard
        label_maps      which label map is which scan's, and what is wrong with it
        problems        the grammar of the column `problem`
        people          the rows of a dataset's table, joined with the images
        choice          which image stands for a session
        units           units of labels
        sidecars        what BIDS says of a table's columns
        visits          what BIDS tells of a single visit
        ukb_table       the same for UK Biobank
        cohort          who is in, and why others are not
        splits          splits.csv, and the check for leaks
        strata          groups of people who are alike
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
        sides           classes of one side, which no mirror image shows there
        freezing        what of a network is not trained
        objectives      what is learned, and what an error costs
        overlap         the loss of a segmentation, and Dice
        synthesis       training images made of label maps
        patches         patches of scans, and windows over them
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
        summary         all that is said of predictions
        metrics         metrics with intervals
        comparison      differences, and what can be told of them
        subgroups       for whom it works
        gaps            predicted minus true, raw and corrected
        decisions       thresholds, what is right at them, and curves
        calibration     what is fitted to predictions, and applied
        conformal       intervals and sets that hold the truth nine times in ten
        failures        the worst scans, quality and power
        long_table      metrics.csv
        external        the same of another dataset
        label_maps      how far label maps agree with the truth
        baselines       the trivial guess, and two linear methods that see the image
        confounders     what head size, site, age and sex predict
        controls        labels shuffled, training parts thinned
        stacking        the network and the best simpler method together
        tissue_baseline  what grey matter and volumes predict
        site_baseline   what the site alone predicts
    prediction/  what uses trained networks
        ensemble        several networks together
        tested          an experiment whose networks are trained
        segment         label maps of scans, by networks and without
        tissue_network  tissue maps of any scan, for `preprocess`
        own_space       label maps in the voxels of a scan, with volumes
        perturbations   scans as a worse scanner would have made them
        explain         occlusion and gradients
        maps            what maps of attention say, and whether to believe them
        stored          a model in its folder, read and checked
        sources         which scans are meant
        apply           a model applied to scans
        finished        predictions of a run that was stopped
        seen            what was seen in training, and what is not like it
        calibrated      the columns of predictions of new scans
    reporting/   every figure and page
        canvas          the sheet that figures are drawn on
        cohort_figures  who is in a dataset
        scan_figures    preprocessed scans, and those predicted worst
        result_figures  figures of an experiment
        map_figures     figures of a segmentation
        depth_figures   figures of training size, worse scans and attention
        html            small web pages
        results         metrics.json, read and in words
        findings        what is wrong with a dataset
        check_page      the page of that
        cohort_page     the page of who is in
        report_page     the report, and its templates
        experiment_sections  what it says of an experiment
        map_sections    what the report says of a segmentation
        words           what the numbers say, in sentences
        methods_text    the paragraph of methods
        flow            who came from the table to the test
        result_tables   the tables of results
        balance_tables  the tables of a split
        compute         what a run cost
        claim           the checklist for authors
        parts           what a section is made of
        run_state       what Snakemake knows of a run: its jobs and their states
        model_card      the model card
        command_page    the reference page of all commands
    simulation/  the generator of the demo cohort
        brain           one simulated brain
        people          who is in the cohort, and their table
        tissues         label maps to learn segmentation of real scans from
        changes         where a label changes the brains
    config/      the config
        resolve         merged, checked, filled in
        checks          what no schema can check
        search          the trials of a search
        controls        what controls and attention add to a run
        label_maps      what jobs are told of label maps
        map_checks      what no schema can check of label maps
        network_checks  what no schema can check of networks
        mistakes        a mistake in words
        external        the other datasets that an experiment is tested on
        lookup          a dataset by its name
        comparable      which experiments can be compared
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
