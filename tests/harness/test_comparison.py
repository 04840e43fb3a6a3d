"""Tests between methods against scipy, closed forms, and how often they are wrong."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom, friedmanchisquare, norm

from harness import comparison, stats
from harness.errors import UsageError
from harness.metrics.classification import Classification


class Mean:
    """A score whose paired differences have a closed form."""

    names = ("mean",)

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        return (self.values @ weights / weights.sum(axis=0))[None]


def difference(first: np.ndarray, second: np.ndarray, replicates: int = 2000) -> comparison.Difference:
    persons = np.arange(len(first))
    one, other = (resampled([Mean(values)], persons, "mean", replicates) for values in (first, second))
    return comparison.paired_difference(one, other)


def resampled(
    scores: list[Any], persons: np.ndarray, metric: str, replicates: int, seed: int = 0
) -> stats.Resampled:
    runs = [stats.Run(0, number) for number in range(len(scores))]
    return stats.resampled(runs, scores, persons, metric, replicates=replicates, seed=seed)


def test_a_paired_difference_is_that_of_a_paired_z_test() -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 5, 800)  # hard and easy persons: cancels
    first, second = shared + rng.normal(0.09, 1, 800), shared + rng.normal(0, 1, 800)
    found = difference(first, second, replicates=20_000)
    error = (first - second).std() / np.sqrt(800)
    assert found.interval.value == pytest.approx((first - second).mean())
    assert found.interval.high - found.interval.low == pytest.approx(2 * 1.96 * error, rel=0.03)
    assert found.p == pytest.approx(2 * norm.sf(abs(found.interval.value) / error), rel=0.15)


def test_a_difference_has_a_direction_and_none_has_p_one() -> None:
    values = np.random.default_rng(0).normal(size=100)
    up, down = difference(values + 1, values), difference(values, values + 1)
    assert up.interval == pytest.approx((1, 1, 1)) and down.interval == pytest.approx((-1, -1, -1))
    assert up.p == down.p == stats.SMALLEST_P
    assert difference(values, values).p == 1


@pytest.mark.slow
def test_the_test_is_wrong_as_often_as_it_says() -> None:
    """Two methods that are alike, on clustered persons and two labels."""
    wrong = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        person = np.repeat(np.arange(100), rng.integers(1, 4, 100))
        truth = (rng.random((100, 2)) < 0.4).astype(np.int8)[person]
        base = truth + rng.normal(0, 1, (100, 2))[person]
        tables = [base + rng.normal(0, 0.7, base.shape) for _ in range(2)]
        scores = [Classification({"truth": truth, "scores": table}, ["a", "b"]) for table in tables]
        one, other = (resampled([score], person, "macro_auroc", 400, seed) for score in scores)
        found = comparison.paired_difference(one, other)
        wrong += found.p < 0.05
    assert 0.02 <= wrong / 300 <= 0.09


@pytest.mark.slow
@pytest.mark.parametrize("ratio", [0.5, 2.0])
def test_methods_that_are_alike_are_seldom_told_apart(ratio: float) -> None:
    """Six methods, five seeds: the chance that Holm lets any of the fifteen pairs differ is 5 % at most."""
    runs = tuple(stats.Run(seed, seed) for seed in range(5))
    wrong = 0
    for trial in range(300):
        rng = np.random.default_rng(trial)
        people = np.arange(100)
        values = 0.5 + rng.normal(0, 0.01, (6, 1)) + rng.normal(0, 0.01 * ratio, (6, 5))
        draws = rng.normal(0, 0.01, (6, 1, 200))
        methods = [
            stats.Resampled(runs, people, value, value[:, None] + draw)
            for value, draw in zip(values, draws, strict=True)
        ]
        pairs = itertools.combinations(methods, 2)
        p = [comparison.paired_difference(*pair).p for pair in pairs]
        wrong += comparison.holm(p).min() < 0.05
    assert wrong / 300 < 0.08  # 0.05 and two standard errors


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_methods_that_are_right_as_often_are_seldom_told_apart_by_few_seeds(count: int) -> None:
    """Values of shares are few, so that the differences of two seeds are often equal, by chance."""
    runs = tuple(stats.Run(seed, seed) for seed in range(count))
    wrong = 0
    for trial in range(100):
        rng = np.random.default_rng(trial)
        right = (rng.random((6, count, 150)) < 0.7).astype(float)
        weights = rng.multinomial(150, np.full(150, 1 / 150), 300) / 150
        methods = [
            stats.Resampled(runs, np.arange(150), each.mean(axis=1), each @ weights.T) for each in right
        ]
        p = [comparison.paired_difference(*pair).p for pair in itertools.combinations(methods, 2)]
        wrong += comparison.holm(p).min() < 0.05
    assert wrong / 100 < 0.1  # 0.05 and two standard errors


@pytest.mark.parametrize("checkpoints", [(0, 1, 0, 1, 0, 1), (0, 1, 1, 1, 1, 1)])
def test_runs_of_either_method_that_share_a_checkpoint_are_not_independent(
    checkpoints: tuple[int, ...],
) -> None:
    """Methods that are alike, one of them with a checkpoint for each seed, seldom differ, and which of both
    comes first does not matter."""
    own = tuple(stats.Run(seed, seed) for seed in range(6))
    shared = tuple(stats.Run(checkpoint, seed) for seed, checkpoint in enumerate(checkpoints))
    people, wrong = np.arange(50), 0
    for trial in range(400):
        rng = np.random.default_rng(trial)
        training = rng.normal(0, 0.02, 2)[list(checkpoints)]
        one, other = (
            stats.Resampled(runs, people, values, values[:, None] + rng.normal(0, 1e-4, (6, 20)))
            for runs, values in (
                (own, 0.7 + rng.normal(0, 0.005, 6)),
                (shared, 0.7 + training + rng.normal(0, 0.005, 6)),
            )
        )
        found, turned = comparison.paired_difference(one, other), comparison.paired_difference(other, one)
        assert found.p == turned.p and found.interval.low == -turned.interval.high
        wrong += found.p < 0.05
    assert wrong / 400 < 0.08


def test_the_fewer_checkpoints_count_also_where_persons_differ_most() -> None:
    """At the interval's level the resampled persons alone may decide, for both structures alike, and further
    out the few checkpoints of one."""
    seeds, people, differ = range(5), np.arange(50), 0
    for trial in range(200):
        rng = np.random.default_rng(trial)
        draws = rng.normal(0, 0.01, 1000) + rng.normal(0, 0.004, (5, 1000))
        values = 0.04 + rng.normal(0, 0.002, 5)
        one = stats.Resampled(tuple(stats.Run(seed, seed) for seed in seeds), people, values, draws)
        few = tuple(stats.Run(seed % 2, seed) for seed in seeds)
        other = stats.Resampled(few, people, values * 0, draws * 0)
        alone = [stats.standard_error(one._replace(runs=runs)).p(values.mean()) for runs in (one.runs, few)]
        found, turned = comparison.paired_difference(one, other), comparison.paired_difference(other, one)
        assert found.p == turned.p == max(alone)
        differ += alone[0] != alone[1]
    assert differ > 100


def test_what_is_paired_must_pair() -> None:
    def runs(*seeds: int, people: int = 3) -> stats.Resampled:
        values = np.arange(float(people))
        return stats.resampled(
            [stats.Run(0, seed) for seed in seeds],
            [Mean(values)] * len(seeds),
            np.arange(people),
            "mean",
            replicates=9,
            seed=0,
        )

    with pytest.raises(UsageError, match=r"\[0, 1\] and \[0\]"):
        comparison.paired_difference(runs(0, 1), runs(0))
    with pytest.raises(UsageError, match=r"\[0, 1\] and \[0, 2\]"):
        comparison.paired_difference(runs(0, 1), runs(0, 2))
    with pytest.raises(UsageError, match="same test persons"):
        comparison.paired_difference(runs(0), runs(0, people=4))
    assert comparison.paired_difference(runs(0), runs(5)).p == 1  # one of each: persons alone are paired


def test_holm_is_bonferroni_for_the_smallest_and_nothing_for_the_largest() -> None:
    assert comparison.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])  # worked by hand
    assert comparison.holm([0.7, 0.9]) == pytest.approx([1, 1])  # twice 0.7 is no probability
    assert comparison.holm([0.2]) == pytest.approx([0.2])


def test_tie_groups_start_where_the_best_of_the_last_one_is_beaten() -> None:
    p = {
        frozenset(pair): value
        for pair, value in {("a", "b"): 0.3, ("a", "c"): 0.01, ("a", "d"): 0.01, ("c", "d"): 0.2}.items()
    }
    assert comparison.tie_groups("abcd", p, 0.05) == {"a": 1, "b": 1, "c": 2, "d": 2}


def test_ranks_are_those_of_friedman() -> None:
    values = np.random.default_rng(0).normal(size=(12, 4)).round(1)  # with ties
    values[:, 0] += 2
    found = comparison.ranking(values)
    assert found.p == pytest.approx(friedmanchisquare(*values.T).pvalue)
    assert found.mean.sum() == pytest.approx(10)
    assert found.mean.argmin() == 0
    assert found.wins + found.wins.T == pytest.approx(np.ones((4, 4)))
    assert found.wins[0, 1] == pytest.approx(
        ((values[:, 0] > values[:, 1]) + (values[:, 0] == values[:, 1]) / 2).mean()
    )


def test_the_critical_difference_is_that_of_the_published_table() -> None:
    """q at 0.05 for 3, 5 and 10 methods: Demsar, JMLR 2006, table 5."""
    for methods, q in ((3, 2.343), (5, 2.728), (10, 3.164)):
        values = np.random.default_rng(0).normal(size=(30, methods))
        expected = q * np.sqrt(methods * (methods + 1) / (6 * 30))
        assert comparison.ranking(values).critical == pytest.approx(expected, abs=1e-3)


def test_of_two_methods_the_ranks_are_a_sign_test() -> None:
    """Of seven blocks without a tie, six wins are seen by chance in 16 of 128 cases, seven in 2."""
    signs = np.array([1, 1, 1, 0, 1, -1, 1, 1])
    values = np.stack([signs, np.zeros(8)], axis=1)
    found = comparison.ranking(values)
    assert (found.p, found.critical) == pytest.approx((16 / 128, (6 - 1 + 1) / 8))
    values[5, 0] = 1
    found = comparison.ranking(values)
    assert found.p == pytest.approx(2 / 128)
    assert found.mean[1] - found.mean[0] > found.critical
    assert comparison.ranking(np.zeros((4, 2))).p == 1


def test_of_two_methods_that_are_alike_few_blocks_tell_none_apart() -> None:
    """Each block is won by either, as with a coin."""
    for blocks in range(3, 13):
        wrong = 0.0
        for wins in range(blocks + 1):
            signs = np.where(np.arange(blocks) < wins, 1.0, -1.0)
            found = comparison.ranking(np.stack([signs, 0 * signs], axis=1))
            apart = abs(found.mean[0] - found.mean[1]) > found.critical
            assert apart == (found.p < 0.05)
            wrong += apart * binom.pmf(wins, blocks, 0.5)
        assert wrong <= 0.05


def test_one_task_ranks_nothing() -> None:
    with pytest.raises(UsageError, match="two methods and two blocks"):
        comparison.ranking(np.zeros((1, 3)))
