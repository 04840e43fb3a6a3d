"""YOLOv3's parts against a plain loop over places, against their own inverse, and on what they can learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.evaluate import yolo
from harness.evaluate.yolo import ANCHORS, Yolo, assign, decode, stride_loss

CHANNELS = {4: 8, 8: 8, 16: 12, 32: 16}
ANCHOR_SIZES = torch.tensor([[40.0, 30.0], [24.0, 50.0], [120.0, 110.0]])
STRIDE, GRID = 16, (5, 6)
BOXES = [
    torch.tensor([[3.0, 5, 40, 37], [50, 10, 74, 62]]),
    torch.empty(0, 4),
    torch.tensor([[0.0, 2, 96, 78], [80, 66, 95, 79]]),  # the last in the last cell
]


def outputs(seed: int = 0) -> Tensor:
    return torch.randn(len(BOXES), 3, *GRID, yolo.OUTPUTS, generator=torch.Generator().manual_seed(seed))


def log_sigmoid(logit: float) -> float:
    return -math.log1p(math.exp(-logit))


def plain_loss(raw: np.ndarray) -> float:
    """As published, one true box and one place after the other: dictionaries of what is where."""
    there: dict[tuple[int, ...], tuple[float, ...]] = {}
    quiet = set()
    for image, boxes in enumerate(BOXES):
        for x0, y0, x1, y1 in boxes.tolist():
            x, y, w, h = ((x0 + x1) / 32, (y0 + y1) / 32, (x1 - x0) / 16, (y1 - y0) / 16)
            i, j = int(x), int(y)
            overlaps = []
            for across, down in (ANCHOR_SIZES / STRIDE).tolist():
                both = (min(w, across) + 1) * (min(h, down) + 1)
                overlaps.append(both / ((w + 1) * (h + 1) + (across + 1) * (down + 1) - both))
            quiet |= {(image, a, j, i) for a, overlap in enumerate(overlaps) if overlap > 0.5}
            best = overlaps.index(max(overlaps))
            across, down = (ANCHOR_SIZES[best] / STRIDE).tolist()
            there[image, best, j, i] = (x - i, y - j, math.log(w / across), math.log(h / down))
    total = 0.0
    for place in np.ndindex(*raw.shape[:4]):
        out = raw[place].tolist()
        if place in there:
            x, y, w, h = there[place]
            for target, logit in ((x, out[0]), (y, out[1])):
                total -= 2.5 * (target * log_sigmoid(logit) + (1 - target) * log_sigmoid(-logit))
            total += 2.5 * ((out[2] - w) ** 2 + (out[3] - h) ** 2)
            total -= log_sigmoid(out[4]) + log_sigmoid(out[5])
        if place not in quiet:
            total -= 0.5 * log_sigmoid(-out[4])
    return total / (raw.size / yolo.OUTPUTS)


@pytest.mark.parametrize("seed", range(3))
def test_the_loss_is_that_of_a_plain_loop(seed: int) -> None:
    raw = outputs(seed)
    value = stride_loss(raw, assign(BOXES, ANCHOR_SIZES, STRIDE, GRID))
    assert value.item() == pytest.approx(plain_loss(raw.double().numpy()), rel=1e-5)


def test_an_anchor_that_fits_badly_is_taught_a_box_and_that_none_is_there() -> None:
    speck = assign([torch.tensor([[20.0, 20, 22, 21]])], ANCHOR_SIZES * 2, STRIDE, GRID)
    assert speck.there.sum() == 1 and speck.empty.all()
    fits = assign([torch.tensor([[0.0, 0, 40, 30]])], ANCHOR_SIZES, STRIDE, GRID)
    assert fits.there[0, 0, 0, 1] and not fits.empty[0, 0, 0, 1]


def test_what_is_assigned_is_decoded_to_the_same_box() -> None:
    there, _, coded = assign(BOXES, ANCHOR_SIZES, STRIDE, GRID)
    raw = torch.full((*there.shape, yolo.OUTPUTS), -9.0)
    raw[..., :2] = torch.logit(coded[..., :2], eps=1e-6)
    raw[..., 2:4] = coded[..., 2:]
    raw[..., 4][there] = 9.0
    boxes, scores = decode(raw, ANCHOR_SIZES, STRIDE)
    for found, sure, true in zip(boxes, scores > 0.5, BOXES, strict=True):
        decoded = sorted(found[sure].tolist())
        np.testing.assert_allclose(
            np.reshape(decoded, (-1, 4)), np.reshape(sorted(true.tolist()), (-1, 4)), atol=1e-3
        )


def test_duplicates_go_by_boxes_one_pixel_larger() -> None:
    """Against a plain loop: a box stays unless one that stays, and is better, overlaps it by half."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 20, (60, 2))
    boxes = np.hstack([corners, corners + rng.uniform(1, 9, (60, 2))])
    scores = rng.uniform(0.3, 1, 60)
    kept: list[int] = []
    for row in np.argsort(-scores):
        overlaps = []
        for other in kept:
            low, high = (
                np.maximum(boxes[row, :2], boxes[other, :2]),
                np.minimum(boxes[row, 2:], boxes[other, 2:]),
            )
            both = (high - low + 1).clip(min=0).prod()
            areas = [(boxes[r, 2:] - boxes[r, :2] + 1).prod() for r in (row, other)]
            overlaps.append(both / (sum(areas) - both))
        if scores[row] >= 0.5 and all(overlap < 0.5 for overlap in overlaps):
            kept.append(int(row))
    found = yolo._without_duplicates(torch.from_numpy(boxes), torch.from_numpy(scores))
    assert 5 < len(kept) < (scores >= 0.5).sum()
    np.testing.assert_array_equal(found.boxes.numpy(), boxes[kept])
    np.testing.assert_array_equal(found.scores.numpy(), scores[kept])


def test_a_resnet_50_has_the_published_network() -> None:
    """Weights counted by hand: at each stride three blocks of 1x1 and three of 3x3, then 18 outputs."""
    model = Yolo({8: 512, 16: 1024, 32: 2048}, 224)

    def embedding(wide: int, width: int) -> int:
        between = 2 * width * width  # of a 1x1 between both widths
        convolutions = wide * width + 2 * between + 3 * 9 * between
        norms = 2 * (3 * width + 3 * 2 * width)
        return convolutions + norms + 2 * width * 18 + 18

    joins = 512 * 256 + 2 * 256 + 256 * 128 + 2 * 128
    expected = embedding(2048, 512) + embedding(1024 + 256, 256) + embedding(512 + 128, 128) + joins
    assert sum(weight.numel() for weight in model.parameters()) == expected
    assert torch.equal(model.anchors[32][2], torch.tensor([373, 326]) * (224 / 416))


@pytest.mark.parametrize("side", [80, 299])
def test_maps_of_any_size_are_read(side: int) -> None:
    maps = {s: torch.zeros(2, c, -(-side // s), -(-side // s)) for s, c in CHANNELS.items()}
    read = Yolo(CHANNELS, side)(maps)
    assert {s: raw.shape for s, raw in read.items()} == {
        s: (2, 3, -(-side // s), -(-side // s), yolo.OUTPUTS) for s in ANCHORS
    }


@pytest.mark.slow
def test_boxes_are_learned_by_heart() -> None:
    generator = torch.Generator().manual_seed(0)
    true = torch.tensor([[8.0, 10, 20, 27], [40, 6, 60, 58]])
    maps = {s: torch.randn(2, c, -(-80 // s), -(-80 // s), generator=generator) for s, c in CHANNELS.items()}
    torch.manual_seed(0)
    model = Yolo(CHANNELS, 80)
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    for _ in range(200):
        optimizer.zero_grad()
        model.loss(maps, [true, torch.empty(0, 4)]).backward()
        optimizer.step()
    first, second = model.eval().find(maps)
    assert len(second.boxes) == 0
    for box in true:
        assert ((first.boxes - box).abs().max(dim=1).values < 6).any(), first
