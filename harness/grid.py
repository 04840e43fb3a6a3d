"""Which cells a sweep is made of: methods x tasks x protocols x fractions x seeds, where that makes sense.

Apart because it is answered from names and cards alone, before any data is looked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import get_args

from harness import plan, registry
from harness.contracts import NEEDS_TEXT, DatasetCard, Kind, ProtocolName
from harness.errors import ImpossiblePairing, UnknownName, UsageError
from harness.plan import CellPlan

FROZEN: frozenset[Kind] = frozenset({"linear", "zero-shot", "retrieval"})
"""Kinds that train no network: on what the frozen encoder gives there is a small convex fit, or nothing."""


@dataclass(frozen=True)
class Grid:
    cells: tuple[CellPlan, ...]
    impossible: dict[str, str]  # "random_init x chexpert:zero-shot", or a method or dataset alone -> why


def cells(
    *,
    methods: Sequence[str],
    tasks: Sequence[str],
    protocols: Sequence[str],
    fractions: Sequence[float],
    seeds: int,
    profile: str,
    tuned: int = 0,
    cut_validation: bool = False,
) -> Grid:
    """Every combination that makes sense. `tasks` holds patterns such as `rsna:*`; a name without a kind
    means its dataset's default kind. No `methods` are all that have the profile. `tuned` and
    `cut_validation` apply to the cells that allow them. Raises UnknownName for a name or pattern that fits
    nothing, UsageError for what is no fraction."""
    for fraction in fractions:
        plan.require_share(fraction)
    for protocol in protocols:
        if protocol not in get_args(ProtocolName):
            raise UnknownName("protocol", protocol, get_args(ProtocolName))
    found: list[CellPlan] = []
    impossible: dict[str, str] = {}
    if not methods:
        every, impossible = plan.usable(profile)
        methods = [item.name for item in every]
    if not tasks:
        impossible |= {name: item.error for name, item in registry.entries("tasks").items() if item.error}
    for task in _tasks(tasks):
        asked = registry.task_of(task)
        kind, offered = asked.kind, asked.task.splits
        for protocol in protocols:
            if protocol not in offered:
                impossible[f"{task} {protocol}"] = f"there is no {protocol} protocol for it"
                continue
            for method in methods:
                try:
                    first = plan.cell(method, task, profile=profile, protocol=protocol, fraction=1.0, seed=0)
                except ImpossiblePairing as error:
                    impossible[f"{method} x {task}"] = str(error)
                    continue
                first = replace(
                    first,
                    tuned=tuned if can_be_tuned(kind, protocol) else 0,
                    cut_validation=cut_validation and plan.validation_can_be_cut(kind, first.protocol),
                )
                shares = (1.0,) if kind in NEEDS_TEXT else fractions  # those use no labels
                found += [
                    replace(first, fraction=share, seed=seed) for share in shares for seed in range(seeds)
                ]
    _require_one_file_each("methods", {cell.method.source: cell.method.name for cell in found})
    _require_one_file_each("tasks", {cell.source: cell.dataset for cell in found})
    # what is named twice, or has fractions that are one in the names of records, is one cell
    return Grid(tuple({cell.name: cell for cell in found}.values()), impossible)


def pattern(task: str) -> str:
    """The pattern that finds, among tasks of records, what `cells` makes of `task`: a dataset's name means
    its default kind, a file its dataset. A name that is not known here means all kinds that there are."""
    if task.partition(":")[0].endswith(".py") or task in registry.entries("tasks"):
        return registry.task_of(task).id
    return task if set(task) & set(":*?[") else f"{task}:*"


def can_be_tuned(kind: Kind, protocol: str) -> bool:
    """Trained heads, unless they repeat what others published."""
    return kind not in FROZEN and protocol == "clean"


def _require_one_file_each(group: registry.Group, names: Mapping[str, str]) -> None:
    """Raises UsageError where two files have one name: `names` are those of sources, and of their records."""
    files: dict[str, Path] = {}
    for source, name in names.items():
        path = registry.entry(group, source).path.resolve()
        if files.setdefault(name, path) != path:
            raise UsageError(f"{files[name]} and {path} are both called {name}. Rename one of them")


def _tasks(patterns: Sequence[str]) -> list[str]:
    offered = {
        name: [f"{name}:{kind}" for kind in item.card.by_name]
        for name, item in registry.entries("tasks").items()
        if isinstance(item.card, DatasetCard) and item.card.tasks
    }
    ids = [task for group in offered.values() for task in group]
    chosen: list[str] = []
    for wanted in patterns or ["*:*"]:
        if wanted in offered:
            chosen.append(offered[wanted][0])
        elif fits := [task for task in ids if fnmatchcase(task, wanted)]:
            chosen += fits
        else:
            chosen += _of_file(wanted)
    datasets = [task.rpartition(":")[0] for task in chosen]
    # those of a dataset together, so that its tables, which are large, are read once
    return sorted(dict.fromkeys(chosen), key=lambda task: datasets.index(task.rpartition(":")[0]))


def _of_file(wanted: str) -> list[str]:
    """Ids of the tasks in a file of the user's, such as `path/to/file.py:*`. Raises UnknownName, or why the
    file is no dataset."""
    path, _, kinds = wanted.rpartition(":")
    if path.endswith(".py"):
        source = registry.entry("tasks", path).source
        offered = registry.dataset_card(path).by_name
        if fits := [f"{source}:{kind}" for kind in offered if fnmatchcase(kind, kinds)]:
            return fits
    found = registry.task_of(wanted)
    return [f"{found.source}:{found.id.partition(':')[2]}"]
