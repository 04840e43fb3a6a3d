"""What a sweep would do: cells done and to do, and what they would cost by those that are done.

Apart from the sweep because it changes nothing, and needs no Ray.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from harness import jobs, records
from harness.errors import HarnessError
from harness.grid import Grid
from harness.pretrain.checkpoint import Checkpoint
from harness.settings import Settings


class Matrix(NamedTuple):
    """What there is to do, without doing it."""

    rows: list[Row]
    missing: dict[str, str]  # data set -> why it cannot be read


class Row(NamedTuple):
    """A task and a method."""

    task: str
    method: str
    done: int
    left: int
    seconds: float | None  # of a cell of this task so far; None: there is none yet
    size: float | None  # MiB of its record and predictions


def matrix(wanted: Grid, settings: Settings, named: Sequence[Checkpoint]) -> Matrix:
    """Seconds and sizes are medians over the cells of the task that are done."""
    spent: dict[str, list[float]] = {}
    sizes: dict[str, list[float]] = {}
    counts: dict[tuple[str, str], list[bool]] = {}
    missing: dict[str, str] = {}
    for cell, job in jobs.match(wanted.cells, settings, named, make=lambda _: None):
        if isinstance(job, HarnessError):
            missing[cell.dataset] = str(job)
            continue
        record = jobs.complete(settings.results, job) if job else None
        task = " ".join((cell.task_id, *cell.options))
        counts.setdefault((task, cell.method.name), []).append(record is not None)
        if record:
            seconds = sum(record.cost.seconds.get(step, 0) for step in ("search", "head", "test"))
            path = records.path_of(settings.results, record)
            size = sum(file.stat().st_size for file in (path, path.with_suffix(".npz")))
            spent.setdefault(task, []).append(seconds)
            sizes.setdefault(task, []).append(size / 2**20)
    rows = [
        Row(
            task,
            method,
            sum(done),
            len(done) - sum(done),
            median(spent[task]) if task in spent else None,
            median(sizes[task]) if task in sizes else None,
        )
        for (task, method), done in counts.items()
    ]
    return Matrix(rows, missing)
