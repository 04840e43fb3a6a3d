"""The pre-training loop: one for all methods and any number of processes, and on CPUs resumable to the bit.

Apart because it knows nothing of a method but its loss, and nothing of a corpus but its rows. Every random
number of a step is drawn from a stream named by seed and step, so a run that was killed continues from its
last saved state exactly as if nothing had happened; on a GPU, whose sums differ in the last digits from run
to run, or on a CPU of another make, up to rounding.
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
from torch import Tensor, nn

from harness.contracts import Profile
from harness.device import has_bfloat16
from harness.errors import CheckpointError, TrainingDiverged
from harness.pretrain import log, optimisation, reading, state
from harness.pretrain.batches import Batches
from harness.pretrain.corpus import Corpus
from harness.pretrain.embeddings import collapse, geometry, recall
from harness.pretrain.team import Alone
from harness.progress import Bar

FLUSH_EVERY = 10  # steps between two looks at the loss: each look waits for the device
SAVE_EVERY_SECONDS = 30.0  # between two states on disk: what a kill can cost
SAVE_SHARE = 0.05  # of the time, at most: that of a large model takes seconds


class Outcome(NamedTuple):
    """What came of a training; all of it is about the weights that were kept."""

    steps: int
    loss: dict[str, float]  # what the log holds of a step, mean over the last epoch
    retrieval: dict[str, float]  # on validation, see `embeddings.recall`
    warnings: tuple[str, ...]  # what makes the weights doubtful, see `embeddings.collapse`
    seconds: float  # of all processes that took part, one after another
    images_per_second: float | None  # None when there was nothing to train
    text_sample: tuple[float, ...] = ()  # how texts were read, see `reading.py`


class Step(NamedTuple):
    """One optimiser step whose losses are still on the device, and what is needed to name it if it broke."""

    number: int
    ids: Sequence[str]
    learning_rate: float
    terms: dict[str, Tensor]


class Training:
    """One model on one corpus, with its state and log in `folder`; continues what lies there. With a team,
    every process of it makes one, of the same arguments; the first one writes."""

    def __init__(
        self,
        model: nn.Module,
        corpus: Corpus,
        profile: Profile,
        *,
        seed: int,
        device: torch.device,
        folder: Path,
        team: Alone | None = None,
        commit: str = "",
        dirty: bool = False,
        text_sample: tuple[float, ...] = (),
    ) -> None:
        """`commit` of the code, and whether it is `dirty`, which turns true when the state that a training
        goes on from was made by dirty code or at another commit. `text_sample`: see `reading.py`."""
        assert profile.recipe is not None
        folder.mkdir(parents=True, exist_ok=True)
        self.recipe, self.device, self.folder, self.team = profile.recipe, device, folder, team or Alone()
        self.batches = Batches(corpus, profile, seed, device)
        self.model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.loss = self.team.loss_of(self.model, self.recipe)
        self.optimizer = optimisation.optimizer_of(self.recipe, self.model)
        self.precision, self.scaler = _precision(device)
        self.losses: list[float] = []  # on validation, after each epoch
        self.best: dict[str, Tensor] = {}  # weights of the epoch with the lowest, where a recipe keeps them
        self.seconds = 0.0  # spent by earlier processes
        self.commit, self.dirty, self.text_sample = commit, dirty, text_sample

    def run(self) -> Outcome:
        """Raises TrainingDiverged with step and ids of the batch whose loss or gradient is not finite, or
        where the validation loss is not."""
        number = first = self._resume()
        size, per_epoch = self.batches.size, self.batches.per_epoch
        started = saved = time.monotonic()
        pause = SAVE_EVERY_SECONDS
        steps: list[Step] = []
        with (
            log.Log(self.folder, first, len(self.losses)) if self.team.rank == 0 else nullcontext() as book,
            Bar("pre-training", self.batches.total * size, "pairs", done=first * size) as bar,
        ):
            while number < self.batches.total and not optimisation.is_over(self.recipe, self.losses):
                steps.append(self._step(number))
                number += 1
                ends_epoch = number % per_epoch == 0
                if len(steps) == FLUSH_EVERY or ends_epoch:
                    rows = [self._read(step) for step in steps]
                    steps.clear()
                    epoch = self._validate(number) if ends_epoch else {}
                    if book:
                        book.write(rows)
                        if epoch:
                            book.validated(epoch)
                        if (now := time.monotonic()) - saved > pause and number < self.batches.total:
                            book.sync()
                            self._save(number, self.seconds + now - started)
                            saved = time.monotonic()
                            pause = max(SAVE_EVERY_SECONDS, (saved - now) / SAVE_SHARE)
                    bar.note = f"loss {rows[-1]['loss']:.2f}"
                bar.advance(size)
        spent = time.monotonic() - started
        images = (number - first) * size * self.recipe.views
        if self.best:
            self.model.load_state_dict(self.best)
        self.team.wait()  # for the first process to have written what the others read
        return self._outcome(self.seconds + spent, images / spent)

    def _step(self, number: int) -> Step:
        """Forward and backward of all micro-batches, then one move of the optimiser."""
        self.model.train()
        rows = self.batches.rows(number)
        parts = list(enumerate(np.array_split(rows, self.recipe.accumulate)))
        mine = self.team.dealt(parts, self.recipe)
        terms: dict[str, Tensor] = {}
        for part, chosen in mine:
            batch = self.batches.training(number, part, chosen)
            batch = batch._replace(spread=self.team.spread_in_training(self.recipe))
            with self.team.collecting(self.loss, last=part == mine[-1][0]):
                with self.precision:
                    loss, named = self.loss(batch)
                torch.autograd.backward(self.scaler.scale(loss / len(mine)))
            for name, value in {"loss": loss.detach(), **named}.items():
                terms[name] = terms.get(name, torch.zeros_like(value)) + value / len(mine)
        self.scaler.unscale_(self.optimizer)
        norm = self._clip()
        if not self.scaler.is_enabled():  # with loss scaling, steps whose gradient is not finite are left out
            terms["gradient"] = norm
        rate = optimisation.rate(self.recipe, number, self.batches.total, self.losses)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return Step(number, [self.batches.corpus.ids[row] for row in rows], rate, terms)

    def _clip(self) -> Tensor:
        """Norm of the gradient, before it is scaled down where the recipe asks for it."""
        weights = [weight for weight in self.model.parameters() if weight.grad is not None]
        norm = nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None])
        if self.recipe.clip is not None:
            nn.utils.clip_grads_with_norm_(weights, self.recipe.clip, norm)
        return norm

    def _read(self, step: Step) -> dict[str, float]:
        """A line of the log, or the end: a step that is not finite has already spoilt the weights."""
        values = {name: value.item() for name, value in self.team.mean(step.terms).items()}
        if not all(map(math.isfinite, values.values())):
            raise TrainingDiverged(
                f"step {step.number} is not finite: {values}. The batch's images: {', '.join(step.ids)}. "
                "Look at these pictures and reports, or lower the learning rate. The last good state, if one "
                f"was saved by then, is kept in {self.folder}"
            )
        return {"step": step.number, "learning_rate": step.learning_rate, **values}

    def _validate(self, done: int) -> dict[str, float]:
        """Loss, retrieval and geometry of the validation pairs after `done` steps."""
        self.model.eval()
        self.team.follow(self.model)
        model: Any = self.model
        epoch = done // self.batches.per_epoch - 1
        rows, images, texts = [], [], []
        with torch.inference_mode():
            for drawn, plain in self.batches.held_out(epoch):
                with self.precision:
                    loss, named = model.loss(drawn._replace(spread=self.team.spread))
                terms = {name: value.item() for name, value in {"loss": loss, **named}.items()}
                rows += [terms] * len(drawn.ids)  # parts count by their size
                if any(present.any() for present in plain.present.values()):
                    # in full: `recall` knows reports that are worded the same by their embeddings
                    image, text = model.pairs(plain._replace(spread=self.team.spread))
                    images.append(image)
                    texts.append(text)
        measured = log.mean(rows)
        self.losses.append(self.team.agreed(measured["loss"]))
        # one that is not finite compares with no other: the first epoch would stay the best
        if not math.isfinite(self.losses[-1]):
            raise TrainingDiverged(
                f"the validation loss after step {done - 1} is not finite. Look at the validation part's "
                "pictures and reports, or lower the learning rate. The last good state, if one was saved by "
                f"then, is kept in {self.folder}"
            )
        if self.recipe.patience is not None and optimisation.best_epoch(self.losses) == epoch:
            weights = self.model.state_dict().items()
            self.best = {name: value.to("cpu", copy=True) for name, value in weights}
        image, text = torch.cat(images), torch.cat(texts)
        return {"step": done - 1, **measured, **recall(image, text), **geometry(image, text)}

    def _outcome(self, seconds: float, images_per_second: float) -> Outcome:
        epochs = log.read(self.folder / log.EPOCHS)
        chosen = optimisation.best_epoch(self.losses) if self.best else len(self.losses) - 1
        steps = (chosen + 1) * self.batches.per_epoch
        loss = log.mean(log.read(self.folder / log.STEPS)[steps - self.batches.per_epoch : steps])
        retrieval = {name: value for name, value in epochs[chosen].items() if "@" in name}
        warnings = tuple(collapse(epochs[chosen]))
        return Outcome(steps, loss, retrieval, warnings, seconds, images_per_second, self.text_sample)

    # --- state on disk -----------------------------------------------------------------------------

    @property
    def _parts(self) -> dict[str, Any]:
        return {"model": self.model, "optimizer": self.optimizer, "scaler": self.scaler}

    def _save(self, done: int, seconds: float) -> None:
        kept = {
            "done": done,
            "seconds": seconds,
            "losses": self.losses,
            "best": self.best,
            "commit": self.commit,
            "dirty": self.dirty,
            "text_sample": self.text_sample,
        }
        state.save(self.folder, kept, self._parts)

    def _resume(self) -> int:
        """Steps already done. Raises CheckpointError where they read texts otherwise than the next would."""
        found = state.restore(self.folder, self._parts)
        if found is None:
            return 0
        if not reading.alike(found.get("text_sample", ()), self.text_sample):
            raise CheckpointError(
                f"{self.folder} began with texts that were read otherwise than they are now: the files of "
                "the text encoder, or what reads them, have changed. Put those back, or delete it to restart"
            )
        self.seconds, self.losses, self.best = found["seconds"], found["losses"], found["best"]
        # states of before either was kept may have been made by any code
        self.dirty |= found.get("dirty", True) or found.get("commit") != self.commit
        return int(found["done"])


def _precision(device: torch.device) -> tuple[AbstractContextManager[Any], torch.amp.GradScaler]:
    """Autocast on a GPU (float16 with loss scaling where bfloat16 is missing), float32 on the CPU."""
    if device.type != "cuda":
        return nullcontext(), torch.amp.GradScaler("cpu", enabled=False)
    half = torch.bfloat16 if has_bfloat16(device) else torch.float16
    return torch.autocast("cuda", half), torch.amp.GradScaler("cuda", enabled=half is torch.float16)
