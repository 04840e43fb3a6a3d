"""The zero-shot kind under the published protocol, for balanced draws: scored as GLoRIA's code does.

Apart because its decisions depend on which pictures are in the test part.
Source: GLoRIA 416466a, gloria/gloria.py. Which prompts are read, and what of them, is not theirs: see the
rules of this head in `harness/data/published.py`.
"""

from __future__ import annotations

from harness.contracts import Task
from harness.evaluate import zero_shot
from harness.evaluate.bench import Bench, Examples
from harness.evaluate.zero_shot import Prompts

VERSION = 1

check = zero_shot.check


def fit(bench: Bench, task: Task, train: Examples, validation: Examples, seed: int) -> Prompts:
    return zero_shot.fit(bench, task, train, validation, seed, scoring="gloria")
