"""What a cell costs: seconds of each step, and which steps a cache answered.

Apart because the pipeline and the evaluators both add to it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Cost:
    seconds: dict[str, float] = field(default_factory=dict)  # of a step without the steps inside it
    cached: dict[str, bool] = field(default_factory=dict)
    images_per_second: float | None = None  # of the encoder; None where its features were read
    _inside: list[float] = field(default_factory=list)  # per open step, the seconds of its inner steps

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Times what happens in it; the same name twice adds up."""
        started = time.monotonic()
        self._inside.append(0.0)
        try:
            yield
        finally:
            whole, inner = time.monotonic() - started, self._inside.pop()
            self.seconds[name] = round(self.seconds.get(name, 0.0) + whole - inner, 3)
            if self._inside:
                self._inside[-1] += whole
