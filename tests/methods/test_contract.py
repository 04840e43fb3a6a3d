"""Every file in methods/ keeps the contract: a new one is tested by existing."""

from __future__ import annotations

import pytest
import torch

from harness import registry
from harness.contracts import MethodCard
from harness.data import transforms

NAMES = [name for name, entry in registry.entries("methods").items() if not entry.error]


def demo(name: str) -> tuple[MethodCard, torch.nn.Module]:
    card = registry.method_card(name)
    torch.manual_seed(0)
    return card, registry.load("methods", name).build(card.profiles["demo"], initialise=False)


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
    (_, one), (_, other) = demo(name), demo(name)
    for key, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key


@pytest.mark.parametrize("name", NAMES)
def test_recipes_name_augmentations_that_exist(name: str) -> None:
    for profile in registry.method_card(name).profiles.values():
        if profile.recipe:
            transforms.check_names(profile.recipe.augmentation)
        assert profile.preprocessing.size <= profile.preprocessing.stored


@pytest.mark.parametrize(
    "name", [name for name in NAMES if registry.method_card(name).profiles["demo"].recipe is not None]
)
def test_similarity_is_a_matrix_of_images_by_texts(name: str) -> None:
    card, model = demo(name)
    size = card.profiles["demo"].preprocessing.size
    with torch.inference_mode():
        image = model.eval().encode_image(torch.randn(3, 3, size, size))
        text = model.encode_text(model.prepare_text(["no pneumothorax", "large effusion"]))
        assert model.similarity(image, text).shape == (3, 2)
