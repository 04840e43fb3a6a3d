"""Retrieval as a health signal: against a count by hand, duplicates and chance."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from harness.pretrain.embeddings import recall


def test_recall_by_hand() -> None:
    """Texts are directions in a plane, the second worded as the first; the pictures turn away from them."""
    degrees = torch.tensor([0.0, 0.0, 90.0, 180.0, 270.0, 45.0])
    turned = degrees + torch.tensor([1.0, -1.0, 46.0, 170.0, 0.0, 0.0])
    image, text = (
        torch.stack([(d * torch.pi / 180).cos(), (d * torch.pi / 180).sin()], 1) for d in (turned, degrees)
    )
    found = recall(3 * image, 5 * text)  # lengths do not count
    # pictures 1, 2, 5 and 6 lie next to their own text; the third is nearer to 180 degrees, then its own;
    # the fourth has all others before its own
    assert found["recall@1"] == pytest.approx(4 / 6)
    assert found["recall@5"] == pytest.approx(5 / 6)
    assert found["chance@1"] == pytest.approx((2 + 2 + 1 + 1 + 1 + 1) / 36)
    assert "recall@10" not in found  # ten of six would always hit


def test_many_alike_reports_are_all_right_answers() -> None:
    """More rows than the 25 from which torch computes distances less exactly."""
    kinds = torch.nn.functional.normalize(
        torch.randn(4, 64, generator=torch.Generator().manual_seed(0)), dim=1
    )
    text = kinds.repeat(10, 1)
    found = recall(text.roll(4, dims=0) * 0.3, text)  # another picture of the same words
    assert found["recall@1"] == 1
    assert found["chance@1"] == pytest.approx(0.25)


@pytest.mark.parametrize("copies", [1, 3])
def test_chance_is_that_of_a_random_order(copies: int) -> None:
    """Of V places for the copies of a report, k are looked at: hypergeometric."""
    text = torch.eye(8).repeat(copies, 1)
    found = recall(torch.randn(len(text), 8), text)
    for k in (k for k in (1, 5, 10) if k < len(text)):
        missed = math.comb(len(text) - copies, k) / math.comb(len(text), k)
        assert found[f"chance@{k}"] == pytest.approx(1 - missed, abs=1e-5)


def test_an_encoder_that_knows_nothing_is_at_chance() -> None:
    rng = torch.Generator().manual_seed(0)
    text = torch.randn(40, 16, generator=rng)
    found = [recall(torch.randn(40, 16, generator=rng), text) for _ in range(200)]
    for k in (1, 5, 10):
        mean = np.mean([item[f"recall@{k}"] for item in found])
        assert mean == pytest.approx(found[0][f"chance@{k}"], abs=0.03)
