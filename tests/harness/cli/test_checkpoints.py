"""`checkpoints import`, and what the other verbs make of an imported checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from harness import matrix, plan, settings
from harness.cli.app import app
from harness.errors import ImpossiblePairing
from harness.grid import Grid
from harness.pretrain import make
from tests import fakes

LAYOUTS = """
from dataclasses import replace
LAYOUTS = (
    Layout(
        "Tiny, image encoder",
        replace(CARD.profiles["demo"], text=None),
        markers=("encoder.0.weight",),
        renamed={"": ""},
        dropped={"head.*": "classes of another task"},
    ),
)
"""
DATASET = """
from harness.contracts import *
CARD = DatasetCard(
    "Toy", source="", licence="", citation="", folders=(), markers=(), variants=(),
    tasks=(Task(("zero-shot",), ("Edema",), "macro_auroc", 1, {"clean": Split("test", 0.1)}),),
)
def read(root): ...
def write_phantom(root, cohort, workers): ...
"""


@pytest.fixture
def method(tmp_path: Path) -> str:
    path = fakes.write_method(tmp_path)
    path.write_text(path.read_text() + LAYOUTS)
    return str(path)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def imported(tmp_path: Path, method: str) -> Result:
    weights = {**fakes.Tiny().state_dict(), "head.weight": torch.ones(1), "head.bias": torch.ones(1)}
    torch.save({"state_dict": weights}, tmp_path / "theirs.ckpt")
    return invoke(
        "checkpoints", "import", str(tmp_path / "theirs.ckpt"), "--method", method, "--as", "published"
    )


def test_what_was_taken_and_left_is_told(tmp_path: Path, method: str) -> None:
    done = imported(tmp_path, method)
    assert done.exit_code == 0, done.exception
    assert done.stdout.splitlines() == [
        "published: Tiny, image encoder, trained on mimic_cxr",
        "left behind, classes of another task: head.weight, head.bias (2)",
        "The image encoder alone: tasks that compare pictures with words will refuse it.",
    ]
    assert f"run --method {method} --task chexpert --checkpoint published" in done.stderr


def test_it_is_listed_with_the_file_it_came_from(tmp_path: Path, method: str) -> None:
    imported(tmp_path, method)
    [row] = json.loads(invoke("list", "checkpoints", "--json").stdout)
    assert (row["name"], row["method"], row["imported_from"]) == ("published", "tiny", "theirs.ckpt")
    assert "theirs.ckpt" in invoke("list", "checkpoints").stdout


def test_an_image_encoder_alone_is_refused_where_words_are_needed(tmp_path: Path, method: str) -> None:
    imported(tmp_path, method)
    (tmp_path / "toy.py").write_text(DATASET)
    task = f"{tmp_path / 'toy.py'}:zero-shot"
    done = invoke("run", "--method", method, "--task", task, "--checkpoint", "published")
    assert isinstance(done.exception, ImpossiblePairing)
    assert "toy:zero-shot compares pictures with words, and published has no text encoder" in str(
        done.exception
    )
    sweep = ["sweep", "--methods", method, "--tasks", task, "--checkpoints", "published", "--dry-run"]
    done = invoke(*sweep)
    assert "left out: published x toy:zero-shot: it compares pictures with words" in done.stderr
    assert "there is no such cell" in str(done.exception)


def test_a_size_beside_a_checkpoint_of_another_is_refused() -> None:
    """The checkpoint's was used, and nothing said so."""
    method = plan.method("random_init", "demo")
    name = make.untrained(method, settings.load(), seed=0).name
    asked = ["--profile", "paper"]
    for command in (
        ["run", "--method", "random_init", "--task", "chexpert", "--checkpoint", name, *asked],
        ["sweep", "--tasks", "chexpert", "--checkpoints", name, *asked],
    ):
        assert f"{name} is of the demo profile, not of paper" in str(invoke(*command).exception)


def test_the_file_of_a_named_checkpoint_s_method_is_asked_for(tmp_path: Path, method: str) -> None:
    imported(tmp_path, method)
    done = invoke("sweep", "--tasks", "chexpert", "--checkpoints", "published", "--dry-run")
    assert "published is of tiny, a file of somebody's own. Give it by --methods" in str(done.exception)


def test_a_sweep_of_named_checkpoints_is_of_their_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a checkpoint that is named would have all other methods trained."""
    method = plan.method("random_init", "demo")
    names = [make.untrained(method, settings.load(), seed=seed).name for seed in (0, 1)]
    asked: list[Grid] = []
    monkeypatch.setattr(matrix, "matrix", lambda wanted, *_: asked.append(wanted))
    invoke("sweep", "--tasks", "chexpert", "--checkpoints", ",".join(names), "--dry-run")
    assert {cell.method.name for cell in asked[0].cells} == {"random_init"}
