"""A method of your own in one file: oriented edges at three scales, no training.

    python -m harness run --method docs/filter_bank.py --task chexpert --fraction 0.01

It doubles as a yardstick of how far generic features go: what a network trained on other pictures sees
first is such edges and textures, and where in the picture they are.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.contracts import ImageBackbone, ImageFeatures, MethodCard, Preprocessing, Profile

CARD = MethodCard(
    title="Gabor filter bank",
    version=1,
    citation="Daugman, Journal of the Optical Society of America A 1985",
    year=1985,
    source="this file",
    licence="Apache-2.0",
    trained_on=(),
    profiles={
        "demo": Profile(
            image=ImageBackbone("none"),
            preprocessing=Preprocessing(80, 88, "stretch", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        ),
    },
)

WAVELENGTHS = (3.0, 6.0, 12.0)  # pixels
ORIENTATIONS = 8
SIDE = 19  # of a filter: one and a half of the longest wave
CELLS = 4  # a picture's responses are averaged in 4 x 4 cells


class FilterBank(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        angles = [math.pi * index / ORIENTATIONS for index in range(ORIENTATIONS)]
        filters = [gabor(wavelength, angle) for wavelength in WAVELENGTHS for angle in angles]
        self.register_buffer("filters", torch.stack(filters)[:, None])  # [24, 1, SIDE, SIDE]

    def encode_image(self, x: Tensor) -> ImageFeatures:
        grey = x.mean(dim=1, keepdim=True)
        responses = F.conv2d(grey, self.get_buffer("filters"), padding=SIDE // 2).abs()
        pyramid = {stride: F.avg_pool2d(responses, stride, ceil_mode=True) for stride in (4, 8, 16, 32)}
        return ImageFeatures(F.adaptive_avg_pool2d(responses, CELLS).flatten(1), None, None, pyramid)


def gabor(wavelength: float, angle: float) -> Tensor:
    """A wave under a Gaussian, [SIDE, SIDE], blind to constant grey."""
    line = torch.arange(SIDE) - SIDE // 2
    y, x = torch.meshgrid(line, line, indexing="ij")
    along = x * math.cos(angle) + y * math.sin(angle)
    envelope = torch.exp(-(x**2 + y**2) / (2 * (wavelength / 2) ** 2))
    wave = envelope * torch.cos(2 * math.pi * along / wavelength)
    wave = wave - envelope * wave.sum() / envelope.sum()
    return wave / wave.abs().sum()


def build(profile: Profile, *, initialise: bool = True) -> FilterBank:
    return FilterBank()
