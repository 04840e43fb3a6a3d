"""How a head is trained on an encoder, or with it: steps, validations, and which weights stay.

Apart because layers, decoders of masks, detectors and fine-tuned encoders differ in what they learn and in
what counts as better, not in this.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from harness.errors import TrainingDiverged
from harness.evaluate.search import Best, Report, unheard
from harness.progress import Bar
from harness.records import Argument, HeadBlock

Item = TypeVar("Item")  # rows of a batch, or the batch itself

BATCH = 16  # MGCA, but for SIIM
VALIDATIONS = 20  # evenly spread over the steps
PUBLISHED = {"epochs": 50, "patience": 10}  # MGCA
LEAST_STEPS = 400  # MGCA's 50 epochs at most are, with 1 % of the labels, some 250 to 500


class Training(NamedTuple):
    learning_rate: float  # at its highest
    weight_decay: float
    batch: int
    validate_after: Sequence[int]  # steps from the start, one number per validation; the last ends it
    patience: int  # validations in a row without a better one that end it before
    schedule: Callable[[Optimizer, int], LRScheduler] | None  # of the rate over so many steps; None: constant
    best: Best


class Trained(NamedTuple):
    training: Training
    steps: list[int]  # that were done at each validation
    values: list[float]  # what was seen
    best: int  # the first validation with the best value, whose weights stay

    def block(self, name: str, **settings: Argument) -> HeadBlock:
        return HeadBlock(
            name=name,
            settings={
                "learning_rate": self.training.learning_rate,
                "weight_decay": self.training.weight_decay,
                "batch": self.training.batch,
                "steps": self.steps[-1],
                **settings,
            },
            chosen={"steps": self.steps[self.best]},
            candidates=tuple(map(float, self.steps)),
            validation=tuple(self.values),
        )


def validation_steps(sought: np.ndarray, epochs: int) -> Sequence[int]:
    """Steps after which the clean protocol validates. The last comes after so many `epochs`, but never before
    `LEAST_STEPS`. An epoch is twice as many pictures as there are `sought` [N] bool: each
    of them beside one without, as in MGCA's SIIM."""
    total = max(LEAST_STEPS, epochs * 2 * int(sought.sum()) / BATCH)
    return evenly(math.ceil(total / VALIDATIONS), VALIDATIONS)


def evenly(between: int, count: int) -> Sequence[int]:
    """So many validations, with so many steps before each."""
    return range(between, between * count + 1, between)


def train(
    name: str,
    head: nn.Module,
    training: Training,
    batches: Iterator[Item],
    loss: Callable[[Item], Tensor],
    validate: Callable[[], float],
    report: Report = unheard,
    groups: Sequence[dict[str, Any]] = (),
) -> Trained:
    """Leaves in `head` the state of its best validation; weights that need no gradient are not trained.

    `loss` is of a batch, `validate` gives the head's value on the validation part, and sets whatever mode
    it needs. `groups` of the head's weights may have rates of their own, as torch's optimizers take them;
    none: all have the training's. Raises TrainingDiverged, calling the head by its `name`, when a loss or
    what a validation gives is not finite.
    """
    every = [{"params": [weight for weight in head.parameters() if weight.requires_grad]}]
    optimizer = torch.optim.AdamW(groups or every, training.learning_rate, weight_decay=training.weight_decay)
    total = training.validate_after[-1]
    schedule = training.schedule(optimizer, total) if training.schedule else None
    first_best = np.argmin if training.best == "min" else np.argmax
    steps: list[int] = []
    values: list[float] = []
    best, state = 0, dict[str, Tensor]()
    with Bar(f"training the {name}", total, "steps") as bar:
        for planned in training.validate_after:
            head.train()
            losses: list[Tensor] = []  # reading one waits for the device
            for _ in range(planned - (steps[-1] if steps else 0)):
                optimizer.zero_grad()
                last = loss(next(batches))
                torch.autograd.backward(last)
                optimizer.step()
                losses.append(last.detach())
                if schedule:
                    schedule.step()
                bar.advance()
            steps.append(planned)
            first = planned - len(losses) + 1
            for step, value in enumerate(torch.stack(losses).tolist(), first):
                _require_finite(value, name, "loss", step)
            values.append(validate())
            _require_finite(values[-1], name, "validation value", planned)
            bar.note = f"{values[-1]:.3f} on validation"
            best = int(first_best(values))
            if best == len(values) - 1:
                state = {key: value.to("cpu", copy=True) for key, value in head.state_dict().items()}
            report(planned, total, values[best])
            if len(values) - best > training.patience:
                break
    head.load_state_dict(state)
    return Trained(training, steps, values, best)


def train_as_published(
    name: str,
    head: nn.Module,
    loss: Callable[[np.ndarray], Tensor],
    validate: Callable[[], float],
    *,
    count: int,
    batch: int,
    learning_rate: float,
    weight_decay: float,
    best: Best,
    seed: int,
) -> Trained:
    """`train` on `count` pictures as MGCA's code does: a validation after each epoch, at one rate."""
    training = Training(
        learning_rate,
        weight_decay,
        batch,
        validate_after=evenly(len(whole_batches(np.arange(count), batch)), PUBLISHED["epochs"]),
        patience=PUBLISHED["patience"],
        schedule=None,
        best=best,
    )
    return train(name, head, training, by_epochs(count, batch, np.random.default_rng(seed)), loss, validate)


def in_halves(sought: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Rows [BATCH], endless, half of them `sought` [N] bool; each half goes through all of its kind before
    any again."""
    halves = [_shuffled(np.flatnonzero(kind), rng) for kind in (sought, ~sought)]
    while True:
        yield np.array([row for half in halves for row in islice(half, BATCH // 2)])


def by_epochs(count: int, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Rows [size], endless: shuffles of `count` one after the other, each in `whole_batches`."""
    while True:
        yield from whole_batches(rng.permutation(count), size)


def whole_batches(rows: np.ndarray, size: int) -> list[np.ndarray]:
    """Without the incomplete last one, unless it is the only one."""
    return np.split(rows, range(size, len(rows), size))[: max(len(rows) // size, 1)]


def in_order(count: int, size: int) -> list[np.ndarray]:
    """Rows 0, 1, ... in batches, the last one smaller."""
    return np.split(np.arange(count), range(size, count, size))


def _shuffled(rows: np.ndarray, rng: np.random.Generator) -> Iterator[int]:
    while True:
        yield from rng.permutation(rows)


def _require_finite(value: float, name: str, what: str, step: int) -> None:
    if not math.isfinite(value):
        raise TrainingDiverged(
            f"the {name}'s {what} is {value} at step {step}. The checkpoint's weights may be broken, or too "
            "large for this kind's learning rates: look at the log of its pre-training"
        )
