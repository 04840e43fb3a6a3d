"""Which checkpoint a cell has, and how one is made where there is none.

Apart because a sweep asks the same before its cells run as `run` does of one.
"""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path

from harness import plan as plans
from harness import registry
from harness.contracts import DataKind
from harness.evaluate.bank import Source
from harness.files import file_hash, hash_of
from harness.plan import MethodPlan
from harness.pretrain import checkpoint, make
from harness.pretrain.checkpoint import Checkpoint
from harness.settings import Settings

logger = logging.getLogger(__name__)


def fitting(method: MethodPlan, settings: Settings, seed: int, data: DataKind) -> Checkpoint | None:
    """The checkpoint in the store that this method at this profile has: that of the seed, or of trained ones,
    where there is none of it, that of the lowest seed.

    For real `data`, one that was trained on a phantom is taken in the demo profile only, where there is no
    other.
    """
    found = checkpoint.fitting(
        settings.checkpoints, method.name, method.card.version, method.profile_name, method.profile
    )
    if data == "real":
        real = [item for item in found if item.card.corpus_kind != "phantom"]
        found = real if real or method.profile_name != "demo" else found
    own = [item for item in found if item.card.seed == seed]
    if method.profile.recipe is None:  # every seed has initial weights of its own
        found = own
    return min(own or found, key=lambda item: item.card.seed, default=None)


def made(method: MethodPlan, settings: Settings, seed: int) -> Checkpoint:
    """A checkpoint for a cell that has none: pre-trained with seed 0, or for an untrained method the initial
    weights of the cell's seed."""
    if method.profile.recipe is None:
        return make.untrained(method, settings, seed=seed)
    corpus = plans.corpus(method, None)
    return make.trained(method, corpus, settings, seed=0, stand_in=method.profile_name == "demo")


def say_what_was_seen(chosen: Checkpoint, dataset: str, data: DataKind) -> None:
    """Where its training makes numbers on this dataset doubtful."""
    card = chosen.card
    if data == "real" and card.corpus_kind == "phantom":
        logger.warning(
            "%s was trained on a phantom: on real data its numbers say nothing of the method", chosen.name
        )
    if card.imported and dataset in (card.corpus or "").split("+"):
        logger.warning(
            "%s was trained by others on %s: they may have used its test pictures", chosen.name, dataset
        )


def code(method: MethodPlan) -> str:
    """Hash of the method's file, and of the files that those of its folder share."""
    file = registry.entry("methods", method.source).path
    return hash_of({path.name: _hash_when_imported(path) for path in (file, *file.parent.glob("_*.py"))})


@cache
def _hash_when_imported(path: Path) -> str:
    """What is edited later does not run in this process."""
    return file_hash(path)


def source(method: MethodPlan, chosen: Checkpoint) -> Source:
    """Its encoder, loaded when it is needed."""
    card = chosen.card
    recipe = card.profile.recipe or method.profile.recipe  # imported weights come without theirs
    return Source(
        card.method,
        card.method_version,
        code(method),
        card.weights,
        card.profile.preprocessing,
        lambda: make.load(method, chosen),
        recipe.text_units[-1] if recipe else "",
    )
