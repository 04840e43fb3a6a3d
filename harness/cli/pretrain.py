"""`pretrain`: train a method on a corpus of pictures and reports, and keep the checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness import settings
from harness.cli import show


def pretrain(
    method: Annotated[str, typer.Option(help="Name, or path of a method's file.")],
    corpus: Annotated[str | None, typer.Option(help="Default: the one its authors used.")] = None,
    profile: Annotated[str, typer.Option(help="demo or paper.")] = "demo",
    seed: Annotated[int, typer.Option(help="Of the initial weights and every draw.", min=0)] = 0,
    processes: Annotated[
        int, typer.Option(help="Sharing each step, a GPU or core each; steps stay those of one.", min=1)
    ] = 1,
    data_root: Annotated[Path | None, typer.Option(help="Folder with official downloads.")] = None,
) -> None:
    """Pre-train a method; a run that was cut off goes on where it was."""
    from harness import plan

    current = settings.load(data_root)
    wanted = plan.method(method, profile)
    source = plan.corpus(wanted, corpus)
    from harness.pretrain import make

    done = make.trained(wanted, source, current, seed=seed, stand_in=False, processes=processes)
    found = ", ".join(f"{key} {value * 100:.1f} %" for key, value in done.card.retrieval.items())
    show.line(f"{done.name}: {done.card.steps} steps, {done.card.seconds:.0f} s. Validation: {found}")
    for warning in done.card.warnings:
        show.say(f"warning: {warning}. See {done.folder / 'health.svg'}")
    show.say(f"Use it: python -m harness run --method {method} --task chexpert --checkpoint {done.name}")
