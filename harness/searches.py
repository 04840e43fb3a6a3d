"""What was tried so far to tune the head of a cell, kept so that a search that is cut off loses one trial.

Apart from Tune, whose own checkpoints are not trusted: kept is every trial that ended, with what it reported
at each validation. A new scheduler is told of it as it came, stops what it would have stopped, and the search
ends as if nothing had happened.
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from harness import account, weights
from harness import run as pipeline
from harness.errors import TrainingDiverged
from harness.evaluate.search import Configuration
from harness.files import hash_of, write_json
from harness.jobs import Job
from harness.records import TrialBlock
from harness.settings import Settings

LAST = ("steps", "value", "ended", "time_total_s")  # kept of a trial's last report

logger = logging.getLogger(__name__)


class Ended(NamedTuple):
    """A trial that came to its end."""

    reports: list[dict[str, float]]  # `percent` of the steps and the best `value` so far
    last: dict[str, Any]  # its last report, or how it died

    @property
    def curable(self) -> bool:
        """Whether it failed, and might not do so again: one that diverged would."""
        return self.last.get("value") is None and self.last.get("ended") != TrainingDiverged.__name__


@dataclass
class Search:
    """The search of one cell: what is to be tried, and what came of it so far."""

    configurations: list[Configuration]  # its method has no say in them
    ended: list[Ended]
    file: Path
    reasons: dict[int, str] = field(default_factory=dict)
    """Why configurations failed, by their number. They may name places, and are not kept."""

    @property
    def lost(self) -> bool:
        """Whether its last trial failed and might not do so again."""
        return bool(self.ended) and self.ended[-1].curable

    @property
    def over(self) -> bool:
        """Whether nothing more is tried now. After a lost trial it would be in vain: what is stopped depends
        on all trials before, so that the next sweep begins with the lost one and keeps none after it."""
        return self.lost or len(self.ended) == len(self.configurations)

    @property
    def trials(self) -> list[TrialBlock]:
        return [
            TrialBlock(
                settings=dict(configuration),
                steps=last.get("steps", 0),
                value=last.get("value"),
                ended=last.get("ended", "stopped"),
            )
            for configuration, (_, last) in zip(self.configurations, self.ended, strict=False)
        ]

    @property
    def seconds(self) -> float:
        return float(sum(last.get("time_total_s", 0.0) for _, last in self.ended))

    def end(self, reports: list[dict[str, float]], last: dict[str, Any]) -> None:
        """Keeps the result of the configuration that has just run."""
        if "reason" in last:
            self.reasons[len(self.ended)] = last["reason"]
        self.ended.append(Ended(reports, {name: last[name] for name in LAST if name in last}))
        try:
            write_json(self.file, self.ended)
        except OSError as error:
            logger.warning("%s cannot be written: %s. Cut off, the search begins anew", self.file, error)

    def forget(self) -> None:
        """Deletes the file. Called when the cell has its record."""
        self.file.unlink(missing_ok=True)


def of(job: Job, settings: Settings, stopping: str) -> Search:
    """A new search, or what a sweep before has left of it: up to the first trial whose failure may be cured
    by now. `stopping`: by which rule trials are stopped."""
    head = pipeline.tunable(job.cell)
    configurations = head.SPACE.configurations(job.cell.tuned, job.cell.seed)
    card = job.checkpoint.card
    key = hash_of(
        *(*job.known, job.pictures, job.block.model_dump(), job.cell.task.version),
        *(card.weights, asdict(card.profile.preprocessing), weights.code(job.cell.method)),
        *(head.VERSION, account.READING, configurations, stopping),
    )
    file = settings.searches / f"{key}.json"
    kept = _read(file)
    good = next((number for number, trial in enumerate(kept) if trial.curable), len(kept))
    return Search(configurations, kept[:good], file)


def _read(file: Path) -> list[Ended]:
    try:
        return [Ended(reports, dict(last)) for reports, last in json.loads(file.read_bytes())]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError) as error:
        logger.warning("%s is no search: %s. It begins anew", file, error)
        return []
