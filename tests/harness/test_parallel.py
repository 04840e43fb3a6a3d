"""Results in order, errors at their item, memory bounded; in one process and in several."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

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
