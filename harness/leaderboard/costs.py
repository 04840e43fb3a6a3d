"""What checkpoints cost, and what is not there.

Apart because nothing here says which is better.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from statistics import median
from typing import get_args

from harness.contracts import Kind
from harness.grouping import Row
from harness.leaderboard.standings import Standing
from harness.leaderboard.text import HOLE, percent, text_of
from harness.records import CellBlock, Record


def checkpoints(standings: Sequence[Standing]) -> str:
    by_row: dict[Row, list[Record]] = {}
    for standing in standings:
        for row, cells in standing.cells.items():
            by_row.setdefault(row, []).extend(record for cell in cells.values() for record in cell.records)
    ranked = {standing.task.kind for standing in standings if standing.ranked}
    kinds = [kind for kind in get_args(Kind) if kind in ranked]
    lines = [
        [
            row.family,
            _origin(items[0]),
            _median(_training(item) for item in items),
            _median(item.cost.images_per_second for item in items),
            *(_median(_seconds(items, kind)) for kind in kinds),
            _largest(item.cost.peak_memory_mib for item in items),
            _largest(item.cost.peak_gpu_memory_mib for item in items),
        ]
        for row, items in sorted(by_row.items())
    ]
    header = [
        "checkpoint",
        "pre-trained on",
        "pre-training s",
        "images/s",
        *(f"{kind} s" for kind in kinds),
        "peak MiB",
        "peak GPU MiB",
    ]
    every = [item for items in by_row.values() for item in items]
    devices = sorted({item.cost.device for item in every})
    trainers = sorted({item.pretraining.device for item in every if item.pretraining.device})
    where = f"Computed on: {', '.join(devices)}."
    if trainers:
        where += f" Pre-trained on: {', '.join(trainers)}."
    return (
        "### Checkpoints and what they cost\n\nMedians: seconds of one pre-training, images per second "
        "through the frozen encoder, and seconds of one cell (fitting and testing, without what a cache "
        "answers; of the clean protocol at default settings). Peak memory is that of the process that "
        "computed a cell, and of its tensors on a GPU: the largest over the cells. "
        f"{where}\n\n{text_of(lines, header)}"
    )


def _seconds(records: Iterable[Record], kind: Kind) -> Iterator[float]:
    """Of the clean protocol at default settings, as all that is ranked, and without the cells whose
    comparison came from the cache: a seed before them paid for it."""
    for record in records:
        usual = record.task.kind == kind and record.cell.protocol == "clean" and not record.cell.options
        if usual and not record.cost.cached.get("comparison"):
            yield record.cost.of_cell


def _origin(record: Record) -> str:
    origin = record.pretraining
    corpus = f"{origin.corpus} ({origin.data_kind})" if origin.corpus else "nothing"
    return f"{corpus}, imported" if origin.imported_from else corpus


def _training(record: Record) -> float | None:
    """Seconds of pre-training; None of weights that others have trained."""
    made = record.pretraining
    return None if made.imported_from else made.seconds


def _median(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return HOLE
    value = median(known)
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def _largest(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{max(known):.0f}" if known else HOLE


def missing(standings: Sequence[Standing]) -> Iterator[str]:
    lines = [
        f"- {_words(standing.every[0].cell)}, {who}"
        for standing in standings
        for who in (*_by_nobody(standing, standings), *_by_some(standing))
    ]
    if lines:
        what = (
            "Cells of seeds that their table has elsewhere, or of shares of the labels that others have. "
            "Where a task has no record under a protocol, there is no table to miss them in; those that were "
            "tried stand under Failed, with the reason"
        )
        yield f"### Without a record\n\n{what}:\n\n" + "\n".join(lines) + "\n"


def _words(cell: CellBlock) -> str:
    return " ".join((cell.task, cell.protocol, *cell.options))


def _by_nobody(standing: Standing, standings: Sequence[Standing]) -> Iterator[str]:
    if standing.table.tuned or standing.table.cut_validation:  # of which nobody needs all
        return
    alike = [other for other in standings if other.task.kind == standing.task.kind and other.ranked]
    elsewhere = {fraction for other in alike for fraction in other.fractions}
    if nowhere := sorted(elsewhere.difference(standing.fractions)):
        yield f"nobody at {', '.join(map(percent, nowhere))}"


def _by_some(standing: Standing) -> Iterator[str]:
    for name, fraction, seeds in standing.missing:
        yield f"{name} at {percent(fraction)}: seeds {', '.join(map(str, seeds))}"
