"""How the command line shows things: tables on a terminal, JSON for machines."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from harness.account import Arguments

DEFAULT_PROFILE = "demo"
PROFILE_HELP = (
    f"Size: demo (minutes on CPUs) or paper. Default: {DEFAULT_PROFILE}; a named checkpoint has its own."
)
"""For commands that take checkpoints by name: there, a profile that was not asked for is None."""


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        shown.add_column(column, overflow="fold")
    for row in rows:
        shown.add_row(*row)
    width = None if sys.stdout.isatty() else 160
    # names of files and messages are shown as they are, brackets and colons too
    Console(width=width, highlight=False, markup=False, emoji=False).print(shown)


def as_json(value: Any) -> None:
    sys.stdout.write(json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def line(text: str) -> None:
    sys.stdout.write(text + "\n")


def say(text: str) -> None:
    """Prints to standard error, so that `--json` output stays clean."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def leaderboard_command(results: Path | None) -> str:
    """The command that puts the records of this folder on their page."""
    return "python -m harness leaderboard" + (f" --results {shlex.quote(str(results))}" if results else "")


def require_folder(results: Path | None) -> None:
    """Raises UsageError for a folder of results that is named and not there, where one is to be read."""
    from harness.errors import UsageError

    if results and not results.expanduser().is_dir():
        raise UsageError(
            f"there is no folder {results}. Give --results the one that a run or a sweep wrote to"
        )


def words(option: str, text: str | None) -> list[str]:
    """The words of an option, with commas between them; none where it was left out. Raises UsageError where
    it was given without any, as by a script's variable that is not set: all is not what was asked for."""
    from harness.errors import UsageError

    found = [word.strip() for word in (text or "").split(",") if word.strip()]
    if text is not None and not found:
        raise UsageError(f"{option} is empty. Name some, or leave it out")
    return found


def arguments(context: typer.Context) -> Arguments:
    """The options of this command: those that were typed, and the defaults of the others.

    A record may be shown to anybody, so that of folders and machines it holds no more than that they were
    given, and of a plug-in's file its name.
    """
    from harness.account import Arguments

    values = {name: _told(name, value) for name, value in context.params.items()}
    sources = {name: context.get_parameter_source(name) for name in values}
    typed = {name for name, source in sources.items() if source and source.name == "COMMANDLINE"}
    return Arguments(
        {name: value for name, value in values.items() if name in typed},
        {name: value for name, value in values.items() if name not in typed},
    )


def _told(name: str, value: Any) -> Any:
    if isinstance(value, Path) or (name == "address" and value):
        return "given"
    if isinstance(value, str):
        return ",".join(word.rpartition("/")[2] for word in value.split(","))
    return value
