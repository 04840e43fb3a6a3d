"""Views: what is cropped, turned and normalised, against counts by hand and torchvision."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms.v2 import functional as referee

from harness.contracts import Preprocessing
from harness.data import transforms
from harness.errors import UsageError

PLAIN = Preprocessing(4, 6, "pad", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_evaluation_view_is_the_centre_and_fills_three_channels() -> None:
    pixels = torch.arange(36, dtype=torch.uint8).view(1, 6, 6)
    view = transforms.evaluation_view(pixels, PLAIN)
    assert view.shape == (1, 3, 4, 4)
    assert torch.equal((view[0] * 255).round().to(torch.uint8), pixels[:, 1:5, 1:5].expand(3, 4, 4))


def test_normalisation_is_the_card_s() -> None:
    shape = Preprocessing(2, 2, "pad", (0.5, 0.25, 0.0), (0.5, 0.25, 2.0))
    view = transforms.evaluation_view(torch.full((1, 2, 2), 255, dtype=torch.uint8), shape)
    assert view[0, :, 0, 0].tolist() == pytest.approx([1.0, 3.0, 0.5])


def test_random_crops_come_from_everywhere_and_are_crops() -> None:
    pixels = torch.arange(36, dtype=torch.uint8).view(1, 6, 6).expand(200, 6, 6)
    view = transforms.training_view(pixels, ("crop",), PLAIN, generator())
    first = (view[:, 0, 0, 0] * 255).round().long()
    assert set(first.tolist()) == {row * 6 + column for row in range(3) for column in range(3)}
    assert torch.equal((view[0, 0] * 255).round().long() - first[0], torch.arange(24).view(4, 6)[:, :4])


def test_the_seed_decides_the_view() -> None:
    pixels = torch.randint(0, 255, (8, 6, 6), dtype=torch.uint8, generator=generator(5))
    names = ("crop", "rotation", "perspective", "autocontrast")
    one, same, other = (transforms.training_view(pixels, names, PLAIN, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_rotation_equals_torchvision() -> None:
    grey = torch.rand(1, 33, 33, generator=generator())
    angle = torch.tensor([0.4])
    still = torch.tensor([[(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)]])
    expected = referee.rotate(
        grey[:, None], -angle.rad2deg().item(), interpolation=referee.InterpolationMode.BILINEAR
    )
    torch.testing.assert_close(transforms._warp(grey, angle, still), expected[:, 0], atol=1e-4, rtol=0)


def test_perspective_equals_torchvision() -> None:
    side = 33
    grey = torch.rand(1, side, side, generator=generator())
    corners = torch.tensor([[(-0.8, -0.9), (0.7, -1.0), (1.0, 0.6), (-0.6, 0.75)]])

    def pixels(places: torch.Tensor) -> list[list[float]]:
        return ((places + 1) * side / 2).tolist()

    full = torch.tensor([(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)])
    expected = referee.perspective(
        grey[:, None], pixels(full), pixels(corners[0]), interpolation=referee.InterpolationMode.BILINEAR
    )
    found = transforms._warp(grey, torch.zeros(1), corners)
    inner = (slice(None), slice(8, -8), slice(8, -8))  # at the border, torchvision fades to black
    torch.testing.assert_close(found[inner], expected[:, 0][inner], atol=2e-3, rtol=0)


def test_autocontrast_stretches_and_leaves_constant_pictures() -> None:
    grey = torch.stack([torch.tensor([[0.2, 0.4], [0.3, 0.2]]), torch.full((2, 2), 0.7)])
    found = transforms._autocontrast(grey)
    torch.testing.assert_close(found[0], torch.tensor([[0.0, 1.0], [0.5, 0.0]]))
    assert torch.equal(found[1], grey[1])


def test_unknown_augmentation_is_named() -> None:
    with pytest.raises(UsageError, match=r"'mixup'.*crop"):
        transforms.check_names(("crop", "mixup"))
