"""The brain mask is that of the head, however much air is around it and whatever that air is."""

import dataclasses

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from conftest import shared
from mriflow.images.mask import brain_mask, head_box, varied_box
from mriflow.images.nifti import Scan, load_scan
from mriflow.simulation.brain import load_template, make_image
from mriflow.simulation.people import draw_person


@pytest.fixture(scope="module")
def simulated_head():
    """A brain of the demo cohort, with skull and scalp drawn around it."""
    rng = np.random.default_rng(0)
    image = nib.as_closest_canonical(make_image(draw_person(1, rng), load_template(), 2.0, rng))
    data = np.asarray(image.dataobj, np.float32)
    away = ndimage.distance_transform_edt(data == 0, sampling=2.0)  # mm
    scalp = (away > 6) & (away < 12)
    data[scalp] = 0.8 * np.percentile(data[data > 0], 90)
    return Scan(data, image.affine, 0.008, in_mni=False)


@pytest.fixture(scope="module")
def real_head():
    return load_scan(shared("ixi-hh-2mm") / "t1/IXI012-HH-1211_T1.nii.gz")


def air(shape, level, noise, seed=0):
    """Return the brightness of air: a constant, or with noise as scanners make it."""
    return level + np.hypot(*np.random.default_rng(seed).normal(0, noise, (2, *shape))) if noise else np.full(shape, level)


def padded(scan, widths, level=0.0, noise=0.0):
    """Return a scan with more air around it, so many voxels before and behind along each axis."""
    around = air([size + sum(width) for size, width in zip(scan.data.shape, widths, strict=True)], level, noise)
    inner = tuple(slice(before, before + size) for (before, _), size in zip(widths, scan.data.shape, strict=True))
    around[inner] = scan.data
    affine = scan.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ [before for before, _ in widths]
    return dataclasses.replace(scan, data=around.astype(np.float32), affine=affine), inner


def agree(one, other):
    dice = 2 * (one & other).sum() / (one.sum() + other.sum())
    return dice >= 0.98 and abs(other.sum() / one.sum() - 1) <= 0.02


PADDED = {
    "empty": ([(40, 40), (40, 40), (20, 20)], 0.0, 0.0),
    "constant, not 0, on one side": ([(0, 31), (0, 0), (57, 0)], 0.4, 0.0),
    "noise": ([(33, 30), (21, 40), (37, 18)], 0.0, 0.02),
}


@pytest.mark.parametrize("head", ["real_head", pytest.param("simulated_head", marks=pytest.mark.long)])
def test_mask_does_not_depend_on_the_air_around_a_head(head, request):
    scan = request.getfixturevalue(head)
    bright = np.percentile(scan.data, 99)
    mask = brain_mask(scan)
    for name, (widths, level, noise) in PADDED.items():
        more, inner = padded(scan, widths, level * bright, noise * bright)
        found = brain_mask(more)
        assert agree(mask, found[inner]) and found.sum() == found[inner].sum(), name
    box = head_box(scan)
    cropped = dataclasses.replace(scan, data=np.ascontiguousarray(scan.data[box]))
    whole = np.zeros_like(mask)
    whole[box] = brain_mask(cropped)
    assert agree(mask, whole), "without air"


def test_padding_around_padding_of_another_value_goes_whole():
    inner = np.arange(27.0).reshape(3, 3, 3)
    around = np.pad(np.pad(inner, 2, constant_values=7), ((0, 3), (1, 0), (2, 2)), constant_values=9)
    assert np.array_equal(around[varied_box(around)], inner)
    one_after_another = np.pad(np.pad(inner, ((2, 0), (0, 0), (0, 0))), ((0, 0), (0, 4), (0, 0)), constant_values=9)
    assert np.array_equal(one_after_another[varied_box(one_after_another)], inner)
    slope = np.indices((3, 3, 3))[0]
    assert slope[varied_box(slope)].size, "of an image of constant planes something is left"
