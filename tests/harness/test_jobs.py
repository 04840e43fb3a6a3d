"""Which checkpoint and data a cell has, and when it is done."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from harness import account, failures, grid, jobs, plan, quarantine, records, weights
from harness.data import published
from harness.errors import CheckpointError, HarnessError, NewerRecord, UnknownName, UsageError
from harness.evaluate import linear as evaluator
from harness.jobs import Job, Known
from harness.pretrain import checkpoint, make
from harness.pretrain.checkpoint import Imported
from harness.settings import load
from tests import fakes

KNOWN = Known("phantom", "f" * 64, "b" * 64, True, ())


@pytest.fixture
def job(home: Path) -> Job:
    cell = plan.cell("random_init", "chexpert", profile="demo", protocol="clean", fraction=0.1, seed=0)
    return Job(cell, make.untrained(cell.method, load(), seed=0), KNOWN)


def stored(results: Path, job: Job, **changes: object) -> Path:
    """A record as the job would leave it."""
    asked = job.cell
    made = fakes.record(
        method="random_init",
        fraction=0.1,
        version=asked.task.version,
        tuned=asked.tuned,
        cut_validation=asked.cut_validation,
    )
    origin = made.pretraining.model_copy(update={"weights": job.checkpoint.card.weights, **changes})
    cell = made.cell.model_copy(update={"checkpoint": job.checkpoint.name})
    seen = records.InputBlock(**asdict(job.checkpoint.card.profile.preprocessing))
    made = made.model_copy(update={"cell": cell, "pretraining": origin, "preprocessing": seen})
    return records.write(results, made, fakes.predictions())


def test_a_cell_is_done_when_its_record_is_complete(tmp_path: Path, job: Job) -> None:
    assert not jobs.complete(tmp_path, job)
    path = stored(tmp_path, job)
    assert path == records.place_of(tmp_path, "phantom", job.block)
    assert jobs.complete(tmp_path, job)


def test_what_lies_at_its_place_but_is_another_s_is_put_aside_with_the_reason(
    tmp_path: Path, job: Job, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = stored(tmp_path, job, method_version=job.checkpoint.card.method_version)
    newer = replace(job.cell.task, version=job.cell.task.version + 1)
    card = job.checkpoint.card
    trained_again = card.model_copy(update={"weights": "0" * 64})
    larger = replace(card.profile, preprocessing=replace(card.profile.preprocessing, size=9))
    imported_again = card.model_copy(update={"profile": larger})  # by a layout that was corrected
    imported_anew = card.model_copy(update={"method_version": card.method_version + 1})

    def told(**changes: Any) -> Job:
        return job._replace(known=job.known._replace(**changes))

    for other, name in (
        (job._replace(checkpoint=replace(job.checkpoint, card=trained_again)), "weights"),
        (job._replace(checkpoint=replace(job.checkpoint, card=imported_again)), "preprocessing"),
        (job._replace(checkpoint=replace(job.checkpoint, card=imported_anew)), "version of the method"),
        (job._replace(cell=replace(job.cell, task=newer)), "version of the task"),
        (job._replace(cell=replace(job.cell, fraction=0.10000001)), "fraction"),
        (told(fingerprint="0" * 64), "data"),  # a newer release
        (told(split="0" * 64), "data"),  # persons became known
        (told(persons_known=False), "knowledge of persons"),  # the split being drawn by image
        (told(rules=(published.BY_IMAGE,)), "rules"),
        (job, "reading of pictures"),  # by a decoder that was mended
        (job, "version of the head"),
    ):
        monkeypatch.setattr(evaluator, "VERSION", evaluator.VERSION + (name == "version of the head"))
        monkeypatch.setattr(account, "READING", (2 + (name == "reading of pictures"), 1, 1))
        before = path.read_bytes()
        assert records.place_of(tmp_path, "phantom", other.block) == path
        assert not jobs.complete(tmp_path, other)
        assert path.exists()  # asking changes nothing: a dry run asks too
        jobs.put_aside(tmp_path, [other])
        [aside] = (tmp_path / quarantine.FOLDER).rglob("*.json")
        assert f"{path}: it is of other {name}. Put aside in {tmp_path / quarantine.FOLDER}" in caplog.text
        assert aside.read_bytes() == before
        aside.replace(path)
        aside.with_suffix(".npz").replace(path.with_suffix(".npz"))
    monkeypatch.undo()
    assert jobs.complete(tmp_path, job)


def test_what_another_sweep_has_done_meanwhile_stays(tmp_path: Path, job: Job) -> None:
    path = stored(tmp_path, job)
    jobs.put_aside(tmp_path, [job])
    assert path.exists() and not (tmp_path / quarantine.FOLDER).exists()


def test_a_kill_while_a_record_is_put_aside_loses_neither_file(
    tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored(tmp_path, job, weights="1" * 64)
    move = shutil.move
    moved: list[Any] = []

    def killed(*places: Path) -> None:
        if moved:
            raise KeyboardInterrupt
        moved.append(move(*places))

    monkeypatch.setattr(shutil, "move", killed)
    with pytest.raises(KeyboardInterrupt):
        jobs.put_aside(tmp_path, [job])
    monkeypatch.undo()
    jobs.put_aside(tmp_path, [job])  # as the next sweep does
    stored(tmp_path, job)
    aside = [path.suffix for path in (tmp_path / quarantine.FOLDER).rglob("*") if path.is_file()]
    assert sorted(aside) == [".json", ".npz"]


def test_two_sweeps_may_put_aside_the_same_record_at_once(
    tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = stored(tmp_path, job, weights="1" * 64)
    reason = jobs.in_the_way(tmp_path, job)

    def other_is_faster(*_: object) -> str:
        path.unlink(missing_ok=True)
        return reason

    monkeypatch.setattr(jobs, "in_the_way", other_is_faster)
    jobs.put_aside(tmp_path, [job])
    assert not path.exists() and not path.with_suffix(".npz").exists()


def test_a_track_may_lie_on_another_disk(tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    path = stored(tmp_path, job, weights="1" * 64)
    content = path.read_bytes()

    def other_disk(*_: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    for name in ("rename", "replace"):
        monkeypatch.setattr(os, name, other_disk)
    jobs.put_aside(tmp_path, [job])
    [aside] = (tmp_path / quarantine.FOLDER).rglob(path.name)
    assert aside.read_bytes() == content and aside.with_suffix(".npz").exists()
    assert not path.exists() and not path.with_suffix(".npz").exists()


def test_what_was_lent_runs_again_when_it_is_asked_for(tmp_path: Path, job: Job) -> None:
    """As lent it counts only until the seed has a checkpoint of its own; as asked for, always."""
    path = stored(tmp_path, job, seed=1)
    assert records.read(path).lent
    assert jobs.complete(tmp_path, job)
    asked = job._replace(named=True)
    assert not jobs.complete(tmp_path, asked)
    jobs.put_aside(tmp_path, [asked])
    assert not path.exists()
    stored(tmp_path, job, seed=0)
    assert jobs.complete(tmp_path, asked)


def test_nothing_that_was_put_aside_is_overwritten(
    tmp_path: Path, job: Job, caplog: pytest.LogCaptureFixture
) -> None:
    pair = [job, job._replace(cell=replace(job.cell, tuned=4))]
    for sha256 in ("1" * 64, "2" * 64):
        for each in pair:
            stored(tmp_path, each, weights=sha256)
        jobs.put_aside(tmp_path, pair)
    assert [line.count(" and 1 more: it is of other weights") for line in caplog.messages] == [1, 1]
    folders = sorted((tmp_path / quarantine.FOLDER).iterdir())
    assert [{record.pretraining.weights[0] for _, record in records.read_all(one)} for one in folders] == [
        {"1"},
        {"2"},
    ]


def test_cells_with_other_options_are_told_apart(tmp_path: Path, job: Job) -> None:
    kinds = [
        job._replace(cell=replace(job.cell, tuned=tuned, cut_validation=cut))
        for tuned in (0, 4, 8)
        for cut in (False, True)
    ]
    for number, one in enumerate(kinds):
        assert [jobs.complete(tmp_path, other) for other in kinds] == [
            place < number for place in range(len(kinds))
        ]
        stored(tmp_path, one)
    assert all(jobs.complete(tmp_path, one) for one in kinds)
    assert len({one.cell.name for one in kinds}) == len(kinds)


@pytest.mark.parametrize("suffix", [".json", ".npz"])
def test_a_corrupt_record_is_put_aside_and_done_again(tmp_path: Path, job: Job, suffix: str) -> None:
    path = stored(tmp_path, job)
    assert jobs.complete(tmp_path, job)
    path.with_suffix(suffix).write_bytes(b"{")
    assert not jobs.complete(tmp_path, job)
    jobs.put_aside(tmp_path, [job])
    assert not path.exists() and not path.with_suffix(".npz").exists()
    aside = [file for file in (tmp_path / quarantine.FOLDER).rglob("*") if file.is_file()]
    assert sorted(file.suffix for file in aside) == [".json", ".npz"]
    assert list(records.read_all(tmp_path)) == []  # the leaderboard no longer stumbles over it


@pytest.mark.parametrize(
    ("corpus", "told"), [("chexpert", True), ("openi+elsewhere", True), ("mimic_cxr", False)]
)
def test_weights_of_others_that_may_have_seen_the_test_pictures_are_told(
    job: Job, caplog: pytest.LogCaptureFixture, corpus: str, told: bool
) -> None:
    shared = replace(job.cell, dataset_card=replace(job.cell.dataset_card, shares_pictures=("elsewhere",)))
    theirs = Imported(file="theirs.pth", sha256="0" * 64, layout="timm", dropped={})
    for imported in (theirs, None):
        card = job.checkpoint.card.model_copy(update={"corpus": corpus, "imported": imported})
        caplog.clear()
        weights.say_what_was_seen(replace(job.checkpoint, card=card), shared, "phantom")
        expected = f"was trained by others on {corpus}: they may have used test pictures of chexpert"
        assert (expected in caplog.text) == (told and imported is not None)


def test_a_demo_on_real_data_is_told(job: Job, caplog: pytest.LogCaptureFixture) -> None:
    said = f"{job.checkpoint.name} is of the demo profile, which is for trying things out"
    for data, profile in (("phantom", "demo"), ("real", "paper"), ("real", "demo")):
        card = job.checkpoint.card.model_copy(update={"profile_name": profile})
        assert said not in caplog.text
        weights.say_what_was_seen(replace(job.checkpoint, card=card), job.cell, data)  # type: ignore[arg-type]
    assert said in caplog.text


def test_a_failure_is_of_the_size_of_its_checkpoint_as_its_record_is(
    tmp_path: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights of others are `paper` in every sweep, be its plan `demo`."""

    def unreadable(*_: object, **__: object) -> None:
        raise HarnessError("no table")

    card = job.checkpoint.card.model_copy(update={"profile_name": "paper"})
    imported = job._replace(checkpoint=replace(job.checkpoint, card=card))
    monkeypatch.setattr(jobs, "_data", unreadable)
    [lost] = jobs.match([job.cell], load(), [imported.checkpoint], make=None)
    for tried in (imported.tried, lost.tried):
        failures.write(load(results=tmp_path), tried, HarnessError("no"))
    record = records.read(stored(tmp_path, imported, profile="paper"))
    found = list(failures.read_all(tmp_path))
    assert {failure.key for failure in found} == set(failures.keys_of(record))
    failures.forget(tmp_path, imported.tried)
    assert list(failures.read_all(tmp_path)) == []


def test_the_record_of_a_newer_harness_is_never_put_aside(tmp_path: Path, job: Job) -> None:
    path = stored(tmp_path, job)
    path.write_text(path.read_text().replace('"schema_version": 3', '"schema_version": 4'))
    with pytest.raises(NewerRecord, match="Update"):
        jobs.complete(tmp_path, job)
    jobs.put_aside(tmp_path, [job])
    assert path.exists() and not (tmp_path / quarantine.FOLDER).exists()


def test_cells_that_read_the_same_features_stand_together(job: Job) -> None:
    frozen = [job._replace(cell=replace(job.cell, seed=seed)) for seed in range(6)]
    assert [len(group) for group in jobs.grouped(frozen)] == [6]
    other = job._replace(cell=replace(job.cell, protocol="published"))  # of other parts
    assert [len(group) for group in jobs.grouped([job, other])] == [1, 1]


def test_a_checkpoint_of_no_method_in_the_sweep_is_refused(home: Path, job: Job) -> None:
    def wanted(method: str) -> grid.Grid:
        return grid.cells(
            methods=[method],
            tasks=["chexpert"],
            protocols=["clean"],
            fractions=[1.0],
            seeds=1,
            profile="demo",
        )

    store, name = load().checkpoints, job.checkpoint.name
    assert jobs.checkpoints(store, wanted("random_init"), [name]) == [checkpoint.read(job.checkpoint.folder)]
    with pytest.raises(UnknownName, match=name):
        jobs.checkpoints(store, wanted("random_init"), ["random_init-demo"])
    with pytest.raises(UsageError, match="of no method in this sweep"):
        jobs.checkpoints(store, wanted("imitate"), [name])
    (job.checkpoint.folder / checkpoint.CARD).write_text("{}")
    with pytest.raises(CheckpointError, match=r"written: Field required\. Delete "):  # and not unknown
        jobs.checkpoints(store, wanted("random_init"), [name])
