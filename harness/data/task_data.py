"""The images of one cell: which there are, what their labels are, and who is in which part.

Apart because it is everything about a cell's data that needs no pixel and no network, and every kind of
task starts from it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.contracts import Dataset, DatasetCard, ProtocolName, PublishedSplit, Task
from harness.data import balanced, fractions, locate, published, splits, table
from harness.data.locate import Located
from harness.data.published import Published
from harness.data.splits import Parts
from harness.files import hash_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TaskPool:
    """A task's images before a fraction of their labels is drawn: what its cells share."""

    located: Located
    release: str  # the known variant of the dataset whose counts the table has, or ""
    persons_known: bool
    frame: pd.DataFrame  # N rows, in the order of their ids
    labels: np.ndarray  # [N, L] int8: 1, 0 or table.UNKNOWN
    fingerprint: str  # of table.Labelled, and of how a phantom was made: its pictures change, its ids do not
    parts: Parts  # positions in `frame`
    rules: tuple[str, ...]  # of harness/data/published.py that are in force; none under the clean protocol
    published: Published | None  # where the code of others makes the parts, it draws the fractions too

    def draw(self, fraction: float | None, seed: int, *, cut_validation: bool = False) -> TaskData:
        """The cell that uses this share of the training labels, and of the validation labels if those are cut
        too; None where it uses none."""
        used, validation = self.parts.train[:0], self.parts.validation
        if fraction is not None and self.published is not None:
            used = self.published.draw(fraction)
        elif fraction is not None:
            used = self._share(self.parts.train, fraction, seed)
            if cut_validation:
                validation = self._share(validation, fraction, seed)
        return TaskData(**vars(self), used=used, validation=validation)

    def _share(self, rows: np.ndarray, fraction: float, seed: int) -> np.ndarray:
        persons = self.frame["person_id"].to_numpy()[rows]
        drawn: np.ndarray = rows[fractions.draw(persons, self.labels[rows], fraction, seed)]
        return drawn


@dataclass(frozen=True)
class TaskData(TaskPool):
    """The images of one cell."""

    used: np.ndarray  # the training positions whose labels the fraction leaves
    validation: np.ndarray  # the validation positions whose labels may be looked at


def say_release(name: str, card: DatasetCard, located: Located, release: str, doctor: str) -> None:
    """Where a real dataset is maybe a part of one: its numbers look like those of the whole. `doctor`: what
    `data doctor` is to be given."""
    if located.kind == "real" and card.variants and not release:
        logger.warning(
            "%s in %s has the counts of no known release: its numbers may not be those of the dataset. What "
            "differs says: python -m harness data doctor %s",
            *(name, located.root, doctor),
        )


def load(
    located: Located, reader: Dataset, card: DatasetCard, task: Task, protocol: ProtocolName
) -> TaskPool:
    """Reads the dataset's table, applies the task's label policy, and splits it: by person, or under the
    published protocol as the authors' code does."""
    return of_table(table.read(reader, located.root), located, card, task, protocol)


def of_table(
    whole: pd.DataFrame, located: Located, card: DatasetCard, task: Task, protocol: ProtocolName
) -> TaskPool:
    """The same from a table that has been read."""
    found = table.for_task(whole, task)
    split, theirs = task.splits[protocol], None
    if isinstance(split, PublishedSplit):
        theirs = published.make(whole, found, task.labels, split)
        parts, rules = theirs.parts, theirs.rules
    else:
        kept = whole["image_id"].isin(found.frame["image_id"]).to_numpy()
        parts = splits.make(whole, split, kept)
        rules = (published.CLEAN_PARTS,) if protocol == "published" else ()
    if task.balanced is not None:
        found, parts = balanced.choose(found, parts.test, task, task.balanced)
    frame, labels, fingerprint = found
    if located.kind == "phantom":
        fingerprint = hash_of(fingerprint, locate.stamp(located.root)["cohort"])
    return TaskPool(
        located=located,
        release=table.release(whole, card),
        persons_known=bool(whole.attrs.get("persons_known", True)),
        frame=frame,
        labels=labels,
        fingerprint=fingerprint,
        parts=parts,
        rules=rules,
        published=theirs,
    )
