"""`pretrain` and `list checkpoints`, with a method and a corpus that are files of the user's."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import plan, registry, settings
from harness.pretrain import checkpoint
from harness.registry import Entry
from tests import fakes
from tests.harness.command import Ended, harness


def pretrain(folder: Path, *arguments: object) -> Ended:
    method, corpus = fakes.write_method(folder), fakes.write_dataset(folder)
    return harness("pretrain", "--method", method, "--corpus", corpus, *arguments)


def listed() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(harness("list", "checkpoints", "--json").out)
    return found


def test_a_checkpoint_is_made_shown_and_found_again(tmp_path: Path) -> None:
    first = pretrain(tmp_path)
    assert first.code == 0, first.err
    assert "no data root is configured: using a PHANTOM of toy" in first.err.splitlines()[0]
    [row] = listed()
    assert (row["method"], row["corpus"], row["corpus_kind"], row["error"]) == ("tiny", "toy", "phantom", "")
    assert first.out.startswith(f"{row['name']}: 10 steps")
    assert "recall@1" in first.out and "chance@1" in first.out
    assert f"--checkpoint {row['name']}" in first.err
    again = pretrain(tmp_path)
    assert again.out == first.out  # the seconds too: it is the one that was made before
    assert "pre-training" not in again.err
    assert "toy (phantom)" in harness("list", "checkpoints").out


def test_the_phantom_of_a_corpus_in_a_file_lies_in_the_cache(tmp_path: Path, home: Path) -> None:
    assert pretrain(tmp_path).code == 0
    left = {path.name for path in tmp_path.iterdir()} - {"__pycache__"}  # of the two files, where it is kept
    assert left == {"home", "tiny.py", "toy.py"}
    [phantom] = (home / "phantoms").iterdir()
    assert phantom.name.startswith("toy-")


@pytest.mark.slow
def test_a_broken_checkpoint_is_listed_with_its_reason(tmp_path: Path, home: Path) -> None:
    pretrain(tmp_path)
    pretrain(tmp_path, "--seed", 1)
    [whole, other] = listed()
    card = home / "checkpoints" / whole["name"] / "card.json"
    card.write_bytes(b"\xff")
    assert [row["name"] for row in listed()] == [other["name"], whole["name"]]
    assert f"{card}: file: Invalid JSON" in listed()[1]["error"]
    shown = harness("list", "checkpoints")
    assert shown.code == 0
    assert "cannot be used" in shown.out


def test_collapsed_embeddings_are_said_loudly_and_listed(tmp_path: Path) -> None:
    method = fakes.write_method(tmp_path)
    same = "lambda batch, pairs=model.pairs: [side * 0 + 1 for side in pairs(batch)]"
    method.write_text(
        method.read_text().replace(
            "return Tiny()", f"model = Tiny()\n    model.pairs = {same}\n    return model"
        )
    )
    made = harness("pretrain", "--method", method, "--corpus", fakes.write_dataset(tmp_path))
    assert made.code == 0, made.err
    for side in ("image", "text"):
        assert f"warning: {side} embeddings have collapsed to one direction" in made.err
    assert "health.svg" in made.err
    [row] = listed()
    assert len(row["warnings"]) == 2
    assert "collapsed" in harness("list", "checkpoints").out


# --- all of them, and as their authors' code ------------------------------------------------------------


def methods(folder: Path, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Puts files of the tiny method under these names where the project's own would be; `floor` has nothing
    to train, `broken` no card that could be read, others fail while they are built."""
    failures = {"refused": "raise CheckpointError('no weights')", "crashing": "1 / 0"}
    found = {}
    for name in names:
        card = fakes.CARD
        if name == "floor":
            card = replace(card, profiles={"demo": replace(fakes.PROFILE, text=None, recipe=None)})
        path = fakes.write_method(folder, card).rename(folder / f"{name}.py")
        path.write_text(
            "from harness.errors import CheckpointError\n"
            + path.read_text().replace("return Tiny()", f"{failures.get(name, '')}\n    return Tiny()")
        )
        found[name] = Entry(name, path, None, card)
        if name == "broken":
            found[name] = Entry(name, path, None, error=f"{path}: it has no CARD")
    others = registry.entries
    monkeypatch.setattr(registry, "entries", lambda group: found if group == "methods" else others(group))


def outcomes(ended: Ended) -> list[list[str]]:
    """Lines of the table at the end: method, outcome, and the rest."""
    _, _, table = ended.out.partition("checkpoint or reason")
    return [re.split(r" {2,}", line.strip()) for line in table.splitlines() if line.strip()]


def test_all_trains_what_can_be_trained_and_says_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods(tmp_path, monkeypatch, "first", "floor", "second")
    corpus = fakes.write_dataset(tmp_path)
    one = harness("pretrain", "--method", "first", "--corpus", corpus)
    both = harness("pretrain", "--method", "all", "--corpus", corpus)
    assert (one.code, both.code) == (0, 0), both.err
    made = {row["method"]: row["name"] for row in listed()}
    assert outcomes(both) == [["first", "was there", made["first"]], ["second", "done", made["second"]]]
    assert one.out.strip() in both.out


def test_a_method_that_fails_costs_none_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods(tmp_path, monkeypatch, "broken", "crashing", "refused", "tiny")
    ended = harness("pretrain", "--method", "all", "--corpus", fakes.write_dataset(tmp_path))
    assert ended.code == 1
    lines = {row[0]: row[1:] for row in outcomes(ended)}
    assert lines["broken"][0] == "failed" and "it has no CARD" in lines["broken"][1]
    assert lines["crashing"] == ["failed", "ZeroDivisionError: division by zero"]
    assert lines["refused"] == ["failed", "no weights"]
    assert lines["tiny"] == ["done", listed()[0]["name"]]
    assert "error: broken, crashing, refused failed. What is done is kept" in ended.err
    assert "Traceback" in ended.err and "1 / 0" in ended.err  # of the one that nobody foresaw


def test_official_is_a_family_of_its_own_that_run_never_takes_unasked(tmp_path: Path) -> None:
    assert pretrain(tmp_path, "--official").code == 0
    [row] = listed()
    assert row["name"].startswith("tiny-demo-official-")
    store, source = settings.load().checkpoints, str(tmp_path / "tiny.py")
    plain, official = (plan.method(source, "demo", official=on) for on in (False, True))
    for wanted, names in ((plain, []), (official, [row["name"]])):
        fitting = checkpoint.fitting(store, "tiny", 1, "demo", wanted.profile)
        assert [item.name for item in fitting] == names
    named = checkpoint.named(store, row["name"], method="tiny", version=1)
    assert named.card.profile == official.profile
    assert official.profile == replace(plain.profile, official=True)
