"""The store: what was saved comes back, and what is broken is said, listed, and never loaded."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import reduce
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from harness import weights
from harness.contracts import DataKind, ImageBackbone, Profile
from harness.errors import CheckpointError, UnknownName, UsageError, few
from harness.pretrain import checkpoint
from harness.pretrain.checkpoint import CARD, WEIGHTS, Broken, Checkpoint
from tests.fakes import PROFILE, Tiny

OPTIONS = replace(PROFILE, image=ImageBackbone("tiny", options={"channels": (8, 16), "act": "relu"}))


def stored(
    store: Path, name: str = "tiny-demo-1a2b3c4d-s0", model: nn.Module | None = None, **changes: Any
) -> Path:
    """A checkpoint as pre-training leaves it; `changes` are fields of its card."""
    card = {
        "written": datetime(2025, 1, 1, tzinfo=UTC),
        "method": "tiny",
        "method_version": 1,
        "profile_name": "demo",
        "profile": OPTIONS,
        "seed": 0,
        "corpus": "mimic_cxr",
        "corpus_kind": "phantom",
        "corpus_fingerprint": "f" * 64,
        "steps": 15,
        "loss": {"loss": 0.25},
        "retrieval": {"recall@1": 0.5},
        "seconds": 1.5,
        "images_per_second": 100.0,
        "device": "cpu",
        "commit": "",
        "dirty": False,
        "packages": {"torch": "2"},
    }
    checkpoint.save(store / name, (model or Tiny()).state_dict(), {**card, **changes})
    return store / name


def fitting(store: Path, profile: Profile = OPTIONS, **changes: Any) -> list[str]:
    wanted: dict[str, Any] = {"method": "tiny", "version": 1, "profile_name": "demo", **changes}
    return [item.name for item in checkpoint.fitting(store, profile=profile, **wanted)]


def names(store: Path) -> list[str]:
    return [item.folder.name for item in checkpoint.listing(store)]


# --- round trip ---------------------------------------------------------------------------------------


def test_weights_and_card_come_back(tmp_path: Path) -> None:
    model, other = Tiny(), Tiny()
    model.encoder(torch.randn(4, 3, 8, 8))  # moves the running means
    found = checkpoint.read(stored(tmp_path, model=model))
    checkpoint.load_weights(found, other)
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name
    assert (found.name, found.family) == ("tiny-demo-1a2b3c4d-s0", "tiny-demo-1a2b3c4d")
    assert (found.card.method, found.card.steps, found.card.loss) == ("tiny", 15, {"loss": 0.25})
    assert found.card.profile.preprocessing == OPTIONS.preprocessing
    assert found.card.profile.recipe == OPTIONS.recipe


def test_a_network_in_channels_last_is_stored_like_any_other(tmp_path: Path) -> None:
    model, other = Tiny(), Tiny()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    checkpoint.load_weights(checkpoint.read(stored(tmp_path, model=model)), other)
    assert torch.equal(model.encoder[0].weight, other.encoder[0].weight)


# --- broken -------------------------------------------------------------------------------------------


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


DAMAGED_WEIGHTS: dict[str, Callable[[Path], object]] = {
    "flipped bit": flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:200]),
    "empty": lambda path: path.write_bytes(b""),
    "missing": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGED_WEIGHTS.values(), ids=DAMAGED_WEIGHTS)
def test_broken_weights_are_named_with_their_cure(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    folder = stored(tmp_path)
    damage(folder / WEIGHTS)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load_weights(checkpoint.read(folder), Tiny())
    assert str(folder / WEIGHTS) in str(caught.value)
    assert f"Delete {folder} and pre-train again" in str(caught.value)


def test_weights_of_another_network_are_named_with_a_few_of_its_tensors(tmp_path: Path) -> None:
    """Weights and card belong together, and neither to the method."""
    folder = stored(tmp_path, model=nn.Linear(2, 2))
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load_weights(checkpoint.read(folder), Tiny())
    known = sorted({"weight", "bias"} | Tiny().state_dict().keys())
    assert f"{folder / WEIGHTS} is of another network" in str(caught.value)
    assert f"in {few(known)}. Raise the version of its card, or delete {folder}" in str(caught.value)


def test_tensors_differ_by_name_shape_or_value() -> None:
    one = {"a": torch.zeros(2), "b": torch.zeros(3), "c": torch.zeros(1), "d": torch.zeros(1)}
    other = {"a": torch.zeros(2), "b": torch.zeros(3, 1), "c": torch.ones(1), "e": torch.zeros(1)}
    assert checkpoint.differing(one, other) == ["b", "c", "d", "e"]
    assert checkpoint.differing(one, other, values=False) == ["b", "d", "e"]
    drawn = {"a": torch.randn(99), "b": torch.full((1,), torch.nan), "c": torch.tensor(3)}
    elsewhere = {**drawn, "a": drawn["a"] + 3e-7}  # as the same seed draws on another kind of processor
    assert checkpoint.differing(drawn, elsewhere) == []


DAMAGED_CARD: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: path.unlink(), "is missing"),
    "cut": (lambda path: path.write_text(path.read_text()[:50]), "Invalid JSON"),
    "not text": (lambda path: path.write_bytes(b"\xff\xfe\x00"), "Invalid JSON"),
    "other schema": (
        lambda path: path.write_text(path.read_text().replace("steps", "stairs")),
        "steps: Field",
    ),
    "NaN": (
        lambda path: path.write_text(path.read_text().replace('"loss": 0.25', '"loss": NaN')),
        "loss.loss",
    ),
    "no weights": (lambda path: path.with_name(WEIGHTS).unlink(), r"weights\.safetensors is missing"),
}


@pytest.mark.parametrize(("damage", "reason"), DAMAGED_CARD.values(), ids=DAMAGED_CARD)
def test_a_broken_folder_is_listed_with_its_reason_and_never_chosen(
    tmp_path: Path, damage: Callable[[Path], object], reason: str
) -> None:
    good, bad = stored(tmp_path), stored(tmp_path, "tiny-demo-1a2b3c4d-s1", seed=1)
    damage(bad / CARD)
    first, second = checkpoint.listing(tmp_path)
    assert isinstance(first, Checkpoint) and first.folder == good
    assert isinstance(second, Broken) and second.folder == bad
    assert fitting(tmp_path) == [good.name]
    with pytest.raises(CheckpointError, match=rf"{reason}.*Delete .*-s1 and pre-train again"):
        checkpoint.named(tmp_path, bad.name, method="tiny", version=1)


@pytest.mark.parametrize("place", ["", "profile", "profile.image", "profile.recipe"])
def test_a_card_with_later_fields_is_of_another_version(tmp_path: Path, place: str) -> None:
    path = stored(tmp_path) / CARD
    card = json.loads(path.read_text())
    inner = reduce(dict.__getitem__, place.split(".") if place else [], card)
    inner["colour"] = "red"
    path.write_text(json.dumps(card))
    with pytest.raises(CheckpointError, match=r"colour: of another version .* Update this one") as refused:
        checkpoint.read(path.parent)
    assert "elete" not in str(refused.value)


def test_a_card_of_a_later_schema_is_of_another_version(tmp_path: Path) -> None:
    path = stored(tmp_path) / CARD
    path.write_text(path.read_text().replace('"schema_version": 1', '"schema_version": 2'))
    with pytest.raises(CheckpointError, match=r"schema_version: of another version .* Update this one"):
        checkpoint.read(path.parent)


def test_a_folder_of_another_user_is_listed_and_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, closed = stored(tmp_path), stored(tmp_path, "tiny-demo-1a2b3c4d-s1", seed=1)
    read = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        if path.parent == closed:
            raise PermissionError(errno.EACCES, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    first, second = checkpoint.listing(tmp_path)
    assert isinstance(first, Checkpoint) and first.folder == good
    assert isinstance(second, Broken) and "Permission denied. Let its owner open it" in second.reason


# --- choosing -----------------------------------------------------------------------------------------


def test_the_newest_comes_first_and_unfinished_ones_not_at_all(tmp_path: Path) -> None:
    stored(tmp_path, "old", written=datetime(2024, 1, 1, tzinfo=UTC))
    stored(tmp_path, "new", written=datetime(2026, 1, 1, tzinfo=UTC))
    stored(tmp_path, "middle")
    stored(tmp_path, ".half.training")
    (tmp_path / "notes.txt").write_text("not a folder")
    assert names(tmp_path) == ["new", "middle", "old"]
    assert fitting(tmp_path) == ["new", "middle", "old"]


def test_a_cell_has_the_checkpoint_of_its_seed_or_a_trained_one_of_the_lowest(tmp_path: Path) -> None:
    for seed, year in ((0, 2024), (1, 2026), (2, 2025)):
        stored(tmp_path, f"s{seed}", seed=seed, written=datetime(year, 1, 1, tzinfo=UTC))
    settings: Any = SimpleNamespace(checkpoints=tmp_path)
    trained: Any = SimpleNamespace(
        name="tiny", card=SimpleNamespace(version=1), profile_name="demo", profile=OPTIONS
    )

    def chosen(method: Any, seed: int) -> str | None:
        found = weights.fitting(method, settings, seed, "phantom")
        return found and found.name

    assert [chosen(trained, seed) for seed in range(4)] == ["s0", "s1", "s2", "s0"]
    untrained = SimpleNamespace(**{**vars(trained), "profile": replace(OPTIONS, recipe=None)})
    stored(tmp_path, "floor-s0", profile=untrained.profile)
    assert [chosen(untrained, seed) for seed in range(2)] == ["floor-s0", None]


def test_a_seed_does_not_choose_between_corpora(tmp_path: Path) -> None:
    """Else whoever tries another corpus with seed 0 would move every later cell of seed 0, and no other."""
    settings: Any = SimpleNamespace(checkpoints=tmp_path)
    method: Any = SimpleNamespace(
        name="tiny", card=SimpleNamespace(version=1), profile_name="demo", profile=OPTIONS
    )
    stored(tmp_path, "a-s0", seed=0, corpus="mimic_cxr", corpus_fingerprint="a" * 64)
    stored(tmp_path, "b-s0", seed=0, corpus="openi", corpus_fingerprint="b" * 64)
    with pytest.raises(UsageError, match=r"several corpora: a-s0 \(mimic_cxr, .*b-s0 \(openi"):
        weights.fitting(method, settings, 0, "phantom")


def test_for_real_data_a_phantom_s_checkpoint_is_the_last_choice_and_none_for_a_paper(tmp_path: Path) -> None:
    settings: Any = SimpleNamespace(checkpoints=tmp_path)

    def chosen(profile: str, seed: int, data: DataKind = "real") -> str | None:
        method: Any = SimpleNamespace(
            name="tiny", card=SimpleNamespace(version=1), profile_name=profile, profile=OPTIONS
        )
        found = weights.fitting(method, settings, seed, data)
        return found and found.name

    for profile in ("demo", "paper"):
        stored(tmp_path, f"{profile}-phantom-s1", seed=1, profile_name=profile, corpus_kind="phantom")
    assert chosen("demo", 1) == "demo-phantom-s1" and chosen("paper", 1) is None
    for profile in ("demo", "paper"):
        stored(tmp_path, f"{profile}-real-s0", seed=0, profile_name=profile, corpus_kind="real")
        assert chosen(profile, 1) == f"{profile}-real-s0"
    assert chosen("paper", 1, "phantom") == "paper-phantom-s1"


def test_an_empty_store_is_no_error(tmp_path: Path) -> None:
    assert names(tmp_path / "nowhere") == []


def test_what_another_recipe_version_or_method_made_does_not_fit(tmp_path: Path) -> None:
    assert OPTIONS.recipe is not None
    stored(tmp_path)
    assert fitting(tmp_path) == ["tiny-demo-1a2b3c4d-s0"]  # although JSON has no tuples
    assert fitting(tmp_path, version=2) == []
    assert fitting(tmp_path, method="other") == []
    assert fitting(tmp_path, profile_name="paper") == []
    assert fitting(tmp_path, replace(OPTIONS, recipe=replace(OPTIONS.recipe, epochs=6))) == []
    assert (
        fitting(tmp_path, replace(OPTIONS, image=ImageBackbone("tiny", options={"channels": (8, 17)}))) == []
    )


def test_the_name_tells_apart_what_differs() -> None:
    def name(**changes: Any) -> str:
        given: dict[str, Any] = {"method": "tiny", "version": 1, "profile_name": "demo", "profile": OPTIONS}
        return checkpoint.name_of(**{**given, "corpus": "f" * 64, "seed": 0, **changes})

    others = [
        name(version=2),
        name(profile_name="paper"),
        name(profile=PROFILE),
        name(corpus="e" * 64),
        name(corpus=None),
        name(seed=1),
    ]
    assert len({name(), *others}) == 7
    assert name().rpartition("-s")[0] == name(seed=1).rpartition("-s")[0]  # one family


def test_a_misspelt_name_is_answered_with_the_nearest(tmp_path: Path) -> None:
    folder = stored(tmp_path)
    assert checkpoint.named(tmp_path, folder.name, method="tiny", version=1).folder == folder
    with pytest.raises(UnknownName, match="Did you mean 'tiny-demo-1a2b3c4d-s0'"):
        checkpoint.named(tmp_path, "tiny-demo-1a2b3c4d-s9", method="tiny", version=1)


def test_a_profile_that_is_asked_for_is_that_of_the_checkpoint(tmp_path: Path) -> None:
    folder = stored(tmp_path)
    assert checkpoint.named(tmp_path, folder.name, method="tiny", version=1, profile="demo").folder == folder
    with pytest.raises(UsageError, match=r"is of the demo profile, not of paper\. Leave --profile out"):
        checkpoint.named(tmp_path, folder.name, method="tiny", version=1, profile="paper")


@pytest.mark.parametrize(("method", "version"), [("other", 1), ("tiny", 2)])
def test_another_method_s_checkpoint_is_refused(tmp_path: Path, method: str, version: int) -> None:
    name = stored(tmp_path).name
    with pytest.raises(UsageError, match=f"is of tiny, version 1, not of {method}, version {version}"):
        checkpoint.named(tmp_path, name, method=method, version=version)
