"""From cached uint8 pictures to the network's input, on the device, for a whole batch at once.

Apart because training views and evaluation share it: a picture is cropped and normalised in one place.
Random numbers come from a generator on the CPU, so that the same seed gives the same views on every device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from harness.contracts import Preprocessing
from harness.errors import UsageError

VERSION = 1
"""Counts changes of the views for evaluation, and of how `bank.py` encodes them, that change features."""

NAMES = (
    "crop",
    "resized_crop",
    "flip",
    "rotation",
    "affine",
    "perspective",
    "autocontrast",
    "jitter",
    "blur",
)
MOVING = {"resized_crop", "flip", "rotation", "affine", "perspective"}
ROTATION = math.radians(30)  # at most, either way; outside is black
DISTORTION = 0.5  # share of a half side by which perspective moves a corner inwards, at most
PROBABILITY = 0.5  # of flip, perspective and autocontrast, each
CORNERS = ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0))  # of a picture, (x, y)

# of resized_crop, affine, jitter and blur: amounts of ConVIRT, arXiv 2010.00747
AREA = (0.6, 1.0)  # of a square window, as a share of the stored picture
TURN = math.radians(20)  # at most, either way
SHIFT = 0.1  # of a side, at most, either way and in both directions
SCALE = (0.95, 1.05)
FACTOR = (0.6, 1.4)  # of brightness, then of contrast
SIGMA = (0.1, 3.0)  # of the blur, in pixels of a picture whose side is BLURRED
BLURRED = 224


def check_names(names: Sequence[str]) -> None:
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise UsageError(f"unknown augmentation {unknown[0]!r}. Available: {', '.join(NAMES)}")
    if "crop" in names and "resized_crop" in names:
        raise UsageError("a picture is cropped once: take one of the augmentations crop and resized_crop")


def training_view(
    pixels: Tensor, names: Sequence[str], preprocessing: Preprocessing, generator: Generator
) -> Tensor:
    """One random view of `pixels` [B, S, S] uint8 as [B, 3, size, size]: what `names` asks for, in the
    order of NAMES. All that moves the picture, the plain crop aside, is one interpolation."""
    size, count = preprocessing.size, len(pixels)
    if "resized_crop" in names:
        grey = pixels.float() / 255  # cut out below, so that corners show what lies beside the crop
    else:
        grey = _random_crop(pixels, size, generator) if "crop" in names else _centre_crop(pixels, size)
    if not MOVING.isdisjoint(names):
        grey = _warp(grey, size, *_motion(names, count, generator))
    if "autocontrast" in names:
        chosen = torch.rand(count, generator=generator) < PROBABILITY
        grey = torch.where(chosen.to(grey.device)[:, None, None], _autocontrast(grey), grey)
    if "jitter" in names:
        grey = _jitter(grey, _between(FACTOR, count, generator), _between(FACTOR, count, generator))
    if "blur" in names:
        grey = _blur(grey, _between(SIGMA, count, generator))
    return _normalise(grey, preprocessing)


def evaluation_view(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    """The central crop of `pixels` [B, S, S] uint8 as [B, 3, size, size]."""
    return _normalise(_centre_crop(pixels, preprocessing.size), preprocessing)


def whole_view(pixels: Tensor, preprocessing: Preprocessing) -> Tensor:
    """All of `pixels` [B, S, S] uint8, resized with antialiasing, as [B, 3, size, size]: for tasks that ask
    where something is, which a crop may cut off. `geometry.Frame` says what lies where."""
    size = (preprocessing.size, preprocessing.size)
    grey = F.interpolate(pixels[:, None].float(), size, mode="bilinear", antialias=True)[:, 0] / 255
    return _normalise(grey, preprocessing)


def _normalise(grey: Tensor, preprocessing: Preprocessing) -> Tensor:
    mean = torch.tensor(preprocessing.mean, device=grey.device)[:, None, None]
    std = torch.tensor(preprocessing.std, device=grey.device)[:, None, None]
    return ((grey[:, None] - mean) / std).contiguous(memory_format=torch.channels_last)


def _centre_crop(pixels: Tensor, size: int) -> Tensor:
    start = (pixels.shape[-1] - size) // 2
    return pixels[:, start : start + size, start : start + size].float() / 255


def _random_crop(pixels: Tensor, size: int, generator: Generator) -> Tensor:
    room = pixels.shape[-1] - size + 1
    corner = torch.randint(room, (2, len(pixels), 1), generator=generator) + torch.arange(size)
    rows, columns = corner.to(pixels.device)  # [B, size] each
    batch = torch.arange(len(pixels), device=pixels.device)[:, None, None]
    return pixels[batch, rows[:, :, None], columns[:, None, :]].float() / 255


def _uniform(count: int, generator: Generator) -> Tensor:
    return torch.rand(count, generator=generator) * 2 - 1


def _between(ends: tuple[float, float], count: int, generator: Generator) -> Tensor:
    return torch.empty(count).uniform_(*ends, generator=generator)


def _motion(names: Sequence[str], count: int, generator: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """What `_warp` does to each picture: `linear` [B, 2, 2], `offset` [B, 2] and `corners` [B, 4, 2]."""
    angle = _uniform(count, generator) * (ROTATION if "rotation" in names else 0.0)
    corners = _corners(count, DISTORTION if "perspective" in names else 0.0, generator)
    stretch, shift, centre = torch.ones(count, 2), torch.zeros(count, 2), torch.zeros(count, 2)
    if "resized_crop" in names:
        window = _between(AREA, count, generator).sqrt()[:, None]
        stretch = stretch * window
        centre = (1 - window) * _uniform(2 * count, generator).view(count, 2)
    if "flip" in names:
        stretch[:, 0] *= torch.where(torch.rand(count, generator=generator) < PROBABILITY, -1.0, 1.0)
    if "affine" in names:
        angle = angle + TURN * _uniform(count, generator)
        shift = 2 * SHIFT * _uniform(2 * count, generator).view(count, 2)
        stretch = stretch / _between(SCALE, count, generator)[:, None]
    linear = stretch[:, :, None] * _turn(angle)
    return linear, centre - (linear @ shift[:, :, None])[..., 0], corners


def _turn(angle: Tensor) -> Tensor:
    """[B, 2, 2] that takes a place in pictures turned clockwise by `angle` [B] to where it was before."""
    cosine, sine = angle.cos(), angle.sin()
    return torch.stack([cosine, sine, -sine, cosine], -1).view(-1, 2, 2)


def _corners(count: int, distortion: float, generator: Generator) -> Tensor:
    """Where the `CORNERS` of the picture go: [B, 4, 2]."""
    inwards = distortion * torch.rand(count, 4, 2, generator=generator)
    chosen = torch.rand(count, 1, 1, generator=generator) < PROBABILITY
    return torch.tensor(CORNERS) * (1 - inwards * chosen)


def _warp(grey: Tensor, size: int, linear: Tensor, offset: Tensor, corners: Tensor) -> Tensor:
    """[B, H, H] to [B, size, size]: first moved, then the corners pulled to `corners`; black outside.

    `linear` and `offset` take a place in the moved picture to the place it shows, both from -1 to 1.
    """
    # from a place in the new picture to one in the moved picture; small, where the grid below is not
    homography, linear, offset = (part.to(grey.device) for part in (_homography(corners), linear, offset))
    centres = (torch.arange(size, device=grey.device) + 0.5) * 2 / size - 1
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    places = torch.stack([x, y, torch.ones_like(x)], -1).view(1, -1, 3) @ homography.transpose(1, 2)
    places = places[..., :2] / places[..., 2:]  # [B, size * size, 2]
    inside = (places.abs() <= 1).all(-1).view(-1, size, size)
    grid = (places @ linear.transpose(1, 2) + offset[:, None]).view(-1, size, size, 2)
    moved = F.grid_sample(grey[:, None], grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return moved[:, 0] * inside


def _homography(corners: Tensor) -> Tensor:
    """[B, 3, 3] that maps `corners` [B, 4, 2] to `CORNERS`: eight linear equations."""
    target = torch.tensor(CORNERS).expand_as(corners)
    u, v = corners.unbind(-1)  # [B, 4]
    x, y = target.unbind(-1)
    zero, one = torch.zeros_like(u), torch.ones_like(u)
    for_x = torch.stack([u, v, one, zero, zero, zero, -u * x, -v * x], -1)
    for_y = torch.stack([zero, zero, zero, u, v, one, -u * y, -v * y], -1)
    equations = torch.cat([for_x, for_y], 1)  # [B, 8, 8]
    solved = torch.linalg.solve(equations, torch.cat([x, y], 1))
    return torch.cat([solved, torch.ones(len(solved), 1)], 1).view(-1, 3, 3)


def _autocontrast(grey: Tensor) -> Tensor:
    """Stretches each picture to 0..1; a constant one stays."""
    low, high = grey.amin((1, 2), keepdim=True), grey.amax((1, 2), keepdim=True)
    spread = high - low
    return torch.where(spread > 0, (grey - low) / spread.clamp(min=1e-6), grey)


def _jitter(grey: Tensor, brightness: Tensor, contrast: Tensor) -> Tensor:
    """Each picture times its `brightness` [B], then its distances from its mean times its `contrast` [B]."""
    brightness, contrast = (factor.to(grey.device)[:, None, None] for factor in (brightness, contrast))
    grey = (grey * brightness).clamp(0, 1)
    mean = grey.mean((1, 2), keepdim=True)
    return (mean + (grey - mean) * contrast).clamp(0, 1)


def _blur(grey: Tensor, sigma: Tensor) -> Tensor:
    """Each of [B, H, H] by a Gaussian of its `sigma` [B], see SIGMA; mirrored at the border."""
    scale = grey.shape[-1] / BLURRED
    radius = math.ceil(3 * SIGMA[1] * scale)
    places = torch.arange(-radius, radius + 1)
    kernel = (-((places / (sigma[:, None] * scale)) ** 2) / 2).softmax(dim=1).to(grey.device)  # [B, K]
    padded = F.pad(grey[None], (radius,) * 4, mode="reflect")
    down = F.conv2d(padded, kernel[:, None, :, None], groups=len(grey))  # a picture is a channel
    return F.conv2d(down, kernel[:, None, None, :], groups=len(grey))[0]
