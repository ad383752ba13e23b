"""One training on several GPUs of a machine, or on several processes of a CPU: who is in it, and what they agree on."""

import logging
import os
import signal
import sys
import tempfile
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mriflow.base.errors import UserError
from mriflow.training.device import choose_device
from mriflow.training.stop import LAUNCHER, REASONS, SIGNALS

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Team:
    """The processes of one training; a training by one process is a team of one.

    Attributes
    ----------
    device
        What this process computes on.
    rank, size
        Its number, and how many there are. Number 0 alone writes files.
    """

    device: torch.device
    rank: int = 0
    size: int = 1

    def agree(self, reason: str | None) -> str | None:
        """Return the most pressing reason to stop (or "save") of all processes; all call it at the same step."""
        if self.size == 1:
            return reason
        known = (None, "save", *REASONS)
        number = torch.tensor(known.index(reason))  # on the CPU: nobody waits for a GPU
        dist.all_reduce(number, dist.ReduceOp.MAX)
        return known[int(number)]

    def total(self, value: torch.Tensor) -> torch.Tensor:
        """Return the sum of a tensor over all processes."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def share(self, count: int) -> slice:
        """Return which of `count` things are this process's."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def join(self, part: torch.Tensor) -> torch.Tensor:
        """Return the parts of all processes, one below the other, in the order of their numbers."""
        if self.size == 1:
            return part
        parts: list[np.ndarray] = [np.empty(0)] * self.size
        dist.all_gather_object(parts, part.cpu().numpy())
        return torch.from_numpy(np.concatenate(parts)).to(part.device)

    def copy_first(self, tensors: Iterator[torch.Tensor]) -> None:
        """Give the tensors of process 0 to the others."""
        for tensor in tensors if self.size > 1 else ():
            dist.broadcast(tensor, 0)

    def wait(self) -> None:
        """Wait until all processes have come here."""
        if self.size > 1:
            dist.barrier()


def share(net: nn.Module, team: Team) -> DistributedDataParallel:
    """Return a network whose gradients are averaged over the processes."""
    # The layout of a 1x1x1 kernel is ambiguous; copying so small a gradient costs nothing.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    return DistributedDataParallel(net, [team.device] if team.device.type == "cuda" else None)


def is_worker() -> bool:
    """Return whether this is one of several processes that `launch` started."""
    return LAUNCHER in os.environ


@contextmanager
def join_team(gpus: int, allow_cpu: bool) -> Iterator[Team]:
    """Choose this process's device and, if it is one of several, meet the others."""
    if not is_worker():
        yield Team(choose_device(gpus, allow_cpu))
        return
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if rank:
        logging.getLogger().setLevel(logging.WARNING)
    device = choose_device(gpus, allow_cpu, rank)
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield Team(device, rank, size)
        dist.destroy_process_group()  # not after an error: NCCL would wait for processes that wait for this one
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise UserError(f"process {rank} of this training was left alone by another, which says why") from error


def launch(processes: int, arguments: Sequence[str]) -> None:
    """Run ``python -m mriflow.train`` with `arguments` in several processes, by torchrun's launcher, until all are done.

    The launcher starts each in a session of its own, where a signal to the job's process group does not reach it: signals are
    handed on from here. The processes save, and end together.

    Raises
    ------
    KeyboardInterrupt
        If they were asked to stop, or came to the deadline, and have saved.
    SystemExit
        If one of them failed; it has said why.
    UserError
        If one of them was killed.
    """
    import psutil
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch").setLevel(logging.CRITICAL)
    os.environ[LAUNCHER] = str(os.getpid())
    log.info("training with %d processes", processes)
    received = []

    def hand_on(number: int, _frame: object) -> None:
        received.append(number)
        workers = psutil.Process().children()
        if not workers:
            raise KeyboardInterrupt
        for worker in workers:
            worker.send_signal(number)

    before = {number: signal.signal(number, hand_on) for number in SIGNALS}
    with tempfile.TemporaryDirectory() as folder:
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="127.0.0.1",  # else it asks for the node's full name, which not every node can resolve
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
            signals_to_handle="SIGQUIT",
        )
        try:
            elastic_launch(config, sys.executable)("-m", "mriflow.train", *arguments)
        except ChildFailedError as error:
            codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
            if 130 in codes.values() or (received and all(code < 0 for code in codes.values())):
                raise KeyboardInterrupt from None
            # When one is gone the launcher ends the others by SIGTERM; those are not the cause.
            killed = {rank: -code for rank, code in codes.items() if code < 0 and -code != signal.SIGTERM}
            if killed:
                names = ", ".join(f"number {rank} by {signal.Signals(number).name}" for rank, number in killed.items())
                raise UserError(
                    f"of the {processes} processes of this training one was killed ({names}), perhaps for want of memory. "
                    "What was saved is kept: run the same command again to go on."
                ) from None
            raise SystemExit(1) from None
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
