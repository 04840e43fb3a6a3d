"""What a training writes about itself: a CSV of its steps, one of its epochs, and TensorBoard curves.

Apart because all must survive a kill: on resuming, lines of steps that will be done again are dropped.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from harness.errors import CheckpointError
from harness.files import sync, write_text

STEPS, EPOCHS = "log.csv", "validation.csv"


class Log:
    """One line a step, and one an epoch. `folder` may hold the log of a run that was killed after `first`
    steps and `epochs` epochs or later; what a kill or a full disk left of a line is among those that go."""

    def __init__(self, folder: Path, first: int, epochs: int = 0) -> None:
        self.folder = folder
        for name, count in ((STEPS, first), (EPOCHS, epochs)):
            path = folder / name
            kept = path.read_text().splitlines(keepends=True)[: count + 1] if count else []  # and the header
            if count and len(kept) <= count:  # by a hand, or a disk that keeps no promise
                raise CheckpointError(
                    f"{path} lacks lines of the {count} that were done. Delete {folder} to start over"
                )
            write_text(path, "".join(kept))
        self._board = SummaryWriter(folder, purge_step=first)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._board.close()
        self.sync()

    def write(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Appends steps with the same columns, `step` among them."""
        _append(self.folder / STEPS, rows)
        self._curves("train", rows[-1])

    def validated(self, row: Mapping[str, float]) -> None:
        """Appends an epoch; `step` is the last of it."""
        _append(self.folder / EPOCHS, [row])
        self._curves("validation", row)

    def sync(self) -> None:
        """Before a state is saved that counts on the lines."""
        for name in (STEPS, EPOCHS):
            sync(self.folder / name)

    def _curves(self, group: str, row: Mapping[str, float]) -> None:
        for name, value in row.items():
            if name != "step":
                self._board.add_scalar(f"{group}/{name}", value, int(row["step"]))


def read(path: Path) -> list[dict[str, float]]:
    """The lines of a log as numbers."""
    with path.open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of every column but the step's."""
    return {name: sum(row[name] for row in rows) / len(rows) for name in rows[0] if name != "step"}


def _append(path: Path, rows: Sequence[Mapping[str, float]]) -> None:
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        if file.tell() == 0:
            writer.writeheader()
        writer.writerows(rows)
