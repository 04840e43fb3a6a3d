"""`run`: one cell, from names to a record. Everything that can be checked by name is checked first."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness import settings
from harness.cli import show

if TYPE_CHECKING:
    from harness.records import Record


def run(
    context: typer.Context,
    method: Annotated[str, typer.Option(help="Name, or path of a method's file.")],
    task: Annotated[str, typer.Option(help="Dataset, or dataset:kind.")],
    fraction: Annotated[float, typer.Option(help="Share of the training labels, in (0, 1].")] = 1.0,
    seed: Annotated[
        int,
        typer.Option(
            help="Of the label draw, the head and the interval; picks the checkpoint.", min=0, max=2**63 - 1
        ),
    ] = 0,
    checkpoint: Annotated[
        str | None,
        typer.Option(help="Its name. Default: that of --seed, else of the lowest seed; else one is made."),
    ] = None,
    profile: Annotated[str | None, typer.Option(help=show.PROFILE_HELP)] = None,
    protocol: Annotated[str, typer.Option(help="clean or published.")] = "clean",
    cut_validation: Annotated[
        bool, typer.Option("--cut-validation", help="Take the fraction of the validation labels too.")
    ] = False,
    data_root: Annotated[Path | None, typer.Option(help="Folder with official downloads.")] = None,
    results: Annotated[Path | None, typer.Option(help="Where the record goes. Default: results/")] = None,
    save_figures: Annotated[
        Path | None, typer.Option(help="Folder for drawings of a few test images: segmentation, detection.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the record.")] = False,
) -> None:
    """Run one cell: encode, fit the head, score the test split once, write the record."""
    from harness import plan

    current = settings.load(data_root, results)
    current.require_roots()
    save_figures = save_figures and save_figures.expanduser()  # no shell does in --save-figures=~/figures
    wanted = plan.cell(
        method,
        task,
        profile=show.DEFAULT_PROFILE if profile is None else profile,
        protocol=protocol,
        fraction=fraction,
        seed=seed,
        cut_validation=cut_validation,
    )
    chosen = None
    if checkpoint is not None:
        from harness.pretrain.checkpoint import named

        maker = wanted.method
        chosen = named(
            current.checkpoints,
            checkpoint,
            method=maker.name,
            version=maker.card.version,
            profile=profile,
        )
    from harness import run as pipeline

    done = pipeline.run(
        wanted, current, chosen=chosen, arguments=show.arguments(context), figures=save_figures
    )
    record = done.record
    if json:
        show.as_json(record.model_dump(mode="json"))
        return
    answered = ", ".join(name for name, hit in record.cost.cached.items() if hit) or "nothing"
    show.say(f"From the cache: {answered}.")
    test, used = record.parts["test"], record.parts["used"]
    row = [
        record.data.kind,
        record.cell.task,
        record.cell.checkpoint,
        f"{record.cell.fraction * 100:g} % ({used.images} images)" if used.images else "none",
        record.metrics[record.task.metric].text,
        f"{test.images} / {test.persons if record.data.persons_known else 'unknown'}",
        f"{sum(record.cost.seconds.values()):.0f}",
    ]
    columns = [
        "data",
        "task",
        "checkpoint",
        "labels",
        f"{record.task.metric_title} [95 %]",
        "n images / persons",
        "seconds",
    ]
    show.table("", columns, [row])
    if save_figures:
        show.say(f"{len(done.figures)} figures in {save_figures}.")
    if not record.data.persons_known:
        show.say(
            "Whose picture an image is, is not known for all here: split and interval are by the best ids "
            "there are, and a person may stand in two parts."
        )
    if _beside_other_weights(done.path, record):
        show.say(
            f"Record: {done.path}. Others beside it are of other weights of the same name, which no page "
            "shows together. Give --results a folder of your own."
        )
    else:
        show.say(f"Record: {done.path}. On the leaderboard with: {show.leaderboard_command(results)}")


def _beside_other_weights(path: Path, record: Record) -> bool:
    """Whether a record in the same folder is of another training under the same name."""
    from harness import records
    from harness.errors import BadRecord

    for other in path.parent.glob("*.json"):
        with suppress(BadRecord):  # whoever reads it says so
            if records.read(other).pretraining.weights != record.pretraining.weights:
                return True
    return False
