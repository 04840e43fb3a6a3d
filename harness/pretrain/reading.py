"""What a method's text side makes of one text, kept with its weights: later it has to make the same of it.

Apart because a checkpoint holds neither a frozen text encoder nor a vocabulary. They are files of others that
are found by a name; with other files under it, scores of pictures and texts would be wrong and look right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.contracts import TextMethod
from harness.errors import CheckpointError
from harness.pretrain.checkpoint import Checkpoint

TEXT = "1. Small bilateral pleural effusions, 2.5 cm, since ___. 2. Mild cardiomegaly; no pneumothorax."
KEPT = 32  # numbers: token ids of the first words, or the first features of the whole
CLOSE = 0.02
"""Distance of features over their length. Weights in bfloat16 move them by 0.007, weights that differ by one
per cent by 0.04 (IMITATE's, demo profile)."""


def sample(method: TextMethod) -> tuple[float, ...]:
    """The first numbers of what `method` prepares of TEXT; none where it cannot read that."""
    found = tuple(method.prepare_text([TEXT]).flatten()[:KEPT].tolist())
    return found if all(map(math.isfinite, found)) else ()


def alike(before: Sequence[float], now: Sequence[float]) -> bool:
    """Whether two samples are of one reading, as far as can be told: where there is no sample, it cannot."""
    if not (before and now):
        return True
    numbered = all(float(number).is_integer() for number in before)  # one word for another is no small step
    if numbered or len(now) != len(before):
        return tuple(now) == tuple(before)
    return math.dist(now, before) <= CLOSE * math.hypot(*before)


def require_same(stored: Checkpoint, method: TextMethod) -> None:
    """Raises CheckpointError where `method`, made from `stored`, reads otherwise than when it was trained."""
    before, text = stored.card.text_sample, stored.card.profile.text
    if before and not alike(before, sample(method)):
        raise CheckpointError(
            f"{stored.name} was trained with texts that were read otherwise than they are now: the files of "
            f"its text encoder{f' ({text.source})' if text else ''}, or what reads them, have changed. Put "
            "those back, or pre-train again; without texts the checkpoint can be used as it is"
        )
