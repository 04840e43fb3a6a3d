"""Several processes make the steps that one would make: same losses, same gradients, same weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness import registry
from harness.errors import UsageError
from harness.pretrain.team import Alone, Team
from tests.harness.pretrain import processes
from tests.harness.pretrain.loop import Contrasting, log, recipe, training
from tests.methods.batches import batch_of, without_dropout

# --- a whole training -------------------------------------------------------------------------------


WAYS: dict[str, dict[str, Any]] = {
    "gathered": {"gather": True},
    "gathered-micro-batches": {"gather": True, "accumulate": 2},
    "dealt": {"accumulate": 2},
    "clipped-and-stopped": {"gather": True, "clip": 0.5, "patience": 1, "schedule": "plateau"},
}


def trained(folder: Path, team: Alone, way: str) -> None:
    torch.manual_seed(0)
    profile = recipe(**WAYS[way])
    started = training(folder / way, Contrasting(), profile=profile, team=team)
    outcome = started.run()
    kept = {"model": started.model.state_dict(), "losses": started.losses, "loss": outcome.loss}
    torch.save({**kept, "steps": outcome.steps}, folder / f"{way}-{team.rank}.pt")


def train_each_way(folder: Path, team: Team) -> None:
    for way in WAYS:
        trained(folder, team, way)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What one process and what two have left."""
    one, two = (tmp_path_factory.mktemp(name) for name in ("one", "two"))
    for way in WAYS:
        trained(one, Alone(), way)
    processes.run(train_each_way, two)
    return one, two


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_two_processes_train_as_one(both: tuple[Path, Path], way: str) -> None:
    """Sums in another order: equal to 1e-5 in every step, to 1e-4 in the weights after fifteen."""
    alone, first = (torch.load(folder / f"{way}-0.pt") for folder in both)
    one, two = ([float(row["loss"]) for row in log(folder / way)] for folder in both)
    assert two == pytest.approx(one, rel=1e-5)
    assert first["steps"] == alone["steps"]
    running = () if WAYS[way].get("gather") else ("running", "tracked")  # of the first process's half
    for name, value in alone["model"].items():
        if not any(word in name for word in running):
            torch.testing.assert_close(first["model"][name], value, rtol=1e-4, atol=1e-5, msg=name)
    if not running:
        assert first["losses"] == pytest.approx(alone["losses"], rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_both_hold_the_same_weights_to_the_bit(both: tuple[Path, Path], way: str) -> None:
    first, second = (torch.load(both[1] / f"{way}-{rank}.pt") for rank in range(2))
    assert first["losses"] == second["losses"] and first["loss"] == second["loss"]
    for name, value in first["model"].items():
        if WAYS[way].get("gather") or "running" not in name:
            assert torch.equal(second["model"][name], value), name


def too_many(folder: Path, team: Team) -> None:
    with pytest.raises(UsageError) as refused:
        training(folder, team=team)
    (folder / f"refused-{team.rank}.txt").write_text(str(refused.value))


@pytest.mark.slow
def test_a_micro_batch_is_not_cut_unless_the_recipe_allows_it(tmp_path: Path) -> None:
    processes.run(too_many, tmp_path)
    for rank in range(2):
        said = (tmp_path / f"refused-{rank}.txt").read_text()
        assert "2 processes cannot share a step of 1 micro-batches" in said


# --- a step of every method ---------------------------------------------------------------------------

NAMES = [name for name, entry in registry.entries("methods").items() if not entry.error]
TRAINED = [name for name in NAMES if registry.method_card(name).profiles["demo"].recipe is not None]


def step_of(name: str, team: Alone) -> dict[str, Tensor]:
    """Loss, gradients and running statistics of one step on five pairs: shares of two and three."""
    profile = registry.method_card(name).profiles["demo"]
    assert profile.recipe is not None and profile.recipe.gather
    torch.manual_seed(0)
    model = registry.load("methods", name).build(profile, initialise=False)
    without_dropout(model).double()
    batch = batch_of(profile, model)
    views = tuple(view.double() for view in batch.views)
    text = {unit: rows.double() if rows.is_floating_point() else rows for unit, rows in batch.text.items()}
    study = torch.tensor([0, 1, 0, 2, 3])
    batch = batch._replace(views=views, text=text, study=study, spread=team.spread)
    loss_of = team.loss_of(model, profile.recipe)
    torch.manual_seed(0)
    loss, terms = loss_of(batch)
    loss.backward()
    slopes = {f"grad {key}": value.grad for key, value in model.named_parameters() if value.grad is not None}
    state = {key: value for key, value in model.state_dict().items() if "running" in key}
    return {"loss": loss.detach(), **terms, **slopes, **state}


def step_of_each(folder: Path, team: Team) -> None:
    torch.set_num_threads(1)
    for name in TRAINED:
        torch.save(step_of(name, team), folder / f"{name}-{team.rank}.pt")


@pytest.fixture(scope="module")
def shared_steps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("steps")
    processes.run(step_of_each, folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_every_method_makes_the_same_step_in_two_processes(name: str, shared_steps: Path) -> None:
    """In double precision, where sums in another order differ by 1e-13 of the largest gradient."""
    alone, shared = step_of(name, Alone()), torch.load(shared_steps / f"{name}-0.pt")
    assert shared.keys() == alone.keys()
    largest = max(float(value.abs().max()) for key, value in alone.items() if key.startswith("grad"))
    for key, value in alone.items():
        torch.testing.assert_close(shared[key], value, rtol=1e-9, atol=1e-11 * largest, msg=key)
