"""Writing that is never half done or done twice at once, finding, and hashes that say what a file holds."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import mmap
import os
import shutil
import sys
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import HarnessError

NAME = r"\w([\w .+-]{0,198}[\w+-])?"
"""With re.ASCII, names of files and folders that lead nowhere else."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; moves it into place only if the block succeeds.

    Works for files and for new folders. A failure (full disk, kill, loss of power) leaves `path` as it was;
    what the files of a new folder hold is the block's to `sync`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # not the process id: containers number theirs alike, so two could write one file, or trip over the
    # left-over of one that was killed
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


def clear(folder: Path) -> None:
    """Deletes the temporary files that killed writers left; only where no other can be writing."""
    for path in folder.glob(".*.part"):
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """What a file holds, or the names in a folder, outlive a loss of power from here on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL or not path.is_dir():  # some network disks do so with files alone
            raise
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Held by one process at a time; the system frees it however that process ends. Raises HarnessError on a
    disk without locks, such as NFS or Lustre may be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.stderr.write(f"waiting for another process that does the same work ({path})\n")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise HarnessError(
                f"{path} cannot be locked ({error.strerror}), so that two processes could spoil each other's "
                "work. Set HARNESS_HOME to a disk that has locks, or mount this one with them"
            ) from error
        yield


def write_text(path: Path, text: str, mode: int = 0o666) -> None:
    """`mode`: who may read and write it, less what the umask forbids."""
    with replacing(path) as temporary:
        temporary.touch(mode)
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: object) -> None:
    """Sorted keys, NaN refused: the same value is the same file everywhere."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def below(folder: Path, *suffixes: str) -> list[Path]:
    """The files of these kinds in a folder and in all below it, sorted. `rglob` leaves out folders that are
    links, though whoever opens a file in one finds it."""
    found = (Path(place, name) for place, _, names in os.walk(folder, followlinks=True) for name in names)
    return sorted(path for path in found if path.suffix in suffixes)


def file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


SEAL = hashlib.sha256().digest_size


def seal(path: Path) -> None:
    """Appends the hash of what the file holds: formats that know their own length (npy, zip) do not mind."""
    digest = bytes.fromhex(file_hash(path))
    with path.open("ab") as file:
        file.write(digest)


def is_sealed(path: Path) -> bool:
    """Whether the file is still the one that was sealed."""
    if path.stat().st_size < SEAL:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        with memoryview(content) as view:
            return hashlib.sha256(view[:-SEAL]).digest() == view[-SEAL:]


def hash_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def hash_of(*parts: object) -> str:
    """sha256 over the JSON of `parts`: for keys made of names, numbers and other hashes."""
    text = json.dumps(parts, sort_keys=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def hash_lines(lines: Iterable[str]) -> str:
    """sha256 over many lines without holding them at once, in the order given."""
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode())
        digest.update(b"\n")
    return digest.hexdigest()
