"""The images of one cell: which there are, what their labels are, and who is in which part.

Apart because it is everything about a cell's data that needs no pixel and no network, and every kind of
task starts from it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from harness.contracts import DatasetCard, ProtocolName, PublishedSplit, Task
from harness.data import fractions, locate, published, splits, table
from harness.data.locate import Located
from harness.data.splits import Parts
from harness.data.table import Reader
from harness.files import hash_of


class TaskData(NamedTuple):
    located: Located
    release: str  # the known variant of the dataset whose counts the table has, or ""
    persons_known: bool
    frame: pd.DataFrame  # N rows, in the order of their ids
    labels: np.ndarray  # [N, L] int8: 1, 0 or table.UNKNOWN
    fingerprint: str  # of ids and labels, and of how a phantom was made: its pictures change, its ids do not
    parts: Parts  # positions in `frame`
    used: np.ndarray  # the training positions whose labels the fraction leaves
    rules: tuple[str, ...]  # of harness/data/published.py that made the parts and the fraction


def load(
    located: Located,
    reader: Reader,
    card: DatasetCard,
    task: Task,
    protocol: ProtocolName,
    fraction: float,
    seed: int,
) -> TaskData:
    """Reads the dataset's table, applies the task's label policy, splits by person, draws the fraction.

    Under the published protocol both are as the authors' code has them, and persons may be on both sides.
    """
    whole = table.read(reader, located.root)
    kept = table.for_task(whole, task)
    fingerprint = kept.fingerprint
    if located.kind == "phantom":
        fingerprint = hash_of(fingerprint, locate.stamp(located.root)["cohort"])
    split = task.splits[protocol]
    if isinstance(split, PublishedSplit):
        parts, used, rules = published.make(whole, kept, task.labels, split, fraction)
    else:
        parts = splits.make(kept.frame, split)
        persons = kept.frame["person_id"].to_numpy()
        drawn = fractions.draw(persons[parts.train], kept.labels[parts.train], fraction, seed)
        used = parts.train[drawn]
        rules = (published.CLEAN_PARTS,) if protocol == "published" else ()
    return TaskData(
        located,
        table.release(whole, card),
        bool(whole.attrs.get("persons_known", True)),
        kept.frame,
        kept.labels,
        fingerprint,
        parts,
        used,
        rules,
    )
