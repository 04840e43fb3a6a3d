"""MGCA against numbers from its released code, a walk over tokens as it was released, and closed forms."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from methods import _mgca, mgca, mgca_vit
from methods._mgca import Mgca, clipped, codes, pair_alignment, prototype_alignment, token_alignment
from tests.methods.batches import REPORTS, batch_of, taken, without_dropout
from tests.methods.golden import series

DEMO = mgca.CARD.profiles["demo"]
OFFICIAL = replace(DEMO, official=True)
COUNTS = torch.tensor([9, 6, 4, 8, 5, 7])
KNOWN = torch.arange(9) < COUNTS[:, None]


def unit(x: Tensor) -> Tensor:
    return F.normalize(x, dim=-1)


IMAGE, REPORT = unit(series(6, 16, c=1)), unit(series(6, 16, c=3))
PATCHES, WORDS = unit(series(6, 25, 16, c=2)), unit(series(6, 9, 16, c=4))
WORD_WEIGHTS = (series(6, 9, c=5).abs() + 0.05) * KNOWN


# --- the losses -----------------------------------------------------------------------------------


def test_pairs_equal_the_released_loss() -> None:
    assert pair_alignment(IMAGE, REPORT).item() == pytest.approx(23.665377, rel=1e-5)


def test_tokens_equal_the_released_loss_on_a_resnet() -> None:
    from_words = token_alignment(WORDS, PATCHES, clipped(WORD_WEIGHTS))
    from_regions = token_alignment(PATCHES, WORDS, torch.full((6, 25), 1 / 25), key_mask=KNOWN)
    assert (from_words + from_regions).item() == pytest.approx(4.088204, rel=1e-5)


def test_tokens_equal_the_released_loss_on_a_transformer() -> None:
    attention = (3 * series(6, 3, 26, 26, c=7)).softmax(dim=-1)[:, :, 0, 1:].mean(dim=1)
    from_words = token_alignment(WORDS, PATCHES, clipped(WORD_WEIGHTS))
    from_regions = token_alignment(PATCHES, WORDS, clipped(attention), key_mask=KNOWN, normalise=False)
    assert (from_words + from_regions).item() == pytest.approx(3.392787, rel=1e-5)


def test_prototypes_equal_the_released_loss() -> None:
    loss = prototype_alignment(IMAGE, REPORT, unit(series(10, 16, c=6)))
    assert loss.item() == pytest.approx(3.703627, rel=1e-5)


def test_equal_weights_stay_as_they_are() -> None:
    torch.testing.assert_close(clipped(torch.full((2, 25), 1 / 25)), torch.full((2, 25), 1 / 25))


def test_clipping_equals_a_loop_over_rows() -> None:
    for row, found in zip(WORD_WEIGHTS, clipped(WORD_WEIGHTS), strict=True):
        known = row[row != 0]
        inside = known.clip(torch.quantile(known, 0.1), torch.quantile(known, 0.9))
        torch.testing.assert_close(found[row != 0], inside / inside.sum())
        assert found[row == 0].eq(0).all()


def test_codes_equal_the_released_iteration_in_double_precision() -> None:
    scores = series(6, 10, c=1).double()
    q = torch.exp(scores / 0.05).T  # [K, B]
    q = q / q.sum()
    for _ in range(3):
        q = q / q.sum(dim=1, keepdim=True) / 10
        q = q / q.sum(dim=0, keepdim=True) / 6
    torch.testing.assert_close(codes(scores), (q * 6).T)


def test_codes_do_not_overflow_where_the_released_ones_would() -> None:
    found = codes(torch.full((4, 10), 100.0))
    torch.testing.assert_close(found, torch.full((4, 10), 0.1))


def test_masked_words_are_no_part_of_the_alignment() -> None:
    noise = WORDS.masked_fill(~KNOWN[..., None], 9.0)
    weights = clipped(WORD_WEIGHTS)
    for words in (WORDS, noise):
        loss = token_alignment(words, PATCHES, weights, query_mask=KNOWN)
        alone = [
            token_alignment(WORDS[i : i + 1, :n], PATCHES[i : i + 1], weights[i : i + 1, :n])
            for i, n in enumerate(COUNTS.tolist())
        ]
        torch.testing.assert_close(loss, torch.stack(alone).mean())
    masked = token_alignment(PATCHES, noise, torch.full((6, 25), 1 / 25), key_mask=KNOWN)
    torch.testing.assert_close(
        masked, token_alignment(PATCHES, WORDS, torch.full((6, 25), 1 / 25), key_mask=KNOWN)
    )


def test_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = (unit(series(2, 4, c=c).double()).requires_grad_() for c in (1, 2))
    tokens, keys = (unit(series(2, 3, 4, c=c).double()).requires_grad_() for c in (3, 4))
    weights, mask = torch.full((2, 3), 1 / 3).double(), torch.tensor([[True, True, False], [True] * 3])
    assert torch.autograd.gradcheck(pair_alignment, (x, y))
    for normalise in (True, False):
        options: dict[str, Any] = {"query_mask": mask, "key_mask": mask, "normalise": normalise}
        assert torch.autograd.gradcheck(
            lambda q, k, options=options: token_alignment(q, k, weights, **options), (tokens, keys)
        )
    prototypes = unit(series(5, 4, c=6).double()).requires_grad_()
    fixed = codes(series(2, 5, c=7).double())
    monkeypatch.setattr(_mgca, "codes", lambda scores: fixed)  # constants by definition
    assert torch.autograd.gradcheck(prototype_alignment, (x, y, prototypes))


# --- from tokens to words ---------------------------------------------------------------------------


def released_words(
    states: Tensor, attention: Tensor, pieces: list[str], slots: int
) -> tuple[list[Tensor], list[Tensor]]:
    """Words and their weights of one text as the released code walks over `slots` tokens; CLS left out.

    Attention without CLS's is zipped with tokens with CLS: the last token is never reached.
    """
    words: list[Tensor] = []
    weights: list[Tensor] = []
    open_word: list[tuple[Tensor, Tensor]] = []
    for state, piece, weight in zip(states[:slots], pieces[:slots], attention[1:slots], strict=False):
        if open_word and (piece == "[SEP]" or not piece.startswith("##")):
            words.append(torch.stack([part for part, _ in open_word]).sum(dim=0))
            weights.append(torch.stack([part for _, part in open_word]).sum())
            open_word = []
        if piece == "[SEP]":
            words.append(state)
            weights.append(weight)
            break
        open_word.append((state, weight))
    return words[1:], weights[1:]


def test_official_words_and_weights_equal_the_released_walk() -> None:
    profile = replace(OFFICIAL, text=replace(DEMO.text, max_length=16))  # type: ignore[type-var]
    model = mgca.build(profile).eval()
    texts = ["small left apical pneumothorax", "bibasilar atelectasis and hydropneumothorax " * 4]
    tokens = model.prepare_text(texts)
    assert tokens.shape == (2, 16) and (tokens[1] != 0).all()
    with torch.inference_mode():
        states = model.text(tokens)
        attention = model.text.first_token_attention(states, tokens)
        words, weights, mask = model._words(states, tokens)
    assert words.shape[1] == 15
    for row, ids in enumerate(tokens):
        pieces = model.text.tokenizer.convert_ids_to_tokens(ids.tolist())
        expected, expected_weights = released_words(states[-1][row], attention[row], pieces, 16)
        count = len(expected)
        assert mask[row].sum() == count
        torch.testing.assert_close(words[row, :count], torch.stack(expected))
        torch.testing.assert_close(weights[row, :count], torch.stack(expected_weights))
        assert words[row, count:].eq(0).all() and weights[row, count:].eq(0).all()
    assert weights[0, 4] == 0  # SEP has a pad's


def test_words_get_their_own_attention_and_sep_none() -> None:
    model = mgca.build(DEMO).eval()
    tokens = model.prepare_text(["bibasilar atelectasis", "no effusion"])
    with torch.inference_mode():
        states = model.text(tokens)
        attention = model.text.first_token_attention(states, tokens)
        _, weights, mask = model._words(states, tokens)
    for row, ids in enumerate(tokens):
        pieces = model.text.tokenizer.convert_ids_to_tokens(ids.tolist())
        starts = [i for i, piece in enumerate(pieces) if not piece.startswith("##") and piece != "[PAD]"]
        assert mask[row].sum() == len(starts) - 1
        for word, (start, end) in enumerate(pairwise(starts[1:])):
            torch.testing.assert_close(weights[row, word], attention[row, start:end].sum())
        assert weights[row, len(starts) - 2 :].eq(0).all()


# --- the model --------------------------------------------------------------------------------------


def losses(profile: Any, build: Any = mgca.build, **changes: Any) -> dict[str, float]:
    torch.manual_seed(0)
    model = build(profile)
    without_dropout(model)
    batch = batch_of(profile, model)._replace(**changes)
    return {name: value.item() for name, value in model.loss(batch)[1].items()}


@pytest.mark.slow
def test_the_terms_differ_only_where_official_says() -> None:
    fixed, official = losses(DEMO), losses(OFFICIAL)
    assert all(abs(fixed[name] - official[name]) > 1e-4 for name in fixed)  # positions move every term
    zero = replace(DEMO, text=replace(DEMO.text, positions="zero"))  # type: ignore[type-var]
    blind = losses(zero)
    assert blind["pairs"] == pytest.approx(official["pairs"], rel=1e-5)
    assert blind["prototypes"] == pytest.approx(official["prototypes"], rel=1e-5)
    assert abs(blind["tokens"] - official["tokens"]) > 1e-2


@pytest.mark.slow
def test_official_pads_enter_the_head_s_batch_norm() -> None:
    for profile, company in ((DEMO, False), (OFFICIAL, True)):
        model = mgca.build(profile)
        without_dropout(model)
        seen: list[int] = []
        model.word_head.register_forward_pre_hook(
            lambda module, args, seen=seen: seen.append(args[0].eq(0).all(dim=1).sum().item())
        )
        model.encode_text(model.prepare_text(REPORTS))
        assert (seen[0] > 0) == company


@pytest.mark.slow
def test_official_transformer_leaves_what_regions_attend_to_at_its_length(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    normalised = []

    def watched(*args: Any, **kwargs: Any) -> Tensor:
        normalised.append(kwargs.get("normalise", True))
        return token_alignment(*args, **kwargs)

    monkeypatch.setattr(_mgca, "token_alignment", watched)
    for module in (mgca, mgca_vit):
        for official in (False, True):
            losses(replace(module.CARD.profiles["demo"], official=official), module.build)
    assert normalised == [True] * 7 + [False]


def test_official_text_is_blind_to_the_order_of_words() -> None:
    orders = ["left effusion and right pneumothorax", "right effusion and left pneumothorax"]
    distance = {}
    for profile in (DEMO, OFFICIAL):
        model = mgca.build(profile).eval()
        with torch.inference_mode():
            one, other = model.encode_text(model.prepare_text(orders)).embedding
        distance[profile.official] = (one - other).norm() / one.norm()
    assert distance[True] < 1e-4 < distance[False]


def test_longer_company_does_not_change_a_report_s_alignment() -> None:
    torch.manual_seed(0)
    model = mgca.build(DEMO).eval()
    short = [f"no {side} pleural effusion" for side in ("left", "right")]
    long = [f"there is no effusion in the {side} lung or below it" for side in ("left", "right")]
    batch = batch_of(DEMO, model, [*short, *long])
    lengths = (batch.text["impression+findings"] != 0).sum(dim=1).tolist()
    assert lengths[0] == lengths[1] < lengths[2] == lengths[3]  # neither pair is padded on its own
    together = model.loss(batch)[1]["tokens"]
    apart = [model.loss(taken(batch, rows))[1]["tokens"] for rows in ([0, 1], [2, 3])]
    torch.testing.assert_close(together, torch.stack(apart).mean(), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("epoch", [0, 1])
def test_prototypes_are_held_during_the_first_epoch(epoch: int) -> None:
    model = mgca.build(DEMO).train()
    model.loss(batch_of(DEMO, model, epoch=epoch))[0].backward()
    assert (model.prototypes.weight.grad is not None) == bool(epoch)
    torch.testing.assert_close(model.prototypes.weight.norm(dim=1), torch.ones(500))


def test_a_single_pair_is_not_trained_on() -> None:
    model = mgca.build(DEMO).train()
    batch = batch_of(DEMO, model, REPORTS[:1])
    loss, terms = model.loss(batch)
    assert loss.item() == 0 and terms.keys() == {"pairs", "tokens", "prototypes"}


@pytest.mark.slow
def test_paper_sizes() -> None:
    assert DEMO.text is not None
    resnet = mgca.build(replace(mgca.CARD.profiles["paper"], text=DEMO.text), initialise=False).eval()
    transformer = mgca_vit.build(replace(mgca_vit.CARD.profiles["paper"], text=DEMO.text), initialise=False)
    for model, pooled, patches in ((resnet, 2048, 361), (transformer.eval(), 768, 196)):
        assert isinstance(model, Mgca)
        with torch.inference_mode():
            found = model.encode_image(torch.randn(1, 3, 224, 224))
        assert found.local is not None and found.embedding is not None
        assert found.pooled.shape == (1, pooled)
        assert found.local.shape == (1, patches, 128)
        assert found.embedding.shape == (1, 128)
