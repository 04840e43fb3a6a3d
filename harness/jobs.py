"""Cells with their checkpoints and data. A cell is done when its record is complete.

Apart because that is the whole memory of a sweep: it can be killed at any time, and asks this file again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from harness import records
from harness import run as road
from harness.contracts import DataKind
from harness.data import locate
from harness.errors import BadRecord, HarnessError, UnknownName, UsageError
from harness.grid import FROZEN, Grid
from harness.plan import CellPlan
from harness.pretrain import checkpoint
from harness.pretrain.checkpoint import Checkpoint
from harness.records import CellBlock, Record
from harness.settings import Settings

logger = logging.getLogger(__name__)

QUARANTINE = "quarantine"


class Job(NamedTuple):
    """A cell whose checkpoint and data are known."""

    cell: CellPlan
    checkpoint: Checkpoint
    data: DataKind

    @property
    def block(self) -> CellBlock:
        return CellBlock(checkpoint=self.checkpoint.name, **self.cell.key)


def complete(results: Path, job: Job) -> Record | None:
    """The record of a cell that is done: of this version of the task, with these weights, and whole."""
    path = records.place_of(results, job.data, job.block)
    if not path.is_file():
        return None
    try:
        record = records.read(path)
        records.predictions(path)
    except BadRecord:
        return None
    same_task = record.task.version == job.cell.task.version
    return record if same_task and record.pretraining.weights == job.checkpoint.card.weights else None


def put_aside(results: Path, job: Job) -> None:
    """Moves a record that cannot be read out of the way of the one that takes its place, and says so."""
    path = records.place_of(results, job.data, job.block)
    if not path.is_file():
        return
    try:
        records.read(path)
        records.predictions(path)
    except BadRecord as error:
        aside = results / QUARANTINE / "-".join(path.relative_to(results).parts)
        aside.parent.mkdir(parents=True, exist_ok=True)
        for file in (path, path.with_suffix(".npz")):
            if file.exists():
                file.replace(aside.with_suffix(file.suffix))
        logger.warning("%s. It was put aside as %s, and the cell runs again", error, aside)


def mixed(found: Iterable[Record]) -> list[str]:
    """Tasks, with their protocol, whose records saw different images, labels or splits: the data changed
    between two sweeps, and what was done before the change stayed."""
    data: dict[str, set[tuple[str, str]]] = {}
    for record in found:
        task = f"{record.cell.task} {record.cell.protocol}"
        data.setdefault(task, set()).add((record.data.fingerprint, record.data.split))
    return sorted(task for task, versions in data.items() if len(versions) > 1)


def grouped(jobs: Iterable[Job]) -> list[list[Job]]:
    """Jobs that read the same features stand together; one of a kind that trains more than a probe stands
    alone."""
    groups: dict[object, list[Job]] = {}
    for number, job in enumerate(jobs):
        shared = (job.checkpoint.name, job.cell.task_id, job.cell.protocol)
        groups.setdefault(shared if job.cell.kind in FROZEN else number, []).append(job)
    return list(groups.values())


# --- what a cell needs ------------------------------------------------------------------------------


def checkpoints(store: Path, wanted: Grid, names: Sequence[str]) -> list[Checkpoint]:
    """The checkpoints of these names. Raises UnknownName, or UsageError for one of no method in the grid."""
    makers = {method.name: method for method in wanted.methods}
    known = {item.name: item for item in checkpoint.listing(store) if isinstance(item, Checkpoint)}
    for name in names:
        if name not in known:
            raise UnknownName("checkpoint", name, known)
        if known[name].card.method not in makers:
            raise UsageError(f"checkpoint {name} is of no method in this sweep. Name its method in --methods")
    plans = [makers[known[name].card.method] for name in names]
    return [
        checkpoint.named(store, name, method=maker.name, version=maker.card.version)
        for name, maker in zip(names, plans, strict=True)
    ]


def match(
    cells: Iterable[CellPlan],
    settings: Settings,
    named: Sequence[Checkpoint],
    make: Callable[[CellPlan], Checkpoint | None],
) -> Iterator[tuple[CellPlan, Job | HarnessError | None]]:
    """Each cell with its job, or with why its data or its checkpoint cannot be had.

    Its checkpoint is the one of the `named` ones of its method whose number its seed is, modulo how many
    there are; else the newest that fits; else what `make` makes, and where that is None there is no job.
    """
    memo: dict[object, Any] = {}
    for cell in cells:
        try:
            data = _once(memo, cell.dataset, partial(_data_kind, cell, settings))
            find = partial(_checkpoint, cell, settings, named, make)
            chosen = _once(memo, _owner(cell, named), find)
        except HarnessError as error:
            yield cell, error
        else:
            yield cell, Job(cell, chosen, data) if chosen else None


def _once(memo: dict[object, Any], key: object, make: Callable[[], Any]) -> Any:
    """What cannot be had is tried once, not once per cell: its error is raised again."""
    if key not in memo:
        try:
            memo[key] = make()
        except HarnessError as error:
            memo[key] = error
    if isinstance(memo[key], HarnessError):
        raise memo[key]
    return memo[key]


def _data_kind(cell: CellPlan, settings: Settings) -> DataKind:
    """Raises MissingDataset."""
    if not settings.data_roots:
        return "phantom"
    return locate.real(cell.dataset, cell.dataset_card, settings).kind


def _owner(cell: CellPlan, named: Sequence[Checkpoint]) -> tuple[str, int | None]:
    """What decides a cell's checkpoint: its method, and its seed where checkpoints differ by it."""
    by_seed = cell.method.profile.recipe is None or any(
        item.card.method == cell.method.name for item in named
    )
    return cell.method.name, cell.seed if by_seed else None


def _checkpoint(
    cell: CellPlan,
    settings: Settings,
    named: Sequence[Checkpoint],
    make: Callable[[CellPlan], Checkpoint | None],
) -> Checkpoint | None:
    if given := [item for item in named if item.card.method == cell.method.name]:
        return given[cell.seed % len(given)]
    return road.fitting(cell.method, settings, cell.seed) or make(cell)
