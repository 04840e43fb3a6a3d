"""Cells with their checkpoints and data. A cell is done when its record is complete.

Apart because that is the whole memory of a sweep: it can be killed at any time, and asks this file again.
"""

from __future__ import annotations

import logging
import math
import shlex
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from harness import account, identity, quarantine, records, registry, weights
from harness import run as pipeline
from harness.contracts import DataKind
from harness.data import cache, locate, published, table, task_data
from harness.data.cache import Present
from harness.data.locate import Located
from harness.errors import (
    BadRecord,
    HarnessError,
    ImpossiblePairing,
    NewerRecord,
    UsageError,
    few,
)
from harness.failures import Tried
from harness.files import hash_lines
from harness.grid import Grid
from harness.identity import Identity
from harness.memo import once
from harness.plan import CellPlan
from harness.pretrain import checkpoint
from harness.pretrain.checkpoint import Checkpoint
from harness.records import CellBlock, InputBlock
from harness.settings import Settings

logger = logging.getLogger(__name__)

NEWER = (
    "%s has pictures that are newer than records of it, and are not decoded: nobody knows whether they are "
    "others now. They are compared once they are decoded, as by any run, or for the methods of a profile by: "
    "python -m harness data prepare %s --profile %s%s"
)


class Known(NamedTuple):
    """What tables tell of a cell's data."""

    kind: DataKind
    fingerprint: str  # of its images and labels
    split: str  # of who is in which part
    persons_known: bool  # see `table.attrs`
    rules: tuple[str, ...]  # of harness/data/published.py; none under the clean protocol


NOT_DRAWN = Known("phantom", "", "", True, ())  # no record is of that


class Job(NamedTuple):
    """A cell whose checkpoint and data are known."""

    cell: CellPlan
    checkpoint: Checkpoint
    known: Known
    named: bool = False  # whether somebody asked for its checkpoint
    pixels: str | None = None  # fingerprint of its pictures, where it is known
    pictures: str | None = None  # key of their files, where they shape what a search has tried

    @property
    def data(self) -> DataKind:
        return self.known.kind

    @property
    def block(self) -> CellBlock:
        return CellBlock(checkpoint=self.checkpoint.name, **self.cell.key)

    @property
    def identity(self) -> Identity:
        """What a record must agree with to be this cell's."""
        return Identity(
            fraction=self.block,
            version_of_the_task=self.cell.task.version,
            weights=self.checkpoint.card.weights,
            version_of_the_method=self.checkpoint.card.method_version,
            data=(self.known.fingerprint, self.known.split),
            knowledge_of_persons=self.known.persons_known,
            rules=frozenset(self.known.rules),
            reading_of_pictures=account.READING,
            version_of_the_head=pipeline.evaluator(self.cell).VERSION,
            preprocessing=InputBlock(**asdict(self.checkpoint.card.profile.preprocessing)),
            pixels=self.pixels,
        )

    def place(self, results: Path) -> Path:
        """The file of its record."""
        return records.place_of(results, self.data, self.block)

    @property
    def tried(self) -> Tried:
        card = self.checkpoint.card
        lent = not self.named and card.seed != self.cell.seed
        return Tried(self.data, self.cell, self.checkpoint.name, card.profile_name, lent)


class Lost(NamedTuple):
    """A cell that has no job."""

    tried: Tried
    error: HarnessError | None = None  # None: it has no checkpoint, and none was to be made


def complete(results: Path, job: Job) -> bool:
    """Whether a cell is done: its record is whole, and of all that the cell would be computed with now.
    Raises NewerRecord for one that only a newer harness can tell this of."""
    return job.place(results).is_file() and not in_the_way(results, job)


def in_the_way(results: Path, job: Job) -> str:
    """Why the record in the place of a cell's is not the cell's, or cannot be read; "" where it is, or where
    there is none."""
    path = job.place(results)
    if not path.is_file():
        return ""
    try:
        record = records.read(path)
        records.predictions(path)
    except NewerRecord:
        raise  # it may be the cell's, and is never put aside
    except BadRecord as error:
        return str(error)
    if names := identity.of(record).unlike(job.identity):
        return f"it is of other {names}"
    return "its checkpoint was lent to its seed, and is asked for now" if record.lent and job.named else ""


def put_aside(results: Path, todo: Iterable[Job]) -> None:
    """Moves what lies in the place of these cells' records out of the way, and says so."""
    aside = quarantine.new(results)
    moved: dict[str, list[Path]] = defaultdict(list)
    for job in todo:
        try:
            reason = in_the_way(results, job)
        except (NewerRecord, OSError):  # written meanwhile, by somebody else: its cell says so
            continue
        if reason:  # another sweep may have done the cell meanwhile
            quarantine.move(job.place(results), results, aside)
            moved[reason].append(job.place(results))
    for reason, paths in moved.items():
        logger.warning("%s: %s. Put aside in %s, to be run again", few(paths, shown=1), reason, aside)


def borrowing(tried: Iterable[Tried]) -> Iterator[str]:
    """Of methods whose checkpoint is of another seed than cells are: what these cells are, and the cure."""
    seeds: dict[str, set[int]] = defaultdict(set)
    methods: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for one in tried:
        if one.lent:
            seeds[one.cell.method.name].add(one.cell.seed)
    for method, found in seeds.items():
        methods[tuple(sorted(found))].append(method)
    for numbers, names in methods.items():
        yield (
            f"{', '.join(names)}: one training serves several seeds, so that cells of seed "
            f"{', '.join(map(str, numbers))} differ by the draw of labels and the head's seed at most, and "
            "run again once their seed has its own. Where trainings are to differ too, first: "
            "python -m harness pretrain --method NAME --seed N"
        )


def grouped(jobs: Iterable[Job]) -> list[list[Job]]:
    """Jobs of frozen kinds: those that read the same features stand together."""
    groups: dict[object, list[Job]] = {}
    for job in jobs:
        groups.setdefault((job.checkpoint.name, job.cell.task_id, job.cell.protocol), []).append(job)
    return list(groups.values())


# --- what a cell needs ------------------------------------------------------------------------------


def checkpoints(
    store: Path, wanted: Grid, names: Sequence[str], profile: str | None = None
) -> list[Checkpoint]:
    """The checkpoints of these names. Raises UnknownName, or UsageError for one of no method in the grid, or
    of another `profile` than somebody asks for."""
    makers = {cell.method.name: cell.method for cell in wanted.cells}
    found = []
    for name in names:
        maker = makers.get(checkpoint.found(store, name).card.method)
        if maker is None:
            raise UsageError(f"checkpoint {name} is of no method in this sweep. Name its method in --methods")
        found.append(
            checkpoint.named(store, name, method=maker.name, version=maker.card.version, profile=profile)
        )
    return found


def possible(wanted: Grid, named: Sequence[Checkpoint]) -> Grid:
    """Without the cells that would compare pictures with words by a named checkpoint that knows none."""
    cells, impossible = [], dict(wanted.impossible)
    for cell in wanted.cells:
        if chosen := _given(cell, named):
            try:
                pipeline.require_words(cell, chosen)
            except ImpossiblePairing as error:
                impossible[f"{chosen.name} x {cell.task_id}"] = str(error)
                continue
        cells.append(cell)
    return Grid(tuple(cells), impossible)


def match(
    cells: Iterable[CellPlan],
    settings: Settings,
    named: Sequence[Checkpoint],
    make: Callable[[CellPlan], Checkpoint] | None,
) -> Iterator[Job | Lost]:
    """Each cell with its checkpoint and data, or with why they cannot be had. What makes numbers of a
    checkpoint on a dataset doubtful is said once.

    Its checkpoint is the one of the `named` ones of its method whose number its seed is, modulo how many
    there are; else the one of its seed, or of the lowest, that fits; else what `make` makes. Without `make`
    nothing is made: there is no job without a checkpoint, and none is done whose phantom is yet to be drawn.
    """
    memo: dict[object, Any] = {}
    for _, of_dataset in groupby(cells, key=lambda cell: cell.dataset):
        tables: dict[object, Any] = {}  # of this dataset alone: they are large
        for cell in of_dataset:
            kind: DataKind = "real" if settings.data_roots else "phantom"
            try:
                read = partial(_data, cell, settings, tables, draw=make is not None)
                known: Known = once(tables, (cell.task_id, cell.protocol), read)
                kind = known.kind
                find = partial(_checkpoint, cell, settings, kind, named, make, memo)
                chosen = once(memo, (cell.method.name, cell.seed, kind), find)
                job = Job(cell, chosen, known, chosen in named) if chosen else None
                if job:
                    doubts = partial(weights.say_what_was_seen, job.checkpoint, cell, kind)
                    once(memo, ("doubts", job.checkpoint.name, cell.dataset), doubts)
                if job and kind == "real" and (seen := _seen(job, settings, tables)):
                    job = job._replace(pixels=seen.fingerprint, pictures=seen.key if cell.tuned else None)
            except HarnessError as error:
                place = tables.get("place")
                kind = place.kind if isinstance(place, Located) else kind
                yield Lost(_without(kind, cell, named), error)
                continue
            yield job or Lost(_without(kind, cell, named))


def _without(data: DataKind, cell: CellPlan, named: Sequence[Checkpoint]) -> Tried:
    """The failure of a cell that has no checkpoint, or no data for the one it would have."""
    given = _given(cell, named)
    return Tried(data, cell, "", given.card.profile_name if given else cell.method.profile_name)


def _data(cell: CellPlan, settings: Settings, tables: dict[object, Any], *, draw: bool) -> Known:
    """Raises HarnessError for whatever a reader may meet."""
    try:
        located = once(tables, "place", partial(_located, cell, settings, draw))
        whole = once(tables, "table", partial(_table, cell, settings, located))
        pool = task_data.of_table(whole, located, cell.dataset_card, cell.task, cell.protocol)
    except locate.NotDrawn:
        return NOT_DRAWN
    except HarnessError:
        raise
    except Exception as error:  # a dataset of one's own may fail in any way, which costs its cells alone
        raise HarnessError(f"{cell.dataset} cannot be read: {type(error).__name__}: {error}") from error
    tables["pictures", cell.task_id, cell.protocol] = pool.frame[["image_id", "path"]]  # for `_seen`
    split = pool.parts.digest(pool.frame["image_id"].tolist())
    rules = published.in_force(pool.rules, cell.kind, cell.task, cell.protocol)
    return Known(located.kind, pool.fingerprint, split, pool.persons_known, rules)


def _located(cell: CellPlan, settings: Settings, draw: bool) -> Located:
    writer = registry.load("tasks", cell.source) if draw else None
    return locate.find(cell.dataset, cell.dataset_card, writer, settings, cell.method.profile_name)


def _table(cell: CellPlan, settings: Settings, located: Located) -> pd.DataFrame:
    card = cell.dataset_card
    whole = table.read(registry.load("tasks", cell.source), located.root)
    doctor = shlex.quote(cell.source) + settings.data_option
    task_data.say_release(cell.dataset, card, located, table.release(whole, card), doctor)
    return whole


def _seen(job: Job, settings: Settings, tables: dict[object, Any]) -> Present | None:
    """A cell's pictures as they are now, to be compared with its record, or with what its search has seen;
    None where there is neither. Where they are not decoded, it is said if one is newer than the record."""
    path, cell = job.place(settings.results), job.cell
    if not (path.is_file() or cell.tuned):
        return None
    frame = tables["pictures", cell.task_id, cell.protocol]
    square = job.checkpoint.card.profile.preprocessing

    def look() -> Present:
        asked = cache.wanted(cell.dataset, frame, square.stored, square.geometry)
        return cache.present(asked, folder=settings.images)

    try:
        ids = once(tables, ("ids", cell.task_id, cell.protocol), lambda: hash_lines(frame["image_id"]))
        found: Present = once(tables, (ids, square.stored, square.geometry), look)
    except (HarnessError, OSError):  # what is wrong is said of cells that need it
        return None
    if found.fingerprint is None and found.newest > _begun(path):
        words = cell.dataset, shlex.quote(cell.source), job.checkpoint.card.profile_name, settings.data_option
        once(tables, "newer", partial(logger.warning, NEWER, *words))
    return found


def _begun(path: Path) -> float:
    """When the work on a record began, in seconds of the epoch; where none can be read, nothing is newer."""
    try:
        record = records.read(path)
    except (HarnessError, OSError):  # said of its cell
        return math.inf
    return record.written.timestamp() - sum(record.cost.seconds.values())


def _checkpoint(
    cell: CellPlan,
    settings: Settings,
    data: DataKind,
    named: Sequence[Checkpoint],
    make: Callable[[CellPlan], Checkpoint] | None,
    memo: dict[object, Any],
) -> Checkpoint | None:
    find = weights.current if make else weights.fitting
    chosen = _given(cell, named) or find(cell.method, settings, cell.seed, data)
    if chosen or not make:
        return chosen
    of_seed = None if cell.method.profile.recipe else cell.seed  # a trained one is made for all seeds
    made: Checkpoint = once(memo, ("made", cell.method.name, of_seed), partial(make, cell))
    return made


def _given(cell: CellPlan, named: Sequence[Checkpoint]) -> Checkpoint | None:
    given = [item for item in named if item.card.method == cell.method.name]
    return given[cell.seed % len(given)] if given else None
