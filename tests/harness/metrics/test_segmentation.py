"""Dice and its kin, against closed forms and the two libraries that the field uses."""

from __future__ import annotations

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from torchmetrics.segmentation import DiceScore

from harness.errors import DataError
from harness.metrics import score
from harness.metrics.segmentation import NAMES, Overlaps


def counted(truth: np.ndarray, predicted: np.ndarray) -> dict[str, np.ndarray]:
    """What is stored of masks [N, H, W]."""
    axes = (1, 2)
    return {
        "truth_area": truth.sum(axes),
        "predicted_area": predicted.sum(axes),
        "overlap": (truth & predicted).sum(axes),
    }


def values(arrays: dict[str, np.ndarray]) -> dict[str, float]:
    found = score.of("segmentation", arrays, ["mask"])
    return dict(zip(found.names, found(np.ones((len(arrays["overlap"]), 1)))[:, 0].tolist(), strict=True))


@pytest.fixture
def masks() -> tuple[np.ndarray, np.ndarray]:
    """40 images, truth and prediction each empty in a third of them, at random."""
    rng = np.random.default_rng(0)
    truth, predicted = rng.random((2, 40, 9, 7)) < 0.3
    truth[rng.random(40) < 1 / 3] = False
    predicted[rng.random(40) < 1 / 3] = False
    both_empty = ~truth.any((1, 2)) & ~predicted.any((1, 2))
    assert both_empty.any() and not both_empty.all()
    return truth, predicted


def test_as_segmentation_models_pytorch_computes_them(masks: tuple[np.ndarray, np.ndarray]) -> None:
    truth, predicted = masks
    stats = smp.metrics.get_stats(
        torch.from_numpy(predicted[:, None]).long(), torch.from_numpy(truth[:, None]).long(), mode="binary"
    )
    found = values(counted(truth, predicted))
    for name, function in (("dice", smp.metrics.f1_score), ("iou", smp.metrics.iou_score)):
        # an empty union is the only division by zero, and counts as 1
        expected = function(*stats, reduction="micro-imagewise", zero_division=1.0)
        assert found[name] == pytest.approx(float(expected), rel=1e-6)


def test_dice_of_images_with_a_mask_as_torchmetrics_computes_it(masks: tuple[np.ndarray, np.ndarray]) -> None:
    truth, predicted = masks
    shows = truth.any((1, 2))
    referee = DiceScore(num_classes=1, include_background=True, average="macro")
    referee.update(torch.from_numpy(predicted[shows, None]), torch.from_numpy(truth[shows, None]))
    assert values(counted(truth, predicted))["dice_positives"] == pytest.approx(float(referee.compute()))


def test_predicting_nothing_scores_the_share_of_empty_images() -> None:
    truth = np.zeros((9, 4, 4), dtype=bool)
    truth[:2, 1, 1] = True
    found = values(counted(truth, np.zeros_like(truth)))
    assert found == pytest.approx(
        {"dice": 7 / 9, "dice_positives": 0, "iou": 7 / 9, "specificity": 1, "sensitivity": 0}
    )


def test_predicting_everything_scores_the_closed_form() -> None:
    truth = np.zeros((3, 4, 5), dtype=bool)
    truth[0, :2] = True  # 10 of 20 pixels
    truth[1] = True
    found = values(counted(truth, np.ones_like(truth)))
    assert found == pytest.approx(
        {"dice": (2 / 3 + 1) / 3, "dice_positives": (2 / 3 + 1) / 2, "iou": 1.5 / 3}
        | {"specificity": 0, "sensitivity": 1}
    )


def test_the_oracle_scores_one(masks: tuple[np.ndarray, np.ndarray]) -> None:
    assert values(counted(masks[0], masks[0])) == dict.fromkeys(NAMES, 1.0)


def test_a_mask_of_one_pixel_is_a_mask() -> None:
    pixel, nothing = np.zeros((2, 1, 4, 4), dtype=bool)
    pixel[0, 0, 0] = True
    assert values(counted(np.stack([pixel[0], nothing[0]]), np.stack([pixel[0], pixel[0]]))) == {
        "dice": 0.5,
        "dice_positives": 1.0,
        "iou": 0.5,
        "specificity": 0.0,
        "sensitivity": 1.0,
    }


def test_weights_are_repetitions(masks: tuple[np.ndarray, np.ndarray]) -> None:
    arrays = counted(*masks)
    weights = np.random.default_rng(1).integers(0, 3, (40, 6))
    found = score.of("segmentation", arrays, ["mask"])(weights.astype(float))
    for column, times in zip(found.T, weights.T, strict=True):
        repeated = values({name: np.repeat(array, times) for name, array in arrays.items()})
        assert column == pytest.approx(list(repeated.values()))


def test_a_mean_over_no_image_is_undefined() -> None:
    truth = np.ones((2, 3, 3), dtype=bool)
    found = values(counted(truth, truth))
    assert np.isnan(found["specificity"]) and found["dice"] == 1


def test_counts_that_no_masks_have_are_refused() -> None:
    with pytest.raises(DataError, match="row 1 has 5 pixels in both masks, but 4 in the true and 9"):
        Overlaps(np.array([3, 4]), np.array([9, 9]), np.array([3, 5]))
