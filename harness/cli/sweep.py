"""`sweep`: every cell of a grid that has no record yet. Killed, it goes on where it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness import settings
from harness.cli import show

if TYPE_CHECKING:
    from harness.matrix import Matrix


def sweep(
    context: typer.Context,
    methods: Annotated[
        str | None,
        typer.Option(help="Names or paths, comma between. Default: those of --checkpoints, or all."),
    ] = None,
    tasks: Annotated[
        str | None, typer.Option(help="Ids, patterns such as 'rsna:*', or paths. Default: all.")
    ] = None,
    protocols: Annotated[str, typer.Option(help="clean, published, or clean,published.")] = "clean",
    fractions: Annotated[str, typer.Option(help="Shares of the training labels.")] = "0.01,0.1,1",
    seeds: Annotated[int, typer.Option(help="How many; 5 are 0 to 4.", min=1)] = 5,
    checkpoints: Annotated[
        str | None, typer.Option(help="Names; of several of a method, a cell's seed picks one.")
    ] = None,
    tune: Annotated[
        int | None, typer.Option(help="Settings of each trained head to compare on validation.", min=2)
    ] = None,
    cut_validation: Annotated[
        bool, typer.Option("--cut-validation", help="Take the fractions of the validation labels too.")
    ] = False,
    profile: Annotated[str | None, typer.Option(help=show.PROFILE_HELP)] = None,
    data_root: Annotated[Path | None, typer.Option(help="Folder with official downloads.")] = None,
    results: Annotated[Path | None, typer.Option(help="Where records go. Default: results/")] = None,
    address: Annotated[str | None, typer.Option(help="Of a running Ray cluster.")] = None,
    limit: Annotated[int | None, typer.Option(help="Cells at most.", min=1)] = None,
    retries: Annotated[
        int,
        typer.Option(
            help="How often what ended its process is begun again: a training, a trained cell, or the cells "
            "of a frozen encoder on a task.",
            min=0,
        ),
    ] = 2,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what there is to do.")] = False,
) -> None:
    """Run a grid of cells with Ray Tune; cells with a complete record are not run again."""
    from harness import grid
    from harness.errors import UsageError

    current = settings.load(data_root, results)
    current.require_roots()
    names = show.words("--checkpoints", checkpoints)
    wanted = grid.cells(
        methods=show.words("--methods", methods) or _makers(current.checkpoints, names),
        tasks=show.words("--tasks", tasks),
        protocols=show.words("--protocols", protocols),
        fractions=_shares(fractions),
        seeds=seeds,
        profile=show.DEFAULT_PROFILE if profile is None else profile,
        tuned=tune or 0,
        cut_validation=cut_validation,
    )
    from harness import jobs

    named = jobs.checkpoints(current.checkpoints, wanted, names, profile)
    wanted = jobs.possible(wanted, named)
    for line in _left_out(wanted.impossible):
        show.say(f"left out: {line}")
    if tune and not all(cell.tuned for cell in wanted.cells):
        show.say(
            "--tune is for heads that are trained under the clean protocol. All others stay as they are: the "
            "strength of a linear head is always chosen on validation, from one grid for every method"
        )
    if cut_validation and not all(cell.cut_validation for cell in wanted.cells):
        show.say(
            "--cut-validation is for cells that learn from labels under the clean protocol. All others stay "
            "as they are"
        )
    if not wanted.cells:
        raise UsageError("there is no such cell. Name other --methods, --tasks, --protocols or --fractions")
    if dry_run:
        from harness.matrix import matrix

        found = matrix(wanted, current, named)
        _show(found, limit)
        if found.missing:
            raise typer.Exit(1)
        return
    from harness import failures
    from harness import sweep as sweeping

    options = sweeping.Options(address, limit, retries)
    try:
        done = sweeping.run(wanted, current, named, options, show.arguments(context))
    except KeyboardInterrupt:
        show.say("Stopped. The same command goes on where it was.")
        raise typer.Exit(130) from None
    for line in _told(done.failed):
        show.say(f"failed: {line}")
    show.line(
        f"Cells: {done.done} done, {done.before} done before, {len(done.failed)} failed, "
        f"{done.left} beyond the limit. Left out: {len(wanted.impossible)}"
    )
    if done.failed:
        then = "goes on, and tries them last" if done.left else "runs only what failed"
        show.say(
            f"Those that were tried have files in {current.results / failures.FOLDER}. Once their cause is "
            f"cured, the same command {then}."
        )
        raise typer.Exit(1)
    show.say(f"Next: {show.leaderboard_command(results)}")


def _makers(store: Path, names: Sequence[str]) -> list[str]:
    """The methods of checkpoints. Raises UsageError where one is of a file that is not known here."""
    from harness import registry
    from harness.errors import UsageError
    from harness.pretrain import checkpoint

    makers = [checkpoint.found(store, name).card.method for name in names]
    for name, maker in zip(names, makers, strict=True):
        if maker not in registry.entries("methods"):
            raise UsageError(
                f"checkpoint {name} is of {maker}, a file of somebody's own. Give it by --methods"
            )
    return makers


def _left_out(impossible: Mapping[str, str]) -> Iterator[str]:
    """The pairs of a method that cannot be for the same reason stand in one line."""
    tasks: dict[tuple[str, str], list[str]] = {}
    for pair, reason in impossible.items():
        subject, _, task = pair.partition(" x ")
        tasks.setdefault((subject, reason.replace(task, "it") if task else reason), []).append(task)
    for (subject, reason), found in tasks.items():
        yield f"{subject} x {', '.join(found)}: {reason}" if found[0] else f"{subject}: {reason}"


def _told(reasons: Mapping[str, str]) -> Iterator[str]:
    """The cells that have the same reason stand in one line."""
    from harness.errors import few

    cells: dict[str, list[str]] = {}
    for cell, reason in reasons.items():
        cells.setdefault(reason, []).append(cell)
    for reason, found in cells.items():
        yield f"{few(found, shown=1)}: {reason}"


def _shares(text: str) -> list[float]:
    from harness.errors import UsageError

    try:
        return [float(word) for word in show.words("--fractions", text)]
    except ValueError as error:
        raise UsageError(f"--fractions {text!r}: {error}. Give shares such as 0.01,0.1,1") from error


def _show(matrix: Matrix, limit: int | None) -> None:
    for line in _told(matrix.missing):
        show.say(f"cannot run: {line}")
    for reason, count in matrix.in_the_way.items():
        show.say(f"would be put aside and run again: {count} record{'s' if count > 1 else ''}: {reason}")
    for line in matrix.borrowing:
        show.say(line)
    columns = ["task", "method", "profile", "done", "to do", "seconds each", "MiB each"]
    lines = [
        [
            *(row.task, row.method, row.profile, str(row.done), str(row.left)),
            *(_number(row.seconds), _number(row.size)),
        ]
        for row in matrix.rows
    ]
    show.table("Cells", columns, lines)
    if matrix.untrained:
        trainings = ", ".join(f"{method} on {corpus}" for method, corpus in matrix.untrained.items())
        show.line(f"To be pre-trained first, which is not counted below: {trainings}.")
    if matrix.undrawn:
        show.line(
            f"Of {matrix.undrawn} the phantom is not drawn yet: whether they are done, the sweep will see."
        )
    left = sum(row.left for row in matrix.rows)
    if not left:
        show.line("0 cells to do.")
        return
    known = [row for row in matrix.rows if row.seconds is not None]
    seconds = sum(row.left * (row.seconds or 0) for row in known)
    size = sum(row.left * (row.size or 0) for row in known)
    time = f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds / 60:.1f} minutes"
    cost = f"As their like took so far: {time} of one worker and {size:.0f} MiB of records."
    if unknown := left - sum(row.left for row in known):
        more = f"What {unknown} more will take is unknown: no cell like them was run."
        cost = f"{cost} {more}" if known else more
    taken = f", of which --limit takes {limit}" if limit and limit < left else ""
    show.line(f"{left} cells to do{taken}. {cost}")


def _number(value: float | None) -> str:
    if value is None:
        return "?"
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"
