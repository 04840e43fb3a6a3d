"""Intervals against scikit-learn, closed forms, and what they claim: how often they hold the truth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from scipy.linalg import hadamard
from scipy.stats import binom, norm, t, ttest_1samp
from sklearn.metrics import roc_auc_score

from harness import stats
from harness.errors import EmptyClass
from harness.metrics.auroc import macro_auroc
from harness.metrics.classification import Classification
from harness.stats import Bootstrap

COLUMNS = hadamard(8)[1:].astype(float)  # [7, R] that have nothing in common

PERSON, NOISE, SHIFT = 1.0, 0.7, 1.2  # standard deviations of a score, and what a positive adds to it


def clustered(seed: int, persons: int = 120, labels: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, scores and persons of 1 to 6 images each: images of one share truth and most of the score."""
    rng = np.random.default_rng(seed)
    person = np.repeat(np.arange(persons), rng.integers(1, 7, persons))
    truth = (rng.random((persons, labels)) < 0.3).astype(np.int8)[person]
    effect = rng.normal(0, PERSON, (persons, labels))[person]
    return truth, SHIFT * truth + effect + rng.normal(0, NOISE, truth.shape), person


def aurocs(truth: np.ndarray, scores: np.ndarray) -> Classification:
    """`macro_auroc`, the AUROC of each label, and more."""
    labels = [f"column {column}" for column in range(truth.shape[1])]
    return Classification({"truth": truth, "scores": scores}, labels)


def bootstrap(truth: np.ndarray, scores: np.ndarray, persons: np.ndarray, **options: float) -> Bootstrap:
    return stats.person_bootstrap(aurocs(truth, scores), persons, **options)  # type: ignore[arg-type]


MACRO = "macro_auroc"
TRUE_AUROC = norm.cdf(SHIFT / np.sqrt(2 * (PERSON**2 + NOISE**2)))


@pytest.mark.slow
@pytest.mark.parametrize("decimals", [8, 0], ids=["no ties", "ties"])
def test_each_replicate_is_the_auroc_of_the_resampled_set(decimals: int) -> None:
    truth, scores, persons = clustered(0, persons=90)
    truth[::7, 1] = -1
    scores = scores.round(decimals)
    found = stats.replicates_of(aurocs(truth, scores), persons, 60, np.random.default_rng(5))[1:3]
    blocks = list(stats._image_weights(persons, 60, np.random.default_rng(5)))
    weights = np.concatenate(blocks, axis=1)
    for column in range(2):
        known = truth[:, column] >= 0
        expected = [
            roc_auc_score(truth[known, column], scores[known, column], sample_weight=weight)
            for weight in weights[known].T
        ]
        assert found[column] == pytest.approx(expected, abs=1e-12)


def test_weights_are_draws_of_whole_persons() -> None:
    persons = np.array(["b", "a", "b", "c", "a", "b"])
    weights = np.concatenate(list(stats._image_weights(persons, 50_000, np.random.default_rng(0))), axis=1)
    assert weights.shape == (6, 50_000)
    assert (weights[0] == weights[2]).all() and (weights[1] == weights[4]).all()
    assert (weights[[0, 1, 3]].sum(axis=0) == 3).all()
    times, counts = np.unique(weights[3], return_counts=True)
    assert times.tolist() == [0, 1, 2, 3]
    assert counts / 50_000 == pytest.approx(binom.pmf(times, 3, 1 / 3), abs=0.01)


def test_blocks_do_not_change_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    data = clustered(1)
    whole = bootstrap(*data, replicates=100, seed=3)
    monkeypatch.setattr(stats, "BLOCK", 1)
    assert bootstrap(*data, replicates=100, seed=3) == whole


def test_same_seed_same_interval_and_row_order_is_irrelevant() -> None:
    truth, scores, persons = clustered(2)
    first = bootstrap(truth, scores, persons, replicates=200, seed=0)
    assert bootstrap(truth, scores, persons, replicates=200, seed=0) == first
    assert bootstrap(truth, scores, persons, replicates=200, seed=1).metrics[MACRO] != first.metrics[MACRO]
    order = np.random.default_rng(0).permutation(len(truth))
    shuffled = bootstrap(truth[order], scores[order], persons[order], replicates=200, seed=0)
    for name, interval in first.metrics.items():
        assert shuffled.metrics[name] == pytest.approx(interval, abs=1e-12)


def test_value_is_the_plain_auroc_inside_its_interval() -> None:
    truth, scores, persons = clustered(3)
    found = bootstrap(truth, scores, persons, replicates=400, seed=0)
    assert found.metrics[MACRO].value == pytest.approx(
        roc_auc_score(truth, scores, average="macro"), abs=1e-12
    )
    assert [found.metrics[f"auroc:column {column}"].value for column in range(2)] == pytest.approx(
        roc_auc_score(truth, scores, average=None).tolist(), abs=1e-12
    )
    for interval in found.metrics.values():
        assert interval.low < interval.value < interval.high
    narrow = bootstrap(truth, scores, persons, replicates=400, seed=0, level=0.5)
    assert (
        found.metrics[MACRO].low
        < narrow.metrics[MACRO].low
        < narrow.metrics[MACRO].high
        < found.metrics[MACRO].high
    )


def test_width_matches_the_variance_of_hanley_and_mcneil() -> None:
    """Independent images and exponential scores: their variance is then exact (Radiology 1982)."""
    rng = np.random.default_rng(0)
    truth = np.repeat([1, 0], [300, 900])[:, None]
    scores = rng.exponential(np.where(truth == 1, 3.0, 1.0))
    area = 3 / 4
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    variance = (area * (1 - area) + 299 * (q1 - area**2) + 899 * (q2 - area**2)) / (300 * 900)
    found = bootstrap(truth, scores, np.arange(1200), replicates=2000, seed=0).metrics[MACRO]
    assert found.high - found.low == pytest.approx(2 * norm.ppf(0.975) * np.sqrt(variance), rel=0.1)


def test_repeating_images_widens_nothing_when_persons_are_resampled() -> None:
    truth, scores, persons = clustered(4)
    once = bootstrap(truth, scores, persons, replicates=300, seed=0).metrics[MACRO]
    four = tuple(np.repeat(array, 4, axis=0) for array in (truth, scores, persons))
    assert bootstrap(*four, replicates=300, seed=0).metrics[MACRO] == pytest.approx(once, abs=1e-12)
    naive = bootstrap(four[0], four[1], np.arange(len(four[0])), replicates=300, seed=0).metrics[MACRO]
    assert (naive.high - naive.low) < 0.6 * (once.high - once.low)


def test_undefined_replicates_are_left_out_and_counted() -> None:
    truth = np.zeros((40, 2), dtype=int)
    truth[0, 0] = 1  # absent from a replicate with probability (1 - 1/40)^40
    truth[:20, 1] = 1
    scores = np.random.default_rng(0).random((40, 2))
    found = bootstrap(truth, scores, np.arange(40), replicates=2000, seed=0)
    assert found.undefined / 2000 == pytest.approx((1 - 1 / 40) ** 40, abs=0.03)
    assert all(np.isfinite(interval).all() for interval in found.metrics.values())
    with pytest.raises(EmptyClass, match="column 0"):
        bootstrap(truth[1:], scores[1:], np.arange(39), replicates=10, seed=0)


def test_no_defined_replicate_is_an_error() -> None:
    truth = np.array([[1]] + [[0]] * 500)
    absent = next(
        seed
        for seed in range(100)
        if not next(stats._image_weights(np.arange(501), 1, np.random.default_rng(seed)))[0].any()
    )
    with pytest.raises(EmptyClass, match="all 1 replicates"):
        bootstrap(truth, np.arange(501.0)[:, None], np.arange(501), replicates=1, seed=absent)


@pytest.mark.slow
def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    held = naive_held = 0
    for seed in range(1000):
        truth, scores, persons = clustered(1000 + seed)
        found = bootstrap(truth, scores, persons, replicates=400, seed=seed).metrics[MACRO]
        held += found.low <= TRUE_AUROC <= found.high
        if seed >= 300:
            continue
        naive = bootstrap(truth, scores, np.arange(len(truth)), replicates=400, seed=seed).metrics[MACRO]
        naive_held += naive.low <= TRUE_AUROC <= naive.high
    assert 0.93 <= held / 1000 <= 0.97
    assert naive_held / 300 < 0.85  # what counting images instead of persons costs


# --- several runs ----------------------------------------------------------------------------------


def resampled(
    scores: list[Classification], persons: np.ndarray, *, replicates: int, seed: int = 0
) -> stats.Resampled:
    runs = [stats.Run(number, number) for number in range(len(scores))]
    return stats.resampled(runs, scores, persons, MACRO, replicates=replicates, seed=seed)


def moved(runs: list[stats.Run], values: np.ndarray, persons: np.ndarray) -> stats.Resampled:
    """Runs of `values` [S], which the persons of each replicate move all alike: by `persons` [R]."""
    return stats.Resampled(tuple(runs), np.arange(2), values, values[:, None] + persons)


def test_one_run_is_the_person_bootstrap_and_copies_of_it_add_nothing() -> None:
    data = clustered(5)
    one, three = (resampled([aurocs(*data[:2])] * runs, data[2], replicates=1000, seed=7) for runs in (1, 3))
    alone = stats.two_level_interval(MACRO, one)
    assert alone == bootstrap(*data, replicates=1000, seed=7).metrics[MACRO]
    assert stats.two_level_interval(MACRO, three) == pytest.approx(alone, abs=0.003)


def test_one_person_has_no_interval() -> None:
    truth, scores, _ = clustered(5)
    with pytest.raises(EmptyClass, match="of one person"):
        bootstrap(truth, scores, np.zeros(len(truth)), replicates=10, seed=0)
    two = np.arange(len(truth)) % 2
    value, low, high = bootstrap(truth, scores, two, replicates=100, seed=0).metrics[MACRO]
    assert low < value < high


def test_value_is_the_mean_over_runs() -> None:
    truth, scores, persons = clustered(6)
    other = scores + np.random.default_rng(0).normal(0, 1, scores.shape)
    found = resampled([aurocs(truth, scores), aurocs(truth, other)], persons, replicates=50)
    labels = ("a", "b")
    assert stats.two_level_interval(MACRO, found).value == pytest.approx(
        (macro_auroc(truth, scores, labels) + macro_auroc(truth, other, labels)) / 2, abs=1e-12
    )


@pytest.mark.parametrize("checkpoints", [range(5), [0] * 5], ids=["a checkpoint each", "one for all"])
def test_without_persons_it_is_the_t_test_of_the_runs(checkpoints: Sequence[int]) -> None:
    values = np.array([0.61, 0.64, 0.66, 0.7, 0.69])
    found = moved(
        [stats.Run(checkpoint, seed) for seed, checkpoint in enumerate(checkpoints)], values, np.zeros(9)
    )
    interval = stats.two_level_interval("any", found)
    expected = ttest_1samp(values, 0.6)
    low, high = expected.confidence_interval(0.95)
    assert interval == pytest.approx((values.mean(), low, high))
    assert stats.standard_error(found).p(values.mean() - 0.6) == pytest.approx(expected.pvalue)


def test_runs_that_cross_checkpoints_with_seeds_are_not_independent() -> None:
    """Of what only checkpoints and only seeds do, both means have a variance; what is in both counts once."""
    checkpoints, seeds = np.array([[0.1], [0.4], [0.2], [0.15]]), np.array([[0.0, 0.2, 0.1]])
    values = 0.3 + checkpoints + seeds
    runs = [stats.Run(checkpoint, seed) for checkpoint, seed in np.ndindex(values.shape)]
    error = stats.standard_error(moved(runs, values.ravel(), np.zeros(9)))
    variance = np.var(checkpoints, ddof=1) / 4 + np.var(seeds, ddof=1) / 3 - np.var(values, ddof=1) / 12
    assert error == pytest.approx((0, variance, 2, 0))
    alone = stats.standard_error(moved(runs, (0.3 + checkpoints + 0 * seeds).ravel(), np.zeros(9)))
    assert alone.runs == pytest.approx(np.var(checkpoints, ddof=1) / 4)  # never less than of either alone


def test_without_runs_it_is_the_normal_distribution_of_the_persons() -> None:
    error = stats.StandardError(persons=0.04, runs=0.0, degrees_of_freedom=0, resampled=0.04)
    assert error.p(0.3) == error.p(-0.3) == pytest.approx(2 * norm.sf(1.5))
    assert error.p(0) == 1 and error.p(9) == stats.SMALLEST_P
    assert error.reach(0.025) == pytest.approx(0.2 * 1.96, abs=0.0002)


def test_the_quantiles_of_persons_and_runs_are_weighed_by_their_variances() -> None:
    error = stats.StandardError(persons=0.03, runs=0.01, degrees_of_freedom=4, resampled=0.03)
    assert error.reach(0.025) == pytest.approx(0.2 * (3 * norm.isf(0.025) + t.isf(0.025, 4)) / 4)


def test_runs_that_agree_by_chance_say_no_more_than_their_persons() -> None:
    """Two runs of the same value, in which resampled persons do opposite things."""
    runs = (stats.Run(0, 0), stats.Run(1, 1))
    found = stats.Resampled(runs, np.arange(9), np.array([0.2, 0.2]), np.outer([0.1, -0.06], COLUMNS[0]))
    error = stats.standard_error(found)
    assert error == pytest.approx((0, 0, 1, 0.02**2 * 8 / 7))
    assert error.half_width(0.95) == pytest.approx(norm.isf(0.025) * 0.02 * np.sqrt(8 / 7))
    nearly = error._replace(runs=1e-8)  # Student's t of so little is little, be it of two runs
    assert nearly.half_width(0.95) == error.half_width(0.95)
    assert error.p(0.03) == pytest.approx(2 * norm.sf(0.03 / (0.02 * np.sqrt(8 / 7))))


def test_an_interval_stays_in_the_range_of_its_metric() -> None:
    found = moved([stats.Run(seed, seed) for seed in range(3)], np.array([0.0, 0.01, 0.05]), np.zeros(9))
    assert stats.two_level_interval("any", found).low == 0
    found = moved([stats.Run(seed, seed) for seed in range(3)], np.array([1.0, 0.99, 0.95]), np.zeros(9))
    assert stats.two_level_interval("any", found).high == 1


def test_persons_count_by_what_they_do_to_all_runs() -> None:
    """The first column, and not what each run has of its own."""
    runs = tuple(stats.Run(seed, seed) for seed in range(3))
    draws = 0.03 * COLUMNS[0] + 0.05 * COLUMNS[1:4]
    found = stats.Resampled(runs, np.arange(9), np.array([0.4, 0.5, 0.6]), draws)
    variance = 0.03**2 * 8 / 7
    assert stats.standard_error(found) == pytest.approx((variance, 0.01 / 3, 2, variance + 0.05**2 * 8 / 21))
    opposed = found._replace(draws=np.outer([0.05, -0.05, 0], COLUMNS[0]))
    assert stats.standard_error(opposed).persons == 0
    undefined = np.where(np.eye(3, 8), np.nan, draws)  # a replicate that one run lacks counts for none
    expected = np.cov(draws[:, 3:])[np.triu_indices(3, 1)].mean()
    assert expected > 0
    assert stats.standard_error(found._replace(draws=undefined)).persons == pytest.approx(expected)


def test_persons_count_by_runs_that_share_nothing() -> None:
    """The second column and the third are of one checkpoint each."""
    runs = tuple(stats.Run(checkpoint, seed) for checkpoint, seed in np.ndindex(2, 2))
    draws = 0.03 * COLUMNS[0] + 0.05 * COLUMNS[[1, 1, 2, 2]]
    found = stats.Resampled(runs, np.arange(9), np.array([0.4, 0.4, 0.6, 0.6]), draws)
    assert stats.standard_error(found).persons == pytest.approx(0.03**2 * 8 / 7)
    of_one = tuple(stats.Run(0, seed) for seed in range(4))  # there all runs share the checkpoint
    draws = 0.03 * COLUMNS[0] + 0.05 * COLUMNS[1:5]
    assert stats.standard_error(found._replace(runs=of_one, draws=draws)).persons == pytest.approx(
        0.03**2 * 8 / 7
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "alike", "run", "most"),
    [
        *((3, 1.0, 0.05, 0.97), (5, 1.0, 0.0, 0.97), (5, 0.3, 0.1, 0.97), (10, 0.3, 0.05, 0.97)),
        *((2, 0.0, 0.05, 0.995), (5, 0.0, 0.0, 0.985)),  # few runs that have nothing in common
    ],
)
def test_what_a_run_makes_of_some_persons_counts_once(
    count: int, alike: float, run: float, most: float
) -> None:
    """Persons that are hard for all runs by `alike`, for one by 0.5; `run` is better or worse for all."""
    held = 0
    runs = tuple(stats.Run(seed, seed) for seed in range(count))
    for trial in range(1000):
        rng = np.random.default_rng(trial)
        x = rng.normal(0, alike, 80) + rng.normal(0, 0.5, (count, 80)) + rng.normal(0, run, (count, 1))
        weights = rng.multinomial(80, np.full(80, 1 / 80), 200) / 80  # [R, N]
        found = stats.Resampled(runs, np.arange(80), x.mean(axis=1), x @ weights.T)
        held += abs(found.values.mean()) <= stats.standard_error(found).half_width(0.95)
    assert 0.93 <= held / 1000 <= most


CROSSED = [stats.Run(checkpoint, seed) for checkpoint in range(5) for seed in range(5)]
LAYOUTS = {
    "each with a checkpoint of its own": [stats.Run(seed, seed) for seed in range(5)],
    "two": [stats.Run(seed, seed) for seed in range(2)],
    "crossed": CROSSED,
    "crossed, one failed": CROSSED[:-1],
    "two checkpoints in turn": [stats.Run(seed % 2, seed) for seed in range(5)],
    "three checkpoints in turn": [stats.Run(seed % 3, seed) for seed in range(10)],
}


@pytest.mark.slow
@pytest.mark.parametrize("runs", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("person", [0.01, 0.1], ids=["runs differ more", "persons differ more"])
def test_intervals_cover_the_truth_whatever_runs_share(runs: list[stats.Run], person: float) -> None:
    """Checkpoints differ by .03, seeds by .02, and both together by .01; the truth is the mean of all that
    there could be. An interval from few runs may cover more than it says, not less."""
    held = 0
    for trial in range(1000):
        rng = np.random.default_rng(trial)
        checkpoints, seeds = rng.normal(0, 0.03, 10), rng.normal(0, 0.02, 10)
        effects = [checkpoints[run.checkpoint] + seeds[run.seed] for run in runs]
        values = 0.5 + np.array(effects) + rng.normal(0, 0.01, len(runs)) + rng.normal(0, person)
        found = moved(runs, values, rng.normal(0, person, 200))
        interval = stats.two_level_interval("any", found)
        held += interval.low <= 0.5 <= interval.high
    assert held / 1000 >= 0.93


@pytest.mark.slow
def test_what_training_and_what_seeds_do_is_told_apart() -> None:
    rng = np.random.default_rng(0)
    checkpoints, seeds = rng.normal(0, 0.04, (500, 1)), rng.normal(0, 0.02, (1, 500))
    found = crossed(0.7 + checkpoints + seeds + rng.normal(0, 0.01, (500, 500)))
    assert found == pytest.approx((0.04, 0.02, 0.01), rel=0.1)


def test_components_of_two_checkpoints_with_three_seeds_by_hand() -> None:
    """Means 3 and 7 of the checkpoints, 2, 3 and 10 of the seeds; neither explains 0, 2, -2 and 0, -2, 2."""
    found = crossed(np.array([[0.0, 3, 6], [4, 3, 14]]))
    assert found == pytest.approx((np.sqrt(8 - 8 / 3), np.sqrt(19 - 8 / 2), np.sqrt(16 / 2)))
    alone = crossed(np.array([[0.6, 0.6], [0.8, 0.8]]))  # the seeds do nothing
    assert alone == pytest.approx((np.sqrt(0.02), 0, 0))


def crossed(values: np.ndarray) -> stats.Spread | None:
    """Of C checkpoints, each with the same D seeds: `values` [C, D]."""
    runs = [stats.Run(checkpoint, seed) for checkpoint, seed in np.ndindex(values.shape)]
    return stats.spread(runs, values.ravel())


def test_where_both_change_at_once_nobody_can_tell() -> None:
    diagonal = [stats.Run(seed, seed) for seed in range(4)]
    assert stats.spread(diagonal, np.arange(4.0)) is None
    assert stats.spread([stats.Run(0, seed) for seed in range(4)], np.arange(4.0)) is None
