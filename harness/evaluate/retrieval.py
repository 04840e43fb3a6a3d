"""The retrieval kind: which report belongs to a picture, and which picture to a report. No label is used.

Apart because it alone scores pairs. Every method is asked for the same pairs, each in the section of the
report that it was trained to compare with pictures; similarities are the method's own. Which report is right
does not depend on that section: one that is worded the same as a whole. Or those who read only impressions,
many of which say "no acute process", would be asked an easier question.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.contracts import Task
from harness.data import balanced, table
from harness.data.task_data import TaskData
from harness.errors import EmptyClass
from harness.evaluate import pairing
from harness.evaluate.bench import Bench, Examples
from harness.metrics import retrieval
from harness.records import HeadBlock

VERSION = 2

FEWEST = 5
"""Right answers of a query, or candidates beyond the partner: the main metrics look at the five best."""


@dataclass(frozen=True)
class Pairs:
    bench: Bench
    task: Task

    @property
    def block(self) -> HeadBlock:
        return HeadBlock(name="similarity", settings={"text": self.bench.encoder.text_unit}, chosen={})

    def predict(self, test: Examples) -> dict[str, np.ndarray]:
        """`place` and, where the task has labels, `right`: see harness/metrics/retrieval.py."""
        reports = table.joined(test.frame, self.bench.encoder.text_unit)
        texts, column = np.unique(reports, return_inverse=True)  # equal texts are equally similar, exactly
        found = pairing.compare(self.bench, test.rows, texts.tolist(), pairing.similarity)
        whole = table.joined(test.frame, "findings+impression")
        study = np.unique(test.frame["study_id"], return_inverse=True)[1]
        partner = np.unique(whole, return_inverse=True)[1]
        shown = test.labels.argmax(axis=1) if self.task.labels else None
        drawn = balanced.draws_of(test.frame)
        return retrieval.ranked(found.scores[:, column], drawn, study, partner, shown)


def check(task: Task, data: TaskData) -> None:
    """Raises EmptyClass when the five best cannot all be right, or cannot be wrong."""
    test, classes = data.frame.iloc[data.parts.test], len(task.labels)
    shown = data.labels[data.parts.test].argmax(axis=1) if classes else np.zeros(len(test), int)
    reports = min(
        test.loc[drawn & (shown == each), "study_id"].nunique()
        for drawn in balanced.draws_of(test).T
        for each in range(classes or 1)
    )
    if reports < FEWEST or (not classes and reports == FEWEST):
        wanted = f"{FEWEST} of each of {classes} classes" if classes else f"more than {FEWEST}"
        fewest = " of the rarest" if classes else ""
        raise EmptyClass(
            f"retrieval looks at the {FEWEST} best and so needs {wanted} among the test reports, but there "
            f"are {reports}{fewest}. Use a dataset with more persons"
        )


def fit(bench: Bench, task: Task, train: Examples, validation: Examples, seed: int) -> Pairs:
    """Nothing is fitted: seeds differ in the intervals only."""
    return Pairs(bench, task)
