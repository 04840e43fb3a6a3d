"""Kills a sweep with SIGKILL at random times: `python -m tests.stress`, or `make stress`. About ten minutes.

No test: how long it takes is chance. Every round starts a sweep on an empty folder, kills it and all its
processes, lets it go on, and compares every metric, choice and prediction with those of a sweep that nobody
disturbed. It is killed somewhere between its first and its last second, and every other time, because cells
take moments at its end, when a random number of them is done.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.harness import sweeps
from tests.harness.sweeps import CELLS, Place, found, written

ROUNDS = 20


def finish(place: Place, results: Path) -> float:
    """Seconds of a sweep that runs to its end."""
    start = time.monotonic()
    process = place.start(results)
    said, _ = process.communicate()
    assert process.returncode == 0, said
    return time.monotonic() - start


def main() -> None:
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as root:
        place = sweeps.prepare(Path(root), os.environ.__setitem__)
        finish(place, Path(root) / "whole")
        takes = finish(place, Path(root) / "again")  # without the pre-training that the first one had to do
        whole = found(Path(root) / "whole")
        for number in range(1, ROUNDS + 1):
            results = Path(root) / str(number)
            process = place.start(results)
            start, after, cells = time.monotonic(), rng.uniform(0, takes), rng.randrange(1, CELLS)
            while process.poll() is None:
                if (written(results) >= cells) if number % 2 else (time.monotonic() - start >= after):
                    break
                time.sleep(0.002)
            after = time.monotonic() - start
            alive = process.poll() is None
            if alive:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            done = written(results)
            finish(place, results)
            assert found(results) == whole, f"round {number} of seed {seed} ended with other records"
            how = f"killed after {after:.1f} s with {done} of {CELLS} cells done" if alive else "was quicker"
            sys.stdout.write(f"{number}/{ROUNDS}: {how}; then the same records\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
