"""Which pairs a step sees, and how they look: everything random about it follows from seed and step.

Apart because a step must see the same on every process that shares it, and again after a kill.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch

from harness.contracts import Batch, Profile
from harness.data import transforms
from harness.errors import DataError
from harness.files import hash_of
from harness.pretrain.corpus import Corpus


def stream(*key: int | str) -> int:
    """A seed of its own for every name."""
    return int(hash_of("pretrain", *key)[:15], 16)


class Batches:
    """The pairs of one training, in order. A corpus smaller than a batch is a batch, as far as it can be cut
    into micro-batches of one size. Raises DataError where one would be left with nothing to contrast."""

    def __init__(self, corpus: Corpus, profile: Profile, seed: int, device: torch.device) -> None:
        assert profile.recipe is not None
        self.corpus, self.recipe, self.preprocessing = corpus, profile.recipe, profile.preprocessing
        self.seed, self.device = seed, device
        parts = self.recipe.accumulate
        self.size = min(self.recipe.batch, len(corpus.train) // parts * parts)
        if self.size < 2 * parts:
            raise DataError(
                f"{corpus.name} has {len(corpus.train)} pairs to train on, and a step needs two for each of "
                f"its {parts} micro-batches. Use a larger corpus, or lower accumulate in the method's recipe"
            )
        self.per_epoch = len(corpus.train) // self.size
        self.total = self.recipe.epochs * self.per_epoch
        self._order = lru_cache(1)(self._shuffled)  # drawn once an epoch, not at every step

    def rows(self, step: int) -> np.ndarray:
        """The pairs of one step: each epoch is a shuffle of its own, its last incomplete batch left out."""
        epoch, position = divmod(step, self.per_epoch)
        return self._order(epoch)[position * self.size : (position + 1) * self.size]

    def _shuffled(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng(stream(self.seed, epoch, "order"))
        return rng.permutation(self.corpus.train)

    def training(self, step: int, part: int, rows: np.ndarray) -> Batch:
        """One micro-batch. Seeds torch's global generator with its number: what the method draws next
        (channels, sentences, dropout) follows from it."""
        return self._drawn(rows, step // self.per_epoch, step, part)

    def held_out(self, epoch: int) -> Iterator[tuple[Batch, Batch]]:
        """The validation pairs twice: under training's views, the same in every epoch, and in the one view
        of evaluation. Parts of equal size, as far as their number allows."""
        rows = self.corpus.validation
        for number, part in enumerate(np.array_split(rows, -(-len(rows) // self.size))):
            view = transforms.evaluation_view(self._pixels(part), self.preprocessing)
            drawn = self._drawn(part, epoch, "validation", number)
            yield drawn, drawn._replace(views=(view,))

    def _drawn(self, rows: np.ndarray, epoch: int, *name: int | str) -> Batch:
        torch.manual_seed(stream(self.seed, *name))
        draws = torch.Generator().manual_seed(stream(self.seed, *name, "views"))
        pixels = self._pixels(rows)
        pictures = [
            transforms.training_view(pixels, self.recipe.augmentation, self.preprocessing, draws)
            for _ in range(self.recipe.views)
        ]
        index, texts = torch.from_numpy(rows), self.corpus.texts.items()
        study = self.corpus.studies[index].to(self.device) if self.recipe.same_study_positives else None
        return Batch(
            [self.corpus.ids[row] for row in rows],
            tuple(pictures),
            {unit: text.prepared[text.row[index]].to(self.device) for unit, text in texts},
            {unit: text.present[index].to(self.device) for unit, text in texts},
            epoch,
            study,
        )

    def _pixels(self, rows: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(self.corpus.pixels[rows]).to(self.device)  # [B, S, S]
