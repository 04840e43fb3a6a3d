"""How sure a number is: bootstrap intervals that resample persons, and seeds where there are several.

Apart because intervals are computed twice, by the run that scored the images and later from stored
predictions, and both must be the same. Persons are resampled, not images: pictures of one person are alike,
and counting them as independent makes every interval too narrow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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


class Run(NamedTuple):
    """What differs between the runs of one cell of a leaderboard."""

    checkpoint: int  # seed of the pre-training
    labels: int  # seed of the draw of the labels


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


class Resampled(NamedTuple):
    """One metric of S runs that scored the same test images: as it is, and with its persons resampled.

    Two of these with the same persons, replicates and seed resample the same persons: they are paired.
    """

    runs: tuple[Run, ...]  # [S]
    values: np.ndarray  # [S]
    draws: np.ndarray  # [S, R], NaN where undefined

    def means(self, seed: int) -> np.ndarray:
        """[R] of the mean over the runs, with runs resampled too."""
        chosen = _chosen_runs(self.runs, self.draws.shape[1], np.random.default_rng(seed))
        mean: np.ndarray = np.take_along_axis(self.draws, chosen, axis=0).mean(axis=0)
        return mean


def resampled(
    runs: Sequence[Run],
    scores: Iterable[Score],
    persons: np.ndarray,
    metric: str,
    *,
    replicates: int,
    seed: int,
) -> Resampled:
    """`scores` holds one cell per run, all of the same N test images in the same order, `persons` [N]. They
    are used one by one, so that they may be made as they are asked for."""
    values, draws = [], []
    equal = np.ones((len(persons), 1))
    for score in scores:
        row = score.names.index(metric)
        values.append(score(equal)[row, 0])
        draws.append(replicates_of([score], persons, replicates, np.random.default_rng(seed))[0][row])
    return Resampled(tuple(runs), np.array(values), np.stack(draws))


def two_level_interval(metric: str, found: Resampled, *, seed: int, level: float = LEVEL) -> Interval:
    """The mean over runs, with an interval over runs and test persons together.

    A replicate draws persons once for all runs, which keeps the pairing, and S - 1 of the S runs with
    replacement: drawing S would understate the variance of so small a sample by the factor (S - 1) / S
    (Rao & Wu, JASA 1988). Where every checkpoint was used with every draw of labels, both are drawn, each
    in that way. A single run is kept as it is, so that its interval covers persons only. The spread of few
    seeds is itself poorly known, and no resampling of them reaches beyond the best and the worst: with three
    seeds that differ more than the persons do, the interval covers less than its level.
    """
    return _interval(metric, float(found.values.mean()), found.means(seed), level)


class Spread(NamedTuple):
    """Standard deviations between runs, by what differs between them."""

    training: float  # the seed of the pre-training
    labels: float  # the draw of the labels
    rest: float  # what both do together


def spread(runs: Sequence[Run], values: np.ndarray) -> Spread | None:
    """From `values` [S] of C checkpoints, each with the same D draws of labels; None where they are not
    crossed, because then nobody can tell the two apart.

    The analysis of variance of two random factors without replication (Searle, Casella & McCulloch, Variance
    Components, 1992, chapter 4); a component whose estimate is negative is 0.
    """
    table = _crossed(runs)
    if table is None:
        return None
    x = values[table]  # [C, D]
    checkpoints, labels = x.shape
    of_checkpoint, of_labels = x.mean(axis=1), x.mean(axis=0)
    rest = x - of_checkpoint[:, None] - of_labels + x.mean()
    error = (rest**2).sum() / ((checkpoints - 1) * (labels - 1))
    components = [of_checkpoint.var(ddof=1) - error / labels, of_labels.var(ddof=1) - error / checkpoints]
    return Spread(*np.sqrt(np.maximum([*components, error], 0)).tolist())


def _crossed(runs: Sequence[Run]) -> np.ndarray | None:
    """[C, D] places of the runs, where every checkpoint has every draw of labels, two of each at least."""
    place = {run: number for number, run in enumerate(runs)}
    checkpoints, labels = (sorted(set(seeds)) for seeds in zip(*runs, strict=True))
    full = len(place) == len(runs) == len(checkpoints) * len(labels)
    if not full or min(len(checkpoints), len(labels)) < 2:
        return None
    return np.array([[place[Run(checkpoint, draw)] for draw in labels] for checkpoint in checkpoints])


def _chosen_runs(runs: Sequence[Run], replicates: int, rng: np.random.Generator) -> np.ndarray:
    """[K, R] places of the runs that a replicate is the mean of."""
    table = _crossed(runs)
    if table is None:
        return rng.integers(len(runs), size=(max(len(runs) - 1, 1), replicates))
    rows, columns = (rng.integers(size, size=(size - 1, replicates)) for size in table.shape)
    return table[rows[:, None], columns[None]].reshape(-1, replicates)


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
