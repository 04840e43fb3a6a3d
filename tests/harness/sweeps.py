"""A small sweep as its own process, for tests that kill it: seconds of Ray around cells of milliseconds."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from harness import records
from tests import fakes
from tests.harness.command import harness

CELLS = 24


class Place(NamedTuple):
    data: Path
    method: Path
    home: Path  # with everything that cells share, so that only cells are left to do

    def arguments(self, results: Path, *more: object) -> list[str]:
        wanted = ["--methods", f"{self.method},random_init", "--tasks", "chexpert,rsna", "--seeds", 2]
        wanted += ["--fractions", "0.25,0.5,1"]
        where = ["--data-root", self.data, "--results", results]
        return [str(word) for word in ("sweep", *wanted, *where, *more)]

    def start(self, results: Path, *more: object) -> subprocess.Popen[str]:
        """A process group of its own, so that a test can kill all of it."""
        return subprocess.Popen(
            [sys.executable, "-m", "harness", *self.arguments(results, *more)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


def found(results: Path) -> dict[str, tuple[object, ...]]:
    """Metrics, choices and predictions of every record: what must not depend on how it came about."""
    return {
        str(path.relative_to(results)): (
            *(record.metrics, record.head, record.parts, record.data),
            path.with_suffix(".npz").read_bytes(),
        )
        for path, record in records.read_all(results)
    }


def prepare(root: Path, set_environment: Callable[[str, str], None]) -> Place:
    set_environment("HARNESS_HOME", str(root / "home"))
    set_environment("HARNESS_WORKERS", "2")
    set_environment("HARNESS_DATA", "")
    for dataset, persons in (("chexpert", 100), ("mimic_cxr", 60), ("rsna", 60)):
        where = root / "data" / dataset
        assert harness("data", "phantom", dataset, "--root", where, "--persons", persons).code == 0
    # the method's file as one types it: from where one stands, and not where the processes of a sweep do
    return Place(root / "data", Path(os.path.relpath(fakes.write_method(root))), root / "home")


def until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """While the sweep runs; it may also have come to its end."""
    while not condition() and process.poll() is None:
        time.sleep(0.02)


def written(results: Path) -> int:
    return sum(1 for _ in results.glob("phantom/**/*.json"))
