"""How the page words what stands in all of its tables.

Apart because every file of this folder writes some.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import get_args

from tabulate import tabulate

from harness.contracts import Kind
from harness.grouping import Table

HOLE = "–"
DIRTY = " *"


def text_of(lines: Iterable[Sequence[str]], header: Sequence[str]) -> str:
    return f"{tabulate(list(lines), header, tablefmt='github', disable_numparse=True)}\n"


def percent(fraction: float) -> str:
    return f"{fraction * 100:g} %"


def counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number > 1 else ''}"


def name(table: Table) -> str:
    """The task within its kind: `rsna`, or `chexpert 5x200`."""
    dataset, kind = table.task.split(":")
    variant = [kind.removeprefix(f"{known}-") for known in get_args(Kind) if kind.startswith(f"{known}-")]
    return " ".join([dataset, *variant])
