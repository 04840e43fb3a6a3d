"""`leaderboard`: rebuild leaderboard.md from the records, or check that it is up to date."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness import settings
from harness.cli import show


def leaderboard(
    check: Annotated[bool, typer.Option("--check", help="Only compare; exit 1 with a diff.")] = False,
    results: Annotated[Path | None, typer.Option(help="Folder of records. Default: results/")] = None,
) -> None:
    """Rebuild leaderboard.md from the records in results/; of another folder, the page that lies in it."""
    from harness import leaderboard as page
    from harness.errors import BadRecord, UsageError
    from harness.files import write_text

    results = results and results.expanduser()  # no shell does in --results=~/my_results
    show.require_folder(results)
    if results and not any((results / name).is_dir() for name in page.FOLDERS):
        raise UsageError(
            f"{results} is no folder of results: it has none of {', '.join(page.FOLDERS)}. Give --results "
            "the one that a run or a sweep wrote to"
        )
    current = settings.load(results=results)
    # records of another folder get a page of their own there, never the project's
    ours = (current.project / "results").resolve()
    elsewhere = results if results and results.resolve() != ours else None
    target = (elsewhere or current.project) / "leaderboard.md"
    command = show.leaderboard_command(elsewhere and Path("FOLDER"))  # a page names no place of a machine
    printed = [folder / "reported" for folder in (current.results, current.project / "results")]
    text = page.build(current.results, current.workers, next(filter(Path.is_dir, printed), None), command)
    difference = page.difference(target, text)
    if check:
        if difference:
            show.line(difference)
            raise BadRecord(f"{target} is stale. Rebuild it: {show.leaderboard_command(results)}")
        show.line(f"{target} is up to date")
        return
    if difference:
        write_text(target, text)
    show.line(f"{target} {'rebuilt' if difference else 'was up to date'}")
