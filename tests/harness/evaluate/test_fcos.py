"""The detector's places lie where the encoder's maps say, and what it is taught it finds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.evaluate.fcos import Detector, Found
from harness.metrics.detection import intersection_over_union

CHANNELS = {4: 6, 8: 6, 16: 6, 32: 6}


def pyramid(side: int, count: int = 1) -> dict[int, Tensor]:
    """Maps of noise as a network makes them: half as large at each stage, rounded up."""
    generator = torch.Generator().manual_seed(side)
    sides = {stride: -(-side // stride) for stride in CHANNELS}
    return {
        stride: torch.randn(count, CHANNELS[stride], length, length, generator=generator)
        for stride, length in sides.items()
    }


def detector(channels: dict[int, int] = CHANNELS) -> Detector:
    torch.manual_seed(0)
    return Detector(channels)


@pytest.mark.parametrize("side", [80, 224, 299])
def test_places_are_strides_apart_in_pictures_of_any_size(side: int) -> None:
    _, levels = detector()._read(pyramid(side))
    for stride, squares in zip(CHANNELS, levels, strict=True):
        x, y = ((squares[:, :2] + squares[:, 2:]) / 2).T
        across = -(-side // stride)
        assert torch.equal(x.view(across, across)[0], torch.arange(across) * float(stride))
        assert torch.equal(y.view(across, across)[:, 0], torch.arange(across) * float(stride))
        assert (squares[:, 2] - squares[:, 0] == stride / 2).all()


def test_an_encoder_s_scale_does_not_matter() -> None:
    """Frozen maps of one encoder may be a hundred times as large as those of another."""
    maps = pyramid(80, count=2)
    scaled = {
        stride: maps[stride] * scale for stride, scale in zip(maps, (100.0, 0.1, 7.0, 1.0), strict=True)
    }
    plain, other = (
        detector().fcos.backbone({str(stride): each for stride, each in found.items()})
        for found in (maps, scaled)
    )
    for level in plain:
        torch.testing.assert_close(plain[level], other[level], rtol=0, atol=0.01)
        assert plain[level].std() > 0.5


def test_a_network_is_as_wide_as_its_encoder_allows() -> None:
    assert detector().width == 32  # group norm's least
    assert detector({4: 32, 8: 64, 16: 128, 32: 256}).width == 64
    assert detector({4: 256, 8: 512, 16: 1024, 32: 2048}).width == 256
    assert detector(dict.fromkeys(CHANNELS, 768)).width == 192


@pytest.mark.slow
def test_boxes_of_all_sizes_are_learned_by_heart() -> None:
    """A speck, a tall box and one that fills the picture, beside a picture without any."""
    true = torch.tensor([[8.0, 10, 14, 17], [40, 6, 60, 58], [1, 2, 78, 77]])
    maps, model = pyramid(80, count=2), detector()
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    for _ in range(80):
        optimizer.zero_grad()
        loss = model.loss(maps, [true, torch.empty(0, 4)])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    model.eval()
    first, second = model.find(maps)
    assert isinstance(first, Found) and first.boxes.min() >= 0 and first.boxes.max() <= 80
    best = intersection_over_union(true.double().numpy(), first.boxes[:10].double().numpy()).max(axis=1)
    assert (best > 0.6).all(), best
    assert first.scores[0] > 0.5 > 0.3 > max([*second.scores.tolist(), 0])
    assert torch.equal(first.scores, first.scores.sort(descending=True).values)


def test_pictures_without_a_box_have_a_finite_loss() -> None:
    loss = detector().loss(pyramid(80, count=3), [torch.empty(0, 4)] * 3)
    assert np.isfinite(loss.item())
