"""Read metrics.json, and write a metric with its interval."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mriflow.base.errors import UserError
from mriflow.evaluation.metrics import ALWAYS

METRICS = {
    "regression": {"mae": "MAE", "rmse": "RMSE", "r2": "R²", "r": "r", "slope": "slope of the residual"},
    "classification": {
        "auc": "AUC",
        "accuracy": "accuracy",
        "balanced_accuracy": "balanced accuracy",
        "sensitivity": "sensitivity",
        "specificity": "specificity",
    },
}
ABOUT = ("experiment", "dataset", "target", "unit", "n", "n_excluded", "folds", "simulated")  # of metrics.json


def with_interval(cell: Mapping[str, float | None]) -> str:
    """Return a metric as text, ``4.60 [4.00, 5.20]``: to two significant digits of the interval's half-width.

    >>> with_interval({"value": 4.6012, "low": 4.0, "high": 5.2})
    '4.60 [4.00, 5.20]'
    """
    value, low, high = (cell[key] for key in ("value", "low", "high"))
    if value is None:
        return "–"
    if low is None or high is None:
        return f"{value:.3g}".replace("-", "−")
    half = (high - low) / 2
    digits = min(max(1 - math.floor(math.log10(half)), 0), 6) if half > 1e-9 else 2
    return f"{value:z.{digits}f} [{low:z.{digits}f}, {high:z.{digits}f}]".replace("-", "−")


def read_metrics(path: Path) -> dict[str, Any]:
    """Read a metrics.json that `evaluate` made."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise not_as_made(path, f"cannot be read ({error})", "evaluate") from error
    always = ("network", "classes") if result.get("type") == "segmentation" else ALWAYS
    if missing := [key for key in (*ABOUT, "type", "seeds", *always) if key not in result]:
        raise not_as_made(path, f"has no {', '.join(missing)}", "evaluate")
    return result


def not_as_made(path: Path, fault: str, maker: str) -> UserError:
    """Return the error of a file that is not as the stage `maker` makes it."""
    return UserError(f"{path}: {fault}. `python -m mriflow.{maker}` makes it; delete it and run that again.")
