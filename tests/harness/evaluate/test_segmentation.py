"""The decoder learns where something is, in native pixels, on an encoder that stays as it was."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from harness import registry
from harness.contracts import Geometry, ImageFeatures, Preprocessing, Split, Task
from harness.cost import Cost
from harness.data import locate, table
from harness.data.cache import Images, stored
from harness.data.decode import decode
from harness.data.locate import Located
from harness.data.splits import Parts
from harness.data.task_data import TaskData
from harness.errors import BadTable, EmptyClass, HarnessError, TrainingDiverged, UsageError
from harness.evaluate import figures, pyramid, segmentation, training
from harness.evaluate.bank import Source
from harness.evaluate.bench import Bench, Examples
from harness.evaluate.segmentation import Segmenter
from harness.metrics import score
from harness.phantom import Cohort
from tests import fakes

SIZE = 32
TASK = Task(
    kinds=("segmentation",),
    labels=("Square",),
    metric="dice",
    version=1,
    splits={"clean": Split(test=0.2, validation=0.2)},
)


class Pooling(nn.Module):
    """An encoder without weights: the picture at four resolutions. If it drifts, it counts pictures."""

    def __init__(self, *, drifts: bool = False) -> None:
        super().__init__()
        self.register_buffer("shown", torch.zeros(()))
        self.drifts = drifts

    def encode_image(self, x: Tensor) -> ImageFeatures:
        self.shown += len(x) * self.drifts
        return ImageFeatures(
            x.mean((2, 3)), None, None, {s: F.avg_pool2d(x, s).repeat(1, 8, 1, 1) for s in (4, 8, 16, 32)}
        )


def bench(
    pixels: np.ndarray, sizes: np.ndarray, encoder: nn.Module, geometry: Geometry, read_mask: object
) -> Bench:
    preprocessing = Preprocessing(SIZE, pixels.shape[1], geometry, (0.5,) * 3, (0.5,) * 3)
    return Bench(
        encoder=Source("pooling", 1, "c" * 64, "w" * 64, preprocessing, lambda: encoder),
        images=Images(pixels, sizes, "pictures", {}, True),
        banks=Path(),
        device=torch.device("cpu"),
        dtype="float32",
        cost=Cost(),
        read_mask=read_mask,  # type: ignore[arg-type]
    )


def read_square(cell: str, height: int, width: int) -> np.ndarray:
    top, left, side = map(int, cell.split())
    mask = np.zeros((height, width), dtype=bool)
    mask[top : top + side, left : left + side] = True
    return mask


@pytest.fixture
def made(tmp_path: Path) -> tuple[Bench, pd.DataFrame]:
    """60 wide pictures, every second with a bright square, in padded squares."""
    rng = np.random.default_rng(0)
    height, width, cells, pictures = 48, 64, [], []
    for number in range(60):
        picture = rng.integers(0, 80, (height, width), dtype=np.uint8)
        cells.append(f"{rng.integers(4, 24)} {rng.integers(4, 40)} 16" if number % 2 else "")
        if cells[-1]:
            picture[read_square(cells[-1], height, width)] += 150
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
        pictures.append(stored(decode(tmp_path / f"{number}.png"), 40, "pad"))
    sizes = np.tile(np.array([height, width], np.uint32), (60, 1))
    frame = pd.DataFrame({"image_id": [f"image-{n}" for n in range(60)], "mask": cells})
    frame["path"] = [str(tmp_path / f"{number}.png") for number in range(60)]
    return bench(np.stack(pictures), sizes, Pooling(), "pad", read_square), frame


def part(made: tuple[Bench, pd.DataFrame], rows: range) -> Examples:
    where, frame = made
    chosen = frame.iloc[list(rows)].reset_index(drop=True)
    return Examples(where, np.array(rows), chosen, (chosen[["mask"]] != "").to_numpy(np.int8))


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "LEAST_STEPS", 20)
    monkeypatch.setattr(segmentation, "EPOCHS", 0)


def fitted(made: tuple[Bench, pd.DataFrame], seed: int = 0, **changed: float) -> Segmenter:
    configuration = {**segmentation.SPACE.default, **changed}
    return segmentation.fit(
        made[0], TASK, part(made, range(30)), part(made, range(30, 40)), seed, configuration
    )


def test_a_configuration_is_told_and_each_validation_is_reported(
    made: tuple[Bench, pd.DataFrame], short: None
) -> None:
    asked = {"learning_rate": 2e-3, "weight_decay": 0.02}
    heard: list[tuple[int, int, float]] = []
    head = segmentation.fit(
        made[0],
        TASK,
        part(made, range(30)),
        part(made, range(30, 40)),
        0,
        asked,
        lambda *told: heard.append(told),
    )
    block = head.block
    assert {name: block.settings[name] for name in asked} == asked
    best = np.minimum.accumulate(block.validation)
    total = block.candidates[0] * training.VALIDATIONS
    assert heard == [(steps, total, value) for steps, value in zip(block.candidates, best, strict=True)]


@pytest.mark.slow
def test_squares_are_found_in_pictures_that_it_never_saw(
    made: tuple[Bench, pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "LEAST_STEPS", 200)
    head, test = fitted(made, learning_rate=1e-2), part(made, range(40, 60))
    arrays = head.predict(test)
    assert {name: array.dtype for name, array in arrays.items()} == dict.fromkeys(arrays, np.dtype(np.int64))
    assert arrays["truth_area"].tolist() == [0, 256] * 10  # native pixels
    rule = score.of("segmentation", arrays, TASK.labels)
    found = dict(zip(rule.names, rule(np.ones((20, 1)))[:, 0], strict=True))
    assert found["dice_positives"] > 0.7
    assert found["specificity"] == 1
    losses = head.block.validation
    assert head.block.chosen["steps"] == head.block.candidates[int(np.argmin(losses))]

    written = figures.save(tmp_path / "figures", head, test, arrays)
    assert sorted(path.stem for path in written) == [
        f"{kind}-{rank}-{n}" for kind in ("empty", "shows") for rank in ("best", "worst") for n in (1, 2)
    ]
    with Image.open(tmp_path / "figures" / "shows-best-1.png") as figure:
        assert figure.size == (figures.SIDE, figures.SIDE * 3 // 4 + figures.CAPTION)
        above_legend = np.asarray(figure)[: -figures.CAPTION]
    for colour in (figures.TRUE, figures.PREDICTED):
        assert (above_legend == colour).all(-1).any()


@pytest.mark.slow
def test_the_same_seed_is_the_same_decoder(made: tuple[Bench, pd.DataFrame], short: None) -> None:
    torch.manual_seed(5)
    first = fitted(made)
    torch.manual_seed(6)  # the global generator has no say
    again, other = fitted(made), fitted(made, seed=1)
    assert first.block == again.block != other.block
    for one, two in zip(first.decoder.parameters(), again.decoder.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.slow
def test_maps_that_do_not_fit_into_memory_give_the_same(
    made: tuple[Bench, pd.DataFrame], short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = fitted(made)
    monkeypatch.setattr("harness.evaluate.pyramid.MEMORY", 0)
    assert fitted(made).block.validation == pytest.approx(kept.block.validation, rel=1e-3)


def test_an_encoder_that_drifts_is_refused(made: tuple[Bench, pd.DataFrame], short: None) -> None:
    pixels, sizes = made[0].images.pixels, made[0].images.sizes
    drifting = bench(pixels, sizes, Pooling(drifts=True), "pad", read_square)
    with pytest.raises(HarnessError, match="changed its state while it encoded"):
        fitted((drifting, made[1]))


def test_weights_that_are_not_finite_are_named(made: tuple[Bench, pd.DataFrame], short: None) -> None:
    class Broken(Pooling):
        def encode_image(self, x: Tensor) -> ImageFeatures:
            return super().encode_image(x * math.nan)

    broken = bench(made[0].images.pixels, made[0].images.sizes, Broken(), "pad", read_square)
    with pytest.raises(TrainingDiverged, match="nan at step 1"):
        fitted((broken, made[1]))


def test_a_dataset_that_reads_no_masks_is_told_so(made: tuple[Bench, pd.DataFrame]) -> None:
    without = bench(made[0].images.pixels, made[0].images.sizes, Pooling(), "pad", None)
    with pytest.raises(UsageError, match="no read_mask"):
        fitted((without, made[1]))


def test_a_part_without_masks_is_refused_at_the_door(made: tuple[Bench, pd.DataFrame]) -> None:
    frame = made[1]
    labels = (frame[["mask"]] != "").to_numpy(np.int8)
    parts = Parts(train=np.arange(30), validation=np.arange(30, 40, 2), test=np.arange(40, 60))
    used = parts.train, parts.validation
    data = TaskData(Located(Path("there"), "real"), "", True, frame, labels, "f", parts, (), None, *used)
    with pytest.raises(EmptyClass, match="'mask' has no positive among the validation images"):
        segmentation.check(TASK, data)
    segmentation.check(TASK, replace(data, validation=np.arange(30, 40)))
    with pytest.raises(BadTable, match="there: the reader gave no column 'mask'"):
        segmentation.check(TASK, replace(data, frame=frame.drop(columns="mask")))


# --- truth goes to the network's view and back ---------------------------------------------------------


class Oracle(nn.Module):
    """A decoder that is told the truth, as shares at the network's size."""

    def __init__(self, shares: Tensor) -> None:
        super().__init__()
        self.shares: Iterator[Tensor] = iter(shares.split(segmentation.BATCH))

    def forward(self, pyramid: object, size: int) -> Tensor:
        return torch.logit(next(self.shares), eps=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["siim", "rsna"])
@pytest.mark.parametrize("geometry", ["stretch", "pad"])
def test_an_oracle_at_the_network_s_size_scores_almost_one(
    tmp_path: Path, name: str, geometry: Geometry
) -> None:
    """From the phantom's files through the official code of its masks to squares, and back to its pixels."""
    height, width, side = 96, 80, 64
    dataset = registry.load("tasks", name)
    locate.write(dataset, tmp_path / name, Cohort(name, 30, seed=1, size=(height, width)), workers=1)
    frame = table.read(dataset, tmp_path / name)
    frame = frame[frame["mask"] != ""].reset_index(drop=True)
    pixels = np.stack([stored(decode(Path(path)), side, geometry) for path in frame["path"]])
    sizes = np.tile(np.array([height, width], np.uint32), (len(frame), 1))
    where = bench(pixels, sizes, Pooling(), geometry, dataset.read_mask)
    examples = Examples(where, np.arange(len(frame)), frame, np.ones((len(frame), 1), np.int8))
    shares = segmentation._part(Pooling(), examples).truth.float() / 255
    head = Segmenter(Pooling(), Oracle(shares), None)  # type: ignore[arg-type]
    arrays = head.predict(examples)
    large = arrays["truth_area"] > 200  # of few pixels nothing is left at a third of the size
    assert large.sum() >= 5
    assert np.mean(head.quality(arrays)[large]) > 0.85


def test_an_encoder_that_gives_no_maps_is_named() -> None:
    class Pooled(nn.Module):
        def encode_image(self, x: Tensor) -> ImageFeatures:
            return ImageFeatures(x.mean(dim=(2, 3)), None, None, {})

    encoder: Any = Pooled()
    with pytest.raises(UsageError, match=r"Pooled gives no maps.*Fill `pyramid`"):
        pyramid.encode(encoder, torch.zeros(1, 10, 10, dtype=torch.uint8), fakes.PROFILE.preprocessing)
