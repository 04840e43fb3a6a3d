"""What prompts find without any training: a classifier's metrics, and how far they hang on the wording.

Apart from classification.py because a wording is a choice that nobody validated. The score of all prompts
together is the result; beside it stand the worst and the best that a single one would have given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from harness.metrics.classification import Classification


class ZeroShot:
    """A score (see `score.py`): the metrics of `Classification`, of all prompts together, and
    `METRIC:lowest_prompt` and `METRIC:highest_prompt` over single ones, where METRIC is `accuracy` if one
    label is decided for, and else `macro_auroc`. Means over the draws of images.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], labels: Sequence[str]) -> None:
        """`truth` [N, L], `scores` [N, L] and, where labels exclude each other, `decisions` [N] as of
        Classification, or of each draw [N, D]; `drawn` [N, D] bool; to tell single prompts apart,
        `prompt_scores` [N, P, L] of P of them, and their `prompt_decisions` [N, P] or [N, P, D]. Raises as
        that does."""
        decided = "decisions" in arrays
        metric = "accuracy" if decided else "macro_auroc"
        self._drawn = arrays["drawn"].T.astype(np.float64)
        self._all = self._of_draws(
            {"truth": arrays["truth"], "scores": arrays["scores"]}, labels, arrays.get("decisions")
        )
        self._single: list[list[Classification]] = []
        alone = arrays.get("prompt_scores", np.empty((len(arrays["truth"]), 0, len(labels))))
        for prompt, scores in enumerate(alone.astype(np.float32).swapaxes(0, 1)):
            decisions = arrays["prompt_decisions"][:, prompt] if decided else None
            self._single.append(
                self._of_draws({"truth": arrays["truth"], "scores": scores}, labels, decisions)
            )
        self.names = self._all[0].names
        self._row = self.names.index(metric)
        if self._single:
            self.names = (*self.names, f"{metric}:lowest_prompt", f"{metric}:highest_prompt")

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        together = self._over_draws(self._all, weights)
        if not self._single:
            return together
        single = np.stack([self._over_draws(score, weights)[self._row] for score in self._single])  # [P, R]
        return np.vstack((together, single.min(axis=0), single.max(axis=0)))

    def _of_draws(
        self, arrays: Mapping[str, np.ndarray], labels: Sequence[str], decisions: np.ndarray | None
    ) -> list[Classification]:
        """One for each draw; the same one where decisions do not depend on it."""
        count = len(self._drawn)
        if decisions is None:
            return [Classification(arrays, labels)] * count
        if decisions.ndim == 1:
            return [Classification({**arrays, "decisions": decisions}, labels)] * count
        return [Classification({**arrays, "decisions": column}, labels) for column in decisions.T]

    def _over_draws(self, scores: Sequence[Classification], weights: np.ndarray) -> np.ndarray:
        """[M, R]"""
        pairs = zip(scores, self._drawn, strict=True)
        means: np.ndarray = np.mean([score(weights * draw[:, None]) for score, draw in pairs], axis=0)
        return means
