"""What a sweep would do and cost, without doing it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from harness import grid, jobs, matrix, plan
from harness.data.locate import Located
from harness.errors import NewerRecord, UsageError
from harness.grid import Grid
from harness.jobs import Known
from harness.pretrain import make
from harness.settings import load
from tests import fakes

KNOWN = Known("phantom", "f" * 64, "b" * 64, True, ())


def cells(methods: Sequence[str] = ("random_init",), seeds: int = 1) -> Grid:
    return grid.cells(
        methods=methods,
        tasks=["chexpert"],
        protocols=["clean"],
        fractions=[1.0],
        seeds=seeds,
        profile="demo",
    )


def test_a_cell_costs_what_those_took_that_are_of_its_size_and_kind_of_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "_data", lambda *_, **__: KNOWN)
    wanted = cells()

    def seconds() -> float | None:
        [row] = matrix.matrix(wanted, load(results=tmp_path), []).rows
        return row.seconds

    fakes.write(tmp_path, kind="real")
    fakes.write(tmp_path, profile="paper", family="imitate-paper-1a2b3c4d")
    assert seconds() is None
    fakes.write(tmp_path)
    assert seconds() == 1.0


def test_a_record_of_a_phantom_that_is_not_drawn_yet_is_in_nobody_s_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The phantom will be the one that it was."""
    wanted = cells()
    [cell] = wanted.cells
    made = make.untrained(cell.method, load(), seed=0)
    family = made.name.rpartition("-s")[0]
    fakes.write(tmp_path, method="random_init", family=family, fraction=1.0)
    monkeypatch.setattr(jobs, "_data", lambda *_, **__: jobs.NOT_DRAWN)
    found = matrix.matrix(wanted, load(results=tmp_path), [made])
    assert (found.undrawn, found.in_the_way) == (1, {})
    monkeypatch.setattr(jobs, "_data", lambda *_, **__: KNOWN)
    assert matrix.matrix(wanted, load(results=tmp_path), [made]).in_the_way


def test_weights_of_others_cost_what_those_of_their_size_took(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan is of another size than the checkpoint that is named."""
    monkeypatch.setattr(jobs, "_data", lambda *_, **__: KNOWN)
    wanted = cells()
    made = make.untrained(wanted.cells[0].method, load(), seed=0)
    named = replace(made, card=made.card.model_copy(update={"profile_name": "paper"}))

    def seconds() -> float | None:
        [row] = matrix.matrix(wanted, load(results=tmp_path), [named]).rows
        return row.seconds

    fakes.write(tmp_path)
    assert seconds() is None
    fakes.write(tmp_path, profile="paper", family="imitate-paper-1a2b3c4d")
    assert seconds() == 1.0


@pytest.mark.parametrize("error", [NewerRecord("Update it"), PermissionError(13, "another's")])
def test_a_record_that_cannot_be_judged_is_said_of_its_cell_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def in_the_way(_: Path, job: jobs.Job) -> str:
        if job.cell.seed == 0:
            raise error
        return ""

    monkeypatch.setattr(jobs, "_data", lambda *_, **__: KNOWN)
    monkeypatch.setattr(matrix.jobs, "in_the_way", in_the_way)
    wanted = cells(seeds=2)
    made = [make.untrained(cell.method, load(), seed=cell.seed) for cell in wanted.cells]
    found = matrix.matrix(wanted, load(results=tmp_path), made)
    assert found.missing == {wanted.cells[0].name: str(error)}
    assert [row.left for row in found.rows] == [1]


def test_seeds_that_share_a_training_are_told_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is there, or one that will be made; of an untrained method every seed has its own."""
    monkeypatch.setattr(jobs, "_data", lambda *_, **__: KNOWN)
    wanted = cells(methods=["convirt", "gloria", "random_init"], seeds=3)
    there = make.untrained(wanted.cells[0].method, load(), seed=1)

    def find(method: plan.MethodPlan, *_: object) -> object:
        return there if method.name == "convirt" else None

    monkeypatch.setattr(jobs.weights, "fitting", find)
    of_convirt, of_gloria = matrix.matrix(wanted, load(results=tmp_path), []).borrowing
    assert (
        of_convirt.startswith("convirt: ") and "cells of seed 0, 2 differ by the draw of labels" in of_convirt
    )
    assert of_gloria.startswith("gloria: ") and "cells of seed 1, 2 differ by the draw of labels" in of_gloria
    assert matrix.matrix(wanted, load(results=tmp_path), [there]).borrowing == [of_gloria]


def test_two_reasons_of_one_dataset_are_both_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(method: plan.MethodPlan, *_: object) -> None:
        raise UsageError(f"{method.name} has checkpoints of several corpora")

    monkeypatch.setattr(jobs, "_data", lambda *_, **__: KNOWN)
    monkeypatch.setattr(jobs.weights, "fitting", find)
    found = matrix.matrix(cells(methods=["convirt", "gloria"]), load(results=tmp_path), [])
    assert list(found.missing.values()) == [
        f"{name} has checkpoints of several corpora" for name in ("convirt", "gloria")
    ]


def test_a_training_that_would_find_no_corpus_is_said_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "_data", lambda *_, **__: KNOWN._replace(kind="real"))
    monkeypatch.setattr(matrix.weights, "fitting", lambda *_: None)
    wanted = {
        profile: grid.cells(
            methods=["convirt", "random_init"],
            tasks=["chexpert"],
            protocols=["clean"],
            fractions=[1.0],
            seeds=2,
            profile=profile,
        )
        for profile in ("paper", "demo")
    }
    (root := tmp_path / "data").mkdir()
    current = load(root, tmp_path / "results")
    found = matrix.matrix(wanted["paper"], current, [])
    of_convirt = [cell.name for cell in wanted["paper"].cells if cell.method.name == "convirt"]
    assert list(found.missing) == of_convirt and found.untrained == {}
    [reason] = set(found.missing.values())
    assert "convirt would be pre-trained first, and there is no MIMIC-CXR" in reason and str(root) in reason
    assert [row.method for row in found.rows] == ["random_init"]
    found = matrix.matrix(wanted["demo"], current, [])
    assert (found.missing, found.untrained) == ({}, {"convirt": "a PHANTOM of mimic_cxr"})  # which stands in
    monkeypatch.setattr(matrix.locate, "real", lambda *_: Located(root, "real"))
    assert matrix.matrix(wanted["paper"], current, []).untrained == {"convirt": "mimic_cxr"}
    alone = load(results=tmp_path)
    assert matrix.matrix(wanted["paper"], alone, []).untrained == {"convirt": "a PHANTOM of mimic_cxr"}
