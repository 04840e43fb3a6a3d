"""The images of one cell: which there are, what their labels are, and who is in which part.

Apart because it is everything about a cell's data that needs no pixel and no network, and every kind of
task starts from it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from harness.contracts import DatasetCard, ProtocolName, Task
from harness.data import balanced, fractions, locate, splits, table
from harness.data.locate import Located
from harness.data.splits import Parts
from harness.data.table import Reader
from harness.files import hash_of


class TaskPool(NamedTuple):
    """A task's images before a fraction of their labels is drawn: what its cells share."""

    located: Located
    release: str  # the known variant of the dataset whose counts the table has, or ""
    persons_known: bool
    frame: pd.DataFrame  # N rows, in the order of their ids
    labels: np.ndarray  # [N, L] int8: 1, 0 or table.UNKNOWN
    fingerprint: str  # of ids and labels, and of how a phantom was made: its pictures change, its ids do not
    parts: Parts  # positions in `frame`

    def draw(self, fraction: float | None, seed: int) -> TaskData:
        """The cell that uses this share of the training labels; None where it uses none."""
        train = self.parts.train
        if fraction is None:
            return TaskData(*self, train[:0])
        drawn = fractions.draw(self.frame["person_id"].to_numpy()[train], self.labels[train], fraction, seed)
        return TaskData(*self, train[drawn])


class TaskData(NamedTuple):
    """The images of one cell; fields as of TaskPool."""

    located: Located
    release: str
    persons_known: bool
    frame: pd.DataFrame
    labels: np.ndarray
    fingerprint: str
    parts: Parts
    used: np.ndarray  # the training positions whose labels the fraction leaves


def load(located: Located, reader: Reader, card: DatasetCard, task: Task, protocol: ProtocolName) -> TaskPool:
    """Reads the dataset's table, applies the task's label policy, splits by person."""
    whole = table.read(reader, located.root)
    found = table.for_task(whole, task)
    kept = whole["image_id"].isin(found.frame["image_id"]).to_numpy()
    parts = splits.make(whole, task.splits[protocol], kept)
    if task.balanced is not None:
        found, parts = balanced.choose(found, parts.test, task, task.balanced)
    frame, labels, fingerprint = found
    if located.kind == "phantom":
        fingerprint = hash_of(fingerprint, locate.stamp(located.root)["cohort"])
    return TaskPool(
        located,
        table.release(whole, card),
        bool(whole.attrs.get("persons_known", True)),
        frame,
        labels,
        fingerprint,
        parts,
    )
