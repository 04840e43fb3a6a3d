"""Results in order, errors at their item, memory bounded; and no worker outlives the work."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.parallel import AHEAD, POOL_PAYS_FROM, parallel_map

MANY = 3 * POOL_PAYS_FROM  # enough for the pool to be used


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_order_of_the_items(workers: int) -> None:
    items = list(range(MANY))
    results = list(parallel_map(math.sqrt, items, workers=workers, label="roots"))
    assert results == [math.sqrt(item) for item in items]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_is_raised_at_its_item(workers: int) -> None:
    seen = []
    with pytest.raises(ValueError, match=r"math domain|nonnegative"):
        for value in parallel_map(math.sqrt, [4.0] * 70 + [-1.0], workers=workers, label="roots"):
            seen.append(value)
    assert seen == [2.0] * 70


def threads_of_torch(_: int) -> int:
    import torch

    return torch.get_num_threads()


@pytest.mark.slow
def test_a_worker_keeps_to_one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """What its libraries start without being asked, cores of the others included."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert set(parallel_map(threads_of_torch, range(MANY), workers=2, label="threads")) == {1}


class Counted(Sequence[float]):
    """Items that know how many of them were asked for."""

    def __init__(self, length: int) -> None:
        self.length, self.asked = length, 0

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> float:  # type: ignore[override]
        if index >= self.length:
            raise IndexError(index)
        self.asked += 1
        return float(index)


def test_only_a_few_items_are_in_flight() -> None:
    items = Counted(10_000)
    results = parallel_map(math.sqrt, items, workers=2, label="roots")
    assert next(results) == 0.0
    assert items.asked <= 2 * AHEAD
    results.close()  # type: ignore[attr-defined]
    assert items.asked <= 2 * AHEAD


# --- processes that end ------------------------------------------------------------------------------


def worker(_: int) -> int:
    time.sleep(0.01)
    return os.getpid()


def killed_at_100(item: int) -> int:
    if item == 100:
        os.kill(os.getpid(), signal.SIGKILL)  # as the system does when memory runs out
    return item


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"  # nobody may be there to bury an orphan


def test_a_killed_worker_is_an_error_with_a_cure() -> None:
    seen = []
    with pytest.raises(HarnessError, match=r"roots: a worker process was killed.*HARNESS_WORKERS=1"):
        for value in parallel_map(killed_at_100, range(1000), workers=2, label="roots"):
            seen.append(value)
    assert seen == list(range(len(seen)))
    assert multiprocessing.active_children() == []


def test_an_abandoned_map_ends_its_workers() -> None:
    results = parallel_map(worker, range(1000), workers=2, label="pids")
    pid = next(results)
    assert is_alive(pid)
    del results
    assert not is_alive(pid)
    assert multiprocessing.active_children() == []


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc to look for processes in")
def test_workers_do_not_outlive_a_parent_that_is_killed() -> None:
    program = (
        "from harness.parallel import parallel_map\nfrom tests.harness.test_parallel import worker\n"
        "for pid in parallel_map(worker, range(100_000), workers=2, label='pids'):\n"
        "    print(pid, flush=True)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        pids = {int(parent.stdout.readline()) for _ in range(200)}
        assert len(pids) == 2 and all(map(is_alive, pids))
        parent.kill()
    end = time.monotonic() + 10
    while any(map(is_alive, pids)) and time.monotonic() < end:
        time.sleep(0.05)
    survivors = list(filter(is_alive, pids))
    for pid in survivors:
        os.kill(pid, signal.SIGKILL)
    assert not survivors


@pytest.mark.slow
def test_workers_leave_ctrl_c_to_their_parent() -> None:
    """A terminal sends it to all of them, and a traceback of each would hide what the parent says."""
    program = (
        "import os, signal, time\nfrom harness.parallel import parallel_map\n"
        "from tests.harness.test_parallel import worker\n"
        "results = parallel_map(worker, range(64), workers=2, label='pids')\n"
        "try:\n    for _ in range(64):\n        next(results)\n"
        "    time.sleep(0.1)  # the workers wait for more\n    os.killpg(0, signal.SIGINT)\n"
        "except KeyboardInterrupt:\n    print('stopped')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, start_new_session=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("stopped\n", "")
