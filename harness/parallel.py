"""One process pool for the work that is not the network's: drawing, decoding, reading, resampling."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from typing import TypeVar

from harness.errors import HarnessError, UsageError
from harness.progress import Bar

Item = TypeVar("Item")
Result = TypeVar("Result")

WORKERS = "HARNESS_WORKERS"  # the variable that says how many processes there may be
POOL_PAYS_FROM = 64  # items; below, starting the workers costs more than they save
AHEAD = 16  # items in flight per worker: enough to keep it busy, few enough to bound the memory


def workers() -> int:
    """How many processes work may be spread over: HARNESS_WORKERS, else as many as there are cores that this
    process may use (macOS cannot say; there, all). Raises UsageError for what is no number of processes."""
    if asked := os.environ.get(WORKERS, ""):
        if not (asked.isdecimal() and int(asked) > 0):
            raise UsageError(f"{WORKERS} is {asked!r}. Set it to a number of processes, 1 or more")
        return int(asked)
    return cores()


def cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parallel_map(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int,
    label: str,
    unit: str = "images",
) -> Iterator[Result]:
    """Yields `function(item)` in the order of `items`, with a progress bar.

    `function` and `items` must pickle. Workers are spawned, not forked: a fork of a process in which
    torch has started threads can hang. An exception in `function` is raised here, at its item; a worker
    that was killed is a HarnessError. Workers end with the iteration, and with this process.
    """
    with Bar(label, len(items), unit) as bar:
        if workers == 1 or len(items) < POOL_PAYS_FROM:
            for item in items:
                yield function(item)
                bar.advance()
            return
        pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=_begin)
        pending: deque[Future[Result]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) >= AHEAD * workers:
                    yield pending.popleft().result()
                    bar.advance()
            while pending:
                yield pending.popleft().result()
                bar.advance()
        except BrokenProcessPool as error:
            raise HarnessError(
                f"{label}: a worker process was killed, most likely because the memory ran out. Run again "
                "with fewer of them: HARNESS_WORKERS=1"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """Makes a worker end when its parent does, even by kill -9, leave Ctrl-C to it, and keep to one core: its
    libraries, not loaded yet, would start threads on the others' cores too."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
