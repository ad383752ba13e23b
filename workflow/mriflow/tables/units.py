"""Units of labels, and numbers that are written with one."""

import re

# How much of the first unit of its row each one is.
MEASURES = (
    {"year": 1, "month": 1 / 12, "week": 7 / 365.25, "day": 1 / 365.25},
    {"cm": 1, "m": 100, "mm": 0.1, "inch": 2.54},
    {"kg": 1, "g": 0.001, "lb": 0.45359237},
)
SPELLED = {
    **dict.fromkeys(("y", "yr", "yrs", "a", "annum"), "year"),
    **dict.fromkeys(("mo", "mon", "mth", "mths"), "month"),
    **dict.fromkeys(("w", "wk", "wks"), "week"),
    "d": "day",
    **dict.fromkeys(("centimetre", "centimeter"), "cm"),
    **dict.fromkeys(("metre", "meter"), "m"),
    **dict.fromkeys(("millimetre", "millimeter"), "mm"),
    **dict.fromkeys(("in", "inches"), "inch"),
    **dict.fromkeys(("kilogram", "kilo"), "kg"),
    "gram": "g",
    **dict.fromkeys(("lbs", "pound"), "lb"),
}
DICOM_AGE = re.compile(r"(\d{3})([DWMY])")  # its value representation AS (PS3.5, 6.2)
OF_DICOM = {"D": "days", "W": "weeks", "M": "months", "Y": "years"}
WITH_UNIT = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+\.?)")


def in_unit(unit: str, wanted: str) -> float | None:
    """Return what a value in one unit has to be multiplied with to be in another, None if that is not known.

    >>> in_unit("Metres", "cm"), in_unit("points", "years")
    (100.0, None)
    """
    there, here = unit_of(unit), unit_of(wanted)
    return next((measure[there] / measure[here] for measure in MEASURES if there in measure and here in measure), None)


def without_unit(text: str, wanted: str) -> tuple[str, float]:
    """Return a number without the unit that is written with it, and what it has to be multiplied with to be in another.

    A text that is no number with a unit that fits is returned as it is.

    >>> without_unit("045Y", "years"), without_unit("6 months", "years"), without_unit("90+", "years")
    (('045', 1.0), ('6', 0.08333333333333333), ('90+', 1.0))
    """
    dicom = DICOM_AGE.fullmatch(text) if unit_of(wanted) in MEASURES[0] else None
    written = dicom or WITH_UNIT.fullmatch(text)
    factor = in_unit(OF_DICOM[written[2]] if dicom else written[2], wanted) if written else None
    return (written[1], factor) if written and factor else (text, 1.0)


def unit_of(text: str) -> str:
    """Return a unit as `MEASURES` names it, however it is written.

    >>> unit_of("Months"), unit_of("yr."), unit_of("points")
    ('month', 'year', 'point')
    """
    word = text.strip().lower().rstrip(".")
    return SPELLED.get(word) or SPELLED.get(word.rstrip("s")) or word.rstrip("s")
