"""Which machines a sweep runs on."""

from __future__ import annotations

import logging
import socket
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from ray.exceptions import WorkerCrashedError

from harness import cluster, plan, sweep
from harness.cluster import Machines
from harness.errors import HarnessError, UsageError
from harness.settings import load


@pytest.mark.parametrize(
    ("device", "asked"), [("", (16, 1.0, 4)), ("cuda", (16, 1.0, 4)), ("cpu", (64, 0.0, 64))], ids=str
)
def test_cores_and_gpu_are_asked_of_one_machine(
    monkeypatch: pytest.MonkeyPatch, device: str, asked: tuple[int, float]
) -> None:
    """No task that wants both ever starts where they are the cores of one and the GPU of another."""
    nodes = [
        {"Alive": True, "Resources": {"CPU": 64.0}},
        {"Alive": True, "Resources": {"CPU": 16.0, "GPU": 4.0}},
        {"Alive": False, "Resources": {"CPU": 96.0, "GPU": 8.0}},
    ]
    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: True)
    monkeypatch.setattr(cluster.ray, "nodes", lambda: nodes)
    machine = cluster.join(replace(load(), device=device), None)
    assert machine == asked
    shares = (4, 4, 8) if machine.gpus else (1, 10, 32)
    assert tuple(machine.cores_of_each(trials) for trials in (99, 6, 2)) == shares  # of all its cores


@pytest.mark.parametrize(
    ("address", "joined"), [(None, ("local", 3)), ("10.0.0.1:6379", ("10.0.0.1:6379", None))]
)
def test_no_cluster_is_joined_that_was_not_named(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    address: str | None,
    joined: tuple[str, int | None],
) -> None:
    """Ray would join one that somebody else has started on this machine; and here, it counts all cores."""
    asked = []
    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster.ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 1.0}}])
    monkeypatch.setattr(cluster.ray, "init", lambda place, *, num_cpus, **_: asked.append((place, num_cpus)))
    monkeypatch.setattr(cluster.ray, "available_resources", lambda: {"CPU": 2.0})
    monkeypatch.setattr(cluster.ray, "get_runtime_context", lambda: Mock(gcs_address="10.0.0.1:6379"))
    monkeypatch.setattr(cluster.socket, "create_connection", lambda *_, **__: Mock())
    with caplog.at_level(logging.INFO):
        cluster.join(replace(load(), workers=3), address)
    assert asked == [joined]
    said = ["joined the Ray cluster at 10.0.0.1:6379, where 2 cores and 0 GPUs are free"] if address else []
    assert caplog.messages == said


def test_a_port_at_which_nobody_listens_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray would try it for a quarter of an hour."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    init = Mock()
    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(cluster.ray, "init", init)
    with pytest.raises(UsageError, match=f"no Ray cluster answers at --address {address}: .*refused"):
        cluster.join(load(), address)
    assert not init.called


def test_a_training_whose_machine_dies_asks_for_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would wait for a machine as large as the one that is gone, of which Ray knows some time after
    its work has ended."""
    asked, large, small = list[dict[str, Any]](), Machines(64, 0.0, 64), Machines(32, 0.0, 32)
    machines = iter((large, large, large, small, small))
    ready, waiting, cancelled = ([None], []), ([], [None]), Mock()
    told = iter((ready, waiting, waiting, ready))

    def options(**wanted: Any) -> Any:
        asked.append(wanted)
        return SimpleNamespace(remote=lambda *_: None)

    ended = Mock(side_effect=[WorkerCrashedError(), "weights"])
    monkeypatch.setattr(sweep.cluster, "join", lambda *_: next(machines))
    monkeypatch.setattr(sweep.ray, "remote", lambda **_: lambda _: SimpleNamespace(options=options))
    monkeypatch.setattr(sweep.ray, "wait", lambda *_, **__: next(told))
    monkeypatch.setattr(sweep.ray, "cancel", cancelled)
    monkeypatch.setattr(sweep.ray, "get", ended)
    cell = plan.cell("random_init", "chexpert", profile="demo", protocol="clean", fraction=1.0, seed=0)
    settings, once_more = load(results=tmp_path), sweep.Options(None, None, 1)
    assert sweep._made(settings, once_more, cell) == "weights"
    assert [each["num_cpus"] for each in asked] == [64, 64, 32]
    assert {each["max_retries"] for each in asked} == {0} and cancelled.call_count == 1
    ended.side_effect = WorkerCrashedError()
    monkeypatch.setattr(sweep.cluster, "join", lambda *_: small)
    monkeypatch.setattr(sweep.ray, "wait", lambda *_, **__: ready)
    with pytest.raises(HarnessError, match="its process was ended"):
        sweep._made(settings, once_more, cell)
    assert len(asked) == 5
