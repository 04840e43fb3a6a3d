"""AUROC, exactly: the share of (positive, negative) pairs that the scores put in the right order.

Apart because most numbers of the benchmark pass through here. What is undefined raises; it is never 0.0 or
NaN.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array

from harness.errors import DataError, EmptyClass


class Comparison:
    """One label's scores, reduced to what its areas depend on: which images each positive beats or equals.

    Sorting happens once; after that an area under any weights of the images is a sum. With weights w, AUROC
    is

        Σ_i w_i (B_i + ½ T_i) / (Σ_i w_i · Σ_j w_j)      i over positives, j over negatives,

    where B_i and T_i are the weights of the negatives that score lower than i and the same as i: the
    Mann-Whitney form of the area (Hanley & McNeil, Radiology 1982), ties counting half.
    """

    def __init__(self, truth: np.ndarray, scores: np.ndarray) -> None:
        """`truth` [N] 1 or 0, and -1 where unknown: such an image takes no part. `scores` [N]."""
        _require_known_values(truth)
        if np.isnan(scores).any():
            row = np.flatnonzero(np.isnan(scores))[0]
            raise DataError(f"the score of row {row} is NaN and has no rank. Check the features it is from")
        positives, negatives = (
            rows[np.argsort(scores[rows], kind="stable")]
            for rows in (np.flatnonzero(truth == 1), np.flatnonzero(truth == 0))
        )
        self._positives = positives
        ranked, ours = scores[negatives], scores[self._positives]
        ends = np.searchsorted(ranked, ours, side="left"), np.searchsorted(ranked, ours, side="right")
        self._before = Before(negatives, np.concatenate((*ends, [len(ranked)])))
        self._equal = np.searchsorted(ours, ours, side="left")  # for each positive, the first one like it

    def areas(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """AUROC [R] and average precision [R] for R weightings `weights` [N, R]; NaN where a class that they
        need has no weight. The caller decides what an undefined value means: an error for a result, a
        replicate left out for an interval.

        The average precision is the mean of the precision at each positive's score, equal scores counted in:
        Σ_n (R_n - R_{n-1}) P_n over the distinct scores, as in scikit-learn.
        """
        positives = weights.take(self._positives, axis=0)
        count = len(positives)
        # weights of the negatives that score lower than each positive, that do not score higher, and of all
        lower, not_higher, (negatives,) = np.split(self._before(weights), [count, 2 * count])
        won = np.einsum("ir,ir->r", positives, lower + not_higher) / 2
        found = positives[::-1].cumsum(axis=0)[::-1].take(self._equal, axis=0)  # score as high or higher
        precision = np.divide(found, found + negatives - lower, out=np.zeros(found.shape), where=found > 0)
        total = positives.sum(axis=0)
        return ratio(won, total * negatives), ratio(np.einsum("ir,ir->r", positives, precision), total)


class Before:
    """The weight of what stands before certain places of a ranking, added up between them only: how often
    each image stands between two of them, times the weights, is a product with a sparse matrix."""

    def __init__(self, image: np.ndarray, places: np.ndarray) -> None:
        """`image` [M] of each rank, `places` [U] in 0..M."""
        cuts, where = np.unique(np.concatenate(([0], places)), return_inverse=True)
        ranked = image[: cuts[-1]]
        between = np.repeat(np.arange(len(cuts) - 1), np.diff(cuts))  # of each rank
        shape = len(cuts) - 1, ranked.max(initial=-1) + 1
        self._counts = csr_array((np.ones(len(ranked)), (between, ranked)), shape=shape)
        self._where = where[1:]

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """[U, R]"""
        before = np.zeros((self._counts.shape[0] + 1, weights.shape[1]))
        np.cumsum(self._counts @ weights[: self._counts.shape[1]], axis=0, out=before[1:])
        return before.take(self._where, axis=0)


def ratio(part: np.ndarray, whole: np.ndarray, nothing: float = np.nan) -> np.ndarray:
    """part / whole, broadcast; `nothing` where the whole is 0."""
    shape = np.broadcast_shapes(part.shape, whole.shape)
    there = np.broadcast_to(whole > 0, shape)
    share: np.ndarray = np.divide(part, whole, out=np.full(shape, nothing), where=there)
    return share


def auroc(truth: np.ndarray, scores: np.ndarray, weights: np.ndarray | None = None) -> float:
    """`truth` [N] 1, 0 or -1 for unknown (left out), `scores` [N], `weights` [N] or None for equal ones.

    Raises EmptyClass unless both classes have weight, DataError for other truths and for NaN scores.
    """
    weights = np.ones(len(truth)) if weights is None else weights
    (value,) = Comparison(truth, scores).areas(weights[:, None])[0]
    if np.isnan(value):
        raise EmptyClass(
            f"AUROC needs weight on both classes, but has {np.sum(weights[truth == 1]):g} on positives and "
            f"{np.sum(weights[truth == 0]):g} on negatives (n = {len(truth)}). Score a larger part"
        )
    return float(value)


def auroc_per_label(truth: np.ndarray, scores: np.ndarray, labels: Sequence[str]) -> dict[str, float]:
    """`truth` [N, L] 1, 0 or -1 for unknown (left out of that label), `scores` [N, L], `labels` L names.

    Raises EmptyClass naming every label that has one class only.
    """
    require_both_classes(truth, labels, "the scored images", "Score a larger part")
    return {label: auroc(truth[:, column], scores[:, column]) for column, label in enumerate(labels)}


def macro_auroc(truth: np.ndarray, scores: np.ndarray, labels: Sequence[str]) -> float:
    """The plain mean of `auroc_per_label`: every label counts the same, however rare."""
    return float(np.mean(list(auroc_per_label(truth, scores, labels).values())))


def require_both_classes(truth: np.ndarray, labels: Sequence[str], where: str, cure: str) -> None:
    """Raises EmptyClass unless every column of `truth` [N, L] has a 1 and a 0; names all that do not.
    Raises DataError for values that are not 1, 0 or -1."""
    _require_known_values(truth)
    missing = [
        f"{label!r} has no {name}"
        for column, label in enumerate(labels)
        for name, value in (("positive", 1), ("negative", 0))
        if not (truth[:, column] == value).any()
    ]
    if missing:
        raise EmptyClass(f"{', '.join(missing)} among {where} (n = {len(truth)}). {cure}")


def _require_known_values(truth: np.ndarray) -> None:
    known = np.isin(truth, (0, 1, -1))
    if not known.all():
        raise DataError(
            f"truth must be 1, 0 or -1 (unknown), not {truth[~known][0]}. Apply the task's label policy first"
        )
