"""Boxes and masks on their way to a network's square and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from harness.contracts import Geometry, Preprocessing
from harness.data import cache, transforms
from harness.data.decode import Decoded
from harness.data.geometry import Frame

SIZES = [(320, 390), (390, 320), (256, 256), (1024, 700)]


def preprocessing(geometry: Geometry) -> Preprocessing:
    return Preprocessing(224, 256, geometry, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@pytest.mark.parametrize("geometry", ["pad", "stretch"])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_boxes_come_back(height: int, width: int, geometry: Geometry) -> None:
    frame = Frame(height, width, preprocessing(geometry))
    boxes = np.array([[0, 0, width, height], [13, 40, 57, 201]], dtype=float)
    view = frame.boxes_to_view(boxes)
    assert view.min() >= 0 and view.max() <= 224.001
    np.testing.assert_allclose(frame.boxes_to_native(view), boxes, atol=1e-9)
    np.testing.assert_allclose(frame.boxes_to_native([[-900, -900, 900, 900]]), [[0, 0, width, height]])


@pytest.mark.parametrize("geometry", ["pad", "stretch"])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_box_and_mask_lie_where_the_picture_does(height: int, width: int, geometry: Geometry) -> None:
    """A white rectangle, through the cache and the view: its box and its mask say where it ends up."""
    box = np.array([[60, 90, 180, 250]])
    mask = np.zeros((height, width), bool)
    mask[90:250, 60:180] = True
    wanted = preprocessing(geometry)
    frame = Frame(height, width, wanted)
    decoded = Decoded(np.where(mask, 255, 0).astype(np.uint8), (), height, width)
    square = cache.stored(decoded, wanted.stored, geometry)
    seen = transforms.whole_view(torch.tensor(square)[None], wanted)[0, 0].numpy()
    np.testing.assert_allclose(frame.mask_to_view(mask), seen, atol=0.01)  # 8 bits between
    x0, y0, x1, y1 = frame.boxes_to_view(box)[0]
    rows, columns = np.flatnonzero((seen > 0.5).any(axis=1)), np.flatnonzero((seen > 0.5).any(axis=0))
    assert (columns[0], columns[-1] + 1) == pytest.approx((x0, x1), abs=1)
    assert (rows[0], rows[-1] + 1) == pytest.approx((y0, y1), abs=1)


@pytest.mark.parametrize("geometry", ["pad", "stretch"])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_mask_comes_back(height: int, width: int, geometry: Geometry) -> None:
    rows, columns = np.ogrid[:height, :width]
    mask = ((rows - 130) / 90) ** 2 + ((columns - 150) / 60) ** 2 < 1
    frame = Frame(height, width, preprocessing(geometry))
    back = frame.map_to_native(frame.mask_to_view(mask)) > 0.5
    assert (back & mask).sum() / (back | mask).sum() > 0.96


def test_a_picture_of_its_own_size_is_left_alone() -> None:
    wanted = Preprocessing(64, 64, "pad", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    values = np.random.default_rng(0).random((64, 64), dtype=np.float32)
    np.testing.assert_array_equal(Frame(64, 64, wanted).map_to_native(values), values)
    picture = Image.fromarray((values * 255).astype(np.uint8))
    seen = transforms.whole_view(torch.tensor(np.asarray(picture))[None], wanted)[0, 0]
    np.testing.assert_allclose(seen.numpy() * 255, np.asarray(picture), atol=1e-4)
