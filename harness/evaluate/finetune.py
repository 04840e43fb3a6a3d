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

from harness.contracts import Method, Task
from harness.data import transforms
from harness.device import autocast
from harness.errors import TrainingDiverged
from harness.evaluate import classifier
from harness.evaluate.bench import Bench, Examples
from harness.evaluate.classifier import Decision
from harness.evaluate.search import Configuration, Range, Report, Space, unheard
from harness.evaluate.training import by_epochs, in_order
from harness.progress import Bar
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
LOOKS = 10  # at the validation part, evenly spread over the steps
PATIENCE = 3  # looks without a better value that end the training
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
    looks: tuple[int, ...]  # steps that were done at each look
    values: tuple[float, ...]  # the task's metric on validation, at each look

    @property
    def block(self) -> HeadBlock:
        return HeadBlock(
            name="linear layer on a fine-tuned encoder",
            settings=self.settings,
            chosen={"steps": self.looks[int(np.argmax(self.values))], **self.decision.chosen},
            candidates=self.looks,
            validation=self.values,
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
    """The encoder and its layer as they were at the look at `validation` that had the best value; of equals,
    the first. Raises TrainingDiverged when the loss is not finite."""
    torch.manual_seed(seed)  # for what an encoder draws by itself, such as dropout
    model = _start(bench, task, train)
    size = min(BATCH, len(train))
    total = max(EPOCHS * (len(train) // size), FEWEST)
    source = batches(train, size, seed)
    looks, values = _train(model, task, validation, source, total, configuration, report)
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
    return Finetuned(model, decision, settings, looks, values)


def _train(
    model: Classifier,
    task: Task,
    validation: Examples,
    source: Iterator[Batch],
    total: int,
    configuration: Configuration,
    report: Report,
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Leaves the best weights in `model`; steps and value of each look."""
    optimizer = torch.optim.AdamW(
        [
            {"params": model.encoder.parameters(), "peak": configuration["encoder_rate"]},
            {"params": model.head.parameters(), "peak": configuration["head_rate"]},
        ],
        weight_decay=configuration["weight_decay"],
    )
    looks: list[int] = []
    values: list[float] = []
    losses: list[Tensor] = []  # since the last look: reading one waits for the device
    best: dict[str, Tensor] = {}
    with Bar("fine-tuning", total, "steps") as bar:
        for step in range(1, total + 1):
            x, truth = next(source)
            model.train()
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * rate(step, total)
            loss = classifier.objective(model(x), truth, task.exclusive)
            torch.autograd.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.detach())
            bar.advance(note=bar.note)
            if step * LOOKS // total == (step - 1) * LOOKS // total:
                continue
            _require_finite(losses, step)
            losses.clear()
            scores = log_odds(model, validation, task.exclusive)
            looks.append(step)
            values.append(classifier.SELECTION[task.metric](validation.labels, scores, task.labels))
            report(step, total, max(values))
            bar.note = f"{task.metric} {values[-1]:.3f} on validation"
            waited = len(values) - 1 - int(np.argmax(values))
            if waited == 0:
                best = {name: value.to("cpu", copy=True) for name, value in model.state_dict().items()}
            elif waited == PATIENCE:
                break
    model.load_state_dict(best)
    return tuple(looks), tuple(values)


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
        width = cast(Method, encoder.eval()).encode_image(view).pooled.shape[1]
    return Classifier(encoder, width, torch.from_numpy(np.log(frequent))).to(bench.device)


def _require_finite(losses: list[Tensor], step: int) -> None:
    broken = (~torch.isfinite(torch.stack(losses))).nonzero()
    if len(broken):
        number = step - len(losses) + 1 + int(broken[0])
        raise TrainingDiverged(
            f"the loss of step {number} of fine-tuning is not finite. The checkpoint's weights may be "
            "broken, or too large for this kind's learning rates: look at the log of its pre-training"
        )
