"""What a sweep would do: cells done and to do, and what they would cost by those that are done.

Apart from the sweep because it changes nothing, and needs no Ray.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from harness import jobs, plan, records, weights
from harness.contracts import DataKind, ProfileName, ProtocolName
from harness.data import locate
from harness.errors import BadRecord, MissingDataset, NewerRecord
from harness.failures import Tried
from harness.grid import Grid
from harness.jobs import Job, Lost
from harness.memo import once
from harness.plan import MethodPlan
from harness.pretrain.checkpoint import Checkpoint
from harness.settings import Settings


class Matrix(NamedTuple):
    """What there is to do, without doing it."""

    rows: list[Row]
    missing: dict[str, str]  # cell -> why it cannot be run
    untrained: dict[str, str]  # method without a checkpoint -> what it would be trained on
    undrawn: int  # cells whose phantom is not drawn yet, so that nothing tells whether they are done
    in_the_way: dict[str, int]  # what is wrong with records in the places of cells -> how many there are
    borrowing: list[str]  # see `jobs.borrowing`


class Row(NamedTuple):
    """A task and a method."""

    task: str
    method: str
    profile: ProfileName
    done: int
    left: int
    seconds: float | None  # of a cell like these so far; None: there is none yet
    size: float | None  # MiB of its record and predictions


def matrix(wanted: Grid, settings: Settings, named: Sequence[Checkpoint]) -> Matrix:
    """What is done, left and impossible of a grid. Seconds and sizes are means over all records of the same
    task, options, kind of data and profile; they include decoding and encoding, which only the first seed
    pays."""
    counts: dict[tuple[_Like, str], list[bool]] = {}
    missing: dict[str, str] = {}
    untrained: dict[str, str] = {}
    corpora: dict[object, Any] = {}
    undrawn = 0
    in_the_way: Counter[str] = Counter()
    todo: list[Tried] = []
    for job in jobs.match(wanted.cells, settings, named, make=None):
        cell = job.tried.cell
        if isinstance(job, Lost) and job.error:
            missing[cell.name] = str(job.error)
            continue
        if isinstance(job, Lost) and cell.method.profile.recipe:
            try:
                look = partial(_corpus, cell.method, settings)
                untrained[cell.method.name] = once(corpora, cell.method.name, look)
            except MissingDataset as error:
                missing[cell.name] = f"{cell.method.name} would be pre-trained first, and there is {error}"
                continue
        done = False
        if isinstance(job, Job) and job.known is jobs.NOT_DRAWN:
            undrawn += 1
        elif isinstance(job, Job):
            try:
                reason = jobs.in_the_way(settings.results, job)
            except (NewerRecord, OSError) as error:  # as in a sweep
                missing[cell.name] = str(error)
                continue
            if reason:
                in_the_way[reason] += 1
            else:
                done = job.place(settings.results).is_file()
        if not done:  # a training that is yet to come will be of seed 0
            to_come = isinstance(job, Lost) and cell.method.profile.recipe is not None and cell.seed > 0
            todo.append(job.tried._replace(lent=job.tried.lent or to_come))
        task = _words(cell.task_id, cell.protocol, cell.options)
        like = _Like(job.tried.data, job.tried.profile, task)
        counts.setdefault((like, cell.method.name), []).append(done)
    costs = _costs(settings.results)
    rows = [
        Row(like.task, method, like.profile, sum(done), len(done) - sum(done), *costs.get(like, (None, None)))
        for (like, method), done in counts.items()
    ]
    return Matrix(rows, missing, untrained, undrawn, dict(in_the_way), list(jobs.borrowing(todo)))


def _corpus(method: MethodPlan, settings: Settings) -> str:
    """What a method without a checkpoint would be trained on. Raises MissingDataset where there is none."""
    source = plan.corpus(method, None)
    try:
        if settings.data_roots and locate.real(source.name, source.card, settings).kind == "real":
            return source.name
    except MissingDataset:
        if not weights.stands_in(method):
            raise
    return f"a PHANTOM of {source.name}"


def _words(task: str, protocol: ProtocolName, options: Sequence[str]) -> str:
    return " ".join((task, *([protocol] if protocol != "clean" else []), *options))


class _Like(NamedTuple):
    """What must agree for one cell to cost as much as another."""

    data: DataKind
    profile: ProfileName
    task: str


def _costs(results: Path) -> dict[_Like, tuple[float, float]]:
    """Mean seconds and MiB of the cells that are alike."""
    found: dict[_Like, list[tuple[float, float]]] = defaultdict(list)
    for path in records.files(results):
        try:
            record = records.read(path)
        except BadRecord:
            continue  # what is to be done about it is said of its cell
        task = _words(record.cell.task, record.cell.protocol, record.cell.options)
        like = _Like(record.data.kind, record.pretraining.profile, task)
        files = (file for file in (path, path.with_suffix(".npz")) if file.exists())
        size = sum(file.stat().st_size for file in files) / 2**20
        found[like].append((sum(record.cost.seconds.values()), size))
    return {
        like: (fmean(seconds for seconds, _ in each), fmean(size for _, size in each))
        for like, each in found.items()
    }
