"""Segmentation: a U-Net decoder on the pyramid of the frozen encoder, scored in the pictures' own pixels.

Apart because of its protocol. It is that of MGCA's released code, except that

- the encoder's running statistics are frozen too;
- there is no augmentation, so that the encoder sees every picture once;
- at least 400 steps are planned, however few the labels, and the learning rate falls to zero;
- half of every batch has a mask, whatever the dataset (theirs balance SIIM, by dropping pictures).

The decoder kept is that of the lowest validation loss. Not of the best validation Dice: where most pictures
have no mask, that is the Dice of predicting nothing until a decoder is good, and would end its training.
For the same reason a mask begins at a probability of 0.5 and not at one that was chosen.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from harness.contracts import Method, Task
from harness.data.task_data import TaskData
from harness.device import autocast, seeded
from harness.errors import BadTable, UsageError
from harness.evaluate import pyramid, training, unet
from harness.evaluate.bank import frozen
from harness.evaluate.bench import Bench, Examples, require_classes_in_each_part
from harness.evaluate.figures import Drawing
from harness.evaluate.pyramid import Pyramids
from harness.evaluate.search import Configuration, Range, Report, Space, unheard
from harness.evaluate.training import BATCH, Training
from harness.metrics.segmentation import dice
from harness.progress import Bar
from harness.records import HeadBlock

VERSION = 1

SPACE = Space(
    "min",
    {
        "learning_rate": Range(1e-3, 1e-4, 1e-2),  # at first; it falls as a cosine: its mean is MGCA's 5e-4
        "weight_decay": Range(0.05, 1e-4, 1.0),  # MGCA
    },
)
EPOCHS = 20
PATIENCE = 5  # validations in a row without a lower one that end the training
THRESHOLD = 0.5


@dataclass(frozen=True)
class Segmenter:
    encoder: nn.Module
    decoder: unet.Unet
    block: HeadBlock

    def predict(self, test: Examples) -> dict[str, np.ndarray]:
        """`truth_area`, `predicted_area` and `overlap`, int64 [N]: native pixels."""
        counts = [
            (truth.sum(), predicted.sum(), (truth & predicted).sum()) for truth, predicted in self.masks(test)
        ]
        names = ("truth_area", "predicted_area", "overlap")
        return dict(zip(names, np.array(counts, dtype=np.int64).T, strict=True))

    def quality(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """[N] Dice of each picture."""
        return dice(arrays["truth_area"], arrays["predicted_area"], arrays["overlap"])

    def drawings(self, examples: Examples) -> Iterator[Drawing]:
        for truth, predicted in self.masks(examples):
            yield Drawing(truth, predicted)

    def masks(self, examples: Examples) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The true and the predicted mask of each picture, in order: [H, W] bool in its own pixels."""
        for place, probability in enumerate(self.probabilities(examples)):
            yield _mask(examples, place), examples.geometry(place).map_to_native(probability) >= THRESHOLD

    def probabilities(self, examples: Examples) -> Iterator[np.ndarray]:
        """For each picture the probability [size, size] float32 that a pixel of the encoder's input is in a
        mask."""
        bench = examples.bench
        preprocessing = bench.encoder.preprocessing
        self.decoder.eval()
        with frozen(self.encoder, bench.device) as encoder, Bar("segmenting", len(examples)) as bar:
            for rows in training.in_order(len(examples), BATCH):
                maps = pyramid.encode(encoder, examples.on_device(rows), preprocessing)
                with torch.inference_mode():
                    yield from decode(self.decoder, maps, preprocessing.size).sigmoid().cpu().numpy()
                bar.advance(len(rows))


def check(task: Task, data: TaskData) -> None:
    if "mask" not in data.frame:
        raise BadTable(f"{data.located.root}: the reader gave no column 'mask'; see TABLE_COLUMNS")
    masked = _masked(data.frame)[:, None].astype(np.int8)
    require_classes_in_each_part(data, masked, ["mask"])


def fit(
    bench: Bench,
    task: Task,
    train: Examples,
    validation: Examples,
    seed: int,
    configuration: Configuration = SPACE.default,
    report: Report = unheard,
) -> Segmenter:
    model = bench.encoder.build()
    with frozen(model, bench.device) as encoder:
        own, held_out = _part(encoder, train), _part(encoder, validation)
        decoder = new_decoder(own.maps.channels, bench, seed)
        trained = training.train(
            "decoder",
            decoder,
            Training(
                configuration["learning_rate"],
                configuration["weight_decay"],
                BATCH,
                validate_after=training.validation_steps(own.masked, EPOCHS),
                patience=PATIENCE,
                schedule=CosineAnnealingLR,
                best=SPACE.best,
            ),
            training.in_halves(own.masked, np.random.default_rng(seed)),
            lambda rows: unet.loss(own.sums(decoder, rows)),
            lambda: _loss(decoder, held_out),
            report,
        )
    return Segmenter(model, decoder, trained.block("U-Net", threshold=THRESHOLD))


def new_decoder(channels: Mapping[int, int], bench: Bench, seed: int) -> unet.Unet:
    with seeded(seed, bench.device):
        decoder = unet.Unet(channels)
    return decoder.to(bench.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


class _Part(NamedTuple):
    maps: Pyramids
    truth: Tensor  # see `true_shares`
    masked: np.ndarray  # [N] bool: there is a mask, of however few pixels

    def sums(self, decoder: unet.Unet, rows: np.ndarray) -> Tensor:
        """What `unet.loss` needs to know of `rows`."""
        logits = decode(decoder, self.maps[rows], self.truth.shape[-1])
        return unet.loss_sums(logits, self.truth[torch.from_numpy(rows)].to(logits) / 255)


def _part(encoder: Method, examples: Examples) -> _Part:
    return _Part(Pyramids(encoder, examples), true_shares(examples), _masked(examples.frame))


def true_shares(examples: Examples) -> Tensor:
    """[N, size, size] uint8 on the CPU: 255 times the share of a pixel of the encoder's input that the mask
    covers."""
    size = examples.bench.encoder.preprocessing.size
    truth = torch.zeros(len(examples), size, size, dtype=torch.uint8)
    for place in np.flatnonzero(_masked(examples.frame)).tolist():
        share = examples.geometry(place).mask_to_view(_mask(examples, place))
        truth[place] = torch.from_numpy((share * 255).round().astype(np.uint8))
    return truth


def _loss(decoder: unet.Unet, part: _Part) -> float:
    decoder.eval()
    with torch.inference_mode():
        sums = [part.sums(decoder, rows) for rows in training.in_order(len(part.masked), BATCH)]
        return unet.loss(torch.stack(sums).sum(dim=0)).item()


def decode(decoder: unet.Unet, maps: Mapping[int, Tensor], size: int) -> Tensor:
    """Logits [B, size, size] float32."""
    with autocast(next(iter(maps.values())).device):
        logits: Tensor = decoder(maps, size)
        return logits.float()


def _masked(frame: pd.DataFrame) -> np.ndarray:
    return (frame["mask"] != "").to_numpy()


def _mask(examples: Examples, place: int) -> np.ndarray:
    """[H, W] bool in native pixels."""
    height, width = examples.sizes()[place].tolist()
    cell = examples.frame["mask"].iloc[place]
    if not cell:
        return np.zeros((height, width), dtype=bool)
    if examples.bench.read_mask is None:
        raise UsageError(
            "the dataset's file has no read_mask(cell, height, width): see `Dataset` in harness/contracts.py"
        )
    return examples.bench.read_mask(cell, height, width)
