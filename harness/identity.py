"""What must agree for a record to be that of a cell as it would be computed now.

Apart because two ask it: a sweep, of cells that may have a record, and a run, of the record that its own
replaces.
"""

from __future__ import annotations

from typing import NamedTuple

from harness.records import CellBlock, InputBlock, Record


class Identity(NamedTuple):
    """The names of the fields are the words of messages."""

    fraction: CellBlock  # of a cell in the same place, which is named by six digits of it
    version_of_the_task: int
    weights: str
    version_of_the_method: int | None  # imported weights have none in their name; None: not known, like any
    data: tuple[str, str]  # hashes: of images and labels, and of who is in which part
    # by which persons are resampled, also where a split does not depend on it
    knowledge_of_persons: bool
    rules: frozenset[str]
    reading_of_pictures: tuple[int, int, int]  # versions of the code that does it
    version_of_the_head: int
    preprocessing: InputBlock
    pixels: str | None  # hash; None: not known now, like any

    def unlike(self, other: Identity) -> str:
        """What they differ in, "weights and data"; "" where they agree."""
        pairs = zip(self._fields, self, other, strict=True)
        return " and ".join(
            name.replace("_", " ") for name, one, two in pairs if one != two and None not in (one, two)
        )


def of(record: Record) -> Identity:
    return Identity(
        fraction=record.cell,
        version_of_the_task=record.task.version,
        weights=record.pretraining.weights,
        version_of_the_method=record.pretraining.method_version,
        data=(record.data.fingerprint, record.data.split),
        knowledge_of_persons=record.data.persons_known,
        rules=frozenset(record.task.rules),
        reading_of_pictures=record.data.reading,
        version_of_the_head=record.head.version,
        preprocessing=record.preprocessing,
        pixels=record.data.images,
    )
