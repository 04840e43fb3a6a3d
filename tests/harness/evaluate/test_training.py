"""The loop that heads share, on a head of one number: which steps it takes, when it ends, what stays."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from harness.errors import TrainingDiverged
from harness.evaluate import training
from harness.evaluate.search import Best, Report, unheard
from harness.evaluate.training import BATCH, Trained, Training

TRAINING = Training(
    0.5, 0.0, 4, validate_after=training.evenly(2, 5), patience=2, schedule=CosineAnnealingLR, best="min"
)


class Walker(nn.Module):
    """Its loss has the slope 1, so that Adam walks down by the rate in each step."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(()))
        self.fixed = nn.Parameter(torch.ones(()), requires_grad=False)
        self.seen: list[float] = []  # where it was at each validation


def walk(
    seen: list[float], plan: Training = TRAINING, loss: float = 1.0, report: Report = unheard
) -> tuple[Walker, Trained]:
    """`seen` are the values at the validations."""
    head = Walker()

    def validate() -> float:
        head.seen.append(head.place.item())
        return seen[len(head.seen) - 1]

    def slope(rows: np.ndarray) -> Tensor:
        return loss * head.place * head.fixed * rows.mean()

    ones: Iterator[np.ndarray] = iter([np.ones(4)] * 100)
    return head, training.train("walker", head, plan, ones, slope, validate, report)


def test_the_rate_falls_as_a_cosine_to_zero() -> None:
    head, trained = walk([5, 4, 3, 2, 1])
    rates = 0.25 * (1 + np.cos(np.pi * np.arange(10) / 10))  # Adam's step is the rate
    assert head.seen == pytest.approx(-np.cumsum(rates)[1::2], rel=1e-5)
    assert trained.steps == [2, 4, 6, 8, 10] and trained.best == 4
    assert head.fixed.item() == 1
    constant, _ = walk([5, 4, 3, 2, 1], TRAINING._replace(schedule=None))
    assert constant.seen == pytest.approx([-1, -2, -3, -4, -5], rel=1e-5)


def test_decay_shrinks_the_weights_by_its_share_of_the_rate() -> None:
    decayed, _ = walk([5, 4, 3, 2, 1], TRAINING._replace(schedule=None, weight_decay=0.1))
    assert decayed.seen[0] == pytest.approx(-0.5 * (1 - 0.5 * 0.1) - 0.5)  # two steps from 0


@pytest.mark.parametrize("best", ["min", "max"])
def test_what_stays_is_the_first_of_the_best_and_waiting_ends(best: Best) -> None:
    sign = 1 if best == "min" else -1
    head, trained = walk([sign * value for value in (3, 1, 1, 2, 0)], TRAINING._replace(best=best))
    assert trained.values == [sign * value for value in (3, 1, 1, 2)]  # two validations after the best
    assert trained.best == 1 and head.place.item() == head.seen[1] != head.seen[-1]
    block = trained.block("walk", threshold=0.5)
    assert block.chosen == {"steps": 4} and block.candidates == (2, 4, 6, 8)
    assert block.settings["steps"] == 8 and block.settings["threshold"] == 0.5


def test_what_is_not_finite_is_named() -> None:
    with pytest.raises(TrainingDiverged, match="the walker's loss is nan at step 1"):
        walk([1.0], loss=math.nan)
    with pytest.raises(TrainingDiverged, match="the walker's validation value is inf at step 4"):
        walk([1.0, math.inf])


def test_validations_may_be_unevenly_far_apart_and_groups_have_rates_of_their_own() -> None:
    uneven = TRAINING._replace(validate_after=(1, 4, 5), schedule=None)
    head, trained = walk([3, 2, 1], uneven)
    assert trained.steps == [1, 4, 5] and head.seen == pytest.approx([-0.5, -2, -2.5], rel=1e-5)
    groups = [{"params": [(other := Walker()).place], "lr": 0.1}]
    ones: Iterator[np.ndarray] = iter([np.ones(4)] * 100)
    training.train("walker", other, uneven, ones, lambda _: 1 * other.place, lambda: 0.0, groups=groups)
    assert other.place.item() == pytest.approx(-0.1, rel=1e-5)  # as at the first of equal validations


def test_half_of_a_batch_is_sought_and_each_picture_has_its_turn() -> None:
    sought = np.arange(40) < 10
    batches = training.in_halves(sought, np.random.default_rng(0))
    seen = [next(batches) for _ in range(10)]
    assert all(sought[rows].sum() == BATCH // 2 for rows in seen)
    times = np.bincount(np.concatenate(seen), minlength=40)
    assert set(times[sought]) == {8} and set(times[~sought]) == {2, 3}


def test_few_labels_have_the_least_steps_and_many_have_epochs() -> None:
    assert training.validation_steps(np.ones(10, bool), 20)[-1] == training.LEAST_STEPS
    many = np.arange(4_000) < 1_600  # with as many others, 200 batches an epoch
    assert training.validation_steps(many, 20)[-1] == 4_000
    assert len(training.validation_steps(many, 20)) == training.VALIDATIONS


def test_each_validation_is_reported_with_the_best_so_far() -> None:
    heard: list[tuple[int, int, float]] = []
    walk([3, 1, 2, 0, 5], report=lambda *told: heard.append(told))
    assert heard == [(2, 10, 3), (4, 10, 1), (6, 10, 1), (8, 10, 0), (10, 10, 0)]
