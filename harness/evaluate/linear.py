"""The linear kind: logistic regression on pooled features of the frozen encoder.

Apart because the probe itself (`logistic.py`) knows features and labels only. Every label has a probe of its
own; in an exclusive task each tells one class from the rest, and their probabilities need not add up to 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.contracts import Task
from harness.evaluate import classifier, logistic
from harness.evaluate.bench import Bench, Examples
from harness.evaluate.classifier import Decision
from harness.evaluate.logistic import Labelled, Probe
from harness.records import HeadBlock

VERSION = 1


@dataclass(frozen=True)
class Linear:
    probe: Probe
    decision: Decision
    dtype: str  # of the features

    @property
    def block(self) -> HeadBlock:
        probe = self.probe
        return HeadBlock(
            name="logistic regression",
            settings={
                "features": len(probe.weights),
                "dtype": self.dtype,
                "decision": self.decision.rule,
            },
            chosen={"strength": probe.strength, **self.decision.chosen},  # inverse L2 strength C
            candidates=probe.grid,
            validation=probe.validation,
        )

    def predict(self, test: Examples) -> dict[str, np.ndarray]:
        return self.decision.arrays(test, self.probe.scores(test.features()))


check = classifier.check


def fit(bench: Bench, task: Task, train: Examples, validation: Examples, seed: int) -> Linear:
    """The optimum has no seed: the same features and labels give the same probe."""
    features, held_out = train.features(), validation.features()
    probe = logistic.fit(
        Labelled(features, train.labels),
        Labelled(held_out, validation.labels),
        task.labels,
        metric=classifier.SELECTION[task.metric],
    )
    decision = classifier.decide(task, validation, probe.scores(held_out))
    return Linear(probe, decision, str(features.dtype).removeprefix("torch."))
