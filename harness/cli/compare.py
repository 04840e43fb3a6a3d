"""`compare`: why two records, or two folders of them, have other numbers, and whether that is chance."""

from __future__ import annotations

import re
from collections.abc import Sequence
from json import dumps
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli import show

if TYPE_CHECKING:
    from harness.differences import Cell, Field, Group, Paired, Row

HEADINGS: dict[Group, str] = {
    "inputs": "What shapes the number",
    "outcomes": "What followed from it",
    "circumstances": "How it was called, when and how fast: changes no number",
}
SHOWN = 10  # of the cells that one side alone has
NUMBERS = ["A", "B", "A less B [95 %]", "p"]


def compare(
    first: Annotated[
        str, typer.Argument(metavar="A", help="A record, a folder of them, or a pattern in quotes.")
    ],
    second: Annotated[str, typer.Argument(metavar="B", help="The same.")],
    json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Name every field in which two records differ, and test their difference person by person.

    Of more than two records, cells of A and B are matched by task, protocol, fraction and seed, whatever
    their method, as long as each side has one of each; else by method and checkpoint too. Their differences
    are then tested over the seeds, with p-values by Holm.
    """
    from harness import differences

    sides = differences.cells(first), differences.cells(second)
    differences.require_one_track(*sides)
    if len(sides[0]) == len(sides[1]) == 1:
        _records(sides[0][0], sides[1][0], json=json)
    else:
        _folders(*sides, json=json)


def _records(first: Cell, second: Cell, *, json: bool) -> None:
    from harness import differences

    found = differences.fields(first.record, second.record)
    test = differences.paired([first], [second])
    if json:
        differ = {group: [_sides(item) for item in found if item.group == group] for group in HEADINGS}
        show.as_json({"A": str(first.path), "B": str(second.path), "differ": differ, "test": _plain(test)})
        return
    show.line(f"A: {first.path}\nB: {second.path}")
    for group, heading in HEADINGS.items():
        rows = [[item.name, *_told(item)] for item in found if item.group == group]
        _table(heading, ["field", "A", "B"], rows)
    if not found:
        show.line("\nThey differ in no field.")
    if isinstance(test, str):
        show.line(f"\nNo paired test: {test}.")
    else:
        _table("Paired over the test persons", ["metric", *NUMBERS], [[test.metric, *_numbers(test)]])


def _folders(first: Sequence[Cell], second: Sequence[Cell], *, json: bool) -> None:
    from harness import differences

    found = differences.folders(first, second)
    if json:
        differ = {
            group: [
                {**_sides(item.example), "cells": item.cells}
                for item in found.fields
                if item.example.group == group
            ]
            for group in HEADINGS
        }
        show.as_json(
            {
                "by_checkpoint": found.by_checkpoint,
                "matched": found.matched,
                "only_A": [str(path) for path in found.only_first],
                "only_B": [str(path) for path in found.only_second],
                "differ": differ,
                "rows": [{**row._asdict(), "paired": _plain(row.paired)} for row in found.rows],
            }
        )
        return
    rule = "task, protocol, fraction, seed" + (", method and checkpoint" if found.by_checkpoint else "")
    show.line(f"{found.matched} cells of A and B match by {rule}.")
    if found.by_checkpoint and not found.matched:
        show.line(
            "One of them has several checkpoints, which must match then. To compare two methods, give A and "
            "B one each, with cells of the same tasks."
        )
    for name, paths in (("A", found.only_first), ("B", found.only_second)):
        if paths:
            more = [f"... {len(paths) - SHOWN} more, all of them with --json"] if len(paths) > SHOWN else []
            show.line("\n".join([f"\nOnly in {name}:", *map(str, paths[:SHOWN]), *more]))
    for group in ("inputs", "circumstances"):
        rows = [
            [item.example.name, str(item.cells), *_told(item.example)]
            for item in found.fields
            if item.example.group == group
        ]
        _table(HEADINGS[group], ["field", "cells", "A, for example", "B"], rows)
    if outcomes := [item.cells for item in found.fields if item.example.group == "outcomes"]:
        show.line(f"\nWhat followed: {len(outcomes)} fields, in up to {max(outcomes)} cells. See --json")
    columns = ["data", "task", "labels", "seeds", "checkpoint of A", "of B", "metric", *NUMBERS, "p by Holm"]
    _table("Paired over seeds and test persons", columns, [_row(row) for row in found.rows])
    if any(row.checkpoints == 1 and not isinstance(row.paired, str) for row in found.rows):
        show.line("Where a side has one checkpoint, p tells checkpoints apart, and not methods.")
    for row in found.rows:
        if isinstance(row.paired, str):
            show.line(f"No paired test of {_task(row)} at {row.fraction * 100:g} %: {row.paired}.")


def _task(row: Row) -> str:
    return ", ".join((row.task, row.protocol, *row.options))


def _row(row: Row) -> list[str]:
    start = [
        row.data,
        _task(row),
        f"{row.fraction * 100:g} %",
        " ".join(map(str, row.seeds)),
        row.first,
        row.second,
    ]
    if isinstance(row.paired, str):
        return [*start, *["–"] * 6]
    assert row.adjusted is not None
    return [*start, row.paired.metric, *_numbers(row.paired), _p(row.adjusted)]


def _numbers(test: Paired) -> list[str]:
    """What stands below NUMBERS, in percent."""
    value, low, high = (number * 100 for number in test.difference.interval)
    sides = [f"{number * 100:.1f}" for number in (test.first, test.second)]
    return [*sides, f"{value:+.1f} [{low:+.1f}, {high:+.1f}]", _p(test.difference.p)]


def _p(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "<0.001"


def _plain(test: Paired | str) -> dict[str, Any]:
    if isinstance(test, str):
        return {"reason": test}
    interval, p = test.difference
    return {"metric": test.metric, "A": test.first, "B": test.second, "A_less_B": interval._asdict(), "p": p}


def _sides(item: Field) -> dict[str, Any]:
    return {"field": item.name, "A": item.first, "B": item.second}


def _told(item: Field) -> list[str]:
    """Both values, cut short as long as that does not make them look alike."""
    short = [_short(value) for value in (item.first, item.second)]
    return short if short[0] != short[1] else [dumps(value) for value in (item.first, item.second)]


def _short(value: Any) -> str:
    if isinstance(value, dict):  # a metric with its interval
        return f"{value['value']:.6f} [{value['low']:.6f}, {value['high']:.6f}]"
    if isinstance(value, list):
        return ", ".join(map(_short, value))
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str):
        return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{28,52}\b", r"\1", value)  # hashes and commits
    return dumps(value)


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if rows:
        show.line(f"\n{title}")  # in the table's own title it would be folded to the width of narrow columns
        show.table("", columns, rows)
