"""What a classifier's scores are worth: how they rank, what they decide, and whether they are probabilities.

Apart because these are three questions. A head that does not answer one of them leaves its array out, and no
number appears for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from harness.errors import DataError
from harness.metrics.auroc import Comparison, ratio, require_both_classes

BINS = 15
"""Bins of the calibration error, equally wide, as in Guo et al., On Calibration of Modern Neural Networks,
ICML 2017. A bin holds its lower bound, the last one also 1."""


class Classification:
    """A score (see `score.py`) of L labels: a metric of each, `NAME:LABEL`, and its plain mean over labels.

    From scores: `macro_auroc`, and `macro_average_precision`, the area under the precision-recall curve as
    the sum of its steps, one per distinct score.

    From decisions: `sensitivity:LABEL`, `specificity:LABEL`, `balanced_accuracy`, the mean of both, and
    `accuracy`. Where one label is true of each image and one is decided for, `accuracy` is the share of
    images that got theirs, and `balanced_accuracy` the mean sensitivity.

    From probabilities p of truths y: `macro_brier`, the mean of (p - y)² (Brier, Monthly Weather Review
    1950), and `macro_calibration_error`, expected over bins b of p (Naeini et al., AAAI 2015; per label:
    Nixon et al., CVPR workshops 2019):

        Σ_b |Σ_{i in b} w_i (p_i - y_i)| / Σ_i w_i

    Noise in a bin only ever adds to it, and resampling adds noise: its percentile interval lies too high, and
    for a well calibrated head even above the value.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], labels: Sequence[str]) -> None:
        """`truth` [N, L] 1, 0 or -1 for unknown (left out of that label) and `scores` [N, L]. Where there are
        any, `probabilities` [N, L] and `decisions`: [N, L] 1 or 0, or [N] the position of the one label.

        Raises EmptyClass naming every label that has one class only, DataError for other values.
        """
        truth, scores = arrays["truth"], arrays["scores"]
        require_both_classes(truth, labels, "the scored images", "Score a larger part")
        self._labels, self._exclusive = tuple(labels), False
        self._comparisons = [Comparison(truth[:, k], scores[:, k]) for k in range(len(labels))]
        tables = {"positives": truth == 1, "negatives": truth == 0}
        if "decisions" in arrays:
            decisions = arrays["decisions"]
            self._exclusive = decisions.ndim == 1
            if self._exclusive:
                require_one_label(truth, labels, "the scored images")
                _require(np.isin(decisions, range(len(labels))), decisions, "decisions are places of labels")
                decisions = decisions[:, None] == np.arange(len(labels))
            _require(np.isin(decisions, (0, 1)), decisions, "decisions are 1 or 0")
            tables |= {"found": (truth == 1) & (decisions == 1), "spared": (truth == 0) & (decisions == 0)}
        if "probabilities" in arrays:
            tables |= _distances(truth, arrays["probabilities"])
        self._tables = {
            name: np.ascontiguousarray(table.swapaxes(-1, -2), dtype=np.float64)
            for name, table in tables.items()
        }
        self.names = tuple(self._measured(np.ones((len(truth), 1))))

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        return np.stack(list(self._measured(weights).values()))

    def _measured(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Name -> [R]."""
        areas = np.stack([comparison.areas(weights) for comparison in self._comparisons], axis=1)
        measured = self._with_mean("macro_auroc", "auroc", areas[0])
        measured |= self._with_mean("macro_average_precision", "average_precision", areas[1])
        sums = {name: table @ weights for name, table in self._tables.items()}  # [L, R], of bins [BINS, L, R]
        positives, negatives = sums["positives"], sums["negatives"]
        known = positives + negatives
        if "found" in sums:
            sensitivity = ratio(sums["found"], positives)
            specificity = ratio(sums["spared"], negatives)
            if self._exclusive:
                measured["accuracy"] = ratio(sums["found"].sum(axis=0), positives.sum(axis=0))
                measured["balanced_accuracy"] = sensitivity.mean(axis=0)
            else:
                measured["accuracy"] = ratio(sums["found"] + sums["spared"], known).mean(axis=0)
                measured["balanced_accuracy"] = (sensitivity + specificity).mean(axis=0) / 2
            measured |= self._per_label("sensitivity", sensitivity)
            measured |= self._per_label("specificity", specificity)
        if "squares" in sums:
            error = ratio(np.abs(sums["bins"]).sum(axis=0), known)
            measured |= self._with_mean("macro_brier", "brier", ratio(sums["squares"], known))
            measured |= self._with_mean("macro_calibration_error", "calibration_error", error)
        return measured

    def _with_mean(self, mean: str, name: str, values: np.ndarray) -> dict[str, np.ndarray]:
        return {mean: values.mean(axis=0), **self._per_label(name, values)}

    def _per_label(self, name: str, values: np.ndarray) -> dict[str, np.ndarray]:
        return {f"{name}:{label}": row for label, row in zip(self._labels, values, strict=True)}


def operating_points(truth: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """[L] thresholds; a score that reaches its label's is a positive. `truth` [N, L] 1, 0 or -1 for unknown,
    both classes in each column; `scores` [N, L] of the validation part.

    Each has the largest sensitivity + specificity - 1 (Youden, Cancer 1950), of equals the most sensitive,
    and lies halfway between the scores that it separates.
    """
    return np.array([_youden(truth[:, k], scores[:, k]) for k in range(truth.shape[1])])


def _youden(truth: np.ndarray, scores: np.ndarray) -> float:
    levels, level = np.unique(scores[truth >= 0], return_inverse=True)  # rising
    known = truth[truth >= 0]
    missed, spared = (
        np.concatenate(([0], np.bincount(level[known == value], minlength=len(levels)).cumsum()))
        for value in (1, 0)
    )  # positives and negatives below each level, and all of them
    index = spared[:-1] * missed[-1] - missed[:-1] * spared[-1]  # times both numbers: whole, so that ties tie
    best = int(index.argmax())
    return float(levels[max(best - 1, 0)]) / 2 + float(levels[best]) / 2  # in float64, strictly between both


def accuracy(truth: np.ndarray, scores: np.ndarray, labels: Sequence[str]) -> float:
    """The share of images [N, L] whose largest score is that of their one label. Raises DataError where an
    image has none or several."""
    require_one_label(truth, labels, "the scored images")
    return float((scores.argmax(axis=1) == truth.argmax(axis=1)).mean())


def require_one_label(truth: np.ndarray, labels: Sequence[str], where: str) -> None:
    """Raises DataError unless every row of `truth` [N, L] has one 1, and 0 else."""
    wrong = ((truth == 1).sum(axis=1) != 1) | (truth == -1).any(axis=1)
    if wrong.any():
        raise DataError(
            f"{wrong.sum()} of {where} (n = {len(truth)}) are not of one class out of {', '.join(labels)}. "
            "Correct the labels, or the task's label policy"
        )


def _distances(truth: np.ndarray, probabilities: np.ndarray) -> dict[str, np.ndarray]:
    """Distance of each probability to the truth, 0 where that is unknown: squared [N, L], by bin [BINS, N,
    L]."""
    _require((probabilities >= 0) & (probabilities <= 1), probabilities, "probabilities lie in 0..1")
    distance = np.where(truth == -1, 0, probabilities.astype(np.float64) - truth)
    bins = np.digitize(probabilities, np.linspace(0, 1, BINS + 1)[1:-1])
    return {
        "squares": distance**2,
        "bins": np.where(bins == np.arange(BINS)[:, None, None], distance, 0),
    }


def _require(fine: np.ndarray, values: np.ndarray, rule: str) -> None:
    if not fine.all():
        raise DataError(f"{rule}, not {values[~fine][0]}. Check the head they are from")
