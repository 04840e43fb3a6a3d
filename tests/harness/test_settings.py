"""The environment is read once, explicit arguments win, and a wrong value is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness import settings
from harness.errors import UsageError


def test_without_anything_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HARNESS_HOME", "HARNESS_DATA", "HARNESS_DEVICE", "HARNESS_WORKERS"):
        monkeypatch.delenv(name, raising=False)
    found = settings.load()
    assert found.data_roots == ()
    assert found.home == found.project / ".harness"
    assert found.results == found.project / "results"
    assert (found.project / "harness" / "settings.py").is_file()
    assert found.device == ""
    assert found.workers >= 1


def test_data_roots_are_listed_as_in_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HARNESS_DATA", os.pathsep.join(["~/xrays", "", str(tmp_path)]))
    assert settings.load().data_roots == (Path.home().resolve() / "xrays", tmp_path.resolve())


def test_explicit_arguments_win(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HARNESS_DATA", "/somewhere/else")
    monkeypatch.chdir(tmp_path)
    found = settings.load(data_root=Path("data"), results=tmp_path / "records")
    assert found.data_roots == (tmp_path.resolve() / "data",)
    assert found.results == tmp_path / "records"
    assert settings.load(results=Path("mine")).results == tmp_path.resolve() / "mine"


def test_a_printed_command_reads_the_same_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where it was given by an option, that is repeated, ready for a shell."""
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    assert settings.load().data_option == settings.load(data_root=tmp_path).data_option == ""
    assert settings.load(data_root=tmp_path / "my data").data_option == f" --data-root '{tmp_path}/my data'"
    monkeypatch.delenv("HARNESS_DATA")
    assert settings.load().data_option == ""
    assert settings.load(data_root=tmp_path).data_option == f" --data-root {tmp_path}"


def test_home_may_begin_with_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_HOME", "~/cache")
    found = settings.load()
    assert found.home == Path.home().resolve() / "cache"
    for folder in (found.checkpoints, found.images, found.banks, found.texts, found.phantoms):
        assert folder.parent == found.home


def test_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_WORKERS", "3")
    assert settings.load().workers == 3


@pytest.mark.parametrize("value", ["0", "-1", "many", "2.5"])
def test_a_wrong_number_of_workers_is_named(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HARNESS_WORKERS", value)
    with pytest.raises(UsageError, match=f"HARNESS_WORKERS is '{value}'"):
        settings.load()
