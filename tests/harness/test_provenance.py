"""What a record says of the machine."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import account, plan, provenance, registry, run
from harness.cost import Cost
from harness.plan import CellPlan
from harness.pretrain import make
from harness.settings import load

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import numpy as np
from harness import provenance
start = provenance.peak_memory_mib()
large = np.ones(2**28, dtype=np.uint8)
held = provenance.peak_memory_mib()
del large
kept = provenance.peak_memory_mib()
provenance.forget_peak_memory()
after = provenance.peak_memory_mib()
pieces = [bytearray(100_000) for _ in range(2560)]
del pieces[::2]  # what is between them stays, so that the process keeps its size
provenance.forget_peak_memory()
print(held - start, kept - start, after - start, provenance.peak_memory_mib() - start)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot forget")
def test_a_peak_is_kept_until_it_is_forgotten() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    held, kept, after, half = map(float, done.stdout.split())
    assert held > 200 and kept > 200  # MiB, of 256
    assert after < 56
    assert half < 160  # of 244, of which every other piece is free


@pytest.mark.skipif(platform.machine() != "x86_64" or sys.platform != "linux", reason="told otherwise there")
def test_the_processor_is_named_as_others_name_it() -> None:
    referee = pytest.importorskip("cpuinfo")  # which pytest-benchmark brings
    assert provenance.processor() == referee.get_cpu_info()["brand_raw"]


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=nobody", "-c", "user.email=nobody@localhost"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


def forget() -> None:
    for asked in (provenance.code, provenance._commit):
        asked.cache_clear()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A repository of the project's folders, with an example in a file of its own."""
    for name in (*provenance.SOURCES, "docs"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file.py").write_text("")
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "all")
    monkeypatch.setattr(provenance, "PACKAGE_ROOT", tmp_path)
    forget()
    yield tmp_path
    forget()


def test_code_is_clean_where_the_commit_holds_it(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert len(provenance.code().commit) == 40
    assert not provenance.code(checkout / "tasks" / "file.py", checkout / "docs" / "file.py").dirty
    (checkout / "docs" / "mine.py").write_text("")
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "method.py"
    elsewhere.write_text("")
    for own in (checkout / "docs" / "mine.py", elsewhere):
        assert provenance.code(checkout / "methods" / "file.py", own).dirty
    (checkout / "harness" / "file.py").write_text("changed = True")
    forget()
    assert provenance.code().dirty


def test_code_that_git_says_nothing_of_may_have_been_changed(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = subprocess.run

    def slow(command: list[str], **options: object) -> object:
        if "status" in command:
            raise subprocess.TimeoutExpired(command, 30)
        return run(command, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "run", slow)
    found = provenance.code()
    assert found.commit and found.dirty


# --- of a cell and of a training -----------------------------------------------------------------------


@pytest.fixture
def house(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a method, a dataset and a corpus."""
    for file in ("methods/imitate.py", "tasks/chexpert.py", "tasks/mimic_cxr.py"):
        shutil.copy(ROOT / file, checkout / file)
    commit(checkout)
    monkeypatch.setattr(registry, "PACKAGE_ROOT", checkout)
    return checkout


def commit(folder: Path) -> str:
    git(folder, "add", ".")
    git(folder, "commit", "--allow-empty", "-m", "more")
    run = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, check=True, capture_output=True, text=True)
    return run.stdout.strip()


def cell(method: str) -> CellPlan:
    return plan.cell(method, "chexpert", profile="demo", protocol="clean", fraction=1.0, seed=0)


def test_a_plug_in_is_no_code_of_the_commit(house: Path, plug_in: str) -> None:
    assert not account.code(cell("imitate")).dirty
    assert account.code(cell(plug_in)).dirty


class Hours(Exception):
    """In place of the work."""


def test_the_commit_is_that_of_the_start(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(*_: object, **__: object) -> None:
        raise Hours

    monkeypatch.setattr(run.locate, "find", work)
    monkeypatch.setattr(make.optimisation, "check", work)
    begun = commit(house)
    with pytest.raises(Hours):
        run.prepare(cell("imitate"), load(), None, Cost())
    method = plan.method("imitate", "demo")
    with pytest.raises(Hours):
        make.trained(method, plan.corpus(method, None), load(), seed=0, stand_in=False)
    later = commit(house)
    for code in (account.code(cell("imitate")), make._code(method)):
        assert (code.commit, code.dirty) == (begun, False)
    mixed = provenance.code(house / "docs" / "file.py")  # first asked for in the middle
    assert (mixed.commit, mixed.dirty) == (begun, True)
    forget()  # as another process
    assert (account.code(cell("imitate")).commit, account.code(cell("imitate")).dirty) == (later, False)
