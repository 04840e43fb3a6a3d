"""What a search over the settings of a trained head is made of: ranges, the list drawn from them, the choice.

Apart because it is what makes the search fair: nothing here knows a method, so that each gets the same list.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from harness.records import SearchBlock, TrialBlock

Best = Literal["max", "min"]
"""Which of the values on validation is the best."""

Configuration = Mapping[str, float]

Report = Callable[[int, int, float], None]
"""Hears of each validation: steps that are done, steps in all, the best value so far."""


def unheard(done: int, total: int, value: float) -> None:
    """The report of a fit that is not compared with others."""


class Range(NamedTuple):
    default: float
    low: float
    high: float  # between the two, evenly in the logarithm


@dataclass(frozen=True)
class Space:
    best: Best
    ranges: Mapping[str, Range]

    @property
    def default(self) -> Configuration:
        return {name: found.default for name, found in self.ranges.items()}

    def configurations(self, count: int, seed: int) -> list[Configuration]:
        """The default, then `count` - 1 that are drawn (random search: Bergstra & Bengio, JMLR 2012), rounded
        to three digits. A longer list begins with the shorter one."""
        rng = np.random.default_rng(seed)
        drawn = [
            {
                name: float(f"{math.exp(rng.uniform(math.log(low), math.log(high))):.3g}")
                for name, (_, low, high) in self.ranges.items()
            }
            for _ in range(count - 1)
        ]
        return [self.default, *drawn]

    def block(self, stopping: str, trials: Sequence[TrialBlock]) -> SearchBlock | None:
        """The record of a search, with its choice: of equals the first. None when every trial failed."""
        sign = 1 if self.best == "max" else -1
        values = [-math.inf if trial.value is None else sign * trial.value for trial in trials]
        if max(values) == -math.inf:
            return None
        return SearchBlock(
            space={name: (found.low, found.high) for name, found in self.ranges.items()},
            best=self.best,
            stopping=stopping,
            trials=tuple(trials),
            chosen=int(np.argmax(values)),
        )
