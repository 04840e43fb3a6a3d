"""Writing that is never half done, under the failures that happen: an error, a full disk, kill -9."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.files import (
    below,
    clear,
    file_hash,
    hash_lines,
    hash_of,
    is_sealed,
    locked,
    replacing,
    seal,
    sync,
    write_json,
    write_text,
)


def test_files_behind_a_link_are_found(tmp_path: Path) -> None:
    for name in ("elsewhere/deep/c.json", "here/b.json", "here/b.log", "here/.DS_Store"):
        write_text(tmp_path / name, "")
    here = tmp_path / "here"
    (here / "a").symlink_to(tmp_path / "elsewhere")
    (here / "d.json").mkdir()
    assert below(here, ".json") == [here / "a" / "deep" / "c.json", here / "b.json"]
    assert below(here, ".json", ".log") == [here / "a" / "deep" / "c.json", here / "b.json", here / "b.log"]
    assert below(tmp_path / "nowhere", ".json") == []


def test_a_file_replaces_the_old_one_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "note.txt"
    write_text(path, "old\n")
    write_text(path, "new – ±\n")
    assert path.read_bytes() == "new – ±\n".encode()
    assert list(path.parent.iterdir()) == [path]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "phantom"
    with pytest.raises(RuntimeError, match="stop"), replacing(path) as temporary:
        temporary.mkdir()
        (temporary / "half").write_text("half")
        raise RuntimeError("stop")
    assert list(tmp_path.iterdir()) == []
    with replacing(path) as temporary:
        temporary.mkdir()
        (temporary / "whole").write_text("whole")
    assert [item.name for item in path.iterdir()] == ["whole"]


def test_two_writers_of_one_path_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    with replacing(path) as first, replacing(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"  # moved last
    assert list(tmp_path.iterdir()) == [path]


def test_a_lock_is_held_by_one_at_a_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    order = []

    def second() -> None:
        with locked(tmp_path / "new" / "x.lock"):
            order.append("second")

    waiting = threading.Thread(target=second)
    with locked(tmp_path / "new" / "x.lock"):
        waiting.start()
        waiting.join(0.2)
        order.append("first")
    waiting.join()
    assert order == ["first", "second"]
    assert "waiting for another process" in capsys.readouterr().err


def test_a_disk_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with (
        pytest.raises(HarnessError, match=r"x\.lock cannot be locked \(No locks available\).*HARNESS_HOME"),
        locked(tmp_path / "x.lock"),
    ):
        pass


def test_a_file_is_on_the_disk_before_its_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synced: list[tuple[int, int]]
) -> None:
    """The other way round, a loss of power could leave an empty file in the place of the old one."""
    replace, moved = Path.replace, []

    def moving(self: Path, target: Path) -> Path:
        moved.append(len(synced))
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", moving)
    path = tmp_path / "note.txt"
    write_text(path, "new\n")
    assert moved == [1]
    assert synced[0] == (path.stat().st_ino, 4)
    assert [inode for inode, _ in synced[1:]] == [tmp_path.stat().st_ino]


def test_a_disk_that_syncs_files_alone_can_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failure = errno.EINVAL

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(failure, os.strerror(failure))

    monkeypatch.setattr(os, "fsync", fsync)
    write_text(tmp_path / "note.txt", "new\n")
    assert (tmp_path / "note.txt").read_text() == "new\n"
    failure = errno.EIO
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        sync(tmp_path)


INTERRUPTIONS = {
    "kill -9": "temporary.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)",
    "full disk": "resource.setrlimit(resource.RLIMIT_FSIZE, (4, 4)); temporary.write_text('too long')",
}


@pytest.mark.parametrize("cause", INTERRUPTIONS.values(), ids=INTERRUPTIONS)
def test_an_interrupted_write_keeps_the_old_file(tmp_path: Path, cause: str) -> None:
    path = tmp_path / "note.txt"
    path.write_text("old")
    program = (
        "import os, resource, signal, sys\nfrom pathlib import Path\nfrom harness.files import replacing\n"
        f"with replacing(Path(sys.argv[1])) as temporary:\n    {cause}\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL or "File too large" in done.stderr
    assert path.read_text() == "old"
    # what kill -9 leaves is hidden and has no suffix that any reader looks for
    assert all(item == path or item.name.startswith(".note.txt.") for item in tmp_path.iterdir())
    clear(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_json_is_the_same_everywhere_and_never_nan(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_json(path, {"b": 1.5, "a": [1, None]})
    first = path.read_bytes()
    write_json(path, {"a": [1, None], "b": 1.5})
    assert path.read_bytes() == first
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"a": float("nan")})
    assert path.read_bytes() == first


def test_hashes() -> None:
    assert hash_of("a", 1) == hashlib.sha256(b'["a",1]').hexdigest()
    assert hash_of({"x": 1, "y": 2}) == hash_of({"y": 2, "x": 1})
    assert hash_of("ab") != hash_of("a", "b")
    assert hash_lines(["a", "b"]) == hashlib.sha256(b"a\nb\n").hexdigest()
    assert hash_lines(["ab"]) != hash_lines(["a", "b"])


def test_file_hash(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "x").write_bytes(content)
    assert file_hash(tmp_path / "x") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("content", [b"", b"x", bytes(range(256)) * 100])
def test_a_seal_is_the_hash_of_what_stands_before_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    assert not is_sealed(path)
    seal(path)
    assert path.read_bytes() == content + hashlib.sha256(content).digest()
    assert is_sealed(path)


@pytest.mark.parametrize("place", [0, 50, -33, -32, -1])
def test_a_seal_breaks_with_any_bit(tmp_path: Path, place: int) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(100))
    seal(path)
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert not is_sealed(path)


@pytest.mark.parametrize("length", [0, 10, 32, 131])
def test_a_cut_file_is_not_sealed(tmp_path: Path, length: int) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes(100))
    seal(path)
    os.truncate(path, length)
    assert not is_sealed(path)
