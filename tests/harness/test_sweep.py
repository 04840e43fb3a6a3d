"""Sweeps under Ray: everything runs once, and whatever is killed, the records end up the same."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from harness import failures
from tests.harness import sweeps
from tests.harness.command import harness
from tests.harness.sweeps import CELLS, Place, found, until, written

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with pytest.MonkeyPatch.context() as patch:
        yield sweeps.prepare(tmp_path_factory.mktemp("sweep"), patch.setenv)


@pytest.fixture(autouse=True)
def home(place: Place, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That of the place, instead of one for each test: what cells share is made once."""
    monkeypatch.setenv("HARNESS_HOME", str(place.home))
    return place.home


@pytest.fixture(scope="module")
def whole(place: Place) -> dict[str, tuple[object, ...]]:
    """What an undisturbed sweep leaves."""
    results = place.home / "whole"
    process = place.start(Path(os.path.relpath(results)))
    said, _ = process.communicate()
    assert process.returncode == 0, said
    assert f"Cells: {CELLS} done, 0 done before, 0 failed" in said
    return found(results)


def test_a_second_sweep_finds_everything_done(place: Place, whole: dict[str, object]) -> None:
    assert len(whole) == CELLS
    again = harness(*place.arguments(place.home / "whole"))
    assert again.code == 0, again.err
    assert f"Cells: 0 done, {CELLS} done before" in again.out
    assert found(place.home / "whole") == whole


def test_a_dry_run_says_what_is_left_and_what_is_missing(place: Place, whole: dict[str, object]) -> None:
    arguments = place.arguments(place.home / "whole", "--dry-run")
    arguments[arguments.index("chexpert,rsna")] = "chexpert,rsna:finetune,siim"
    records_here = sorted((place.home / "whole").glob("phantom/chexpert-linear/*/*.json"))
    damaged = next(path for path in records_here if "random_init" not in path.parent.name)
    whole_text = damaged.read_text()
    damaged.write_text("{}")
    found = harness(*arguments)
    assert damaged.read_text() == "{}"  # it only asks
    damaged.write_text(whole_text)
    assert found.code == 1, found.err  # as the sweep would
    assert "cannot run: tiny siim:linear clean 25pct s0 and 11 more: no SIIM" in found.err
    assert f"would be put aside and run again: 1 record: {damaged}" in found.err
    rows = [line.split() for line in found.out.splitlines() if "random_init" in line]
    assert [row[:5] for row in rows] == [
        ["chexpert:linear", "random_init", "demo", "6", "0"],
        ["rsna:finetune", "random_init", "demo", "0", "6"],
    ]
    assert "13 cells to do." in found.out


def test_killed_at_any_time_it_ends_with_the_same_records(
    place: Place, whole: dict[str, object], tmp_path: Path
) -> None:
    for after in (1, 9):
        process = place.start(tmp_path)
        until(lambda after=after: written(tmp_path) >= after, process)  # type: ignore[misc]
        with contextlib.suppress(ProcessLookupError):  # it was quicker
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    ended = harness(*place.arguments(tmp_path))
    assert ended.code == 0, ended.err
    assert found(tmp_path) == whole


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_or_a_time_limit_ends_it_and_calls_no_cell_a_failure(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: signal.Signals
) -> None:
    monkeypatch.setenv("HARNESS_WORKERS", "1")
    process = place.start(tmp_path)
    until(lambda: written(tmp_path) >= 1, process)
    process.send_signal(sent)
    said, _ = process.communicate()
    assert process.returncode == 130, said
    assert "Stopped. The same command goes on where it was." in said
    assert "Cells:" not in said and "failed" not in said and "Traceback" not in said
    assert written(tmp_path) < CELLS


def test_a_cell_that_fails_stops_no_other_and_runs_again(
    place: Place, whole: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder where a record should go fails one cell; when it is gone, that cell alone is left. By one
    process, which goes on to the other cells."""
    monkeypatch.setenv("HARNESS_WORKERS", "1")
    blocked = tmp_path / sorted(whole)[5]
    (blocked / "in the way").mkdir(parents=True)
    ended = harness(*place.arguments(tmp_path))
    assert ended.code == 1, ended.err
    assert f"Cells: {CELLS - 1} done, 0 done before, 1 failed" in ended.out
    assert "failed: " in ended.err and len(list(failures.read_all(tmp_path))) == 1
    (blocked / "in the way").rmdir()
    blocked.rmdir()
    ended = harness(*place.arguments(tmp_path))
    assert ended.code == 0, ended.err
    assert f"Cells: 1 done, {CELLS - 1} done before, 0 failed" in ended.out
    assert list(failures.read_all(tmp_path)) == []
    assert found(tmp_path) == whole


def test_a_machine_that_leaves_the_cluster_loses_and_repeats_nothing(
    place: Place, whole: dict[str, object], tmp_path: Path
) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        second = cluster.add_node(num_cpus=1)
        process = place.start(tmp_path, "--address", cluster.address)
        until(lambda: written(tmp_path) >= 2, process)
        times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("phantom/**/*.json")}
        cluster.remove_node(second, allow_graceful=False)
        said, _ = process.communicate()
        assert process.returncode == 0, said
    finally:
        cluster.shutdown()
    assert found(tmp_path) == whole
    assert {path: path.stat().st_mtime_ns for path in times} == times  # no cell twice
