"""The finetune kind: a linear layer on pooled features, trained together with the encoder below it.

Apart because it is the one kind of classification that changes the encoder, so that nothing of it can be
cached. Batch norm is as in pre-training: a step normalises by its own pictures and moves the running
averages, which validation and test use. The best weights on validation are the ones that are scored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from harness.contracts import Method, Task
from harness.data import transforms
from harness.device import autocast
from harness.evaluate import bank, classifier, training
from harness.evaluate.bench import Bench, Examples
from harness.evaluate.classifier import Decision
from harness.evaluate.search import Configuration, Range, Report, Space, unheard
from harness.evaluate.training import Trained, Training, by_epochs, in_order
from harness.records import Argument, HeadBlock

VERSION = 1

BATCH = 48  # as the classification heads of MGCA's code; fewer where a fraction has fewer images
EPOCHS, FEWEST = 5, 200
"""Passes over the training images, and the steps that they come to at least: a small fraction is seen more
often, since a handful of steps would leave every encoder where it was."""
SPACE = Space(
    "max",
    {
        # the encoder moves ten times slower than the layer that starts from nothing (discriminative rates:
        # Howard & Ruder, ACL 2018)
        "head_rate": Range(1e-3, 1e-4, 1e-2),
        "encoder_rate": Range(1e-4, 1e-5, 1e-3),
        "weight_decay": Range(0.01, 1e-4, 1.0),  # AdamW's own (Loshchilov & Hutter, ICLR 2019)
    },
)
WARM_UP = 0.1  # share of the steps in which the rates rise, linearly; then they fall as a cosine
VALIDATIONS = 10  # evenly spread over the steps
PATIENCE = 3  # validations in a row without a better value that end the training
AUGMENTATION = ("crop",)


class Batch(NamedTuple):
    view: Tensor  # [B, 3, size, size]
    truth: Tensor  # [B, L] int8: 1, 0 or -1 for unknown


class Classifier(nn.Module):
    """Features are brought to one scale before the layer, by a batch norm without weights of its own: a
    learning rate then means the same for every encoder (as in the probes of He et al., CVPR 2022, MAE)."""

    def __init__(self, encoder: nn.Module, width: int, start: Tensor) -> None:
        """`start` [L]: the log-odds that it gives to every picture before training."""
        super().__init__()
        self.encoder = encoder
        self.scale = nn.BatchNorm1d(width, affine=False)
        self.head = nn.Linear(width, len(start))
        nn.init.zeros_(self.head.weight)
        with torch.no_grad():
            self.head.bias.copy_(start)

    def forward(self, x: Tensor) -> Tensor:
        """`x` [B, 3, size, size] to logits [B, L]."""
        with autocast(x.device):
            pooled = cast(Method, self.encoder).encode_image(x).pooled
        # in float32: logits of bfloat16 are so coarse that pictures tie
        logits: Tensor = self.head(self.scale(pooled.float()))
        return logits


@dataclass(frozen=True)
class Finetuned:
    model: Classifier  # with the best weights
    decision: Decision
    settings: dict[str, Argument]
    trained: Trained  # by the task's metric on validation

    @property
    def block(self) -> HeadBlock:
        steps, values = self.trained.steps, self.trained.values
        return HeadBlock(
            name="linear layer on a fine-tuned encoder",
            settings=self.settings,
            chosen={"steps": steps[self.trained.best], **self.decision.chosen},
            candidates=tuple(steps),
            validation=tuple(values),
        )

    def predict(self, test: Examples) -> dict[str, np.ndarray]:
        return self.decision.arrays(test, log_odds(self.model, test, self.decision.exclusive))


check = classifier.check


def fit(
    bench: Bench,
    task: Task,
    train: Examples,
    validation: Examples,
    seed: int,
    configuration: Configuration = SPACE.default,
    report: Report = unheard,
) -> Finetuned:
    """The encoder and its layer as they were when `validation` gave the best value; of equals,
    the first. Raises TrainingDiverged when the loss is not finite."""
    torch.manual_seed(seed)  # for what an encoder draws by itself, such as dropout
    model = _start(bench, task, train)
    size = min(BATCH, len(train))
    total = max(EPOCHS * (len(train) // size), FEWEST)
    select = classifier.SELECTION[task.metric]
    trained = training.train(
        "fine-tuned encoder",
        model,
        Training(
            configuration["head_rate"],
            configuration["weight_decay"],
            size,
            validate_after=[-(-total * number // VALIDATIONS) for number in range(1, VALIDATIONS + 1)],
            patience=PATIENCE,
            schedule=lambda optimizer, steps: LambdaLR(optimizer, lambda done: rate(done + 1, steps)),
            best=SPACE.best,
        ),
        batches(train, size, seed),
        lambda batch: classifier.objective(model(batch.view), batch.truth, task.exclusive),
        lambda: select(validation.labels, log_odds(model, validation, task.exclusive), task.labels),
        report,
        [
            {"params": model.encoder.parameters(), "lr": configuration["encoder_rate"]},
            {"params": model.head.parameters()},
        ],
    )
    decision = classifier.decide(task, validation, log_odds(model, validation, task.exclusive))
    settings: dict[str, Argument] = {
        "batch": size,
        "steps": total,
        **configuration,
        "warm_up": WARM_UP,
        "patience": PATIENCE,
        "augmentation": "+".join(AUGMENTATION),
        "decision": decision.rule,
    }
    return Finetuned(model, decision, settings, trained)


def rate(step: int, total: int) -> float:
    """Share of the peak rate at a step, counted from 1."""
    rising = max(round(WARM_UP * total), 1)
    if step <= rising:
        return step / rising
    return 0.5 * (1 + math.cos(math.pi * (step - 1 - rising) / (total - rising)))


def batches(train: Examples, size: int, seed: int) -> Iterator[Batch]:
    """Endless, see `by_epochs`."""
    bench, views = train.bench, torch.Generator().manual_seed(seed)
    for rows in by_epochs(len(train), size, np.random.default_rng(seed)):
        view = transforms.training_view(
            train.on_device(rows), AUGMENTATION, bench.encoder.preprocessing, views
        )
        yield Batch(view, torch.from_numpy(train.labels[rows]).to(bench.device))


def log_odds(model: Classifier, examples: Examples, exclusive: bool) -> np.ndarray:
    """[N, L] in evaluation mode; see `classifier.log_odds`."""
    preprocessing = examples.bench.encoder.preprocessing
    model.eval()
    parts = []
    with torch.inference_mode():
        for rows in in_order(len(examples), 2 * BATCH):
            parts.append(model(transforms.evaluation_view(examples.on_device(rows), preprocessing)))
    return classifier.log_odds(torch.cat(parts), exclusive)


def _start(bench: Bench, task: Task, train: Examples) -> Classifier:
    """Before training: the encoder of the checkpoint, and a layer that knows how frequent each label is."""
    encoder = bench.encoder.build().requires_grad_(True)
    encoder.to(bench.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    positives, negatives = ((train.labels == value).sum(axis=0) for value in (1, 0))
    frequent = positives if task.exclusive else positives / negatives
    with torch.no_grad():
        view = transforms.evaluation_view(train.on_device(slice(1)), bench.encoder.preprocessing)
        found = cast(Method, encoder.eval()).encode_image(view)
        width = bank.pooled(found, 1, encoder).shape[1]
    return Classifier(encoder, width, torch.from_numpy(np.log(frequent))).to(bench.device)
