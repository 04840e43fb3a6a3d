"""Every field in which records differ is named, and the test is that of harness/comparison.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from harness import comparison, differences, leaderboard, quarantine, records, stats
from harness.differences import Cell, Paired
from harness.errors import UsageError
from harness.metrics.classification import Classification
from tests import fakes

TRAINED = fakes.record().head.settings | {"steps": 40}  # until validation got no better


def changed(**blocks: dict[str, Any]) -> records.Record:
    raw = fakes.record().model_dump(mode="json")
    for block, values in blocks.items():
        raw[block].update(values)
    return records.Record.model_validate(raw)


@pytest.mark.parametrize(
    ("change", "name", "group", "values"),
    [
        ({"data": {"fingerprint": "e" * 64}}, "data.fingerprint", "inputs", ("f" * 64, "e" * 64)),
        ({"code": {"packages": {"numpy": "2.1.0"}}}, "code.packages.numpy", "inputs", ("2.0.0", "2.1.0")),
        ({"cost": {"device": "cuda"}}, "cost.device", "inputs", ("cpu", "cuda")),
        ({"head": {"settings": TRAINED}}, "head.settings.steps", "outcomes", ("(absent)", 40)),
        ({"head": {"candidates": [0.1]}}, "head.candidates", "outcomes", ([0.1, 1.0], [0.1])),
        ({"task": {"blank": None}}, "task.blank", "inputs", (0, None)),
        ({"head": {"chosen": {"strength": 9}}}, "head.chosen.strength", "outcomes", (1.0, 9)),
        ({"cost": {"seconds": {"head": 2.0}}}, "cost.seconds.head", "circumstances", (1.0, 2.0)),
        ({"pretraining": {"seconds": 61.0}}, "pretraining.seconds", "circumstances", (60.0, 61.0)),
        ({"code": {"defaults": {}}}, "code.defaults.checkpoint", "circumstances", (None, "(absent)")),
    ],
)
def test_a_field_that_differs_is_named_with_both_values(
    change: dict[str, Any], name: str, group: str, values: tuple[Any, Any]
) -> None:
    [found] = differences.fields(fakes.record(), changed(**change))
    assert (found.name, found.group, (found.first, found.second)) == (name, group, values)


def test_of_two_searches_the_trials_that_differ_are_named() -> None:
    trial = {"settings": {"learning_rate": 0.1}, "steps": 10, "value": 0.5, "ended": "trained"}
    search = {"space": {"learning_rate": [0.01, 1]}, "best": "max", "stopping": "ASHA", "chosen": 0}
    one, other = (
        changed(head={"search": {**search, "trials": [trial, {**trial, "value": value}]}})
        for value in (0.6, 0.7)
    )
    [found] = differences.fields(one, other)
    assert found == ("head.search.trials.1.value", 0.6, 0.7) and found.group == "outcomes"
    groups = {field.name: field.group for field in differences.fields(fakes.record(), one)}
    assert groups["head.search.trials.0.value"] == "outcomes" and groups["head.search.best"] == "inputs"


def test_a_metric_counts_as_one_field_and_equal_records_differ_in_none() -> None:
    share = {"value": 0.5, "low": 0.25, "high": 0.75}
    other = changed(metrics={"macro_auroc": share, "recall": share})
    found = differences.fields(fakes.record(), other)
    assert [(item.name, item.group, item.second) for item in found] == [
        ("metrics.macro_auroc", "outcomes", share),
        ("metrics.recall", "outcomes", share),
    ]
    assert differences.fields(other, other) == []


@pytest.mark.parametrize(("name", "values"), [("method_version", (1, 2)), ("device", ("Intel", "AMD"))])
def test_what_a_record_does_not_know_is_like_anything(name: str, values: tuple[Any, Any]) -> None:
    first, second = (changed(pretraining={name: value}) for value in values)
    assert [field.name for field in differences.fields(first, second)] == [f"pretraining.{name}"]
    assert differences.fields(fakes.record(), first) == differences.fields(first, fakes.record()) == []


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        ("cpu (1 threads)", "AMD EPYC (1 threads)", False),  # of before processors were named
        ("cpu (2 threads)", "AMD EPYC (1 threads)", True),
        ("Intel Xeon (1 threads)", "AMD EPYC (1 threads)", True),
        ("cpu (1 threads)", "NVIDIA H100", True),
    ],
)
def test_a_processor_that_was_not_named_is_like_any(one: str, other: str, told: bool) -> None:
    first, second = (changed(cost={"device": device}) for device in (one, other))
    for pair in ((first, second), (second, first)):
        assert [field.name for field in differences.fields(*pair)] == (["cost.device"] if told else [])


def cell(path: Path) -> Cell:
    return Cell(path, records.read(path))


def directly(first: list[Path], second: list[Path]) -> comparison.Difference:
    sides = []
    for paths in (first, second):
        found = [records.predictions(path) for path in paths]
        sides.append(
            stats.resampled(
                [stats.Run(number, number) for number in range(len(paths))],
                [Classification(each.arrays, fakes.LABELS) for each in found],
                found[0].persons,
                "macro_auroc",
                replicates=2000,
                seed=0,
            )
        )
    return comparison.paired_difference(*sides)


def test_two_records_are_tested_person_by_person(tmp_path: Path) -> None:
    paths = [fakes.write(tmp_path / name, skill) for name, skill in (("a", 2.0), ("b", 0.0))]
    found = differences.paired([cell(paths[0])], [cell(paths[1])])
    assert isinstance(found, Paired)
    assert found.difference == directly(paths[:1], paths[1:])
    assert found.difference.interval.value > 0.1
    assert (found.metric, found.first - found.second) == ("macro_auroc", found.difference.interval.value)
    assert found.first == pytest.approx(macro_auroc(records.predictions(paths[0]).arrays), abs=1e-12)


def macro_auroc(arrays: Mapping[str, np.ndarray]) -> float:
    return float(
        np.mean([roc_auc_score(arrays["truth"][:, label], arrays["scores"][:, label]) for label in (0, 1)])
    )


def test_a_number_that_its_predictions_do_not_give_is_not_tested(tmp_path: Path) -> None:
    first, other = (cell(fakes.write(tmp_path / name)) for name in "ab")
    value = other.record.metrics["macro_auroc"].model_copy(update={"value": 0.999})
    edited = other.record.model_copy(update={"metrics": {"macro_auroc": value}})
    told = differences.paired([first], [Cell(other.path, edited)])
    assert f"{other.path} says macro_auroc 0.999000, its predictions give 0." in str(told)


def _other_images(found: records.Predictions) -> records.Predictions:
    return found._replace(images=records.hashed([f"chexpert-image-{row}" for row in range(5, 25)]))


def _other_persons(found: records.Predictions) -> records.Predictions:
    persons = found.persons.copy()
    persons[:3] += 1
    return found._replace(persons=persons)


def _other_truth(found: records.Predictions) -> records.Predictions:
    return found._replace(arrays={**found.arrays, "truth": 1 - found.arrays["truth"]})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_other_images, "other test images: 20 and 20, 15 in common"),
        (_other_persons, "3 of them as other persons'"),
        (_other_truth, "other truths"),
    ],
)
def test_other_test_parts_are_not_tested_and_it_is_said_why(
    tmp_path: Path, change: Callable[[records.Predictions], records.Predictions], reason: str
) -> None:
    paths = [
        records.write(tmp_path / name, fakes.record(), found)
        for name, found in (("a", fakes.predictions()), ("b", change(fakes.predictions())))
    ]
    told = differences.paired([cell(paths[0])], [cell(paths[1])])
    assert isinstance(told, str)
    assert reason in told
    assert str(paths[1]) in told


@pytest.mark.parametrize(
    "asked",
    [{"fingerprint": "e" * 64}, {"draws": {"per_class": 2, "hashes": ["c" * 64]}}],
    ids=["reports", "draws"],
)
def test_searches_among_other_reports_are_not_tested(tmp_path: Path, asked: dict[str, Any]) -> None:
    """No truth lies beside a search's record, by which it would be noticed."""
    images = [f"image {row}" for row in range(20)]
    place = np.arange(40, dtype=np.int32).reshape(20, 1, 2) % 7
    found = records.sorted_predictions(images, images, {"place": place})
    share = {"value": (place[:, 0, 0] < 5).mean(), "low": 0.5, "high": 1.0}
    task = {"kind": "retrieval", "metric": "recall_at_5", "labels": []}
    one, other = (changed(task=task, metrics={"recall_at_5": share}, data=data) for data in ({}, asked))
    paths = [records.write(tmp_path / name, record, found) for name, record in (("a", one), ("b", other))]
    assert isinstance(differences.paired([cell(paths[0])], [cell(paths[0])]), Paired)
    told = differences.paired([cell(paths[0])], [cell(paths[1])])
    assert told == f"{paths[0]} and {paths[1]} looked for other reports, or among others"


def test_other_questions_and_missing_predictions_are_not_tested(tmp_path: Path) -> None:
    first = cell(fakes.write(tmp_path))
    other = Cell(first.path, changed(task={"labels": ["Edema"]}))
    assert "task.labels is ('Edema', 'Atelectasis') and ('Edema',)" in str(
        differences.paired([first], [other])
    )
    first.path.with_suffix(".npz").unlink()
    assert differences.paired([first], [first]) == f"{first.path} has no predictions beside it"


def test_two_methods_match_by_cell_and_are_tested_over_their_seeds(tmp_path: Path) -> None:
    written: dict[str, dict[float, list[Path]]] = {
        method: {
            share: [
                fakes.write(tmp_path, skill, method=method, family=f"{method}-x", fraction=share, seed=seed)
                for seed in (0, 1, 2)
            ]
            for share in (0.01, 1.0)
        }
        for method, skill in (("imitate", 1.0), ("gloria", 0.5))
    }
    extra = fakes.write(tmp_path, method="gloria", family="gloria-x", seed=7)
    sides = [differences.cells(f"{tmp_path}/phantom/*/{name}-*") for name in written]
    found = differences.folders(*sides)
    assert (found.by_checkpoint, found.matched, found.only_first, found.only_second) == (
        False,
        6,
        [],
        [extra],
    )
    shown = {item.example.name: item.cells for item in found.fields}
    inputs = {"cell.method": 6, "cell.checkpoint": 6, "pretraining.family": 6, "pretraining.weights": 6}
    assert shown == inputs | {"metrics.macro_auroc": 6, "predictions": 6}
    expected = [directly(written["imitate"][share], written["gloria"][share]) for share in (0.01, 1.0)]
    for row, share, difference in zip(found.rows, (0.01, 1.0), expected, strict=True):
        assert row[:5] == ("phantom", "chexpert:linear", "clean", share, ())
        assert row[5:8] == ("imitate-x", "gloria-x", (0, 1, 2))
        assert isinstance(row.paired, Paired)
        assert row.paired.difference == difference
    low, high = sorted(item.p for item in expected)
    assert sorted(row.adjusted or 0 for row in found.rows) == pytest.approx(
        [min(2 * low, 1), min(max(2 * low, high), 1)]  # Holm of two, by hand
    )


def test_the_same_weights_under_several_seeds_are_one_checkpoint(tmp_path: Path) -> None:
    """As of a method without a training, whose weights are somebody's."""
    sides = []
    for method, same in (("imagenet", True), ("gloria", False)):
        for seed in (0, 1, 2):
            made = fakes.record(method=method, family=f"{method}-x", seed=seed)
            weights = "a" * 64 if same else made.pretraining.weights
            origin = made.pretraining.model_copy(update={"weights": weights})
            fakes.store(tmp_path, made.model_copy(update={"pretraining": origin}))
        sides.append(differences.cells(f"{tmp_path}/phantom/*/{method}-*"))
    assert [row.checkpoints for row in differences.folders(*sides).rows] == [1]
    assert [row.checkpoints for row in differences.folders(sides[1], sides[1]).rows] == [3]
    page = leaderboard.build(tmp_path)
    assert "(3 runs of 1 checkpoint)" in page and "(3 runs)" in page


def test_results_folders_of_many_methods_match_by_checkpoint(tmp_path: Path) -> None:
    for name, methods in (("a", ("imitate", "gloria")), ("b", ("imitate", "mgca"))):
        for method in methods:
            fakes.write(tmp_path / name, method=method, family=f"{method}-x")
    sides = [differences.cells(str(tmp_path / name)) for name in ("a", "b")]
    found = differences.folders(*sides)
    assert (found.by_checkpoint, found.matched, found.fields) == (True, 1, [])
    assert [path.parent.name for path in (*found.only_first, *found.only_second)] == [
        "gloria-x-s0",
        "mgca-x-s0",
    ]
    [row] = found.rows
    assert isinstance(row.paired, Paired)
    assert (row.paired.difference.p, row.adjusted) == (1, 1)


def test_a_row_without_a_test_takes_no_part_in_the_correction(tmp_path: Path) -> None:
    for side, skill in (("a", 3.0), ("b", 0.0)):
        for share in (0.01, 1.0):
            path = fakes.write(tmp_path / side, skill, fraction=share)
    path.with_suffix(".npz").unlink()
    sides = [differences.cells(str(tmp_path / name)) for name in ("a", "b")]
    tested, untested = differences.folders(*sides).rows
    assert isinstance(tested.paired, Paired)
    assert tested.adjusted == tested.paired.difference.p
    assert (untested.paired, untested.adjusted) == (f"{path} has no predictions beside it", None)


def test_a_cell_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        fakes.write(tmp_path / name)
    twice = differences.cells(str(tmp_path))
    with pytest.raises(UsageError, match="A holds two records of one cell"):
        differences.folders(twice, twice[:1])


def test_what_failed_or_was_put_aside_is_no_record(tmp_path: Path) -> None:
    results = tmp_path / "mine"
    path = fakes.write(results)
    for name in ("failures", "quarantine", "reported"):
        (results / name).mkdir()
        (results / name / "cell.json").write_text("{}")
    old = fakes.write(quarantine.new(results))
    for pattern in ("mine", "mine/*", "mine/*/*", "mine/**/imitate-*", "**/*.json", "", "*"):
        assert [item.path for item in differences.cells(str(tmp_path / pattern))] == [path]
    assert [item.path for item in differences.cells(f"{results}/quarantine/*/*/*/imitate-*")] == [old]
    assert differences.cells(str(path)) == differences.cells(str(path.parent))
    for nothing in (tmp_path / "absent", path.with_suffix(".npz")):
        with pytest.raises(UsageError, match="there is no record"):
            differences.cells(str(nothing))


def test_a_pattern_in_quotes_may_begin_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = fakes.write(tmp_path / "results")
    assert [item.path for item in differences.cells("~/results/*/*/imitate-*")] == [path]


def test_phantoms_are_not_compared_with_patients(tmp_path: Path) -> None:
    kinds = {kind: differences.cells(str(fakes.write(tmp_path, kind=kind))) for kind in ("phantom", "real")}
    differences.require_one_track(kinds["real"], kinds["real"])
    with pytest.raises(UsageError, match=r"A was measured on phantom data and B on real.*one track"):
        differences.require_one_track(kinds["phantom"], kinds["real"])
