"""Cells that could not be computed, and why: one file each, in a folder beside the records.

Apart because the sweep writes them, tells them at its end, and the leaderboard shows them long after. What an
error says may name a person or a path: what not everybody may see of it stands in a file of its own, for its
owner alone (git and the leaderboard leave `*.log` out). What is running now, they leave out too (`*.begun`).
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, ValidationError

from harness.contracts import NEEDS_TEXT, DataKind, ProfileName
from harness.errors import BadRecord, HarnessError, ProcessDied, first_of
from harness.files import below, write_json, write_text
from harness.plan import CellPlan
from harness.records import ADDRESS, CellBlock, Record
from harness.settings import Settings

FOLDER = "failures"

ENDED = (
    "was ended. If not by hand, then most likely because memory ran out: run fewer cells at once "
    "(HARNESS_WORKERS; on a cluster: ray start --num-cpus), or on a machine with more"
)
DIED = f"its process {ENDED}"
NOT_BEGUN = f"it was not begun: the process that it waited for {ENDED}"

TRACEBACK = "Traceback (most recent call last):"  # as Python begins it

Key = tuple[object, ...]


class Tried(NamedTuple):
    """A cell, and with what it was tried."""

    data: DataKind
    cell: CellPlan
    checkpoint: str  # "" where none could be had
    profile: ProfileName  # of the checkpoint, whatever the plan's; the plan's where there is none
    lent: bool = False  # whether its checkpoint is that of another seed, and nobody asked for it


def _for_all(message: str) -> str:
    """What anybody may see: one line, as it stands in a list of the page, and no place of a machine."""
    line = next(iter(message.strip().splitlines()), "")
    return "" if ADDRESS.search(line) else line


class Failure(CellBlock):
    """A cell, its checkpoint "" where none could be had."""

    data: DataKind
    profile: ProfileName
    lent: bool = False
    error: str  # its class
    message: Annotated[str, AfterValidator(_for_all)]  # "" beside real data

    @property
    def reason(self) -> str:
        return f"{self.error}: {self.message}" if self.message else self.error

    @property
    def uses_labels(self) -> bool:
        return not self.task.partition(":")[2].startswith(tuple(NEEDS_TEXT))

    @property
    def key(self) -> Key:
        """What finds the failure again. The same whichever checkpoint a cell is done with later, where it was
        lent another seed's."""
        cell = self.model_copy(update={"checkpoint": ""}) if self.lent else self
        return _key(self.data, self.profile, cell)


def keys_of(record: Record) -> tuple[Key, Key]:
    """Keys of the failures that a record makes obsolete: of its cell with this checkpoint, and of its cell
    for want of one of its profile."""
    cells = record.cell, record.cell.model_copy(update={"checkpoint": ""})
    one, other = (_key(record.data.kind, record.pretraining.profile, cell) for cell in cells)
    return one, other


def _key(data: DataKind, profile: ProfileName, cell: CellBlock) -> Key:
    return (data, profile, *(getattr(cell, name) for name in CellBlock.model_fields))


def path_of(results: Path, tried: Tried) -> Path:
    name = f"{tried.cell.method.profile_name} {tried.cell.name} {tried.checkpoint}".strip()
    return results / FOLDER / tried.data / f"{name.replace(' ', '-').replace(':', '-')}.json"


def write(settings: Settings, tried: Tried, error: BaseException) -> None:
    """Writes down that a cell failed. With data roots the message is private even of a cell on a phantom,
    whose corpus may be real. The traceback of an error that is none of ours is always private."""
    message = _readable(str(error))
    private = bool(settings.data_roots) or tried.data == "real"
    traced = not isinstance(error, HarnessError) and error.__traceback__
    where = _readable("".join(traceback.format_exception(error))) if traced else ""
    failure = Failure(
        **tried.cell.key,
        checkpoint=tried.checkpoint,
        data=tried.data,
        profile=tried.profile,
        lent=tried.lent,
        error=type(error).__name__,
        message="" if private else message,
    )
    if failure.message == message and not where:
        _log(settings.results, tried).unlink(missing_ok=True)
    else:
        write_text(_log(settings.results, tried), f"{failure.error}: {message}\n{where}", mode=0o600)
    write_json(path_of(settings.results, tried), failure.model_dump())
    _begun(settings.results, tried).unlink(missing_ok=True)


def _readable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()  # a file's name may be no Unicode


def begin(settings: Settings, tried: Tried) -> None:
    """Written before a cell runs, because a process that is ended can write no more; `forget` it after."""
    write_text(_begun(settings.results, tried), "")


def settle(settings: Settings, tried: Tried) -> None:
    """Records a failure for a cell that began and did not end, and whose process is gone."""
    if _begun(settings.results, tried).exists():
        write(settings, tried, ProcessDied(DIED))


def known(results: Path, tried: Tried) -> bool:
    """Whether a cell failed, or was begun: those that nothing is known of run before it."""
    return path_of(results, tried).exists() or _begun(results, tried).exists()


def reason(results: Path, tried: Tried) -> str:
    """Why a cell has no record."""
    path, log = path_of(results, tried), _log(results, tried)
    if not path.exists():
        return NOT_BEGUN
    if not log.exists():
        return _read(path).reason
    told, traced, _ = log.read_text(encoding="utf-8").partition(f"\n{TRACEBACK}")
    return f"{told.strip()} (in which line: {log})" if traced else told.strip()


def forget(results: Path, tried: Tried) -> None:
    """What an earlier sweep wrote down is not this one's reason, and a cell that is done needs none. With it
    goes the failure of having no checkpoint, now that there is one."""
    for each in (tried, tried._replace(checkpoint="")):
        for path in (path_of(results, each), _log(results, each), _begun(results, each)):
            path.unlink(missing_ok=True)


def _log(results: Path, tried: Tried) -> Path:
    return path_of(results, tried).with_suffix(".log")


def _begun(results: Path, tried: Tried) -> Path:
    return path_of(results, tried).with_suffix(".begun")


def read_all(results: Path) -> Iterator[Failure]:
    for path in below(results / FOLDER, ".json"):
        with suppress(FileNotFoundError):  # a sweep has begun the cell again meanwhile
            yield _read(path)


def _read(path: Path) -> Failure:
    try:
        return Failure.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise BadRecord(f"{path}: {first_of(error)}. Delete it; the next sweep writes it again") from error
