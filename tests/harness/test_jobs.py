"""Which checkpoint and data a cell has, and when it is done."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import ray.exceptions

from harness import grid, jobs, plan, records, sweep
from harness.errors import HarnessError, UnknownName, UsageError
from harness.jobs import Job
from harness.pretrain import checkpoint, make
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


def test_data_that_changed_between_two_sweeps_are_named() -> None:
    before, after = (fakes.record(seed=seed) for seed in (0, 1))
    published = fakes.record(protocol="published", fingerprint="0" * 64)
    assert jobs.mixed([before, after, published]) == []  # protocols have parts of their own
    assert jobs.mixed([before, fakes.record(seed=1, fingerprint="0" * 64), published]) == [
        "chexpert:linear clean"
    ]
    other = after.data.model_copy(update={"split": "0" * 64})
    assert jobs.mixed([before, after.model_copy(update={"data": other})]) == ["chexpert:linear clean"]


def test_a_checkpoint_of_no_method_in_the_sweep_is_refused(home: Path, job: Job) -> None:
    def wanted(method: str) -> grid.Grid:
        return grid.cells(
            methods=[method],
            tasks=["chexpert"],
            protocols=["clean"],
            fractions=[1.0],
            seeds=1,
            profile="demo",
        )

    store, name = load().checkpoints, job.checkpoint.name
    assert jobs.checkpoints(store, wanted("random_init"), [name]) == [checkpoint.read(job.checkpoint.folder)]
    with pytest.raises(UnknownName, match=name):
        jobs.checkpoints(store, wanted("random_init"), ["random_init-demo"])
    with pytest.raises(UsageError, match="of no method in this sweep"):
        jobs.checkpoints(store, wanted("imitate"), [name])


@pytest.mark.parametrize(
    "error", [ray.exceptions.WorkerCrashedError(), ray.exceptions.OutOfMemoryError("full")]
)
def test_a_method_whose_pre_training_is_killed_fails_alone(
    error: Exception, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed:
        def options(self, **resources: float) -> Killed:
            return self

        def remote(self, *arguments: object) -> None:
            return None

    def get(reference: object) -> None:
        raise error

    monkeypatch.setattr(sweep, "_machines", lambda address: sweep._Machines(1, 0.0))
    monkeypatch.setattr(sweep.ray, "remote", lambda function: Killed())
    monkeypatch.setattr(sweep.ray, "get", get)
    cells = [
        plan.cell(method, "chexpert", profile="demo", protocol="clean", fraction=1.0, seed=0)
        for method in ("imitate", "random_init")
    ]
    made = make.untrained(cells[1].method, load(), seed=0)
    found = list(jobs.match(cells, load(), [], partial(sweep._made, load(), None)))
    assert isinstance(found[0][1], HarnessError) and "imitate has no checkpoint" in str(found[0][1])
    assert isinstance(found[1][1], Job) and found[1][1].checkpoint.name == made.name
