"""How sure a number is: intervals that resample persons, and add what differs between runs where there are
several.

Apart because intervals are computed twice, by the run that scored the images and later from stored
predictions, and both must mean the same. Persons are resampled, not images: pictures of one person are alike,
and counting them as independent makes every interval too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtri, stdtrit

from harness.errors import EmptyClass
from harness.metrics.score import Score

LEVEL = 0.95
REPLICATES = 1000  # resamples of the persons behind an interval
SMALLEST_P = 1e-12
BLOCK = 2**17  # weights held at once: 1 MiB, about a core's cache


class Interval(NamedTuple):
    value: float
    low: float
    high: float


class Run(NamedTuple):
    """What differs between the runs of one cell of a leaderboard."""

    checkpoint: int  # seed of the pre-training; of the same weights the same
    seed: int  # of the cell: it draws the labels, and begins a trained head


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
    draws = replicates_of(score, persons, replicates, np.random.default_rng(seed))
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
    """One metric of S runs that scored the same N test images: as it is, and with its persons resampled.

    Two of these with the same persons, replicates and seed resample the same persons: they are paired.
    """

    runs: tuple[Run, ...]  # [S]
    persons: np.ndarray  # [N]
    values: np.ndarray  # [S]
    draws: np.ndarray  # [S, R], NaN where undefined


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
        draws.append(replicates_of(score, persons, replicates, np.random.default_rng(seed))[row])
    return Resampled(tuple(runs), persons, np.array(values), np.stack(draws))


def two_level_interval(metric: str, found: Resampled) -> Interval:
    """The mean over runs, with an interval that covers test persons and runs: `StandardError.reach` to both
    sides, cut off at 0 and 1. A single run has its person bootstrap: nothing is known of others."""
    value, means = float(found.values.mean()), found.draws.mean(axis=0)
    if len(found.runs) == 1:
        return _interval(metric, value, means, LEVEL)
    _require_defined(metric, value, means)
    half_width = standard_error(found).half_width(LEVEL)
    return Interval(value, max(value - half_width, 0.0), min(value + half_width, 1.0))


class StandardError(NamedTuple):
    """Variance of a mean over runs, by where it comes from."""

    persons: float  # who is in the test part, as far as it does the same to every run
    runs: float  # which checkpoints and seeds there are, and what each makes of just these persons
    degrees_of_freedom: int  # of `runs`; 0 where there is one run, and `runs` is 0
    resampled: float  # of the mean over just these runs, when its persons are resampled

    def reach(self, tail: float) -> float:
        """The deviation from the truth that a mean exceeds with the probability `tail` on each side.

        As many standard errors as the normal distribution says for persons, and Student's t for the few runs,
        weighted by their variances: Cochran & Cox, Experimental Designs, 1957, section 4.14. Resampling runs
        instead would never leave the range of those that there are, which is too narrow by far for five of
        them. Never less than the resampled persons alone say: two runs may agree by chance.
        """
        normal, persons_alone = -ndtri(tail), math.sqrt(self.resampled)
        if not self.runs:
            return float(normal * max(math.sqrt(self.persons), persons_alone))
        both = self.persons * normal - self.runs * stdtrit(self.degrees_of_freedom, tail)
        return float(max(both / math.sqrt(self.persons + self.runs), normal * persons_alone))

    def half_width(self, level: float) -> float:
        """Half the width of an interval around the mean that covers the truth with the probability
        `level`."""
        return self.reach((1 - level) / 2)

    def p(self, value: float) -> float:
        """Two-sided p-value of a mean that should be zero: 1 minus the level of the interval that just
        reaches zero, and at least `SMALLEST_P`."""
        if not value:
            return 1.0
        if abs(value) >= self.reach(SMALLEST_P / 2):
            return SMALLEST_P
        log_p = brentq(lambda log_p: self.reach(math.exp(log_p) / 2) - abs(value), math.log(SMALLEST_P), 0)
        return math.exp(log_p)


def standard_error(found: Resampled) -> StandardError:
    """Runs are to persons what readers are to cases (Obuchowski & Rockette, Communications in Statistics
    1995): the variance of persons is the covariance of two runs, mean over the pairs, at least 0. The
    variance of the resampled mean holds in addition what one run alone makes of some persons, which is
    counted already as what runs differ by.

    Pairs have neither checkpoint nor seed in common, unless all runs have. A single run is its own pair.
    """
    draws = found.draws[:, ~np.isnan(found.draws).any(axis=0)]
    covariance = np.atleast_2d(np.cov(draws))  # [S, S]
    apart = np.ones(covariance.shape, dtype=bool)
    for seeds in zip(*found.runs, strict=True):
        if len(set(seeds)) > 1:
            apart &= np.not_equal.outer(seeds, seeds)
    persons = max(float(covariance[apart].mean()), 0.0)
    resampled = float(np.var(draws.mean(axis=0), ddof=1))
    return StandardError(persons, *_between_runs(found.runs, found.values), resampled)


def _between_runs(runs: Sequence[Run], values: np.ndarray) -> tuple[float, int]:
    """The variance of the mean of `values` [S] by what differs between runs, and its degrees of freedom.

    Runs that differ in both seeds are independent: s² / S. Those that share a checkpoint or a seed are not:
    their deviations add up before they are squared, for checkpoints, for seeds, and less once what is in
    both (Cameron, Gelbach & Miller, Journal of Business & Economic Statistics 2011, with their correction
    for few clusters). Never less than for either alone; the fewer of both count as degrees of freedom.
    """
    off = (values - values.mean()) / len(values)
    clusters = [
        np.unique(seeds, return_inverse=True)[1] for seeds in (*zip(*runs, strict=True), range(len(runs)))
    ]
    counts = [int(cluster.max()) + 1 for cluster in clusters]
    checkpoints, seeds, both = (
        float((np.bincount(cluster, off) ** 2).sum()) * count / (count - 1) if count > 1 else 0.0
        for cluster, count in zip(clusters, counts, strict=True)
    )
    degrees_of_freedom = min((count - 1 for count in counts if count > 1), default=0)
    return max(checkpoints + seeds - both, checkpoints, seeds), degrees_of_freedom


class Spread(NamedTuple):
    """Standard deviations between runs, by what differs between them."""

    training: float  # the seed of the pre-training
    seeds: float  # of the cells: the draw of the labels, and the head
    rest: float  # what both do together


def spread(runs: Sequence[Run], values: np.ndarray) -> Spread | None:
    """From `values` [S] of C checkpoints, each with the same D seeds; None where they are not crossed,
    because then nobody can tell the two apart.

    The analysis of variance of two random factors without replication (Searle, Casella & McCulloch, Variance
    Components, 1992, chapter 4); a component whose estimate is negative is 0.
    """
    place = {run: number for number, run in enumerate(runs)}
    checkpoints, seeds = (sorted(set(column)) for column in zip(*runs, strict=True))
    full = len(place) == len(runs) == len(checkpoints) * len(seeds)
    if not full or min(len(checkpoints), len(seeds)) < 2:
        return None
    x = values[[[place[Run(checkpoint, seed)] for seed in seeds] for checkpoint in checkpoints]]  # [C, D]
    rows, columns = x.shape
    of_checkpoint, of_seed = x.mean(axis=1), x.mean(axis=0)
    rest = x - of_checkpoint[:, None] - of_seed + x.mean()
    error = (rest**2).sum() / ((rows - 1) * (columns - 1))
    components = [of_checkpoint.var(ddof=1) - error / columns, of_seed.var(ddof=1) - error / rows]
    return Spread(*np.sqrt(np.maximum([*components, error], 0)).tolist())


def replicates_of(score: Score, persons: np.ndarray, replicates: int, rng: np.random.Generator) -> np.ndarray:
    """[M, R]: each metric in R replicates, NaN where undefined."""
    blocks = [score(weights) for weights in _image_weights(persons, replicates, rng)]
    return np.concatenate(blocks, axis=1)


def _image_weights(persons: np.ndarray, replicates: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Blocks [N, r] of how often each image's person was drawn; r adds up to `replicates`."""
    names, person = np.unique(persons, return_inverse=True)
    if len(names) < 2:
        raise EmptyClass(
            f"no interval: the {len(persons)} scored images are of one person, who cannot be resampled. "
            "Score more persons"
        )
    size = max(16, BLOCK // len(persons))
    for start in range(0, replicates, size):
        r = min(size, replicates - start)
        drawn = rng.integers(len(names), size=(r, len(names)))
        flat = drawn + len(names) * np.arange(r)[:, None]  # one range of bins per replicate
        counts = np.bincount(flat.ravel(), minlength=r * len(names)).reshape(r, len(names))
        yield counts.T.astype(np.float64).take(person, axis=0)


def _interval(metric: str, value: float, draws: np.ndarray, level: float) -> Interval:
    _require_defined(metric, value, draws)
    low, high = np.nanquantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def _require_defined(metric: str, value: float, draws: np.ndarray) -> None:
    if np.isnan(value) or np.isnan(draws).all():
        where = "on the scored images" if np.isnan(value) else f"in all {len(draws)} replicates"
        raise EmptyClass(
            f"no interval for {metric}: it is undefined {where}, because a class is missing there. "
            "Score a part with more persons of the rarer class"
        )
