"""What a sweep does before, around and after its cells: no Ray is started, and no cell is computed."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness import failures, plan, sweep
from harness.account import Arguments
from harness.jobs import Job
from harness.settings import load

CHECKPOINT: Any = SimpleNamespace(name="floor-s0", card=SimpleNamespace(weights="d" * 64))


def jobs(count: int) -> list[Job]:
    return [
        Job(
            plan.cell("random_init", "chexpert", profile="demo", protocol="clean", fraction=1.0, seed=seed),
            CHECKPOINT,
            "phantom",
            "f" * 64,
            "b" * 64,
        )
        for seed in range(count)
    ]


def test_a_cell_that_ends_its_process_keeps_no_other_from_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ended(BaseException):
        """What no process hears of: SIGKILL, for want of memory."""

    group, settings, done, tried = jobs(5), load(results=tmp_path), set[int](), []

    def finish(prepared: object, cell: plan.CellPlan, *_: object) -> Any:
        tried.append(cell.seed)
        if cell.seed == 1:
            raise Ended
        done.add(cell.seed)
        measured = {"auroc": SimpleNamespace(value=0.5)}
        return SimpleNamespace(record=SimpleNamespace(metrics=measured, task=SimpleNamespace(metric="auroc")))

    monkeypatch.setattr(sweep.road, "prepare", lambda *_: object())
    monkeypatch.setattr(sweep.road, "finish", finish)
    monkeypatch.setattr(sweep.jobs, "complete", lambda _, job: job.cell.seed in done)
    monkeypatch.setattr(sweep.tune, "report", lambda _: None)
    for _ in range(3):  # Tune begins a trial again whose process died
        with contextlib.suppress(Ended):
            sweep._trial(
                {"group": 0}, groups=[group], settings=settings, arguments=Arguments({}, {}), cores=1
            )
    assert tried == [0, 1, 2, 3, 4, 1, 1]
    [failure] = failures.read_all(tmp_path)
    assert failure.seed == 1 and failure.error == "ProcessDied"
    assert [job.cell.seed for job in sweep._begun_last(group, settings)] == [0, 2, 3, 4, 1]  # next time too
