"""Shared fixtures: where the real pictures are, a home that every test throws away, somebody's plug-in."""

from __future__ import annotations

import os
import shutil
import signal
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadFileScheduling

from harness import registry

ROOT = Path(__file__).resolve().parents[1]
REALDATA = ROOT.parent / "shared" / "realdata"


# One thread per worker: xdist has a process on every core already, and more threads than cores only wait for
# each other. Here and not in a hook: a conftest further down may import torch before any hook runs, and a
# process that tests start would then count in another order than the one it is compared with.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Tests start dozens of processes. Where bytecode is not kept, each of them compiles torch anew, for seconds.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A suite in the background is told to ignore Ctrl-C, and so would be the processes that tests send it to.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


CLUSTERS = ("test_sweep.py", "test_tuning.py", "test_distributed.py")
"""Files whose tests start Ray, one after the other for minutes."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those first: at the end, one worker would be at them while the others have nothing left."""
    items.sort(key=lambda item: item.path.name not in CLUSTERS)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadFileScheduling:
    """One worker for a file, so that what its tests share is made once; and files in the order above."""
    config.option.loadscopereorder = False
    return LoadFileScheduling(config, log)


@pytest.fixture(scope="session")
def realdata() -> Path:
    """The folder of real X-rays beside the project; tests that need it are skipped where it is absent."""
    if not REALDATA.is_dir():
        pytest.skip("no real X-rays: the folder shared/realdata does not lie beside the project")
    return REALDATA


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Caches, phantoms and checkpoints of this test; the user's own are never touched."""
    folder = tmp_path / "home"
    monkeypatch.setenv("HARNESS_HOME", str(folder))
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    return folder


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Inode and size of every file and folder that the disk is told to keep from here on, in order."""
    fsync, found = os.fsync, []

    def recorded(descriptor: int) -> None:
        fsync(descriptor)
        status = os.fstat(descriptor)
        found.append((status.st_ino, status.st_size))

    monkeypatch.setattr(os, "fsync", recorded)
    return found


@pytest.fixture
def plug_in(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a method of another package, which has a demo profile alone."""
    site = tmp_path_factory.mktemp("site")
    shutil.copy(ROOT / "docs" / "filter_bank.py", site / "package_of_others.py")
    monkeypatch.syspath_prepend(str(site))
    point = EntryPoint("foreign", "package_of_others", "harness.methods")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == point.group else [])
    return point.name
