"""Cells that could not be computed, and why: one file each, in a folder beside the records.

Apart because the sweep writes them, tells them at its end, and the leaderboard shows them long after. What an
error says may name a person or a path: on real data it stands in a file of its own, for its owner alone (git
and the leaderboard leave `*.log` out).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.contracts import NEEDS_TEXT, DataKind, ProfileName
from harness.errors import BadRecord, ProcessDied
from harness.files import replacing, write_json
from harness.plan import CellPlan
from harness.records import CellBlock, Record

FOLDER = "failures"

DIED = (
    "its process was ended, most likely because memory ran out. Run fewer cells at once, or on a machine "
    "with more"
)

Key = tuple[object, ...]


class Failure(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    data: DataKind
    profile: ProfileName
    method: str
    task: str
    protocol: str
    fraction: float
    seed: int
    tuned: int
    cut_validation: bool
    error: str  # its class
    message: str  # "" on real data

    @property
    def reason(self) -> str:
        return f"{self.error}: {self.message}" if self.message else self.error

    @property
    def uses_labels(self) -> bool:
        return not self.task.partition(":")[2].startswith(tuple(NEEDS_TEXT))

    @property
    def key(self) -> Key:
        return _key(self.data, self.profile, self)


def key_of(record: Record) -> Key:
    """That of a failure of the same cell, whatever the checkpoint."""
    return _key(record.data.kind, record.pretraining.profile, record.cell)


def _key(data: DataKind, profile: ProfileName, cell: Failure | CellBlock) -> Key:
    return (data, profile, *(getattr(cell, name) for name in CellBlock.model_fields if name != "checkpoint"))


def path_of(results: Path, data: DataKind, cell: CellPlan) -> Path:
    name = f"{cell.method.profile_name} {cell.name}"
    return results / FOLDER / data / f"{name.replace(' ', '-').replace(':', '-')}.json"


def write(results: Path, data: DataKind, cell: CellPlan, error: BaseException) -> None:
    failure = Failure(
        **cell.key,
        data=data,
        profile=cell.method.profile_name,
        error=type(error).__name__,
        message=str(error) if data == "phantom" else "",
    )
    if data == "real":
        with replacing(_log(results, data, cell)) as log:
            log.write_text(f"{failure.error}: {error}\n", encoding="utf-8")
    write_json(path_of(results, data, cell), failure.model_dump())


def begin(results: Path, data: DataKind, cell: CellPlan) -> None:
    """Written before a cell runs, because a process that is ended can write no more; `forget` it after."""
    write(results, data, cell, ProcessDied(DIED))


def known(results: Path, data: DataKind, cell: CellPlan) -> bool:
    """Whether a cell failed, or ended its process: those that nothing is known of run before it."""
    return path_of(results, data, cell).exists()


def reason(results: Path, data: DataKind, cell: CellPlan) -> str:
    """Why a cell has no record."""
    path, log = path_of(results, data, cell), _log(results, data, cell)
    if not known(results, data, cell):
        return "it was not begun: the process that it waited for died. Sweep again"
    return log.read_text(encoding="utf-8").strip() if log.exists() else _read(path).reason


def forget(results: Path, data: DataKind, cell: CellPlan) -> None:
    """What an earlier sweep wrote down is not this one's reason, and a cell that is done needs none."""
    for path in (path_of(results, data, cell), _log(results, data, cell)):
        path.unlink(missing_ok=True)


def _log(results: Path, data: DataKind, cell: CellPlan) -> Path:
    return path_of(results, data, cell).with_suffix(".log")


def read_all(results: Path) -> Iterator[Failure]:
    for path in sorted((results / FOLDER).rglob("*.json")):
        yield _read(path)


def _read(path: Path) -> Failure:
    try:
        return Failure.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise BadRecord(f"{path}: {error}. Delete it; the next sweep writes it again") from error
