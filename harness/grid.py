"""Which cells a sweep is made of, and which of them are done: a cell is done when its record is complete.

Apart because that is the whole memory of a sweep: it can be killed at any time, and asks this file again.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple, get_args

from harness import plan, records, registry
from harness.contracts import NEEDS_TEXT, DataKind, DatasetCard, Kind, ProtocolName
from harness.errors import BadRecord, ImpossiblePairing, UnknownName, UsageError
from harness.files import write_json
from harness.plan import CellPlan, MethodPlan
from harness.pretrain import checkpoint
from harness.pretrain.checkpoint import Checkpoint
from harness.records import CellBlock, Record

logger = logging.getLogger(__name__)

QUARANTINE = "quarantine"

FROZEN: frozenset[Kind] = frozenset({"linear", "zero-shot", "retrieval"})
"""Kinds that read an encoder's features and never its maps or gradients."""


@dataclass(frozen=True)
class Grid:
    cells: tuple[CellPlan, ...]
    impossible: dict[str, str]  # "random_init x chexpert:zero-shot" -> why

    @property
    def methods(self) -> tuple[MethodPlan, ...]:
        return tuple({cell.method.name: cell.method for cell in self.cells}.values())


def cells(
    *,
    methods: Sequence[str],
    tasks: Sequence[str],
    protocols: Sequence[str],
    fractions: Sequence[float],
    seeds: int,
    profile: str,
    tuned: int = 0,
) -> Grid:
    """Every combination that makes sense. `tasks` holds patterns such as `rsna:*`; a name without a kind
    means its dataset's default kind. `tuned` is of heads that can be. Raises UnknownName for a name or
    pattern that fits nothing."""
    for protocol in protocols:
        if protocol not in get_args(ProtocolName):
            raise UnknownName("protocol", protocol, get_args(ProtocolName))
    found: list[CellPlan] = []
    impossible: dict[str, str] = {}
    for task in _tasks(tasks):
        kind, offered = registry.task_of(task).kind, registry.task_of(task).task.splits
        for protocol in protocols:
            if protocol not in offered:
                impossible[f"{task} {protocol}"] = f"there is no {protocol} protocol for it"
                continue
            for method in methods or _usable_methods():
                try:
                    first = plan.cell(method, task, profile=profile, protocol=protocol, fraction=1.0, seed=0)
                except ImpossiblePairing as error:
                    impossible[f"{method} x {task}"] = str(error)
                    continue
                if can_be_tuned(kind, protocol):
                    first = replace(first, tuned=tuned)
                shares = (1.0,) if kind in NEEDS_TEXT else fractions  # those use no labels
                found += [
                    replace(first, fraction=share, seed=seed) for share in shares for seed in range(seeds)
                ]
    return Grid(tuple(found), impossible)


def can_be_tuned(kind: Kind, protocol: str) -> bool:
    """Trained heads, unless they repeat what others published."""
    return kind not in FROZEN and protocol == "clean"


def _usable_methods() -> list[str]:
    return [name for name, item in registry.entries("methods").items() if not item.error]


def _tasks(patterns: Sequence[str]) -> list[str]:
    offered = {
        name: [f"{name}:{kind}" for kind in item.card.by_name]
        for name, item in registry.entries("tasks").items()
        if isinstance(item.card, DatasetCard) and item.card.tasks
    }
    ids = [task for group in offered.values() for task in group]
    chosen: list[str] = []
    for pattern in patterns or ["*:*"]:
        if pattern in offered:
            chosen.append(offered[pattern][0])
        elif fits := [task for task in ids if fnmatchcase(task, pattern)]:
            chosen += fits
        else:
            chosen.append(registry.task_of(pattern).id)  # raises, or is a dataset's own file
    return list(dict.fromkeys(chosen))


# --- what is done -----------------------------------------------------------------------------------


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


class Job(NamedTuple):
    """A cell whose checkpoint and data are known."""

    cell: CellPlan
    checkpoint: Checkpoint
    data: DataKind

    @property
    def block(self) -> CellBlock:
        cell = self.cell
        return CellBlock(
            method=cell.method.name,
            checkpoint=self.checkpoint.name,
            task=cell.task_id,
            protocol=cell.protocol,
            fraction=cell.fraction,
            seed=cell.seed,
            tuned=cell.tuned,
        )


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


def grouped(jobs: Iterable[Job]) -> list[list[Job]]:
    """Jobs that read the same features stand together; one of a kind that trains more than a probe stands
    alone."""
    groups: dict[object, list[Job]] = {}
    for number, job in enumerate(jobs):
        shared = (job.checkpoint.name, job.cell.task_id, job.cell.protocol)
        groups.setdefault(shared if job.cell.kind in FROZEN else number, []).append(job)
    return list(groups.values())


# --- what failed ------------------------------------------------------------------------------------


def describe(cell: CellPlan) -> str:
    tuned = f" tuned{cell.tuned}" if cell.tuned else ""
    return f"{cell.method.name} {cell.task_id} {cell.protocol} {cell.fraction * 100:g}pct s{cell.seed}{tuned}"


def failure_path(results: Path, cell: CellPlan) -> Path:
    return results / records.FAILURES / f"{describe(cell).replace(' ', '-').replace(':', '-')}.json"


def read_failure(results: Path, cell: CellPlan) -> str:
    """Why a cell has no record. One that left no word was never begun, or its process was killed."""
    path = failure_path(results, cell)
    if not path.exists():
        return "its process died before the cell was done"
    found = json.loads(path.read_text(encoding="utf-8"))
    return f"{found['error']}: {found['message']}"


def write_failure(results: Path, cell: CellPlan, error: BaseException) -> None:
    failure = {
        "method": cell.method.name,
        "task": cell.task_id,
        "protocol": cell.protocol,
        "fraction": cell.fraction,
        "seed": cell.seed,
        "tuned": cell.tuned,
        "error": type(error).__name__,
        "message": str(error),
    }
    write_json(failure_path(results, cell), failure)
