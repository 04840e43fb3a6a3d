"""Label draws: nested, whole persons, like the whole, and with both classes wherever the data has them."""

from __future__ import annotations

import numpy as np
import pytest

from harness.data import fractions
from harness.errors import UsageError

FRACTIONS = (0.01, 0.05, 0.1, 0.5, 1.0)


def data(seed: int = 0, persons: int = 1500, labels: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Persons [N] of 1 to 4 images and labels [N, L], correlated within a person, the last one rare."""
    rng = np.random.default_rng(seed)
    person = np.repeat(np.arange(persons), rng.integers(1, 5, persons))
    sick = rng.random((persons, labels)) < np.linspace(0.4, 0.005, labels)
    truth = (sick[person] & (rng.random((len(person), labels)) < 0.9)).astype(np.int8)
    truth[rng.random(truth.shape) < 0.1] = -1
    return np.array([f"patient{number:05d}" for number in range(persons)], dtype=object)[person], truth


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_fractions_are_nested_and_made_of_whole_persons(seed: int) -> None:
    persons, labels = data()
    smaller: set[int] = set()
    for fraction in FRACTIONS:
        drawn = fractions.draw(persons, labels, fraction, seed)
        assert (np.diff(drawn) > 0).all()
        assert smaller <= set(drawn)
        assert np.array_equal(np.flatnonzero(np.isin(persons, persons[drawn])), drawn)
        assert len(set(persons[drawn])) == np.ceil(round(fraction * 1500, 6))
        smaller = set(drawn)
    assert smaller == set(range(len(persons)))


def test_seeds_differ_and_repeat() -> None:
    persons, labels = data()
    draws = {tuple(fractions.draw(persons, labels, 0.05, seed)) for seed in range(10)}
    assert len(draws) == 10
    assert tuple(fractions.draw(persons, labels, 0.05, 3)) in draws


def test_same_persons_whatever_the_order_of_the_rows() -> None:
    persons, labels = data()
    order = np.random.default_rng(0).permutation(len(persons))
    drawn = fractions.draw(persons, labels, 0.05, 0)
    shuffled = fractions.draw(persons[order], labels[order], 0.05, 0)
    assert set(order[shuffled]) == set(drawn)


@pytest.mark.slow
@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.5])
def test_prevalence_is_closer_to_the_whole_than_a_simple_draw(fraction: float) -> None:
    persons, labels = data()
    names = np.unique(persons)
    shows = np.array([(labels[persons == name] == 1).any(axis=0) for name in names])[:, :-1]

    def spread(samples: list[np.ndarray]) -> float:
        """Root mean squared distance of the positives' share of the persons from that of all persons."""
        return float(
            np.sqrt(np.mean([(shows[rows].mean(axis=0) - shows.mean(axis=0)) ** 2 for rows in samples]))
        )

    ours = [np.isin(names, persons[fractions.draw(persons, labels, fraction, seed)]) for seed in range(60)]
    rng = np.random.default_rng(0)
    simple = [rng.permutation(len(names))[: int(fraction * len(names))] for _ in range(60)]
    assert spread(ours) < 0.6 * spread(simple)


@pytest.mark.parametrize("seed", range(20))
def test_both_classes_of_every_label_are_there_as_soon_as_they_fit(seed: int) -> None:
    persons, labels = data(seed, persons=800)
    common = np.ones((len(labels), 1), dtype=np.int8)
    common[persons == persons[0]] = 0  # one single person without this finding
    labels = np.concatenate([labels, common], axis=1)
    drawn = labels[fractions.draw(persons, labels, 0.01, seed)]
    for value in (0, 1):
        assert np.array_equal((drawn == value).any(axis=0), (labels == value).any(axis=0))


@pytest.mark.parametrize("seed", range(10))
def test_no_more_persons_are_needed_than_show_all_classes(seed: int) -> None:
    persons, labels = np.arange(100), np.zeros((100, 2), dtype=np.int8)
    labels[0] = 1
    labels[1, 1] = 1  # shows nothing that the person before does not show
    drawn = labels[fractions.draw(persons, labels, 0.02, seed)]
    assert sorted(map(tuple, drawn)) == [(0, 0), (1, 1)]


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5])
def test_those_who_bring_a_class_in_early_count_as_its_share(fraction: float) -> None:
    persons = np.arange(1000)
    rare = (persons % 100 == 0).astype(np.int8)[:, None]  # 10 of 1000
    found = [rare[fractions.draw(persons, rare, fraction, seed)].sum() for seed in range(20)]
    assert np.mean(found) == pytest.approx(10 * fraction, abs=0.1)


def test_every_person_is_as_likely_as_another_once_classes_are_common() -> None:
    persons, labels = data(persons=60, labels=2)
    labels = np.where(np.arange(len(persons))[:, None] % 2 == 0, [1, 0], [0, 1])
    times = np.zeros(60)
    names = np.unique(persons)
    for seed in range(600):
        times += np.isin(names, persons[fractions.draw(persons, labels, 0.5, seed)])
    assert times / 600 == pytest.approx(0.5, abs=0.1)


def test_labels_nobody_has_do_not_matter() -> None:
    persons, labels = data(persons=100)
    labels[:, 1] = 0
    labels[:, 2] = -1
    drawn = fractions.draw(persons, labels, 0.1, 0)
    assert len(set(persons[drawn])) == 10
    assert np.array_equal(fractions.draw(persons, labels[:, [0, 3]], 0.1, 0), drawn)
    assert len(set(persons[fractions.draw(persons, labels[:, :0], 0.1, 0)])) == 10


@pytest.mark.parametrize("fraction", [0, 1.01, -0.1])
def test_a_fraction_is_above_0_and_at_most_1(fraction: float) -> None:
    with pytest.raises(UsageError):
        fractions.draw(*data(persons=10), fraction, 0)
