"""Who is in the simulated cohort, and their untidy table."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

MIN_SUBJECTS = 20

# What is wrong with the table, in subjects. No subject has two of these; the counts do not depend on the cohort's size.
UNTIDY = {
    "image without a row": 1,
    "row without an image": 2,
    "missing age": 2,  # blank
    "two ages": 1,  # two rows that contradict each other
    "twin row": 3,  # two rows; in the second, height and weight are 0
    "missing height and weight": 3,  # 0, in the only row
}

# Site: share of the subjects, gamma of the contrast, noise (in units of the brightest tissue), intensity in the file.
SITES = {
    "North": (0.50, 0.95, 0.020, 900.0),
    "South": (0.30, 1.00, 0.030, 500.0),
    "West": (0.20, 1.10, 0.040, 2500.0),
}


@dataclass(frozen=True)
class Person:
    """One subject as the table knows them."""

    number: int
    age: float  # years
    male: bool
    site: str
    height: int  # cm
    weight: int  # kg
    study_date: str

    @property
    def image_name(self) -> str:
        """Name of the image file, in the manner of ``IXI002-Guys-0828-T1.nii.gz``."""
        return f"SIM{self.number:03d}-{self.site}-{100 + self.number:04d}-T1.nii.gz"

    def row(self) -> dict[str, object]:
        """Return the subject's row in the columns of IXI.xls."""
        return {
            "SIM_ID": self.number,
            "SEX_ID (1=m, 2=f)": 1 if self.male else 2,
            "HEIGHT": self.height,
            "WEIGHT": self.weight,
            "STUDY_DATE": self.study_date,
            "AGE": self.age,
        }


def draw_person(number: int, rng: np.random.Generator) -> Person:
    """Draw one subject's row."""
    male = bool(rng.random() < 0.5)
    height = rng.normal(178 if male else 164, 7)
    return Person(
        number=number,
        age=round(float(rng.uniform(20, 86)), 2),
        male=male,
        site=str(rng.choice(list(SITES), p=[share for share, *_ in SITES.values()])),
        height=round(height),
        weight=round(rng.normal(25, 3) * (height / 100) ** 2),
        study_date=str(np.datetime64("2005-01-10") + int(rng.integers(700))),
    )


def make_table(people: list[Person], without_image: list[Person], rng: np.random.Generator) -> pd.DataFrame:
    """Return the cohort's table, with the errors that `UNTIDY` counts and its rows in no order."""
    table = pd.DataFrame([p.row() for p in people + without_image])
    chosen = iter(rng.permutation(len(people)))
    unlisted, ageless, contradicted, twins, unmeasured = (
        [next(chosen) for _ in range(UNTIDY[kind])]
        for kind in ("image without a row", "missing age", "two ages", "twin row", "missing height and weight")
    )
    second_ages = table.loc[contradicted].assign(AGE=lambda rows: (rows["AGE"] + 5).round(2))
    second_rows = table.loc[twins].assign(HEIGHT=0, WEIGHT=0)
    table.loc[ageless, "AGE"] = np.nan
    table.loc[unmeasured, ["HEIGHT", "WEIGHT"]] = 0
    table = pd.concat([table.drop(index=unlisted), second_ages, second_rows])
    return table.iloc[rng.permutation(len(table))]
