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
from harness.data import transforms
from harness.errors import UsageError


def check(recipe: Recipe, owner: str) -> None:
    """Raises UsageError for what no training can follow, before any data are read; `owner` has the recipe."""
    parts, decays = recipe.accumulate, recipe.schedule == "cosine"
    rules = {
        "epochs": (recipe.epochs >= 1, "1 or more"),
        "accumulate": (parts >= 1, "1 or more"),
        "batch": (
            parts >= 1 and recipe.batch >= 2 * parts and recipe.batch % parts == 0,
            f"a multiple of its {parts} micro-batches, each of two pairs or more to contrast",
        ),
        "learning_rate": (recipe.learning_rate > 0, "above 0"),
        "weight_decay": (recipe.weight_decay >= 0, "0 or more"),
        "clip": (recipe.clip is None or recipe.clip > 0, "above 0, or None"),
        "warm_up": (
            0 <= recipe.warm_up < 1 and (decays or not recipe.warm_up),
            "a share of the steps, from 0 to below 1, and 0 unless the schedule is cosine",
        ),
        "halve_after": (recipe.halve_after >= 1, "1 or more"),
        "patience": (recipe.patience is None or recipe.patience >= 1, "1 or more, or None"),
        "views": (recipe.views >= 1, "1 or more"),
        "text_units": (bool(recipe.text_units), "one column of the reports or more"),
    }
    for field, (kept, rule) in rules.items():
        if not kept:
            raise UsageError(f"{owner}: {field} of the recipe is {getattr(recipe, field)}. Make it {rule}")
    try:
        transforms.check_names(recipe.augmentation)
    except UsageError as error:
        raise UsageError(f"{owner}: augmentation of the recipe: {error}") from error


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
    """Whether the lowest validation loss is as many epochs old as the recipe has patience."""
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
