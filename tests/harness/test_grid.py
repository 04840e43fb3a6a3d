"""Which cells there are, and when one is done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness import grid, plan, records
from harness.errors import UnknownName
from harness.grid import Grid, Job
from harness.pretrain import checkpoint, make
from harness.settings import load
from tests import fakes


def cells(**changes: object) -> Grid:
    wanted: dict[str, object] = {
        "methods": ["random_init", "imitate"],
        "tasks": ["chexpert"],
        "protocols": ["clean"],
        "fractions": [0.1, 1.0],
        "seeds": 3,
        "profile": "demo",
    }
    return grid.cells(**{**wanted, **changes})  # type: ignore[arg-type]


@pytest.mark.slow
def test_every_method_task_fraction_and_seed_once() -> None:
    found = cells(tasks=["chexpert", "rsna:*"]).cells
    names = [grid.describe(cell) for cell in found]
    assert len(names) == len(set(names))
    of_linear = [cell for cell in found if cell.kind == "linear"]
    assert {(c.method.name, c.dataset, c.fraction, c.seed) for c in of_linear} == {
        (method, dataset, fraction, seed)
        for method in ("random_init", "imitate")
        for dataset in ("chexpert", "rsna")
        for fraction in (0.1, 1.0)
        for seed in range(3)
    }


def test_a_name_alone_is_the_default_kind_and_a_pattern_is_all_that_fit() -> None:
    assert {cell.task_id for cell in cells(tasks=["rsna"]).cells} == {"rsna:linear"}
    assert {cell.dataset for cell in cells(tasks=["covidx*:linear"]).cells} == {"covidx", "covidx_binary"}
    with pytest.raises(UnknownName, match="Did you mean 'rsna'"):
        cells(tasks=["rnsa"])
    with pytest.raises(UnknownName, match="Did you mean 'imitate'"):
        cells(methods=["imitat"])


def test_heads_that_are_trained_are_tuned_but_not_those_of_others() -> None:
    tasks, both = ["rsna:linear", "rsna:finetune", "rsna:detection"], ["clean", "published"]
    found = cells(methods=["random_init"], tasks=tasks, protocols=both, tuned=8).cells
    assert {(cell.kind, cell.protocol, cell.tuned) for cell in found} == {
        *(("linear", protocol, 0) for protocol in both),
        *((kind, "clean", 8) for kind in ("finetune", "detection")),
        *((kind, "published", 0) for kind in ("finetune", "detection")),
    }


# --- done -------------------------------------------------------------------------------------------


@pytest.fixture
def job(home: Path) -> Job:
    cell = plan.cell("random_init", "chexpert", profile="demo", protocol="clean", fraction=0.1, seed=0)
    return Job(cell, make.untrained(cell.method, load(), seed=0), "phantom")


def stored(results: Path, job: Job, **changes: object) -> Path:
    """A record as the job would leave it."""
    tuned, version = job.cell.tuned, job.cell.task.version
    made = fakes.record(method="random_init", fraction=0.1, version=version, tuned=tuned)
    origin = made.pretraining.model_copy(update={"weights": job.checkpoint.card.weights, **changes})
    cell = made.cell.model_copy(update={"checkpoint": job.checkpoint.name})
    made = made.model_copy(update={"cell": cell, "pretraining": origin})
    return records.write(results, made, fakes.predictions())


def test_a_cell_is_done_when_its_record_is_complete(tmp_path: Path, job: Job) -> None:
    assert not grid.complete(tmp_path, job)
    path = stored(tmp_path, job)
    assert path == records.place_of(tmp_path, "phantom", job.block)
    assert grid.complete(tmp_path, job)


def test_other_weights_under_the_same_name_are_another_cell(tmp_path: Path, job: Job) -> None:
    stored(tmp_path, job, weights="0" * 64)
    assert not grid.complete(tmp_path, job)


def test_cells_with_and_without_a_search_are_told_apart(tmp_path: Path, job: Job) -> None:
    kinds = [job._replace(cell=replace(job.cell, tuned=tuned)) for tuned in (0, 4, 8)]
    for number, one in enumerate(kinds):
        assert [grid.complete(tmp_path, other) is not None for other in kinds] == [
            place < number for place in range(3)
        ]
        stored(tmp_path, one)
    assert all(grid.complete(tmp_path, one) for one in kinds)
    assert len(set(map(grid.describe, (one.cell for one in kinds)))) == 3


@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_a_corrupt_record_is_put_aside_and_done_again(tmp_path: Path, job: Job, suffix: str) -> None:
    path = stored(tmp_path, job)
    grid.put_aside(tmp_path, job)
    assert grid.complete(tmp_path, job)  # it was whole
    path.with_suffix(suffix).write_bytes(b"{")
    assert not grid.complete(tmp_path, job)
    assert path.exists()  # asking changes nothing: a dry run asks too
    grid.put_aside(tmp_path, job)
    assert not path.exists() and not path.with_suffix(".npz").exists()
    aside = list((tmp_path / grid.QUARANTINE).iterdir())
    assert sorted(file.suffix for file in aside) == [".json", ".npz"]
    assert list(records.read_all(tmp_path)) == []  # the leaderboard no longer stumbles over it


def test_a_checkpoint_of_no_method_in_the_sweep_is_refused(home: Path, job: Job) -> None:
    store = load().checkpoints
    assert grid.checkpoints(store, cells(), [job.checkpoint.name]) == [checkpoint.read(job.checkpoint.folder)]
    with pytest.raises(UnknownName, match=job.checkpoint.name):
        grid.checkpoints(store, cells(), ["random_init-demo"])
    with pytest.raises(grid.UsageError, match="of no method in this sweep"):
        grid.checkpoints(store, cells(methods=["imitate"]), [job.checkpoint.name])


def test_cells_that_read_the_same_features_stand_together(job: Job) -> None:
    seeds = [job._replace(cell=cell) for cell in cells(methods=["random_init"]).cells]
    assert [len(group) for group in grid.grouped(seeds)] == [6]


# --- failed -----------------------------------------------------------------------------------------


def test_a_failure_is_told_with_its_reason(tmp_path: Path, job: Job) -> None:
    assert "its process died" in grid.read_failure(tmp_path, job.cell)
    grid.write_failure(tmp_path, job.cell, OSError(28, "No space left on device"))
    assert grid.read_failure(tmp_path, job.cell) == "OSError: [Errno 28] No space left on device"
