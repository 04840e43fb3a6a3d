"""Computed arrays in a cache: mapped from the disk, and refused when they are not what was written.

Apart because features of pictures and of texts are both kept so, and a damaged one is a wrong number.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.errors import CorruptCache
from harness.files import is_sealed, replacing, seal


def save(path: Path, array: np.ndarray) -> None:
    """An .npy file with a seal behind the array."""
    with replacing(path) as temporary:
        with temporary.open("wb") as file:
            np.save(file, array)
        seal(temporary)


def load(path: Path) -> np.ndarray:
    """Read-only, memory-mapped. Raises CorruptCache unless every byte is as it was saved."""
    if not is_sealed(path):
        raise CorruptCache(f"{path} is not the file that was written. Delete it and run again")
    array: np.ndarray = np.load(path, mmap_mode="r")
    return array
