"""ConVIRT against the value of a released loss and its formula, and what `official` brings back."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from methods.convirt import CARD, UNIT, build, contrastive
from tests.methods.batches import REPORTS, batch_of, without_dropout
from tests.methods.golden import series

DEMO = CARD.profiles["demo"]
OFFICIAL = replace(DEMO, official=True)


def test_loss_equals_the_released_one() -> None:
    loss = contrastive(series(5, 8, c=1), series(5, 8, c=2))
    assert loss.item() == pytest.approx(1.745190, rel=1e-5)


def test_finding_the_text_weighs_three_times_finding_the_picture() -> None:
    image, text = series(5, 8, c=1), series(5, 8, c=2)
    logits = F.cosine_similarity(image[:, None], text[None], dim=2) / 0.1
    there, back = (F.cross_entropy(side, torch.arange(5)) for side in (logits, logits.T))
    torch.testing.assert_close(contrastive(image, text), 0.75 * there + 0.25 * back)


def test_gradients() -> None:
    image = series(4, 6, c=1).double().requires_grad_()
    text = series(4, 6, c=2).double().requires_grad_()
    assert torch.autograd.gradcheck(contrastive, (image, text))


def test_a_text_is_the_largest_value_of_any_of_its_tokens() -> None:
    torch.manual_seed(0)
    model = build(DEMO).eval()
    tokens = model.prepare_text(REPORTS)[:, 0]
    with torch.inference_mode():
        found = model.encode_text(model.prepare_text(REPORTS)).embedding
        for row, ids in zip(found, tokens, strict=True):
            states = model.text(ids[None, : int((ids != 0).sum())])[-1][0]
            expected = model.text_head(states.max(dim=0, keepdim=True).values)[0]
            torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_step_sees_one_sentence_and_an_evaluation_the_whole_report() -> None:
    torch.manual_seed(0)
    model = build(DEMO)
    without_dropout(model)
    report = "No pneumothorax is seen. Large left pleural effusion. The heart is enlarged."
    batch = batch_of(DEMO, model, [report, *REPORTS])
    losses = set()
    for seed in range(12):
        torch.manual_seed(seed)
        losses.add(round(model.loss(batch)[0].item(), 4))
    assert len(losses) == 3
    assert torch.equal(model.pairs(batch)[1], model.pairs(batch)[1])


def test_official_never_trains_its_text_tower() -> None:
    assert DEMO.text is not None
    text = replace(DEMO.text, frozen_layers=0)
    for official in (False, True):
        profile = replace(DEMO, text=text, official=official)
        model = build(profile)
        model.train().loss(batch_of(profile, model))[0].backward()
        reached = {name.split(".")[0] for name, value in model.named_parameters() if value.grad is not None}
        assert reached == {"encoder", "image_head"} | (set() if official else {"text", "text_head"})


def test_official_cuts_at_every_full_stop_and_draws_what_is_left() -> None:
    text = "A 2.5 cm mass is seen.. No."
    kept = build(DEMO).prepare_text([text])
    assert (kept[0, 1:, 0] != 0).sum() == 1  # one sentence
    released = build(OFFICIAL).prepare_text([text])
    assert (released[0, 1:, 0] != 0).sum() == 4  # "A 2", "5 cm mass is seen", " No", ""
    assert (released[0, 4] != 0).sum() == 2  # CLS and SEP alone


def test_official_starts_from_random_weights() -> None:
    paper = replace(CARD.profiles["paper"], text=DEMO.text, official=True)
    assert paper.image.pretrained
    assert build(paper).encoder.width == 2048  # would need the hub otherwise


def test_official_has_a_cache_of_its_own() -> None:
    assert build(DEMO).text_key != build(OFFICIAL).text_key


def test_the_unit_is_the_whole_report() -> None:
    assert all(profile.recipe and profile.recipe.text_units == (UNIT,) for profile in CARD.profiles.values())
