"""What a recipe says of the optimiser: how a step is made, how fast, and when to stop.

Apart because rates and the end follow from the step's number and the validation losses so far, and from
nothing else: there is no scheduler whose state a resumed training would have to restore.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from harness.contracts import Recipe
from harness.errors import UsageError


def check(recipe: Recipe, batch: int) -> None:
    """Raises UsageError for numbers that no training can follow. `batch` is what the corpus allows of it."""
    if not 1 <= recipe.accumulate <= batch // 2:
        raise UsageError(
            f"{recipe.accumulate} micro-batches of {batch} pairs: each needs two pairs or more to "
            "contrast. Change accumulate in the method's recipe, or use a larger corpus"
        )
    if not 0 <= recipe.warm_up < 1:
        raise UsageError(f"warm_up is a share of the steps, from 0 to below 1, not {recipe.warm_up}")


def optimizer_of(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(
        model.parameters(), lr=recipe.learning_rate, betas=recipe.betas, weight_decay=recipe.weight_decay
    )


def rate(recipe: Recipe, step: int, total: int, losses: Sequence[float]) -> float:
    """Learning rate of a step, given the validation loss of each epoch before it."""
    if recipe.schedule == "plateau":
        return recipe.learning_rate * 0.5 ** _halvings(losses, recipe.halve_after)
    if recipe.schedule == "constant":
        return recipe.learning_rate
    rising = recipe.warm_up * total
    if step < rising:
        return recipe.learning_rate * step / rising
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - rising) / (total - rising)))


def best_epoch(losses: Sequence[float]) -> int:
    """The first of the lowest losses, from 0."""
    return min(range(len(losses)), key=losses.__getitem__)


def is_over(recipe: Recipe, losses: Sequence[float]) -> bool:
    """Whether the validation loss has waited for as many epochs as the recipe has patience."""
    if recipe.patience is None or not losses:
        return False
    return len(losses) - 1 - best_epoch(losses) >= recipe.patience


def _halvings(losses: Sequence[float], after: int) -> int:
    lowest, waited, halvings = math.inf, 0, 0
    for loss in losses:
        lowest, waited = (loss, 0) if loss < lowest else (lowest, waited + 1)
        if waited == after:
            halvings, waited = halvings + 1, 0
    return halvings
