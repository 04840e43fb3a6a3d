"""Drawing a fraction of a dataset of the size of CheXpert, against reading its person column once."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
from pytest_benchmark.fixture import BenchmarkFixture

from harness.data import fractions


def test_a_draw_costs_little_more_than_grouping_the_rows(benchmark: BenchmarkFixture) -> None:
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(65_000), rng.integers(1, 6, 65_000))
    persons = np.array([f"patient{number:05d}" for number in person], dtype=object)
    labels = (rng.random((len(persons), 14)) < np.linspace(0.02, 0.4, 14)).astype(np.int8)
    start = time.perf_counter()
    pd.DataFrame(labels).groupby(persons).max()
    grouping = time.perf_counter() - start
    benchmark(fractions.draw, persons, labels, 0.01, 0)
    ratio = benchmark.stats.stats.median / grouping
    benchmark.extra_info["times the cost of one groupby"] = round(ratio, 1)
    assert ratio < 10
