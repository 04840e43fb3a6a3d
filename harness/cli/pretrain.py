"""`pretrain`: train a method, or all of them, on pictures and reports, and keep the checkpoints."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness import settings
from harness.cli import show

if TYPE_CHECKING:
    from harness.plan import CorpusPlan, MethodPlan
    from harness.pretrain.checkpoint import Checkpoint

    Train = Callable[[MethodPlan, CorpusPlan], Checkpoint]

logger = logging.getLogger(__name__)

ALL = "all"


def pretrain(
    method: Annotated[str, typer.Option(help=f"Name, path of a method's file, or {ALL!r}.")],
    corpus: Annotated[str | None, typer.Option(help="Default: that of its authors, else mimic_cxr.")] = None,
    profile: Annotated[str, typer.Option(help="Size: demo (minutes on CPUs) or paper.")] = "demo",
    official: Annotated[
        bool,
        typer.Option(
            "--official", help="As the authors' code does it, its faults included. Not all methods can."
        ),
    ] = False,
    seed: Annotated[
        int, typer.Option(help="Of the initial weights and every draw.", min=0, max=2**63 - 1)
    ] = 0,
    processes: Annotated[
        int,
        typer.Option(
            help="Processes that share each step, a GPU or core each; dropout aside, it stays that of one.",
            min=1,
        ),
    ] = 1,
    data_root: Annotated[Path | None, typer.Option(help="Folder with official downloads.")] = None,
) -> None:
    """Pre-train a method; a run that was cut off goes on where it was."""
    from harness import plan

    current = settings.load(data_root)
    current.require_roots()
    if method == ALL:
        methods = plan.trainable(profile, official=official)
    else:
        methods = [plan.method(method, profile, official=official)]
    pairs = [(wanted, plan.corpus(wanted, corpus)) for wanted in methods]
    from harness.pretrain import make

    train = partial(make.trained, settings=current, seed=seed, stand_in=False, processes=processes)
    if method == ALL:
        _all(pairs, train, current.data_option)
    else:
        _say(train(*pairs[0]), method, current.data_option)


def _all(pairs: Sequence[tuple[MethodPlan, CorpusPlan]], train: Train, data_option: str) -> None:
    """One after the other; one that fails costs none of the others. Raises HarnessError when any did."""
    from harness import registry
    from harness.errors import HarnessError

    began = datetime.now(UTC)
    broken = {name: entry.error for name, entry in registry.entries("methods").items() if entry.error}
    rows = [[name, "failed", reason] for name, reason in broken.items()]
    for wanted, source in pairs:
        try:
            done = train(wanted, source)
        except (HarnessError, OSError) as error:
            rows.append([wanted.name, "failed", str(error)])
        except Exception as error:  # a plug-in may fail in any way
            logger.exception("%s failed", wanted.name)
            rows.append([wanted.name, "failed", f"{type(error).__name__}: {error}"])
        else:
            _say(done, wanted.name, data_option)
            rows.append([wanted.name, "done" if done.card.written > began else "was there", done.name])
    show.table("Pre-training", ["method", "outcome", "checkpoint or reason"], rows)
    failed = [name for name, outcome, _ in rows if outcome == "failed"]
    if failed:
        raise HarnessError(f"{', '.join(failed)} failed. What is done is kept: cure it and run this again")


def _say(done: Checkpoint, method: str, data_option: str) -> None:
    found = ", ".join(f"{key} {value * 100:.1f} %" for key, value in done.card.retrieval.items())
    show.line(f"{done.name}: {done.card.steps} steps, {done.card.seconds:.0f} s. Validation: {found}")
    for warning in done.card.warnings:
        show.say(f"warning: {warning}. See {done.folder / 'health.svg'}")
    show.say(
        f"Use it: python -m harness run --method {shlex.quote(method)} --task chexpert "
        f"--checkpoint {done.name}{data_option}"
    )
