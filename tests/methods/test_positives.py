"""Pictures of one study as right answers for each other: in every method, and off unless a recipe asks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from harness import registry
from methods._losses import contrast, positives
from tests.methods.batches import batch_of, without_dropout
from tests.methods.golden import series

NAMES = [name for name, entry in registry.entries("methods").items() if not entry.error]
TRAINED = [name for name in NAMES if registry.method_card(name).profiles["demo"].recipe is not None]


def test_the_pairs_of_a_study_share_the_answer() -> None:
    study, rows = torch.tensor([7, 3, 7, 9, 7]), torch.tensor([True, True, True, True, False])
    targets = positives(study, rows)
    assert targets is not None
    expected = torch.tensor([[0.5, 0, 0.5, 0], [0, 1, 0, 0], [0.5, 0, 0.5, 0], [0, 0, 0, 1]])
    assert torch.equal(targets, expected)
    logits = 3 * series(4, 4, c=1)
    one, other = contrast(logits, targets)
    torch.testing.assert_close(one, F.cross_entropy(logits, expected))
    torch.testing.assert_close(other, F.cross_entropy(logits.T, expected))


def test_without_studies_a_pair_is_right_for_itself() -> None:
    assert positives(None, torch.ones(3, dtype=torch.bool)) is None


TERMS = {"contrastive", "global", "local", "pairs", "impression", "findings"}
"""Of all methods, those that contrast pictures with reports."""


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_two_pictures_of_a_study_find_either_report(name: str) -> None:
    """Each report is half the answer for each of them: the mean of the loss and of that with the two reports
    exchanged."""
    profile = registry.method_card(name).profiles["demo"]
    torch.manual_seed(0)
    model = registry.load("methods", name).build(profile, initialise=False)
    without_dropout(model)
    batch = batch_of(profile, model)
    if all(
        text.is_floating_point() for text in batch.text.values()
    ):  # features of reports that are not alike
        batch = batch._replace(text={unit: torch.eye(*text.shape) for unit, text in batch.text.items()})

    def terms(study: list[int] | None, order: list[int]) -> dict[str, Tensor]:
        torch.manual_seed(0)
        numbers = None if study is None else torch.tensor(study)
        texts = {unit: text[order] for unit, text in batch.text.items()}
        found = model.loss(batch._replace(text=texts, study=numbers))[1]
        return {term: value for term, value in found.items() if term in TERMS}

    told, exchanged = terms(None, [0, 1, 2, 3, 4]), terms(None, [1, 0, 2, 3, 4])
    alone, together = terms([4, 3, 2, 1, 0], [0, 1, 2, 3, 4]), terms([0, 0, 2, 3, 4], [0, 1, 2, 3, 4])
    assert together
    for term, value in together.items():
        torch.testing.assert_close(alone[term], told[term])
        torch.testing.assert_close(value, (told[term] + exchanged[term]) / 2)
        assert not torch.allclose(value, told[term])


def test_no_paper_s_recipe_asks_for_it() -> None:
    for name in TRAINED:
        for profile in registry.method_card(name).profiles.values():
            assert profile.recipe == replace(profile.recipe, same_study_positives=False)
