"""`results export` and `results import`: records and predictions in one file, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness import settings
from harness.cli import show

app = typer.Typer(help="Hand records on; what there is: list results.", no_args_is_help=True)

Bundle = Annotated[Path, typer.Argument(help="A .zip of records and their predictions.")]


@app.command()
def export(
    file: Bundle,
    results: Annotated[Path | None, typer.Option(help="Folder of records. Default: results/")] = None,
    tasks: Annotated[str | None, typer.Option(help="Ids or patterns such as 'rsna:*'. Default: all.")] = None,
    methods: Annotated[str | None, typer.Option(help="Names, comma between. Default: all.")] = None,
) -> None:
    """Write a bundle: no pictures and no paths, every number checked.

    It holds test labels and hashed ids, and hashes can be undone by trying all ids: ask the dataset's licence
    first.
    """
    from harness import bundle, grid, registry

    show.require_folder(results)
    wanted = [grid.pattern(word) for word in show.words("--tasks", tasks)]
    makers = [
        registry.entry("methods", word).name if word.endswith(".py") else word
        for word in show.words("--methods", methods)
    ]
    done = bundle.write(settings.load(results=results).results, file, wanted, makers)
    show.line(f"{file}: {len(done.files) // 2} cells")


@app.command("import")
def import_(
    file: Bundle,
    results: Annotated[Path | None, typer.Option(help="Where records go. Default: results/")] = None,
) -> None:
    """Take over the cells of a bundle once all of them are found sound; none is ever replaced."""
    from harness import bundle

    done = bundle.read(file, settings.load(results=results).results)
    show.line(f"{file}: {len(done.new)} cells imported, {done.known} were there already")
    show.say(f"Next: {show.leaderboard_command(results)}")
