"""From cached uint8 pictures to the network's input, on the device, for a whole batch at once.

Apart because it is the only place where a picture is cropped, moved and normalised: training views and
evaluation share it. Random numbers come from a generator on the CPU, so that the same seed gives the same
views on every device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from harness.contracts import Preprocessing
from harness.errors import UsageError

NAMES = ("crop", "rotation", "perspective", "autocontrast")
ROTATION = math.radians(30)  # at most, either way; outside is black
DISTORTION = 0.5  # share of a half side by which perspective moves a corner inwards, at most
PROBABILITY = 0.5  # of perspective and of autocontrast, each


def check_names(names: Sequence[str]) -> None:
    unknown = [name for name in names if name not in NAMES]
    if unknown:
        raise UsageError(f"unknown augmentation {unknown[0]!r}. Available: {', '.join(NAMES)}")


def training_view(
    pixels: Tensor, names: Sequence[str], preprocessing: Preprocessing, generator: Generator
) -> Tensor:
    """One random view of `pixels` [B, S, S] uint8 as [B, 3, size, size]: what `names` asks for, in the
    order crop, rotation and perspective (one interpolation), autocontrast."""
    size, count = preprocessing.size, len(pixels)
    grey = _random_crop(pixels, size, generator) if "crop" in names else _centre_crop(pixels, size)
    if "rotation" in names or "perspective" in names:
        angle = _uniform(count, generator) * (ROTATION if "rotation" in names else 0.0)
        distortion = DISTORTION if "perspective" in names else 0.0
        grey = _warp(grey, angle, _corners(count, distortion, generator))
    if "autocontrast" in names:
        chosen = torch.rand(count, generator=generator) < PROBABILITY
        grey = torch.where(chosen.to(grey.device)[:, None, None], _autocontrast(grey), grey)
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


def _corners(count: int, distortion: float, generator: Generator) -> Tensor:
    """Where the corners (-1, -1), (1, -1), (1, 1), (-1, 1) of the picture go: [B, 4, 2]."""
    corners = torch.tensor([(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)])
    inwards = distortion * torch.rand(count, 4, 2, generator=generator)
    chosen = torch.rand(count, 1, 1, generator=generator) < PROBABILITY
    return corners * (1 - inwards * chosen)


def _warp(grey: Tensor, angle: Tensor, corners: Tensor) -> Tensor:
    """Turns [B, H, W] clockwise by `angle` [B], then moves its corners to `corners`; black outside."""
    side = grey.shape[-1]
    centres = (torch.arange(side) + 0.5) * 2 / side - 1
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    homography = _homography(corners)  # from a place in the new picture to one in the rotated picture
    places = torch.stack([x, y, torch.ones_like(x)], -1).view(1, -1, 3) @ homography.transpose(1, 2)
    places = places[..., :2] / places[..., 2:]  # [B, H*W, 2]
    inside = (places.abs() <= 1).all(-1).view(-1, side, side)
    cosine, sine = angle.cos(), angle.sin()
    turn = torch.stack([cosine, sine, -sine, cosine], -1).view(-1, 2, 2)
    grid = (places @ turn.transpose(1, 2)).view(-1, side, side, 2).to(grey.device)
    moved = F.grid_sample(grey[:, None], grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return moved[:, 0] * inside.to(grey.device)


def _homography(corners: Tensor) -> Tensor:
    """[B, 3, 3] that maps `corners` [B, 4, 2] to those of the unit picture: eight linear equations."""
    target = torch.tensor([(-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0)]).expand_as(corners)
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
