"""Zero-shot metrics: a classifier's, over draws, and the spread of single prompts, counted again by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, roc_auc_score

from harness.metrics.zero_shot import ZeroShot

LABELS = ("a", "b", "c")
N, P = 60, 4
CLASS = np.arange(N) % 3
TRUTH = (CLASS[:, None] == np.arange(3)).astype(np.int8)


def tables(seed: int = 0) -> np.ndarray:
    """[P, N, 3] scores with some skill, exact as float16."""
    noise = np.random.default_rng(seed).integers(-64, 64, (P, N, 3)) / 64
    return noise + TRUTH * np.linspace(0, 0.75, P)[:, None, None]


def score(drawn: np.ndarray, *, decided: bool) -> ZeroShot:
    single = tables()
    together = single.mean(axis=0)
    arrays = {
        "truth": TRUTH,
        "scores": together,
        "prompt_scores": single.swapaxes(0, 1).astype(np.float16),
        "drawn": drawn,
    }
    if decided:
        arrays |= {"decisions": together.argmax(axis=1), "prompt_decisions": single.argmax(axis=2).T}
    return ZeroShot(arrays, LABELS)


def values(made: ZeroShot) -> dict[str, float]:
    return dict(zip(made.names, made(np.ones((N, 1)))[:, 0].tolist(), strict=True))


def test_accuracy_is_the_mean_over_draws_and_its_spread_that_of_single_prompts() -> None:
    drawn = np.random.default_rng(1).random((N, 5)) < 0.6
    found = values(score(drawn, decided=True))

    def accuracy(table: np.ndarray) -> float:
        return float(np.mean([accuracy_score(CLASS[draw], table[draw].argmax(axis=1)) for draw in drawn.T]))

    single = [accuracy(table) for table in tables()]
    assert found["accuracy"] == pytest.approx(accuracy(tables().mean(axis=0)))
    assert found["accuracy:lowest_prompt"] == pytest.approx(min(single))
    assert found["accuracy:highest_prompt"] == pytest.approx(max(single))
    assert min(single) < max(single)


def test_decisions_may_depend_on_the_draw() -> None:
    rng = np.random.default_rng(1)
    drawn = rng.random((N, 3)) < 0.6
    decisions, alone = rng.integers(3, size=(N, 3)), rng.integers(3, size=(N, P, 3))
    arrays = {
        "truth": TRUTH,
        "scores": tables().mean(axis=0),
        "decisions": decisions,
        "prompt_scores": tables().swapaxes(0, 1).astype(np.float16),
        "prompt_decisions": alone,
        "drawn": drawn,
    }
    found = values(ZeroShot(arrays, LABELS))

    def accuracy(decided: np.ndarray) -> float:
        return float(
            np.mean([accuracy_score(CLASS[draw], decided[draw, k]) for k, draw in enumerate(drawn.T)])
        )

    assert found["accuracy"] == pytest.approx(accuracy(decisions))
    assert found["accuracy:lowest_prompt"] == pytest.approx(min(accuracy(alone[:, p]) for p in range(P)))


def test_without_decisions_the_spread_is_of_the_area() -> None:
    found = values(score(np.ones((N, 1), dtype=bool), decided=False))
    single = [roc_auc_score(TRUTH, table, average="macro") for table in tables()]
    assert found["macro_auroc"] == pytest.approx(roc_auc_score(TRUTH, tables().mean(axis=0), average="macro"))
    assert found["macro_auroc:lowest_prompt"] == pytest.approx(min(single))
    assert found["macro_auroc:highest_prompt"] == pytest.approx(max(single))
    assert "accuracy" not in found


def test_an_oracle_is_right_with_every_prompt() -> None:
    perfect = {
        "truth": TRUTH,
        "scores": TRUTH.astype(float),
        "decisions": CLASS,
        "prompt_scores": np.repeat(TRUTH[:, None], P, axis=1).astype(np.float16),
        "prompt_decisions": np.repeat(CLASS[:, None], P, axis=1),
        "drawn": np.ones((N, 2), dtype=bool),
    }
    found = values(ZeroShot(perfect, LABELS))
    assert found["accuracy"] == found["accuracy:lowest_prompt"] == found["macro_auroc"] == 1
