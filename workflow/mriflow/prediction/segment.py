"""Label maps of scans: by networks, and by what needs none."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from nilearn.datasets import load_mni152_gm_template, load_mni152_wm_template

from mriflow.images.registration import ants_image, resample, template_on_grid
from mriflow.images.tissues import TISSUES, probabilities
from mriflow.prediction.ensemble import Trained
from mriflow.training.forward import mirrored, outputs_of
from mriflow.training.loader import Batch, Shards, as_float
from mriflow.training.patches import over_windows

VENTRICLES = "ventricles"  # full of CSF: told from other CSF by their place alone


@torch.inference_mode()
def probabilities_of(networks: Sequence[Trained], volume: np.ndarray, device: torch.device, tta: str) -> np.ndarray:
    """Return the mean probability of background and each class over networks and, with ``mirror``, the mirror image.

    Parameters
    ----------
    volume
        The channels of a scan, uint8, shape (channels, x, y, z).

    Returns
    -------
    float32, shape (1 + classes, x, y, z).
    """
    images = as_float(torch.from_numpy(np.ascontiguousarray(volume))[None].to(device))
    none = torch.zeros(1, 0, device=device)
    total: Any = 0
    for network in networks:
        network.net.eval()
        whole = over_windows(network.net, network.shape if tuple(network.shape) != volume.shape[1:] else None)
        total = total + outputs_of(whole, Batch(images, none, none)).softmax(1)
        if tta == "mirror":
            total = total + mirrored(outputs_of(whole, Batch(mirrored(images), none, none)).softmax(1))
    return (total[0] / (len(networks) * (2 if tta == "mirror" else 1))).cpu().numpy()


def atlas_of(shards: Shards, ids: Sequence[str], classes: int) -> np.ndarray:
    """Return how often each voxel is of background and each class in some scans, float32, shape (1 + classes, x, y, z)."""
    total = np.zeros((1 + classes, *shards.shape), np.float32)
    for scan in ids:
        _, labels = shards.maps_of(scan)
        for number in range(1 + classes):
            total[number] += labels == number
    return total / max(1, len(ids))


@cache
def template_tissues(voxel_mm: float, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Return grey and white matter of the ICBM152 template (Fonov et al. 2011), and CSF, the rest of its brain, on a grid."""
    brightness, grid = template_on_grid(voxel_mm, shape)
    maps = {}
    for name, image in (("gm", load_mni152_gm_template(resolution=1)), ("wm", load_mni152_wm_template(resolution=1))):
        maps[name] = resample(ants_image(np.asarray(image.dataobj, np.float32), image.affine), grid, []).numpy()
    maps["csf"] = np.where(brightness > 0, np.clip(1 - maps["gm"] - maps["wm"], 0, 1), 0)
    return maps


def by_template(image: np.ndarray, classes: Sequence[str], voxel_mm: float) -> np.ndarray:
    """Return the label map of the template's tissues in a scan's brain: what the affine registration alone knows."""
    maps = template_tissues(voxel_mm, image.shape)
    return named_tissues(np.stack([maps[name] for name in TISSUES]), image > 0, classes)


def by_mixture(image: np.ndarray, classes: Sequence[str], atlas: np.ndarray) -> np.ndarray:
    """Return the label map of a mixture of three Gaussians (`mriflow.images.tissues`), fitted to the scan's brightness.

    Of its CSF, that is called ventricles which in the `atlas` is rather these than other CSF.
    """
    inside = image > 0
    found = np.zeros((3, *image.shape), np.float32)
    found[:, inside] = probabilities(image[inside].astype(np.float32)).T
    labels = named_tissues(found, inside, classes)
    if VENTRICLES in classes and "csf" in classes:
        ventricles, csf = (1 + list(classes).index(name) for name in (VENTRICLES, "csf"))
        labels[(labels == csf) & (atlas[ventricles] > atlas[csf])] = ventricles
    return labels


def named_tissues(maps: np.ndarray, inside: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Return the label map of the likeliest of csf, gm and wm, maps of shape (3, x, y, z), in the brain; uint8."""
    number_of = np.array([1 + list(classes).index(name) if name in classes else 0 for name in TISSUES], np.uint8)
    return np.where(inside & (maps.max(0) > 0), number_of[maps.argmax(0)], 0).astype(np.uint8)
