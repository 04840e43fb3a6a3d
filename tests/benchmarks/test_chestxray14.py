"""A label file of the size of ChestX-ray14's, against the usual way: pandas, and a loop that takes every cell
apart for every label. Tables are read anew in every run.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from tasks.chestxray14 import HEADER, LABELS, multi_hot, read_labels

ROWS = 112_120


@pytest.fixture(scope="module")
def labels_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    hot = np.random.default_rng(0).random((ROWS, 14)) < np.linspace(0.002, 0.15, 14)
    words = ["|".join(np.array(LABELS)[row]) or "No Finding" for row in hot]
    rows = (
        f"{row // 4:08d}_{row % 4:03d}.png,{cell},{row % 4},{row // 4},58,M,PA,2682,2749,0.143,0.143"
        for row, cell in enumerate(words)
    )
    path = tmp_path_factory.mktemp("labels") / "Data_Entry_2017_v2020.csv"
    path.write_text("\n".join([",".join(HEADER), *rows]) + "\n")
    return path


def loop(cells: pd.Series) -> None:
    for name in LABELS:
        cells.map(lambda cell, name=name: name in cell.split("|"))


def test_multi_hot_labels(benchmark: BenchmarkFixture, labels_csv: Path) -> None:
    cells = pd.read_csv(labels_csv, dtype=str)["Finding Labels"]
    start = time.perf_counter()
    loop(cells)
    usual = time.perf_counter() - start
    benchmark(multi_hot, cells, labels_csv)
    ratio = usual / benchmark.stats.stats.median
    benchmark.extra_info["times faster than the loop"] = round(ratio, 1)
    assert ratio > 10


def test_the_whole_table_with_all_its_checks(benchmark: BenchmarkFixture, labels_csv: Path) -> None:
    start = time.perf_counter()
    loop(pd.read_csv(labels_csv)["Finding Labels"])
    usual = time.perf_counter() - start
    benchmark(read_labels, labels_csv)
    ratio = usual / benchmark.stats.stats.median
    benchmark.extra_info["times faster than pandas and the loop"] = round(ratio, 2)
    assert ratio > 1
