"""The settings of trained heads, searched for before their cells are scored: Ray Tune's ASHA, on validation.

Apart from the sweep because a trial of Tune is another thing here: one configuration of a cell, not cells.
A cell's trials run one after the other in the order of its list, those of different cells side by side: what
ASHA (Li et al., MLSys 2020) stops then depends on the values alone, never on which trial was quicker. When
all have ended, one more trial fits the best configuration again and scores it; when one is lost, it writes
that down instead, and those that were to follow wait for the next sweep.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler
from ray.tune.search import Searcher

from harness import run as pipeline
from harness import searches, trial
from harness.account import Arguments
from harness.cost import Cost
from harness.errors import HarnessError
from harness.evaluate.search import Space
from harness.jobs import Job
from harness.searches import Search
from harness.settings import Settings

GRACE, REDUCTION = 20, 3  # no trial is stopped before this per cent of its steps; the best third goes on
STOPPING = f"ASHA from {GRACE} % of the steps on, reduction {REDUCTION}, one trial after the other"


def run(
    jobs: Sequence[Job],
    settings: Settings,
    arguments: Arguments,
    gpus: float,
    cores: int,
    run_config: tune.RunConfig,
) -> None:
    """Every job is of a tuned cell. Each report has a `note`, and how many `cells` it ends."""
    found = [searches.of(job, settings, STOPPING) for job in jobs]
    one = partial(_trial, jobs=jobs, settings=settings, arguments=arguments, cores=cores)
    tune.Tuner(
        tune.with_resources(one, {"cpu": 1, "gpu": gpus}),
        tune_config=tune.TuneConfig(
            search_alg=InOrder(found),
            scheduler=Halving([pipeline.tunable(job.cell).SPACE for job in jobs], found),
            num_samples=-1,  # until `InOrder` has no more: a search that loses a trial ends early
            reuse_actors=True,
        ),
        run_config=run_config,
    ).fit()


# --- which trial is next ------------------------------------------------------------------------------


class InOrder(Searcher):
    """Hands out one trial of a cell at a time: its configurations until its search is over, then the cell."""

    def __init__(self, found: Sequence[Search]) -> None:
        super().__init__()
        self.searches = found
        self.free = deque(range(len(found)))  # cells of which no trial runs
        self.running: dict[str, int] = {}  # trial -> cell
        self.reports: dict[str, list[dict[str, float]]] = {}  # of the trials that run

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        if not self.free:
            return None if self.running else self.FINISHED  # type: ignore[return-value]  # None: for now
        cell = self.running[trial_id] = self.free.popleft()
        self.reports[trial_id] = []
        return {"cell": cell, "search": self.searches[cell]}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if "value" in result:
            self.reports[trial_id].append({name: result[name] for name in ("percent", "value")})

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        cell = self.running.pop(trial_id)
        if self.searches[cell].over:
            return  # the cell itself
        died = {"ended": "its process died", "reason": "its process died"}
        last = died if error or result is None else result
        self.on_trial_result(trial_id, last)  # Tune tells nobody else of the last of one it stops
        self.searches[cell].end(self.reports.pop(trial_id), last)
        self.free.appendleft(cell)  # a cell that was begun is ended before another one begins

    def save_to_dir(self, *_: Any, **__: Any) -> None:
        """Nothing: searches keep themselves."""


class Halving(FIFOScheduler):
    """An ASHA for each cell, told of the trials that its search has kept."""

    def __init__(self, spaces: Sequence[Space], found: Sequence[Search]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.each = [asha(space) for space in spaces]
        for scheduler, search in zip(self.each, found, strict=True):
            for number, (reports, _) in enumerate(search.ended):
                trial: Any = SimpleNamespace(trial_id=f"kept {number}")
                scheduler.on_trial_add(None, trial)  # type: ignore[arg-type]
                for report in reports:
                    scheduler.on_trial_result(None, trial, report)  # type: ignore[arg-type]

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


# --- a trial ------------------------------------------------------------------------------------------


def _trial(
    config: dict[str, Any], *, jobs: Sequence[Job], settings: Settings, arguments: Arguments, cores: int
) -> None:
    settings = trial.begin_process(settings, cores)
    job, search = jobs[config["cell"]], config["search"]
    if search.over:
        _score(job, search, settings, arguments)
    else:
        _try(job, search, settings)


def _try(job: Job, search: Search, settings: Settings) -> None:
    """One configuration. One that diverges has no value; another failure may be cured, and until it is the
    cell has no number."""
    number = len(search.ended)
    name = f"{job.cell.name}, {number + 1} of {len(search.configurations)} configurations"
    last: dict[str, Any] = {"cells": 0, "note": name, "steps": 0}

    def report(done: int, total: int, value: float) -> None:
        last.update(steps=done, percent=100 * done / total, value=value, note=f"{name}: {value:.3f}")
        tune.report({**last})

    try:
        prepared = pipeline.prepare(job.cell, settings, job.checkpoint, Cost())
        pipeline.attempt(prepared, job.cell, search.configurations[number], report)
    except Exception as error:
        if trial.spoils_process(error):
            raise
        kind = type(error).__name__
        failed = {"steps": last["steps"], "ended": kind, "reason": f"{kind}: {error}"}
        tune.report({"cells": 0, "note": f"{name}: {kind}", **failed})
    else:
        tune.report({**last, "ended": "trained"})


def _score(job: Job, search: Search, settings: Settings, arguments: Arguments) -> None:
    """The cell itself, with the best of its configurations."""

    def compute(job: Job) -> pipeline.Outcome:
        if search.lost:
            number = len(search.ended)
            reason = search.reasons.get(number - 1, "it has no value")
            raise HarnessError(
                f"configuration {number} of {len(search.configurations)} was lost, so that nobody knows "
                f"which is the best: {reason}. Cure that and sweep again"
            )
        cost = Cost({"search": round(search.seconds, 3)})
        block = pipeline.tunable(job.cell).SPACE.block(STOPPING, search.trials)
        if block is None:
            raise HarnessError(
                f"none of {len(search.trials)} configurations could be fitted. Cure what the first one met: "
                f"{next(iter(search.reasons.values()), 'it diverged')}"
            )
        prepared = pipeline.prepare(job.cell, settings, job.checkpoint, cost)
        return pipeline.finish(prepared, job.cell, arguments, cost, search=block)

    if trial.report_cell(job, settings, compute):
        search.forget()
