"""Why two records differ: every field in which they do, and whether their numbers differ by more than chance.

Apart because "why is my number different from yours?" is asked of any two records, or of two folders of them,
long after they were run and far from the data.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence, Set
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from harness import comparison, failures, grouping, quarantine, records, stats
from harness.comparison import Difference
from harness.contracts import DataKind
from harness.errors import UsageError
from harness.files import below
from harness.metrics import score
from harness.progress import Bar
from harness.records import DrawsBlock, Predictions, Record
from harness.stats import Run

Group = Literal["inputs", "outcomes", "circumstances"]

REPLICATES = 2000  # resamples of the persons behind a p-value
ABSENT = "(absent)"  # of a field that one of two records does not have

OUTCOMES = (
    "metrics.",
    "head.chosen.",
    "head.candidates",  # as many as there were validations; another grid would be another version
    "head.validation",
    "head.settings.steps",  # until validation got no better
    "head.search.trials",
    "head.search.chosen",
    "interval.undefined",
    "predictions",
)
CIRCUMSTANCES = (
    "written",
    "pretraining.seconds",
    "pretraining.images_per_second",
    "pretraining.device",  # the weights are compared
    "pretraining.commit",
    "pretraining.dirty",
    "code.arguments.",  # what they asked for stands in the fields that shape the number
    "code.defaults.",
    "cost.seconds.",
    "cost.peak_memory_mib",
    "cost.peak_gpu_memory_mib",
    "cost.images_per_second",
    "cost.cached.",
)
"""Beginnings of the names of fields that follow from others, and of those that change no number. All other
fields are inputs: one of them is why two numbers differ, `cost.device` among them."""

UNKNOWN = ("pretraining.method_version", "pretraining.device")
"""Names of fields that are None in records from before they were kept."""


class Cell(NamedTuple):
    path: Path
    record: Record


class Field(NamedTuple):
    """One in which two records differ."""

    name: str  # "data.fingerprint"
    first: Any
    second: Any

    @property
    def group(self) -> Group:
        if self.name.startswith(OUTCOMES):
            return "outcomes"
        return "circumstances" if self.name.startswith(CIRCUMSTANCES) else "inputs"


class Paired(NamedTuple):
    """The same test images scored twice."""

    metric: str
    first: float  # mean over seeds
    second: float
    difference: Difference


class Row(NamedTuple):
    """The seeds of one (task, protocol, fraction, options) that both sides have."""

    data: DataKind
    task: str
    protocol: str
    fraction: float
    options: tuple[str, ...]  # what is not as by default
    first: str  # the checkpoint without its seed
    second: str
    seeds: tuple[int, ...]
    checkpoints: int  # different ones, on the side that has fewer
    paired: Paired | str  # or why there is no test
    adjusted: float | None  # p by Holm over all rows


class Shared(NamedTuple):
    """A field that differs in some of the matched cells."""

    cells: int
    example: Field


class Folders(NamedTuple):
    by_checkpoint: bool  # how cells were matched
    matched: int
    only_first: list[Path]
    only_second: list[Path]
    fields: list[Shared]
    rows: list[Row]


def cells(source: str) -> list[Cell]:
    """A record's file, all records of a folder, or of all that fits a pattern, `results/*/*/imitate-*` say.

    Of a results folder its two tracks are read; what else lies there (what failed or was put aside, numbers
    of others) only where its folder is named. Raises UsageError when there is nothing, BadRecord for a record
    that breaks the schema.
    """
    path = Path(source).expanduser()  # in quotes, no shell does
    anchor = path.anchor
    fits = [path] if path.exists() else Path(anchor).glob(str(path.relative_to(anchor)))
    beside = {failures.FOLDER, quarantine.FOLDER, "reported"}.difference(path.parts)
    files = sorted({file for place in fits for file in _files(place) if not _beside_tracks(file, beside)})
    if not files:
        raise UsageError(
            f"{source}: there is no record. Give the .json file of one, a folder that holds some, or a "
            "pattern in quotes"
        )
    return [Cell(path, records.read(path)) for path in files]


def _beside_tracks(file: Path, names: Set[str]) -> bool:
    """Whether it lies in a folder of one of these names beside the tracks of results."""
    return any(
        folder.name in names and any((folder.parent / kind).is_dir() for kind in get_args(DataKind))
        for folder in file.parents
    )


def _files(place: Path) -> Iterator[Path]:
    if place.is_file():
        yield from [place] if place.suffix == ".json" else []
        return
    tracks = [place / kind for kind in get_args(DataKind) if (place / kind).is_dir()]
    for folder in tracks or [place]:
        yield from below(folder, ".json")


def require_one_track(first: Iterable[Cell], second: Iterable[Cell]) -> None:
    """Raises UsageError where phantom would be compared with real."""
    kinds = [{cell.record.data.kind for cell in side} for side in (first, second)]
    if not kinds[0] & kinds[1]:
        raise UsageError(
            f"A was measured on {kinds[0].pop()} data and B on {kinds[1].pop()}: phantoms say nothing about "
            "patients, so the two are never compared. Give two of one track"
        )


def fields(first: Record, second: Record) -> list[Field]:
    """All that differ, in the order of the schema. A metric with its interval counts as one. What a record
    does not know is like anything."""
    flat = [dict(_flat(record.model_dump(mode="json"))) for record in (first, second)]
    found = [Field(name, *(side.get(name, ABSENT) for side in flat)) for name in {**flat[0], **flat[1]}]
    differing = [field for field in found if field.first != field.second]
    return [field for field in differing if not _unknown(field)]


def _unknown(field: Field) -> bool:
    """Whether one of two records does not say it: those of before processors were named have `cpu` there."""
    if field.name == "cost.device":
        (one, _, threads), (other, _, others) = (value.rpartition(" (") for value in field[1:])
        return "cpu" in (one, other) and threads == others
    return field.name in UNKNOWN and None in field


def _flat(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and set(value) != set(records.Measured.model_fields):
        for name, item in value.items():
            yield from _flat(item, f"{place}.{name}" if place else name)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        yield from _flat({str(number): item for number, item in enumerate(value)}, place)
    else:
        yield place, value


def paired(first: Sequence[Cell], second: Sequence[Cell]) -> Paired | str:
    """The test of the task's own metric, one cell per seed on each side; or why there can be none."""
    every = [*first, *second]
    for path, _ in every:
        if not path.with_suffix(".npz").exists():
            return f"{path} has no predictions beside it"
    for name in ("kind", "metric", "labels"):
        asked = list(dict.fromkeys(getattr(cell.record.task, name) for cell in every))
        if len(asked) > 1:
            return f"they answer different questions: task.{name} is {asked[0]} and {asked[1]}"
    task = every[0].record.task
    found = [records.predictions(path) for path, _ in every]
    for (path, record), other in zip(every, found, strict=True):
        if not records.same_test(found[0], other):
            return f"{every[0].path} and {path} {_unlike(found[0], other)}"
        if task.kind == "retrieval" and _asked(record) != _asked(every[0].record):
            return f"{every[0].path} and {path} looked for other reports, or among others"
    scores = [score.of(task.kind, item.arrays, task.labels, task.metric) for item in found]
    runs = [Run(cell.record.pretraining.seed, cell.record.cell.seed) for cell in every]
    sides = [
        stats.resampled(
            runs[side], scores[side], found[0].persons, task.metric, replicates=REPLICATES, seed=0
        )
        for side in (slice(len(first)), slice(len(first), None))
    ]
    for (path, record), value in zip(every, np.concatenate([side.values for side in sides]), strict=True):
        if wrong := records.contradiction(path, record, value):
            return wrong
    means = [float(side.values.mean()) for side in sides]
    return Paired(task.metric, means[0], means[1], comparison.paired_difference(*sides))


def _asked(record: Record) -> tuple[str, DrawsBlock | None]:
    """What a search was about: no truth lies beside its record."""
    return record.data.fingerprint, record.data.draws


def _unlike(first: Predictions, second: Predictions) -> str:
    """How two cells' test parts differ."""
    if not np.array_equal(first.images, second.images):
        common = len(np.intersect1d(first.images, second.images))
        return f"scored other test images: {len(first.images)} and {len(second.images)}, {common} in common"
    if not np.array_equal(first.persons, second.persons):
        persons = int((first.persons != second.persons).sum())
        return f"scored the same test images, but {persons} of them as other persons'"
    return "scored the same test images against other truths"


def folders(first: Sequence[Cell], second: Sequence[Cell]) -> Folders:
    """Cells of both sides matched, and tested over their seeds.

    Where each side has one cell for each (data, task, protocol, fraction, options, seed), those match,
    whatever their method and checkpoint: this is how two methods are compared. Else method and checkpoint
    must match too: this is how two results folders are. What `grouping.without_lent` replaces is left out.
    Raises UsageError for a side that has a cell twice.
    """
    first, second = (grouping.without_lent(side)[0] for side in (first, second))
    by_checkpoint = any(len({_key(cell, False) for cell in side}) < len(side) for side in (first, second))
    sides = [{_key(cell, by_checkpoint): cell for cell in side} for side in (first, second)]
    for name, side, found in zip("AB", (first, second), sides, strict=True):
        if len(found) < len(side):
            raise UsageError(
                f"{name} holds two records of one cell. Give one results folder, or a part of it"
            )
    pairs = [(cell, sides[1][key]) for key, cell in sides[0].items() if key in sides[1]]
    differing: dict[str, list[Field]] = defaultdict(list)
    groups: dict[tuple[Any, ...], list[tuple[Cell, Cell]]] = defaultdict(list)
    for one, other in pairs:
        for field in fields(one.record, other.record):
            differing[field.name].append(field)
        families = (cell.record.pretraining.family for cell in (one, other))
        groups[(*_key(one, False)[:-1], *families)].append((one, other))
    only = [
        [cell.path for key, cell in side.items() if key not in other] for side, other in (sides, sides[::-1])
    ]
    return Folders(
        by_checkpoint=by_checkpoint,
        matched=len(pairs),
        only_first=only[0],
        only_second=only[1],
        fields=[Shared(len(found), found[0]) for found in differing.values()],
        rows=_rows(groups),
    )


def _key(cell: Cell, by_checkpoint: bool) -> tuple[Any, ...]:
    block = cell.record.cell
    owner = (block.method, block.checkpoint) if by_checkpoint else ()
    place = (cell.record.data.kind, block.task, block.protocol, block.fraction, block.options, block.seed)
    return (*owner, *place)


def _rows(groups: dict[tuple[Any, ...], list[tuple[Cell, Cell]]]) -> list[Row]:
    rows = []
    with Bar("comparing", len(groups), "rows") as bar:
        for _, pairs in sorted(groups.items()):
            pairs.sort(key=lambda pair: pair[0].record.cell.seed)
            one, other = zip(*pairs, strict=True)
            rows.append(_row(one, other))
            bar.advance()
    p = [row.paired.difference.p for row in rows if isinstance(row.paired, Paired)]
    adjusted = iter(comparison.holm(p).tolist())
    return [row._replace(adjusted=next(adjusted)) if isinstance(row.paired, Paired) else row for row in rows]


def _row(first: Sequence[Cell], second: Sequence[Cell]) -> Row:
    record = first[0].record
    return Row(
        data=record.data.kind,
        task=record.cell.task,
        protocol=record.cell.protocol,
        fraction=record.cell.fraction,
        options=record.cell.options,
        first=record.pretraining.family,
        second=second[0].record.pretraining.family,
        seeds=tuple(cell.record.cell.seed for cell in first),
        checkpoints=min(len({cell.record.pretraining.weights for cell in side}) for side in (first, second)),
        paired=paired(first, second),
        adjusted=None,
    )
