"""How sure a number is: bootstrap intervals that resample persons, and seeds where there are several.

Apart because intervals are computed twice, by the run that scored the images and later from stored
predictions, and both must be the same. Persons are resampled, not images: pictures of one person are alike,
and counting them as independent makes every interval too narrow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from harness.errors import EmptyClass
from harness.metrics.score import Score

LEVEL = 0.95
BLOCK = 2**17  # weights held at once: 1 MiB, about a core's cache


class Interval(NamedTuple):
    value: float
    low: float
    high: float


class Bootstrap(NamedTuple):
    metrics: dict[str, Interval]
    undefined: int  # replicates in which a metric was undefined; they enter that metric's interval not at all
    replicates: int
    level: float


def person_bootstrap(
    score: Score, persons: np.ndarray, *, replicates: int, seed: int, level: float = LEVEL
) -> Bootstrap:
    """Each metric of `score` with its percentile interval (Efron & Tibshirani 1993, chapter 13).

    `persons` [N] ids of any sortable type. Each replicate draws as many persons as there are, with
    replacement; an image weighs as often as its person was drawn, which gives exactly the metric of the
    resampled set. Raises EmptyClass when a metric is undefined, in the data or in every replicate.
    """
    values = score(np.ones((len(persons), 1)))[:, 0]
    (draws,) = replicates_of([score], persons, replicates, np.random.default_rng(seed))
    return Bootstrap(
        {
            name: _interval(name, float(value), draw, level)
            for name, value, draw in zip(score.names, values, draws, strict=True)
        },
        int(np.isnan(draws).any(axis=0).sum()),
        replicates,
        level,
    )


def two_level_interval(
    scores: Sequence[Score],
    persons: np.ndarray,
    metric: str,
    *,
    replicates: int,
    seed: int,
    level: float = LEVEL,
) -> Interval:
    """The mean over runs of one metric, with an interval over runs and test persons together.

    `scores` holds one cell per seed, all of the same N test images in the same order, `persons` [N]. A
    replicate draws persons once for all runs, which keeps the pairing, and S - 1 of the S runs with
    replacement: drawing S would understate the variance of so small a sample by the factor (S - 1) / S
    (Rao & Wu, JASA 1988). A single run is kept as it is, so that its interval covers persons only. The
    spread of few seeds is itself poorly known, and no resampling of them reaches beyond the best and the
    worst: with three seeds that differ more than the persons do, the interval covers less than its level.
    """
    rng = np.random.default_rng(seed)
    row = [score.names.index(metric) for score in scores]
    draws = replicates_of(scores, persons, replicates, rng)
    of_runs = np.stack([draw[k] for draw, k in zip(draws, row, strict=True)])  # [S, R]
    drawn = rng.integers(len(scores), size=(max(len(scores) - 1, 1), replicates))
    equal = np.ones((len(persons), 1))
    value = float(np.mean([score(equal)[k, 0] for score, k in zip(scores, row, strict=True)]))
    return _interval(metric, value, np.take_along_axis(of_runs, drawn, axis=0).mean(axis=0), level)


def replicates_of(
    scores: Sequence[Score], persons: np.ndarray, replicates: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """[M, R] of each score in R replicates shared by all of them, NaN where undefined."""
    blocks = [[score(weights) for score in scores] for weights in _image_weights(persons, replicates, rng)]
    return [np.concatenate(parts, axis=1) for parts in zip(*blocks, strict=True)]


def _image_weights(persons: np.ndarray, replicates: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Blocks [N, r] of how often each image's person was drawn; r adds up to `replicates`."""
    names, person = np.unique(persons, return_inverse=True)
    size = max(16, BLOCK // len(persons))
    for start in range(0, replicates, size):
        r = min(size, replicates - start)
        drawn = rng.integers(len(names), size=(r, len(names)))
        flat = drawn + len(names) * np.arange(r)[:, None]  # one range of bins per replicate
        counts = np.bincount(flat.ravel(), minlength=r * len(names)).reshape(r, len(names))
        yield counts.T.astype(np.float64).take(person, axis=0)


def _interval(metric: str, value: float, draws: np.ndarray, level: float) -> Interval:
    defined = draws[~np.isnan(draws)]
    if np.isnan(value) or not len(defined):
        where = "on the scored images" if np.isnan(value) else f"in all {len(draws)} replicates"
        raise EmptyClass(
            f"no interval for {metric}: it is undefined {where}, because a class is missing there. "
            "Score a part with more persons of the rarer class"
        )
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))
