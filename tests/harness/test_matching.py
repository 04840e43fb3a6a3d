"""Cells find their data and their checkpoints, each of which is looked for once."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import ray.exceptions
from PIL import Image

from harness import jobs, plan, records, registry, sweep
from harness.cluster import Machines
from harness.contracts import Split, Task, Variant
from harness.data import cache, locate, task_data
from harness.errors import HarnessError
from harness.failures import Tried
from harness.files import write_text
from harness.jobs import Job, Known, Lost
from harness.phantom import STAMP, Cohort
from harness.pretrain import make
from harness.settings import Settings, load
from tests import fakes

KNOWN = Known("phantom", "f" * 64, "b" * 64, True, ())


TOY = """
import pandas as pd
from harness.contracts import *
from tests.fakes import read_toy, write_toy as write_phantom

CARD = {card!r}

def read(root):
    counted = root / "times read"
    counted.write_text(counted.read_text() + "x" if counted.exists() else "x")
    return read_toy(root).assign(**{{"label:Edema": [number % 2 for number in range(30)]}})
"""


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A dataset of one's own with two tasks, and its phantom under a data root."""
    splits: Any = {"clean": Split(0.3, 0.2)}
    tasks = [Task((kind,), ("Edema",), "macro_auroc", 1, splits) for kind in ("linear", "finetune")]  # type: ignore[arg-type]
    path = tmp_path / "toy.py"
    path.write_text(TOY.format(card=replace(fakes.TOY, tasks=tuple(tasks), corpus=None)))
    return path


def matched(toy: Path, settings: Settings) -> list[Any]:
    cells = [
        plan.cell("random_init", f"{toy}:{kind}", profile="demo", protocol="clean", fraction=1.0, seed=seed)
        for kind in ("linear", "finetune")
        for seed in (0, 1)
    ]
    store = [make.untrained(cell.method, settings, seed=cell.seed) for cell in cells[:2]]
    return list(jobs.match(cells, settings, store, make=None))


def test_a_job_knows_its_data_by_one_reading_of_its_table(tmp_path: Path, toy: Path) -> None:
    root = tmp_path / "data" / "toy"
    root.mkdir(parents=True)
    fakes.write_toy(root, Cohort("toy", 30, 0, (10, 10)), 1)
    found = matched(toy, load(data_root=tmp_path / "data"))
    located = locate.Located(root, "phantom")
    pool = task_data.load(
        located, registry.load("tasks", str(toy)), found[0].cell.dataset_card, found[0].cell.task, "clean"
    )
    digest = pool.parts.digest(pool.frame["image_id"].tolist())
    assert {job.known for job in found} == {("phantom", pool.fingerprint, digest, True, ())}
    assert [job.checkpoint.card.seed for job in found] == [0, 1, 0, 1]  # that of the cell's seed
    assert (root / "times read").read_text() == "xx"  # once for all, and once here


@pytest.mark.parametrize(("images", "said"), [(30, 0), (31, 1)])
def test_a_part_of_a_real_dataset_is_said_to_be_one_once(
    tmp_path: Path, toy: Path, caplog: pytest.LogCaptureFixture, images: int, said: int
) -> None:
    root = tmp_path / "data" / "toy"
    root.mkdir(parents=True)
    fakes.write_toy(root, Cohort("toy", 30, 0, (10, 10)), 1)
    (root / STAMP).unlink()
    card = registry.dataset_card(str(toy))
    whole = replace(card, variants=(Variant("whole", images),))
    toy.write_text(TOY.format(card=whole))
    assert len(matched(toy, load(data_root=tmp_path / "data"))) == 4
    assert caplog.text.count(f"toy in {root} has the counts of no known release") == said


def with_real_pictures(folder: Path) -> Settings:
    root = folder / "data" / "toy"
    root.mkdir(parents=True)
    fakes.write_toy(root, Cohort("toy", 30, 0, (10, 10)), 1)
    (root / STAMP).unlink()
    return load(data_root=folder / "data", results=folder / "results")


def pictures(job: Job, settings: Settings) -> cache.Wanted:
    square = job.checkpoint.card.profile.preprocessing
    frame = fakes.read_toy(settings.data_roots[0] / "toy")
    return cache.wanted("toy", frame, square.stored, square.geometry)


def test_pictures_that_were_replaced_under_their_names_are_told_from_those_of_a_record(
    tmp_path: Path, toy: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = with_real_pictures(tmp_path)
    job = matched(toy, settings)[0]
    asked = pictures(job, settings)
    pixels = cache.open_images(asked, folder=tmp_path / "elsewhere", workers=1).fingerprint

    def written(when: datetime) -> None:
        made = fakes.record(kind="real")
        known = {"fingerprint": job.known.fingerprint, "split": job.known.split, "images": pixels}
        changes = {
            "written": when,
            "cell": job.block,
            "data": made.data.model_copy(update=known),
            "pretraining": made.pretraining.model_copy(update={"weights": job.checkpoint.card.weights}),
            "preprocessing": job.identity.preprocessing,
        }
        records.write(settings.results, made.model_copy(update=changes), fakes.predictions())

    def seen() -> tuple[str | None, str, int]:
        """Pixels as they are now, what is in the way of the cell, and how often it is said that they are
        newer."""
        caplog.clear()
        found = matched(toy, settings)[0]
        said = caplog.text.count("toy has pictures that are newer than records of it, and are not decoded")
        return found.pixels, jobs.in_the_way(settings.results, found), said

    written(datetime.now(UTC) + timedelta(hours=1))
    assert seen() == (None, "", 0)
    written(datetime.now(UTC) - timedelta(hours=1))  # and a dataset that was copied since
    for picture in asked.paths:
        os.utime(picture, (0, 0))  # with the dates that its files had
    assert seen() == (None, "", 1)
    card = job.checkpoint.card.model_copy(update={"profile_name": "paper"})  # as of published weights
    assert len(list(jobs.match([job.cell], settings, [replace(job.checkpoint, card=card)], make=None))) == 1
    assert f"data prepare {job.cell.source} --profile paper{settings.data_option}" in caplog.text
    cache.open_images(asked, folder=settings.images, workers=1)
    assert seen() == (pixels, "", 0)
    Image.fromarray(255 - np.asarray(Image.open(asked.paths[3]))).save(asked.paths[3])
    assert seen() == (None, "", 1)
    other = cache.open_images(asked, folder=settings.images, workers=1).fingerprint
    assert seen() == (other, "it is of other pixels", 0)
    for index in settings.images.glob("*/index.json"):
        index.write_text("{")
    assert seen() == (None, "", 0)  # a broken cache is said where it is needed
    asked.paths[3].unlink()
    assert seen() == (None, "", 0)
    with monkeypatch.context() as closed:
        closed.setattr(records, "read", Mock(side_effect=PermissionError("another's")))
        assert matched(toy, settings)[0].pixels is None


def test_a_search_tells_pictures_that_were_replaced_from_those_it_has_seen(tmp_path: Path, toy: Path) -> None:
    settings = with_real_pictures(tmp_path)
    job = matched(toy, settings)[2]
    assert job.pictures is None  # of no search

    def seen() -> str | None:
        [found] = jobs.match([tuned.cell], settings, [job.checkpoint], make=None)
        assert isinstance(found, jobs.Job)
        return found.pictures

    tuned = job._replace(cell=replace(job.cell, tuned=3))
    asked = pictures(job, settings)
    before = seen()
    write_text(tuned.place(settings.results), "{")  # a record that nobody can read, to be put aside
    assert before and seen() == before
    cache.open_images(asked, folder=settings.images, workers=1)
    assert seen() == before
    Image.fromarray(255 - np.asarray(Image.open(asked.paths[3]))).save(asked.paths[3])
    assert seen() not in (None, before)


def test_whoever_only_looks_draws_no_phantom_and_finds_none_of_it_done(toy: Path, home: Path) -> None:
    assert {job.known for job in matched(toy, load())} == {jobs.NOT_DRAWN}
    assert not list((home / "phantoms").rglob("*.png"))


def test_a_dataset_that_cannot_be_read_costs_its_own_cells(tmp_path: Path, toy: Path) -> None:
    (tmp_path / "data" / "toy").mkdir(parents=True)
    (tmp_path / "data" / "toy" / "reports.csv").write_text("nothing\n")
    found = matched(toy, load(data_root=tmp_path / "data"))
    assert len(found) == 4
    assert {each.tried.data for each in found} == {"real"}
    assert "toy cannot be read: KeyError: 'image_id'" in str(found[0].error)


def test_a_phantom_under_a_data_root_fails_as_a_phantom(tmp_path: Path, toy: Path) -> None:
    root = tmp_path / "data" / "toy"
    root.mkdir(parents=True)
    fakes.write_toy(root, Cohort("toy", 30, 0, (10, 10)), 1)
    (root / "reports.csv").write_text("nothing\n")
    assert {each.tried.data for each in matched(toy, load(data_root=tmp_path / "data"))} == {"phantom"}


@pytest.mark.parametrize(("method", "tried"), [("imitate", 1), ("random_init", 3)])
def test_one_checkpoint_for_all_seeds_is_tried_once(
    home: Path, monkeypatch: pytest.MonkeyPatch, method: str, tried: int
) -> None:
    made = []

    def fails(cell: plan.CellPlan) -> None:
        made.append(cell.seed)
        raise HarnessError("it diverged")

    monkeypatch.setattr(jobs, "_data", lambda *_, **__: KNOWN)
    cells = [
        plan.cell(method, "chexpert", profile="demo", protocol="clean", fraction=fraction, seed=seed)
        for fraction in (0.1, 1.0)
        for seed in range(3)
    ]
    found = list(jobs.match(cells, load(), [], fails))  # type: ignore[arg-type]
    assert made == list(range(tried))
    assert all(isinstance(lost, Lost) and str(lost.error) == "it diverged" for lost in found)


@pytest.mark.parametrize(
    "error", [ray.exceptions.WorkerCrashedError(), ray.exceptions.OutOfMemoryError("full")]
)
def test_a_method_whose_pre_training_is_killed_fails_alone(
    error: Exception, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed:
        def options(self, **resources: float) -> Killed:
            return self

        def remote(self, *arguments: object) -> None:
            return None

    def get(reference: object) -> None:
        raise error

    monkeypatch.setattr(jobs, "_data", lambda *_, **__: KNOWN)
    monkeypatch.setattr(sweep.cluster, "join", lambda *_: Machines(1, 0.0, 1))
    monkeypatch.setattr(sweep.ray, "remote", lambda **_: lambda function: Killed())
    monkeypatch.setattr(sweep.ray, "wait", lambda asked, timeout: (asked, []))
    monkeypatch.setattr(sweep.ray, "get", get)
    cells = [
        plan.cell(method, "chexpert", profile="demo", protocol="clean", fraction=1.0, seed=0)
        for method in ("imitate", "random_init")
    ]
    made = make.untrained(cells[1].method, load(), seed=0)
    options = sweep.Options(None, None, 0)
    settings = load(data_root=tmp_path)  # a phantom may lie under a data root too
    found = list(jobs.match(cells, settings, [], partial(sweep._made, settings, options)))
    lost, other = found
    assert isinstance(lost, Lost) and lost.tried == Tried("phantom", cells[0], "", "demo")
    assert isinstance(lost.error, HarnessError) and "imitate has no checkpoint" in str(lost.error)
    assert isinstance(other, Job) and other.checkpoint.name == made.name
