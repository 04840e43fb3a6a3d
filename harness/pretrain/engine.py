"""The pre-training loop: one for all methods, and resumable to the bit.

Apart because it knows nothing of a method but its loss, and nothing of a corpus but its rows. Every random
number of a step is drawn from a stream named by seed and step, so a run that was killed continues from its
last saved state exactly as if nothing had happened.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.contracts import Batch, Profile, Recipe
from harness.data import transforms
from harness.errors import CheckpointError, TrainingDiverged
from harness.files import hash_of, is_sealed, replacing, seal
from harness.pretrain.corpus import Corpus
from harness.pretrain.log import Log
from harness.progress import Bar

FLUSH_EVERY = 10  # steps between two looks at the loss: each look waits for the device
SAVE_EVERY_SECONDS = 30.0  # between two states on disk: what a kill can cost
STATE = "state.pt"
RANKS = (1, 5, 10)


class Outcome(NamedTuple):
    steps: int
    loss: dict[str, float]  # what the log holds of a step, mean over the last epoch
    retrieval: dict[str, float]  # on validation, see `recall`
    seconds: float  # of all processes that took part
    images_per_second: float | None  # None when there was nothing to train


class Step(NamedTuple):
    """One optimiser step whose losses are still on the device, and what is needed to name it if it broke."""

    number: int
    ids: Sequence[str]
    learning_rate: float
    terms: dict[str, Tensor]


class Training:
    """One model on one corpus, with its state and log in `folder`; continues what lies there."""

    def __init__(
        self,
        model: nn.Module,
        corpus: Corpus,
        profile: Profile,
        *,
        seed: int,
        device: torch.device,
        folder: Path,
    ) -> None:
        assert profile.recipe is not None
        transforms.check_names(profile.recipe.augmentation)
        folder.mkdir(parents=True, exist_ok=True)
        self.corpus, self.recipe, self.preprocessing = corpus, profile.recipe, profile.preprocessing
        self.seed, self.device, self.folder = seed, device, folder
        self.model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=self.recipe.learning_rate, weight_decay=self.recipe.weight_decay
        )
        self.precision, self.scaler = _precision(device)
        self.batch = min(self.recipe.batch, len(corpus.train))
        self.per_epoch = len(corpus.train) // self.batch
        self.total = self.recipe.epochs * self.per_epoch
        self.seconds = 0.0  # spent by earlier processes

    def run(self) -> Outcome:
        """Raises TrainingDiverged with step and ids of the batch whose loss or gradient is not finite."""
        first = self._resume()
        started = saved = time.monotonic()
        retrieval: dict[str, float] = {}
        steps: list[Step] = []
        with (
            Log(self.folder, first) as log,
            Bar("pre-training", self.total * self.batch, "pairs", done=first * self.batch) as bar,
        ):
            for number in range(first, self.total):
                steps.append(self._step(number))
                ends_epoch = (number + 1) % self.per_epoch == 0
                if len(steps) == FLUSH_EVERY or ends_epoch:
                    rows = [self._read(step) for step in steps]
                    log.write(rows)
                    steps.clear()
                    if ends_epoch:
                        retrieval = self._recall()
                        log.curves("validation", retrieval, number)
                    if time.monotonic() - saved > SAVE_EVERY_SECONDS and number + 1 < self.total:
                        self._save(number + 1, self.seconds + time.monotonic() - started)
                        saved = time.monotonic()
                    bar.note = f"loss {rows[-1]['loss']:.2f}"
                bar.advance(self.batch, bar.note)
        seconds = time.monotonic() - started
        images = (self.total - first) * self.batch * self.recipe.views
        loss = log.mean(last=self.per_epoch)
        return Outcome(self.total, loss, retrieval, self.seconds + seconds, images / seconds)

    def _step(self, number: int) -> Step:
        """Forward and backward of all micro-batches, then one move of the optimiser."""
        self.model.train()
        rows = self._rows(number)
        torch.manual_seed(_stream(self.seed, number))  # whatever the method draws: channels, dropout
        views = torch.Generator().manual_seed(_stream(self.seed, number, "views"))
        terms: dict[str, Tensor] = {}
        for part in np.array_split(rows, self.recipe.accumulate):
            batch = self._batch(part, views, number // self.per_epoch)
            with self.precision:
                loss, parts = self.model.loss(batch)
            self.scaler.scale(loss / self.recipe.accumulate).backward()
            for name, value in {"loss": loss.detach(), **parts}.items():
                terms[name] = terms.get(name, torch.zeros_like(value)) + value / self.recipe.accumulate
        if not self.scaler.is_enabled():  # with loss scaling, steps whose gradient is not finite are left out
            gradients = (weight.grad for weight in self.model.parameters() if weight.grad is not None)
            terms["gradient"] = nn.utils.get_total_norm(gradients)
        rate = _rate(self.recipe, number, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return Step(number, [self.corpus.ids[row] for row in rows], rate, terms)

    def _rows(self, number: int) -> np.ndarray:
        """The pairs of one step: each epoch is a shuffle of its own, its last incomplete batch left out."""
        epoch, position = divmod(number, self.per_epoch)
        order = np.random.default_rng(_stream(self.seed, epoch, "order")).permutation(self.corpus.train)
        return order[position * self.batch : (position + 1) * self.batch]

    def _batch(self, rows: np.ndarray, views: torch.Generator | None, epoch: int = 0) -> Batch:
        """Training views from the generator `views`, or the one evaluation view without it."""
        pixels = torch.from_numpy(self.corpus.pixels[rows]).to(self.device)  # [B, S, S]
        if views is None:
            pictures = [transforms.evaluation_view(pixels, self.preprocessing)]
        else:
            pictures = [
                transforms.training_view(pixels, self.recipe.augmentation, self.preprocessing, views)
                for _ in range(self.recipe.views)
            ]
        index, texts = torch.from_numpy(rows), self.corpus.texts.items()
        return Batch(
            [self.corpus.ids[row] for row in rows],
            tuple(pictures),
            {unit: text.prepared[text.row[index]].to(self.device) for unit, text in texts},
            {unit: text.present[index].to(self.device) for unit, text in texts},
            epoch,
        )

    def _read(self, step: Step) -> dict[str, float]:
        """A line of the log, or the end: a step that is not finite has already spoilt the weights."""
        values = {name: value.item() for name, value in step.terms.items()}
        if not all(map(math.isfinite, values.values())):
            raise TrainingDiverged(
                f"step {step.number} is not finite: {values}. The batch's images: {', '.join(step.ids)}. "
                "Look at these pictures and reports, or lower the learning rate. The last good state, if one "
                f"was saved by then, is kept in {self.folder}"
            )
        return {"step": step.number, "learning_rate": step.learning_rate, **values}

    def _recall(self) -> dict[str, float]:
        self.model.eval()
        images, texts = [], []
        with torch.inference_mode():
            for part in np.array_split(self.corpus.validation, -(-len(self.corpus.validation) // self.batch)):
                with self.precision:
                    image, text = self.model.pairs(self._batch(part, None))
                images.append(image.float())
                texts.append(text.float())
        return recall(torch.cat(images), torch.cat(texts))

    # --- state on disk -----------------------------------------------------------------------------

    def _save(self, done: int, seconds: float) -> None:
        state = {
            "done": done,
            "seconds": seconds,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }
        with replacing(self.folder / STATE) as temporary:
            torch.save(state, temporary)
            seal(temporary)

    def _resume(self) -> int:
        """Steps already done. Raises CheckpointError when the saved state is broken or of another network."""
        path = self.folder / STATE
        if not path.exists():
            return 0
        cure = f"Delete {self.folder} to start over"
        if not is_sealed(path):
            raise CheckpointError(f"{path} is not the file that was written. {cure}")
        state = torch.load(path, map_location=self.device, weights_only=True)
        try:
            self.model.load_state_dict(state["model"])
        except RuntimeError as error:
            raise CheckpointError(f"{path}: {error}. {cure}") from error
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.seconds = float(state["seconds"])
        return int(state["done"])


def recall(image: Tensor, text: Tensor) -> dict[str, float]:
    """Share of pictures that find their own report, or one worded the same, among the K best of all, beside
    what a random order would give. `image` and `text` [V, d], row by row a pair; K below V only."""
    image, text = F.normalize(image, dim=1), F.normalize(text, dim=1)
    # not by matrix products: their rounding makes equal rows up to 1e-3 different
    same = torch.cdist(text, text, compute_mode="donot_use_mm_for_euclid_dist") < 1e-4  # [V, V]
    hits = same.gather(1, (image @ text.T).argsort(dim=1, descending=True))  # best first
    wrong = (~same).sum(dim=1)[:, None]
    places = torch.arange(min(RANKS[-1], len(text)), device=text.device)
    # [V, K] that the first 1, 2, ... K of a random order are all wrong
    missed = ((wrong - places).clamp(min=0) / (len(text) - places)).cumprod(dim=1)
    found = {}
    for k in (k for k in RANKS if k < len(text)):
        found[f"recall@{k}"] = hits[:, :k].any(dim=1).float().mean().item()
        found[f"chance@{k}"] = 1 - missed[:, k - 1].mean().item()
    return found


def _stream(*key: int | str) -> int:
    """A seed of its own for every name."""
    return int(hash_of("pretrain", *key)[:15], 16)


def _rate(recipe: Recipe, step: int, total: int) -> float:
    if recipe.schedule == "constant":
        return recipe.learning_rate
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * step / total))


def _precision(device: torch.device) -> tuple[AbstractContextManager[Any], torch.amp.GradScaler]:
    """Autocast on a GPU (float16 with loss scaling where bfloat16 is missing), float32 on the CPU."""
    if device.type != "cuda":
        return nullcontext(), torch.amp.GradScaler("cpu", enabled=False)
    half = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.autocast("cuda", half), torch.amp.GradScaler("cuda", enabled=half is torch.float16)
