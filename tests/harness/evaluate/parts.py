"""A task of small pictures, with what is known of them: for tests of kinds that train on pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from harness.contracts import Split, Task
from harness.cost import Cost
from harness.data.cache import Images
from harness.evaluate.bank import Source
from harness.evaluate.bench import Bench, Examples
from tests.fakes import PROFILE, Tiny

LABELS = ("Edema", "Fracture", "Mass")
TASK = Task(("linear", "finetune"), LABELS, "macro_auroc", 1, {"clean": Split(0.2, 0.2)})
CLASSES = Task(("linear", "finetune"), LABELS, "accuracy", 1, {"clean": Split(0.2, 0.2)}, exclusive=True)


def tiny() -> nn.Module:
    torch.manual_seed(0)
    return Tiny(random=False)


def pictures(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """[N, 10, 10] uint8 noise in which label k, where it is 1, draws a bright stripe of its own direction."""
    pixels = np.random.default_rng(seed).integers(0, 80, (len(labels), 10, 10))
    stripes = np.zeros((3, 10, 10), int)
    stripes[0, ::2], stripes[1, :, ::2], stripes[2] = 100, 70, 60
    pixels += np.einsum("nk,kij->nij", labels == 1, stripes)
    return np.minimum(pixels, 255).astype(np.uint8)


def examples(
    folder: Path, labels: np.ndarray, pixels: np.ndarray, build: Callable[[], nn.Module] = tiny
) -> tuple[Examples, Examples, Examples]:
    """Train (half), validation and test of pictures in this order."""
    n = len(labels)
    bench = Bench(
        encoder=Source("tiny", 1, "c" * 64, "w" * 64, PROFILE.preprocessing, build),
        images=Images(pixels, np.full((n, 2), 10, np.uint32), "f" * 64, {}, True),
        banks=folder,
        device=torch.device("cpu"),
        dtype="float32",
        cost=Cost(),
    )
    frame = pd.DataFrame({"image_id": [f"image-{row}" for row in range(n)]})
    train, validation, test = (
        Examples(bench, rows, frame.iloc[rows], labels[rows])
        for rows in np.split(np.arange(n), [n // 2, 3 * n // 4])
    )
    return train, validation, test


def several(n: int, seed: int = 0) -> np.ndarray:
    """[n, 3] labels that are independent of each other."""
    return np.random.default_rng(seed).integers(0, 2, (n, 3)).astype(np.int8)


def one_of_each(n: int, seed: int = 0) -> np.ndarray:
    """[n, 3] labels, one of them true in each row."""
    return np.eye(3, dtype=np.int8)[np.random.default_rng(seed).permutation(n) % 3]
