"""The detection kind under the published protocol: YOLOv3 as MGCA's code trains it, faults included.

Apart because it is a different instrument from the clean protocol's: the encoder's batch norms move, what
ends the training is counted in epochs, a box counts from a score of 0.5, and the best epoch is chosen by the
mean average precision that skips pictures.
Source: MGCA 680fe4a, mgca/models/ssl_detector.py and mgca/models/mgca/mgca_detector.py. What is not theirs is
named by the last rules of this head in `harness/data/published.py`; and boxes are cut off at the edge of
their picture, and an epoch without a picture that counts has the value 0, as one whose boxes are all wrong
(there -1: the first epoch with any is a better one).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from harness.contracts import Method, Task
from harness.data import published
from harness.device import seeded
from harness.errors import EmptyClass
from harness.evaluate import detection, pyramid, training, yolo
from harness.evaluate.bank import frozen
from harness.evaluate.bench import Bench, Examples
from harness.evaluate.detection import Finder, arrays, true_boxes
from harness.evaluate.fcos import Found
from harness.evaluate.yolo import Yolo
from harness.metrics.detection import mean_average_precision

VERSION = 1

RATE = 5e-4
DECAY = 1e-6

check = detection.check


def fit(bench: Bench, task: Task, train: Examples, validation: Examples, seed: int) -> Finder:
    model, batch, preprocessing = bench.encoder.build(), published.batch(task), bench.encoder.preprocessing
    whole = np.concatenate(training.whole_batches(np.arange(len(validation)), batch))
    judged, boxes = validation.take(whole), true_boxes(train)
    if not judged.frame["boxes"].map(len).any():
        raise EmptyClass(
            f"no box is left among the validation images (n = {len(judged)}): their incomplete last batch is "
            "dropped. Use a dataset with more persons"
        )
    torch.manual_seed(seed)  # for what an encoder draws by itself, such as dropout
    with frozen(model, bench.device, but_statistics=True) as encoder:
        with seeded(seed, bench.device):
            channels = pyramid.channels(encoder, train.on_device(slice(1)), preprocessing)
            detector = Yolo(channels, preprocessing.seen)
        detector.to(bench.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        both = nn.ModuleList((model, detector))  # so that the best epoch's statistics are kept with it

        def loss(rows: np.ndarray) -> Tensor:
            maps = pyramid.encode(encoder, train.on_device(rows), preprocessing)
            return detector.loss(maps, [boxes[row] for row in rows])

        def validate() -> float:
            both.eval()
            found = list(_found(encoder, detector, judged, batch))
            return mean_average_precision(arrays(judged, found), skipping=True)

        trained = training.train_as_published(
            "detector",
            both,
            loss,
            validate,
            count=len(train),
            batch=batch,
            learning_rate=RATE,
            weight_decay=DECAY,
            best="max",
            seed=seed,
        )
    block = trained.block(
        "YOLOv3, statistics moving",
        **training.PUBLISHED,
        criterion="highest mean_average_precision:skipping",
        lowest_score=yolo.SURE,
        overlap=yolo.OVERLAP,
    )
    return Finder(model, detector, block, skipping=True)


def _found(encoder: Method, detector: Yolo, examples: Examples, batch: int) -> Iterator[Found]:
    for rows in training.in_order(len(examples), batch):
        maps = pyramid.encode(encoder, examples.on_device(rows), examples.bench.encoder.preprocessing)
        yield from detector.find(maps)
