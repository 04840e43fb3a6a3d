"""Every method is given the same list, and what validation liked best is kept."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from harness.contracts import Kind
from harness.evaluate import bench as benches
from harness.evaluate.search import Range, Space
from harness.grid import FROZEN
from harness.records import TrialBlock
from tests.harness.evaluate import parts

SPACE = Space("max", {"rate": Range(0.01, 1e-4, 1.0), "decay": Range(0.1, 0.1, 10.0)})
TRAINED = sorted(set(get_args(Kind)) - FROZEN)


def trial(value: float | None) -> TrialBlock:
    return TrialBlock(settings={"rate": 1.0}, steps=1, value=value, ended="trained")


@pytest.mark.parametrize("kind", TRAINED)
def test_every_trained_kind_says_what_can_be_searched(kind: Kind) -> None:
    space = benches.tunable(kind, parts.TASK).SPACE
    assert space.ranges
    for default, low, high in space.ranges.values():
        assert 0 < low <= default <= high and low < high


def test_the_first_is_the_default_and_a_longer_list_begins_with_the_shorter() -> None:
    eight = SPACE.configurations(8, seed=3)
    assert eight[0] == {"rate": 0.01, "decay": 0.1}
    assert SPACE.configurations(4, seed=3) == eight[:4]
    assert SPACE.configurations(8, seed=4)[1:] != eight[1:]


def test_they_are_even_in_the_logarithm() -> None:
    drawn = SPACE.configurations(4001, seed=0)[1:]
    rates = np.log10([found["rate"] for found in drawn])
    decays = np.log10([found["decay"] for found in drawn])
    assert np.quantile(rates, [0, 0.25, 0.5, 0.75, 1]) == pytest.approx([-4, -3, -2, -1, 0], abs=0.15)
    assert np.quantile(decays, [0, 0.25, 0.5, 0.75, 1]) == pytest.approx([-1, -0.5, 0, 0.5, 1], abs=0.08)
    assert abs(np.corrcoef(rates, decays)[0, 1]) < 0.06


@pytest.mark.parametrize(
    ("best", "values", "chosen"),
    [
        ("max", [0.5, 0.7, 0.6, 0.7], 1),
        ("min", [0.5, 0.7, 0.3, 0.3], 2),
        ("max", [None, -2.0, None, -1.0], 3),
        ("min", [None, 2.0, None, 1.0], 3),
    ],
)
def test_the_best_is_chosen_and_of_equals_the_first(
    best: str, values: list[float | None], chosen: int
) -> None:
    block = Space(best, SPACE.ranges).block("rule", [trial(value) for value in values])  # type: ignore[arg-type]
    assert block is not None and block.chosen == chosen
    assert block.space == {"rate": (1e-4, 1.0), "decay": (0.1, 10.0)}


def test_of_failures_none_is_chosen() -> None:
    assert SPACE.block("rule", [trial(None), trial(None)]) is None
