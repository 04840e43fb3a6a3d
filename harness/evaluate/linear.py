"""The linear kind: logistic regression on pooled features of the frozen encoder.

Apart because the probe itself (`logistic.py`) knows features and labels only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.contracts import Task
from harness.data.task_data import TaskData
from harness.evaluate import logistic
from harness.evaluate.bench import Bench, Examples
from harness.evaluate.logistic import Labelled, Probe
from harness.metrics.auroc import require_both_classes
from harness.records import HeadBlock


@dataclass(frozen=True)
class Linear:
    probe: Probe
    dtype: str  # of the features

    @property
    def block(self) -> HeadBlock:
        probe = self.probe
        return HeadBlock(
            name="logistic regression",
            settings={"features": len(probe.weights), "dtype": self.dtype},
            chosen={"strength": probe.strength},  # inverse L2 strength C
            candidates=probe.grid,
            validation=probe.validation,
        )

    def predict(self, test: Examples) -> dict[str, np.ndarray]:
        """`truth` [N, L] int8 and `scores` [N, L] float32 log-odds."""
        scores = self.probe.scores(test.features()).astype(np.float32)
        return {"truth": test.labels.astype(np.int8), "scores": scores}


def check(task: Task, data: TaskData) -> None:
    for rows, name, cure in (
        (data.used, "the training images of this draw", "Use a larger --fraction or another --seed"),
        (data.parts.validation, "the validation images", "Use a dataset with more persons"),
        (data.parts.test, "the test images", "Use a dataset with more persons"),
    ):
        require_both_classes(data.labels[rows], task.labels, name, cure)


def fit(bench: Bench, task: Task, train: Examples, validation: Examples, seed: int) -> Linear:
    """The optimum has no seed: the same features and labels give the same probe."""
    features = train.features()
    probe = logistic.fit(
        Labelled(features, train.labels), Labelled(validation.features(), validation.labels), task.labels
    )
    return Linear(probe, str(features.dtype).removeprefix("torch."))
