"""Boxes and masks between a picture's own pixels and the square that a network sees.

Apart because both ways must be each other's inverse, for every geometry: truth is drawn in native pixels and
scores are counted there, so that a number does not depend on the size of a method's input.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from harness.contracts import Preprocessing
from harness.data.cache import placement

BILINEAR = Image.Resampling.BILINEAR


@dataclass(frozen=True)
class Frame:
    """Where a picture of native size [height, width] lies in the whole stored square, seen at `size`.

    Nothing is cropped: the view is `transforms.whole_view`.
    """

    height: int
    width: int
    preprocessing: Preprocessing

    @property
    def _place(self) -> tuple[int, int, int, int]:
        """(top, left, height, width) in the stored square."""
        side, geometry = self.preprocessing.stored, self.preprocessing.geometry
        return placement(self.height, self.width, side, geometry)

    def _affine(self) -> tuple[np.ndarray, np.ndarray]:
        """Scale and offset of xyxy, from native pixels to those of the view."""
        top, left, height, width = self._place
        zoom = self.preprocessing.size / self.preprocessing.stored
        scale = zoom * np.array([width / self.width, height / self.height] * 2)
        return scale, zoom * np.array([left, top] * 2)

    def boxes_to_view(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes [K, 4] xyxy in native pixels, as float64 pixels of the view."""
        scale, offset = self._affine()
        return np.asarray(np.reshape(boxes, (-1, 4)) * scale + offset)

    def boxes_to_native(self, boxes: np.ndarray) -> np.ndarray:
        """The way back, cut at the picture's border."""
        scale, offset = self._affine()
        limit = np.array([self.width, self.height] * 2)
        return np.asarray(np.clip((np.reshape(boxes, (-1, 4)) - offset) / scale, 0, limit))

    def mask_to_view(self, mask: np.ndarray) -> np.ndarray:
        """`mask` [H, W] bool as the share of each pixel that it covers: [size, size] float32 in 0..1."""
        side, size = self.preprocessing.stored, self.preprocessing.size
        top, left, height, width = self._place
        inner = Image.fromarray(mask.astype(np.float32)).resize((width, height), BILINEAR)
        square = np.zeros((side, side), np.float32)
        square[top : top + height, left : left + width] = np.asarray(inner)
        return np.asarray(Image.fromarray(square).resize((size, size), BILINEAR))

    def map_to_native(self, values: np.ndarray) -> np.ndarray:
        """A map [size, size] float32 of the view, such as probabilities, as [H, W]."""
        side = self.preprocessing.stored
        top, left, height, width = self._place
        square = np.asarray(Image.fromarray(values).resize((side, side), BILINEAR))
        inner = np.ascontiguousarray(square[top : top + height, left : left + width])
        return np.asarray(Image.fromarray(inner).resize((self.width, self.height), BILINEAR))
