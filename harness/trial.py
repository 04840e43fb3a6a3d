"""What a process does that Ray has started for cells: it computes them and reports what became of each.

Apart because a cell ends in the same way in every trial, whether its settings were searched for or not.
"""

from __future__ import annotations

import gc
import logging
import os
from collections.abc import Callable
from dataclasses import replace

import torch
from ray import tune

from harness import failures
from harness import run as pipeline
from harness.jobs import Job, complete
from harness.parallel import WORKERS
from harness.settings import Settings


def begin_process(settings: Settings, cores: int) -> Settings:
    """What a process that Ray has started for a sweep does first. `cores`: of the machine's cores, which the
    settings that it returns are of."""
    torch.set_num_threads(1)  # sums depend on it in the last digits; and two cells side by side are faster
    os.environ[WORKERS] = str(cores)  # what reads tables asks for it
    logging.getLogger("harness").setLevel(logging.WARNING)
    if not gc.get_freeze_count():
        gc.freeze()  # what is imported is no garbage: to look through it takes 0.15 s before each group
    return replace(settings, workers=cores)


def report_cell(job: Job, settings: Settings, compute: Callable[[Job], pipeline.Outcome]) -> bool:
    """Computes a cell that is not done and reports that it has ended, with a record or with a failure.
    Returns whether it has its record."""
    ended = {"cells": 1, "cell": job.cell.name}
    try:
        if complete(settings.results, job):  # by this trial, in a process that died, or by another sweep
            note = "done before"
        else:
            pipeline.require_results(settings.results)  # before hours whose record would find no room
            failures.begin(settings, job.tried)
            record = compute(job).record
            note = f"{record.metrics[record.task.metric].value * 100:.1f}"
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        try:
            failures.write(settings, job.tried, error)
        finally:  # also where no failure can be written: the sweep tells it then
            tune.report({**ended, "note": f"{job.cell.name}: {type(error).__name__}", "reason": reason})
        if spoils_process(error):
            raise
        return False
    failures.forget(settings.results, job.tried)
    tune.report({**ended, "note": f"{job.cell.name}: {note}", "reason": ""})
    return True


def spoils_process(error: Exception) -> bool:
    """Whether every later use of the GPU by this process fails too, as after an illegal access of its memory.
    Whoever raises it on has the trial tried again by a new process."""
    return "CUDA error" in str(error)
