"""Short trainings of the tiny method, for the tests of the loop."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness.contracts import Batch, Profile
from harness.pretrain.corpus import Corpus
from harness.pretrain.engine import Outcome, Training
from harness.pretrain.team import Alone
from tests import fakes
from tests.fakes import PROFILE, Tiny

PER_EPOCH, STEPS = 3, 15  # 24 training pairs in batches of 8, five times


class Contrasting(Tiny):
    """Pairs against each other, where they have text. Draws once for the whole batch within what is spread,
    and once for each row outside of it."""

    def __init__(self) -> None:
        super().__init__(random=False)
        bias = self.encoder[0].bias
        assert isinstance(bias, Tensor)
        bias.requires_grad_(False)  # batch norm undoes it: its gradient is rounding, which Adam makes large

    def _see(self, *views: Tensor) -> list[Tensor]:
        tilt = torch.rand(8)
        return [self.image_head(self.encoder(view).mean(dim=(2, 3)) * tilt) for view in views]

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        if self.training:
            self.trained.append(batch)
        rows = batch.present["findings"]
        views = batch.spread(self._see, *(view[rows] for view in batch.views))
        text = batch.spread(self.text_head, batch.text["findings"][rows])
        text = text + 0.1 * torch.rand(len(text), 1)
        scores = [image @ text.T for image in views]
        both = [side for score in scores for side in (score, score.T)]
        labels = torch.arange(len(text))
        loss = torch.stack([nn.functional.cross_entropy(side, labels) for side in both]).mean()
        return loss, {"contrast": loss.detach()}


def recipe(**changes: Any) -> Profile:
    assert PROFILE.recipe is not None
    return replace(PROFILE, recipe=replace(PROFILE.recipe, **changes))


def training(
    folder: Path,
    model: Tiny | None = None,
    *,
    corpus: Corpus | None = None,
    profile: Profile = PROFILE,
    seed: int = 0,
    team: Alone | None = None,
    text_sample: tuple[float, ...] = (),
) -> Training:
    if model is None:
        torch.manual_seed(seed)
        model = Tiny()
    cpu = torch.device("cpu")
    data = corpus or fakes.corpus()
    return Training(
        model, data, profile, seed=seed, device=cpu, folder=folder, team=team, text_sample=text_sample
    )


def run(folder: Path, model: Tiny | None = None, **changes: Any) -> tuple[Tiny, Outcome]:
    """A training from its first step, or from where an earlier one ended, to its end."""
    started = training(folder, model, **changes)
    assert isinstance(started.model, Tiny)
    return started.model, started.run()


def log(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open() as file:
        return list(csv.DictReader(file))


def assert_same_weights(one: Tiny, other: Tiny) -> None:
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
