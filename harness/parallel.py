"""One process pool for the work that is not the network's: decoding and drawing pictures."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

from harness.progress import Bar

Item = TypeVar("Item")
Result = TypeVar("Result")

POOL_PAYS_FROM = 64  # items; below, starting the workers costs more than they save
AHEAD = 16  # items in flight per worker: enough to keep it busy, few enough to bound the memory


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
    torch has started threads can hang. An exception in `function` is raised here, at its item.
    """
    with Bar(label, len(items), unit) as bar:
        if workers == 1 or len(items) < POOL_PAYS_FROM:
            for item in items:
                yield function(item)
                bar.advance()
            return
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
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
            finally:
                pool.shutdown(cancel_futures=True)
