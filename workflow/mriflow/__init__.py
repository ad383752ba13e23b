"""mriflow: deep learning on brain MRI, one module per stage of the workflow.

Every stage is a plain function (``mriflow.split.split(...)``) and a command (``python -m mriflow.split --help``).
"""

__version__ = "0.1.0"
