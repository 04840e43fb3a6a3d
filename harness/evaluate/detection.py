"""Detection: FCOS on the pyramid of a frozen encoder, scored in the pictures' own pixels.

Apart because of its protocol, that of MGCA's released code where nothing is said:

- the encoder is frozen with its running statistics, which theirs update;
- the head is FCOS, theirs YOLOv3; boxes count from a low score on, theirs from 0.5;
- the detector sees the whole picture and no augmentation, so that the encoder's maps are computed once;
- pictures without a box take part in training and in every score; theirs leaves them out of the score;
- the weights are those of the round with the best mean average precision on the validation pictures.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from harness.contracts import Preprocessing, Task
from harness.data.geometry import Frame
from harness.data.task_data import TaskData
from harness.errors import TrainingDiverged
from harness.evaluate import bank, fcos
from harness.evaluate.bench import Bench, Examples
from harness.evaluate.fcos import Detector
from harness.evaluate.pyramid import Pyramids
from harness.metrics.auroc import require_both_classes
from harness.metrics.detection import mean_average_precision
from harness.progress import Bar
from harness.records import HeadBlock

LEARNING_RATE, WEIGHT_DECAY, BATCH = 5e-4, 1e-6, 16  # MGCA
ROUNDS, PATIENCE = 50, 10  # MGCA's epochs
STEPS = 25  # of a round, at least: an epoch of 1 % of the labels would be one or two
"""A round is an epoch where that is longer."""


@dataclass(frozen=True)
class Detection:
    encoder: nn.Module
    detector: Detector
    block: HeadBlock

    def predict(self, test: Examples) -> dict[str, np.ndarray]:
        """`box_xyxy` [M, 4] and `truth_xyxy` [T, 4] float32 in native pixels, `box_scores` [M] float32,
        `box_image` [M] and `truth_image` [T], the row each belongs to, and `sizes` [N, 2], native height and
        width."""
        bench = test.bench
        with bank.frozen(self.encoder, bench.device) as encoder:
            pyramids = Pyramids(encoder, test.pixels(), bench.encoder.preprocessing, bench.device)
            return _found(self.detector, pyramids, test)


def check(task: Task, data: TaskData) -> None:
    there = (data.frame["boxes"].map(len).to_numpy() > 0).astype(np.int8)[:, None]
    for rows, name, cure in (
        (data.used, "the training images of this draw", "Use a larger --fraction or another --seed"),
        (data.parts.validation, "the validation images", "Use a dataset with more persons"),
        (data.parts.test, "the test images", "Use a dataset with more persons"),
    ):
        require_both_classes(there[rows], task.labels, name, cure)


def fit(bench: Bench, task: Task, train: Examples, validation: Examples, seed: int) -> Detection:
    """Raises TrainingDiverged when the loss is no longer a number."""
    model, preprocessing = bench.encoder.build(), bench.encoder.preprocessing
    with bank.frozen(model, bench.device) as encoder:
        seen = Pyramids(encoder, train.pixels(), preprocessing, bench.device)
        held_out = Pyramids(encoder, validation.pixels(), preprocessing, bench.device)
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            detector = Detector(seen.channels).to(bench.device)
        values = _train(detector, seen, _boxes_seen(train), held_out, validation, np.random.default_rng(seed))
    block = HeadBlock(
        name="FCOS",
        settings={
            "width": detector.width,
            "learning_rate": LEARNING_RATE,
            "weight_decay": WEIGHT_DECAY,
            "batch": BATCH,
            "steps_per_round": _steps(len(train)),
            "patience": PATIENCE,
            "lowest_score": fcos.LOWEST_SCORE,
            "overlap": fcos.OVERLAP,
        },
        chosen={"round": 1 + int(np.argmax(values))},
        candidates=tuple(range(1, len(values) + 1)),
        validation=values,
    )
    return Detection(model, detector, block)


def _train(
    detector: Detector,
    seen: Pyramids,
    boxes: list[Tensor],
    held_out: Pyramids,
    validation: Examples,
    rng: np.random.Generator,
) -> tuple[float, ...]:
    """Mean average precision on validation after each round. Leaves the best round's weights."""
    optimiser = torch.optim.AdamW(detector.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    values: list[float] = []
    chosen, weights = 0, detector.state_dict()
    with Bar("training the detector", ROUNDS, unit="rounds") as bar:
        for number in range(ROUNDS):
            loss = _round(detector, optimiser, seen, boxes, rng)
            values.append(mean_average_precision(_found(detector, held_out, validation)))
            if number == 0 or values[number] > values[chosen]:
                chosen, weights = number, copy.deepcopy(detector.state_dict())
            bar.advance(note=f"loss {loss:.3f}, validation mAP {values[number]:.3f}")
            if number - chosen == PATIENCE:
                break
    detector.load_state_dict(weights)
    return tuple(values)


def _round(
    detector: Detector,
    optimiser: torch.optim.Optimizer,
    seen: Pyramids,
    boxes: list[Tensor],
    rng: np.random.Generator,
) -> float:
    """One pass over the pictures in random order, repeated until there were enough steps; the mean loss."""
    detector.train()
    total = torch.zeros((), device=boxes[0].device)
    steps = _steps(len(seen))
    epochs = [rng.permutation(len(seen)) for _ in range(math.ceil(steps * BATCH / len(seen)))]
    order = np.concatenate(epochs)
    for start in range(0, steps * BATCH, BATCH):
        rows = order[start : start + BATCH]
        loss = detector.loss(seen[rows], [boxes[row] for row in rows])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        total += loss.detach()
    mean = float(total) / steps
    if not math.isfinite(mean):
        raise TrainingDiverged(f"the detector's loss became {mean}. Lower LEARNING_RATE in {__name__}")
    return mean


def _steps(pictures: int) -> int:
    return max(STEPS, math.ceil(pictures / BATCH))


# --- between native pixels and what the encoder saw ----------------------------------------------------


def _zoom(preprocessing: Preprocessing) -> float:
    """Pixels of what the encoder's network saw, per pixel of the view."""
    return (preprocessing.upsample or preprocessing.size) / preprocessing.size


def _frames(examples: Examples) -> list[Frame]:
    preprocessing = examples.bench.encoder.preprocessing
    return [Frame(int(height), int(width), preprocessing) for height, width in examples.sizes()]


def _boxes_seen(examples: Examples) -> list[Tensor]:
    """The true boxes of each picture, [K, 4] float32 on the device."""
    zoom, device = _zoom(examples.bench.encoder.preprocessing), examples.bench.device
    return [
        torch.tensor(frame.boxes_to_view(np.array(boxes)) * zoom, dtype=torch.float32, device=device)
        for frame, boxes in zip(_frames(examples), examples.frame["boxes"], strict=True)
    ]


def _found(detector: Detector, pyramids: Pyramids, examples: Examples) -> dict[str, np.ndarray]:
    """See `Detection.predict`."""
    preprocessing = examples.bench.encoder.preprocessing
    zoom, side = _zoom(preprocessing), preprocessing.upsample or preprocessing.size
    detector.eval()
    found = [one for _, pyramid in pyramids.batches() for one in detector.find(pyramid, side)]
    pairs = zip(_frames(examples), found, strict=True)
    boxes = [frame.boxes_to_native(one.boxes.cpu().numpy() / zoom) for frame, one in pairs]
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
