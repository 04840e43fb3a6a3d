"""Overlap of predicted with true masks, from three pixel counts per image.

Apart because all that a mask's scores need is how many pixels it has, how many were predicted and how many
are in both: with these stored, anyone can compute every score again without a picture.
"""

from __future__ import annotations

import numpy as np

from harness.errors import DataError
from harness.metrics.auroc import ratio

NAMES = ("dice", "dice_positives", "iou", "specificity", "sensitivity")
"""The field's convention counts an image without a true mask as 1 where nothing is predicted, else as 0. So
`dice` and `iou` of predicting nothing anywhere are the share of such images: read them beside the others.

`dice_positives` is over images with a true mask only. `specificity` is the share of images without a mask in
which nothing is predicted, `sensitivity` that of images with a mask in which anything is, wherever it lies.
"""


class Overlaps:
    """The scores of N images under any weights. Sums are taken once; a weighting is two products."""

    names = NAMES

    def __init__(self, truth_area: np.ndarray, predicted_area: np.ndarray, overlap: np.ndarray) -> None:
        """Pixels of the native images, int64 [N] each. Raises DataError for counts that no masks have."""
        wrong = (overlap < 0) | (overlap > np.minimum(truth_area, predicted_area))
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise DataError(
                f"row {row} has {overlap[row]} pixels in both masks, but {truth_area[row]} in the true and "
                f"{predicted_area[row]} in the predicted one. Run the cell again"
            )
        present, predicted = truth_area > 0, predicted_area > 0
        each = dice(truth_area, predicted_area, overlap)
        iou = ratio(overlap, truth_area + predicted_area - overlap, nothing=1.0)
        everywhere = np.ones_like(present)
        values = np.stack([each, each, iou, ~predicted, predicted])  # [M, N]
        self._counted = np.stack([everywhere, present, everywhere, ~present, present]).astype(np.float64)
        self._values = values * self._counted

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """[M, R] means under `weights` [N, R]; NaN where no image that counts has weight."""
        return ratio(self._values @ weights, self._counted @ weights)


def dice(truth_area: np.ndarray, predicted_area: np.ndarray, overlap: np.ndarray) -> np.ndarray:
    """[N] 2 overlap / (truth + predicted) of each image, and 1 where both are empty."""
    return ratio(2 * overlap, truth_area + predicted_area, nothing=1.0)
