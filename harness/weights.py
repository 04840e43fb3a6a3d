"""Which checkpoint a cell has, and how one is made where there is none.

Apart because a sweep asks the same before its cells run as `run` does of one.
"""

from __future__ import annotations

import logging
from functools import cache, partial
from pathlib import Path

from harness import plan as plans
from harness import registry
from harness.contracts import DataKind, trained_on
from harness.errors import UsageError
from harness.evaluate.bank import Source
from harness.files import file_hash, hash_of
from harness.plan import CellPlan, MethodPlan
from harness.pretrain import checkpoint, make, reading
from harness.pretrain.checkpoint import Checkpoint
from harness.settings import PACKAGE_ROOT, Settings

logger = logging.getLogger(__name__)


def fitting(method: MethodPlan, settings: Settings, seed: int, data: DataKind) -> Checkpoint | None:
    """The stored checkpoint to use: the one with this seed or, of a trained method without, the one with the
    lowest seed; None where there is none.

    For real `data`, one that was trained on a phantom is taken in the demo profile only, where there is no
    other. Raises UsageError where they are of several corpora: which one, a seed must not decide.
    """
    found = checkpoint.fitting(
        settings.checkpoints, method.name, method.card.version, method.profile_name, method.profile
    )
    if data == "real":
        real = [item for item in found if item.card.corpus_kind != "phantom"]
        found = real if real or method.profile_name != "demo" else found
    if len({item.card.corpus_fingerprint for item in found}) > 1:
        corpora = {item.name: f"{item.card.corpus}, {item.card.corpus_kind}" for item in found}
        names = ", ".join(f"{name} ({corpus})" for name, corpus in sorted(corpora.items()))
        raise UsageError(
            f"{method.name} has checkpoints of several corpora: {names}. Say which with --checkpoint, or "
            "--checkpoints of a sweep"
        )
    own = [item for item in found if item.card.seed == seed]
    if method.profile.recipe is None:  # every seed has initial weights of its own
        found = own
    return min(own or found, key=lambda item: item.card.seed, default=None)


def current(method: MethodPlan, settings: Settings, seed: int, data: DataKind) -> Checkpoint | None:
    """`fitting`, to be used now. Raises CheckpointError, too, where an untrained method's file makes other
    weights by now: its checkpoint is no training's result, but a copy of them."""
    chosen = fitting(method, settings, seed, data)
    if chosen and method.profile.recipe is None:
        make.require_same(method, chosen)
    return chosen


def made(method: MethodPlan, settings: Settings, seed: int) -> Checkpoint:
    """A checkpoint for a cell that has none: pre-trained with seed 0, or for an untrained method the initial
    weights of the cell's seed."""
    if method.profile.recipe is None:
        return make.untrained(method, settings, seed=seed)
    corpus = plans.corpus(method, None)
    return make.trained(method, corpus, settings, seed=0, stand_in=stands_in(method))


def stands_in(method: MethodPlan) -> bool:
    """Whether a phantom may be the corpus of a training that nobody asked for, where there is none else."""
    return method.profile_name == "demo"


def say_what_was_seen(chosen: Checkpoint, cell: CellPlan, data: DataKind) -> None:
    """Where its training makes numbers on the dataset of a cell doubtful."""
    card = chosen.card
    if data == "real" and card.corpus_kind == "phantom":
        logger.warning(
            "%s was trained on a phantom: on real data its numbers say nothing of the method", chosen.name
        )
    if data == "real" and card.profile_name == "demo" and "paper" in cell.method.card.profiles:
        logger.warning(
            "%s is of the demo profile, which is for trying things out. For numbers give --profile paper",
            chosen.name,
        )
    pictures = (cell.dataset, *cell.dataset_card.shares_pictures)
    if card.imported and trained_on(pictures, card.corpus):
        logger.warning(
            "%s was trained by others on %s: they may have used test pictures of %s",
            chosen.name,
            card.corpus,
            cell.dataset,
        )


def code(method: MethodPlan) -> str:
    """Hash of the method's file, and of those that methods share, in its folder and in ours. Ask when it is
    imported: the answer stays the same in a process, as the code does."""
    file = registry.entry("methods", method.source).path
    folders = {file.parent, PACKAGE_ROOT / "methods"}
    shared = {path for folder in folders for path in folder.glob("_*.py")}
    return hash_of(sorted(map(_hash_once, {file, *shared})))


@cache
def _hash_once(path: Path) -> str:
    return file_hash(path)


def source(method: MethodPlan, chosen: Checkpoint) -> Source:
    """The encoder of a checkpoint, loaded when it is needed."""
    card = chosen.card
    recipe = card.profile.recipe or method.profile.recipe  # imported weights come without theirs
    return Source(
        method=card.method,
        method_version=card.method_version,
        code=code(method),
        weights=card.weights,
        preprocessing=card.profile.preprocessing,
        build=lambda: make.load(method, chosen),
        text_unit=recipe.text_units[-1] if recipe else "",
        check_text=partial(reading.require_same, chosen),
    )
