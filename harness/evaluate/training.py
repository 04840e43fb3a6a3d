"""How a head is trained on an encoder: steps, looks at validation, and which weights stay.

Apart because layers, decoders of masks and detectors differ in what they learn and in what counts as better,
not in this.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from harness.errors import TrainingDiverged
from harness.evaluate.search import Report, unheard
from harness.progress import Bar
from harness.records import Argument, HeadBlock

BATCH = 16  # MGCA, but for SIIM
LOOKS = 20  # at the validation part, evenly spread over the steps
PUBLISHED = {"epochs": 50, "patience": 10}  # MGCA
LEAST_STEPS = 400  # MGCA's 50 epochs at most are, with 1 % of the labels, some 250 to 500


class Course(NamedTuple):
    learning_rate: float  # at first, where it falls
    weight_decay: float
    batch: int
    between: int  # steps from one look at validation to the next
    looks: int  # at most
    patience: int  # looks in a row without a better one that end the training
    falls: bool  # whether the rate falls, as a cosine, to zero at the last look
    lowest: bool  # whether the lowest value is the best; else the highest


class Trained(NamedTuple):
    course: Course
    steps: list[int]  # that were done at each look
    values: list[float]  # what was seen
    best: int  # the first look with the best value, whose weights stay

    def block(self, name: str, **settings: Argument) -> HeadBlock:
        return HeadBlock(
            name=name,
            settings={
                "learning_rate": self.course.learning_rate,
                "weight_decay": self.course.weight_decay,
                "batch": self.course.batch,
                "steps": self.steps[-1],
                **settings,
            },
            chosen={"steps": self.steps[self.best]},
            candidates=tuple(map(float, self.steps)),
            validation=tuple(self.values),
        )


def between_looks(sought: np.ndarray, epochs: int) -> int:
    """Steps, under the clean protocol: they hardly depend on how many labels there are. An epoch is twice as
    many pictures as there are `sought` [N] bool: each of them beside one without, as in MGCA's SIIM."""
    return math.ceil(max(LEAST_STEPS, epochs * 2 * int(sought.sum()) / BATCH) / LOOKS)


def train(
    name: str,
    head: nn.Module,
    course: Course,
    batches: Iterator[np.ndarray],
    loss: Callable[[np.ndarray], Tensor],
    look: Callable[[], float],
    report: Report = unheard,
) -> Trained:
    """Leaves in `head` the state of its best look; weights that need no gradient are not trained.

    `loss` is of the rows of a batch, `look` is at the validation part, in whatever mode it wants the head.
    Raises TrainingDiverged, calling the head by its `name`, when one of them is not finite at a look.
    """
    weights = [weight for weight in head.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, course.learning_rate, weight_decay=course.weight_decay)
    total = course.looks * course.between
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total) if course.falls else None
    first_best = np.argmin if course.lowest else np.argmax
    steps: list[int] = []
    values: list[float] = []
    best, state = 0, dict[str, Tensor]()
    with Bar(f"training the {name}", total, "steps") as bar:
        while len(steps) < course.looks and len(steps) - best <= course.patience:
            head.train()
            for _ in range(course.between):
                optimizer.zero_grad()
                last = loss(next(batches))
                last.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                if falling:
                    falling.step()
            steps.append(course.between * (len(steps) + 1))
            _require_finite(last.item(), name, "loss", steps[-1])
            values.append(look())
            _require_finite(values[-1], name, "validation value", steps[-1])
            bar.advance(course.between, f"{values[-1]:.3f} on validation")
            best = int(first_best(values))
            if best == len(values) - 1:
                state = copy.deepcopy(head.state_dict())
            report(steps[-1], total, values[best])
    head.load_state_dict(state)
    return Trained(course, steps, values, best)


def train_as_published(
    name: str,
    head: nn.Module,
    loss: Callable[[np.ndarray], Tensor],
    look: Callable[[], float],
    *,
    count: int,
    batch: int,
    learning_rate: float,
    weight_decay: float,
    lowest: bool,
    seed: int,
) -> Trained:
    """`train` on `count` pictures as MGCA's code does: a look after each epoch, at one rate."""
    course = Course(
        learning_rate,
        weight_decay,
        batch,
        between=len(whole_batches(np.arange(count), batch)),
        looks=PUBLISHED["epochs"],
        patience=PUBLISHED["patience"],
        falls=False,
        lowest=lowest,
    )
    return train(name, head, course, by_epochs(count, batch, np.random.default_rng(seed)), loss, look)


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


def _require_finite(value: float, name: str, what: str, steps: int) -> None:
    if not math.isfinite(value):
        raise TrainingDiverged(
            f"the {name}'s {what} is {value} after {steps} steps. Check the checkpoint's weights"
        )
