"""Which cells there are."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from harness import grid, registry
from harness.contracts import Split, Task
from harness.errors import UnknownName, UsageError
from harness.grid import Grid
from tests import fakes

TASK = Task(("linear",), ("Edema",), "macro_auroc", 1, {"clean": Split(test=0.2, validation=0.2)})


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


def test_where_no_label_is_used_there_is_one_cell_a_seed() -> None:
    found = cells(methods=["imitate"], tasks=["rsna:zero-shot"]).cells
    assert [(cell.fraction, cell.seed) for cell in found] == [(1.0, 0), (1.0, 1), (1.0, 2)]


def test_a_name_alone_is_the_default_kind_and_a_pattern_is_all_that_fit() -> None:
    assert {cell.task_id for cell in cells(tasks=["rsna"]).cells} == {"rsna:linear"}
    assert {cell.dataset for cell in cells(tasks=["covidx*:linear"]).cells} == {"covidx", "covidx_binary"}
    with pytest.raises(UnknownName, match="Did you mean 'rsna'"):
        cells(tasks=["rnsa"])
    with pytest.raises(UnknownName, match="Did you mean 'imitate'"):
        cells(methods=["imitat"])


def test_the_tasks_of_a_dataset_stand_together() -> None:
    found = cells(methods=["random_init"], tasks=["rsna:linear", "siim:linear", "rsna:detection"]).cells
    assert list(dict.fromkeys(cell.task_id for cell in found)) == [
        "rsna:linear",
        "rsna:detection",
        "siim:linear",
    ]


def test_what_is_named_twice_is_run_once() -> None:
    twice = cells(methods=["imitate", "imitate"], fractions=[1 / 3, 0.33333333, 1.0, 1.0], seeds=1).cells
    assert [cell.name for cell in twice] == [
        "imitate chexpert:linear clean 33.3333pct s0",
        "imitate chexpert:linear clean 100pct s0",
    ]


def test_a_dataset_of_one_s_own_is_named_by_its_file() -> None:
    sample = Path(__file__).resolve().parents[2] / "docs" / "chestxray14_sample.py"
    for task in (str(sample), f"{sample}:linear"):
        found = cells(methods=["random_init"], tasks=[task]).cells
        assert {(cell.source, cell.task_id) for cell in found} == {(str(sample), "chestxray14_sample:linear")}
        assert grid.pattern(task) == "chestxray14_sample:linear"
    of_file = cells(methods=["random_init"], tasks=[f"{sample}:*"]).cells
    assert {cell.task_id for cell in of_file} == {
        f"chestxray14_sample:{kind}" for kind in ("linear", "finetune")
    }
    with pytest.raises(UnknownName, match=r"unknown kind 'detect\*'"):
        cells(methods=["random_init"], tasks=[f"{sample}:detect*"])


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    """Their cells would have one record, and the second would be done when the first is."""
    methods, datasets = [], []
    for name in ("a", "b"):
        (folder := tmp_path / name).mkdir()
        methods.append(str(fakes.write_method(folder)))
        datasets.append(str(fakes.write_dataset(folder, replace(fakes.TOY, tasks=(TASK,)))))
    assert cells(methods=[methods[0], methods[0], "random_init"], tasks=[datasets[0], "chexpert"]).cells
    ours = str(grid.registry.entry("methods", "random_init").path)
    assert cells(methods=[ours, "random_init"]).cells == cells(methods=["random_init"]).cells
    with pytest.raises(UsageError, match=r"a/tiny\.py and .*b/tiny\.py are both called tiny\. Rename one"):
        cells(methods=methods)
    with pytest.raises(UsageError, match=r"a/toy\.py and .*b/toy\.py are both called toy"):
        cells(tasks=datasets)


def test_records_are_chosen_by_what_a_sweep_takes() -> None:
    asked = ("rsna", "rsna:*", "*", "xrays_of_others:linear", "xrays_of_others")
    assert [grid.pattern(task) for task in asked] == [
        "rsna:linear",
        "rsna:*",
        "*",
        "xrays_of_others:linear",
        "xrays_of_others:*",
    ]


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


def test_a_method_that_nobody_named_stops_no_other_for_want_of_a_profile(plug_in: str) -> None:
    assert plug_in in {cell.method.name for cell in cells(methods=[]).cells}
    found = cells(methods=[], profile="paper")
    assert "imitate" in {cell.method.name for cell in found.cells}
    assert found.impossible == {plug_in: "it has no paper profile"}
    for methods, profile in (([plug_in], "paper"), ([], "papre")):
        with pytest.raises(UnknownName, match="unknown profile"):
            cells(methods=methods, profile=profile)


@pytest.mark.parametrize("group", ["methods", "tasks"])
def test_what_is_broken_is_said_where_nothing_is_named(monkeypatch: pytest.MonkeyPatch, group: str) -> None:
    broken = EntryPoint("broken", "no_such_module", f"harness.{group}")

    def entry_points(group: str) -> list[EntryPoint]:
        return [broken] if group == broken.group else []

    monkeypatch.setattr(registry, "entry_points", entry_points)
    assert "no module no_such_module" in cells(**{group: []}).impossible["broken"]
    assert "broken" not in cells().impossible


@pytest.mark.parametrize("fraction", [0.0, 10.0])
def test_what_is_no_share_is_refused_before_anything_is_made(fraction: float) -> None:
    with pytest.raises(UsageError, match="a fraction is a share in"):
        cells(fractions=[0.1, fraction])
