"""What an epoch draws at random, and which process takes which scans of a batch.

All of it follows from seed, epoch and step, so that a training that is resumed draws what it would have drawn.
"""

import numpy as np
import torch

from mriflow.training.distributed import Team


def places_of_process(steps: int, pieces: int, micro_batch: int, team: Team) -> torch.Tensor:
    """Return which places of an epoch's order a process takes, shape (steps, pieces, micro_batch).

    Of each piece of a batch process after process takes its share: batch norm is over a piece, however many share it.

    >>> places_of_process(steps=1, pieces=2, micro_batch=2, team=Team(torch.device("cpu"), rank=1, size=2))
    tensor([[[2, 3],
             [6, 7]]])
    """
    places = torch.arange(steps * pieces * team.size * micro_batch)
    return places.view(steps, pieces, team.size, micro_batch)[:, :, team.rank]


def loss_factors(weights: torch.Tensor, steps: int, pieces: int, micro_batch: int, team: Team) -> torch.Tensor:
    """Return by what the mean loss of each piece is multiplied, so that a step's gradient is that of its whole batch.

    Gradients are averaged over the processes and summed over the pieces.

    Parameters
    ----------
    weights
        How much each scan of the epoch's order counts, shape (steps * pieces * team.size * micro_batch,).

    Returns
    -------
    Shape (steps, pieces).
    """
    weight_sums = weights.view(steps, pieces * team.size, micro_batch).sum(2)  # (steps, pieces * processes)
    shares = weight_sums / weight_sums.sum(1, keepdim=True)  # (steps, pieces * processes)
    return shares.view(steps, pieces, team.size)[:, :, team.rank] * team.size  # (steps, pieces)


def seed_of(*numbers: int) -> int:
    """Return a seed that depends on all `numbers`."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def generator(*numbers: int) -> torch.Generator:
    """Return a random generator on the CPU that depends on all `numbers`."""
    return torch.Generator().manual_seed(seed_of(*numbers))
