"""Areas and overlaps on the runs, against painting the masks of the same outlines with the fastest brush."""

from __future__ import annotations

import time

import numpy as np
from pytest_benchmark.fixture import BenchmarkFixture

from tasks import _rle

SIDE = 1024  # as the official pictures


def crescent(shift: int) -> _rle.Runs:
    """190 runs, one per column, as a real outline has."""
    y, x = np.mgrid[:SIDE, :SIDE]
    disc = (y - 400) ** 2 + (x - 300 - shift) ** 2
    return _rle.encode((disc < 95**2) & ((y - 440) ** 2 + (x - 300 - shift) ** 2 > 80**2))


def test_ten_times_faster_than_painting(benchmark: BenchmarkFixture) -> None:
    pairs = [(crescent(shift), crescent(shift + 20)) for shift in range(0, 100, 5)]

    def counted() -> list[tuple[int, int]]:
        return [(_rle.area(one), _rle.overlap(one, other)) for one, other in pairs]

    def painted() -> list[tuple[int, int]]:
        masks = [[_rle.decode(runs, SIDE, SIDE) for runs in pair] for pair in pairs]
        return [(int(one.sum()), int((one & other).sum())) for one, other in masks]

    assert counted() == painted()
    start = time.perf_counter()
    painted()
    painting = time.perf_counter() - start
    benchmark(counted)
    ratio = painting / benchmark.stats.stats.median
    benchmark.extra_info["times faster than painting"] = round(ratio)
    assert ratio > 10
