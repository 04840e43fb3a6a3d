"""A search is the same list for every method, in an order of its own, and only its best is scored."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ray.tune.search import Searcher

from harness import account, failures, plan, records, searches, tuning
from harness.account import Arguments
from harness.errors import TrainingDiverged
from harness.evaluate import finetune
from harness.evaluate.finetune import SPACE
from harness.evaluate.search import Range, Report, Space
from harness.files import write_text
from harness.jobs import Job, Known
from harness.pretrain.checkpoint import Checkpoint
from harness.searches import Search
from harness.settings import load
from harness.tuning import Halving, InOrder
from tests import fakes
from tests.harness.command import harness

CARD = SimpleNamespace(seed=0, profile_name="demo", weights="w" * 64, profile=fakes.PROFILE)


def begun(count: int, *methods: str) -> list[Search]:
    return [kept(job) for job in jobs(count, *methods)]


def kept(job: Job, home: Path | None = None) -> Search:
    settings = load()
    return searches.of(job, replace(settings, home=home or settings.home), tuning.STOPPING)


def jobs(count: int, *methods: str) -> list[Job]:
    cells = [
        plan.cell(method, "chexpert:finetune", profile="demo", protocol="clean", fraction=1, seed=0)
        for method in methods
    ]
    return [
        Job(
            replace(cell, tuned=count),
            cast(Checkpoint, SimpleNamespace(name="floor-s0", card=CARD)),
            Known("phantom", "f" * 64, "b" * 64, True, ()),
        )
        for cell in cells
    ]


def test_every_method_is_given_the_same_configurations() -> None:
    first, second = begun(5, "random_init", "imitate")
    assert first.configurations == second.configurations == SPACE.configurations(5, seed=0)


def test_trials_of_a_cell_come_one_after_the_other_and_the_cell_last() -> None:
    order = InOrder(begun(2, "random_init", "imitate"))
    suggested = [order.suggest("a"), order.suggest("b")]
    assert [found["cell"] for found in suggested if found] == [0, 1]
    assert order.suggest("c") is None  # both cells have a trial
    order.on_trial_complete("b", {"steps": 40, "percent": 20, "value": 0.5, "time_total_s": 2.0})
    again = order.suggest("d")
    assert again and again["cell"] == 1 and not again["search"].over
    order.on_trial_complete("d", error=True)
    whole = order.suggest("e")
    assert whole and whole["cell"] == 1 and whole["search"].over
    assert [(trial.value, trial.ended) for trial in whole["search"].trials] == [
        (0.5, "stopped"),
        (None, "its process died"),
    ]
    assert whole["search"].seconds == 2.0
    order.on_trial_complete("e", {"cells": 1})
    assert order.suggest("f") is None  # this one is scored, the other still has a trial
    order.on_trial_complete("a", {"steps": 200, "percent": 100, "value": 0.6, "ended": "trained"})
    last = order.suggest("g")
    assert last and last["cell"] == 0 and last["search"].trials[0].ended == "trained"


@pytest.mark.parametrize(("best", "sign"), [("max", 1), ("min", -1)])
def test_what_is_not_in_the_best_third_so_far_is_stopped(best: Any, sign: int) -> None:
    """Trial after trial, at the reports of a fifth and of three fifths of the steps."""
    scheduler = tuning.asha(Space(best, {"rate": Range(0.1, 0.01, 1.0)}))

    class Trial:
        def __init__(self, number: int) -> None:
            self.trial_id = str(number)

    def stopped_at(number: int, values: Sequence[float]) -> int | None:
        scheduler.on_trial_add(None, Trial(number))
        for percent, value in zip(range(10, 101, 10), values, strict=True):
            report = {"percent": percent, "value": sign * value}
            if scheduler.on_trial_result(None, Trial(number), report) == "STOP":
                return percent
        return None

    assert stopped_at(0, [5] * 10) is None  # the first has nobody beside it
    assert stopped_at(1, [9, 4, *[9] * 8]) == 20  # its first report does not count
    assert stopped_at(2, [6] * 5 + [4] * 5) == 60
    assert stopped_at(3, [0, 7, 0, 0, 0, 8, 0, 0, 0, 0]) is None
    assert stopped_at(4, [5.9] * 10) == 20  # two thirds of the way through 4, 5, 6, 7 is 6


def test_a_trial_that_fails_costs_one_and_all_that_fail_the_cell(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports: list[dict[str, Any]] = []
    monkeypatch.setattr(tuning.tune, "report", reports.append)
    settings, [job] = load(results=tmp_path), jobs(2, "random_init")

    def run_next(order: InOrder, name: str) -> None:
        suggested = order.suggest(name)
        assert suggested is not None
        search = suggested["search"]
        if search.over:
            tuning._score(job, search, settings, Arguments({}, {}))
        else:
            tuning._try(job, search, settings)
        order.on_trial_complete(name, reports[-1])

    def diverges(prepared: object, cell: object, configuration: object, report: Report) -> None:
        report(40, 200, 0.5)
        raise TrainingDiverged("the loss of step 41 is not finite")

    monkeypatch.setattr(tuning.pipeline, "prepare", lambda *_: None)
    monkeypatch.setattr(tuning.pipeline, "attempt", diverges)
    order = InOrder([kept(job)])
    run_next(order, "first")
    [trial] = order.searches[0].trials
    assert (trial.steps, trial.value, trial.ended) == (40, None, "TrainingDiverged")
    run_next(order, "second")
    run_next(order, "cell")
    assert reports[-1]["cells"] == 1 and sum(report["cells"] for report in reports) == 1
    assert [trial.ended for trial in kept(job).trials] == ["TrainingDiverged"] * 2  # as they would again
    [file] = (home / "searches").iterdir()
    assert "step 41" not in file.read_text()  # a reason may name a person
    reason = failures.reason(settings.results, job.tried)
    assert "none of 2 configurations could be fitted" in reason and "step 41 is not finite" in reason


def test_a_search_that_loses_a_trial_tries_no_more_and_scores_none_until_it_was_tried_again(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else methods would have other numbers of configurations, by chance. The other cell comes to its end."""
    monkeypatch.setattr(tuning.tune, "report", lambda _: None)
    settings, [job, other] = load(results=tmp_path), jobs(3, "random_init", "imitate")
    order = InOrder([kept(job), kept(other)])
    assert order.suggest("a") and order.suggest("first")
    diverged = {"ended": "TrainingDiverged", "reason": "the loss is nan"}  # as it would again
    order.on_trial_complete("a", diverged)
    again = order.suggest("b")
    assert again and again["cell"] == 0 and not again["search"].over
    order.on_trial_complete("b", error=True)
    lost = order.suggest("c")
    assert lost and lost["cell"] == 0 and lost["search"].over
    tuning._score(job, lost["search"], settings, Arguments({}, {}))
    reason = failures.reason(settings.results, job.tried)
    assert "configuration 2 of 3 was lost, " in reason and "best: its process died." in reason
    order.on_trial_complete("c", {"cells": 1})
    assert order.suggest("d") is None  # the other still has a trial
    ended = "first"
    for name in ("second", "third", "cell"):
        order.on_trial_complete(ended, {"percent": 100, "value": 0.4, "ended": "trained"})
        suggested = order.suggest(ended := name)
        assert suggested and suggested["cell"] == 1 and suggested["search"].over == (name == "cell")
    order.on_trial_complete("cell", {"cells": 1})
    assert order.suggest("e") == Searcher.FINISHED  # or Tune would wait for more
    assert len(kept(job).ended) == 1 and not kept(job).over  # the next sweep goes on there


def test_a_search_that_was_cut_off_goes_on_as_if_it_were_not(tmp_path: Path) -> None:
    """Values of a best of 9 at each report: what is stopped depends on all trials before."""
    values = [5, 4, 6, 3, 5.5, 7, 1]
    [job], spaces = jobs(len(values), "random_init"), [SPACE]

    def on(order: InOrder, scheduler: Halving, trials: int) -> Search:
        """Tune's part of some more trials."""
        for _ in range(trials):
            search = order.searches[0]
            name = f"{id(order)} {len(search.ended)}"
            assert order.suggest(name) == {"cell": 0, "search": search}
            trial: Any = SimpleNamespace(trial_id=name, config={"cell": 0})
            scheduler.on_trial_add(None, trial)
            for percent in range(10, 101, 10):
                told = {"percent": percent, "value": values[len(search.ended)], "steps": percent, "cells": 0}
                if scheduler.on_trial_result(None, trial, told) == "STOP":
                    break  # as in Tune, nobody else is told of it
                order.on_trial_result(name, told)
            else:
                told["ended"] = "trained"
            order.on_trial_complete(name, {**told, "time_total_s": 1.5})
        return order.searches[0]

    def new(home: str) -> tuple[InOrder, Halving]:
        found = [kept(job, tmp_path / home)]
        return InOrder(found), Halving(spaces, found)

    whole = on(*new("whole"), len(values))
    for part in (3, 2, 2):
        cut = on(*new("cut"), part)
    assert cut.trials == whole.trials and cut.over and cut.seconds == 10.5
    assert {trial.ended for trial in whole.trials} == {"trained", "stopped"}
    cut.forget()
    assert kept(job, tmp_path / "cut").ended == []


def test_what_was_kept_is_of_the_same_weights_data_and_head(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    [job] = jobs(3, "random_init")
    kept(job).end([], {"value": 0.5, "ended": "trained"})
    kept(job).end([], {"ended": "OutOfMemoryError", "reason": "no memory"})  # which may be cured
    kept(job).end([], {"ended": "TrainingDiverged", "reason": "the loss is nan"})
    assert [(trial.value, trial.ended) for trial in kept(job).trials] == [
        (0.5, "trained"),
        (None, "TrainingDiverged"),
    ]
    weights: Any = SimpleNamespace(
        name="floor-s0", card=SimpleNamespace(**vars(CARD) | {"weights": "v" * 64})
    )
    profile = replace(fakes.PROFILE, preprocessing=replace(fakes.PROFILE.preprocessing, size=7))
    other_input: Any = SimpleNamespace(
        name="floor-s0", card=SimpleNamespace(**vars(CARD) | {"profile": profile})
    )
    for other in (
        job._replace(checkpoint=weights),
        job._replace(known=job.known._replace(fingerprint="0" * 64)),
        job._replace(known=job.known._replace(split="0" * 64)),
        job._replace(pictures="0" * 64),
        job._replace(checkpoint=other_input),
        job._replace(cell=replace(job.cell, tuned=4)),
        job._replace(cell=replace(job.cell, seed=1)),
    ):
        assert kept(other).ended == []
    with monkeypatch.context() as mended:
        mended.setattr(account, "READING", (99, 1, 1))
        assert kept(job).ended == []
    assert len(kept(job).ended) == 2
    monkeypatch.setattr(finetune, "VERSION", finetune.VERSION + 1)
    search = kept(job)
    assert search.ended == []
    write_text(search.file, "{")
    assert kept(job).ended == [] and f"{search.file} is no search" in caplog.text


@pytest.mark.slow
def test_a_tuned_sweep_records_its_search_and_scores_the_best(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a network of 400 weights, on phantoms of few persons."""
    monkeypatch.setenv("HARNESS_WORKERS", "2")
    for dataset in ("chexpert", "mimic_cxr"):
        where = tmp_path / "data" / dataset
        assert harness("data", "phantom", dataset, "--root", where, "--persons", 100).code == 0
    wanted = ["--methods", fakes.write_method(tmp_path), "--tasks", "chexpert:finetune,chexpert:linear"]
    wanted += ["--fractions", 1, "--seeds", 2, "--data-root", tmp_path / "data", "--results", tmp_path]
    command = [sys.executable, "-m", "harness", "sweep", *map(str, wanted), "--tune", "3"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "--tune is for heads that are trained" in ended.stderr
    found = {record.cell.seed: record for _, record in records.read_all(tmp_path) if record.cell.tuned}
    assert found.keys() == {0, 1}
    for seed, record in found.items():
        head, search = record.head, record.head.search
        assert search is not None and record.cell.tuned == 3
        assert [trial.settings for trial in search.trials] == SPACE.configurations(3, seed)
        assert search.trials[0].ended == "trained"
        values = [trial.value for trial in search.trials if trial.value is not None]
        assert len(values) == 3 and values[search.chosen] == max(values)
        assert max(head.validation) == values[search.chosen]  # fitted again, it is the same
        assert {name: head.settings[name] for name in SPACE.ranges} == search.configuration
        assert record.cost.seconds["search"] > 0
    [plain] = {record.head.search for _, record in records.read_all(tmp_path) if not record.cell.tuned}
    assert plain is None
    for tune, done in ((["--tune", 3], "2"), (["--tune", 2], "0"), (list[object](), "0")):
        rows = harness("sweep", *wanted, *tune, "--dry-run").out.splitlines()
        [row] = [line.split() for line in rows if "finetune" in line]
        assert row[-4:-2] == [done, str(2 - int(done))]
