"""`pretrain` and `list checkpoints`, with a method and a corpus that are files of the user's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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
    assert {path.name for path in tmp_path.iterdir()} == {"home", "tiny.py", "toy.py"}
    [phantom] = (home / "phantoms").iterdir()
    assert phantom.name.startswith("toy-")


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
