"""Stand-ins that tests of several rooms share: a valid record with predictions of any method and cell."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from harness import records
from harness.records import Predictions, Record

LABELS = ("Edema", "Atelectasis")


def record(
    *,
    method: str = "imitate",
    family: str = "imitate-demo-1a2b3c4d",
    kind: str = "phantom",
    fraction: float = 0.01,
    seed: int = 0,
    fingerprint: str = "f" * 64,
    version: int = 1,
) -> Record:
    """A record that keeps the schema; its numbers mean nothing."""
    share = {"value": 0.75, "low": 0.5, "high": 1.0}
    part = {"images": 20, "persons": 10, "positives": dict.fromkeys(LABELS, 10)}
    raw: dict[str, Any] = {
        "schema_version": 1,
        "written": datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC),
        "cell": {
            "method": method,
            "checkpoint": f"{family}-s{seed}",
            "task": "chexpert:linear",
            "protocol": "clean",
            "fraction": fraction,
            "seed": seed,
        },
        "task": {
            "kind": "linear",
            "version": version,
            "metric": "macro_auroc",
            "labels": LABELS,
            "frontal_only": True,
            "uncertain": {"Edema": 1},
            "blank": 0,
            "split": {"test": "valid", "validation": 0.1, "seed": 0},
        },
        "metrics": {"macro_auroc": share, **{f"auroc:{label}": share for label in LABELS}},
        "interval": {"level": 0.95, "replicates": 1000, "undefined": 0},
        "parts": dict.fromkeys(("train", "used", "validation", "test"), part),
        "data": {
            "kind": kind,
            "release": "",
            "fingerprint": fingerprint,
            "images": "a" * 64,
            "split": "b" * 64,
            "fraction": "c" * 64,
            "persons_known": True,
        },
        "pretraining": {
            "profile": "demo",
            "family": family,
            "seed": seed,
            "corpus": "mimic_cxr",
            "data_kind": "phantom",
            "weights": "d" * 64,
            "images_per_second": 100.0,
            "seconds": 60.0,
        },
        "preprocessing": {
            "size": 64,
            "stored": 72,
            "geometry": "pad",
            "mean": (0.5, 0.5, 0.5),
            "std": (0.25, 0.25, 0.25),
            "upsample": None,
        },
        "probe": {
            "strength": 1.0,
            "grid": (0.1, 1.0),
            "validation": (0.6, 0.7),
            "features": 8,
            "dtype": "float32",
        },
        "code": {
            "commit": "",
            "dirty": False,
            "version": "0.1.0",
            "python": "3.11.0",
            "platform": "Linux x86_64",
            "packages": {"numpy": "2.0.0"},
            "arguments": {"fraction": fraction},
            "defaults": {"checkpoint": None},
        },
        "cost": {
            "device": "cpu",
            "seconds": {"probe": 1.0},
            "peak_memory_mib": 500.0,
            "images_per_second": None,
            "cached": {"bank": True},
        },
    }
    return Record.model_validate(raw)


def predictions(seed: int = 0, skill: float = 1.0) -> Predictions:
    """20 test images of 10 persons; `skill` moves the scores of positives up."""
    rng = np.random.default_rng(seed)
    truth = np.array([[row // 2 % 2, (row // 2 + row) % 2] for row in range(20)])
    scores = rng.normal(size=truth.shape) + skill * truth
    images = [f"image-{row}" for row in range(20)]
    persons = [f"person-{row // 2}" for row in range(20)]
    return records.sorted_predictions(images, persons, truth, scores)


def write(results: Path, skill: float = 1.0, **changes: Any) -> Path:
    """A record of `record(**changes)` with its predictions in a folder of results."""
    made = record(**changes)
    return records.write(results, made, predictions(made.cell.seed, skill))
