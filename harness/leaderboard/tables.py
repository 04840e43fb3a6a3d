"""One track as text: per kind the methods side by side.

Apart because it only words what `standings.py` computed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import get_args

from harness import stats
from harness.contracts import Kind, trained_on
from harness.grouping import Row, table_of
from harness.leaderboard import across, costs, standings
from harness.leaderboard.standings import Runs, Standing
from harness.leaderboard.text import DIRTY, HOLE, counted, name, percent, text_of
from harness.records import Record
from harness.stats import Interval

BESIDE = {
    "dice": ("dice_positives", "with a mask"),  # where most pictures have none, `dice` is mostly about those
    "mean_average_precision": ("mean_average_precision:skipping", "as papers count"),
}
"""By a table's metric: another that the last column shows where records have it, and the column's title."""


def track(tables: Sequence[Standing]) -> Iterator[str]:
    """Sections of one track, each a Markdown text that ends with a newline."""
    if not tables:
        yield "No records yet.\n"
        return
    yield from across.all_kinds([standing for standing in tables if standing.ranked])
    for kind in get_args(Kind):
        if of_kind := [standing for standing in tables if standing.task.kind == kind]:
            yield f"### {kind}\n"
            yield from _overview([standing for standing in of_kind if standing.ranked])
            yield from map(_standing, of_kind)
    yield from across.protocols(tables)
    yield costs.checkpoints(tables)
    yield from costs.missing(tables)


def _overview(tables: Sequence[Standing]) -> Iterator[str]:
    """Methods x tasks, means only."""
    if len(tables) < 2:
        return
    ranks = standings.ranks(tables)
    rows = sorted({row for standing in tables for row in standing.cells})
    fractions = sorted({fraction for standing in tables for fraction in standing.fractions})
    place = dict(zip(ranks.rows, ranks.ranking.mean, strict=True)) if ranks else {}
    lines = []
    for row in sorted(rows, key=lambda row: (place.get(row, len(rows)), row)):
        means = [" / ".join(_means(standing, row, fractions)) for standing in tables]
        rank = f"{place[row]:.2f}" if row in place else HOLE
        lines.append([row.family, *([rank] if ranks else []), *means])
    names = [name(standing.table) for standing in tables]
    titles = [
        f"{title} {standing.table.data[:6]}" if names.count(title) > 1 else title
        for title, standing in zip(names, tables, strict=True)
    ]
    header = ["checkpoint", *(["mean rank"] if ranks else []), *titles]
    yield text_of(lines, header)
    shares = " / ".join(map(percent, fractions))
    labels = f"Means at {shares} of the labels. " if tables[0].every[0].parts["used"].images else "Means. "
    yield labels + (across.explained(ranks) if ranks else "") + "\n"


def _means(standing: Standing, row: Row, fractions: Sequence[float]) -> Iterator[str]:
    for fraction in fractions:
        cell = standing.cells.get(row, {}).get(fraction)
        yield f"{cell.interval.value * 100:.1f}{DIRTY if cell.dirty else ''}" if cell else HOLE


def _standing(standing: Standing) -> str:
    table, task = standing.table, standing.task
    labelled = standing.every[0].parts["used"].images > 0
    shares = [percent(fraction) for fraction in standing.fractions] if labelled else ["no labels"]
    largest = f" at {shares[-1]}" if labelled else ""
    header = ["method", "checkpoint", *shares, "group"]
    lines = []
    for row in standing.order:
        cells = [_cell(standing.cells[row].get(fraction)) for fraction in standing.fractions]
        lines.append([row.method, row.family, *cells, str(standing.groups.get(row, HOLE))])
    metric, title = BESIDE.get(task.metric, ("", ""))
    if metric in standing.every[0].metrics:
        header.append(f"{title}, {shares[-1]}")
        beside = [_beside(metric, standing, row) for row in standing.order]
        lines = [[*line, text] for line, text in zip(lines, beside, strict=True)]
    cut = " · validation labels cut too" if table.cut_validation else ""
    tuned = f" · best of {table.tuned} settings on validation" if table.tuned else ""
    return (
        f"#### {table.task} · {task.metric_title} · {table.protocol}{cut}{tuned}\n\n"
        f"{text_of(lines, header)}\n{' '.join(_notes(standing, largest))}\n{''.join(_spread(standing))}"
    )


def _beside(metric: str, standing: Standing, row: Row) -> str:
    """Another metric of a row, at the largest fraction."""
    cell = standing.cells[row].get(standing.fractions[-1])
    if cell is None:
        return HOLE
    return _number(stats.two_level_interval(metric, cell.resampled(metric)), cell)


def _notes(standing: Standing, largest: str) -> Iterator[str]:
    """What to know of a table, a sentence after the other. `largest`: " at 100 %", where labels are used."""
    table, task, first = standing.table, standing.task, standing.every[0]
    test = first.parts["test"]
    yield f"{test.images} test images " + (
        f"of {test.persons} persons."
        if table.persons_known
        else "of persons who are not all known: splits and intervals are by the best ids there are."
    )
    yield f"Version {task.version}, data `{table.data[:12]}`, split `{table.split[:12]}`."
    if first.data.kind == "real":
        release = first.data.release
        yield f"Release {release}." if release else "Its counts are of no known release."
    yield from _scale(first)
    if task.rules:
        yield f"Rules in force: {', '.join(task.rules)}."
    alone = ", ".join(row.family for row in standing.order if row not in standing.groups)
    if alone and not standing.groups:
        yield (
            f"No groups: no two rows have two seeds alike{largest}, and by one run each a test would tell "
            "runs apart, not methods."
        )
    elif alone:
        yield f"No group, for want of the runs that others share{largest}: {alone}."
    if single := ", ".join(row.family for row in standing.groups if _of_one_checkpoint(standing, row)):
        yield f"Of one checkpoint, so that its group tells of that and not of its method: {single}."
    if others := ", ".join(row.family for row in standing.order if _by_others(standing.cells[row])):
        yield f"Trained by others, maybe on these pictures: {others}."
    if first.data.kind == "real" and (small := ", ".join(_of_the_demo(standing))):
        yield f"Of the demo profile: {small}."
    if apart := _of_other_pixels(standing):
        yield f"Of other pixels than most, under the same names: {', '.join(apart)}."
    if twice := ", ".join(sorted({record.pretraining.family for record in standing.replaced})):
        yield f"Without the earlier runs of seeds that have checkpoints of their own by now: {twice}."


def _scale(record: Record) -> Iterator[str]:
    """What the numbers of a record's table are means of, and what those have that see nothing."""
    task, test, draws = record.task, record.parts["test"], record.data.draws
    if draws:
        yield f"Means over {len(draws.hashes)} draws of {draws.per_class} pictures a class."
    if task.metric == "dice":
        # thin masks may vanish in pixels of the network's input, which the published head counts
        least = "at least " if record.cell.protocol == "published" else ""
        yield f"Predicting nothing has {least}{sum(test.negatives.values()) / test.images * 100:.1f}."
    if task.metric == "accuracy":
        most = 1 / len(task.labels) if draws else max(test.positives.values()) / test.images
        yield f"Naming one class always has {most * 100:.1f}."
    if task.metric.startswith("precision"):  # of reports of as many classes, as many of each
        yield f"Chance has {100 / len(task.labels):.1f}."
    if task.metric.startswith("recall"):  # more, where reports are of several pictures or worded the same
        yield f"Chance has at least {int(task.metric.rpartition('_')[2]) / test.images * 100:.1f}."
    if "mean_average_precision:skipping" in record.metrics:
        yield "Papers count only pictures that have a true and a predicted box."


def _of_one_checkpoint(standing: Standing, row: Row) -> bool:
    runs = standing.cells[row][standing.fractions[-1]].runs
    return len({run.checkpoint for run in runs if run.seed in standing.usual}) == 1


def _of_the_demo(standing: Standing) -> list[str]:
    """Families of encoders of the smallest size."""
    every = (cell.records[0] for row in standing.order for cell in standing.cells[row].values())
    return sorted({record.pretraining.family for record in every if record.pretraining.profile == "demo"})


def _of_other_pixels(standing: Standing) -> list[str]:
    """Families that saw another copy of the pictures, or one that another library decoded, than most of those
    whose encoders want them of the same size and geometry."""
    seen = {
        ((record.preprocessing.stored, record.preprocessing.geometry), record.data.images, row.family): None
        for row in standing.order
        for cell in standing.cells[row].values()
        for record in cell.records
    }
    usual: dict[tuple[int, str], str] = {}
    for (shape, images), _ in Counter((shape, images) for shape, images, _ in seen).most_common():
        usual.setdefault(shape, images)
    return [family for shape, images, family in seen if images != usual[shape]]


def _by_others(cells: Mapping[float, Runs]) -> bool:
    """Whether the weights are imported and were trained on this dataset, or on one that has some of its
    pictures, nobody knows on which part."""
    return any(
        record.pretraining.imported_from
        and trained_on((table_of(record).dataset, *record.data.shares_pictures), record.pretraining.corpus)
        for cell in cells.values()
        for record in cell.records
    )


def _spread(standing: Standing) -> Iterator[str]:
    for row in standing.order:
        for fraction, cell in sorted(standing.cells[row].items()):
            if found := stats.spread(cell.runs, cell.main.values):
                training, seeds, rest = (f"{value * 100:.1f}" for value in found)
                drawn = len({record.data.fraction for record in cell.records}) > 1
                what = "draws of labels" if drawn else "seeds of the head"
                yield (
                    f"\n{row.family} at {percent(fraction)}: standard deviation {training} between "
                    f"checkpoints, {seeds} between {what}, {rest} beyond both.\n"
                )


def _cell(cell: Runs | None) -> str:
    if cell is None:
        return HOLE
    runs, checkpoints = len(cell.runs), len({run.checkpoint for run in cell.runs})
    of = f" of {counted(checkpoints, 'checkpoint')}" if checkpoints < runs else ""
    return _number(cell.interval, cell, f" ({counted(runs, 'run')}{of})")


def _number(interval: Interval, cell: Runs, more: str = "") -> str:
    value, low, high = (number * 100 for number in interval)
    return f"{value:.1f} [{low:.1f}, {high:.1f}]{more}{DIRTY if cell.dirty else ''}"
