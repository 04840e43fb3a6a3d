"""Which numbers a kind of task has, as functions of how much each test image weighs.

Apart because a value, its interval over persons and its interval over seeds and persons then need one piece
of code (`harness/stats.py`) for every kind: resampling persons is weighing images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
from scipy.special import expit

from harness.contracts import Kind
from harness.metrics.classification import Classification
from harness.metrics.detection import Detections
from harness.metrics.retrieval import Retrieval
from harness.metrics.segmentation import Overlaps
from harness.metrics.zero_shot import ZeroShot


class Score(Protocol):
    """Metrics of one cell. Everything that does not depend on weights (sorting, matching) is done before."""

    @property
    def names(self) -> tuple[str, ...]:
        """M metrics with values in 0..1, the task's own among them."""
        ...

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """[M, R] for R weightings `weights` [N, R] of the N test rows; NaN where a metric is undefined."""
        ...


def _classification(arrays: Mapping[str, np.ndarray], labels: Sequence[str]) -> Score:
    """Scores of these kinds are log-odds: probabilities need not be stored beside them."""
    return Classification({**arrays, "probabilities": expit(arrays["scores"].astype(np.float64))}, labels)


def _only(metric: str, arrays: Mapping[str, np.ndarray], labels: Sequence[str]) -> Score:
    """A classifier's, without calibration and single prompts."""
    kept = {name: arrays[name] for name in NEEDED[metric] if name in arrays}
    return ZeroShot(kept, labels) if "drawn" in kept else Classification(kept, labels)


def _segmentation(arrays: Mapping[str, np.ndarray], labels: Sequence[str]) -> Score:
    return Overlaps(arrays["truth_area"], arrays["predicted_area"], arrays["overlap"])


NEEDED: Mapping[str, Sequence[str]] = {
    "macro_auroc": ("truth", "scores", "drawn"),
    "accuracy": ("truth", "scores", "drawn", "decisions"),
}
"""Arrays that a classifier is ranked by."""

SCORES: Mapping[Kind, Callable[[Mapping[str, np.ndarray], Sequence[str]], Score]] = {
    "linear": _classification,
    "finetune": _classification,
    "segmentation": _segmentation,
    "detection": Detections,
    "zero-shot": ZeroShot,
    "retrieval": Retrieval,
}


def of(
    kind: Kind, arrays: Mapping[str, np.ndarray], labels: Sequence[str], metric: str | None = None
) -> Score:
    """The score of a cell's stored `arrays`; see the kind's file in `harness/evaluate/` for what they are.

    With a `metric`, others may be left out, where that saves time. Raises EmptyClass when a metric is
    undefined on these rows.
    """
    return _only(metric, arrays, labels) if metric and metric in NEEDED else SCORES[kind](arrays, labels)
