"""What a training writes about itself: a CSV that opens anywhere, and TensorBoard curves.

Apart because both must survive a kill: on resuming, lines of steps that will be done again are dropped.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from harness.files import write_text


class Log:
    """One line a step. `folder` may hold the log of a run that was killed after `first` steps or later; what
    a kill or a full disk left of a line is among those that go."""

    def __init__(self, folder: Path, first: int) -> None:
        self.path = folder / "log.csv"
        kept = self.path.read_text().splitlines(keepends=True)[: first + 1] if first else []  # and the header
        write_text(self.path, "".join(kept))
        self._board = SummaryWriter(folder, purge_step=first)

    def __enter__(self) -> Log:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._board.close()

    def write(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Appends rows with the same columns, `step` among them."""
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            if file.tell() == 0:
                writer.writeheader()
            writer.writerows(rows)
        last = dict(rows[-1])
        self.curves("train", last, int(last.pop("step")))

    def curves(self, group: str, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._board.add_scalar(f"{group}/{name}", value, step)

    def mean(self, last: int) -> dict[str, float]:
        """Mean of every column but the step's over the last so many steps."""
        with self.path.open(newline="") as file:
            rows = list(csv.DictReader(file))[-last:]
        return {name: sum(float(row[name]) for row in rows) / len(rows) for name in rows[0] if name != "step"}
