"""The series that the golden loss values were produced on: sin(0.00481 i² + 1.7 i + c), row-major."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def series(*shape: int, c: float) -> Tensor:
    """Float32 of `shape`, computed in float64."""
    index = np.arange(np.prod(shape), dtype=np.float64)
    values = np.sin(0.00481 * index**2 + 1.7 * index + c)
    return torch.from_numpy(values.reshape(shape).astype(np.float32))
