"""Measures of embeddings against closed forms, plain loops and constructed collapses."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from harness.pretrain import embeddings


def noise(count: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def test_alignment_is_the_mean_squared_distance_of_pairs() -> None:
    """At an angle a, unit vectors are 2 - 2 cos a apart, squared; lengths do not count."""
    angle = torch.linspace(0, 2, 7)
    image = torch.stack([torch.ones(7), torch.zeros(7)], 1) * 3
    text = torch.stack([angle.cos(), angle.sin()], 1)
    expected = (2 - 2 * angle.cos()).mean().item()
    assert embeddings.geometry(image, text)["alignment"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("count", [2, 30, 1030], ids=["pair", "some", "more than a chunk"])
def test_uniformity_and_cosine_are_those_of_a_loop(count: int) -> None:
    rows = F.normalize(noise(count, 8), dim=1)
    squared = torch.pdist(rows.double()).square()  # each pair once
    assert embeddings.uniformity(rows) == pytest.approx((-2 * squared).exp().mean().log().item(), abs=1e-4)
    assert embeddings.mean_cosine(rows) == pytest.approx((1 - squared / 2).mean().item(), abs=1e-5)


def test_uniformity_of_one_point_is_zero_and_of_opposite_points_minus_eight() -> None:
    point = F.normalize(torch.ones(2, 4), dim=1)
    assert embeddings.uniformity(point) == pytest.approx(0, abs=1e-5)
    assert embeddings.uniformity(point * torch.tensor([[1.0], [-1.0]])) == pytest.approx(-8, abs=1e-3)


@pytest.mark.parametrize("rank", [1, 3, 6])
def test_the_effective_rank_of_equal_directions_is_their_number(rank: int) -> None:
    axes = torch.eye(10)[:rank]
    assert embeddings.effective_rank(torch.cat([axes, -axes])) == pytest.approx(rank, abs=1e-5)


def test_the_effective_rank_by_hand() -> None:
    """Singular values 3 and 1: shares 3/4 and 1/4."""
    rows = torch.tensor([[3.0, 0], [-3, 0], [0, 1], [0, -1]])
    assert embeddings.effective_rank(rows) == pytest.approx(4 / 3**0.75, rel=1e-6)


def test_identical_embeddings_have_rank_one() -> None:
    assert embeddings.effective_rank(F.normalize(torch.ones(50, 7), dim=1)) == 1


# --- collapse ---------------------------------------------------------------------------------------


def found(image: torch.Tensor, text: torch.Tensor) -> list[str]:
    return embeddings.collapse(embeddings.geometry(image, text))


def test_sound_embeddings_raise_no_alarm() -> None:
    assert found(noise(60, 16), noise(60, 16, seed=1)) == []


def test_a_point_is_named() -> None:
    [sentence] = found(1 + 0.01 * noise(60, 16), noise(60, 16))
    assert sentence.startswith("image embeddings have collapsed to one direction")


def test_a_line_is_named() -> None:
    line = noise(60, 1) * torch.ones(1, 16)  # both ends of a line: the mean cosine is near zero
    [sentence] = found(noise(60, 16), line)
    assert sentence.startswith("text embeddings have collapsed to one line")


def test_one_pair_has_no_geometry() -> None:
    assert embeddings.geometry(noise(1, 4), noise(1, 4)) == {}
    assert embeddings.collapse({}) == []


def test_every_measure_is_a_finite_number() -> None:
    measured = embeddings.geometry(torch.ones(5, 3), torch.ones(5, 3))
    assert all(map(math.isfinite, measured.values()))
