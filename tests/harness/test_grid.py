"""Which cells there are, and when one is done."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import grid, plan
from harness.errors import UnknownName
from harness.grid import Grid
from harness.pretrain import checkpoint, make
from harness.settings import load


def cells(**changes: object) -> Grid:
    wanted: dict[str, object] = {
        "methods": ["random_init", "imitate"],
        "tasks": ["chexpert"],
        "protocols": ["clean"],
        "fractions": [0.1, 1.0],
        "seeds": 3,
        "profile": "demo",
    }
    return grid.cells(**{**wanted, **changes})  # type: ignore[arg-type]


@pytest.mark.slow
def test_every_method_task_fraction_and_seed_once() -> None:
    found = cells(tasks=["chexpert", "rsna:*"]).cells
    names = [cell.name for cell in found]
    assert len(names) == len(set(names))
    of_linear = [cell for cell in found if cell.kind == "linear"]
    assert {(c.method.name, c.dataset, c.fraction, c.seed) for c in of_linear} == {
        (method, dataset, fraction, seed)
        for method in ("random_init", "imitate")
        for dataset in ("chexpert", "rsna")
        for fraction in (0.1, 1.0)
        for seed in range(3)
    }


def test_a_name_alone_is_the_default_kind_and_a_pattern_is_all_that_fit() -> None:
    assert {cell.task_id for cell in cells(tasks=["rsna"]).cells} == {"rsna:linear"}
    assert {cell.dataset for cell in cells(tasks=["covidx*:linear"]).cells} == {"covidx", "covidx_binary"}
    with pytest.raises(UnknownName, match="Did you mean 'rsna'"):
        cells(tasks=["rnsa"])
    with pytest.raises(UnknownName, match="Did you mean 'imitate'"):
        cells(methods=["imitat"])


def test_heads_that_are_trained_are_tuned_but_not_those_of_others() -> None:
    tasks, both = ["rsna:linear", "rsna:finetune", "rsna:detection"], ["clean", "published"]
    found = cells(methods=["random_init"], tasks=tasks, protocols=both, tuned=8).cells
    assert {(cell.kind, cell.protocol, cell.tuned) for cell in found} == {
        *(("linear", protocol, 0) for protocol in both),
        *((kind, "clean", 8) for kind in ("finetune", "detection")),
        *((kind, "published", 0) for kind in ("finetune", "detection")),
    }


def test_validation_labels_are_cut_where_labels_are_learnt_from() -> None:
    tasks, both = ["rsna:linear", "rsna:zero-shot", "rsna:finetune"], ["clean", "published"]
    found = cells(methods=["imitate"], tasks=tasks, protocols=both, cut_validation=True).cells
    assert {(cell.kind, cell.protocol) for cell in found if cell.cut_validation} == {
        ("linear", "clean"),
        ("finetune", "clean"),
    }
    assert not any(cell.cut_validation for cell in cells(tasks=tasks).cells)


def test_a_checkpoint_of_no_method_in_the_sweep_is_refused(home: Path) -> None:
    store = load().checkpoints
    method = plan.method("random_init", "demo")
    made = make.untrained(method, load(), seed=0)
    assert grid.checkpoints(store, cells(), [made.name]) == [checkpoint.read(made.folder)]
    with pytest.raises(UnknownName, match=made.name):
        grid.checkpoints(store, cells(), ["random_init-demo"])
    with pytest.raises(grid.UsageError, match="of no method in this sweep"):
        grid.checkpoints(store, cells(methods=["imitate"]), [made.name])
