"""What a training writes about itself: a CSV that opens anywhere, and TensorBoard curves.

Apart because both must survive a kill: on resuming, lines of steps that will be done again are dropped.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from harness.files import replacing


class Log:
    """One line a step. `folder` may hold the log of a run that was killed after `first` steps or later."""

    def __init__(self, folder: Path, first: int) -> None:
        self.path = folder / "log.csv"
        kept = [row for row in self._read() if int(row["step"]) < first]
        if self.path.exists():
            with replacing(self.path) as temporary, temporary.open("w", newline="") as file:
                if kept:
                    writer = csv.DictWriter(file, list(kept[0]))
                    writer.writeheader()
                    writer.writerows(kept)
        self._board = SummaryWriter(folder, purge_step=first)

    def write(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Appends rows with the same columns, `step` among them."""
        columns = list(rows[0])
        new = not self.path.exists() or self.path.stat().st_size == 0
        with self.path.open("a", newline="") as file:
            writer = csv.DictWriter(file, columns)
            if new:
                writer.writeheader()
            writer.writerows(rows)
        last = dict(rows[-1])
        self.curves("train", last, int(last.pop("step")))

    def curves(self, group: str, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._board.add_scalar(f"{group}/{name}", value, step)

    def mean(self, last: int) -> dict[str, float]:
        """Mean of every column but the step's over the last so many steps."""
        rows = self._read()[-last:]
        return {name: sum(float(row[name]) for row in rows) / len(rows) for name in rows[0] if name != "step"}

    def close(self) -> None:
        self._board.close()

    def _read(self) -> list[dict[str, str]]:
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            return list(csv.DictReader(file))
