"""The linear kind under the published protocol: the head that MGCA's code trains, on frozen features.

Apart because it is a different instrument from the clean protocol's probe: it ends where early stopping on
the validation loss ends it, depends on its seed, and is here so that numbers can be laid beside papers.
Source: MGCA 680fe4a, mgca/models/ssl_finetuner.py and mgca/models/mgca/mgca_finetuner.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from harness.contracts import Task
from harness.device import one_thread
from harness.errors import TrainingDiverged
from harness.evaluate import classifier
from harness.evaluate.bench import Bench, Examples
from harness.evaluate.classifier import Decision
from harness.evaluate.logistic import Labelled
from harness.records import HeadBlock

# of the class SSLFineTuner, its trainer and its callbacks
BATCH = 48
EPOCHS = 50
PATIENCE = 10
RATE = 5e-4
DECAY = 1e-6


check = classifier.check


class Trained(NamedTuple):
    layer: nn.Linear
    epoch: int  # whose weights are kept, counted from 1
    losses: tuple[float, ...]  # on validation, one per epoch

    def scores(self, features: Tensor, exclusive: bool) -> np.ndarray:
        """[N, L] float32 log-odds of `features` [N, D]."""
        with torch.inference_mode():
            return classifier.log_odds(self.layer(features.float()), exclusive)


@dataclass(frozen=True)
class MinibatchHead:
    trained: Trained
    exclusive: bool
    decision: Decision

    @property
    def block(self) -> HeadBlock:
        losses = self.trained.losses
        return HeadBlock(
            name="linear layer, AdamW",
            settings={
                "features": self.trained.layer.in_features,
                "batch": BATCH,
                "epochs": EPOCHS,
                "patience": PATIENCE,
                "rate": RATE,
                "decay": DECAY,
                "criterion": "lowest loss",
                "decision": self.decision.rule,
            },
            chosen={"epoch": self.trained.epoch, **self.decision.chosen},
            candidates=tuple(range(1, len(losses) + 1)),
            validation=losses,
        )

    def predict(self, test: Examples) -> dict[str, np.ndarray]:
        return self.decision.arrays(test, self.trained.scores(test.features(), self.exclusive))


def fit(bench: Bench, task: Task, train: Examples, validation: Examples, seed: int) -> MinibatchHead:
    held_out = Labelled(validation.features(), validation.labels)
    with one_thread():
        trained = train_head(
            Labelled(train.features(), train.labels), held_out, seed=seed, exclusive=task.exclusive
        )
    scores = trained.scores(held_out.features, task.exclusive)
    return MinibatchHead(trained, task.exclusive, classifier.decide(task, validation, scores))


def train_head(train: Labelled, validation: Labelled, *, seed: int, exclusive: bool = False) -> Trained:
    """The layer of the epoch with the lowest validation loss: the mean binary cross-entropy of what is known,
    or, where one label excludes the others, the cross-entropy over them. Raises TrainingDiverged when that
    loss is not finite.
    """
    loss = _one_of_all if exclusive else _each
    generator = torch.Generator().manual_seed(seed)
    features, truth = train.features.float(), torch.as_tensor(train.labels).to(train.features.device)
    held_out = validation.features.float(), torch.as_tensor(validation.labels).to(features.device)
    layer = _layer(features.shape[1], truth.shape[1], generator).to(features.device)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=RATE, weight_decay=DECAY)
    best, losses = {name: weights.clone() for name, weights in layer.state_dict().items()}, list[float]()
    while len(losses) < EPOCHS and len(losses) - _best(losses) < PATIENCE:
        order = torch.randperm(len(features), generator=generator).to(features.device)
        for rows in _whole_batches(order):
            optimizer.zero_grad()
            loss(layer(features[rows]), truth[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        with torch.inference_mode():
            rows = torch.cat(_whole_batches(torch.arange(len(held_out[0]), device=features.device)))
            losses.append(float(loss(layer(held_out[0][rows]), held_out[1][rows])))
        if not np.isfinite(losses[-1]):
            raise TrainingDiverged(
                f"the linear head's validation loss is {losses[-1]} after epoch {len(losses)}. Check the "
                "checkpoint's features for extreme values"
            )
        if _best(losses) == len(losses):
            best = {name: weights.clone() for name, weights in layer.state_dict().items()}
    layer.load_state_dict(best)
    return Trained(layer, _best(losses), tuple(losses))


def _layer(features: int, labels: int, generator: torch.Generator) -> nn.Linear:
    """With torch's initial weights of a linear layer, drawn from `generator`: uniform within 1/sqrt(D)."""
    layer = nn.Linear(features, labels)
    bound = features**-0.5
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.uniform_(-bound, bound, generator=generator)
    return layer


def _whole_batches(order: Tensor) -> list[Tensor]:
    """Batches of `BATCH`, without the incomplete last one unless it is the only one."""
    batches = list(torch.split(order, BATCH))
    return batches[:-1] if len(batches) > 1 and len(batches[-1]) < BATCH else batches


def _each(logits: Tensor, truth: Tensor) -> Tensor:
    """Of `truth` [n, L], -1 for unknown."""
    known = truth >= 0
    return binary_cross_entropy_with_logits(logits[known], truth[known].float())


def _one_of_all(logits: Tensor, truth: Tensor) -> Tensor:
    """Of `truth` [n, L] with a single 1 in each row."""
    return cross_entropy(logits, truth.argmax(dim=1))


def _best(losses: list[float]) -> int:
    """The first epoch with the lowest loss, counted from 1; 0 before any."""
    return int(np.argmin(losses)) + 1 if losses else 0
