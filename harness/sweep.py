"""Many cells: on this machine's cores, on its GPUs, or on a Ray cluster, with nothing lost when killed.

Apart because how work is scheduled is one file's secret. Ray Tune runs it and shows it; what is done is
decided by the records alone (`grid.py`), so that a sweep that was killed goes on by being started again.
Machines of a cluster share the folders of data, caches and results.
"""

from __future__ import annotations

import logging
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any, NamedTuple

import ray
import torch
from ray import tune

from harness import grid, records
from harness import run as road
from harness.account import Arguments
from harness.contracts import DataKind
from harness.cost import Cost
from harness.data import locate
from harness.errors import HarnessError
from harness.grid import FROZEN, Grid, Job
from harness.plan import CellPlan, MethodPlan
from harness.pretrain.checkpoint import Checkpoint
from harness.progress import Bar
from harness.settings import Settings

HEAVY_CORES = 2  # of a cell that trains a network, where there is no GPU


class Options(NamedTuple):
    address: str | None  # of a running Ray cluster; None: one is started here
    limit: int | None  # cells at most
    retries: int  # of a group of cells whose process died


@dataclass
class Summary:
    done: int = 0  # now
    before: int = 0  # by an earlier sweep
    left: int = 0  # beyond the limit
    failed: dict[str, str] = field(default_factory=dict)  # cell -> reason


def run(
    wanted: Grid, settings: Settings, named: Sequence[Checkpoint], options: Options, arguments: Arguments
) -> Summary:
    """Runs what has no record yet. A failing cell is written down and stops nothing else.

    `named` checkpoints are used for their methods: a cell takes the one whose number its seed is, modulo how
    many there are. For other methods the newest fitting one is taken, else one is pre-trained first.
    """
    summary = Summary()
    with _cluster(options.address):
        gpus = 1.0 if "GPU" in ray.cluster_resources() else 0.0  # type: ignore[no-untyped-call]
        jobs = _jobs(wanted, settings, named, summary, gpus)
        todo = [job for job in jobs if not grid.is_done(settings.results, job)]
        summary.before = len(jobs) - len(todo)
        if options.limit is not None:
            todo, summary.left = todo[: options.limit], max(len(todo) - options.limit, 0)
        if todo:
            _tune(todo, settings, options, arguments, gpus)
        for job in todo:
            path = grid.failure_path(settings.results, job.cell)
            if grid.is_done(settings.results, job):
                path.unlink(missing_ok=True)
                summary.done += 1
            else:
                summary.failed[grid.describe(job.cell)] = grid.read_failure(settings.results, job.cell)
    return summary


os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # Tune's own banner; the bar below says what is worth saying


@contextmanager
def _cluster(address: str | None) -> Iterator[None]:
    ray.init(address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def matrix(wanted: Grid, settings: Settings, named: Sequence[Checkpoint]) -> list[list[str]]:
    """What there is to do, without doing it: task, method, cells done, cells to do, and the seconds that a
    cell of this task took so far (median of the records there are)."""
    spent: dict[str, list[float]] = {}
    for _, record in records.read_all(settings.results):
        if record.pretraining.profile == wanted.cells[0].method.profile_name:
            seconds = record.cost.seconds
            spent.setdefault(record.cell.task, []).append(seconds.get("head", 0) + seconds.get("test", 0))
    counts: dict[tuple[str, str], list[bool]] = {}
    for cell in wanted.cells:
        chosen = _existing(cell, settings, named)
        done = chosen is not None and grid.is_done(
            settings.results, Job(cell, chosen, _data_kind(cell, settings))
        )
        counts.setdefault((cell.task_id, cell.method.name), []).append(done)
    rows = []
    for (task, method), done_of in counts.items():
        each = f"{median(spent[task]):.1f}" if task in spent else "?"
        rows.append([task, method, str(sum(done_of)), str(len(done_of) - sum(done_of)), each])
    return rows


# --- before the cells: checkpoints ------------------------------------------------------------------


def _jobs(
    wanted: Grid,
    settings: Settings,
    named: Sequence[Checkpoint],
    summary: Summary,
    gpus: float,
) -> list[Job]:
    """Every cell with its checkpoint and the kind of its data; where one cannot be had, the cell fails."""
    jobs: list[Job] = []
    memo: dict[object, Any] = {}
    for cell in wanted.cells:
        method, seed = cell.method, cell.seed
        maker = method.name, seed if method.profile.recipe is None else None
        try:
            kind = _once(memo, cell.dataset, partial(_data_kind, cell, settings))
            chosen = _existing(cell, settings, named) or _once(
                memo, maker, partial(_made, method, settings, seed, gpus)
            )
        except HarnessError as error:
            grid.write_failure(settings.results, cell, error)
            summary.failed[grid.describe(cell)] = str(error)
            continue
        jobs.append(Job(cell, chosen, kind))
    return jobs


def _once(memo: dict[object, Any], key: object, make: Callable[[], Any]) -> Any:
    """What cannot be had is tried once, not once per cell: its error is raised again."""
    if key not in memo:
        try:
            memo[key] = make()
        except HarnessError as error:
            memo[key] = error
    if isinstance(memo[key], HarnessError):
        raise memo[key]
    return memo[key]


def _existing(cell: CellPlan, settings: Settings, named: Sequence[Checkpoint]) -> Checkpoint | None:
    if given := [item for item in named if item.card.method == cell.method.name]:
        return given[cell.seed % len(given)]
    return road.fitting(cell.method, settings, cell.seed)


def _made(method: MethodPlan, settings: Settings, seed: int, gpus: float) -> Checkpoint:
    make = ray.remote(road.made).options(num_cpus=_most_cores(), num_gpus=gpus)
    try:
        made: Checkpoint = ray.get(make.remote(method, settings, seed))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, HarnessError):
            raise error.cause from error
        raise HarnessError(f"{method.name} has no checkpoint: {error.cause!r}") from error
    return made


def _data_kind(cell: CellPlan, settings: Settings) -> DataKind:
    """Raises MissingDataset."""
    if not settings.data_roots:
        return "phantom"
    return locate.real(cell.dataset, cell.dataset_card, settings).kind


def _most_cores() -> int:
    """Of one machine of the cluster."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return max(int(node["Resources"].get("CPU", 1)) for node in nodes)


# --- the cells --------------------------------------------------------------------------------------


def _tune(
    todo: Sequence[Job],
    settings: Settings,
    options: Options,
    arguments: Arguments,
    gpus: float,
) -> None:
    """One trial for each group of cells that share an encoder's features, and one for each other cell."""
    storage = settings.home / "tune" / uuid.uuid4().hex[:12]
    with Bar("cells", len(todo), "cells") as bar:
        for heavy in (False, True):
            groups = [group for group in grid.grouped(todo) if (group[0].cell.kind not in FROZEN) == heavy]
            if not groups:
                continue
            cores = min(HEAVY_CORES, _most_cores()) if heavy else 1
            trial = partial(_trial, groups=groups, settings=settings, arguments=arguments, cores=cores)
            tune.Tuner(
                tune.with_resources(trial, {"cpu": cores, "gpu": gpus}),
                param_space={"group": tune.grid_search(list(range(len(groups))))},
                tune_config=tune.TuneConfig(reuse_actors=True),
                run_config=tune.RunConfig(
                    name="heavy" if heavy else "frozen",
                    storage_path=str(storage),
                    verbose=0,
                    failure_config=tune.FailureConfig(max_failures=options.retries),
                    callbacks=[_Shown(bar)],
                ),
            ).fit()
    shutil.rmtree(storage, ignore_errors=True)  # Tune's notes; what is done lies in the records


class _Shown(tune.Callback):
    def __init__(self, bar: Bar) -> None:
        self.bar = bar

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
        self.bar.advance(1, result["note"])


def _trial(
    config: Mapping[str, int],
    *,
    groups: Sequence[Sequence[Job]],
    settings: Settings,
    arguments: Arguments,
    cores: int,
) -> None:
    """The cells of one group; each is reported when its record is written, or why there is none."""
    torch.set_num_threads(cores)  # sums depend on it in the last digits: the same wherever a cell runs
    logging.getLogger("harness").setLevel(logging.WARNING)
    prepared = None
    for job in groups[config["group"]]:
        if grid.is_done(settings.results, job):  # this trial was begun before, by a process that died
            continue
        cost = Cost()
        try:
            if prepared is None:
                prepared = road.prepare(job.cell, settings, job.checkpoint, cost)
            record = road.finish(prepared, job.cell, arguments, cost).record
        except Exception as error:  # noqa: BLE001 - a cell may fail in any way: it is written down, and the next one runs
            grid.write_failure(settings.results, job.cell, error)
            tune.report({"note": f"{grid.describe(job.cell)}: {type(error).__name__}"})
            continue
        value = record.metrics[record.task.metric].value * 100
        tune.report({"note": f"{grid.describe(job.cell)}: {value:.1f}"})
