"""What an epoch draws at random, and which process takes which scans of a batch.

All of it follows from seed, epoch and step, so that a training that is resumed draws what it would have drawn.
"""

import numpy as np
import torch

from mriflow.training.distributed import Team
from mriflow.training.objectives import shares


def places_of_process(steps: int, pieces: int, micro_batch: int, team: Team) -> torch.Tensor:
    """Return which places of an epoch's order a process takes, shape (steps, pieces, micro_batch).

    Of each piece of a batch process after process takes its share: batch norm is over a piece, however many share it.

    >>> places_of_process(steps=1, pieces=2, micro_batch=2, team=Team(torch.device("cpu"), rank=1, size=2))
    tensor([[[2, 3],
             [6, 7]]])
    """
    places = torch.arange(steps * pieces * team.size * micro_batch)
    return places.view(steps, pieces, team.size, micro_batch)[:, :, team.rank]


def shares_of_steps(weights: torch.Tensor, steps: int) -> torch.Tensor:
    """Return weights of an epoch's scans in order, shape (scans, targets), that sum to 1 over the scans of each step.

    So that a step's loss is the weighted mean over its whole batch, in however many pieces it is computed.

    >>> shares_of_steps(torch.tensor([[1.0], [3.0], [1.0], [1.0]]), steps=2).flatten()
    tensor([0.2500, 0.7500, 0.5000, 0.5000])
    """
    return torch.cat([shares(of_step) for of_step in weights.chunk(steps)])


def seed_of(*numbers: int) -> int:
    """Return a seed that depends on all `numbers`."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])


def generator(*numbers: int) -> torch.Generator:
    """Return a random generator on the CPU that depends on all `numbers`."""
    return torch.Generator().manual_seed(seed_of(*numbers))
