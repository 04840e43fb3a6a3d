"""What an evaluator works with: an encoder, pictures, and the examples of one part at a time.

Apart because it keeps selection away from the test split: whoever fits and selects is handed the training and
the validation examples, and there is no way from them to a test image's label.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from harness.contracts import Kind, ProtocolName, Task
from harness.cost import Cost
from harness.data import published
from harness.data.cache import Images
from harness.data.geometry import Frame
from harness.data.task_data import TaskData
from harness.evaluate import bank
from harness.evaluate.bank import Bank, Source
from harness.evaluate.search import Configuration, Report, Space
from harness.memo import once
from harness.metrics.auroc import require_both_classes
from harness.records import HeadBlock
from harness.settings import BankDtype

ReadMask = Callable[[str, int, int], np.ndarray]
"""A dataset's `read_mask(cell, height, width)`: [H, W] bool in native pixels."""


class Compared(NamedTuple):
    """N pictures with T texts."""

    scores: np.ndarray  # [N, T] float32; -inf where the method finds nothing to read in a text
    texts: np.ndarray  # [T, d] float32, embeddings of unit length; zero where it finds nothing to read


@dataclass(frozen=True)
class Bench:
    """The encoder of a cell and all pictures of its task."""

    encoder: Source
    images: Images
    banks: Path
    device: torch.device
    dtype: BankDtype
    cost: Cost
    read_mask: ReadMask | None = None
    # both stay when the bench is used for another cell
    memo: dict[object, Any] = field(default_factory=dict)  # the bank
    compared: dict[str, Compared] = field(default_factory=dict)  # by pictures, texts and how

    def bank(self) -> Bank:
        """Pooled features of all pictures, computed once per encoder and dataset."""
        found: Bank = once(self.memo, "bank", self._open_bank)
        self.cost.cached.setdefault("features", True)
        return found

    def _open_bank(self) -> Bank:
        with self.cost.step("features"):
            found = bank.open_bank(
                self.encoder, self.images, folder=self.banks, device=self.device, dtype=self.dtype
            )
        self.cost.cached["features"] = found.cached
        self.cost.images_per_second = found.images_per_second
        return found


@dataclass(frozen=True)
class Examples:
    """Some pictures of a task with what is known of them."""

    bench: Bench
    rows: np.ndarray  # [n] positions among the bench's images
    frame: pd.DataFrame  # n rows of the dataset's table
    labels: np.ndarray  # [n, L] int8: 1, 0 or -1 for unknown

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, places: np.ndarray) -> Examples:
        """The examples at `places` [m], positions among these."""
        frame = self.frame.iloc[places].reset_index(drop=True)
        return Examples(self.bench, self.rows[places], frame, self.labels[places])

    def on_device(self, places: np.ndarray | slice = slice(None)) -> Tensor:
        """[m, S, S] uint8: the stored squares of those at `places`, on the bench's device."""
        return torch.from_numpy(self.bench.images.pixels[self.rows[places]]).to(self.bench.device)

    def sizes(self) -> np.ndarray:
        """[n, 2] native height and width."""
        return np.asarray(self.bench.images.sizes[self.rows])

    def geometry(self, place: int) -> Frame:
        """Where the picture at `place` lies in what the encoder sees."""
        height, width = self.sizes()[place].tolist()
        return Frame(height, width, self.bench.encoder.preprocessing)

    def features(self) -> Tensor:
        """[n, D] pooled, on the bench's device."""
        return torch.from_numpy(self.bench.bank().features[self.rows]).to(self.bench.device)


def examples(bench: Bench, data: TaskData, rows: np.ndarray) -> Examples:
    frame = data.frame.iloc[rows].reset_index(drop=True)
    return Examples(bench, rows, frame, data.labels[rows])


def require_classes_in_each_part(data: TaskData, truth: np.ndarray, labels: Sequence[str]) -> None:
    """Raises EmptyClass unless each column of `truth` [N, L] has a 1 and a 0 in every part that is used."""
    or_seed = " or another --seed" if published.draws_by_seed(data.rules) else ""
    more = "Use a dataset with more persons, or a task of your own as in docs/chestxray14_sample.py"
    cut = len(data.used) < len(data.parts.train), len(data.validation) < len(data.parts.validation)
    for rows, name, cure in (
        (
            data.used,
            "the training images of this draw",
            f"Use a larger --fraction{or_seed}" if cut[0] else more,
        ),
        (data.validation, "the validation images", "Leave their labels uncut" if cut[1] else more),
        (data.parts.test, "the test images", more),
    ):
        require_both_classes(truth[rows], labels, name, cure)


class Head(Protocol):
    """What was fitted on an encoder."""

    @property
    def block(self) -> HeadBlock: ...

    def predict(self, test: Examples) -> dict[str, np.ndarray]:
        """What the kind's score is made of (harness/metrics/score.py), a row per test image, in order."""
        ...


class Evaluator(Protocol):
    """A file of this folder that is named after a kind, or `published_KIND` for a head of others' code."""

    VERSION: int  # raised by a change, here or in what it uses, that moves its numbers by more than rounding

    def check(self, task: Task, data: TaskData) -> None:
        """Before anything is decoded or trained: raises EmptyClass naming the part that lacks something, and
        DataError or UsageError for data or a task that are not of this kind."""
        ...

    def fit(self, bench: Bench, task: Task, train: Examples, validation: Examples, seed: int) -> Head: ...


class Tunable(Evaluator, Protocol):
    """An evaluator that trains a network: its settings can be searched for, within what it declares."""

    SPACE: Space

    def fit(
        self,
        bench: Bench,
        task: Task,
        train: Examples,
        validation: Examples,
        seed: int,
        configuration: Configuration = ...,
        report: Report = ...,
    ) -> Head:
        """`configuration`: default that of the space. `report` is called at each validation, and
        may not come back: a fit that is worse than others ends there."""
        ...


def evaluator(kind: Kind, task: Task, protocol: ProtocolName) -> Evaluator:
    """Imported when it is asked for: a probe needs no detection library."""
    name = kind.replace("-", "_")
    if published.has_head(kind, task, protocol):
        name = f"published_{name}"
    return cast(Evaluator, import_module(f"harness.evaluate.{name}"))


def tunable(kind: Kind, task: Task) -> Tunable:
    """The evaluator of a kind whose settings can be searched for, which those of the `clean` protocol are."""
    return cast(Tunable, evaluator(kind, task, "clean"))
