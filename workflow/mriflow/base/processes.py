"""Do the same to many things in several processes at once, and keep the memory that a process frees."""

import ctypes
import logging
import multiprocessing
import os
import platform
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from typing import Any

from mriflow.base.errors import UserError


@contextmanager
def workers(processes: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """Give a `map` whose calls run in so many processes (in this one if 1) and whose results come in the order of the calls.

    What is called has to be a function of a module: the processes start afresh, for forked ones can hang in torch and ITK.
    They end with the block, however it ends, and with this process, even if it is killed.

    Raises
    ------
    UserError
        If one of the processes was killed, or could not start. Any other error of theirs comes as it is.
    """
    if processes == 1:
        yield map
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=begin)
    try:
        yield partial(results_in_order, pool)
    except BaseException as error:
        for child in multiprocessing.active_children():
            child.terminate()
        if isinstance(error, BrokenProcessPool):
            raise UserError(
                f"one of {processes} processes was killed or could not start, most likely for lack of memory. Give the job "
                "more (`mem_mb` of the rule) or fewer threads; what was finished is kept."
            ) from error
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def results_in_order(pool: ProcessPoolExecutor, call: Callable[..., Any], *arguments: Iterable[Any]) -> Iterator[Any]:
    """Start all calls at once, as `map` of the pool does, and give their results in turn.

    A signal that comes just before a wait without end begins is only heard when the wait ends, so each wait is short.
    """
    futures = [pool.submit(call, *each) for each in zip(*arguments, strict=False)]

    def results() -> Iterator[Any]:
        for future in futures:
            while not wait([future], timeout=1).done:
                pass
            yield future.result()

    return results()


def begin() -> None:
    """Prepare a process for work: it leaves Ctrl-C to the one that started it, and ends if that is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
    """Wait until the process that started this one is gone, and end."""
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
    os._exit(1)


def keep_freed_memory() -> None:
    """Let this process keep the memory it frees, where its C library is glibc, which gives large blocks back to the system.

    A network asks for the same blocks in every step, and the system has to empty each of their pages again. Kept, a step takes
    less time, by a tenth to a third, and the process more memory. Source: mallopt(3).
    """
    if platform.libc_ver()[0] == "glibc":
        trim_threshold, mmap_max, never = -1, -4, -1
        ctypes.CDLL(None).mallopt(trim_threshold, never)
        ctypes.CDLL(None).mallopt(mmap_max, 0)
