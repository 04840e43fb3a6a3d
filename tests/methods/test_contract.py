"""Every file in methods/ keeps the contract: a new one is tested by existing."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness import registry
from harness.contracts import MethodCard
from harness.errors import UsageError
from harness.pretrain import optimisation
from tests.methods.batches import REPORTS, batch_of, taken, without_dropout

CARDS = {
    name: registry.method_card(name) for name, entry in registry.entries("methods").items() if not entry.error
}
QUICK = "imitate"  # the quick part of the suite builds this one only
NAMES = [pytest.param(name, marks=() if name == QUICK else pytest.mark.slow) for name in CARDS]
TRAINED = [each for each in NAMES if CARDS[each.values[0]].profiles["demo"].recipe is not None]


def built(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return registry.load("methods", name).build(CARDS[name].profiles["demo"], initialise=False)


built_once = cache(built)


def demo(name: str) -> tuple[MethodCard, torch.nn.Module]:
    """A copy for every test: copying is three times faster than building."""
    return CARDS[name], deepcopy(built_once(name))


@pytest.mark.parametrize("name", NAMES)
def test_image_features_have_the_contract_s_shapes(name: str) -> None:
    card, model = demo(name)
    size = card.profiles["demo"].preprocessing.size
    with torch.inference_mode():
        found = model.eval().encode_image(torch.randn(2, 3, size, size))
    assert found.pooled.shape[0] == 2 and found.pooled.ndim == 2
    assert list(found.pyramid) == [4, 8, 16, 32]
    for stride, maps in found.pyramid.items():
        assert maps.shape[0] == 2
        assert maps.shape[2] == maps.shape[3] == -(-size // stride)
    if card.has_text:
        assert found.embedding is not None and found.embedding.shape[0] == 2


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_s_features_do_not_depend_on_its_company(name: str) -> None:
    card, model = demo(name)
    size = card.profiles["demo"].preprocessing.size
    pictures = torch.randn(3, 3, size, size)
    with torch.inference_mode():
        together = model.eval().encode_image(pictures).pooled
        alone = torch.cat([model.encode_image(pictures[i : i + 1]).pooled for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_seed_decides_the_weights(name: str) -> None:
    other = built(name).state_dict()
    for key, value in built_once(name).state_dict().items():
        assert torch.equal(value, other[key]), key


@pytest.mark.parametrize("name", NAMES)
def test_recipes_can_be_followed(name: str) -> None:
    for key, profile in CARDS[name].profiles.items():
        if profile.recipe:
            optimisation.check(profile.recipe, f"{name}, profile {key}")
        assert profile.preprocessing.size <= profile.preprocessing.stored


@pytest.mark.parametrize("name", TRAINED)
def test_similarity_is_a_matrix_of_images_by_texts(name: str) -> None:
    card, model = demo(name)
    size = card.profiles["demo"].preprocessing.size
    with torch.inference_mode():
        image = model.eval().encode_image(torch.randn(3, 3, size, size))
        text = model.encode_text(model.prepare_text(["no pneumothorax", "large effusion"]))
        assert model.similarity(image, text).shape == (3, 2)


@pytest.mark.parametrize("name", TRAINED)
def test_one_word_is_a_text(name: str) -> None:
    _, model = demo(name)
    with torch.inference_mode():
        found = model.eval().encode_text(model.prepare_text(["Cardiomegaly", "Pneumothorax."])).embedding
    assert torch.isfinite(found).all()
    assert not torch.allclose(found[0], found[1])


@pytest.mark.parametrize("name", TRAINED)
def test_weights_survive_their_file(name: str, tmp_path: Path) -> None:
    card, model = demo(name)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.01)
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    torch.manual_seed(1)
    other = registry.load("methods", name).build(card.profiles["demo"], initialise=False)
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    texts = ["no pneumothorax", "large effusion"]
    with torch.inference_mode():
        one, two = (m.eval().encode_text(m.prepare_text(texts)).embedding for m in (model, other))
    assert torch.equal(one, two)


# --- training ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TRAINED)
def test_a_step_trains_every_parameter_that_is_meant_to_and_no_other(name: str) -> None:
    card, model = demo(name)
    loss, terms = model.train().loss(batch_of(card.profiles["demo"], model))
    loss.backward()
    torch.testing.assert_close(loss, torch.stack(list(terms.values())).sum())
    reached = {key for key, value in model.named_parameters() if value.grad is not None}
    assert reached == {key for key, value in model.named_parameters() if value.requires_grad}
    assert all(torch.isfinite(value.grad).all() for value in model.parameters() if value.requires_grad)


@pytest.mark.parametrize("name", TRAINED)
def test_the_order_of_the_pairs_and_more_padding_change_nothing(name: str) -> None:
    card, model = demo(name)
    without_dropout(model)
    batch = batch_of(card.profiles["demo"], model)
    padded = {
        unit: text if text.is_floating_point() else torch.nn.functional.pad(text, (0, 7))
        for unit, text in batch.text.items()
    }
    losses = []
    for again in (batch, taken(batch, [3, 1, 4, 0, 2]), batch._replace(text=padded)):
        torch.manual_seed(0)
        losses.append(model.loss(again)[0])
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses[2], losses[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", TRAINED)
def test_pairs_without_text_have_no_say_in_what_is_said_of_text(name: str) -> None:
    card, model = demo(name)
    without_dropout(model)
    batch = batch_of(card.profiles["demo"], model)
    silent = {unit: torch.zeros(len(REPORTS), dtype=torch.bool) for unit in batch.present}
    loss, terms = model.loss(batch._replace(present=silent))
    loss.backward()
    assert torch.isfinite(loss)
    assert terms.keys() == model.loss(batch)[1].keys()
    image, text = model.pairs(taken(batch, [0, 1, 2]))
    assert image.shape == text.shape and len(image) == 3


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("training", [True, False])
def test_a_batch_of_one_has_nothing_to_contrast(name: str, training: bool) -> None:
    card, model = demo(name)
    batch = batch_of(card.profiles["demo"], model.train(training))
    loss, terms = model.loss(taken(batch, [2]))
    loss.backward()
    assert loss == 0
    assert terms.keys() == model.loss(batch)[1].keys()
    assert all(torch.isfinite(value.grad).all() for value in model.parameters() if value.grad is not None)
    if not training:
        assert len(model.pairs(taken(batch, [2]))[0]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_odd_reports_train_like_any_other(name: str) -> None:
    card, model = demo(name)
    reports = ["", "Cardiomegaly", "\ufffd\ufffd", "\x00 caf\xe9 \u2603", "opacity " * 3000, *REPORTS[:2]]
    batch = batch_of(card.profiles["demo"], model, reports)
    present = {unit: text.flatten(1).any(dim=1) for unit, text in batch.text.items()}  # as a corpus has it
    loss, _ = model.train().loss(batch._replace(present=present))
    loss.backward()
    assert torch.isfinite(loss)
    assert all(rows.tolist()[1::3] == [True, True] for rows in present.values())


@pytest.mark.parametrize("name", TRAINED)
def test_a_text_without_words_is_zero_where_tokens_are_kept(name: str) -> None:
    _, model = demo(name)
    prepared = model.prepare_text(["___.", "no effusion seen"])
    if not prepared.is_floating_point():
        assert not prepared[0].any()
    assert prepared[1].any()


@pytest.mark.slow
def test_texts_of_one_key_are_prepared_alike() -> None:
    """Caches are shared by key, also where two methods read by one backbone."""
    shared, prepared = CARDS["gloria"].profiles["demo"].text, dict[str, torch.Tensor]()
    for name in (each.values[0] for each in TRAINED):
        profile = replace(CARDS[name].profiles["demo"], text=shared)
        model = registry.load("methods", name).build(profile, initialise=False)
        found = model.prepare_text(REPORTS)
        assert torch.equal(prepared.setdefault(model.text_key, found), found), name


@pytest.mark.parametrize("name", TRAINED)
def test_a_text_without_words_is_refused_where_words_are_compared(name: str) -> None:
    _, model = demo(name)
    prepared = model.eval().prepare_text(["no effusion", "", "Pneumothorax", "___"])
    if prepared.is_floating_point():  # of a frozen encoder, which reads something in every text
        assert torch.isfinite(model.encode_text(prepared).embedding).all()
        return
    with (
        torch.inference_mode(),
        pytest.raises(UsageError, match=r"of 4 texts.*no word in number 2, 4\. Give"),
    ):
        model.encode_text(prepared)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_a_step_in_half_precision_is_nearly_the_same(name: str) -> None:
    card, model = demo(name)
    without_dropout(model)
    batch = batch_of(card.profiles["demo"], model)
    torch.manual_seed(0)
    exact, _ = model.loss(batch)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        half, terms = model.loss(batch)
    half.backward()
    assert half.dtype == torch.float32
    assert all(term.dtype == torch.float32 for term in terms.values())
    torch.testing.assert_close(half, exact, rtol=0.1, atol=0.1)
