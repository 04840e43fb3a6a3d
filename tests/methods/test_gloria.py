"""GLoRIA against numbers from its released code and a plain loop over captions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.contracts import Profile
from harness.errors import UsageError
from methods import gloria
from methods.gloria import CARD, build, global_contrast, local_contrast
from tests.methods.batches import REPORTS, batch_of
from tests.methods.golden import series

DEMO = CARD.profiles["demo"]
OFFICIAL = replace(DEMO, official=True)


def looped(patches: Tensor, words: Tensor, counts: list[int]) -> tuple[Tensor, Tensor]:
    """The loss caption by caption, with the contexts that the method's own form never makes."""
    columns = []
    for caption, count in zip(words, counts, strict=True):
        word = caption[:count]  # [W, d]
        over_words = (patches @ word.T).softmax(dim=2)  # [B, P, W]
        attention = (4 * over_words).softmax(dim=1)
        contexts = attention.transpose(1, 2) @ patches  # [B, W, d]
        cosine = F.cosine_similarity(contexts, word.expand_as(contexts), dim=2)
        columns.append(10 * (5 * cosine).exp().sum(dim=1).log())
    scores = torch.stack(columns, dim=1)
    target = torch.arange(len(scores))
    return F.cross_entropy(scores, target), F.cross_entropy(scores.T, target)


def mask_of(counts: list[int], slots: int) -> Tensor:
    return torch.arange(slots) < torch.tensor(counts)[:, None]


def test_local_loss_equals_the_released_one() -> None:
    patches = series(4, 8, 3, 3, c=1).flatten(2).transpose(1, 2)
    words = series(4, 8, 7, c=2).transpose(1, 2)
    there, back = local_contrast(patches, words[mask_of([7, 3, 5, 4], 7)], [7, 3, 5, 4])
    assert there.item() == pytest.approx(8.377789, rel=1e-5)
    assert back.item() == pytest.approx(3.449852, rel=1e-5)


def test_global_loss_equals_the_released_one() -> None:
    there, back = global_contrast(series(4, 8, c=3), series(4, 8, c=4))
    assert there.item() == pytest.approx(1.226562, rel=1e-5)
    assert back.item() == pytest.approx(1.946068, rel=1e-5)


def test_local_loss_and_its_gradient_equal_those_of_a_loop_over_captions() -> None:
    generator = torch.Generator().manual_seed(0)
    counts = [6, 1, 9, 4, 2]
    patches = torch.randn(5, 12, 16, generator=generator, dtype=torch.float64, requires_grad=True)
    words = torch.randn(5, 9, 16, generator=generator, dtype=torch.float64, requires_grad=True)
    results = []
    for loss in (
        torch.stack(local_contrast(patches, words[mask_of(counts, 9)], counts)).sum(),
        torch.stack(looped(patches, words, counts)).sum(),
    ):
        results.append((loss, *torch.autograd.grad(loss, (patches, words))))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_gradients() -> None:
    patches = series(2, 4, 5, c=1).double().requires_grad_()
    words = series(4, 5, c=2).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda p, w: local_contrast(p, w, [3, 1]), (patches, words))


# --- the model ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return ["pneumothorax", "small left apical pneumothorax", "bibasilar subsegmental atelectasis ☃ seen"]


def test_words_are_those_between_cls_and_sep(texts: list[str]) -> None:
    model = build(DEMO).eval()
    with torch.inference_mode():
        found = model.encode_text(model.prepare_text([text.replace("☃", "q☃q") for text in texts]))
    assert found.mask is not None
    assert found.mask.sum(dim=1).tolist() == [1, 4, 6]


def test_the_sentence_is_the_mean_of_its_words_over_four_layers() -> None:
    model = build(DEMO).eval()
    prepared = model.prepare_text(["small left apical pneumothorax"])
    with torch.inference_mode():
        states = torch.stack(model.text(prepared[:, 0])[-4:]).sum(dim=0)[0]  # [T, W]
        found = model.encode_text(prepared).embedding[0]
    torch.testing.assert_close(F.normalize(found, dim=0), F.normalize(states.sum(0), dim=0))


def test_zero_shot_scores_are_the_global_cosine_and_the_best_word(texts: list[str]) -> None:
    torch.manual_seed(0)
    model = build(DEMO).eval()
    with torch.inference_mode():
        image = model.encode_image(torch.randn(40, 3, 80, 80))
        text = model.encode_text(model.prepare_text(texts))
        scores = model.similarity(image, text)
        assert image.local is not None and text.local is not None and text.mask is not None
        for column, (words, mask) in enumerate(zip(text.local, text.mask, strict=True)):
            word = words[mask]
            over_words = (image.local @ word.T).softmax(dim=2)
            contexts = (4 * over_words).softmax(dim=1).transpose(1, 2) @ image.local
            best = 5 * F.cosine_similarity(contexts, word.expand_as(contexts), dim=2).amax(dim=1)
            whole = F.cosine_similarity(image.embedding, text.embedding[column : column + 1])
            torch.testing.assert_close(scores[:, column], (whole + best) / 2, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_paper_profile_reads_361_regions_of_layer_3() -> None:
    paper = CARD.profiles["paper"]
    model = build(replace(paper, text=DEMO.text), initialise=False).eval()
    with torch.inference_mode():
        found = model.encode_image(torch.randn(1, 3, 224, 224))
    assert found.local is not None
    assert found.local.shape == (1, 361, 384)
    assert found.pyramid[16].shape == (1, 1024, 19, 19)
    assert found.pooled.shape == (1, 2048)


# --- official -----------------------------------------------------------------------------------------


def test_official_counts_a_prompt_s_characters_as_words() -> None:
    prompt = "left pleural effusion"
    model = build(OFFICIAL).eval()
    with torch.inference_mode():
        found = model.encode_text(model.prepare_text([prompt]))
    assert found.mask is not None and found.local is not None
    assert found.mask.sum().item() == len(prompt)
    assert found.local.shape[1] == 47  # all slots behind CLS
    assert found.local[0, 4:].eq(0).all()  # three words and SEP


def test_a_prompt_of_nothing_but_marks_has_no_words_either(texts: list[str]) -> None:
    """Cleaning leaves "é é" as a sentence of no letters, which is CLS and SEP."""
    model = build(OFFICIAL).eval()
    with torch.inference_mode(), pytest.raises(UsageError, match="no word in number 2"):
        model.encode_text(model.prepare_text([texts[1], "é é"]))


def test_official_prompts_end_with_the_slots() -> None:
    model = build(OFFICIAL).eval()
    with torch.inference_mode():
        found = model.encode_text(model.prepare_text(["severe left pleural effusion " * 4]))
    assert found.mask is not None and found.mask.all()


@pytest.mark.slow
@pytest.mark.parametrize(("profile", "words"), [(DEMO, 6), (OFFICIAL, 4)])
def test_official_hides_a_word_for_each_one_outside_the_vocabulary(
    profile: Profile, words: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def watched(patches: Tensor, words: Tensor, counts: list[int], *rest: Any) -> tuple[Tensor, Tensor]:
        seen.extend(counts)
        return local_contrast(patches, words, counts, *rest)

    monkeypatch.setattr(gloria, "local_contrast", watched)
    model = build(profile)
    batch = batch_of(profile, model, ["small left apical pneumothorax seen", *REPORTS])
    tokens = batch.text["impression"]
    tokens[0, :, 2:4] = model.text.tokenizer.unk_token_id
    model.loss(batch)
    assert seen[0] == words  # CLS among them


@pytest.mark.slow
def test_official_cleaning_cuts_decimals() -> None:
    text = ["There is a 2.5 cm mass."]
    kept, released = (build(profile).prepare_text(text) for profile in (DEMO, OFFICIAL))
    words = [
        build(DEMO).text.tokenizer.decode(rows[0, 1], skip_special_tokens=True) for rows in (kept, released)
    ]
    assert words == ["there is a 2. 5 cm mass", "there is a"]
