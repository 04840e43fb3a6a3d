"""Whether methods differ: on one task by resampling what they share, over many tasks by their ranks.

Apart because an interval around each of two numbers does not answer that. Methods are scored on the same
persons, which are hard or easy for all of them alike: their difference is known better than either number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from scipy.stats import binomtest, chi2, rankdata, studentized_range

from harness import stats
from harness.errors import UsageError
from harness.stats import LEVEL, Interval, Resampled

T = TypeVar("T")


class Difference(NamedTuple):
    """What the first of two methods has more than the second on one task."""

    interval: Interval
    p: float  # two-sided


class Ranking(NamedTuple):
    """Ranks of K methods over N blocks that are independent of each other: datasets, say."""

    mean: np.ndarray  # [K] mean rank, 1 is best
    p: float  # that all methods are alike
    critical: float  # mean ranks further apart than this differ
    wins: np.ndarray  # [K, K] share of the blocks in which the row beats the column; a tie counts half


def paired_difference(first: Resampled, second: Resampled) -> Difference:
    """The difference of two methods' means over runs, paired by test person and by seed: its standard error
    is that of the differences (see `stats.StandardError`), and the p-value that of the interval that reaches
    zero.

    Both are of the same persons in the same order. Where there are several runs, their seeds are the same,
    because a seed draws the same training labels for every method. Raises UsageError where they are not.
    Runs of either method that share a checkpoint are no independent differences: of what the two structures
    say, the wider interval and the larger p-value count.
    """
    seeds = [[run.seed for run in side.runs] for side in (first, second)]
    if seeds[0] != seeds[1] and max(map(len, seeds)) > 1:
        raise UsageError(
            f"a paired test needs the same seeds of both methods, not {seeds[0]} and {seeds[1]}. Run those "
            "that are missing"
        )
    if not np.array_equal(first.persons, second.persons):
        raise UsageError(
            "a paired test needs the same test persons of both methods. Run both on the same data, with the "
            "same map of persons"
        )
    values, draws = first.values - second.values, first.draws - second.draws
    errors = [stats.standard_error(side._replace(values=values, draws=draws)) for side in (first, second)]
    value, half_width = float(values.mean()), max(error.half_width(LEVEL) for error in errors)
    p = max(error.p(value) for error in errors)
    return Difference(Interval(value, value - half_width, value + half_width), p)


def holm(p: Sequence[float]) -> np.ndarray:
    """p-values adjusted so that the chance of any false discovery among them stays below the level (Holm,
    Scandinavian Journal of Statistics 1979)."""
    order = np.argsort(p, kind="stable")
    scaled = np.asarray(p, dtype=float)[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1)
    return adjusted


def tie_groups(ordered: Sequence[T], p: Mapping[frozenset[T], float], alpha: float) -> dict[T, int]:
    """Group 1, 2, ... of each name, from best to worst: a group is its best member and all that follow it
    directly without differing from it. `p` holds the adjusted p-value of each pair."""
    groups: dict[T, int] = {}
    best, group = None, 0
    for name in ordered:
        if best is None or p[frozenset((best, name))] < alpha:
            best, group = name, group + 1
        groups[name] = group
    return groups


def ranking(values: np.ndarray) -> Ranking:
    """Mean ranks of K methods from `values` [N, K], higher is better, with the tests of Demsar (JMLR 2006):
    those of Friedman, corrected for ties, and Nemenyi. Both hold for many blocks only; of two methods, where
    few would mislead most, the sign test that they come near to is exact.

    Raises UsageError for fewer than two methods or blocks.
    """
    blocks, methods = values.shape
    if blocks < 2 or methods < 2:
        raise UsageError(f"ranks need two methods and two blocks at least, not {methods} and {blocks}")
    ranks = rankdata(-values, axis=1)
    mean = ranks.mean(axis=0)
    beats = np.sign(values[:, :, None] - values[:, None, :]).mean(axis=0) / 2 + 0.5
    if methods == 2:
        return Ranking(mean, *_sign_test(np.sign(values[:, 0] - values[:, 1])), beats)
    spread = ((ranks - (methods + 1) / 2) ** 2).sum()
    explained = blocks**2 * ((mean - (methods + 1) / 2) ** 2).sum()
    statistic = (methods - 1) * explained / spread if spread else 0.0
    quantile = studentized_range.ppf(LEVEL, methods, np.inf) / np.sqrt(2)
    critical = quantile * np.sqrt(methods * (methods + 1) / (6 * blocks))
    return Ranking(mean, float(chi2.sf(statistic, methods - 1)), float(critical), beats)


def _sign_test(signs: np.ndarray) -> tuple[float, float]:
    """p of `signs` [N] of differences, and a difference of mean ranks: above the largest that chance explains
    and below the next, which is two blocks more. A tie tells nothing."""
    untied = int(np.count_nonzero(signs))
    p = [binomtest(wins, untied).pvalue if untied else 1.0 for wins in range(untied + 1)]
    alike = [abs(2 * wins - untied) for wins in range(untied + 1) if p[wins] >= 1 - LEVEL]
    return float(p[int((signs > 0).sum())]), (max(alike) + 1) / len(signs)
