"""A sheet of pixels in body coordinates, and the few strokes that everything is drawn with.

Apart because it knows geometry and no anatomy. All fields are float32 [H, W]; alphas run from 0 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[Any]  # float32: the type checker cannot see that a Python number leaves it so
Points = Sequence[tuple[float, float]]  # (x, y) in body units


@dataclass(frozen=True)
class Frame:
    """Where the body lies on the sheet. Body units: 1 is the sheet's short side at zoom 1; x runs to
    picture right (the patient's left), y downwards; (0, 0) is the middle of the chest."""

    height: int
    width: int
    zoom: float = 1.0
    rotation: float = 0.0  # radians
    shift: tuple[float, float] = (0.0, 0.0)  # body units

    @property
    def scale(self) -> float:
        """Pixels per body unit."""
        return self.zoom * min(self.height, self.width)

    @cached_property
    def x(self) -> Field:
        columns, rows = _pixel_centres(self.height, self.width)
        cosine, sine = math.cos(self.rotation) / self.scale, math.sin(self.rotation) / self.scale
        return columns * cosine + rows * sine - self.shift[0]

    @cached_property
    def y(self) -> Field:
        columns, rows = _pixel_centres(self.height, self.width)
        cosine, sine = math.cos(self.rotation) / self.scale, math.sin(self.rotation) / self.scale
        return rows * cosine - columns * sine - self.shift[1]

    def pixels(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Body points [N, 2] as (column, row) on the sheet; pixel centres are whole numbers."""
        x, y = (points + self.shift).T * self.scale
        cosine, sine = math.cos(self.rotation), math.sin(self.rotation)
        columns = x * cosine - y * sine + (self.width - 1) / 2
        rows = x * sine + y * cosine + (self.height - 1) / 2
        return np.stack([columns, rows], axis=1)

    def ellipse(self, centre: tuple[float, float], a: float, b: float, angle: float = 0.0) -> Field:
        """Distance from `centre`, 1 on the ellipse with semi-axes a and b; `angle` turns it clockwise."""
        x, y = self.x - centre[0], self.y - centre[1]
        if angle:
            cosine, sine = math.cos(angle), math.sin(angle)
            x, y = x * cosine + y * sine, y * cosine - x * sine
        return np.sqrt((x * (1 / a)) ** 2 + (y * (1 / b)) ** 2)

    def stroke(self, points: Points, radius: float) -> Field:
        """Alpha of a line of that half-width through `points`; a hair thinner than a pixel fades."""
        corners = self.pixels(np.asarray(points, dtype=np.float64))
        lengths = np.hypot(*np.diff(corners, axis=0).T)
        along = np.concatenate([[0.0], np.cumsum(lengths)])
        stops = np.linspace(0, along[-1], max(2, int(along[-1] * 2)))
        columns, rows = (np.interp(stops, along, corner) for corner in corners.T)

        reach = radius * self.scale + 0.5
        offsets = np.arange(-math.ceil(reach), math.ceil(reach) + 1)
        dx, dy = (part.reshape(-1, 1) for part in np.meshgrid(offsets, offsets))
        near_x, near_y = np.rint(columns).astype(int) + dx, np.rint(rows).astype(int) + dy  # [offsets, stops]
        alpha = np.clip(reach - np.hypot(near_x - columns, near_y - rows), 0, 1).astype(np.float32)

        seen = (alpha > 0) & (near_x >= 0) & (near_x < self.width) & (near_y >= 0) & (near_y < self.height)
        sheet = np.zeros(self.height * self.width, np.float32)
        np.maximum.at(sheet, near_y[seen] * self.width + near_x[seen], alpha[seen])
        return sheet.reshape(self.height, self.width)


def bezier(points: Points, steps: int = 24) -> list[tuple[float, float]]:
    """A smooth curve from the first point to the last, pulled towards those between."""
    curve = np.broadcast_to(np.asarray(points, dtype=np.float64)[:, None], (len(points), steps, 2))
    t = np.linspace(0, 1, steps)[:, None]
    while len(curve) > 1:
        curve = curve[:-1] * (1 - t) + curve[1:] * t
    return [(float(x), float(y)) for x, y in curve[0]]


def ramp(distance: Field, width: float) -> Field:
    """A soft step: 0 where `distance` is well below zero, 1 well above, linear over `width` between."""
    step = distance * (1 / width)
    step += 0.5
    return np.clip(step, 0, 1, out=step)


def stripes(phase: Field, half_width: float, edge: float) -> Field:
    """Bands around every whole number of `phase`."""
    return ramp(half_width - np.abs(phase - np.rint(phase)), edge)


def blur(field: Field) -> Field:
    """Binomial (1, 2, 1) smoothing in both directions."""
    rows = np.pad(field, ((1, 1), (0, 0)), mode="edge")
    field = (rows[:-2] + rows[2:]) * 0.25 + field * 0.5
    columns = np.pad(field, ((0, 0), (1, 1)), mode="edge")
    smooth: Field = (columns[:, :-2] + columns[:, 2:]) * 0.25 + field * 0.5
    return smooth


def clouds(rng: np.random.Generator, height: int, width: int, cells: int) -> Field:
    """Smooth noise of about unit size: `cells` x `cells` normal draws, interpolated linearly."""
    coarse = rng.standard_normal((cells, cells), dtype=np.float32)
    return _spread(height, cells) @ coarse @ _spread(width, cells).T


def box_of(mask: NDArray[np.bool_]) -> tuple[float, float, float, float] | None:
    """xyxy, upper bound excluded, of where `mask` [H, W] is true; None where it never is."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


@lru_cache(maxsize=8)
def _pixel_centres(height: int, width: int) -> tuple[Field, Field]:
    columns = np.arange(width, dtype=np.float32) - (width - 1) / 2
    rows = np.arange(height, dtype=np.float32) - (height - 1) / 2
    return columns[None, :], rows[:, None]


@lru_cache(maxsize=32)
def _spread(size: int, cells: int) -> Field:
    """Linear interpolation from `cells` knots to `size` pixels as a matrix [size, cells]."""
    knots = np.linspace(0, cells - 1, size, dtype=np.float32)[:, None]
    weights: Field = np.clip(1 - np.abs(knots - np.arange(cells, dtype=np.float32)), 0, 1)
    return weights
