"""Numbers that a network is given beside the image: head size, or any column of labels.csv."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from mriflow.base.errors import UserError
from mriflow.tables.labels import HEAD_SIZE, TEXT_COLUMNS, read_labels, require_column

log = logging.getLogger(__name__)


def read_covariates(names: Sequence[str], labels: Path, index: pd.DataFrame) -> pd.DataFrame:
    """Return the covariates `names` of every preprocessed scan, one column each, by the scans' ids.

    Parameters
    ----------
    names
        Columns of labels.csv, or ``head_size``: the volume of the head over that of the template, from the affine registration.
    labels
        The dataset's labels.csv.
    index
        The indices of its shards (`mriflow.tables.labels.read_indices`).

    Raises
    ------
    UserError
        If labels.csv has no such column, or a column is no measure of a person.
    """
    index = index[index["index"].notna()].set_index("id")
    table = read_labels(labels).set_index("id")
    columns = {}
    for name in names:
        if name == HEAD_SIZE:
            columns[name] = index["scale"].astype(float)
            continue
        require_column(table, name)
        if name in set(TEXT_COLUMNS) - {"site"}:
            raise UserError(f"the covariate {name!r} is no measure of a person; name another column of {labels}.")
        columns[name] = table[name].reindex(index.index).replace("", np.nan)
    return pd.DataFrame(columns, index=index.index)


class Covariates:
    """How covariates become numbers of mean 0 and standard deviation 1 over the training scans.

    A column of numbers is one number, one of texts (sex, site) one for each value but the first that the training scans have.

    Attributes
    ----------
    columns
        For each covariate its `mean` and `sd` or its `values`, and what stands for a missing one (`missing`; None: nothing).
    """

    def __init__(self, columns: dict[str, dict[str, Any]]) -> None:
        self.columns = columns

    @classmethod
    def fit(cls, table: pd.DataFrame, impute: bool) -> "Covariates":
        """Return what the training scans alone say.

        Parameters
        ----------
        table
            The covariates of the training scans.
        impute
            Whether a missing one is taken for the training scans' mean or commonest value; if not, it is refused.

        Raises
        ------
        UserError
            If a covariate is the same for all training scans, or missing for all.
        """
        columns: dict[str, dict[str, Any]] = {}
        for name, values in table.items():
            known = values.dropna()
            if known.nunique() < 2:
                what = f"is {known.iloc[0]!r} for" if len(known) else "is missing for"
                raise UserError(f"the covariate {name!r} {what} every training scan: it tells nothing. Leave it out.")
            if pd.api.types.is_numeric_dtype(known):
                numbers = known.astype(float)
                columns[str(name)] = {"mean": float(numbers.mean()), "sd": float(numbers.std(ddof=0))}
                columns[str(name)]["missing"] = float(numbers.mean()) if impute else None
            else:
                counts = known.astype(str).value_counts()
                columns[str(name)] = {"values": sorted(counts.index)}
                columns[str(name)]["missing"] = str(counts.index[0]) if impute else None
        return cls(columns)

    @property
    def width(self) -> int:
        """How many numbers a scan has."""
        return sum(len(column["values"]) - 1 if "values" in column else 1 for column in self.columns.values())

    def encode(self, table: pd.DataFrame) -> torch.Tensor:
        """Return the covariates of scans as numbers, float32, shape (scans, width).

        Raises
        ------
        UserError
            If a covariate is missing, or has a value that no training scan has, and was not to be imputed.
        """
        numbers: list[np.ndarray] = []
        for name, column in self.columns.items():
            values = self.known(name, table[name])
            if values.isna().any():
                if column["missing"] is None:
                    lacking = values.index[values.isna()]
                    raise UserError(
                        f"the covariate {name!r} is missing for {len(lacking)} of {len(values)} scans ({lacking[0]} ...). Set "
                        "`impute: true` in the experiment to take the training scans' mean for it, or leave it out."
                    )
                values = values.where(values.notna(), column["missing"])
            if "values" in column:
                numbers += [(values.astype(str) == value).to_numpy(float) for value in column["values"][1:]]
            else:
                numbers.append((values.to_numpy(float) - column["mean"]) / column["sd"])
        stacked = np.stack(numbers, 1) if numbers else np.zeros((len(table), 0))
        return torch.tensor(stacked, dtype=torch.float32)

    def known(self, name: str, values: pd.Series) -> pd.Series:
        """Return a covariate of scans, missing where no training scan has such a value, if it may be imputed."""
        column = self.columns[name]
        strange = values.notna() & ~self.trained_on(name, values)
        expected = f"one of {', '.join(column['values'])}, which the training scans have" if "values" in column else "a number"
        if strange.any() and (column["missing"] is None or "values" not in column):
            scan = strange.index[strange][0]
            cure = ", or set `impute: true`" if "values" in column else ""
            raise UserError(
                f"the covariate {name!r} is {str(values[scan])!r} for {scan} ({strange.sum()} of {len(values)} scans), "
                f"expected {expected}. Give it by the same names, or leave it out{cure}."
            )
        return values.where(~strange, None)

    def trained_on(self, name: str, values: pd.Series) -> pd.Series:
        """Return which values of a covariate the training scans have, too; of numbers, which are numbers."""
        column = self.columns[name]
        if "values" in column:
            return values.astype(str).isin(column["values"])
        return pd.to_numeric(values, errors="coerce").notna()
