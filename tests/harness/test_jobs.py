"""Which checkpoint and data a cell has, and when it is done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness import jobs, plan, records
from harness.jobs import Job
from harness.pretrain import make
from harness.settings import load
from tests import fakes


@pytest.fixture
def job(home: Path) -> Job:
    cell = plan.cell("random_init", "chexpert", profile="demo", protocol="clean", fraction=0.1, seed=0)
    return Job(cell, make.untrained(cell.method, load(), seed=0), "phantom")


def stored(results: Path, job: Job, **changes: object) -> Path:
    """A record as the job would leave it."""
    asked = job.cell
    made = fakes.record(
        method="random_init",
        fraction=0.1,
        version=asked.task.version,
        tuned=asked.tuned,
        cut_validation=asked.cut_validation,
    )
    origin = made.pretraining.model_copy(update={"weights": job.checkpoint.card.weights, **changes})
    cell = made.cell.model_copy(update={"checkpoint": job.checkpoint.name})
    made = made.model_copy(update={"cell": cell, "pretraining": origin})
    return records.write(results, made, fakes.predictions())


def test_a_cell_is_done_when_its_record_is_complete(tmp_path: Path, job: Job) -> None:
    assert not jobs.complete(tmp_path, job)
    path = stored(tmp_path, job)
    assert path == records.place_of(tmp_path, "phantom", job.block)
    assert jobs.complete(tmp_path, job)


def test_other_weights_under_the_same_name_are_another_cell(tmp_path: Path, job: Job) -> None:
    stored(tmp_path, job, weights="0" * 64)
    assert not jobs.complete(tmp_path, job)


def test_cells_with_other_options_are_told_apart(tmp_path: Path, job: Job) -> None:
    kinds = [
        job._replace(cell=replace(job.cell, tuned=tuned, cut_validation=cut))
        for tuned in (0, 4, 8)
        for cut in (False, True)
    ]
    for number, one in enumerate(kinds):
        assert [jobs.complete(tmp_path, other) is not None for other in kinds] == [
            place < number for place in range(len(kinds))
        ]
        stored(tmp_path, one)
    assert all(jobs.complete(tmp_path, one) for one in kinds)
    assert len({one.cell.name for one in kinds}) == len(kinds)


@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_a_corrupt_record_is_put_aside_and_done_again(tmp_path: Path, job: Job, suffix: str) -> None:
    path = stored(tmp_path, job)
    jobs.put_aside(tmp_path, job)
    assert jobs.complete(tmp_path, job)  # it was whole
    path.with_suffix(suffix).write_bytes(b"{")
    assert not jobs.complete(tmp_path, job)
    assert path.exists()  # asking changes nothing: a dry run asks too
    jobs.put_aside(tmp_path, job)
    assert not path.exists() and not path.with_suffix(".npz").exists()
    aside = list((tmp_path / jobs.QUARANTINE).iterdir())
    assert sorted(file.suffix for file in aside) == [".json", ".npz"]
    assert list(records.read_all(tmp_path)) == []  # the leaderboard no longer stumbles over it


def test_cells_that_read_the_same_features_stand_together(job: Job) -> None:
    frozen = [job._replace(cell=replace(job.cell, seed=seed)) for seed in range(6)]
    assert [len(group) for group in jobs.grouped(frozen)] == [6]
