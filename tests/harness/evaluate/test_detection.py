"""White rectangles on grey noise: found by a detector on a frozen encoder, in the pictures' own pixels."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from harness.contracts import Geometry, ImageFeatures, Preprocessing, Split, Task
from harness.cost import Cost
from harness.data import cache
from harness.data.cache import Images
from harness.data.decode import Decoded
from harness.data.locate import Located
from harness.data.splits import Parts
from harness.data.task_data import TaskData
from harness.errors import BadTable, EmptyClass, TrainingDiverged
from harness.evaluate import detection, training
from harness.evaluate.bank import Source
from harness.evaluate.bench import Bench, Examples, examples
from harness.evaluate.detection import Finder
from harness.evaluate.fcos import Found
from harness.evaluate.figures import Drawable
from harness.metrics import score
from harness.metrics.detection import mean_average_precision

TASK = Task(("detection",), ("Opacity",), "mean_average_precision", 1, {"clean": Split(0.2, 0.2)})
SIZES = ((96, 128), (128, 96), (100, 100))  # native height and width, in turn
COUNT, SIDE = 60, 40


class Stairs(nn.Module):
    """A batch norm, then means and peaks at each stride of the picture, which is enlarged first."""

    def __init__(self, upsample: int | None = None) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.upsample = upsample

    def encode_image(self, x: Tensor) -> ImageFeatures:
        maps = self.norm(nn.functional.interpolate(x, self.upsample) if self.upsample else x)
        pools = (nn.functional.avg_pool2d, nn.functional.max_pool2d)
        pyramid = {
            stride: torch.cat([pool(maps, stride, ceil_mode=True) for pool in pools], dim=1)
            for stride in (4, 8, 16, 32)
        }
        return ImageFeatures(maps.mean(dim=(2, 3)), None, None, pyramid)


def data(geometry: Geometry = "pad", upsample: int | None = None) -> tuple[Bench, TaskData]:
    """Every third picture has no rectangle, the others one or two."""
    rng = np.random.default_rng(0)
    wanted = Preprocessing(SIDE, 48, geometry, (0.5,) * 3, (0.25,) * 3, upsample)
    squares, sizes, boxes = [], [], []
    for number in range(COUNT):
        height, width = SIZES[number % 3 - 1]
        pixels = rng.integers(60, 100, (height, width), dtype=np.uint8)
        own: list[tuple[float, float, float, float]] = []
        for half in range(number % 3):
            x, y = rng.integers(2, (width // 2 - 34, height - 50)).tolist()
            x += half * width // 2
            across, down = rng.integers(18, (32, 48)).tolist()
            pixels[y : y + down, x : x + across] = 255
            own.append((x, y, x + across, y + down))
        squares.append(cache.stored(Decoded(pixels, (), height, width), wanted.stored, geometry))
        sizes.append((height, width))
        boxes.append(own)
    images = Images(np.stack(squares), np.array(sizes, np.uint32), "rectangles", {}, True)
    source = Source("stairs", 1, "c" * 64, "w" * 64, wanted, lambda: Stairs(upsample))
    bench = Bench(source, images, Path("unused"), torch.device("cpu"), "float32", Cost())
    names = [f"{number:02d}" for number in range(COUNT)]
    frame = pd.DataFrame({"image_id": names, "person_id": names, "boxes": boxes})
    labels = np.array([[len(own) > 0] for own in boxes], np.int8)
    parts = Parts(np.arange(30), np.arange(30, 45), np.arange(45, COUNT))
    located = Located(Path("rectangles"), "real")
    used = parts.train, parts.validation
    return bench, TaskData(located, "", True, frame, labels, "f", parts, (), None, *used)


def parts_of(bench: Bench, found: TaskData) -> tuple[Examples, Examples, Examples]:
    train, validation, test = (examples(bench, found, rows) for rows in found.parts)
    return train, validation, test


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "LEAST_STEPS", 6)
    monkeypatch.setattr(detection, "EPOCHS", 1)
    monkeypatch.setattr(training, "VALIDATIONS", 3)


def fitted(bench: Bench, found: TaskData, seed: int = 0) -> tuple[Finder, dict[str, np.ndarray]]:
    train, validation, test = parts_of(bench, found)
    head = detection.fit(bench, TASK, train, validation, seed)
    return head, head.predict(test)


@pytest.mark.usefixtures("short")
def test_a_configuration_is_told_and_each_validation_is_reported() -> None:
    bench, found = data()
    train, validation, _ = parts_of(bench, found)
    asked = {"learning_rate": 2e-3, "weight_decay": 0.02}
    heard: list[tuple[int, int, float]] = []
    head = detection.fit(bench, TASK, train, validation, 0, asked, lambda *told: heard.append(told))
    block = head.block
    assert {name: block.settings[name] for name in asked} == asked
    best = np.maximum.accumulate(block.validation)
    total = block.candidates[0] * training.VALIDATIONS
    assert heard == [(steps, total, value) for steps, value in zip(block.candidates, best, strict=True)]


# --- what is found -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("geometry", "upsample"), [("pad", None), ("stretch", 60)])
def test_rectangles_are_found(
    geometry: Geometry, upsample: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "LEAST_STEPS", 100)
    monkeypatch.setattr(detection, "EPOCHS", 1)
    monkeypatch.setattr(training, "VALIDATIONS", 4)
    _, arrays = fitted(*data(geometry, upsample))
    measured = score.of("detection", arrays, TASK.labels)
    values = dict(zip(measured.names, measured(np.ones((15, 1)))[:, 0], strict=True))
    assert values["average_precision:0.50"] > 0.8, values
    assert values["image_auroc"] > 0.9 and values["sensitivity:1"] > 0.9


class Oracle(nn.Module):
    """Says what it was told, in pixels of what the encoder saw, for one batch of pictures after the other."""

    def __init__(self, boxes: list[Tensor]) -> None:
        super().__init__()
        self.boxes = boxes

    def find(self, pyramid: dict[int, Tensor]) -> list[Found]:
        now, self.boxes = self.boxes[: len(pyramid[4])], self.boxes[len(pyramid[4]) :]
        return [Found(boxes, torch.ones(len(boxes))) for boxes in now]


@pytest.mark.parametrize("geometry", ["pad", "stretch"])
@pytest.mark.parametrize("upsample", [None, 60])
def test_boxes_go_to_the_encoders_pixels_and_come_back(geometry: Geometry, upsample: int | None) -> None:
    bench, found = data(geometry, upsample)
    whole = examples(bench, found, np.arange(COUNT))
    part = detection._part(Stairs(upsample).eval(), whole)
    arrays = part.found(Oracle(part.boxes))
    truth = [box for boxes in found.frame["boxes"] for box in boxes]
    np.testing.assert_allclose(arrays["box_xyxy"], truth, atol=1e-3)
    np.testing.assert_array_equal(arrays["truth_xyxy"], np.array(truth, np.float32))
    np.testing.assert_array_equal(arrays["box_image"], arrays["truth_image"])
    assert mean_average_precision(arrays) == 1
    longest = upsample or SIDE
    for row in (1, 2):  # a box covers the bright pixels of what the encoder saw
        view = Image.fromarray(bench.images.pixels[row]).resize((longest, longest), Image.Resampling.BILINEAR)
        rows, columns = np.nonzero(np.asarray(view) > 178)
        corners = part.boxes[row].numpy()
        low, high = corners[:, :2].min(axis=0), corners[:, 2:].max(axis=0)
        np.testing.assert_allclose([columns.min(), rows.min()], low, atol=1)
        np.testing.assert_allclose([columns.max() + 1, rows.max() + 1], high, atol=1)


@pytest.mark.usefixtures("short")
def test_the_arrays_are_as_records_want_them() -> None:
    _, arrays = fitted(*data())
    count = len(arrays["box_image"])
    assert {name: (array.dtype.name, array.shape) for name, array in arrays.items()} == {
        "sizes": ("int32", (15, 2)),
        "box_xyxy": ("float32", (count, 4)),
        "box_scores": ("float32", (count,)),
        "box_image": ("int32", (count,)),
        "truth_xyxy": ("float32", (15, 4)),
        "truth_image": ("int32", (15,)),
    }
    assert (arrays["box_xyxy"][:, 2:] >= arrays["box_xyxy"][:, :2]).all()
    assert (arrays["box_xyxy"][:, 2:] <= arrays["sizes"][arrays["box_image"]][:, ::-1]).all()


@pytest.mark.usefixtures("short")
def test_what_is_drawn_are_the_likely_boxes_of_each_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, found = data()
    head, arrays = fitted(bench, found)
    assert isinstance(head, Drawable)
    monkeypatch.setattr(detection, "LEAST_DRAWN", float(np.quantile(arrays["box_scores"], 0.8)))
    *_, test = parts_of(bench, found)
    drawings = list(head.drawings(test))
    assert [len(one.truth) for one in drawings] == test.frame["boxes"].map(len).tolist()
    assert sum(len(one.predicted) for one in drawings) == pytest.approx(len(arrays["box_scores"]) / 5, abs=2)
    assert head.quality(arrays).shape == (len(test),)


# --- how it is trained --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("short")
def test_a_seed_fixes_the_result() -> None:
    bench, found = data()
    first, again, other = (fitted(bench, found, seed)[1] for seed in (3, 3, 4))
    for name, array in first.items():
        np.testing.assert_array_equal(array, again[name])
    assert not np.array_equal(first["box_scores"], other["box_scores"])


@pytest.mark.usefixtures("short")
def test_the_detector_kept_is_that_of_the_best_check() -> None:
    bench, found = data()
    _, validation, _ = parts_of(bench, found)
    head, _ = fitted(bench, found)
    block = head.block
    assert block.candidates == (2, 4, 6)
    assert mean_average_precision(head.predict(validation)) == max(block.validation)
    assert block.chosen["steps"] == block.candidates[int(np.argmax(block.validation))]


@pytest.mark.usefixtures("short")
def test_the_encoder_stays_as_it_was() -> None:
    bench, found = data()
    head, _ = fitted(bench, found)
    assert not any(module.training for module in head.encoder.modules())
    assert not any(weight.requires_grad for weight in head.encoder.parameters())
    for name, value in Stairs().state_dict().items():
        assert torch.equal(head.encoder.state_dict()[name], value), name


@pytest.mark.usefixtures("short")
def test_a_loss_that_is_no_number_ends_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, found = data()
    monkeypatch.setattr(Stairs, "encode_image", lambda _, x: broken(x))
    with pytest.raises(TrainingDiverged, match=r"loss is nan at step 1"):
        fitted(bench, found)


def broken(x: Tensor) -> ImageFeatures:
    pyramid = {s: torch.full((len(x), 6, -(-SIDE // s), -(-SIDE // s)), math.nan) for s in (4, 8, 16, 32)}
    return ImageFeatures(x.mean(dim=(2, 3)), None, None, pyramid)


# --- at the door --------------------------------------------------------------------------------------


def test_a_part_without_a_box_is_named() -> None:
    _, found = data()
    detection.check(TASK, found)
    empty = np.flatnonzero([not boxes for boxes in found.frame["boxes"]])
    with pytest.raises(EmptyClass, match="'box' has no positive among the training images of this draw"):
        detection.check(TASK, replace(found, used=empty))
    with pytest.raises(EmptyClass, match="'box' has no positive among the validation images"):
        detection.check(TASK, replace(found, validation=empty))
    with pytest.raises(EmptyClass, match="'box' has no positive among the test images"):
        detection.check(TASK, replace(found, parts=found.parts._replace(test=empty)))


def test_a_table_without_boxes_is_refused() -> None:
    _, found = data()
    with pytest.raises(BadTable, match="rectangles: the reader gave no column 'boxes'"):
        detection.check(TASK, replace(found, frame=found.frame.drop(columns="boxes")))
