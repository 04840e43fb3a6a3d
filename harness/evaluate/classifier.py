"""What the kinds that give every label a score have in common: linear and finetune.

Apart because they must differ in how scores come about and in nothing else: the same parts are asked for, the
same metric selects, and scores become decisions and probabilities in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from harness.contracts import Task
from harness.data.task_data import TaskData
from harness.evaluate.bench import Examples, require_classes_in_each_part
from harness.metrics.auroc import macro_auroc
from harness.metrics.classification import accuracy, operating_points, require_one_label
from harness.records import Argument

SELECTION = {"macro_auroc": macro_auroc, "accuracy": accuracy}
"""The task's metric, of truth [N, L], scores [N, L] and labels: what validation is looked at for."""


def check(task: Task, data: TaskData) -> None:
    """Raises EmptyClass where a part lacks a class of a label, DataError where an image of an exclusive task
    has not one label."""
    require_classes_in_each_part(data, data.labels, task.labels)
    if task.exclusive:
        for rows, name in (
            (data.used, "the training images of this draw"),
            (data.validation, "the validation images"),
            (data.parts.test, "the test images"),
        ):
            require_one_label(data.labels[rows], task.labels, name)


def objective(logits: Tensor, truth: Tensor, exclusive: bool) -> Tensor:
    """Mean loss of `logits` [B, L] against `truth` [B, L] 1, 0 or -1 for unknown: cross-entropy between the
    labels of an exclusive task; else binary cross-entropy over what is known, 0 where nothing is."""
    if exclusive:
        return functional.cross_entropy(logits, truth.argmax(dim=1))
    known = truth >= 0
    losses = functional.binary_cross_entropy_with_logits(
        logits, truth.clamp(min=0).to(logits), reduction="none"
    )
    return (losses * known).sum() / known.sum().clamp(min=1)


def log_odds(logits: Tensor, exclusive: bool) -> np.ndarray:
    """[N, L] of each label from a network's outputs [N, L]: as they are, or in an exclusive task, where their
    softmax is p, log p / (1 - p)."""
    if exclusive:
        own = torch.eye(logits.shape[1], dtype=torch.bool, device=logits.device)
        others = torch.where(own, -torch.inf, logits[:, None])  # [N, L, L]
        logits = logits - others.logsumexp(dim=2)
    odds: np.ndarray = logits.cpu().numpy()
    return odds


@dataclass(frozen=True)
class Decision:
    """How log-odds become a yes or no: at a threshold per label, or for the largest in an exclusive task."""

    thresholds: Mapping[str, float] | None  # by label, in the task's order; None: exclusive

    @property
    def exclusive(self) -> bool:
        return self.thresholds is None

    @property
    def rule(self) -> str:
        return "largest score" if self.exclusive else "largest Youden index on validation"

    @property
    def chosen(self) -> dict[str, Argument]:
        return {f"threshold:{label}": value for label, value in (self.thresholds or {}).items()}

    def arrays(self, test: Examples, scores: np.ndarray) -> dict[str, np.ndarray]:
        """What is stored of the log-odds `scores` [N, L]: `truth` [N, L] int8, `scores` [N, L] float32, and
        `decisions` int8: [N, L] 1 or 0, of an exclusive task [N] the label's position."""
        scores = scores.astype(np.float32)
        if self.thresholds is None:
            decisions = scores.argmax(axis=1)
        else:
            decisions = scores >= np.array(list(self.thresholds.values()))
        return {
            "truth": test.labels.astype(np.int8),
            "scores": scores,
            "decisions": decisions.astype(np.int8),
        }


def decide(task: Task, validation: Examples, scores: np.ndarray) -> Decision:
    """The decision that suits the log-odds `scores` [N, L] of the validation part."""
    if task.exclusive:
        return Decision(None)
    points = operating_points(validation.labels, scores.astype(np.float32))
    return Decision(dict(zip(task.labels, points.tolist(), strict=True)))
