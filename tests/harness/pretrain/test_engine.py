"""The loop against plain restatements of it, and killed anywhere against itself: it ends in the same bits."""

from __future__ import annotations

import csv
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.contracts import Batch, Profile
from harness.errors import CheckpointError, TrainingDiverged
from harness.pretrain import engine
from harness.pretrain.corpus import Corpus
from harness.pretrain.engine import STATE, Outcome, Training, recall
from tests import fakes
from tests.fakes import PROFILE, Tiny

CPU = torch.device("cpu")
PER_EPOCH, STEPS = 3, 15  # 24 training pairs in batches of 8, five times


def recipe(**changes: object) -> Profile:
    assert PROFILE.recipe is not None
    return replace(PROFILE, recipe=replace(PROFILE.recipe, **changes))  # type: ignore[arg-type]


def training(
    folder: Path,
    model: Tiny | None = None,
    *,
    corpus: Corpus | None = None,
    profile: Profile = PROFILE,
    seed: int = 0,
) -> Training:
    if model is None:
        torch.manual_seed(seed)
        model = Tiny()
    return Training(model, corpus or fakes.corpus(), profile, seed=seed, device=CPU, folder=folder)


def run(folder: Path, **changes: object) -> tuple[Tiny, Outcome]:
    """A training from its first step, or from where it was killed, to its end."""
    started = training(folder, **changes)  # type: ignore[arg-type]
    assert isinstance(started.model, Tiny)
    return started.model, started.run()


def log(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open() as file:
        return list(csv.DictReader(file))


def assert_same_weights(one: Tiny, other: Tiny) -> None:
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the loss and save more often than once in a run of 15 steps."""
    monkeypatch.setattr(engine, "FLUSH_EVERY", 2)
    monkeypatch.setattr(engine, "SAVE_EVERY_SECONDS", 0.0)


# --- kill -9 -----------------------------------------------------------------------------------------


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Doomed(Tiny):
    """Dies in the forward pass of a step."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.left = step

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        if self.left == 0:
            kill()
        self.left -= 1
        return super().loss(batch)


def in_step(step: int) -> Callable[[Path], None]:
    def die(folder: Path) -> None:
        torch.manual_seed(0)
        training(folder, Doomed(step)).run()

    return die


def while_saving(folder: Path) -> None:
    """In the third state, of which half is on the disk; the log is already ahead of the second."""
    save, saved = torch.save, 0

    def half(state: object, path: Path) -> None:
        nonlocal saved
        save(state, path)
        saved += 1
        if saved == 3:
            os.truncate(path, path.stat().st_size // 2)
            kill()

    torch.save = half
    training(folder).run()


DEATHS = {
    "first-step": in_step(0),
    "before-a-state": in_step(1),
    "after-a-state": in_step(2),
    "between-epochs": in_step(PER_EPOCH),
    "amid-an-epoch": in_step(2 * PER_EPOCH + 1),
    "last-step": in_step(STEPS - 1),
    "while-saving": while_saving,
}


def die_each_way(root: Path) -> None:
    """Runs in a process of its own: a fork for every death, made before torch has threads."""
    engine.FLUSH_EVERY, engine.SAVE_EVERY_SECONDS = 2, 0.0
    training(root / "none")  # torch imports for seconds when its first optimizer is made: once for all
    for name, death in DEATHS.items():
        if child := os.fork():
            assert os.waitpid(child, 0)[1] == signal.SIGKILL, name
        else:
            death(root / name)
            os._exit(0)  # alive: the parent says so


@pytest.fixture(scope="module")
def corpses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each of `DEATHS`, as the kill left it."""
    root = tmp_path_factory.mktemp("corpses")
    program = f"from {__name__} import *; die_each_way(Path({str(root)!r}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return root


@pytest.mark.slow
@pytest.mark.parametrize("death", DEATHS)
def test_a_killed_training_ends_as_if_it_had_not_been(death: str, corpses: Path, tmp_path: Path) -> None:
    folder = corpses / death
    assert (folder / STATE).exists() == (death not in ("first-step", "before-a-state"))
    resumed, outcome = run(folder)
    whole, expected = run(tmp_path / "whole")
    assert_same_weights(resumed, whole)
    assert (folder / "log.csv").read_bytes() == (tmp_path / "whole" / "log.csv").read_bytes()
    assert [int(row["step"]) for row in log(folder)] == list(range(STEPS))
    assert (outcome.steps, outcome.loss, outcome.retrieval) == (STEPS, expected.loss, expected.retrieval)
    if death == "last-step":
        assert len(resumed.trained) == 1  # of 15: the rest was kept


# --- a loss that is no number ------------------------------------------------------------------------


class Poisoned(Tiny):
    """Spoils the step whose number is `poison`: in the loss itself, or in the gradient of a fine loss."""

    poison: int | None = PER_EPOCH + 1

    def __init__(self, *, in_gradient: bool) -> None:
        super().__init__()
        self.in_gradient = in_gradient

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        loss, terms = super().loss(batch)
        if len(self.trained) - 1 == self.poison:
            zero = 0 * self.image_head.bias.sum()
            loss = loss + (
                zero.sqrt() if self.in_gradient else zero / 0
            )  # the slope of sqrt at 0 is infinite
        return loss, terms


@pytest.mark.parametrize("in_gradient", [False, True], ids=["loss", "gradient"])
def test_a_step_that_is_not_finite_is_named_and_nothing_after_it_is_kept(
    tmp_path: Path, in_gradient: bool
) -> None:
    torch.manual_seed(0)
    model = Poisoned(in_gradient=in_gradient)
    with pytest.raises(TrainingDiverged) as caught:
        training(tmp_path / "cured", model).run()
    ids = model.trained[PER_EPOCH + 1].ids
    assert f"step {PER_EPOCH + 1} is not finite" in str(caught.value)
    assert ", ".join(ids) in str(caught.value)
    assert [int(row["step"]) for row in log(tmp_path / "cured")] == list(range(PER_EPOCH))
    cured, _ = run(tmp_path / "cured")
    assert len(cured.trained) == STEPS - PER_EPOCH
    assert_same_weights(cured, run(tmp_path / "whole")[0])


# --- what a step is ----------------------------------------------------------------------------------


def test_accumulation_is_the_mean_of_the_micro_batches_gradients(tmp_path: Path) -> None:
    profile = recipe(epochs=1, batch=24, accumulate=3, augmentation=())
    assert profile.recipe is not None
    torch.manual_seed(0)
    model, plain = Tiny(random=False), Tiny(random=False)
    plain.load_state_dict(model.state_dict())
    run(tmp_path, model=model, profile=profile)
    assert [len(batch.ids) for batch in model.trained] == [8, 8, 8]

    rate, decay = profile.recipe.learning_rate, profile.recipe.weight_decay
    optimizer = torch.optim.AdamW(plain.parameters(), lr=rate, weight_decay=decay)
    parts = [plain.train().loss(batch)[0] for batch in model.trained]
    torch.stack(parts).mean().backward()
    optimizer.step()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, msg=name)
    [row] = log(tmp_path)
    assert float(row["loss"]) == pytest.approx(sum(part.item() for part in parts) / 3)
    slopes = torch.cat([weight.grad.flatten() for weight in plain.parameters() if weight.grad is not None])
    assert float(row["gradient"]) == pytest.approx(slopes.square().sum().sqrt().item(), rel=1e-5)


def test_the_cosine_is_torch_s(tmp_path: Path) -> None:
    optimizer = torch.optim.AdamW([torch.zeros(1)], lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=STEPS)
    expected = []
    for _ in range(STEPS):
        expected.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    run(tmp_path)
    assert [float(row["learning_rate"]) for row in log(tmp_path)] == pytest.approx(expected)


def test_a_constant_rate_stays(tmp_path: Path) -> None:
    run(tmp_path, profile=recipe(epochs=1, schedule="constant"))
    assert {row["learning_rate"] for row in log(tmp_path)} == {"0.01"}


def test_the_log_holds_what_the_outcome_sums_up(tmp_path: Path) -> None:
    _, outcome = run(tmp_path)
    rows = log(tmp_path)
    assert {"loss", "match", "size"} <= rows[0].keys()
    for row in rows:
        assert float(row["loss"]) == pytest.approx(float(row["match"]) + float(row["size"]), rel=1e-5)
    last = [float(row["loss"]) for row in rows[-PER_EPOCH:]]
    assert outcome.loss["loss"] == pytest.approx(sum(last) / PER_EPOCH)
    assert outcome.loss["loss"] < float(rows[0]["loss"])  # it learns


# --- which rows ---------------------------------------------------------------------------------------


def test_an_epoch_sees_a_training_pair_at_most_once_and_never_a_held_out_one(tmp_path: Path) -> None:
    corpus = fakes.corpus(count=50)  # 40 for training: 13 batches of 3, one pair left over
    model, _ = run(tmp_path, corpus=corpus, profile=recipe(batch=3, epochs=4))
    train, held_out = ({corpus.ids[row] for row in rows} for rows in (corpus.train, corpus.validation))
    seen = [image for batch in model.trained for image in batch.ids]
    epochs = [seen[start : start + 39] for start in range(0, len(seen), 39)]
    assert len(epochs) == 4
    assert all(len(set(epoch)) == 39 for epoch in epochs)
    assert set(seen) == train  # a pair left over once is not left over always
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert set(model.compared) == held_out


def test_the_rows_of_a_batch_belong_together(tmp_path: Path) -> None:
    corpus = fakes.corpus()
    model, _ = run(tmp_path, corpus=corpus, profile=recipe(epochs=1, augmentation=()))
    texts = corpus.texts["findings"]
    for batch in model.trained:
        rows = [corpus.ids.index(image) for image in batch.ids]
        assert len(batch.views) == 2
        centre = torch.from_numpy(corpus.pixels[rows])[:, 1:9, 1:9] / 255
        torch.testing.assert_close(batch.views[0], ((centre - 0.5) / 0.25)[:, None].expand(-1, 3, -1, -1))
        assert torch.equal(batch.present["findings"], texts.present[rows])
        assert torch.equal(batch.text["findings"], texts.prepared[texts.row[rows]])


def test_the_views_of_a_pair_differ(tmp_path: Path) -> None:
    model, _ = run(tmp_path, profile=recipe(epochs=1))
    one, other = model.trained[0].views
    assert (one != other).flatten(1).any(dim=1).all()


def test_a_corpus_smaller_than_a_batch_is_one_batch(tmp_path: Path) -> None:
    model, outcome = run(tmp_path, profile=recipe(batch=1000))
    assert (outcome.steps, len(model.trained[0].ids)) == (5, 24)


# --- seeds --------------------------------------------------------------------------------------------


def test_the_seed_decides_everything(tmp_path: Path) -> None:
    one, again, other = (run(tmp_path / name, seed=seed)[0] for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert_same_weights(one, again)
    for name, value in one.named_parameters():
        assert not torch.equal(value, other.get_parameter(name)), name


def test_the_seed_of_the_draws_is_not_that_of_the_weights_alone(tmp_path: Path) -> None:
    start = Tiny().state_dict()
    models = []
    for seed in (1, 2):
        model = Tiny()
        model.load_state_dict(start)
        models.append(run(tmp_path / str(seed), model=model, seed=seed)[0])
    assert models[0].trained[0].ids != models[1].trained[0].ids
    assert not torch.equal(models[0].image_head.weight, models[1].image_head.weight)


# --- what an earlier run left behind ------------------------------------------------------------------


@pytest.fixture
def cut_off(tmp_path: Path) -> Path:
    """A training that ended in its eleventh step."""

    class Unplugged(Tiny):
        def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
            if len(self.trained) == 10:
                raise KeyboardInterrupt
            return super().loss(batch)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, model=Unplugged())
    return tmp_path


def test_half_a_line_of_the_log_is_taken_out(cut_off: Path) -> None:
    with (cut_off / "log.csv").open("a") as file:
        file.write("1")  # of step 10, whose line met a full disk: read as it stands, it is step 1 again
    run(cut_off)
    assert [int(row["step"]) for row in log(cut_off)] == list(range(STEPS))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "flipped bit": flip,
    "cut": lambda path: os.truncate(path, 1000),
    "empty": lambda path: path.write_bytes(b""),
    "another file": lambda path: path.write_bytes(b"step 7\n" * 100),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_broken_state_is_named_with_its_cure(cut_off: Path, damage: Callable[[Path], object]) -> None:
    damage(cut_off / STATE)
    with pytest.raises(CheckpointError) as caught:
        run(cut_off)
    assert str(cut_off / STATE) in str(caught.value)
    assert f"Delete {cut_off} to start over" in str(caught.value)


def test_the_state_of_another_network_is_refused(cut_off: Path) -> None:
    changed = Tiny()
    changed.image_head = torch.nn.Linear(8, 5)
    with pytest.raises(CheckpointError, match=r"(?s)state\.pt.*image_head.*to start over"):
        run(cut_off, model=changed)


# --- recall -------------------------------------------------------------------------------------------


def test_recall_by_hand() -> None:
    """Texts are directions in a plane, the second worded as the first; the pictures turn away from them."""
    degrees = torch.tensor([0.0, 0.0, 90.0, 180.0, 270.0, 45.0])
    turned = degrees + torch.tensor([1.0, -1.0, 46.0, 170.0, 0.0, 0.0])
    image, text = (
        torch.stack([(d * torch.pi / 180).cos(), (d * torch.pi / 180).sin()], 1) for d in (turned, degrees)
    )
    found = recall(3 * image, 5 * text)  # lengths do not count
    # pictures 1, 2, 5 and 6 lie next to their own text; the third is nearer to 180 degrees, then its own;
    # the fourth has all others before its own
    assert found["recall@1"] == pytest.approx(4 / 6)
    assert found["recall@5"] == pytest.approx(5 / 6)
    assert found["chance@1"] == pytest.approx((2 + 2 + 1 + 1 + 1 + 1) / 36)
    assert "recall@10" not in found  # ten of six would always hit


def test_many_alike_reports_are_all_right_answers() -> None:
    """More rows than the 25 from which torch computes distances less exactly."""
    kinds = torch.nn.functional.normalize(
        torch.randn(4, 64, generator=torch.Generator().manual_seed(0)), dim=1
    )
    text = kinds.repeat(10, 1)
    found = recall(text.roll(4, dims=0) * 0.3, text)  # another picture of the same words
    assert found["recall@1"] == 1
    assert found["chance@1"] == pytest.approx(0.25)


@pytest.mark.parametrize("copies", [1, 3])
def test_chance_is_that_of_a_random_order(copies: int) -> None:
    """Of V places for the copies of a report, k are looked at: hypergeometric."""
    text = torch.eye(8).repeat(copies, 1)
    found = recall(torch.randn(len(text), 8), text)
    for k in (k for k in (1, 5, 10) if k < len(text)):
        missed = math.comb(len(text) - copies, k) / math.comb(len(text), k)
        assert found[f"chance@{k}"] == pytest.approx(1 - missed, abs=1e-5)


def test_an_encoder_that_knows_nothing_is_at_chance() -> None:
    rng = torch.Generator().manual_seed(0)
    text = torch.randn(40, 16, generator=rng)
    found = [recall(torch.randn(40, 16, generator=rng), text) for _ in range(200)]
    for k in (1, 5, 10):
        mean = np.mean([item[f"recall@{k}"] for item in found])
        assert mean == pytest.approx(found[0][f"chance@{k}"], abs=0.03)
