"""Which records may lie in one folder of results, and which of them stand in one table.

Apart because the leaderboard refuses what bundles must not bring: the two agree by asking here.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

from harness.errors import BadRecord
from harness.records import Record

Cell = TypeVar("Cell", bound=tuple[Path, Record])


class Table(NamedTuple):
    """What must agree for numbers to stand in one table."""

    task: str
    protocol: str
    cut_validation: bool  # whether fractions are of the validation labels too
    tuned: int  # configurations of each head that were compared; 0: the default settings
    data: str  # fingerprint of images and labels
    split: str
    persons_known: bool  # else intervals, and so tests, are by the best ids there are

    @property
    def dataset(self) -> str:
        return self.task.partition(":")[0]


class Row(NamedTuple):
    family: str  # the checkpoint without its seed
    method: str


def table_of(record: Record) -> Table:
    cell, data = record.cell, record.data
    options = cell.cut_validation, cell.tuned
    return Table(cell.task, cell.protocol, *options, data.fingerprint, data.split, data.persons_known)


def row_of(record: Record) -> Row:
    return Row(record.pretraining.family, record.cell.method)


def checked(cells: Iterable[tuple[Path, Record]], cure: str = "") -> list[tuple[Path, Record]]:
    """All cells as they came. Raises BadRecord at the first that contradicts one before it; `cure` replaces
    the usual one."""
    seen: dict[Hashable, tuple[Hashable, Path]] = {}
    found = list(cells)
    for path, record in found:
        for fact in _facts(record):
            known, first = seen.setdefault((fact.of_two, fact.key), (fact.value, path))
            if known != fact.value:
                raise BadRecord(
                    f"{path} and {first} are of two {fact.of_two}: {fact.reason}. {cure or fact.cure}"
                )
    return found


def without_lent(cells: Iterable[Cell]) -> tuple[list[Cell], list[Cell]]:
    """The cells that count, and those that are replaced. A seed without a checkpoint of its own borrows
    another's; once it has its own, or could borrow that of a lower seed, the borrowed run counts no more:
    else one checkpoint would enter a mean many times, by what was trained first."""
    found = list(cells)
    best: dict[Hashable, tuple[bool, int]] = {}
    for _, record in found:
        if record.lent or record.pretraining.seed == record.cell.seed:
            key, rank = _seed_of(record), (record.lent, record.pretraining.seed)
            best[key] = min(best.get(key, rank), rank)
    kept: list[Cell] = []
    replaced: list[Cell] = []
    for item in found:
        record = item[1]
        counts = not record.lent or best[_seed_of(record)] == (True, record.pretraining.seed)
        (kept if counts else replaced).append(item)
    return kept, replaced


def _seed_of(record: Record) -> Hashable:
    return record.data.kind, table_of(record), row_of(record), record.cell.seed


class _Fact(NamedTuple):
    of_two: str  # what there would be two of
    key: Hashable  # records that share it
    value: Hashable  # share this
    reason: str
    cure: str


def _facts(record: Record) -> Iterator[_Fact]:
    cell, kind = record.cell, record.data.kind
    name, table = (kind, cell.checkpoint), (kind, table_of(record))
    again = (
        "Sweep again, which runs all cells of that name with the checkpoint you have, or keep the records of "
        "one in another folder (--results)"
    )
    yield _Fact(
        f"versions of {cell.task}",
        cell.task,
        record.task.version,
        "they answer different questions",
        "Sweep the task again, or delete the records of the older version",
    )
    # checkpoints are named after their recipe, so that trainings of two machines share a name
    yield _Fact(
        "trainings under one name",
        name,
        record.pretraining.weights,
        "their mean would be of neither",
        again,
    )
    if (version := record.pretraining.method_version) is not None:
        yield _Fact(
            "versions of the method under one name",
            name,
            version,
            "between them the code changed what the weights give",
            again,
        )
    yield _Fact(
        "ways to prepare pictures under one name",
        name,
        record.preprocessing,
        "their encoders saw other pixels",
        again,
    )
    yield _Fact(
        "sets of rules",
        table,
        frozenset(record.task.rules),
        "what is called published differs between them",
        "Sweep the task again, which runs the cells of other rules",
    )
    yield _Fact(
        "ways to read pictures",
        table,
        record.data.reading,
        "between them the code changed what encoders see",
        "Sweep the task again, or delete the records of the older version",
    )
    yield _Fact(
        "versions of the head",
        table,
        record.head.version,
        "between them the code changed its numbers",
        "Sweep the task again, or delete the records of the older version",
    )
    yield _Fact(
        "sets of pixels under the same names",
        (table, row_of(record), cell.fraction),
        record.data.images,
        "their mean is about no one test set",
        "Delete the records of one and sweep again, on the pictures of the other",
    )
