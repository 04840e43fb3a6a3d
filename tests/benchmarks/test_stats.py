"""The person bootstrap against the loop over scikit-learn that it replaces."""

from __future__ import annotations

import time

import numpy as np
from pytest_benchmark.fixture import BenchmarkFixture
from sklearn.metrics import average_precision_score, roc_auc_score

from harness import stats
from harness.metrics.classification import Classification

REPLICATES = 1000
LOOPED = 20  # of the loop's replicates, scaled up: all of them take half a minute


def test_a_hundred_times_faster_than_a_loop_over_scikit_learn(benchmark: BenchmarkFixture) -> None:
    rng = np.random.default_rng(0)
    truth = (rng.random((4003, 5)) < 0.2).astype(np.int8)
    scores = rng.standard_normal(truth.shape) + truth
    persons = rng.integers(3000, size=4003)

    def loop() -> None:
        for weights in stats._image_weights(persons, LOOPED, np.random.default_rng(0)):
            for column in range(5):
                for weight in weights.T:
                    for metric in (roc_auc_score, average_precision_score):
                        metric(truth[:, column], scores[:, column], sample_weight=weight)

    loop()
    start = time.perf_counter()
    loop()
    looped = (time.perf_counter() - start) * REPLICATES / LOOPED

    def ours() -> None:
        score = Classification({"truth": truth, "scores": scores}, [str(column) for column in range(5)])
        stats.person_bootstrap(score, persons, replicates=REPLICATES, seed=0)

    benchmark(ours)
    median = benchmark.stats.stats.median
    benchmark.extra_info["times faster than scikit-learn"] = round(looped / median)
    assert looped / median > 100
