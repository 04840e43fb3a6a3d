"""Small batches of made-up pictures with real sentences, prepared as a method wants them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from harness.contracts import Batch, Profile

REPORTS = (
    "the cardiac silhouette is enlarged",
    "no pneumothorax or pleural effusion",
    "bibasilar atelectasis without focal consolidation is seen in both lower lobes",
    "small left apical pneumothorax",
    "endotracheal tube terminates above the carina",
)
"""One sentence each, so that drawing one leaves nothing to chance."""


def batch_of(
    profile: Profile, model: Any, reports: Sequence[str] = REPORTS, *, seed: int = 0, epoch: int = 1
) -> Batch:
    assert profile.recipe is not None
    generator = torch.Generator().manual_seed(seed)
    size = profile.preprocessing.size
    views = [
        torch.randn(len(reports), 3, size, size, generator=generator) for _ in range(profile.recipe.views)
    ]
    units = profile.recipe.text_units
    return Batch(
        [str(number) for number in range(len(reports))],
        tuple(views),
        {unit: model.prepare_text(reports) for unit in units},
        {unit: torch.ones(len(reports), dtype=torch.bool) for unit in units},
        epoch,
    )


def taken(batch: Batch, rows: Sequence[int]) -> Batch:
    """The same pairs in another order, or some of them."""
    index = torch.tensor(rows)
    return batch._replace(
        ids=[batch.ids[row] for row in rows],
        views=tuple(view[index] for view in batch.views),
        text={unit: text[index] for unit, text in batch.text.items()},
        present={unit: present[index] for unit, present in batch.present.items()},
    )


def without_dropout(model: torch.nn.Module) -> torch.nn.Module:
    """In training mode, so that batch norm counts its company, but with nothing left to chance."""
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model
