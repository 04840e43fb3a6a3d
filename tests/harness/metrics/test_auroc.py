"""AUROC against scikit-learn, torchmetrics and pairs counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torchmetrics.functional.classification import multilabel_auroc

from harness.errors import DataError, EmptyClass
from harness.metrics import auroc as metrics

LABELS = ("Edema", "Fracture", "Mass")


def data(seed: int, n: int, levels: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, scores and weights [n]; `levels` scores only, so that many are tied."""
    rng = np.random.default_rng(seed)
    truth = np.concatenate([[0, 1], (rng.random(n - 2) < 0.2)]).astype(np.int8)
    scores = rng.standard_normal(n) + truth
    if levels:
        scores = np.floor(scores * levels / 4)
    return truth, scores, rng.exponential(size=n)


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 3, 50, 4003])
@pytest.mark.parametrize(
    "levels", [None, 40, 4, 1], ids=["no ties", "few ties", "many ties", "nearly constant"]
)
def test_agrees_with_scikit_learn_with_and_without_weights(n: int, levels: int | None) -> None:
    for seed in range(5):
        truth, scores, weights = data(seed, n, levels)
        assert metrics.auroc(truth, scores) == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
        expected = roc_auc_score(truth, scores, sample_weight=weights)
        assert metrics.auroc(truth, scores, weights) == pytest.approx(expected, abs=1e-12)


def test_counts_pairs_and_halves_ties() -> None:
    truth = np.array([1, 1, 0, 0, 0])
    scores = np.array([0.9, 0.3, 0.3, 0.9, 0.1])
    # 0.9 beats 0.3 and 0.1 and ties 0.9; 0.3 beats 0.1, ties 0.3 and loses to 0.9
    assert metrics.auroc(truth, scores) == (2.5 + 1.5) / 6


def test_whole_weights_equal_repeated_images() -> None:
    truth, scores, _ = data(1, 60, levels=6)
    times = np.random.default_rng(0).integers(0, 4, 60)
    repeated = metrics.auroc(np.repeat(truth, times), np.repeat(scores, times))
    assert metrics.auroc(truth, scores, times) == pytest.approx(repeated, abs=1e-15)


def test_only_the_order_of_scores_counts() -> None:
    truth, scores, _ = data(2, 300)
    assert metrics.auroc(truth, np.exp(scores)) == metrics.auroc(truth, scores)
    assert metrics.auroc(truth, -scores) == pytest.approx(1 - metrics.auroc(truth, scores), abs=1e-15)


def test_labels_and_their_mean_agree_with_torchmetrics() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(-1, 2, (500, 3))
    scores = rng.random((500, 3))
    tensors = torch.from_numpy(scores), torch.from_numpy(truth)
    expected = multilabel_auroc(*tensors, num_labels=3, average=None, ignore_index=-1)
    found = metrics.auroc_per_label(truth, scores, LABELS)
    assert list(found) == list(LABELS)
    assert list(found.values()) == pytest.approx(expected.tolist(), abs=1e-6)  # theirs is float32
    assert metrics.macro_auroc(truth, scores, LABELS) == pytest.approx(np.mean(list(found.values())))


def test_unknown_truth_is_left_out() -> None:
    truth, scores, weights = data(3, 200)
    masked = np.where(np.arange(200) % 3 == 2, -1, truth)
    keep = masked >= 0
    expected = roc_auc_score(truth[keep], scores[keep], sample_weight=weights[keep])
    assert metrics.auroc(masked, scores, weights) == pytest.approx(expected, abs=1e-12)


def test_one_class_raises_instead_of_giving_a_number() -> None:
    with pytest.raises(EmptyClass, match=r"3 on positives and 0 on negatives"):
        metrics.auroc(np.array([1, 1, 1, -1]), np.arange(4))
    with pytest.raises(EmptyClass):
        metrics.auroc(np.array([1, 0]), np.arange(2), np.array([1, 0]))
    truth = np.array([[1, 0, 1], [0, 0, 1], [1, -1, -1]])
    with pytest.raises(EmptyClass, match="'Fracture' has no positive, 'Mass' has no negative") as caught:
        metrics.macro_auroc(truth, np.zeros((3, 3)), LABELS)
    assert "Edema" not in str(caught.value)


def test_nonsense_is_refused() -> None:
    with pytest.raises(DataError, match="row 2 is NaN"):
        metrics.auroc(np.array([0, 1, 1]), np.array([0.1, 0.2, np.nan]))
    with pytest.raises(DataError, match="2"):
        metrics.auroc(np.array([0, 1, 2]), np.arange(3))


@pytest.mark.parametrize(("images", "ranks", "places"), [(7, 40, 12), (7, 40, 0), (3, 0, 4), (300, 300, 90)])
def test_what_stands_before_a_place_is_added_up_whoever_stands_there_how_often(
    images: int, ranks: int, places: int
) -> None:
    rng = np.random.default_rng(ranks)
    image, asked = rng.integers(images, size=ranks), rng.integers(ranks + 1, size=places)
    weights = rng.exponential(size=(images, 5))
    expected = [weights[image[:place]].sum(axis=0) for place in asked]
    found = metrics.Before(image, asked)(weights)
    assert found == pytest.approx(np.reshape(expected, (places, 5)), abs=1e-12)
