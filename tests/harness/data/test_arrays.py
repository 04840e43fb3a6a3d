"""A cached array comes back bit for bit, or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.data import arrays
from harness.errors import CorruptCache


@pytest.mark.parametrize("dtype", ["float32", "float16", "int64"])
def test_an_array_comes_back_read_only(tmp_path: Path, dtype: str) -> None:
    values = np.random.default_rng(0).normal(scale=100, size=(7, 3)).astype(dtype)
    arrays.save(tmp_path / "new" / "x.npy", values)
    found = arrays.load(tmp_path / "new" / "x.npy")
    assert (found.dtype, found.tobytes()) == (values.dtype, values.tobytes())
    assert not found.flags.writeable
    assert np.array_equal(np.load(tmp_path / "new" / "x.npy"), values)  # any program can read it


@pytest.mark.parametrize("place", [1, 60, 140, -40, -1])
def test_a_flipped_bit_is_refused_wherever_it_is(tmp_path: Path, place: int) -> None:
    path = tmp_path / "x.npy"
    arrays.save(path, np.arange(20.0))
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.write_bytes(content)
    with pytest.raises(CorruptCache, match=r"x\.npy is not the file that was written\. Delete it"):
        arrays.load(path)
