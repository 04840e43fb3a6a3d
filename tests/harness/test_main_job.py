"""The main job for real, but small: from phantoms on the disk to a record, and what can go wrong on it."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import recall_score, roc_auc_score

from harness import records, registry, stats
from harness.metrics import score
from harness.records import Record
from tests import fakes
from tests.harness.command import Ended, harness

LABELS = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")


class Road(NamedTuple):
    """What one run needed and left behind."""

    data: Path  # a data root with phantoms of CheXpert and MIMIC-CXR
    method: Path
    home: Path
    results: Path

    def run(self, *arguments: object) -> Ended:
        return harness(
            *("run", "--method", self.method, "--task", "chexpert"),
            *("--data-root", self.data, "--results", self.results, *arguments),
        )

    def record(self) -> tuple[Path, Record]:
        [found] = records.read_all(self.results)
        return found


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Road, Ended]]:
    """The first run of all, at all labels."""
    root = tmp_path_factory.mktemp("road")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_HOME", str(root / "home"))
        patch.setenv("HARNESS_WORKERS", "1")
        patch.delenv("HARNESS_DATA", raising=False)
        for dataset, persons in (("chexpert", 100), ("mimic_cxr", 60)):
            done = harness(
                "data", "phantom", dataset, "--root", root / "data" / dataset, "--persons", persons
            )
            assert done.code == 0, done.err
        road = Road(root / "data", fakes.write_method(root), root / "home", root / "results")
        yield road, road.run()


@pytest.fixture
def road(first: tuple[Road, Ended], tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Road:
    """The same, as the first run left it, to be used up by one test."""
    monkeypatch.setenv("HARNESS_WORKERS", "1")
    old = first[0]
    for folder in ("data", "home", "results"):  # with their times, which the cache of images goes by
        shutil.copytree(old.home.with_name(folder), tmp_path / folder)
    assert home == tmp_path / "home"
    return Road(tmp_path / "data", old.method, home, tmp_path / "results")


def kept(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


# --- the road -----------------------------------------------------------------------------------------


def test_the_first_run_says_phantom_first_and_prints_a_row(first: tuple[Road, Ended]) -> None:
    road, done = first
    assert done.code == 0, done.err
    assert "is a PHANTOM of chexpert" in done.err.splitlines()[0]
    assert "is a PHANTOM of mimic_cxr" in done.err
    assert "From the cache: nothing." in done.err
    path, record = road.record()
    assert str(path) in done.err
    value = record.metrics["macro_auroc"]
    assert f"{value.value * 100:.1f} [{value.low * 100:.1f}, {value.high * 100:.1f}]" in done.out
    assert path == road.results / f"phantom/chexpert-linear/{record.cell.checkpoint}/clean-100pct-s0.json"


def test_the_metrics_are_scikit_learn_s_on_the_stored_predictions(first: tuple[Road, Ended]) -> None:
    path, record = first[0].record()
    stored = records.predictions(path).arrays
    each = [
        roc_auc_score(stored["truth"][:, column], stored["scores"][:, column])
        for column in range(len(LABELS))
    ]
    found = [record.metrics[f"auroc:{label}"] for label in LABELS]
    assert [item.value for item in found] == pytest.approx(each)
    assert record.metrics["macro_auroc"].value == pytest.approx(np.mean(each))
    assert all(item.low < item.value < item.high for item in (*found, record.metrics["macro_auroc"]))


def test_the_intervals_can_be_computed_again_from_the_files(first: tuple[Road, Ended]) -> None:
    path, record = first[0].record()
    stored, rule = records.predictions(path), record.interval
    again = stats.person_bootstrap(
        score.of("linear", stored.arrays, LABELS),
        stored.persons,
        replicates=rule.replicates,
        seed=record.cell.seed,
    )
    found = {name: tuple(value.model_dump().values()) for name, value in record.metrics.items()}
    assert found == again.metrics
    assert (again.undefined, again.level) == (rule.undefined, rule.level)


@pytest.mark.slow
def test_the_same_task_can_be_fine_tuned(road: Road) -> None:
    done = road.run("--task", "chexpert:finetune")
    assert done.code == 0, done.err
    [(path, record)] = [item for item in records.read_all(road.results) if item[1].task.kind == "finetune"]
    assert record.head.candidates[-1] <= record.head.settings["steps"] == 200
    stored = records.predictions(path).arrays
    for column, label in enumerate(LABELS):
        threshold = record.head.chosen[f"threshold:{label}"]
        truth, decided = stored["truth"][:, column], stored["scores"][:, column] >= threshold
        assert np.array_equal(stored["decisions"][:, column], decided)
        assert record.metrics[f"auroc:{label}"].value == pytest.approx(
            roc_auc_score(truth, stored["scores"][:, column])
        )
        assert record.metrics[f"sensitivity:{label}"].value == recall_score(truth, decided)
        assert record.metrics[f"specificity:{label}"].value == recall_score(truth, decided, pos_label=0)


def test_the_record_counts_what_the_tables_hold(first: tuple[Road, Ended]) -> None:
    road, _ = first
    path, record = road.record()
    tables = {part: pd.read_csv(road.data / "chexpert" / f"{part}.csv") for part in ("train", "valid")}
    tables = {part: table[table["Frontal/Lateral"] == "Frontal"] for part, table in tables.items()}
    valid = tables["valid"]
    test = record.parts["test"]
    assert (test.images, test.persons) == (
        len(valid),
        valid["Path"].str.extract(r"(patient\d+)")[0].nunique(),
    )
    assert test.positives == {label: int((valid[label] == 1).sum()) for label in LABELS}
    assert all(test.positives[label] + test.negatives[label] == test.images for label in LABELS)
    train, validation, used = (record.parts[part] for part in ("train", "validation", "used"))
    assert train.images + validation.images == len(tables["train"])
    assert used == train  # at all labels
    for label in LABELS:
        hedged = -1 if label in ("Atelectasis", "Edema", "Pleural Effusion") else 1
        positives = tables["train"][label].isin((1, hedged)).sum()
        assert train.positives[label] + validation.positives[label] == positives
    images = records.hashed("valid" + valid["Path"].str.partition("valid")[2])
    assert np.array_equal(records.predictions(path).images, np.sort(images))


def test_the_record_says_how_it_came_about(first: tuple[Road, Ended]) -> None:
    _, record = first[0].record()
    assert (record.data.kind, record.pretraining.data_kind, record.pretraining.corpus) == (
        *("phantom", "phantom"),
        "mimic_cxr",
    )
    card = json.loads((first[0].home / "checkpoints" / record.cell.checkpoint / "card.json").read_text())
    assert (record.pretraining.commit, record.pretraining.dirty) == (card["commit"], True)  # of no commit
    assert record.pretraining.device == card["device"] == record.cost.device
    assert record.cost.cached == dict.fromkeys(("checkpoint", "images", "features"), False)
    assert set(record.cost.seconds) == {"data", "images", "checkpoint", "features", "head", "test"}
    assert record.code.arguments["task"] == "chexpert"
    assert record.code.defaults["fraction"] == 1.0
    best = record.head.candidates[int(np.argmax(record.head.validation))]
    assert record.head.chosen["strength"] == best
    assert record.head.settings["features"] == 8


def test_the_second_run_is_cached_says_so_and_finds_the_same(road: Road) -> None:
    path, before = road.record()
    stored = path.with_suffix(".npz").read_bytes()
    done = road.run()
    assert done.code == 0, done.err
    assert "From the cache: checkpoint, images, features." in done.err
    assert "decoding" not in done.err and "pre-training" not in done.err
    assert f"{path} of {before.written.date()} is replaced by one of the same" in done.err
    _, after = road.record()
    assert after.metrics == before.metrics
    for block in ("cell", "task", "interval", "parts", "data", "preprocessing", "head"):
        assert getattr(after, block) == getattr(before, block)
    assert path.with_suffix(".npz").read_bytes() == stored


def test_another_fraction_fits_another_head_on_the_same_features(road: Road) -> None:
    _, whole = road.record()
    done = road.run("--fraction", "0.5", "--seed", "1", "--json")
    half = Record.model_validate_json(done.out)
    assert half.cost.cached["features"]
    assert half.parts["used"].persons == -(-half.parts["train"].persons // 2)
    assert half.data.fingerprint == whole.data.fingerprint
    assert half.data.split == whole.data.split
    assert half.metrics != whole.metrics
    assert len(list(records.read_all(road.results))) == 2


@pytest.mark.slow
def test_the_fraction_may_be_of_the_validation_labels_too(road: Road) -> None:
    _, whole = road.record()
    done = road.run("--fraction", "0.5", "--cut-validation", "--json")
    cut = Record.model_validate_json(done.out)
    plain = Record.model_validate_json(road.run("--fraction", "0.5", "--json").out)
    assert cut.cell.cut_validation and not plain.cell.cut_validation
    assert cut.parts["used"] == plain.parts["used"] and cut.data.split == plain.data.split
    assert plain.parts["validation"] == whole.parts["validation"]
    assert cut.parts["validation"].persons == -(-whole.parts["validation"].persons // 2)
    assert cut.data.fraction != plain.data.fraction
    assert len(list(records.read_all(road.results))) == 3  # neither took the other's place


def test_json_is_the_record_and_nothing_else(road: Road) -> None:
    done = road.run("--json")
    path, record = road.record()
    assert json.loads(done.out) == json.loads(path.read_text()) == record.model_dump(mode="json")


@pytest.mark.slow
def test_initial_weights_are_kept_per_seed(road: Road, tmp_path: Path) -> None:
    floor = replace(fakes.CARD, profiles={"demo": replace(fakes.PROFILE, recipe=None, text=None)})
    floored = road._replace(method=fakes.write_method(tmp_path, floor))
    found = []
    for seed, cached in ((0, False), (1, False), (0, True)):
        record = Record.model_validate_json(floored.run("--seed", seed, "--json").out)
        assert record.cost.cached["checkpoint"] is cached
        assert (record.pretraining.corpus, record.pretraining.seed) == (None, seed)
        found.append(record.pretraining.weights)
    assert found[0] == found[2] != found[1]


def test_a_checkpoint_is_taken_by_name(road: Road) -> None:
    name = road.record()[1].cell.checkpoint
    assert road.run("--checkpoint", name).code == 0
    done = road.run("--checkpoint", name.replace("tiny", "tinny"))
    assert done.code == 2
    assert f"Did you mean '{name}'?" in done.err


def test_the_record_stands_on_the_leaderboard_and_in_the_list(road: Road) -> None:
    assert harness("leaderboard", "--results", road.results).code == 0
    value = road.record()[1].metrics["macro_auroc"].value
    assert f"{value * 100:.1f}" in (road.results / "leaderboard.md").read_text()
    [listed] = json.loads(harness("list", "results", "--results", road.results, "--json").out)
    assert Record.model_validate(listed) == road.record()[1]


# --- what can go wrong --------------------------------------------------------------------------------


def test_a_dataset_missing_under_the_data_root_is_no_phantom(road: Road) -> None:
    shutil.rmtree(road.data / "chexpert")
    before = kept(road.results)
    done = road.run()
    assert done.code == 1
    assert done.err.startswith(f"error: no CheXpert under {road.data}")
    assert "PHANTOM" not in done.err
    assert kept(road.results) == before


@pytest.mark.slow
def test_an_unreadable_picture_is_named_and_the_others_stay_decoded(road: Road) -> None:
    picture = next((road.data / "chexpert" / "valid").rglob("*_frontal.jpg"))
    whole, before = picture.read_bytes(), kept(road.results)
    picture.write_bytes(whole[: len(whole) // 2])
    done = road.run()
    assert done.code == 1
    assert str(picture) in done.err and "1 of 135 images" in done.err
    assert kept(road.results) == before
    picture.write_bytes(whole)
    again = road.run()
    assert again.code == 0, again.err
    assert "decoding chexpert: 1/1 images" in again.err
    assert "From the cache: checkpoint, features." in again.err  # the same pixels have the same features


def test_a_class_that_the_draw_lacks_is_named_and_no_record_is_written(road: Road) -> None:
    before = kept(road.results)
    done = road.run("--fraction", "0.01")
    assert done.code == 1
    assert done.err.splitlines()[-1].startswith("error: '")
    assert "among the training images of this draw" in done.err and "Use a larger --fraction" in done.err
    assert kept(road.results) == before


@pytest.mark.slow
@pytest.mark.parametrize("place", ["images/*/pixels.u8", "images/*/rows.bin", "banks/*.npy"])
def test_a_damaged_cache_is_refused_and_can_be_deleted(road: Road, place: str) -> None:
    before = kept(road.results)
    for path in road.home.glob(place):
        flip(path)
    done = road.run()
    assert done.code == 1
    assert "Delete" in done.err and str(road.home) in done.err
    assert kept(road.results) == before
    shutil.rmtree(road.home / place.partition("/")[0])
    assert road.run().code == 0


@pytest.mark.slow
def test_damaged_weights_are_refused(road: Road) -> None:
    shutil.rmtree(road.home / "banks")
    [weights] = road.home.glob("checkpoints/*/weights.safetensors")
    flip(weights)
    done = road.run()
    assert done.code == 1
    assert f"{weights} is not the file its card was written for. Delete {weights.parent}" in done.err
    shutil.rmtree(weights.parent)
    _, before = road.record()
    assert road.run().code == 0
    assert road.record()[1].metrics == before.metrics  # trained again, to the bit


@pytest.mark.slow
def test_the_record_of_a_newer_harness_is_not_replaced(road: Road) -> None:
    path, _ = road.record()
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": 99}))
    before = kept(road.results)
    done = road.run()
    assert done.code == 1 and "schema_version: of another version of the harness" in done.err
    assert kept(road.results) == before


@pytest.mark.slow
@pytest.mark.parametrize("writer", ["np.savez_compressed", "write_json"])
def test_a_full_disk_keeps_the_old_record_whole(
    road: Road, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = kept(road.results)
    with monkeypatch.context() as during:
        during.setattr(f"harness.records.{writer}", full)
        for arguments in ((), ("--seed", "1")):
            done = road.run(*arguments)
            assert done.code == 1
            assert "error: No space left on device. Finished work is kept" in done.err
            assert kept(road.results) == before
    assert road.record()[1].cell.seed == 0
    assert road.run("--seed", "1").code == 0


# --- a process of its own -----------------------------------------------------------------------------


@pytest.mark.slow
def test_imitate_itself_takes_the_road(road: Road, tmp_path: Path) -> None:
    """`python -m harness` with the true demo method, but one short epoch."""
    card = registry.method_card("imitate")
    demo = card.profiles["demo"]
    assert demo.recipe is not None
    short = replace(demo, recipe=replace(demo.recipe, epochs=1, batch=16))
    method = tmp_path / "briefly.py"
    method.write_text(
        "from harness.contracts import *\nfrom methods.imitate import build\n\n"
        f"CARD = {replace(card, profiles={'demo': short})!r}\n"
    )
    command = [
        sys.executable,
        "-m",
        "harness",
        "run",
        "--method",
        str(method),
        "--task",
        "chexpert",
        "--json",
    ]
    command += ["--data-root", str(road.data), "--results", str(tmp_path / "new")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "is a PHANTOM of chexpert" in done.stderr.splitlines()[0]
    record = Record.model_validate_json(done.stdout)
    assert record.cell.method == "briefly"
    assert (record.head.settings["features"], record.preprocessing.size) == (256, demo.preprocessing.size)
    [(path, stored)] = records.read_all(tmp_path / "new")
    assert stored == record
    arrays = records.predictions(path).arrays
    each = [roc_auc_score(arrays["truth"][:, column], arrays["scores"][:, column]) for column in range(5)]
    assert record.metrics["macro_auroc"].value == pytest.approx(np.mean(each))
