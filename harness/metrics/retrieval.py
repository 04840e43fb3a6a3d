"""Finding the report of a picture, and the picture of a report, among all others.

Apart because "right" means two things. Precision at K is the share of the K best that show the same class,
as GLoRIA (ICCV 2021) counts it; a query's own partner is among the right ones. Recall at K asks for the
partner itself, or one worded the same: whether it is among the K best.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from harness.errors import DataError
from harness.metrics.auroc import ratio

RANKS = (1, 5, 10, 100)
DIRECTIONS = ("", ":text_to_image")  # what stands behind a metric's name; plain is picture to text


class Retrieval:
    """A score (see `score.py`): `recall_at_K`, and with classes `precision_at_K`, of pictures that look for
    texts; with `:text_to_image`, of texts that look for pictures. Means over the draws of candidates.

    A weight counts queries; candidates are all of their draw, whatever they weigh, and the report of several
    pictures is one. K goes as far as every query could have as many right answers, and for recall as far as
    there are wrong ones, were each report of one picture. Where the five best could not all be right, data
    are refused before (evaluate/retrieval.py).
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], labels: Sequence[str]) -> None:
        """What `ranked` gives: `right` only with labels, one of which is the class of each pair."""
        place = arrays["place"]
        drawn = place[:, :, 0] >= 0  # [N, D]
        smallest = int(drawn.sum(axis=0).min())
        values: dict[str, np.ndarray] = {}
        for side, name in enumerate(DIRECTIONS):
            for number, k in enumerate(RANKS):
                if labels and k <= smallest // len(labels):
                    values[f"precision_at_{k}{name}"] = arrays["right"][:, :, side, number] / k
                if k < smallest:
                    values[f"recall_at_{k}{name}"] = place[:, :, side] < k
        self.names = tuple(values)
        self._drawn = drawn.T.astype(np.float64)  # [D, N]
        self._values = np.stack([drawn * value for value in values.values()]).transpose(0, 2, 1)  # [M, D, N]

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        shares = ratio(self._values @ weights, self._drawn @ weights)  # [M, D, R] of sums and [D, R]
        means: np.ndarray = shares.mean(axis=1)
        return means


def ranked(
    similarity: np.ndarray,
    drawn: np.ndarray,
    study: np.ndarray,
    partner: np.ndarray,
    shown: np.ndarray | None,
) -> dict[str, np.ndarray]:
    """What queries find in each draw, in both directions; of equally similar candidates the first in the
    table comes first.

    `similarity` [N, N] of pictures (rows) and texts, `drawn` [N, D] bool, `study` [N] alike where pictures
    have one report, `partner` [N] alike where texts are worded the same, `shown` [N] the class of each pair
    or None.

    `place` [N, D, 2] int32: how many candidates come before the first partner, -1 outside the draw.
    `right` [N, D, 2, len(RANKS)] int16: how many of the K best are of the query's class.
    Raises DataError for a NaN.
    """
    if np.isnan(similarity).any():
        row, column = np.argwhere(np.isnan(similarity))[0]
        raise DataError(f"picture {row} and text {column} have no similarity (NaN). Check the checkpoint")
    place = np.full((*drawn.shape, len(DIRECTIONS)), -1, np.int32)
    right = np.zeros((*place.shape, len(RANKS)), np.int16)
    for draw in range(drawn.shape[1]):
        rows = np.flatnonzero(drawn[:, draw])
        reports = rows[np.sort(np.unique(study[rows], return_index=True)[1])]
        tables = similarity[np.ix_(rows, reports)], similarity[np.ix_(rows, rows)].T
        for side, (table, candidates) in enumerate(zip(tables, (reports, rows), strict=True)):
            order = candidates[np.argsort(-table, axis=1, kind="stable")]  # [n, candidates] best first
            place[rows, draw, side] = (partner[order] == partner[rows, None]).argmax(axis=1)
            if shown is not None:
                alike = shown[order[:, : RANKS[-1]]] == shown[rows, None]
                for number, k in enumerate(RANKS):
                    right[rows, draw, side, number] = alike[:, :k].sum(axis=1)
    return {"place": place} if shown is None else {"place": place, "right": right}
