"""What a method's text side makes of one text, kept with its weights: later it has to make the same of it.

Apart because a checkpoint holds neither a frozen text encoder nor a vocabulary. They are files of others that
are found by a name; with other files under it, scores of pictures and texts would be wrong and look right.
"""

from __future__ import annotations

import math

from harness.contracts import TextMethod
from harness.errors import CheckpointError
from harness.pretrain.checkpoint import Checkpoint

TEXT = "Mild cardiomegaly. Small bilateral pleural effusions with basilar atelectasis; no pneumothorax."
KEPT = 32  # numbers: token ids of all these words, or the first features of the whole
CLOSE = 0.01
"""Distance of features over their length. Half the precision moves them by 0.006, weights that differ by one
per cent by 0.06 (IMITATE's, demo profile)."""


def sample(method: TextMethod) -> tuple[float, ...]:
    """The first numbers of what `method` prepares of TEXT."""
    return tuple(method.prepare_text([TEXT]).flatten()[:KEPT].tolist())


def require_same(found: Checkpoint, method: TextMethod) -> None:
    """Raises CheckpointError where `method`, loaded from `found`, reads otherwise than when it was trained.
    Of weights made by others, or before this was kept, nobody can tell."""
    before = found.card.text_sample
    if not before:
        return
    now = sample(method)
    numbered = all(float(number).is_integer() for number in before)  # one word for another is no small step
    if numbered or len(now) != len(before):
        same = now == before
    else:
        same = math.dist(now, before) <= CLOSE * math.hypot(*before)
    if not same:
        text = found.card.profile.text
        raise CheckpointError(
            f"{found.name} was trained with texts that were read otherwise than they are now: the files of "
            f"its text encoder, {text.source if text else 'unknown'}, are others, or what reads them. Put "
            "those back, or pre-train again; without texts the checkpoint can be used as it is"
        )
