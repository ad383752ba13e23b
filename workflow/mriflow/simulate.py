"""Make the demo cohort: simulated T1-weighted brains and a table about them, in the form of a real release.

Nothing here is a scan of a person. Every subject is the ICBM152 average brain (which nilearn carries), bent, recoloured
and sampled again. With age, ventricles and other CSF spaces widen and grey matter thins and darkens; sex changes the
size and the shape of the head and the grey matter of the frontal lobes; anatomy, pose, bias field and noise are random;
contrast and noise depend on the site. Age, sex and site are independent of one another. It serves to try the workflow
without a download, and says nothing about real brains.

The effects are sized for learning: from 80 subjects, registered affinely and resampled to 4 mm, principal components
with a linear model reach an age error of about 7 years (16 for the median) and over 90 % right for sex; a small network
trained for 20 seconds reaches 5 to 6 years and the same for sex.

The archive and the table look like IXI's, errors in the table included; `UNTIDY` counts those.
"""

import gzip
import io
import logging
import tarfile
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from nilearn.datasets import load_mni152_gm_template, load_mni152_template, load_mni152_wm_template
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from mriflow.cli import progress, run_stage, stage_parser
from mriflow.errors import UserError
from mriflow.files import whole_file, write_csv

LOG = logging.getLogger(__name__)
Array = NDArray[np.float32]

NOTE = "simulated by mriflow, not a real scan"
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

FIELD_OF_VIEW_MM = np.array([256.0, 224.0, 192.0])  # along P, S, R: the axes of IXI
NODE_MM = 8.0  # smooth fields are computed on a grid this coarse and interpolated
BRAIN_CENTRE_MM = np.array([0.0, -13.0, 4.0])  # of the template, in MNI space
VENTRICLES_MM = np.array([[0.0, -18.0, 14.0], [22.0, 36.0, 20.0]])  # centre in MNI space, width (sigma)
FRONTAL_MM = np.array([[0.0, 42.0, 10.0], [40.0, 25.0, 30.0]])


@dataclass(frozen=True)
class Template:
    """The ICBM152 average at 1 mm, cropped to the brain; all maps of shape (x, y, z), values 0 to 1."""

    t1: Array
    grey: Array
    csf: Array
    frontal: Array  # grey matter, weighted by nearness to the frontal lobes
    origin_mm: NDArray[np.float64]  # of the first voxel, in MNI space


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


def load_template() -> Template:
    """Return the maps that every subject is made from."""
    image = load_mni152_template(resolution=1)
    box = ndimage.find_objects((np.asarray(image.dataobj) > 0).astype(np.uint8))[0]
    t1, grey, white = (
        np.asarray(i.slicer[box].dataobj, np.float32)
        for i in (image, load_mni152_gm_template(resolution=1), load_mni152_wm_template(resolution=1))
    )
    origin = image.slicer[box].affine[:3, 3]
    frontal = grey * nearness(np.indices(t1.shape, np.float32) + column(origin), FRONTAL_MM)
    csf = np.where(t1 > 0, np.clip(1 - grey - white, 0, 1), 0).astype(np.float32)
    return Template(t1, grey, csf, frontal.astype(np.float32), origin)


def column(vector: NDArray) -> NDArray:
    """Return a vector of shape (3,) as (3, 1, 1, 1), to be added to coordinates."""
    return np.asarray(vector, np.float32)[:, None, None, None]


def nearness(points: NDArray, region: NDArray) -> NDArray:
    """Return a Gaussian bump, 1 at the region's centre, at `points` of shape (3, …); `region`: centre, width; in mm."""
    centre, sigma = region
    return np.exp(-0.5 * np.sum(((points - column(centre)) / column(sigma)) ** 2, axis=0))


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


def smooth_noise(shape: tuple[int, ...], sd: float, sigma_mm: float, rng: np.random.Generator) -> NDArray:
    """Return a random smooth field of `shape` on the coarse grid with standard deviation `sd`."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape), sigma_mm / NODE_MM, mode="wrap")
    return noise * (sd / noise.std())


def colour(template: Template, age: float, maleness: float, rng: np.random.Generator) -> Array:
    """Return the subject's T1 intensities in the template's space, 0.08 to 1 in the brain and 0 outside."""
    old = (age - 20) / 66
    wider_sulci = 0.26 * old + rng.normal(0, 0.03)
    darker_grey = 0.10 * old + rng.normal(0, 0.02)
    image = template.t1 - wider_sulci * template.csf - darker_grey * template.grey
    image = image - 0.03 * maleness * template.frontal
    return np.where(template.t1 > 0, np.clip(image, 0.08, 1), 0)  # a floor, so that dark CSF stays inside the brain


def bend(points: NDArray, age: float, maleness: float, rng: np.random.Generator) -> NDArray:
    """Say where in the template the subject's anatomy is found: points of shape (3, …), mm in MNI space, both."""
    points = points + np.stack([smooth_noise(points.shape[1:], 1.5, 24, rng) for _ in range(3)])
    # Waves, not stretches: an affine registration takes every stretch away, and head size with it.
    x, y, z = (points - column(BRAIN_CENTRE_MM)) * np.pi / column(np.array([70.0, 85.0, 75.0]))
    points = points + 0.75 * maleness * np.stack([np.sin(2 * x), np.cos(z) + np.cos(2 * y), np.cos(y)])
    widening = 0.10 + 0.40 * (age - 20) / 66 + rng.normal(0, 0.03)
    return points - widening * nearness(points, VENTRICLES_MM) * (points - column(VENTRICLES_MM[0]))


def pose(points: NDArray, male: bool, rng: np.random.Generator) -> NDArray:
    """Take points of the scanner, shape (3, …), mm from its centre, to MNI space: turn, shift and size of the head."""
    turn = Rotation.from_euler("xyz", rng.uniform(-8, 8, 3), degrees=True).as_matrix()
    shift = rng.uniform(-10, 10, 3)
    size = (1.02 if male else 0.98) + rng.normal(0, 0.025) + rng.normal(0, 0.01, 3)
    upright = np.tensordot(turn.T, points - column(shift), axes=1)
    return upright / column(size) + column(BRAIN_CENTRE_MM)


def refine(field: NDArray, shape: tuple[int, ...], voxel_mm: float) -> Array:
    """Interpolate a field of the coarse grid, shape (…, a, b, c), linearly to voxels, shape (…, i, j, k)."""
    for axis, length in zip((-3, -2, -1), shape, strict=True):
        voxels = np.arange(length) * voxel_mm / NODE_MM
        weights = np.maximum(0, 1 - np.abs(voxels[:, None] - np.arange(field.shape[axis])))
        field = np.moveaxis(np.tensordot(field, weights.astype(np.float32), axes=(axis, 1)), -1, axis)
    return field


def make_image(person: Person, template: Template, voxel_mm: float, rng: np.random.Generator) -> nib.Nifti1Image:
    """Return one subject's image: int16, axes P-S-R, the brain only, 0 around it."""
    _, gamma, noise, brightest = SITES[person.site]
    age = person.age + rng.normal(0, 2.5)  # brains of one age differ, and so do brains of one sex
    maleness = (1 if person.male else -1) + rng.normal(0, 0.45)

    axes = np.array([[0, 0, 1], [-1, 0, 0], [0, 1, 0]])  # columns P, S, R in world axes R, A, S
    shape = tuple(int(n) for n in FIELD_OF_VIEW_MM // voxel_mm)
    first = -axes @ (FIELD_OF_VIEW_MM / 2)
    nodes = np.indices([int(n) + 1 for n in FIELD_OF_VIEW_MM // NODE_MM]) * NODE_MM
    points = np.tensordot(axes, nodes, axes=1) + column(first)
    points = bend(pose(points, person.male, rng), age, maleness, rng) - column(template.origin_mm)
    bias = np.exp(smooth_noise(points.shape[1:], 0.08, 50, rng))

    voxels = refine(points.astype(np.float32), shape, voxel_mm)
    clean = ndimage.map_coordinates(colour(template, age, maleness, rng), voxels, order=1)
    signal = clean**gamma * refine(bias.astype(np.float32), shape, voxel_mm)
    scale = brightest * rng.uniform(0.8, 1.25)  # a scanner's units are arbitrary
    real, imaginary = noise * rng.standard_normal((2, *shape), dtype=np.float32)
    magnitude = np.hypot(signal + real, imaginary)  # Rician, as in a magnitude image
    image = nib.Nifti1Image(
        np.where(clean > 0.04, magnitude * scale, 0).round().astype(np.int16),
        nib.affines.from_matvec(axes * voxel_mm, first),
    )
    image.header["descrip"] = NOTE
    image.header.set_xyzt_units("mm")
    return image


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


def simulate(archive: Path, table: Path, *, subjects: int = 120, seed: int = 0, voxel_mm: float = 2.0) -> None:
    """Write the images and the table of a simulated cohort; the same arguments give the same bytes.

    Parameters
    ----------
    archive
        The .tar of images to write; flat, names like ``SIM001-North-0101-T1.nii.gz``.
    table
        The CSV to write: SIM_ID, SEX_ID (1=m, 2=f), HEIGHT (cm), WEIGHT (kg), STUDY_DATE, AGE (years). See `UNTIDY`.
    subjects
        Number of images. Subject k is the same in a cohort of any size.
    seed
        Seed of the random numbers.
    voxel_mm
        Edge of the cubic voxels in mm.

    Raises
    ------
    UserError
        If the subjects are too few to hold the table's errors, or a number is out of range.

    """
    if subjects < MIN_SUBJECTS:
        raise UserError(f"subjects: {subjects} is too few for a cohort; give {MIN_SUBJECTS} or more")
    if not 1 <= voxel_mm <= 8:
        raise UserError(f"voxel_mm: {voxel_mm} mm is outside what can be simulated; give 1 to 8")
    if seed < 0:
        raise UserError(f"seed: {seed} is negative; give 0 or more")
    LOG.info("simulating %d subjects from the ICBM152 average: none of them is a real scan", subjects)
    of_table, *of_people = np.random.SeedSequence(seed).spawn(1 + subjects + UNTIDY["row without an image"])
    streams = [np.random.default_rng(sequence) for sequence in of_people]
    people = [draw_person(number, rng) for number, rng in enumerate(streams, start=1)]

    template = load_template()
    with (
        whole_file(archive) as temporary,
        tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": NOTE}) as tar,
    ):
        for person, rng in progress(list(zip(people, streams, strict=True))[:subjects], desc="simulate", unit="subject"):
            content = make_image(person, template, voxel_mm, rng).to_bytes()
            packed = gzip.compress(content, compresslevel=1, mtime=0)
            entry = tarfile.TarInfo(person.image_name)  # its time and owner are 0
            entry.size = len(packed)
            tar.addfile(entry, io.BytesIO(packed))
    write_csv(make_table(people[:subjects], people[subjects:], np.random.default_rng(of_table)), table)
    LOG.info("wrote %s and %s: %s", archive, table, NOTE)


def main(argv: list[str] | None = None) -> None:
    """Run the stage from the command line."""
    parser = stage_parser(__doc__)
    parser.add_argument("--archive", type=Path, required=True, help="the .tar of images to write")
    parser.add_argument("--table", type=Path, required=True, help="the .csv to write")
    parser.add_argument("--subjects", type=int, default=120, help="number of images, 20 or more (default: 120)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random numbers (default: 0)")
    parser.add_argument("--voxel-mm", type=float, default=2.0, help="edge of the cubic voxels in mm (default: 2.0)")
    args = parser.parse_args(argv)
    simulate(**vars(args))


if __name__ == "__main__":
    run_stage(main)
