"""How far label maps agree, voxel by voxel: the loss of a segmentation, and the counts that Dice is made of."""

import torch
import torch.nn.functional as F


def dice_and_cross_entropy(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the loss of each scan, shape (scans, 1): one minus the mean Dice of the classes, plus the cross-entropy.

    Dice is that of probabilities (Milletari et al. 2016), by MONAI, without the background, which would count as a class.

    Parameters
    ----------
    outputs
        Of the network, shape (scans, 1 + classes, x, y, z), background first.
    labels
        The number of each voxel's class, 0 for the background; uint8, shape (scans, x, y, z).
    """
    from monai.losses import DiceLoss

    overlap = DiceLoss(include_background=False, to_onehot_y=True, softmax=True, reduction="none")
    dice = overlap(outputs, labels[:, None]).flatten(1).mean(1)
    return (dice + F.cross_entropy(outputs, labels.long(), reduction="none").flatten(1).mean(1))[:, None]


def counts(found: torch.Tensor, labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Return of each class in how many voxels both maps have it, and each has it: float32, shape (scans, 3 * classes).

    >>> counts(torch.tensor([[1, 1, 2, 0]]), torch.tensor([[1, 2, 2, 0]]), classes=2)
    tensor([[1., 1., 2., 1., 1., 2.]])
    """
    ones = torch.arange(1, classes + 1, device=found.device)[:, None]
    a, b = (one.flatten(1)[:, None] == ones for one in (found, labels))  # (scans, classes, voxels)
    return torch.cat([(a & b).sum(2), a.sum(2), b.sum(2)], dim=1).float()


def dice_of(counted: torch.Tensor) -> torch.Tensor:
    """Return the Dice overlap of each class from `counts`, shape (scans, classes); not a number where the true map lacks it."""
    both, one, other = counted.chunk(3, dim=1)
    return torch.where(other > 0, 2 * both / (one + other), torch.nan)
