"""What linear and finetune share, shown with the linear head: parts, selection, decisions, probabilities."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, brier_score_loss, roc_curve

from harness.contracts import Task
from harness.data import published
from harness.errors import DataError, EmptyClass
from harness.evaluate import classifier, linear
from harness.evaluate.bench import Examples
from harness.evaluate.linear import Linear
from harness.metrics import score
from tests.harness.evaluate import parts
from tests.harness.evaluate.parts import CLASSES, LABELS, TASK


def fitted(folder: Path, task: Task, labels: np.ndarray) -> tuple[Linear, Examples, Examples]:
    train, validation, test = parts.examples(folder, labels, parts.pictures(labels))
    return linear.fit(train.bench, task, train, validation, seed=0), validation, test


def test_thresholds_are_those_of_validation_and_decide_on_test(tmp_path: Path) -> None:
    head, validation, test = fitted(tmp_path, TASK, parts.several(400))
    thresholds = {f"threshold:{label}": value for label, value in (head.decision.thresholds or {}).items()}
    assert head.block.chosen == {"strength": head.probe.strength, **thresholds}
    seen = head.predict(validation)
    for column in range(3):
        truth, scores = validation.labels[:, column], seen["scores"][:, column]
        wrong, right, _ = roc_curve(truth, scores)
        decided = seen["decisions"][:, column]
        assert decided[truth == 1].mean() - decided[truth == 0].mean() == pytest.approx((right - wrong).max())
    arrays = head.predict(test)
    assert np.array_equal(arrays["truth"], test.labels)
    assert np.array_equal(arrays["decisions"], arrays["scores"] >= list(thresholds.values()))
    measured = score.of("linear", arrays, LABELS)
    values = dict(zip(measured.names, measured(np.ones((len(test), 1)))[:, 0], strict=True))
    for column, label in enumerate(
        LABELS
    ):  # its scores are log-odds: what is measured are their probabilities
        probabilities = 1 / (1 + np.exp(-arrays["scores"][:, column].astype(float)))
        assert values[f"brier:{label}"] == pytest.approx(
            brier_score_loss(test.labels[:, column], probabilities)
        )


def test_an_exclusive_task_selects_and_decides_by_the_largest_log_odds(tmp_path: Path) -> None:
    head, validation, test = fitted(tmp_path, CLASSES, parts.one_of_each(400))
    assert head.block.chosen == {"strength": head.probe.strength}
    arrays = head.predict(test)
    assert np.array_equal(arrays["decisions"], arrays["scores"].argmax(axis=1))
    truth, decided = validation.labels.argmax(axis=1), head.predict(validation)["decisions"]
    assert max(head.block.validation) == accuracy_score(truth, decided)
    measure = score.of("linear", arrays, LABELS)
    values = dict(zip(measure.names, measure(np.ones((len(test), 1)))[:, 0], strict=True))
    assert values["accuracy"] == pytest.approx(
        accuracy_score(test.labels.argmax(axis=1), arrays["decisions"])
    )


def data(labels: np.ndarray, rules: tuple[str, ...] = ()) -> Any:
    n = len(labels)
    rows = SimpleNamespace(
        train=np.arange(n // 2), validation=np.arange(n // 2, 3 * n // 4), test=np.arange(3 * n // 4, n)
    )
    made: Any = SimpleNamespace(
        labels=labels, parts=rows, used=rows.train, validation=rows.validation, rules=rules
    )
    return made


def test_parts_are_checked_before_anything_is_fitted() -> None:
    for place, name in ((0, "training images of this draw"), (200, "validation"), (300, "test")):
        short = parts.several(400)
        short[place : place + (200 if place == 0 else 100), 1] = 0
        with pytest.raises(EmptyClass, match=f"'Fracture' has no positive among the {name}"):
            classifier.check(TASK, data(short))
        twice = parts.one_of_each(400)
        twice[place] = (1, 1, 0)
        classifier.check(TASK, data(twice))
        with pytest.raises(DataError, match=f"1 of the {name}.* are not of one class out of Edema, Fracture"):
            classifier.check(CLASSES, data(twice))


@pytest.mark.parametrize(
    ("rules", "cure"),
    [
        ((), "Use a larger --fraction or another --seed"),
        ((published.CLEAN_PARTS,), "Use a larger --fraction or another --seed"),
        ((published.BY_IMAGE, published.FRACTION_SAMPLED), "Use a larger --fraction"),
    ],
)
def test_no_other_seed_is_advised_where_all_seeds_draw_the_same(rules: tuple[str, ...], cure: str) -> None:
    short = parts.several(400)
    short[:200, 1] = 0
    drawn = data(short, rules)
    drawn.used = drawn.used[:20]
    with pytest.raises(EmptyClass, match=rf"\. {cure}$"):
        classifier.check(TASK, drawn)


@pytest.mark.parametrize("place", [0, 200, 300], ids=["training", "validation", "test"])
def test_a_label_that_a_whole_part_lacks_has_another_cure(place: int) -> None:
    """There is no larger fraction, and nothing is cut."""
    short = parts.several(400)
    short[place : place + (200 if place == 0 else 100), 1] = 0
    whole = data(short)
    with pytest.raises(
        EmptyClass, match=r"\. Use a dataset with more persons, or a task of your own as in docs"
    ):
        classifier.check(TASK, whole)
    if place == 200:
        whole.validation = whole.validation[:20]
        with pytest.raises(EmptyClass, match=r"\. Leave their labels uncut$"):
            classifier.check(TASK, whole)


def test_every_metric_of_these_kinds_can_be_selected_for() -> None:
    truth = parts.one_of_each(30)
    for metric in classifier.SELECTION:
        task = replace(CLASSES, metric=metric)
        assert classifier.SELECTION[task.metric](truth, truth.astype(float), LABELS) == 1
