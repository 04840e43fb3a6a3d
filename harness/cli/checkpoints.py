"""`checkpoints import`: weights that others have published, as a checkpoint that `run` can use."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from harness import settings
from harness.cli import show

app = typer.Typer(help="Import published weights. What is stored: list checkpoints.", no_args_is_help=True)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="As published: of torch.save or safetensors.")],
    name: Annotated[str | None, typer.Option("--as", help="Name of the checkpoint.")] = None,
    method: Annotated[
        str | None, typer.Option(help="Whose weights these are, where their keys fit several methods.")
    ] = None,
    corpus: Annotated[
        str | None, typer.Option(help="What they were trained on. Default: what their authors used.")
    ] = None,
) -> None:
    """Recognise a file by its keys, check it, and keep its weights with their pre-processing.

    Nothing of the file is run: it is read as data, and refused if that cannot be.
    """
    from harness.pretrain import importers

    done = importers.import_file(file, settings.load().checkpoints, name=name, method=method, corpus=corpus)
    card, source = done.card, done.card.imported
    assert source is not None
    show.line(f"{done.name}: {source.layout}, trained on {card.corpus}")
    for reason, keys in source.dropped.items():
        show.line(
            f"left behind, {reason}: {', '.join(keys[:3])}{' ...' if len(keys) > 3 else ''} ({len(keys)})"
        )
    if card.profile.text is None:
        show.line("The image encoder alone: tasks that compare pictures with words will refuse it.")
    show.say(
        f"Use it: python -m harness run --method {shlex.quote(method or card.method)} --task chexpert "
        f"--checkpoint {done.name}"
    )
