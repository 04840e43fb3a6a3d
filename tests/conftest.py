"""Shared fixtures: where the real pictures are, and a home that every test throws away."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

REALDATA = Path(__file__).resolve().parents[2] / "shared" / "realdata"


# One thread per worker: xdist has a process on every core already, and more threads than cores only wait for
# each other. Here and not in a hook: a conftest further down may import torch before any hook runs, and a
# process that tests start would then count in another order than the one it is compared with.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A suite in the background is told to ignore Ctrl-C, and so would be the processes that tests send it to.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


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
