"""What a sweep does before, around and after its cells: no Ray is started, and no cell is computed."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import resource
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from ray.tune.experiment import Trial

from harness import failures, grid, parallel, plan, sweep
from harness.account import Arguments
from harness.cluster import Machines
from harness.errors import HarnessError, NewerRecord, UsageError
from harness.jobs import Job, Known, Lost
from harness.plan import CellPlan
from harness.progress import Bar
from harness.settings import load
from tests import fakes
from tests.harness.command import harness

CHECKPOINT: Any = SimpleNamespace(name="floor-s0", card=SimpleNamespace(profile_name="demo", seed=0))


def jobs(count: int) -> list[Job]:
    return [
        Job(
            plan.cell("random_init", "chexpert", profile="demo", protocol="clean", fraction=1.0, seed=seed),
            CHECKPOINT,
            Known("phantom", "f" * 64, "b" * 64, True, ()),
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

    monkeypatch.setattr(sweep.pipeline, "prepare", lambda *_: object())
    monkeypatch.setattr(sweep.pipeline, "finish", finish)
    monkeypatch.setattr(sweep.trial, "complete", lambda _, job: job.cell.seed in done)
    monkeypatch.setattr(sweep.tune, "report", lambda _: None)
    monkeypatch.setattr(sweep.trial, "begin_process", lambda settings, _: settings)
    for _ in range(3):  # Tune begins a trial again whose process died
        with contextlib.suppress(Ended):
            sweep._trial(
                {"group": 0}, groups=[group], settings=settings, arguments=Arguments({}, {}), cores=1
            )
    assert tried == [0, 1, 2, 3, 4, 1, 1]
    assert not list(failures.read_all(tmp_path))  # it may be running
    assert [job.cell.seed for job in sweep._begun_last(group, settings)] == [0, 2, 3, 4, 1]  # next time too
    assert "its process was ended" in sweep._reasons(settings, [group[1]], {})[group[1].cell.name]
    [failure] = failures.read_all(tmp_path)
    assert failure.seed == 1 and failure.error == "ProcessDied"


def test_a_process_of_a_sweep_reads_tables_with_its_share_of_the_cores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With all of them in each process, a machine of many would start hundreds."""
    monkeypatch.setenv(parallel.WORKERS, "7")
    logger, threads = logging.getLogger("harness"), torch.get_num_threads()
    level = logger.level
    assert sweep.trial.begin_process(load(), 3).workers == 3
    logger.setLevel(level)  # this is no process of a sweep
    torch.set_num_threads(threads)
    assert parallel.workers() == 3


def test_cells_that_share_features_run_before_those_that_train(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And have all cores to decode with, however many the others are."""
    [frozen] = jobs(1)
    heavy = [frozen._replace(cell=replace(frozen.cell, kind="finetune", seed=seed)) for seed in range(9)]
    ran = []

    def run(groups: Sequence[Sequence[Job]], *_: object) -> None:
        ran.append([[job.cell.kind for job in group] for group in groups])

    monkeypatch.setattr(sweep.cluster, "join", lambda *_: Machines(8, 0.0, 8))
    monkeypatch.setattr(sweep, "_run_groups", run)
    sweep._tune([*heavy, frozen], load(), sweep.Options(None, None, 0), Arguments({}, {}))
    assert ran == [[["linear"]], [["finetune"]] * 9]


def test_a_process_whose_gpu_answers_errors_only_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every later cell of it would fail; a new process tries them, the culprit last."""
    broken, tried = [False], []

    def prepare(cell: CellPlan, *_: object) -> None:
        tried.append(cell.seed)
        broken[0] |= cell.seed == 1
        raise RuntimeError("CUDA error: an illegal memory access" if broken[0] else "out of luck")

    monkeypatch.setattr(sweep.pipeline, "prepare", prepare)
    monkeypatch.setattr(sweep.tune, "report", lambda *_: None)
    monkeypatch.setattr(sweep.trial, "begin_process", lambda settings, _: settings)
    settings, group = load(results=tmp_path), jobs(3)

    def process() -> None:
        broken[0] = False
        sweep._trial({"group": 0}, groups=[group], settings=settings, arguments=Arguments({}, {}), cores=1)

    with pytest.raises(RuntimeError, match="CUDA error"):
        process()
    assert tried == [0, 1]
    with pytest.raises(RuntimeError, match="CUDA error"):
        process()
    assert tried[2:] == [2, 0, 1]


def test_a_full_disk_is_the_reason_that_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every = jobs(1)
    monkeypatch.setattr(sweep, "_jobs", lambda *_: iter(every))
    monkeypatch.setattr(sweep, "_tune", lambda *_: full(tmp_path, monkeypatch) or {})
    wanted = grid.Grid((every[0].cell,), {})
    done = sweep.run(wanted, load(results=tmp_path), [], sweep.Options(None, None, 0), Arguments({}, {}))
    [reason] = done.failed.values()
    assert "no results can be written" in reason and "No space left" in reason


def test_a_cell_that_lacks_its_data_fails_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [job] = jobs(1)
    lost = Lost(job.tried, HarnessError("no table"))
    monkeypatch.setattr(sweep.jobs, "match", lambda *_: iter([lost]))
    wanted, nothing = grid.Grid((job.cell,), {}), sweep.Options(None, None, 0)
    done = sweep.run(wanted, load(results=tmp_path), [], nothing, Arguments({}, {}))
    assert done.failed == {job.cell.name: "no table"} and done.left == 0
    assert [failure.reason for failure in failures.read_all(tmp_path)] == ["HarnessError: no table"]


@pytest.mark.parametrize("error", [NewerRecord("Update it"), PermissionError(errno.EACCES, "another's")])
def test_a_record_that_cannot_be_judged_costs_its_cell_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def complete(_: Path, job: Job) -> bool:
        if job.cell.seed == 0:
            raise error
        return True

    every = jobs(3)
    monkeypatch.setattr(sweep, "_jobs", lambda *_: iter(every))
    monkeypatch.setattr(sweep.jobs, "complete", complete)
    wanted, nothing = grid.Grid(tuple(job.cell for job in every), {}), sweep.Options(None, None, 0)
    done = sweep.run(wanted, load(results=tmp_path), [], nothing, Arguments({}, {}))
    assert (done.before, done.left, done.failed) == (2, 0, {every[0].cell.name: str(error)})
    assert [failure.error for failure in failures.read_all(tmp_path)] == [type(error).__name__]


def test_a_record_that_nobody_here_can_read_may_appear_during_a_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a cell of somebody with a newer harness, say, in the same folder."""
    every, ran, told = jobs(3), [], {}

    def complete(_: Path, job: Job) -> bool:
        if job.cell.seed == 0 and appeared:
            raise NewerRecord("Update it")
        return job.cell.seed in ran

    def work(todo: Sequence[Job], *_: object) -> dict[str, str]:
        appeared.append(True)
        monkeypatch.setattr(sweep.trial, "complete", complete)
        monkeypatch.setattr(sweep.tune, "report", lambda said: told.update({said["cell"]: said["reason"]}))
        assert [sweep.trial.report_cell(job, settings, compute) for job in todo] == [False, True, True]
        return told

    def compute(job: Job) -> Any:
        ran.append(job.cell.seed)
        return SimpleNamespace(record=fakes.record())

    appeared: list[bool] = []
    settings = load(results=tmp_path)
    monkeypatch.setattr(sweep, "_jobs", lambda *_: iter(every))
    monkeypatch.setattr(sweep.jobs, "complete", complete)
    monkeypatch.setattr(sweep, "_tune", work)
    wanted, nothing = grid.Grid(tuple(job.cell for job in every), {}), sweep.Options(None, None, 0)
    done = sweep.run(wanted, settings, [], nothing, Arguments({}, {}))
    assert ran == [1, 2] and done.done == 2
    assert done.failed == {every[0].cell.name: "NewerRecord: Update it"}


def test_cells_that_fail_for_one_reason_are_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    found = ("--methods", "random_init", "--tasks", "siim:linear", "--data-root", tmp_path / "empty")
    said = harness("sweep", *found, "--results", tmp_path / "results").err
    [line] = [line for line in said.splitlines() if line.startswith("failed: ")]
    assert line.startswith("failed: random_init siim:linear clean 1pct s0 and 14 more: no SIIM")
    assert len(list(failures.read_all(tmp_path / "results"))) == 15


def test_which_gpu_a_cell_has_is_said_by_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It shows a process the one that it may use, as the first."""
    devices = []
    monkeypatch.setenv("HARNESS_DEVICE", "cuda:1")
    monkeypatch.setattr(sweep, "_jobs", lambda *_: jobs(1))
    monkeypatch.setattr(sweep, "_tune", lambda todo, settings, *_: devices.append(settings.device) or {})
    nothing = sweep.Options(None, None, 0)
    sweep.run(grid.Grid((), {}), load(results=tmp_path), [], nothing, Arguments({}, {}))
    assert devices == ["cuda"]


def test_a_limit_is_kept_before_checkpoints_are_made_and_begun_cells_come_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every, asked, ran = jobs(4), [], []

    def matched(*_: object) -> Iterator[Job]:
        for job in every:
            asked.append(job.cell.seed)
            yield job

    settings = load(results=tmp_path)
    failures.begin(settings, every[0].tried)
    monkeypatch.setattr(sweep, "_jobs", matched)
    monkeypatch.setattr(sweep, "_tune", lambda todo, *_: ran.extend(job.cell.seed for job in todo) or {})
    wanted = grid.Grid(tuple(job.cell for job in every), {})
    done = sweep.run(wanted, settings, [], sweep.Options(None, 2, 0), Arguments({}, {}))
    assert (asked, ran, done.left) == ([0, 1, 2], [1, 2], 2)
    assert failures.known(settings.results, every[0].tried)  # it will not run, and is not forgotten
    sweep.run(wanted, settings, [], sweep.Options(None, None, 0), Arguments({}, {}))
    assert ran[2:] == [1, 2, 3, 0]


def in_the_way(folder: Path, patch: pytest.MonkeyPatch) -> None:
    folder.write_text("")


def full(folder: Path, patch: pytest.MonkeyPatch) -> None:
    def write(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left")

    patch.setattr("tempfile.TemporaryFile", write)


@pytest.mark.parametrize(("spoil", "reason"), [(in_the_way, "File exists"), (full, "No space left")])
def test_results_that_cannot_be_written_are_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[..., None], reason: str
) -> None:
    work: list[object] = []
    monkeypatch.setattr(sweep.pipeline, "prepare", lambda *asked: work.append(asked))
    monkeypatch.setattr(sweep, "_jobs", lambda *asked: work.append(asked) or [])
    [job], settings = jobs(1), load(results=tmp_path / "results")
    spoil(settings.results, monkeypatch)
    message = f"{settings.results}: {reason}.*--results"
    with pytest.raises(UsageError, match=message):
        sweep.pipeline.run(job.cell, settings, arguments=Arguments({}, {}))
    with pytest.raises(UsageError, match=message):
        sweep.run(grid.Grid((), {}), settings, [], sweep.Options(None, None, 0), Arguments({}, {}))
    assert work == []


def test_a_time_limit_ends_it_as_ctrl_c_does_before_ray_has_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables are read before, which may take minutes."""

    def reading(*_: object) -> Iterator[Job]:
        os.kill(os.getpid(), signal.SIGTERM)
        yield from ()

    monkeypatch.setattr(sweep, "_jobs", reading)
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with pytest.raises(KeyboardInterrupt):
            sweep.run(
                grid.Grid((), {}), load(results=tmp_path), [], sweep.Options(None, None, 0), Arguments({}, {})
            )
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("error", [ConnectionError("refused"), ValueError("Invalid address format")])
def test_an_address_at_which_nobody_answers_is_a_wrong_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def init(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(sweep.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(sweep.ray, "init", init)
    options = sweep.Options("10.0.0.9", None, 0)
    with pytest.raises(UsageError, match=r"no Ray cluster answers at --address 10\.0\.0\.9"):
        sweep.run(grid.Grid((), {}), load(results=tmp_path), [], options, Arguments({}, {}))


def test_what_a_cell_said_at_its_end_is_its_reason_where_it_is_written_nowhere(tmp_path: Path) -> None:
    """As on a cluster whose machines share no folder, or where another sweep took the file away."""
    settings, (lost, failed, silent) = load(results=tmp_path), jobs(3)
    told = {lost.cell.name: "", failed.cell.name: "no such picture"}
    reasons = sweep._reasons(settings, [lost, failed, silent], told)
    assert "its record was written on another machine and is not here" in reasons[lost.cell.name]
    assert reasons[failed.cell.name].endswith("no such picture")
    assert "it was not begun" in reasons[silent.cell.name]
    assert {failure.seed for failure in failures.read_all(tmp_path)} == {0, 1}


def test_a_record_that_would_fit_in_part_finds_no_room(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # as on a disk with so many bytes left
    try:
        with pytest.raises(UsageError, match=f"no results can be written to {tmp_path}"):
            sweep.pipeline.require_results(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_no_cell_is_computed_whose_record_would_find_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full, reports = Mock(side_effect=UsageError("no space")), list[dict[str, Any]]()
    monkeypatch.setattr(sweep.pipeline, "require_results", full)
    monkeypatch.setattr(sweep.trial.tune, "report", reports.append)
    compute, [job] = Mock(), jobs(1)
    sweep.trial.report_cell(job, load(results=tmp_path), compute)
    assert not compute.called and reports[0]["reason"] == "UsageError: no space"


def test_a_cell_that_is_done_already_is_counted_and_not_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another sweep, or by a process that died before it could say so."""
    (settings, [job]), compute, reports = (load(results=tmp_path), jobs(1)), Mock(), list[dict[str, Any]]()
    failures.begin(settings, job.tried)
    monkeypatch.setattr(sweep.trial, "complete", lambda *_: True)
    monkeypatch.setattr(sweep.trial.tune, "report", reports.append)
    assert sweep.trial.report_cell(job, settings, compute) and not compute.called
    [said] = reports
    assert (said["cells"], said["cell"], said["reason"]) == (1, job.cell.name, "")
    assert not failures.known(tmp_path, job.tried)


def test_a_cell_that_ends_twice_is_counted_once() -> None:
    bar, told = Bar("cells", 3, "cells"), dict[str, str]()
    shown = sweep._Shown(bar, told)
    for reason in ("no picture", ""):  # in a process that died later, and in the one that took over
        shown.on_trial_result(0, [], None, {"cells": 1, "note": "", "cell": "one", "reason": reason})
    shown.on_trial_result(0, [], None, {"cells": 0, "note": "1 of 3 configurations"})
    assert bar.done == 1 and told == {"one": ""}


def test_the_bar_says_how_much_is_running_before_the_first_cell_is_done() -> None:
    trials = [Trial("cell", stub=True) for _ in range(3)]
    trials[0].set_status(Trial.RUNNING)
    bar = Bar("cells", 3, "cells")
    sweep._Shown(bar, {}).on_trial_start(0, trials, trials[1])
    assert (bar.done, bar.note) == (0, "2 running")
