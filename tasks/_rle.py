"""Masks as runs: the relative, column-major run-length code of the SIIM-ACR challenge.

Apart because it is arithmetic alone: unions, areas and overlaps are counted on the runs, and no mask is
painted for them. A code reads `gap length gap length ...`: a gap counts from the end of the run before it,
and pixels are numbered down a column, then right. (Kaggle's usual code is absolute and counts from 1; read as
that, a mask becomes plausible stripes.)
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Runs = NDArray[np.int64]
"""[R, 2] first pixel and end (excluded) of each run, rising, with a gap between any two."""


def parse(code: str) -> Runs:
    """Raises ValueError, or OverflowError, for what is not such a code; "" has no run."""
    numbers = np.array([int(word) for word in code.split()], dtype=np.int64)
    if len(numbers) % 2 or (numbers < 0).any() or not numbers[1::2].all():
        raise ValueError("it is not pairs of a gap and a length above 0")
    return union(np.cumsum(numbers).reshape(-1, 2))


def write(runs: Runs) -> str:
    """The code that `parse` reads."""
    return " ".join(map(str, np.diff(runs.ravel(), prepend=0).tolist()))


def encode(mask: NDArray[np.bool_]) -> Runs:
    """`mask` [H, W]."""
    edges = np.flatnonzero(np.diff(mask.ravel(order="F"), prepend=False, append=False))
    return edges.reshape(-1, 2)


def decode(runs: Runs, height: int, width: int) -> NDArray[np.bool_]:
    """[height, width]. Raises ValueError when a run ends outside."""
    if end(runs) > height * width:
        raise ValueError(f"a run ends at pixel {end(runs)} of {height} x {width} pixels")
    pixels = np.zeros(height * width, dtype=bool)
    for first, last in runs.tolist():
        pixels[first:last] = True
    return pixels.reshape(width, height).T


def union(*parts: Runs) -> Runs:
    """What at least one of `parts` covers; they may overlap and need no order."""
    runs = np.concatenate(parts)
    runs = runs[np.argsort(runs[:, 0], kind="stable")]
    reach = np.maximum.accumulate(runs[:, 1])
    opens = np.ones(len(runs), dtype=bool)
    opens[1:] = runs[1:, 0] > reach[:-1]
    return np.stack([runs[opens, 0], reach[np.roll(opens, -1)]], axis=1)


def area(runs: Runs) -> int:
    """Pixels covered."""
    return int((runs[:, 1] - runs[:, 0]).sum())


def overlap(one: Runs, other: Runs) -> int:
    """Pixels that both cover."""
    return area(one) + area(other) - area(union(one, other))


def end(runs: Runs) -> int:
    """One past the last pixel covered; 0 without a run."""
    return int(runs[-1, 1]) if len(runs) else 0
