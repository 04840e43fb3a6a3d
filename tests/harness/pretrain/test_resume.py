"""Killed anywhere, spoilt or damaged on the disk: a training ends in the same bits, or says why it cannot."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.contracts import Batch
from harness.errors import CheckpointError, TrainingDiverged
from harness.files import seal
from harness.pretrain import engine, state
from harness.pretrain.state import STATE
from tests.fakes import Tiny
from tests.harness.pretrain.loop import PER_EPOCH, STEPS, assert_same_weights, log, run, training

pytestmark = pytest.mark.usefixtures("often")


# --- kill -9 -----------------------------------------------------------------------------------------


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Killed(Tiny):
    """In the forward pass of a step."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.left = step

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        if self.training:
            if self.left == 0:
                kill()
            self.left -= 1
        return super().loss(batch)


def in_step(step: int) -> Callable[[Path], None]:
    def start(folder: Path) -> None:
        torch.manual_seed(0)
        training(folder, Killed(step)).run()

    return start


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


KILLS = {
    "first-step": in_step(0),
    "before-a-state": in_step(1),
    "after-a-state": in_step(2),
    "between-epochs": in_step(PER_EPOCH),
    "amid-an-epoch": in_step(2 * PER_EPOCH + 1),
    "last-step": in_step(STEPS - 1),
    "while-saving": while_saving,
}


def be_killed_each_way(root: Path) -> None:
    """Runs in a process of its own: a fork for each, made before torch has threads."""
    engine.FLUSH_EVERY, engine.SAVE_EVERY_SECONDS, engine.SAVE_SHARE = 2, 0.0, 1e9
    training(root / "none")  # torch imports for seconds when its first optimizer is made: once for all
    for name, start in KILLS.items():
        if child := os.fork():
            assert os.waitpid(child, 0)[1] == signal.SIGKILL, name
        else:
            start(root / name)
            os._exit(0)  # still alive: the parent says so


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each of `KILLS`, as it was left."""
    root = tmp_path_factory.mktemp("killed")
    program = f"from {__name__} import *; be_killed_each_way(Path({str(root)!r}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return root


@pytest.mark.slow
@pytest.mark.parametrize("when", KILLS)
def test_a_killed_training_ends_as_if_it_had_not_been(when: str, killed: Path, tmp_path: Path) -> None:
    folder = killed / when
    assert (folder / STATE).exists() == (when not in ("first-step", "before-a-state"))
    resumed, outcome = run(folder)
    whole, expected = run(tmp_path / "whole")
    assert_same_weights(resumed, whole)
    assert (folder / "log.csv").read_bytes() == (tmp_path / "whole" / "log.csv").read_bytes()
    assert [int(row["step"]) for row in log(folder)] == list(range(STEPS))
    assert (outcome.steps, outcome.loss, outcome.retrieval) == (STEPS, expected.loss, expected.retrieval)
    if when == "last-step":
        assert len(resumed.trained) == 1  # of 15: the rest was kept


def test_a_state_counts_on_no_line_that_a_loss_of_power_would_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synced: list[tuple[int, int]]
) -> None:
    save, sizes = state.save, []

    def saving(*arguments: Any) -> None:
        for name in ("log.csv", "validation.csv"):
            found = (tmp_path / name).stat()
            sizes.append((dict(synced)[found.st_ino], found.st_size))
        save(*arguments)

    monkeypatch.setattr(state, "save", saving)
    run(tmp_path)
    assert sizes and all(kept == written for kept, written in sizes)


# --- a loss that is no number ------------------------------------------------------------------------


class Poisoned(Tiny):
    """Spoils the step whose number is `poison`: in the loss itself, or in the gradient of a fine loss."""

    poison: int | None = PER_EPOCH + 1

    def __init__(self, *, in_gradient: bool) -> None:
        super().__init__()
        self.in_gradient = in_gradient

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        loss, terms = super().loss(batch)
        if self.training and len(self.trained) - 1 == self.poison:
            zero = 0 * self.image_head.bias.sum()
            loss = loss + (zero.sqrt() if self.in_gradient else zero / 0)  # sqrt is infinitely steep at 0
        return loss, terms


@pytest.mark.slow
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


def test_a_training_goes_on_only_with_texts_that_are_read_as_before(tmp_path: Path) -> None:
    with pytest.raises(TrainingDiverged):
        training(tmp_path, Poisoned(in_gradient=False), text_sample=(101.0, 7.0)).run()
    with pytest.raises(CheckpointError, match=f"{tmp_path} began with texts that were read otherwise"):
        training(tmp_path, text_sample=(101.0, 8.0)).run()
    assert training(tmp_path, text_sample=(101.0, 7.0)).run().steps == STEPS


def test_a_validation_loss_that_is_not_finite_ends_it(tmp_path: Path) -> None:
    """Instead of counting as the best for ever, since no later one is lower."""

    class Unseen(Tiny):
        def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
            loss, terms = super().loss(batch)
            return (loss if self.training else loss / 0), terms

        def pairs(self, batch: Batch) -> tuple[Tensor, Tensor]:
            image, text = super().pairs(batch)
            return image / 0, text / 0  # of which no singular values can be had

    with pytest.raises(TrainingDiverged, match=f"validation loss after step {PER_EPOCH - 1} is not finite"):
        training(tmp_path, Unseen()).run()


# --- what an earlier run left behind -----------------------------------------------------------------


@pytest.fixture
def cut_off(tmp_path: Path) -> Path:
    """A training that ended in its eleventh step."""

    class Unplugged(Tiny):
        def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
            if self.training and len(self.trained) == 10:
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


def test_a_state_that_does_not_say_whether_its_code_was_dirty_is_gone_on_with(cut_off: Path) -> None:
    """As an earlier version wrote it."""
    kept = torch.load(cut_off / STATE)
    del kept["dirty"]
    torch.save(kept, cut_off / STATE)
    seal(cut_off / STATE)
    resumed = training(cut_off)
    resumed.run()
    assert len(resumed.model.trained) == STEPS - kept["done"]
    assert resumed.dirty


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


@pytest.mark.slow
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
