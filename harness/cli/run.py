"""`run`: one cell, from names to a record. Everything that can be checked by name is checked first."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness import settings
from harness.cli import show


def run(
    method: Annotated[str, typer.Option(help="Name, or path of a method's file.")],
    task: Annotated[str, typer.Option(help="Dataset, or dataset:kind.")],
    fraction: Annotated[float, typer.Option(help="Share of the training labels, in (0, 1].")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the label draw and the interval.", min=0)] = 0,
    checkpoint: Annotated[
        str | None, typer.Option(help="Default: the newest that fits, else one is made.")
    ] = None,
    profile: Annotated[str, typer.Option(help="demo or paper.")] = "demo",
    protocol: Annotated[str, typer.Option(help="clean or published.")] = "clean",
    data_root: Annotated[Path | None, typer.Option(help="Folder with official downloads.")] = None,
    results: Annotated[Path | None, typer.Option(help="Where the record goes. Default: results/")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the record.")] = False,
) -> None:
    """Run one cell: encode, fit the head, score the test split once, write the record."""
    from harness import plan

    current = settings.load(data_root, results)
    arguments = {
        "method": method,
        "task": task,
        "fraction": fraction,
        "seed": seed,
        "checkpoint": checkpoint,
        "profile": profile,
        "protocol": protocol,
        "data_root": str(data_root) if data_root else None,
    }
    wanted = plan.check(method, task, profile, protocol, fraction)
    found = plan.locate(wanted, current)
    if not current.data_roots:
        show.say(
            f"No data root is configured: using a phantom of {wanted.dataset} (synthetic pictures). "
            "Give --data-root or set HARNESS_DATA for real data."
        )
    raise SystemExit(arguments and found)
