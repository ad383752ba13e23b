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
from collections.abc import Callable
from itertools import repeat
from pathlib import Path

import nibabel as nib
import numpy as np

from mriflow.base.cli import progress, run_stage, stage_parser
from mriflow.base.errors import UserError
from mriflow.base.files import whole_file, write_csv
from mriflow.base.processes import workers
from mriflow.simulation.brain import NOTE, Template, load_template, make_image, make_label_map
from mriflow.simulation.people import MIN_SUBJECTS, UNTIDY, Person, draw_person, make_table
from mriflow.simulation.tissues import varied_image, varied_label_map

LOG = logging.getLogger(__name__)

Maker = Callable[[Person, Template, float, np.random.Generator], nib.Nifti1Image]
# What makes an image and its label map, of the demo's people and of varied tissues.
MAKERS: dict[bool, tuple[Maker, Maker]] = {False: (make_image, make_label_map), True: (varied_image, varied_label_map)}


def simulate(
    archive: Path,
    table: Path | None = None,
    *,
    subjects: int = 120,
    seed: int = 0,
    voxel_mm: float = 2.0,
    threads: int = 1,
    label_maps: bool = False,
    varied_tissues: bool = False,
) -> None:
    """Write the images and the table of a simulated cohort; the same arguments give the same bytes.

    Parameters
    ----------
    archive
        The .tar of images to write; flat, names like ``SIM001-North-0101-T1.nii.gz``.
    table
        The CSV to write, if any: SIM_ID, SEX_ID (1=m, 2=f), HEIGHT (cm), WEIGHT (kg), STUDY_DATE, AGE (years). See `UNTIDY`.
    subjects
        Number of images. Subject k is the same in a cohort of any size.
    seed
        Seed of the random numbers.
    voxel_mm
        Edge of the cubic voxels in mm.
    threads
        How many are made at once.
    label_maps
        Write label maps of the images, which are not written: names like ``SIM001-North-0101-tissues.nii.gz``, 1 for CSF, 2 for
        grey matter and 3 for white matter.
    varied_tissues
        Make brains for a network that is to segment real scans, and label maps of which 4 is for ventricles; see
        `mriflow.simulation.tissues`.

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

    with (
        whole_file(archive) as temporary,
        tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": NOTE}) as tar,
        workers(max(1, min(threads, subjects))) as each,
    ):
        made = each(
            packed_image, people[:subjects], streams[:subjects], repeat(voxel_mm), repeat(MAKERS[varied_tissues][label_maps])
        )
        for person in progress(people[:subjects], desc="simulate", unit="subject"):
            packed = next(made)
            name = person.image_name.replace("-T1.", "-tissues.") if label_maps else person.image_name
            entry = tarfile.TarInfo(name)  # its time and owner are 0
            entry.size = len(packed)
            tar.addfile(entry, io.BytesIO(packed))
    if table is not None:
        write_csv(make_table(people[:subjects], people[subjects:], np.random.default_rng(of_table)), table)
    LOG.info("wrote %s: %s", " and ".join(map(str, filter(None, (archive, table)))), NOTE)


def packed_image(person: Person, rng: np.random.Generator, voxel_mm: float, make: Maker) -> bytes:
    """Return one subject's image, or its label map, as the bytes of a .nii.gz."""
    return gzip.compress(make(person, load_template(), voxel_mm, rng).to_bytes(), compresslevel=1, mtime=0)


def main(argv: list[str] | None = None) -> None:
    """Run the stage from the command line."""
    parser = stage_parser(__doc__)
    parser.add_argument("--archive", type=Path, required=True, help="the .tar of images to write")
    parser.add_argument("--table", type=Path, help="the .csv to write (default: none)")
    parser.add_argument("--subjects", type=int, default=120, help="number of images, 20 or more (default: 120)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random numbers (default: 0)")
    parser.add_argument("--voxel-mm", type=float, default=2.0, help="edge of the cubic voxels in mm (default: 2.0)")
    parser.add_argument("--threads", type=int, default=1, help="images that are made at once (default: 1)")
    parser.add_argument("--label-maps", action="store_true", help="write the tissues of the images, not the images")
    parser.add_argument(
        "--varied-tissues", action="store_true", help="brains for a network that is to segment real scans, with ventricles"
    )
    args = parser.parse_args(argv)
    simulate(**vars(args))


if __name__ == "__main__":
    run_stage(main)
