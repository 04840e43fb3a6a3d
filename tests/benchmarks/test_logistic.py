"""All strengths and labels of a linear probe against scikit-learn's one fit at a time, at equal objective."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from harness.evaluate import logistic

# Both stop by the gradient of the mean loss. With 1e-7 scikit-learn's objective is up to 7e-6 above the
# optimum, with its own 1e-4 more than half.
TOLERANCE = logistic.TOLERANCE


@pytest.mark.parametrize("n,d", [(29, 256), (40, 2048), (236, 256), (400, 512), (400, 2048), (2000, 256)])
def test_five_times_as_fast_as_a_loop_over_scikit_learn(benchmark: BenchmarkFixture, n: int, d: int) -> None:
    rng = np.random.default_rng(0)
    hidden = rng.standard_normal((n, 256)) / np.arange(1, 257) ** 0.7
    features = np.maximum(hidden @ rng.standard_normal((256, d)) + 0.3, 0)  # as pooled after a ReLU
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    margins = 2 * hidden[:, :5] / hidden[:, :5].std(axis=0) - 1
    truth = (rng.random(margins.shape) < 1 / (1 + np.exp(-margins))).astype(np.int8)

    def objective(w: np.ndarray, b: float, label: int, strength: float) -> float:
        margin = (2.0 * truth[:, label] - 1) * (features @ w + b)
        return float(strength * np.logaddexp(0, -margin).sum() + w @ w / 2)

    start = time.perf_counter()
    with threadpool_limits(1):  # as ours; with two it takes 10 to 50 times longer here, on two cores
        loop = {
            (s, label): LogisticRegression(C=strength, tol=TOLERANCE, max_iter=100_000).fit(
                features, truth[:, label]
            )
            for s, strength in enumerate(logistic.GRID)
            for label in range(5)
        }
    looped = time.perf_counter() - start
    weights, intercepts, _ = benchmark(logistic.solve, torch.from_numpy(features), truth, logistic.GRID)
    excess = [
        objective(weights[s, :, label].numpy(), float(intercepts[s, label]), label, logistic.GRID[s])
        / objective(theirs.coef_[0], theirs.intercept_[0], label, logistic.GRID[s])
        - 1
        for (s, label), theirs in loop.items()
    ]
    ratio = looped / benchmark.stats.stats.median
    benchmark.extra_info["times faster than scikit-learn"] = round(ratio, 1)
    benchmark.extra_info["objective against theirs, worst and best"] = [max(excess), min(excess)]
    assert max(excess) < 1e-9
    assert ratio > 5
