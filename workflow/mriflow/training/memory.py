"""Which batch fits into memory."""

from typing import Any

from mriflow.base.errors import UserError

# Addresses, not memory, given up to try what fits when there are none left: oneDNN's code for another batch takes some.
RESERVE_BYTES = 128 * 2**20


def batch_sizes(settings: dict[str, Any], scans: int, processes: int) -> tuple[int, int]:
    """Return how many scans a step takes, and how many of them go through the network at once in each process."""
    parts = settings["accumulate"] * processes
    if settings["batch_size"] % parts or settings["batch_size"] // parts < 1:
        raise UserError(
            f"`batch_size: {settings['batch_size']}` of the training block cannot be shared by {processes} process(es) in "
            f"{settings['accumulate']} part(s) each (`accumulate`); expected a multiple of {parts}."
        )
    batch = min(settings["batch_size"], scans // parts * parts)
    if not batch:
        raise UserError(f"{scans} training scans are too few for {parts} parts of a batch; train with fewer GPUs.")
    return batch, batch // parts
