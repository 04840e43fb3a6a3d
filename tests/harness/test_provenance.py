"""What a record says of the machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import provenance

SCRIPT = """
import numpy as np
from harness import provenance
start = provenance.peak_memory_mib()
large = np.ones(2**28, dtype=np.uint8)
held = provenance.peak_memory_mib()
del large
kept = provenance.peak_memory_mib()
provenance.forget_peak_memory()
print(held - start, kept - start, provenance.peak_memory_mib() - start)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot forget")
def test_a_peak_is_kept_until_it_is_forgotten() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    held, kept, after = map(float, done.stdout.split())
    assert held > 200 and kept > 200  # MiB, of 256
    assert after < 56


def git(folder: Path, *arguments: str) -> None:
    who = ["-c", "user.name=nobody", "-c", "user.email=nobody@localhost"]
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


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
    provenance.code.cache_clear()
    yield tmp_path
    provenance.code.cache_clear()


def test_code_is_clean_where_the_commit_holds_it(
    checkout: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert len(provenance.code("imitate", "chexpert").commit) == 40
    assert not provenance.code("imitate", "chexpert").dirty
    assert not provenance.code(str(checkout / "docs" / "file.py")).dirty
    (checkout / "docs" / "mine.py").write_text("")
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "method.py"
    elsewhere.write_text("")
    for own in (checkout / "docs" / "mine.py", elsewhere):
        assert provenance.code("imitate", str(own)).dirty
    (checkout / "harness" / "file.py").write_text("changed = True")
    provenance.code.cache_clear()
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
