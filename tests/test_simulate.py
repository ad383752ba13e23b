"""The demo cohort is what it says: repeatable, in a release's form, untidy as documented, and its brains age."""

import gzip
import re
import tarfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nibabel.affines import from_matvec
from nibabel.processing import resample_from_to
from nilearn.datasets import load_mni152_template

from mriflow.base.errors import UserError
from mriflow.simulate import main, simulate
from mriflow.simulation.brain import BRAIN_CENTRE_MM, NOTE, SITES, load_template
from mriflow.simulation.people import UNTIDY
from mriflow.simulation.tissues import load_tissues

SUBJECTS = 20
NAME = re.compile(r"SIM(\d{3,})-(\w+)-(\d+)-T1\.nii\.gz")


def read_images(archive: Path) -> dict[int, nib.Nifti1Image]:
    with tarfile.open(archive) as tar:
        return {
            int(NAME.fullmatch(name)[1]): nib.Nifti1Image.from_bytes(gzip.decompress(tar.extractfile(name).read()))
            for name in tar.getnames()
        }


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    simulate(folder / "images.tar", folder / "table.csv", subjects=SUBJECTS, voxel_mm=4)
    return folder


@pytest.fixture(scope="module")
def images(cohort):
    return read_images(cohort / "images.tar")


@pytest.fixture(scope="module")
def table(cohort):
    return pd.read_csv(cohort / "table.csv")


def test_same_seed_gives_same_bytes_from_the_command_line_too(cohort, tmp_path):
    main(
        [
            f"--archive={tmp_path / 'images.tar'}",
            f"--table={tmp_path / 'table.csv'}",
            f"--subjects={SUBJECTS}",
            "--seed=0",
            "--voxel-mm=4",
        ]
    )
    for name in ("images.tar", "table.csv"):
        assert (tmp_path / name).read_bytes() == (cohort / name).read_bytes()


def test_other_seed_gives_other_images_and_another_table(cohort, tmp_path):
    simulate(tmp_path / "images.tar", tmp_path / "table.csv", subjects=SUBJECTS, seed=1, voxel_mm=4)
    for name in ("images.tar", "table.csv"):
        assert (tmp_path / name).read_bytes() != (cohort / name).read_bytes()


def test_a_subject_is_the_same_in_a_larger_cohort(cohort, tmp_path):
    simulate(tmp_path / "images.tar", tmp_path / "table.csv", subjects=SUBJECTS + 5, voxel_mm=4)
    with tarfile.open(cohort / "images.tar") as small, tarfile.open(tmp_path / "images.tar") as large:
        assert large.getnames()[:SUBJECTS] == small.getnames()
        assert len(large.getnames()) == SUBJECTS + 5
        for name in small.getnames():
            assert large.extractfile(name).read() == small.extractfile(name).read()


def test_archive_is_flat_with_one_image_per_subject_named_as_in_ixi(cohort):
    with tarfile.open(cohort / "images.tar") as tar:
        matches = [NAME.fullmatch(name) for name in tar.getnames()]
    assert all(matches)
    assert [int(match[1]) for match in matches] == list(range(1, SUBJECTS + 1))
    assert {match[2] for match in matches} == set(SITES)


def test_images_have_the_axes_voxels_and_type_of_a_release(images):
    for image in images.values():
        assert nib.aff2axcodes(image.affine) == ("P", "S", "R")
        assert np.allclose(image.header.get_zooms(), 4)
        assert image.get_data_dtype() == np.int16
        assert int(image.header["sform_code"]) > 0


def test_affine_is_right_so_that_the_average_head_is_the_template_the_right_way_up(images):
    """Left and right cannot be told apart: the template is symmetric."""
    heads = [nib.as_closest_canonical(image) for image in images.values()]
    assert {nib.aff2axcodes(head.affine) for head in heads} == {("R", "A", "S")}
    average = np.mean([head.get_fdata() for head in heads], axis=0)
    template = load_mni152_template(resolution=4)
    centred = nib.Nifti1Image(template.get_fdata(), from_matvec(np.eye(3), -BRAIN_CENTRE_MM) @ template.affine)
    expected = resample_from_to(centred, heads[0], order=1).get_fdata()

    def likeness(image):
        return np.corrcoef(image.ravel(), expected.ravel())[0, 1]

    assert likeness(average) > 0.85
    for axis in (1, 2):
        assert likeness(average) > likeness(np.flip(average, axis)) + 0.05


def test_brain_is_inside_the_field_of_view(images):
    for image in images.values():
        brain = np.asarray(image.dataobj) > 0
        assert 700 < brain.sum() * 4**3 / 1000 < 2800  # ml
        assert not any(np.take(brain, [0, -1], axis).any() for axis in range(3))


def test_every_image_and_the_archive_say_that_they_are_simulated(cohort, images):
    for image in images.values():
        assert image.header["descrip"].item().decode() == NOTE
    with tarfile.open(cohort / "images.tar") as tar:
        assert tar.pax_headers["comment"] == NOTE
    assert "simulated" in NOTE


@pytest.mark.parametrize("subjects", [SUBJECTS, 27])
def test_the_table_is_untidy_exactly_as_documented(subjects, tmp_path):
    simulate(tmp_path / "images.tar", tmp_path / "table.csv", subjects=subjects, voxel_mm=8)
    table = pd.read_csv(tmp_path / "table.csv")
    imaged, listed = set(read_images(tmp_path / "images.tar")), set(table["SIM_ID"])
    rows = table.groupby("SIM_ID")
    two_ages = rows["AGE"].max() > rows["AGE"].min()
    unmeasured = table[["HEIGHT", "WEIGHT"]].eq(0).all(axis=1).groupby(table["SIM_ID"])
    assert {
        "image without a row": len(imaged - listed),
        "row without an image": len(listed - imaged),
        "missing age": int(rows["AGE"].apply(lambda ages: ages.isna().any()).sum()),
        "two ages": int(two_ages.sum()),
        "twin row": int(((rows.size() == 2) & ~two_ages).sum()),
        "missing height and weight": int(unmeasured.all().sum()),
    } == UNTIDY
    assert len(table) == subjects - 1 + 2 + 1 + 3
    assert int((unmeasured.any() & ~unmeasured.all()).sum()) == UNTIDY["twin row"]
    assert not table["SIM_ID"].is_monotonic_increasing


def test_table_has_ixis_columns_and_plausible_values(table):
    assert list(table) == ["SIM_ID", "SEX_ID (1=m, 2=f)", "HEIGHT", "WEIGHT", "STUDY_DATE", "AGE"]
    assert set(table["SEX_ID (1=m, 2=f)"]) == {1, 2}
    assert table["AGE"].dropna().between(20, 91).all()
    assert table["HEIGHT"].where(table["HEIGHT"] > 0).dropna().between(130, 210).all()
    assert pd.to_datetime(table["STUDY_DATE"], format="%Y-%m-%d").notna().all()


def test_dark_csf_takes_a_growing_share_of_the_brain_with_age(images, table):
    ages = table.dropna(subset="AGE").drop_duplicates("SIM_ID", keep=False).set_index("SIM_ID")["AGE"]
    share = {}
    for number, image in images.items():
        brain = np.asarray(image.dataobj)[np.asarray(image.dataobj) > 0]
        share[number] = np.mean(brain < 0.5 * np.quantile(brain, 0.9))
    both = pd.concat([ages, pd.Series(share, name="share")], axis=1, join="inner")
    assert len(both) >= 12
    assert both["AGE"].corr(both["share"]) > 0.7


@pytest.mark.parametrize(("setting", "value"), [("subjects", 19), ("voxel_mm", 0.5), ("voxel_mm", float("nan")), ("seed", -1)])
def test_an_impossible_setting_is_the_users_error_and_leaves_no_file(setting, value, tmp_path):
    with pytest.raises(UserError, match=rf"{setting}.*{value}"):
        simulate(tmp_path / "images.tar", tmp_path / "table.csv", **{setting: value})
    assert not list(tmp_path.iterdir())


def of_varied_tissues(tmp_path, *, label_maps: bool) -> dict[str, nib.Nifti1Image]:
    archive = tmp_path / f"{label_maps}.tar"
    simulate(archive, subjects=SUBJECTS, voxel_mm=4, varied_tissues=True, label_maps=label_maps)
    with tarfile.open(archive) as tar:
        return {name[:6]: nib.Nifti1Image.from_bytes(gzip.decompress(tar.extractfile(name).read())) for name in tar.getnames()}


def test_varied_tissues_are_four_of_plausible_size_and_each_image_is_of_its_own_label_map(tmp_path):
    images, maps = (of_varied_tissues(tmp_path, label_maps=of_labels) for of_labels in (False, True))
    for subject, of_labels in maps.items():
        labels, image = np.asarray(of_labels.dataobj), np.asarray(images[subject].dataobj)
        assert np.array_equal(images[subject].affine, of_labels.affine)
        assert np.array_equal(image > 0, labels > 0)
        csf, grey, white, ventricles = np.bincount(labels.ravel(), minlength=5)[1:] * 4**3 / 1000
        assert (60 < csf < 600) and (700 < grey < 1450) and (350 < white < 1000) and (8 < ventricles < 150), subject
        assert image[labels == 1].mean() < image[labels == 2].mean() < image[labels == 3].mean()


def test_varied_tissues_count_thalamus_and_pallidum_as_grey_and_know_all_four_ventricles():
    def at(volume, *point):
        return volume[tuple(np.round(np.array(point) - load_template().origin_mm).astype(int))]

    tissues = load_tissues()
    for x in (-1, 1):
        for place in ((12 * x, -18, 7), (19 * x, -5, -1), (27 * x, 2, 2)):  # thalamus, pallidum, putamen
            assert at(tissues.shares[1], *place) > 0.5, place
        for place in ((24 * x, -20, 34), (22 * x, 38, 5), (23 * x, -18, 10)):  # centrum semiovale, frontal, internal capsule
            assert at(tissues.shares[2], *place) > 0.5, place
        assert at(tissues.ventricles, 9 * x, 14, 8)
    assert at(tissues.ventricles, 0, -20, -2)
    assert at(tissues.ventricles, 0, -46, -32)
    assert not at(tissues.ventricles, 0, -33, -26)  # the pons
    assert not at(tissues.ventricles, 0, 60, 0)
