"""How sure a number is: bootstrap intervals that resample persons, and seeds where there are several.

Apart because intervals are computed twice, by the run that scored the images and later from stored
predictions, and both must be the same. Persons are resampled, not images: pictures of one person are alike,
and counting them as independent makes every interval too narrow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from harness.errors import BadRecord, EmptyClass
from harness.metrics import Comparison, auroc_per_label

LEVEL = 0.95
BLOCK = 2**17  # weights held at once: 1 MiB, about a core's cache


class Interval(NamedTuple):
    value: float
    low: float
    high: float


class Bootstrap(NamedTuple):
    macro: Interval
    labels: tuple[Interval, ...]
    undefined: int  # replicates in which a label had one class only; they enter neither it nor the macro
    replicates: int
    level: float


def person_bootstrap(
    truth: np.ndarray,
    scores: np.ndarray,
    persons: np.ndarray,
    *,
    replicates: int,
    seed: int,
    level: float = LEVEL,
) -> Bootstrap:
    """AUROC per label and their mean, with percentile intervals (Efron & Tibshirani 1993, chapter 13).

    `truth` [N, L] 1, 0 or -1 for unknown; `scores` [N, L]; `persons` [N] ids of any sortable type. Each
    replicate draws as many persons as there are, with replacement; an image weighs as often as its person
    was drawn, which gives exactly the AUROC of the resampled set. Raises EmptyClass when a label has one
    class only, in the data or in every replicate.
    """
    names = [f"column {column}" for column in range(truth.shape[1])]
    values = list(auroc_per_label(truth, scores, names).values())
    draws = _replicate_aurocs(truth, [scores], persons, replicates, np.random.default_rng(seed))[0]
    macros = draws.mean(axis=0)
    return Bootstrap(
        _interval(float(np.mean(values)), macros, level),
        tuple(_interval(value, draw, level) for value, draw in zip(values, draws, strict=True)),
        int(np.isnan(macros).sum()),
        replicates,
        level,
    )


def two_level_interval(
    runs: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    *,
    replicates: int,
    seed: int,
    level: float = LEVEL,
) -> Interval:
    """The mean over runs of the macro AUROC, with an interval over runs and test persons together.

    `runs` holds (truth [N, L], scores [N, L], persons [N]) of one cell per seed, all of the same test set
    in the same order; anything else raises BadRecord. A replicate draws persons once for all runs, which
    keeps the pairing, and S - 1 of the S runs with replacement: drawing S would understate the variance
    of so small a sample by the factor (S - 1) / S (Rao & Wu, JASA 1988). A single run is kept as it is,
    so that its interval covers persons only. The spread of few seeds is itself poorly known, and no
    resampling of them reaches beyond the best and the worst: with three seeds that differ more than the
    persons do, the interval covers less than its level.
    """
    truth, _, persons = runs[0]
    for number, (other_truth, _, other_persons) in enumerate(runs[1:], start=2):
        if not (np.array_equal(persons, other_persons) and np.array_equal(truth, other_truth)):
            raise BadRecord(
                f"run {number} of {len(runs)} has other test persons or truths than the first, so that "
                "their mean is about no one test set. Run the seeds again on the same data"
            )
    rng = np.random.default_rng(seed)
    all_scores = [scores for _, scores, _ in runs]
    macros = _replicate_aurocs(truth, all_scores, persons, replicates, rng).mean(axis=1)  # [S, R]
    drawn = rng.integers(len(runs), size=(max(len(runs) - 1, 1), replicates))
    names = [f"column {column}" for column in range(truth.shape[1])]
    values = [list(auroc_per_label(truth, scores, names).values()) for scores in all_scores]
    return _interval(float(np.mean(values)), np.take_along_axis(macros, drawn, axis=0).mean(axis=0), level)


def _replicate_aurocs(
    truth: np.ndarray,
    scores: Sequence[np.ndarray],
    persons: np.ndarray,
    replicates: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """[S, L, R] AUROC of S score tables in R replicates shared by all of them, NaN where undefined."""
    comparisons = [
        [Comparison(truth[:, column], table[:, column]) for column in range(truth.shape[1])]
        for table in scores
    ]
    blocks = [
        [[comparison.auroc(weights) for comparison in row] for row in comparisons]
        for weights in _image_weights(persons, replicates, rng)
    ]
    return np.concatenate(blocks, axis=-1)


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


def _interval(value: float, draws: np.ndarray, level: float) -> Interval:
    defined = draws[~np.isnan(draws)]
    if not len(defined):
        raise EmptyClass(
            f"no interval: in all {len(draws)} replicates a label had one class only. "
            "Score a part with more persons of the rarer class"
        )
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))
