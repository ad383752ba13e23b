"""Scans as a worse scanner, a worse registration or a person who moved would have made them, in five strengths.

What happens to a scan follows from its id alone: a stronger change is the same one, stronger.
"""

import zlib
from typing import NamedTuple

import numpy as np
import torch
from monai.transforms import AdjustContrast, GaussianSmooth, RandBiasField, RandRicianNoise
from scipy import ndimage
from scipy.spatial.transform import Rotation

from mriflow.training.augment import resample
from mriflow.training.synthesis import thick

FWHM = np.sqrt(8 * np.log(2))  # full width at half maximum of a Gaussian, in standard deviations


class Kind(NamedTuple):
    """A kind of change: what its strength is, in which unit, and the five strengths."""

    strength: str
    unit: str
    strengths: tuple[float, ...]


KINDS = {
    "noise": Kind("standard deviation, of intensities from 0 to 1", "", (0.02, 0.05, 0.1, 0.15, 0.2)),
    "bias field": Kind("standard deviation over the brain", "%", (5, 10, 20, 30, 40)),
    "contrast": Kind("exponent of the intensities, or 1 over it", "", (1.1, 1.25, 1.5, 1.75, 2)),
    "blur": Kind("full width at half maximum", "mm", (2, 4, 6, 8, 12)),
    "shift": Kind("distance", "mm", (1, 2, 4, 8, 12)),
    "rotation": Kind("angle", "degrees", (1, 2, 5, 10, 15)),
}
OF_INTENSITIES = ("noise", "bias field", "contrast", "inverted contrast")  # maps of tissues have none: the image alone changes
# Of a segmentation, whose truth does not move with the scan: other contrasts and slices instead of shifts and rotations.
OF_SEGMENTATION = {
    **{name: KINDS[name] for name in ("noise", "bias field", "contrast", "blur")},
    "inverted contrast": Kind("all of it", "", (1,)),
    "thick slices": Kind("thickness, along the body's axis", "mm", (3, 4, 5, 6, 8)),
}


def strengths(name: str, kind: Kind, voxel_mm: float) -> tuple[float, ...]:
    """Return the strengths of a kind that change a scan on a grid: slices no thicker than its voxels are there already."""
    return tuple(one for one in kind.strengths if name != "thick slices" or one > voxel_mm)


def perturb(scan: torch.Tensor, kind: str, strength: float, voxel_mm: float, image: int | None, name: str) -> torch.Tensor:
    """Return a changed scan.

    Parameters
    ----------
    scan
        float32 between 0 (around the brain) and 1, shape (channels, x, y, z), on the CPU.
    kind, strength
        One of `KINDS` or `OF_SEGMENTATION`, and how strong, in its unit.
    voxel_mm
        Edge of a voxel, mm.
    image
        The channel with intensities, None if there is none.
    name
        The scan's id, from which direction, sign and noise follow.
    """
    seed = zlib.crc32(f"{kind} {name}".encode())
    rng = np.random.default_rng(seed)
    if kind in OF_INTENSITIES:
        if image is None:
            return scan
        changed = scan.clone()
        changed[image] = other_intensities(scan[image], kind, strength, rng, seed)
        return changed
    if kind == "blur":
        inside = (scan > 0).any(0)
        return torch.as_tensor(GaussianSmooth(float(strength / FWHM / voxel_mm))(scan)).clamp(0, 1) * inside
    if kind == "thick slices":
        slices = torch.tensor([[1.0, 1.0, strength / voxel_mm]] * len(scan))
        return thick(scan, slices).clamp(0, 1) * (scan > 0).any(0)
    direction = rng.standard_normal(3)
    direction /= np.linalg.norm(direction)
    if kind == "shift":
        return shifted(scan, direction * strength / voxel_mm)
    turn = Rotation.from_rotvec(direction * strength, degrees=True).as_matrix()
    return resample(scan[None], torch.tensor(turn[None], dtype=torch.float32))[0]


def other_intensities(image: torch.Tensor, kind: str, strength: float, rng: np.random.Generator, seed: int) -> torch.Tensor:
    """Return an image, shape (x, y, z), with noise, a bias field or another contrast; it stays 0 around the brain."""
    inside = image > 0
    if kind == "noise":
        rician = RandRicianNoise(prob=1, std=strength, sample_std=False)
        rician.set_random_state(seed)
        changed = torch.as_tensor(rician(image[None]))[0]
    elif kind == "bias field":
        bias = RandBiasField(prob=1, coeff_range=(-1, 1))
        bias.set_random_state(seed)
        gain = torch.as_tensor(bias(torch.ones(1, *image.shape)))[0].log()
        # MONAI gives a range of coefficients; what can be told of a scanner is how much the brightness varies.
        changed = image * ((gain - gain[inside].mean()) / gain[inside].std() * (strength / 100)).exp()
    elif kind == "inverted contrast":
        changed = image[inside].min() + image[inside].max() - image
    else:
        gamma = strength if rng.random() < 0.5 else 1 / strength
        changed = torch.as_tensor(AdjustContrast(gamma)(image[None]))[0]
    return changed.clamp(0, 1) * inside


def shifted(scan: torch.Tensor, voxels: np.ndarray) -> torch.Tensor:
    """Return a scan shifted by parts of voxels, too; in Fourier space, for interpolation would blur it as well."""
    inside = ndimage.shift((scan > 0).any(0).numpy().astype(np.float32), voxels, order=1) > 0.5
    moved = [np.fft.ifftn(ndimage.fourier_shift(np.fft.fftn(channel), voxels)).real for channel in scan.numpy()]
    return torch.tensor(np.clip(np.stack(moved), 0, 1) * inside, dtype=torch.float32)
