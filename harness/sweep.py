"""Many cells: on this machine's cores, on its GPUs, or on a Ray cluster, with nothing lost when killed.

Apart because how Ray Tune is used is the secret of this file, `trial.py` and `tuning.py`. What is done is
decided by the records alone (`jobs.py`), so that a sweep that was killed goes on by being started again.
Machines of a cluster share the folders of data, caches and results.
"""

from __future__ import annotations

import logging
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import ray
from ray import tune

from harness import cluster, failures, jobs, trial, tuning, weights
from harness import run as pipeline
from harness.account import Arguments
from harness.cluster import Machines
from harness.cost import Cost
from harness.errors import HarnessError, NewerRecord, UsageError
from harness.grid import FROZEN, Grid
from harness.jobs import Job
from harness.plan import CellPlan
from harness.pretrain.checkpoint import Checkpoint
from harness.progress import Bar
from harness.settings import Settings

logger = logging.getLogger(__name__)

os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # Tune's own banner; the bar below says what is worth saying
os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Ctrl-C ends a sweep, not one run of trials

PATIENCE = 30.0  # seconds between two looks at whether the machine of a training is still there

NOT_SHARED = (
    "its record was written on another machine and is not here. The machines of a cluster must share the "
    "folders of results and of HARNESS_HOME"
)


class Options(NamedTuple):
    address: str | None  # of a running Ray cluster; None: one is started here
    limit: int | None  # cells at most
    retries: int  # of a group of cells whose process died


@dataclass
class Summary:
    done: int = 0  # now
    before: int = 0  # by an earlier sweep
    left: int = 0  # beyond the limit, done or not
    failed: dict[str, str] = field(default_factory=dict)  # cell -> reason


def run(
    wanted: Grid, settings: Settings, named: Sequence[Checkpoint], options: Options, arguments: Arguments
) -> Summary:
    """Runs what has no record yet. A failing cell is written down and stops nothing else.

    `named` checkpoints are used for their methods: a cell takes the one whose number its seed is, modulo how
    many there are. For other methods the one of its seed is taken, or of the lowest, else one is made first.
    """
    cluster.end_as_by_ctrl_c()
    pipeline.require_results(settings.results)
    summary = Summary()
    settings = replace(settings, device=settings.device.partition(":")[0])  # which GPU is Ray's to say
    try:
        if options.address:
            cluster.join(settings, options.address)  # a wrong one is no failure of a cell
        untried: list[Job] = []
        begun: list[Job] = []
        for job in _jobs(wanted, settings, named, summary, options):
            try:
                complete = jobs.complete(settings.results, job)
            except (NewerRecord, OSError) as error:  # not for us to judge, nor to put aside
                failures.write(settings, job.tried, error)
                summary.failed[job.cell.name] = str(error)
                continue
            if complete:
                summary.before += 1
                continue
            (begun if failures.known(settings.results, job.tried) else untried).append(job)
            if len(untried) == options.limit:
                break  # before checkpoints are made that nobody needs
        todo = (untried + begun)[: options.limit]
        for line in jobs.borrowing(job.tried for job in todo):
            logger.warning(line)
        summary.left = len(wanted.cells) - summary.before - len(summary.failed) - len(todo)
        jobs.put_aside(settings.results, todo)
        for job in todo:
            failures.forget(settings.results, job.tried)
        told = _tune(todo, settings, options, arguments) if todo else {}
    finally:
        ray.shutdown()
    undone = [job for job in todo if not _done(settings, job, told)]
    summary.done = len(todo) - len(undone)
    summary.failed |= _reasons(settings, undone, told)
    return summary


def _done(settings: Settings, job: Job, told: dict[str, str]) -> bool:
    """Whether a cell has its record now. Of one that is not for us to judge, the reason is written down, and
    `told` for where it cannot be."""
    try:
        return jobs.complete(settings.results, job)
    except (NewerRecord, OSError) as error:
        told[job.cell.name] = str(error)
        with suppress(OSError):
            failures.write(settings, job.tried, error)
        return False


def _reasons(settings: Settings, undone: Sequence[Job], told: Mapping[str, str]) -> dict[str, str]:
    """Why cells have no record. `told` is what their processes said when they ended, "" of a record."""
    try:
        pipeline.require_results(settings.results)
        for job in undone:
            failures.settle(settings, job.tried)
            if job.cell.name in told and not failures.known(settings.results, job.tried):
                failures.write(settings, job.tried, HarnessError(told[job.cell.name] or NOT_SHARED))
    except (OSError, UsageError) as error:  # a full disk takes no reasons either
        return {job.cell.name: told.get(job.cell.name) or str(error) for job in undone}
    return {job.cell.name: failures.reason(settings.results, job.tried) for job in undone}


# --- before the cells: checkpoints ------------------------------------------------------------------


def _jobs(
    wanted: Grid,
    settings: Settings,
    named: Sequence[Checkpoint],
    summary: Summary,
    options: Options,
) -> Iterator[Job]:
    """Every cell with its checkpoint and its data; where one cannot be had, the cell fails."""
    for job in jobs.match(wanted.cells, settings, named, partial(_made, settings, options)):
        if isinstance(job, Job):
            yield job
        elif job.error:
            failures.write(settings, job.tried, job.error)
            summary.failed[job.tried.cell.name] = str(job.error)


def _made(settings: Settings, options: Options, cell: CellPlan) -> Checkpoint:
    method = cell.method
    if method.profile.recipe:
        logger.warning(
            "%s has no checkpoint: it is pre-trained first, which may take long. Its log grows in %s",
            method.name,
            settings.checkpoints / f".{method.name}-{method.profile_name}-*.training",
        )
    return _by_ray(settings, options, cell, options.retries)


def _by_ray(settings: Settings, options: Options, cell: CellPlan, retries: int) -> Checkpoint:
    """Tried again by us: Ray would ask for the same again, and wait for ever where the largest machine has
    died. That one has, Ray knows only a while after its work has ended."""
    method = cell.method
    machine = cluster.join(settings, options.address)
    # a process that lived on would keep its part of a GPU from the cells
    make = ray.remote(max_calls=1 if machine.gpus else 0)(weights.made).options(
        num_cpus=machine.cores, num_gpus=machine.gpus, max_retries=0
    )
    asked = make.remote(method, settings, cell.seed)
    while not ray.wait([asked], timeout=PATIENCE)[0]:
        left = cluster.join(settings, options.address)
        if left.cores < machine.cores or left.gpus < machine.gpus:
            ray.cancel(asked, force=True)
            return _by_ray(settings, options, cell, retries)
    try:
        made: Checkpoint = ray.get(asked)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, HarnessError):
            raise error.cause from error
        more = ". To see where, run pretrain for it alone" if method.profile.recipe else ""
        raise HarnessError(
            f"{method.name} has no checkpoint: {type(error.cause).__name__}: {error.cause}{more}"
        ) from error
    except ray.exceptions.RayError as error:  # its process was killed: for memory, or with its machine
        if retries:
            return _by_ray(settings, options, cell, retries - 1)
        raise HarnessError(f"{method.name} has no checkpoint: {failures.DIED}") from error
    return made


# --- the cells --------------------------------------------------------------------------------------


def _tune(
    todo: Sequence[Job],
    settings: Settings,
    options: Options,
    arguments: Arguments,
) -> dict[str, str]:
    """One trial for each group of cells that share an encoder's features, then one for each other cell. Those
    first: they are fewer, so that each has more cores to decode with. Returns, of each cell that ended, why
    it has no record: "" where it has one."""
    machine = cluster.join(settings, options.address)
    storage = settings.home / "tune" / uuid.uuid4().hex[:12]
    told: dict[str, str] = {}
    try:
        with Bar("cells", len(todo), "cells") as bar:

            def config(name: str) -> tune.RunConfig:
                return tune.RunConfig(
                    name=name,
                    storage_path=str(storage),
                    verbose=0,
                    failure_config=tune.FailureConfig(max_failures=options.retries),
                    callbacks=[_Shown(bar, told)],
                )

            frozen = [job for job in todo if job.cell.kind in FROZEN]
            heavy = [job for job in todo if job.cell.kind not in FROZEN and not job.cell.tuned]
            for name, groups in (("frozen", jobs.grouped(frozen)), ("heavy", [[job] for job in heavy])):
                if groups:
                    _run_groups(groups, settings, arguments, machine, config(name))
            if tuned := [job for job in todo if job.cell.tuned]:
                cores = machine.cores_of_each(len(tuned))
                tuning.run(tuned, settings, arguments, machine.gpus, cores, config("tuned"))
    finally:
        shutil.rmtree(storage, ignore_errors=True)  # Tune's notes; what is done lies in the records
    return told


def _run_groups(
    groups: Sequence[Sequence[Job]],
    settings: Settings,
    arguments: Arguments,
    machine: Machines,
    run_config: tune.RunConfig,
) -> None:
    cores = machine.cores_of_each(len(groups))
    one = partial(_trial, groups=groups, settings=settings, arguments=arguments, cores=cores)
    tune.Tuner(
        tune.with_resources(one, {"cpu": 1, "gpu": machine.gpus}),
        param_space={"group": tune.grid_search(list(range(len(groups))))},
        tune_config=tune.TuneConfig(reuse_actors=True),
        run_config=run_config,
    ).fit()


def _begun_last(todo: Sequence[Job], settings: Settings) -> list[Job]:
    """A cell that ended its process before would do so again, and those behind it would never be tried."""
    return sorted(todo, key=lambda job: failures.known(settings.results, job.tried))


class _Shown(tune.Callback):
    def __init__(self, bar: Bar, told: dict[str, str]) -> None:
        self.bar, self.told = bar, told

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        others = sum(each.status == trial.RUNNING for each in trials if each is not trial)
        self.bar.advance(0, f"{others + 1} running")

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
        again = result.get("cell") in self.told  # by a process that took over from one that died
        self.bar.advance(0 if again else result["cells"], result["note"])
        if result["cells"]:
            self.told[result["cell"]] = result["reason"]


def _trial(
    config: Mapping[str, int],
    *,
    groups: Sequence[Sequence[Job]],
    settings: Settings,
    arguments: Arguments,
    cores: int,
) -> None:
    """The cells of one group; each is reported when its record is written, or why there is none."""
    settings = trial.begin_process(settings, cores)
    prepared: pipeline.Prepared | None = None

    def compute(job: Job) -> pipeline.Outcome:
        nonlocal prepared
        cost = Cost()
        if prepared is None:
            prepared = pipeline.prepare(job.cell, settings, job.checkpoint, cost)
        return pipeline.finish(prepared, job.cell, arguments, cost)

    for job in _begun_last(groups[config["group"]], settings):
        trial.report_cell(job, settings, compute)
