"""From a decoded picture to its square in the cache: where it lies, and what resizing does to it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from harness.contracts import Geometry
from harness.data.cache import placement, stored
from harness.data.decode import decode
from harness.data.picture import Decoded


def whole(pixels: np.ndarray) -> Decoded:
    return Decoded(pixels, (), *pixels.shape)


@pytest.mark.parametrize(
    ("height", "width", "geometry", "where"),
    [
        (40, 20, "pad", (0, 2, 10, 5)),  # 5 columns of border: 2 left, 3 right
        (20, 40, "pad", (2, 0, 5, 10)),
        (7, 7, "pad", (0, 0, 10, 10)),  # small pictures are enlarged
        (3056, 2544, "pad", (0, 1, 10, 8)),
        (1000, 1, "pad", (0, 4, 10, 1)),  # never nothing
        (40, 20, "stretch", (0, 0, 10, 10)),
    ],
)
def test_placement_by_hand(height: int, width: int, geometry: Geometry, where: tuple[int, ...]) -> None:
    assert placement(height, width, 10, geometry) == where


def test_a_white_picture_fills_its_place_and_nothing_else() -> None:
    square = stored(whole(np.full((40, 20), 255, np.uint8)), 10, "pad")
    wanted = np.zeros((10, 10))
    wanted[:, 2:7] = 255
    np.testing.assert_array_equal(square, wanted)


def test_16_bits_are_rounded_to_8_without_wrapping() -> None:
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    square = stored(whole(every), 256, "stretch")
    np.testing.assert_array_equal(square, np.rint(every / 257))


def test_a_ramp_stays_a_ramp_and_a_fine_grid_becomes_grey() -> None:
    ramp = np.tile(np.arange(64, dtype=np.uint8) * 2, (64, 1))
    square = stored(whole(ramp), 32, "stretch").astype(float)
    np.testing.assert_allclose(
        square[:, 2:-2], (np.arange(32) * 4 + 1)[2:-2] + np.zeros((32, 1))
    )  # 2 (2i + 1/2)
    grid = np.indices((64, 64)).sum(axis=0) % 2 * 255
    assert np.abs(stored(whole(grid.astype(np.uint8)), 16, "stretch") - 127.5).max() < 2


@pytest.mark.parametrize("geometry", ["pad", "stretch"])
def test_resizing_agrees_with_torch(realdata: Path, geometry: Geometry) -> None:
    picture = decode(next((realdata / "hannover").glob("*.png")))
    top, left, height, width = placement(*picture.pixels.shape, 224, geometry)
    grey = torch.from_numpy(picture.pixels.astype(np.float32))[None, None]
    resized = torch.nn.functional.interpolate(grey, (height, width), mode="bilinear", antialias=True)[0, 0]
    square = stored(picture, 224, geometry)
    inside = square[top : top + height, left : left + width]
    assert np.abs(inside - resized.numpy()).max() <= 1.01
    assert square.sum() == inside.sum()
