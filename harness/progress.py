"""One progress display for everything that takes longer than a breath: a bar on a terminal, a line now
and then in a log file. Written to standard error, so that `--json` output stays clean."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

LOG_EVERY_SECONDS = 15.0  # plain lines in a log: seldom enough to read, often enough to trust


class Bar:
    """Counts items of one job, `done` of them by an earlier run; a note (the loss, say) may go with it."""

    def __init__(self, label: str, total: int, unit: str = "images", done: int = 0) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done, self.before, self.note = done, done, ""
        self.started = self.reported = time.monotonic()
        self._rich: Progress | None = None

    def __enter__(self) -> Bar:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            label = TextColumn("{task.description}", markup=False)
            rate = TextColumn("{task.fields[rate]}", markup=False)
            columns = (label, BarColumn(), rate, TimeRemainingColumn())
            self._rich = Progress(*columns, console=Console(stderr=True))
            self._rich.start()
            self._row = self._rich.add_task(self.label, total=self.total, rate="")
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._rich is not None:
            self._rich.stop()
        elif self.done > self.before and kind is None:
            self._line()

    def advance(self, count: int = 1, note: str | None = None) -> None:
        """Without a `note` the last one stays."""
        self.done += count
        self.note = self.note if note is None else note
        if self._rich is not None:
            self._rich.update(self._row, completed=self.done, rate=f"{self._rate()} {self.note}")
        elif time.monotonic() - self.reported > LOG_EVERY_SECONDS and self.done < self.total:
            self.reported = time.monotonic()
            self._line()

    def _rate(self) -> str:
        seconds = max(time.monotonic() - self.started, 1e-9)
        speed = (self.done - self.before) / seconds
        pace = f"{1 / speed:.0f} s each" if 0 < speed < 0.5 else f"{speed:.0f}/s"
        return f"{self.done}/{self.total} {self.unit}, {pace}"

    def _line(self) -> None:
        seconds = time.monotonic() - self.started
        tail = f", {seconds:.0f} s"
        if self.before < self.done < self.total:
            tail = f", {(self.total - self.done) * seconds / (self.done - self.before):.0f} s left"
        sys.stderr.write(f"{self.label}: {self._rate()}{tail} {self.note}".rstrip() + "\n")
