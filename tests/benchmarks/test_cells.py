"""What a cell of a frozen kind costs: against running the encoder in every epoch, as released codes do."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from harness.evaluate import bank, linear, logistic
from methods import imitate
from tests.harness.evaluate import parts

PICTURES = 2000  # half to train on, a quarter each for validation and test
FRACTIONS, SEEDS = (0.01, 0.1, 1.0), 5
EPOCHS = 50  # of MGCA's and GLoRIA's classification heads


def test_a_grid_of_probes_against_an_encoder_in_every_epoch(
    benchmark: BenchmarkFixture, tmp_path: Path
) -> None:
    """3 fractions x 5 seeds x 8 strengths x 3 labels. The released way is counted: pictures through the
    encoder, times what one takes here; its backward passes, decoding and heads are given away."""
    profile = imitate.CARD.profiles["demo"]
    labels = parts.several(PICTURES)
    pixels = np.random.default_rng(0).integers(0, 256, (PICTURES, 88, 88), dtype=np.uint8)
    model = imitate.build(profile, initialise=False)
    began = time.perf_counter()
    bank.encode(model, pixels, profile.preprocessing, torch.device("cpu"))
    encoding = time.perf_counter() - began

    train, validation, test = parts.examples(tmp_path, labels, parts.pictures(labels))
    rng = np.random.default_rng(1)
    hidden = rng.standard_normal((PICTURES, 32)) + np.hstack((labels, np.zeros((PICTURES, 29))))
    features = np.maximum(hidden @ rng.standard_normal((32, 512)), 0).astype(
        np.float32
    )  # as pooled by an encoder
    train.bench.memo["bank"] = bank.Bank(features, True, None)
    drawn = [
        train.take(np.random.default_rng(seed).permutation(len(train))[: round(share * len(train))])
        for share in FRACTIONS
        for seed in range(SEEDS)
    ]

    def grid() -> None:
        for used in drawn:
            linear.fit(train.bench, parts.TASK, used, validation, seed=0).predict(test)

    benchmark.pedantic(grid, rounds=3, warmup_rounds=1)
    ours = encoding + benchmark.stats.stats.median
    passed = sum(EPOCHS * (len(used) + len(validation)) + len(test) for used in drawn)
    released = encoding * passed / PICTURES
    benchmark.extra_info["pictures through the encoder, theirs and ours"] = [passed, PICTURES]
    benchmark.extra_info["times faster, if theirs tries one strength"] = round(released / ours)
    benchmark.extra_info["times faster"] = round(released * len(logistic.GRID) / ours)
    assert released * len(logistic.GRID) / ours > 250
