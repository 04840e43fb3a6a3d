"""A score of one metric alone: the number that it has among the others, on any weights."""

from __future__ import annotations

import numpy as np
import pytest

from harness.contracts import Kind
from harness.metrics import score

N, LABELS = 80, ("a", "b")
RNG = np.random.default_rng(0)
TRUTH = RNG.integers(2, size=(N, 2)).astype(np.int8)
SCORES = (RNG.normal(size=(N, 2)) + TRUTH).astype(np.float32)
CLASSIFIED = {"truth": TRUTH, "scores": SCORES, "decisions": (SCORES > 0).astype(np.int8)}
PROMPTED = {
    "truth": TRUTH,
    "scores": SCORES,
    "drawn": RNG.random((N, 3)) < 0.7,
    "prompt_scores": RNG.normal(size=(N, 4, 2)).astype(np.float16),
}
EXCLUSIVE = {
    **PROMPTED,
    "truth": np.eye(2, dtype=np.int8)[RNG.integers(2, size=N)],
    "decisions": SCORES.argmax(axis=1),
    "prompt_decisions": RNG.integers(2, size=(N, 4)),
}


@pytest.mark.parametrize(
    ("kind", "arrays", "metric"),
    [
        ("linear", CLASSIFIED, "macro_auroc"),
        ("linear", CLASSIFIED, "accuracy"),
        ("zero-shot", PROMPTED, "macro_auroc"),
        ("zero-shot", EXCLUSIVE, "accuracy"),
    ],
)
def test_one_metric_alone_is_what_it_is_among_the_others(
    kind: Kind, arrays: dict[str, np.ndarray], metric: str
) -> None:
    weights = RNG.integers(0, 3, size=(N, 5)).astype(np.float64)
    every, alone = (score.of(kind, arrays, LABELS, only) for only in (None, metric))
    expected = every(weights)[every.names.index(metric)]
    np.testing.assert_array_equal(alone(weights)[alone.names.index(metric)], expected)


def test_what_only_other_metrics_need_is_left_out() -> None:
    for kind, arrays in (("linear", CLASSIFIED), ("zero-shot", PROMPTED)):
        names = score.of(kind, arrays, LABELS, "macro_auroc").names  # type: ignore[arg-type]
        assert {name.partition(":")[0] for name in names} == {
            "macro_auroc",
            "auroc",
            "macro_average_precision",
            "average_precision",
        }
    assert not any("prompt" in name for name in score.of("zero-shot", EXCLUSIVE, LABELS, "accuracy").names)
