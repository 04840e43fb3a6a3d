"""What a sweep costs a cell beyond the cell's own work, as it is and with a trial of Tune for each cell."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from ray import tune

from harness import jobs, records, sweep
from harness.jobs import Job
from tests.harness import sweeps
from tests.harness.command import harness

WORKERS = 2  # one for each of two tasks
SEEDS = 10


def beyond(results: Path) -> float:
    """Seconds per cell from the first record to the last, without what fitting and scoring took."""
    found = sorted((record for _, record in records.read_all(results)), key=lambda record: record.written)
    took = (found[-1].written - found[0].written).total_seconds() * WORKERS
    own = sum(record.cost.seconds["head"] + record.cost.seconds["test"] for record in found[1:])
    return (took - own) / (len(found) - 1)


@pytest.mark.skipif((os.cpu_count() or 1) < WORKERS, reason="needs two cores")
def test_a_cell_costs_at_most_a_tenth_of_a_second_beyond_its_own_work(
    benchmark: BenchmarkFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = sweeps.prepare(tmp_path, monkeypatch.setenv)

    def swept(name: str, seeds: int = SEEDS) -> float:
        results = tmp_path / name
        arguments = ["sweep", "--methods", place.method, "--tasks", "chexpert,rsna", "--seeds", seeds]
        where = ["--fractions", "0.25,0.5,1", "--data-root", place.data, "--results", results]
        done = harness(*arguments, *where)
        assert done.code == 0, done.err
        return beyond(results)

    swept("warm-up")  # pre-trains, decodes, and fills the banks
    together = benchmark.pedantic(swept, args=("together",), rounds=1)

    def each_alone(every: list[Job]) -> list[list[Job]]:
        return [[job] for job in every]

    default = tune.TuneConfig()
    monkeypatch.setattr(jobs, "grouped", each_alone)
    reused = swept("alone")
    monkeypatch.setattr(sweep.tune, "TuneConfig", lambda **_: default)
    alone = swept("alone, each in a process of its own", seeds=3)
    benchmark.extra_info["ms per cell beyond its own work"] = round(together * 1000)
    benchmark.extra_info["with a trial for each cell"] = round(reused * 1000)
    benchmark.extra_info["with a trial for each cell as Tune does it by default"] = round(alone * 1000)
    assert together < 0.1
    assert alone / together > 10
