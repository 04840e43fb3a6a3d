"""The tables of one track as text: per kind the methods side by side, over all kinds ranks, costs and holes.

Apart because it only words what `standings.py` computed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import get_args

from tabulate import tabulate

from harness import stats
from harness.contracts import Kind
from harness.leaderboard import standings
from harness.leaderboard.standings import Cell, Ranks, Standing
from harness.records import Record
from harness.together import Row, Table

HOLE = "–"
DIRTY = " *"


def track(found: Sequence[Standing]) -> Iterator[str]:
    """Sections of one track, each a Markdown text that ends with a newline."""
    if not found:
        yield "No records yet.\n"
        return
    yield from _all_kinds(_clean(found))
    for kind in get_args(Kind):
        if of_kind := [standing for standing in found if standing.task.kind == kind]:
            yield f"### {kind}\n"
            yield from _overview(_clean(of_kind))
            yield from map(_standing, of_kind)
    yield from _protocols(found)
    yield _checkpoints(found)
    yield from _missing(found)


def _clean(found: Sequence[Standing]) -> list[Standing]:
    """Those that are ranked: the clean protocol, with every head at its default settings and selected on all
    validation labels."""
    return [
        standing
        for standing in found
        if standing.table.protocol == "clean"
        and not standing.table.cut_validation
        and not standing.table.tuned
    ]


def text_of(lines: Iterable[Sequence[str]], header: Sequence[str]) -> str:
    return f"{tabulate(list(lines), header, tablefmt='github', disable_numparse=True)}\n"


# --- one kind ----------------------------------------------------------------------------------------


def _overview(found: Sequence[Standing]) -> Iterator[str]:
    """Methods x tasks, means only."""
    if len(found) < 2:
        return
    ranks = standings.ranks(found)
    rows = sorted({row for standing in found for row in standing.cells})
    fractions = sorted({fraction for standing in found for fraction in standing.fractions})
    place = dict(zip(ranks.rows, ranks.ranking.mean, strict=True)) if ranks else {}
    lines = []
    for row in sorted(rows, key=lambda row: (place.get(row, len(rows)), row)):
        means = [" / ".join(_means(standing, row, fractions)) for standing in found]
        rank = f"{place[row]:.2f}" if row in place else HOLE
        lines.append([row.family, *([rank] if ranks else []), *means])
    header = ["checkpoint", *(["mean rank"] if ranks else []), *(_name(standing.table) for standing in found)]
    yield text_of(lines, header)
    shares = " / ".join(map(_share, fractions))
    labels = f"Means at {shares} of the labels. " if found[0].every[0].parts["used"].images else "Means. "
    yield labels + (_explained(ranks) if ranks else "") + "\n"


def _means(standing: Standing, row: Row, fractions: Sequence[float]) -> Iterator[str]:
    for fraction in fractions:
        cell = standing.cells.get(row, {}).get(fraction)
        yield f"{cell.interval.value * 100:.1f}" if cell else HOLE


def _name(table: Table) -> str:
    """The task within its kind: `rsna`, or `chexpert 5x200`."""
    dataset, kind = table.task.split(":")
    variant = [kind.removeprefix(f"{known}-") for known in get_args(Kind) if kind.startswith(f"{known}-")]
    return " ".join([dataset, *variant])


def _standing(standing: Standing) -> str:
    table, task, first = standing.table, standing.task, standing.every[0]
    lines = []
    for row in standing.order:
        cells = [_cell(standing.cells[row].get(fraction)) for fraction in standing.fractions]
        lines.append([row.method, row.family, *cells, str(standing.groups.get(row, HOLE))])
    labelled = first.parts["used"].images > 0
    shares = [_share(fraction) for fraction in standing.fractions] if labelled else ["no labels"]
    test = first.parts["test"]
    rules = f" Rules in force: {', '.join(task.rules)}." if task.rules else ""
    cut = " · validation labels cut too" if table.cut_validation else ""
    tuned = f" · best of {table.tuned} settings on validation" if table.tuned else ""
    people = f"of {test.persons} persons"
    alone = [row.family for row in standing.order if row not in standing.groups]
    dataset = table.task.partition(":")[0]
    others = [row.family for row in standing.order if _by_others_on(dataset, standing.cells[row])]
    seen = f" Trained by others on {dataset}, maybe on these pictures: {', '.join(others)}." if others else ""
    apart = _of_other_pixels(standing)
    pixels = f" Of other pixels than most, under the same names: {', '.join(apart)}." if apart else ""
    twice = sorted({record.pretraining.family for record in standing.replaced})
    replaced = (
        f" Without the earlier runs of seeds that have checkpoints of their own by now: {', '.join(twice)}."
        if twice
        else ""
    )
    ungrouped = (
        f" No group, for want of the runs that most have at {shares[-1]}: {', '.join(alone)}."
        if alone
        else ""
    )
    if not table.persons_known:
        people = "of persons who are not all known: splits and intervals are by the best ids there are"
    return (
        f"#### {table.task} · {task.metric_title} · {table.protocol}{cut}{tuned}\n\n"
        f"{text_of(lines, ['method', 'checkpoint', *shares, 'group'])}\n"
        f"{test.images} test images {people}. Version {task.version}, "
        f"data `{table.data[:12]}`, split `{table.split[:12]}`.{rules}{ungrouped}{seen}{pixels}{replaced}\n"
        f"{''.join(_spread(standing))}"
    )


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


def _by_others_on(dataset: str, cells: Mapping[float, Cell]) -> bool:
    """Whether the weights are imported and were trained on this dataset, nobody knows which part of it."""
    origins = [record.pretraining for cell in cells.values() for record in cell.records]
    return any(item.imported_from and dataset in (item.corpus or "").split("+") for item in origins)


def _spread(standing: Standing) -> Iterator[str]:
    for row in standing.order:
        for fraction, cell in sorted(standing.cells[row].items()):
            if found := stats.spread(cell.runs, cell.main.values):
                training, seeds, rest = (f"{value * 100:.1f}" for value in found)
                drawn = standing.table.protocol == "clean" and fraction < 1
                what = "draws of labels" if drawn else "seeds of the head"
                yield (
                    f"\n{row.family} at {_share(fraction)}: standard deviation {training} between "
                    f"checkpoints, {seeds} between {what}, {rest} beyond both.\n"
                )


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return HOLE
    value, low, high = (number * 100 for number in cell.interval)
    runs, checkpoints = len(cell.runs), len({run.checkpoint for run in cell.runs})
    of = f" of {_counted(checkpoints, 'checkpoint')}" if checkpoints < runs else ""
    text = f"{value:.1f} [{low:.1f}, {high:.1f}] ({_counted(runs, 'run')}{of})"
    return text + (DIRTY if cell.dirty else "")


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number > 1 else ''}"


def _share(fraction: float) -> str:
    return f"{fraction * 100:g} %"


# --- all kinds ---------------------------------------------------------------------------------------


def _all_kinds(found: Sequence[Standing]) -> Iterator[str]:
    ranks = standings.ranks(found)
    if ranks is None:
        return
    order = sorted(range(len(ranks.rows)), key=lambda k: (ranks.ranking.mean[k], ranks.rows[k]))
    lines = [
        [
            ranks.rows[k].family,
            f"{ranks.ranking.mean[k]:.2f}",
            *(HOLE if j == k else f"{ranks.ranking.wins[k, j] * 100:.0f} %" for j in order),
        ]
        for k in order
    ]
    header = ["checkpoint", "mean rank", *(f"beats {ranks.rows[k].family}" for k in order)]
    yield f"### All kinds\n\n{text_of(lines, header)}\n{_explained(ranks)}\n"


def _explained(ranks: Ranks) -> str:
    found = ranks.ranking
    first, *others = found.mean.argsort(kind="stable")
    close = [ranks.rows[k].family for k in others if found.mean[k] - found.mean[first] <= found.critical]
    without = f" ({ranks.left_out} more lack one of them)" if ranks.left_out else ""
    names = ", ".join(row.family for row in ranks.unranked)
    unranked = f" Not ranked, for want of more: {names}." if names else ""
    return (
        f"Ranks over the {len(ranks.blocks)} tasks in which all {len(ranks.rows)} stand{without}, each by "
        f"its mean over the fractions that they share.{unranked} That all are alike: p = {found.p:.2g} "
        f"(Friedman). Mean ranks more than {found.critical:.2f} apart differ (Nemenyi). Not told apart from "
        f"{ranks.rows[first].family}: {', '.join(close) or 'no other'}."
    )


def _protocols(found: Sequence[Standing]) -> Iterator[str]:
    """Clean beside published, where both are there: what the faults of a protocol are worth."""
    clean: dict[str, list[Standing]] = {}
    for standing in _clean(found):
        clean.setdefault(standing.table.task, []).append(standing)
    pairs = [
        (_nearest(clean[standing.table.task], standing), standing)
        for standing in found
        if standing.table.protocol == "published" and standing.table.task in clean
    ]
    if not pairs:
        return
    fractions = sorted({fraction for pair in pairs for fraction in pair[1].fractions})
    lines, alike = [], []
    for one, other in pairs:
        rows = [row for row in one.order if row in other.cells]
        if not rows:
            continue
        cells = [
            [(one.cells[row].get(fraction), other.cells[row].get(fraction)) for fraction in fractions]
            for row in rows
        ]
        if all(_value(first) == _value(second) for row in cells for first, second in row):
            alike.append(one.table.task)
            continue
        lines += [
            [one.table.task, row.family, *(_change(*pair) for pair in of_row)]
            for row, of_row in zip(rows, cells, strict=True)
        ]
    same = f"\nThe same under both protocols: {', '.join(alike)}.\n" if alike else ""
    yield (
        "### Clean beside published\n\nWhat the split, the sampling and the head of the published protocol "
        "change: points above the clean number. Kinds that use no label stand at 100 %.\n\n"
        + text_of(lines, ["task", "checkpoint", *map(_share, fractions)])
        + same
    )


def _nearest(clean: Sequence[Standing], published: Standing) -> Standing:
    """Of several, that of the same data; draws of balanced images are other data under each protocol."""
    return max(clean, key=lambda standing: standing.table.data == published.table.data)


def _value(cell: Cell | None) -> float | None:
    return cell.interval.value if cell else None


def _change(clean: Cell | None, published: Cell | None) -> str:
    if clean is None or published is None:
        return HOLE
    one, other = clean.interval.value * 100, published.interval.value * 100
    return f"{one:.1f} → {other:.1f} ({other - one:+.1f})"


# --- what it cost, and what is not there -----------------------------------------------------------------


def _checkpoints(found: Sequence[Standing]) -> str:
    by_row: dict[Row, list[Record]] = {}
    for standing in found:
        for row, cells in standing.cells.items():
            by_row.setdefault(row, []).extend(record for cell in cells.values() for record in cell.records)
    kinds = [kind for kind in get_args(Kind) if any(standing.task.kind == kind for standing in found)]
    lines = [
        [
            row.family,
            _origin(items[0]),
            _median(item.pretraining.seconds for item in items),
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
    devices = sorted({item.cost.device for items in by_row.values() for item in items})
    return (
        "### Checkpoints and what they cost\n\nMedians: seconds of one pre-training, images per second "
        "through the frozen encoder, and seconds of one cell (fitting and testing, without what a cache "
        "answers). Peak memory is that of the process that computed a cell, and of its tensors on a GPU: the "
        "largest over the cells. "
        f"Computed on: {', '.join(devices)}.\n\n{text_of(lines, header)}"
    )


def _seconds(records: Iterable[Record], kind: Kind) -> Iterator[float]:
    """Of the cells that were computed whole: others found compared what a seed before them had to compare."""
    for record in records:
        if record.task.kind == kind and not record.cost.cached.get("comparison"):
            yield record.cost.of_cell


def _origin(record: Record) -> str:
    origin = record.pretraining
    corpus = f"{origin.corpus} ({origin.data_kind})" if origin.corpus else "nothing"
    return f"{corpus}, imported" if origin.imported_from else corpus


def _median(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return HOLE
    value = median(known)
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def _largest(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{max(known):.0f}" if known else HOLE


def _missing(found: Sequence[Standing]) -> Iterator[str]:
    lines = [
        f"- {standing.table.task} {standing.table.protocol}, {name} at {_share(fraction)}: seeds "
        + ", ".join(map(str, seeds))
        for standing in found
        for name, fraction, seeds in standing.missing
    ]
    if lines:
        yield "### Not run\n\nOf what others in the same table have:\n\n" + "\n".join(lines) + "\n"
