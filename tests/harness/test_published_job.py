"""The published protocol on the whole road: a record that says which rules made it, beside the clean one."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import records, registry
from harness.data import locate, published
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
