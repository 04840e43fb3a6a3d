"""The settings of trained heads, searched for before their cells are scored: Ray Tune's ASHA, on validation.

Apart from the sweep because a trial of Tune is another thing here: one configuration of a cell, not cells.
A cell's trials run one after the other in the order of its list, those of different cells side by side: what
ASHA (Li et al., MLSys 2020) stops then depends on the values alone, never on which trial was quicker. When
all have ended, one more trial fits the best configuration again and scores it.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler
from ray.tune.search import Searcher

from harness import failures
from harness import run as road
from harness.account import Arguments
from harness.cost import Cost
from harness.errors import HarnessError
from harness.evaluate import bench as benches
from harness.evaluate.search import Configuration, Space
from harness.jobs import Job, complete
from harness.parallel import WORKERS
from harness.records import TrialBlock
from harness.settings import Settings

GRACE, REDUCTION = 20, 3  # no trial is stopped before this per cent of its steps; the best third goes on
STOPPING = f"ASHA from {GRACE} % of the steps on, reduction {REDUCTION}, one trial after the other"


def run(
    jobs: Sequence[Job],
    settings: Settings,
    arguments: Arguments,
    gpus: float,
    run_config: tune.RunConfig,
) -> None:
    """Every job is of a tuned cell. Each report has a `note`, and how many `cells` it ends."""
    trial = partial(_trial, jobs=jobs, settings=settings, arguments=arguments)
    tune.Tuner(
        tune.with_resources(trial, {"cpu": 1, "gpu": gpus}),
        tune_config=tune.TuneConfig(
            search_alg=InOrder(jobs),
            scheduler=_Halving(jobs),
            num_samples=sum(job.cell.tuned + 1 for job in jobs),
            reuse_actors=True,
        ),
        run_config=run_config,
    ).fit()


def _space(job: Job) -> Space:
    return benches.tunable(job.cell.kind, job.cell.task, job.cell.protocol).SPACE


# --- which trial is next ------------------------------------------------------------------------------


@dataclass
class Search:
    """Of one cell: what is to be tried, and what came of it so far."""

    configurations: list[Configuration]  # its method has no say in them
    trials: list[TrialBlock] = field(default_factory=list)
    reason: str = ""  # of the first failure
    seconds: float = 0.0

    @property
    def over(self) -> bool:
        return len(self.trials) == len(self.configurations)

    def end(self, result: dict[str, Any]) -> None:
        """`result` is the trial's last report, or says how it died."""
        self.seconds += result.get("time_total_s", 0.0)
        self.reason = self.reason or result.get("reason", "")
        self.trials.append(
            TrialBlock(
                settings=dict(self.configurations[len(self.trials)]),
                steps=result.get("steps", 0),
                value=result.get("value"),
                ended=result.get("ended", "stopped"),
            )
        )


class InOrder(Searcher):
    """Hands out one trial of a cell at a time: its configurations, then what came of them all."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        super().__init__()
        self.searches = [Search(_space(job).configurations(job.cell.tuned, job.cell.seed)) for job in jobs]
        self.free = deque(range(len(jobs)))  # cells of which no trial runs
        self.running: dict[str, int] = {}  # trial -> cell

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        if not self.free:
            return None  # for now
        cell = self.running[trial_id] = self.free.popleft()
        return {"cell": cell, "search": self.searches[cell]}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        cell = self.running.pop(trial_id)
        if self.searches[cell].over:
            return  # the cell itself
        died = {"ended": "its process died", "reason": "its process died"}
        self.searches[cell].end(died if error or result is None else result)
        self.free.appendleft(cell)  # a cell that was begun is ended before another one begins

    def save_to_dir(self, *_: Any, **__: Any) -> None:
        """Nothing: a search that was cut off begins again."""


class _Halving(FIFOScheduler):
    """An ASHA for each cell."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.each = [asha(_space(job)) for job in jobs]

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self.each[trial.config["cell"]].on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        decision: str = self.each[trial.config["cell"]].on_trial_result(tune_controller, trial, result)
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        self.each[trial.config["cell"]].on_trial_complete(tune_controller, trial, result)


def asha(space: Space) -> ASHAScheduler:
    return ASHAScheduler(
        time_attr="percent",
        metric="value",
        mode=space.best,
        max_t=100,
        grace_period=GRACE,
        reduction_factor=REDUCTION,
        stop_last_trials=False,  # one that comes to its end says so itself
    )


def begin_process() -> None:
    """What a process that Ray has started for a sweep does first: there is one like it for every core."""
    torch.set_num_threads(1)  # sums depend on it in the last digits; and two cells side by side are faster
    os.environ[WORKERS] = "1"  # what reads tables asks for it
    logging.getLogger("harness").setLevel(logging.WARNING)


# --- a trial ------------------------------------------------------------------------------------------


def _trial(config: dict[str, Any], *, jobs: Sequence[Job], settings: Settings, arguments: Arguments) -> None:
    begin_process()
    job, search = jobs[config["cell"]], config["search"]
    if search.over:
        _score(job, search, settings, arguments)
    else:
        _try(job, search, settings)


def _try(job: Job, search: Search, settings: Settings) -> None:
    """One configuration. One that fails costs the search that one, and has no value."""
    number = len(search.trials)
    name = f"{job.cell.name}, {number + 1} of {len(search.configurations)} configurations"
    last: dict[str, Any] = {"cells": 0, "note": name, "steps": 0}

    def report(done: int, total: int, value: float) -> None:
        last.update(steps=done, percent=100 * done / total, value=value, note=f"{name}: {value:.3f}")
        tune.report({**last})

    try:
        prepared = road.prepare(job.cell, settings, job.checkpoint, Cost())
        road.attempt(prepared, job.cell, search.configurations[number], report)
    except Exception as error:
        if spoils_process(error):
            raise
        kind = type(error).__name__
        failed = {"steps": last["steps"], "ended": kind, "reason": f"{kind}: {error}"}
        tune.report({"cells": 0, "note": f"{name}: {kind}", **failed})
    else:
        tune.report({**last, "ended": "trained"})


def _score(job: Job, search: Search, settings: Settings, arguments: Arguments) -> None:
    """The cell itself, with the best of its configurations."""

    def compute(job: Job) -> road.Outcome:
        cost = Cost({"search": round(search.seconds, 3)})
        block = _space(job).block(STOPPING, search.trials)
        if block is None:
            raise HarnessError(
                f"none of {len(search.trials)} configurations could be fitted. Cure what the first one met: "
                f"{search.reason}"
            )
        prepared = road.prepare(job.cell, settings, job.checkpoint, cost)
        return road.finish(prepared, job.cell, arguments, cost, search=block)

    report_cell(job, settings, compute)


# --- a cell -------------------------------------------------------------------------------------------


def report_cell(job: Job, settings: Settings, compute: Callable[[Job], road.Outcome]) -> None:
    """Computes a cell that is not done and reports that it has ended, with a record or with a failure."""
    if complete(settings.results, job):  # by this trial, in a process that died, or by another sweep
        return
    try:
        failures.begin(settings, job.tried)
        record = compute(job).record
    except Exception as error:
        failures.write(settings, job.tried, error)
        tune.report({"cells": 1, "note": f"{job.cell.name}: {type(error).__name__}"})
        if spoils_process(error):
            raise
    else:
        failures.forget(settings.results, job.tried)
        value = record.metrics[record.task.metric].value * 100
        tune.report({"cells": 1, "note": f"{job.cell.name}: {value:.1f}"})


def spoils_process(error: Exception) -> bool:
    """Whether every later use of the GPU by this process fails too, as after an illegal access of its memory.
    Whoever raises it on has the trial tried again by a new process."""
    return "CUDA error" in str(error)
