"""mriflow: deep learning on brain MRI.

The stages, in running order, each a function and a command (``python -m mriflow.<stage> --help``):
``download`` or ``simulate``, ``organize``, ``layout``, ``preprocess``, ``split``, ``train``, ``evaluate``, ``plot`` and
``plot_cohort``, ``tell``.

What they share: ``labels`` and ``tables`` (the data's tables), ``cohort`` (who is in and why others are not), ``nifti`` (reads
a scan's file), ``scan`` (what `preprocess` does to one), ``volumes``, ``augment``, ``networks``, ``objectives``,
``checkpoint``, ``device`` (training), ``baselines`` and ``metrics`` (evaluation), ``files``, ``errors``, ``cli``, ``recipes``.
The Snakefile alone uses ``config`` and its helpers ``config_*``.
"""

__version__ = "0.1.0"
