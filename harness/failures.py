"""Cells that could not be computed, and why: one file each, in a folder beside the records.

Apart because the sweep writes them, tells them at its end, and the leaderboard shows them long after.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from harness.errors import BadRecord
from harness.files import write_json
from harness.plan import CellPlan
from harness.records import CellBlock

FOLDER = "failures"


class Failure(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str
    task: str
    protocol: str
    fraction: float
    seed: int
    tuned: int
    cut_validation: bool
    error: str  # its class
    message: str

    @property
    def reason(self) -> str:
        return f"{self.error}: {self.message}"

    def is_of(self, cell: CellBlock) -> bool:
        """Whether it is the same cell, whatever the checkpoint."""
        names = set(type(self).model_fields) - {"error", "message"}
        return all(getattr(self, name) == getattr(cell, name) for name in names)


def path_of(results: Path, cell: CellPlan) -> Path:
    return results / FOLDER / f"{cell.name.replace(' ', '-').replace(':', '-')}.json"


def write(results: Path, cell: CellPlan, error: BaseException) -> None:
    failure = Failure(
        method=cell.method.name,
        task=cell.task_id,
        protocol=cell.protocol,
        fraction=cell.fraction,
        seed=cell.seed,
        tuned=cell.tuned,
        cut_validation=cell.cut_validation,
        error=type(error).__name__,
        message=str(error),
    )
    write_json(path_of(results, cell), failure.model_dump())


def reason(results: Path, cell: CellPlan) -> str:
    """Why a cell has no record. One that left no word was never begun, or its process was killed."""
    path = path_of(results, cell)
    return _read(path).reason if path.exists() else "its process died before the cell was done"


def read_all(results: Path) -> Iterator[Failure]:
    for path in sorted((results / FOLDER).glob("*.json")):
        yield _read(path)


def _read(path: Path) -> Failure:
    try:
        return Failure.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise BadRecord(f"{path}: {error}. Delete it; the next sweep writes it again") from error
