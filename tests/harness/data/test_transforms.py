"""Views: what is cropped, turned and normalised, against counts by hand and torchvision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
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


@pytest.mark.parametrize("crop", ["crop", "resized_crop"])
def test_the_seed_decides_the_view(crop: str) -> None:
    pixels = torch.randint(0, 255, (8, 6, 6), dtype=torch.uint8, generator=generator(5))
    names = (crop, *(name for name in transforms.NAMES if "crop" not in name))
    one, same, other = (transforms.training_view(pixels, names, PLAIN, generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


# --- what moves: pictures are smooth or noise, places from -1 to 1 -------------------------------------

STILL = torch.tensor([[(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)]])
NOWHERE = torch.zeros(1, 2)
BILINEAR = referee.InterpolationMode.BILINEAR


def noise(side: int) -> Tensor:
    return torch.rand(1, side, side, generator=generator())


def test_rotation_equals_torchvision() -> None:
    grey, angle = noise(33), torch.tensor([0.4])
    expected = referee.rotate(grey[:, None], -angle.rad2deg().item(), interpolation=BILINEAR)
    found = transforms._warp(grey, 33, transforms._turn(angle), NOWHERE, STILL)
    torch.testing.assert_close(found, expected[:, 0], atol=1e-4, rtol=0)


def test_affine_equals_torchvision() -> None:
    grey, angle, scale, shift = noise(33), torch.tensor([-0.3]), 1.05, torch.tensor([[3.0, -2.0]])
    expected = referee.affine(
        grey[:, None], angle.rad2deg().item(), shift[0].tolist(), scale, [0.0, 0.0], interpolation=BILINEAR
    )
    linear = transforms._turn(angle) / scale
    offset = -(linear @ (shift * 2 / 33)[:, :, None])[..., 0]
    found = transforms._warp(grey, 33, linear, offset, STILL)
    torch.testing.assert_close(found, expected[:, 0], atol=1e-4, rtol=0)


def test_resized_crop_equals_torchvision() -> None:
    grey = noise(40)
    expected = referee.resized_crop(grey[:, None], 5, 8, 30, 30, [24, 24], antialias=False)  # top, left
    centre = torch.tensor([[8 + 15.0, 5 + 15.0]]) / 20 - 1
    found = transforms._warp(grey, 24, torch.eye(2)[None] * 30 / 40, centre, STILL)
    torch.testing.assert_close(found, expected[:, 0], atol=1e-4, rtol=0)


def test_flip_equals_torchvision() -> None:
    pixels = torch.randint(0, 255, (64, 12, 12), dtype=torch.uint8, generator=generator())
    shape = Preprocessing(12, 12, "pad", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    found = transforms.training_view(pixels, ("flip",), shape, generator())[:, 0]
    plain = pixels.float() / 255
    still, mirrored = (
        (found - image).abs().amax((1, 2)) < 1e-5 for image in (plain, referee.horizontal_flip(plain))
    )
    assert torch.equal(still, ~mirrored)
    assert 20 < mirrored.sum() < 44  # half of them


def test_perspective_equals_torchvision() -> None:
    side = 33
    grey = noise(side)
    corners = torch.tensor([[(-0.8, -0.9), (0.7, -1.0), (1.0, 0.6), (-0.6, 0.75)]])

    def pixels(places: Tensor) -> list[list[float]]:
        return ((places + 1) * side / 2).tolist()

    expected = referee.perspective(
        grey[:, None], pixels(STILL[0]), pixels(corners[0]), interpolation=BILINEAR
    )
    found = transforms._warp(grey, side, torch.eye(2)[None], NOWHERE, corners)
    inner = (slice(None), slice(8, -8), slice(8, -8))  # at the border, torchvision fades to black
    torch.testing.assert_close(found[inner], expected[:, 0][inner], atol=2e-3, rtol=0)


def shown(names: tuple[str, ...], count: int = 400, side: int = 64) -> tuple[Tensor, Tensor]:
    """Where views look: the stored place [B, 2] at their centre, and how it moves with it, [B, 2, 2].

    Read off pictures whose grey value is a place's x, then its y.
    """
    shape = Preprocessing(side, side, "pad", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    ramp = torch.arange(side, dtype=torch.uint8).expand(count, side, side)
    places = torch.stack(
        [
            transforms.training_view(pixels, names, shape, generator())[:, 0] * 255
            for pixels in (ramp, ramp.transpose(1, 2))
        ],
        dim=1,
    )  # [B, 2, side, side]
    middle = slice(side // 2 - 4, side // 2 + 4)
    places = (places[..., middle, middle] + 0.5) * 2 / side - 1
    across, down = (places.diff(dim=dim).mean((2, 3)) * side / 2 for dim in (3, 2))
    return places.mean((2, 3)), torch.stack([across, down], dim=2)


def test_resized_crops_are_windows_of_the_picture_of_all_sizes_allowed() -> None:
    centre, linear = shown(("resized_crop",))
    area = linear.det()
    assert 0.599 < area.min() < 0.62 and 0.98 < area.max() < 1.001
    torch.testing.assert_close(linear, area.sqrt()[:, None, None] * torch.eye(2), atol=1e-4, rtol=0)
    room = 1 - area.sqrt()[:, None]
    assert (centre.abs() <= room + 1e-4).all()
    assert (centre.abs() > 0.9 * room).any(dim=0).all() and (centre.amin() < 0 < centre.amax())


def test_affine_turns_shifts_and_scales_within_its_ranges() -> None:
    centre, linear = shown(("affine",))
    angle = torch.atan2(linear[:, 0, 1], linear[:, 0, 0]).rad2deg()
    assert -20.01 < angle.min() < -19 and 19 < angle.max() < 20.01
    scale = linear.det() ** -0.5
    assert 0.949 < scale.min() < 0.952 and 1.048 < scale.max() < 1.051
    shift = -torch.linalg.solve(linear, centre) / 2  # in sides
    assert -0.1001 < shift.min() < -0.095 and 0.095 < shift.max() < 0.1001
    assert torch.corrcoef(torch.cat([angle[:, None], scale[:, None], shift], 1).T).triu(1).abs().max() < 0.2


def test_all_motion_is_one_interpolation() -> None:
    """Crop, mirror, turn and shift, each by torchvision on a smooth picture: once or one by one."""
    side, size = 96, 64
    x, y = torch.meshgrid(*[torch.linspace(-1, 1, side)] * 2, indexing="xy")
    grey = (0.5 + 0.25 * torch.sin(3 * x + 1) + 0.2 * torch.cos(4 * y - x))[None]
    step = referee.resized_crop(grey[:, None], 9, 12, 72, 72, [size, size], antialias=False)
    step = referee.horizontal_flip(step)
    step = referee.affine(step, 12.0, [4.0, -3.0], 0.97, [0.0, 0.0], interpolation=BILINEAR)
    linear = torch.tensor([[-0.75], [0.75]]) * transforms._turn(torch.tensor([12.0]).deg2rad()) / 0.97
    centre = torch.tensor([[12 + 36.0, 9 + 36.0]]) * 2 / side - 1
    offset = centre - (linear @ torch.tensor([[[4.0 * 2 / size], [-3.0 * 2 / size]]]))[..., 0]
    found = transforms._warp(grey, size, linear, offset, STILL)
    inner = (slice(None), slice(16, -16), slice(16, -16))  # beyond the crop, torchvision is black
    torch.testing.assert_close(found[inner], step[:, 0][inner], atol=2e-3, rtol=0)


def test_a_motion_that_moves_nothing_changes_nothing() -> None:
    grey = noise(33)
    found = transforms._warp(grey, 33, torch.eye(2)[None], NOWHERE, STILL)
    torch.testing.assert_close(found, grey, atol=1e-5, rtol=0)


# --- what changes grey values ---------------------------------------------------------------------------


def test_autocontrast_stretches_and_leaves_constant_pictures() -> None:
    grey = torch.stack([torch.tensor([[0.2, 0.4], [0.3, 0.2]]), torch.full((2, 2), 0.7)])
    found = transforms._autocontrast(grey)
    torch.testing.assert_close(found[0], torch.tensor([[0.0, 1.0], [0.5, 0.0]]))
    assert torch.equal(found[1], grey[1])


def test_jitter_equals_torchvision() -> None:
    grey, brightness, contrast = (
        noise(16).expand(3, 16, 16),
        torch.tensor([0.6, 1.4, 1.0]),
        torch.tensor([1.3, 0.7, 1.0]),
    )
    found = transforms._jitter(grey, brightness, contrast)
    for picture, view, first, then in zip(grey, found, brightness, contrast, strict=True):
        expected = referee.adjust_contrast(
            referee.adjust_brightness(picture[None], first.item()), then.item()
        )
        torch.testing.assert_close(view, expected[0])
    torch.testing.assert_close(found[2], grey[2])  # factors of one


def test_jitter_keeps_to_its_range() -> None:
    """Constant pictures show the brightness alone: contrast keeps their mean."""
    pixels = torch.full((400, 4, 4), 100, dtype=torch.uint8)
    factor = transforms.training_view(pixels, ("jitter",), PLAIN, generator())[:, 0, 0, 0] * 2.55
    assert 0.599 < factor.min() < 0.61 and 1.39 < factor.max() < 1.401


def test_blur_equals_torchvision() -> None:
    grey = noise(224).expand(3, 224, 224)
    sigma = torch.tensor([3.0, 1.2, 0.1])
    found = transforms._blur(grey, sigma)
    for picture, view, width in zip(grey, found, sigma, strict=True):
        expected = referee.gaussian_blur(picture[None], [19, 19], [width.item()])
        torch.testing.assert_close(view, expected[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(found[2], grey[2])  # a sigma far below a pixel


def test_blur_keeps_to_its_range_whatever_the_side() -> None:
    """The variance of what becomes of one bright pixel is that of the Gaussian."""
    for side in (224, 112):
        shape = Preprocessing(side, side, "pad", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        pixels = torch.zeros(60, side, side, dtype=torch.uint8)
        pixels[:, side // 2, side // 2] = 255
        spot = transforms.training_view(pixels, ("blur",), shape, generator())[:, 0]
        torch.testing.assert_close(spot.sum((1, 2)), torch.ones(60))
        square = (torch.arange(side) - side // 2) ** 2
        sigma = (spot.sum(1) * square).sum(1).sqrt() * 224 / side
        assert sigma.max() < 3.01 and sigma.max() > 2.7
        assert sigma.min() < 0.5 and (sigma > 1.5).sum() > 15


def test_a_picture_s_view_does_not_depend_on_the_others_pixels() -> None:
    pixels = torch.randint(0, 255, (4, 6, 6), dtype=torch.uint8, generator=generator(5))
    names = tuple(name for name in transforms.NAMES if name != "crop")
    one = transforms.training_view(pixels, names, PLAIN, generator())
    pixels[1:] = 0
    assert torch.equal(transforms.training_view(pixels, names, PLAIN, generator())[0], one[0])


def test_the_draws_of_what_checkpoints_were_trained_with_stay() -> None:
    """Values of the first release of these four: another draw in between would change trained weights."""
    draws = generator()
    names = ("crop", "rotation", "perspective", "autocontrast")
    transforms.training_view(torch.zeros(3, 6, 6, dtype=torch.uint8), names, PLAIN, draws)
    torch.testing.assert_close(
        torch.rand(2, generator=draws), torch.tensor([0.7423, 0.5263]), atol=1e-4, rtol=0
    )
    centre, linear = shown(("rotation", "perspective"), count=2)
    torch.testing.assert_close(centre[:1], torch.tensor([[-0.0962, 0.0525]]), atol=1e-3, rtol=0)
    expected = torch.tensor([[[1.2058, -0.0255], [-0.0119, 1.4310]]])
    torch.testing.assert_close(linear[:1], expected, atol=1e-3, rtol=0)


def test_a_picture_is_cropped_once() -> None:
    with pytest.raises(UsageError, match="cropped once"):
        transforms.check_names(("crop", "resized_crop"))


def test_unknown_augmentation_is_named() -> None:
    with pytest.raises(UsageError, match=r"'mixup'.*crop"):
        transforms.check_names(("crop", "mixup"))
