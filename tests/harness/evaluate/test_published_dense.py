"""MGCA's decoder and detector: what moves, what is dropped, how Dice counts, and that they learn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import f1_score
from torch import Tensor, nn

from harness.contracts import ImageFeatures, PublishedSplit, Split
from harness.errors import HarnessError
from harness.evaluate import published_detection, published_segmentation, training, unet
from harness.evaluate.bank import frozen
from harness.evaluate.bench import Bench
from harness.evaluate.published_segmentation import InputSegmenter, mixed_loss, motion, moved
from harness.metrics import score
from harness.metrics.detection import kept, mean_average_precision
from tests.harness.evaluate import test_detection, test_segmentation
from tests.harness.evaluate.test_detection import Stairs, data, parts_of
from tests.harness.evaluate.test_segmentation import bench, made, part, read_square

__all__ = ["made"]  # a fixture

SPLIT = PublishedSplit("someone", (), 0.3, batch=8)
BOXES = replace(test_detection.TASK, splits={"published": SPLIT})
MASKS = replace(
    test_segmentation.TASK, splits={"published": replace(SPLIT, batch=None), "clean": Split(0.2, 0.2)}
)


class Normed(test_segmentation.Pooling):
    """Pooling behind a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def encode_image(self, x: Tensor) -> ImageFeatures:
        return super().encode_image(self.norm(x))


def normed(made: tuple[Bench, pd.DataFrame]) -> tuple[Bench, pd.DataFrame]:
    pixels, sizes = made[0].images.pixels, made[0].images.sizes
    return bench(pixels, sizes, Normed(), "pad", read_square), made[1]


# --- the decoder ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_squares_are_found_and_counted_at_the_input_s_size(
    made: tuple[Bench, pd.DataFrame], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published_segmentation, "RATE", 1e-2)
    monkeypatch.setitem(training.PUBLISHED, "epochs", 100)
    where = normed(made)
    train, validation, test = (part(where, rows) for rows in (range(30), range(30, 40), range(40, 60)))
    head = published_segmentation.fit(where[0], MASKS, train, validation, 0)
    arrays = head.predict(test)
    sides = 16 * 32 / 64  # of a square of 16 pixels in a picture of 64
    assert arrays["truth_area"][1::2] == pytest.approx(np.full(10, sides**2), rel=0.3)
    assert not arrays["truth_area"][::2].any()
    rule = score.of("segmentation", arrays, MASKS.labels)
    assert dict(zip(rule.names, rule(np.ones((20, 1)))[:, 0], strict=True))["dice_positives"] > 0.6
    block = head.block
    assert (
        block.settings["batch"] == 16 and block.candidates[0] == 1
    )  # of 30 pictures 16, the rest is dropped
    assert block.chosen["steps"] == block.candidates[int(np.argmin(block.validation))]
    norm = head.encoder.norm
    assert not torch.equal(norm.running_mean, torch.zeros(3))
    assert norm.num_batches_tracked == block.chosen["steps"]  # the best epoch's, not the last's
    assert torch.equal(norm.weight, torch.ones(3))


def test_dice_is_the_closed_form_and_counts_empty_pictures(made: tuple[Bench, pd.DataFrame]) -> None:
    """The share of pixels is thresholded above one half, on both sides; F1 of pixels is Dice."""
    test = part(made, range(4))
    shares = torch.rand(4, 32, 32, generator=torch.Generator().manual_seed(0))
    shares[2] = 0  # nothing is predicted where nothing is

    class Told(nn.Module):
        def forward(self, pyramid: object, size: int) -> Tensor:
            return torch.logit(shares, eps=1e-6)

    head = InputSegmenter(Normed(), Told(), None)  # type: ignore[arg-type]
    dice = head.quality(head.predict(test))
    truth = published_segmentation.true_shares(test).numpy() / 255 > 0.503
    assert dice[0] == 0 and dice[2] == 1
    for row in (1, 3):
        assert dice[row] == pytest.approx(f1_score(truth[row].ravel(), shares[row].numpy().ravel() > 0.5))


def test_the_loss_is_unet_s_but_where_a_mask_covers_half_a_pixel() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 5, generator=generator)
    hard = (torch.rand(3, 5, 5, generator=generator) > 0.5).float()
    assert mixed_loss(logits, hard).item() == pytest.approx(unet.loss(unet.loss_sums(logits, hard)).item())
    # one pixel, half covered: its weight is sigmoid(0)^2, its cross-entropy that of a coin
    x = 1.7
    p = 1 / (1 + np.exp(-x))
    focal = 0.25 * -(0.5 * np.log(p) + 0.5 * np.log(1 - p))
    expected = 10 * focal - np.log((2 * p * 0.5 + 1) / (p + 0.5 + 1))
    assert mixed_loss(torch.full((1, 1, 1), x), torch.full((1, 1, 1), 0.5)).item() == pytest.approx(expected)


def test_half_of_the_pictures_are_turned_and_zoomed_with_their_masks() -> None:
    where = motion(1_000, torch.Generator().manual_seed(0))
    still = (where == torch.eye(2, 3)).all(dim=(1, 2))
    assert 440 < still.sum() < 560
    zoom = 1 / torch.linalg.det(where[:, :, :2]).sqrt()
    angle = torch.atan2(where[:, 0, 1], where[:, 0, 0])
    assert 0.9 <= zoom.min() < 0.91 and 1.09 < zoom.max() <= 1.1
    assert np.radians(9.5) < angle.abs().max() <= np.radians(10) + 1e-6
    # a disc about the middle stays where it is, and is as much larger as the zoom says
    y, x = torch.meshgrid(*[torch.arange(64) - 31.5] * 2, indexing="ij")
    disc = (x**2 + y**2 < 400).float()
    areas = moved(disc.expand(50, 64, 64), where[:50]).sum(dim=(1, 2))
    assert (areas / disc.sum()).numpy() == pytest.approx(zoom[:50].numpy() ** 2, rel=0.02)


def test_weights_that_move_are_refused_all_the_same() -> None:
    model = Stairs()
    with frozen(model, torch.device("cpu"), but_statistics=True):
        model.norm.running_mean += 1
    with pytest.raises(HarnessError, match="changed its state"):
        with frozen(model, torch.device("cpu"), but_statistics=True), torch.no_grad():
            model.norm.weight += 1
    with pytest.raises(HarnessError, match="changed its state"), frozen(model, torch.device("cpu")):
        model.norm.running_mean += 1


# --- the detector --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_rectangles_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published_detection, "RATE", 3e-3)
    monkeypatch.setitem(training.PUBLISHED, "patience", 50)
    monkeypatch.setitem(training.PUBLISHED, "epochs", 150)
    made, found = data("pad", 60)
    train, validation, test = parts_of(made, found)
    head = published_detection.fit(made, BOXES, train, validation, 0)
    arrays = head.predict(test)
    assert (arrays["box_scores"] >= 0.5).all()
    assert arrays["kept"].tolist() == kept(arrays).tolist()
    # a cell and an anchor for each box and stride, and 20 pictures to learn it from: untrained it is 0
    assert mean_average_precision(arrays, skipping=True) > 0.1
    block = head.block
    assert block.candidates[0] == 3  # 30 pictures are three batches of 8
    judged = head.predict(validation.take(np.arange(8)))  # and 15 are one
    assert mean_average_precision(judged, skipping=True) == pytest.approx(max(block.validation))
    assert head.encoder.norm.num_batches_tracked == block.chosen["steps"]


def test_the_mean_that_skips_is_that_of_the_pictures_with_both() -> None:
    arrays = {
        "sizes": np.full((4, 2), 50, np.int32),
        "box_xyxy": np.array([[0, 0, 10, 10], [20, 20, 30, 30], [0, 0, 10, 10]], np.float32),
        "box_scores": np.array([0.6, 0.9, 0.8], np.float32),
        "box_image": np.array([0, 0, 1], np.int32),  # picture 1 has no true box, 2 no predicted one
        "truth_xyxy": np.array([[0, 0, 10, 10], [0, 0, 10, 10]], np.float32),
        "truth_image": np.array([0, 2], np.int32),
    }
    assert mean_average_precision(arrays, skipping=True) == 0.5  # right one after a false one
    without = {**arrays, "box_image": np.array([1, 1, 3], np.int32)}
    assert mean_average_precision(without, skipping=True) == 0
    assert mean_average_precision(arrays) < 0.5
