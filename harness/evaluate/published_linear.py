"""The linear kind under the published protocol: the head that MGCA's code trains, on frozen features.

Apart because it is a different instrument from the clean protocol's probe: it ends where early stopping on
the validation loss ends it, depends on its seed, and is here so that numbers can be laid beside papers.
Source: MGCA 680fe4a, mgca/models/ssl_finetuner.py and mgca/models/mgca/mgca_finetuner.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from harness.contracts import Task
from harness.device import one_thread, seeded
from harness.evaluate import classifier, training
from harness.evaluate.bench import Bench, Examples
from harness.evaluate.classifier import Decision
from harness.evaluate.logistic import Labelled
from harness.evaluate.training import Trained
from harness.records import HeadBlock

VERSION = 1

# of the class SSLFineTuner, its trainer and its callbacks
BATCH = 48
RATE = 5e-4
DECAY = 1e-6


@dataclass(frozen=True)
class MinibatchHead:
    layer: nn.Linear
    trained: Trained
    decision: Decision

    @property
    def block(self) -> HeadBlock:
        found = self.trained.block(
            "linear layer, AdamW",
            **training.PUBLISHED,
            features=self.layer.in_features,
            criterion="lowest loss",
            decision=self.decision.rule,
        )
        return found.model_copy(update={"chosen": {**found.chosen, **self.decision.chosen}})

    def predict(self, test: Examples) -> dict[str, np.ndarray]:
        found = scores(self.layer, test.features(), self.decision.exclusive)
        return self.decision.arrays(test, found)


check = classifier.check


def fit(bench: Bench, task: Task, train: Examples, validation: Examples, seed: int) -> MinibatchHead:
    own, held_out = (Labelled(part.features(), part.labels) for part in (train, validation))
    with one_thread():
        layer, trained = train_head(own, held_out, seed=seed, exclusive=task.exclusive)
    found = scores(layer, held_out.features, task.exclusive)
    return MinibatchHead(layer, trained, classifier.decide(task, validation, found))


def train_head(
    train: Labelled, validation: Labelled, *, seed: int, exclusive: bool = False
) -> tuple[nn.Linear, Trained]:
    """The layer of the epoch with the lowest validation loss (see `classifier.objective`). Raises
    TrainingDiverged when a loss is not finite.
    """
    device = train.features.device
    features, truth = train.features.float(), torch.as_tensor(train.labels).to(device)
    whole = np.concatenate(training.whole_batches(np.arange(len(validation.features)), BATCH))
    held_out = validation.features.float()[whole], torch.as_tensor(validation.labels)[whole].to(device)
    with seeded(seed, device):
        layer = nn.Linear(features.shape[1], truth.shape[1])
    layer.to(device)

    def validate() -> float:
        with torch.inference_mode():
            return classifier.objective(layer(held_out[0]), held_out[1], exclusive).item()

    trained = training.train_as_published(
        "linear head",
        layer,
        lambda rows: classifier.objective(layer(features[rows]), truth[rows], exclusive),
        validate,
        count=len(features),
        batch=BATCH,
        learning_rate=RATE,
        weight_decay=DECAY,
        best="min",
        seed=seed,
    )
    return layer, trained


def scores(layer: nn.Linear, features: torch.Tensor, exclusive: bool) -> np.ndarray:
    """[N, L] float32 log-odds of `features` [N, D]."""
    with torch.inference_mode():
        return classifier.log_odds(layer(features.float()), exclusive)
