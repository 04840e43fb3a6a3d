"""Detection: FCOS on the pyramid of the frozen encoder, scored in the pictures' own pixels.

Apart because of its protocol. It is that of MGCA's released code, except that

- the encoder's running statistics are frozen too;
- the detector is FCOS, theirs is YOLOv3; boxes count from a low score on, theirs from 0.5;
- pictures without a box take part in every score, theirs are left out;
- at least 400 steps are planned, however few the labels, and the learning rate falls to zero;
- half of every batch has a box: of RSNA's pictures it would be a fifth.

The detector kept is that of the best mean average precision on the validation pictures, as theirs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from harness.contracts import Method, Preprocessing, Task
from harness.data.task_data import TaskData
from harness.device import seeded
from harness.errors import BadTable
from harness.evaluate import fcos, training
from harness.evaluate.bank import frozen
from harness.evaluate.bench import Bench, Examples, require_classes_in_each_part
from harness.evaluate.fcos import Detector, Found
from harness.evaluate.figures import Drawing
from harness.evaluate.pyramid import Pyramids
from harness.evaluate.search import Configuration, Range, Report, Space, unheard
from harness.evaluate.training import BATCH, Training
from harness.metrics.detection import kept, mean_average_precision, per_image
from harness.records import HeadBlock

VERSION = 1

SPACE = Space(
    "max",
    {
        "learning_rate": Range(1e-3, 1e-4, 1e-2),  # at first; it falls as a cosine: its mean is MGCA's 5e-4
        "weight_decay": Range(1e-6, 1e-6, 0.1),  # MGCA
    },
)
EPOCHS = 10
PATIENCE = 10  # validations in a row without a better one that end the training (MGCA)
LEAST_DRAWN = 0.3  # score from which a box is drawn; all that count would cover the picture


class Finds(Protocol):
    """A detector."""

    def eval(self) -> Self: ...

    def find(self, pyramid: Mapping[int, Tensor]) -> list[Found]:
        """Boxes of each picture, in pixels of what the encoder saw."""
        ...


@dataclass(frozen=True)
class Finder:
    encoder: nn.Module
    detector: Finds
    block: HeadBlock
    skipping: bool = False  # whether what the published metric skips is told

    def predict(self, test: Examples) -> dict[str, np.ndarray]:
        """`box_xyxy` [M, 4] and `truth_xyxy` [T, 4] float32 in native pixels, `box_scores` [M] float32,
        `box_image` [M] and `truth_image` [T] int32, the row of the test image that each belongs to,
        `sizes` [N, 2] int32, native height and width, and `kept` [N] bool where some are skipped."""
        with frozen(self.encoder, test.bench.device) as encoder:
            found = _part(encoder, test).found(self.detector)
        return found | ({"kept": kept(found)} if self.skipping else {})

    def quality(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """[N] in 0..1, of each picture by itself."""
        return per_image(arrays)

    def drawings(self, examples: Examples) -> Iterator[Drawing]:
        found = self.predict(examples)
        likely = found["box_scores"] >= LEAST_DRAWN
        for row in range(len(examples)):
            truth = found["truth_xyxy"][found["truth_image"] == row]
            yield Drawing(truth, found["box_xyxy"][likely & (found["box_image"] == row)])


def check(task: Task, data: TaskData) -> None:
    if "boxes" not in data.frame:
        raise BadTable(f"{data.located.root}: the reader gave no column 'boxes'; see TABLE_COLUMNS")
    boxed = _boxed(data.frame)[:, None].astype(np.int8)
    require_classes_in_each_part(data, boxed, ["box"])


def fit(
    bench: Bench,
    task: Task,
    train: Examples,
    validation: Examples,
    seed: int,
    configuration: Configuration = SPACE.default,
    report: Report = unheard,
) -> Finder:
    model = bench.encoder.build()
    with frozen(model, bench.device) as encoder:
        own, held_out = _part(encoder, train), _part(encoder, validation)
        with seeded(seed, bench.device):
            detector = Detector(own.maps.channels)
        detector.to(bench.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        boxed = _boxed(train.frame)
        trained = training.train(
            "detector",
            detector,
            Training(
                configuration["learning_rate"],
                configuration["weight_decay"],
                BATCH,
                validate_after=training.validation_steps(boxed, EPOCHS),
                patience=PATIENCE,
                schedule=CosineAnnealingLR,
                best=SPACE.best,
            ),
            training.in_halves(boxed, np.random.default_rng(seed)),
            lambda rows: own.loss(detector, rows),
            lambda: mean_average_precision(held_out.found(detector)),
            report,
        )
    block = trained.block("FCOS", width=detector.width, lowest_score=fcos.LOWEST_SCORE, overlap=fcos.OVERLAP)
    return Finder(model, detector, block)


class _Part(NamedTuple):
    examples: Examples
    maps: Pyramids
    boxes: list[Tensor]  # see `true_boxes`

    def loss(self, detector: Detector, rows: np.ndarray) -> Tensor:
        return detector.loss(self.maps[rows], [self.boxes[row] for row in rows])

    def found(self, detector: Finds) -> dict[str, np.ndarray]:
        """See `Finder.predict`."""
        batches = training.in_order(len(self.examples), BATCH)
        detector.eval()
        return arrays(self.examples, [one for rows in batches for one in detector.find(self.maps[rows])])


def _part(encoder: Method, examples: Examples) -> _Part:
    return _Part(examples, Pyramids(encoder, examples), true_boxes(examples))


def true_boxes(examples: Examples) -> list[Tensor]:
    """The boxes of each picture: [K, 4] xyxy float32, in pixels of the encoder's input."""
    preprocessing, device = examples.bench.encoder.preprocessing, examples.bench.device
    return [
        torch.from_numpy(examples.geometry(place).boxes_to_view(np.array(true)) * _zoom(preprocessing))
        .float()
        .to(device)
        for place, true in enumerate(examples.frame["boxes"])
    ]


def arrays(examples: Examples, found: Sequence[Found]) -> dict[str, np.ndarray]:
    """What `Finder.predict` returns, of what was `found` in each of the pictures."""
    zoom = _zoom(examples.bench.encoder.preprocessing)
    boxes = [
        examples.geometry(place).boxes_to_native(one.boxes.cpu().numpy() / zoom)
        for place, one in enumerate(found)
    ]
    truths = [np.reshape(true, (-1, 4)) for true in examples.frame["boxes"]]
    rows = np.arange(len(examples))
    return {
        "sizes": examples.sizes().astype(np.int32),
        "box_xyxy": np.concatenate(boxes).astype(np.float32),
        "box_scores": np.concatenate([one.scores.cpu().numpy() for one in found]),
        "box_image": np.repeat(rows, list(map(len, boxes))).astype(np.int32),
        "truth_xyxy": np.concatenate(truths).astype(np.float32),
        "truth_image": np.repeat(rows, list(map(len, truths))).astype(np.int32),
    }


def _zoom(preprocessing: Preprocessing) -> float:
    """Pixels of what the encoder saw, per pixel of its input: some enlarge it first."""
    return preprocessing.seen / preprocessing.size


def _boxed(frame: pd.DataFrame) -> np.ndarray:
    return frame["boxes"].map(len).to_numpy() > 0
