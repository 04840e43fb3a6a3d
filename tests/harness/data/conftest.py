"""A fixture that the tests of decoding share."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture(scope="session")
def picture() -> np.ndarray:
    """[60, 44] uint8 with edges and noise: every row differs from the one before."""
    rng = np.random.default_rng(3)
    return (np.add.outer(np.arange(60) * 3, np.arange(44)) + rng.integers(0, 30, (60, 44))).astype(np.uint8)
