"""Contrast between two sides of a batch of pairs, in full precision.

Apart because every method's loss ends here: a matrix of similarities whose diagonal holds the pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

P = ParamSpec("P")
R = TypeVar("R")

HALF = (torch.float16, torch.bfloat16)


def full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Takes `function` of tensors out of autocast, half-precision arguments as float32: sharp softmaxes lose
    their digits in half precision. Casting alone would not do, since autocast casts back at every product."""

    def raised(value: object) -> object:
        return value.float() if isinstance(value, Tensor) and value.dtype in HALF else value

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        device = next(value.device.type for value in args if isinstance(value, Tensor))
        with torch.autocast(device, enabled=False):
            whole = {name: raised(value) for name, value in kwargs.items()}
            return function(*map(raised, args), **whole)  # type: ignore[arg-type]

    return run


@full_precision
def cosines(x: Tensor, y: Tensor) -> Tensor:
    """[N, d] and [M, d] to [N, M]."""
    return F.normalize(x, dim=1) @ F.normalize(y, dim=1).T


@full_precision
def contrast(logits: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """InfoNCE of `logits` [B, B]: each row against all columns, and each column against all rows.

    `targets` [B, B] is what a row's and a column's softmax should be; the pairs on the diagonal by default.
    """
    rows, columns = logits.log_softmax(dim=1), logits.log_softmax(dim=0)
    if targets is None:
        return -rows.diagonal().mean(), -columns.diagonal().mean()
    return -(targets * rows).sum() / len(logits), -(targets * columns).sum() / len(logits)


def positives(study: Tensor | None, rows: Tensor) -> Tensor | None:
    """Targets [b, b] among the b `rows` of a batch: pairs of one study are right answers for each other, all
    alike. `study` [B] numbers the studies; None where a pair is right for itself alone."""
    if study is None:
        return None
    same = (study[rows][:, None] == study[rows]).float()
    return same / same.sum(dim=1)


def nothing_to_contrast(model: nn.Module, *terms: str) -> tuple[Tensor, dict[str, Tensor]]:
    """A loss of zero with a gradient of zero everywhere: for a batch with fewer than two texts."""
    loss = torch.stack([value.sum() for value in model.parameters() if value.requires_grad]).sum() * 0
    return loss, dict.fromkeys(terms, loss.detach())
