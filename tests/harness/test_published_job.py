"""The published protocol on the whole road: a record that says which rules made it, beside the clean one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness import records, registry
from harness.data import locate, published
from harness.evaluate import training
from harness.metrics import score
from harness.phantom import Cohort
from tests import fakes
from tests.harness.command import harness


@pytest.mark.slow
def test_a_published_record_lists_its_rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_WORKERS", "1")
    for name, persons in (("chexpert", 1_000), ("mimic_cxr", 40)):
        cohort = Cohort(name, persons, seed=0, size=(24, 30))
        locate.write(registry.load("tasks", name), tmp_path / "data" / name, cohort, workers=1)
    method, results = fakes.write_method(tmp_path), tmp_path / "results"
    for protocol in ("published", "clean"):
        done = harness(
            *("run", "--method", method, "--task", "chexpert", "--protocol", protocol, "--fraction", 0.5),
            *("--data-root", tmp_path / "data", "--results", results),
        )
        assert done.code == 0, done.err
    found = {record.cell.protocol: record for _, record in records.read_all(results)}
    theirs, ours = found["published"], found["clean"]
    assert theirs.task.rules == (
        *("single-label-images-set-aside", "parts-drawn-by-image"),
        *("valid-drawn-by-position-removed-by-label", "fraction-sampled-by-image"),
        published.SCALED,
        *published.HEADS["linear"],
    )
    assert ours.task.rules == ()
    assert theirs.task.split["held_out"] == 5_000 and "MGCA" in str(theirs.task.split["source"])
    assert (theirs.head.name, ours.head.name) == ("linear layer, AdamW", "logistic regression")
    assert theirs.parts["used"].images == round(0.5 * theirs.parts["train"].images)
    assert theirs.parts["test"] == ours.parts["test"]  # the official part, under both
    assert theirs.data.fingerprint == ours.data.fingerprint and theirs.data.split != ours.data.split
    assert 0 <= theirs.metrics["macro_auroc"].value <= 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "rules", "head"),
    [
        ("segmentation", {"decoder-trained-by-epochs", "dice-in-pixels-of-the-input"}, "U-Net"),
        ("detection", {"yolo-trained-by-epochs", "boxes-count-from-one-half"}, "YOLOv3"),
    ],
)
def test_real_pictures_under_the_published_protocol(
    realdata: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, rules: set[str], head: str
) -> None:
    monkeypatch.setitem(training.PUBLISHED, "epochs", 3)
    monkeypatch.setenv("HOME", str(tmp_path))
    done = harness(
        *("run", "--method", "random_init", "--task", f"rsna:{task}", "--protocol", "published"),
        *("--data-root", realdata, "--results", tmp_path / "results"),
        "--save-figures=~/figures",  # which no shell expands
    )
    assert done.code == 0, done.err
    [(path, record)] = records.read_all(tmp_path / "results")
    parts = {"parts-drawn-by-image", "fraction-chosen-by-image-twice", published.SCALED}
    moves = {"statistics-of-the-encoder-move", "picture-as-the-method-sees-it"}
    assert parts | moves | rules <= set(record.task.rules)
    assert record.head.name.startswith(head) and record.head.settings["batch"] == 16
    per_epoch = record.parts["used"].images // 16
    assert record.head.candidates == tuple(per_epoch * epoch for epoch in (1, 2, 3))
    assert record.data.kind == "real" and len(list((tmp_path / "figures").iterdir())) == 8

    kept = records.predictions(path)
    rule = score.of(task, kept.arrays, record.task.labels)  # type: ignore[arg-type]
    assert dict(zip(rule.names, rule(np.ones((len(kept.images), 1)))[:, 0], strict=True)) == pytest.approx(
        {name: measured.value for name, measured in record.metrics.items()}
    )


@pytest.mark.slow
def test_balanced_draws_are_scored_as_gloria_s_code_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_WORKERS", "1")
    for name, persons in (("chexpert", 1_500), ("mimic_cxr", 40)):
        cohort = Cohort(name, persons, seed=0, size=(24, 30))
        locate.write(registry.load("tasks", name), tmp_path / "data" / name, cohort, workers=1)
    method, results = fakes.write_method(tmp_path), tmp_path / "results"
    for protocol in ("published", "clean"):
        done = harness(
            *("run", "--method", method, "--task", "chexpert:zero-shot-5x200", "--protocol", protocol),
            *("--data-root", tmp_path / "data", "--results", results),
        )
        assert done.code == 0, done.err
    found = {record.cell.protocol: record for _, record in records.read_all(results)}
    theirs, ours = found["published"], found["clean"]
    assert theirs.task.rules == (published.CLEAN_PARTS, *published.HEADS["zero-shot"])
    assert "prompts-of-the-dataset-s-card" in theirs.task.rules and ours.task.rules == ()
    assert (theirs.head.settings["scoring"], ours.head.settings["scoring"]) == ("gloria", "clip")
    assert theirs.data.draws == ours.data.draws  # the same pictures
    told = harness("audit", "--task", "chexpert:zero-shot-5x200", "--data-root", tmp_path / "data").out
    assert "Nothing is fitted on this dataset" in told
    assert all(f"{rule}: {published.RULES[rule]}" in told for rule in theirs.task.rules)
    several = registry.task_of("chexpert:zero-shot").task  # not one of many: nothing was released
    assert published.in_force((), "zero-shot", several, "published") == (published.CLEAN_HEAD,)
