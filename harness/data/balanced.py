"""Test images that show one finding and nothing else, as many of each: CheXpert 5x200 and its like.

Apart because the rule is one for every dataset. GLoRIA's 5x200 images were never published and MGCA's are one
draw of many: which images were drawn moves the score, so there are several draws, made from the rule and a
seed, and the record says which. The rule (GLoRIA, ICCV 2021; MGCA's code): one of the labels is asserted and
all others are denied or not mentioned; a hedge, on any of them, leaves the image out.
"""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd

from harness.contracts import Balanced, Task
from harness.data import table
from harness.data.splits import Parts
from harness.data.table import Labelled
from harness.errors import EmptyClass

logger = logging.getLogger(__name__)

COLUMN = "draw:"
"""Columns of the table `draw:0`, `draw:1`, ...: whether an image is in that draw."""


def choose(found: Labelled, test: np.ndarray, task: Task, rule: Balanced) -> tuple[Labelled, Parts]:
    """The images of all draws, marked in columns of the table, as test part of a table that holds no others.

    `test` are the rows to choose from. Raises EmptyClass when none of them shows a label alone.
    """
    labels = found.labels[test]
    others = table.labels_of(found.frame.iloc[test], rule.absent, task)
    drawn = draw(classes(labels, others), task, rule)
    kept = drawn.any(axis=1)
    frame = found.frame.iloc[test[kept]].reset_index(drop=True)
    frame = frame.assign(**{f"{COLUMN}{number}": column for number, column in enumerate(drawn[kept].T)})
    columns = np.hstack((labels[kept], drawn[kept]))
    parts = Parts(np.arange(0), np.arange(0), np.arange(len(frame)))
    return Labelled(frame, labels[kept], table.fingerprint(frame, columns, task)), parts


def classes(labels: np.ndarray, others: np.ndarray) -> np.ndarray:
    """[N] which of the labels [N, L] an image shows alone; -1 where it shows none, more, or one of the
    `others` [N, A], or where any of them is unknown."""
    absent = (labels == 0).sum(axis=1) + (others == 0).sum(axis=1)
    alone = (labels == 1).any(axis=1) & (absent == labels.shape[1] + others.shape[1] - 1)
    return np.where(alone, labels.argmax(axis=1), -1)


def draw(shown: np.ndarray, task: Task, rule: Balanced) -> np.ndarray:
    """[N, draws] bool, from what `classes` gives of the test images in the order of their ids. Of every class
    the same number, so that accuracy is balanced accuracy and chance is one in L."""
    sizes = {label: int((shown == number).sum()) for number, label in enumerate(task.labels)}
    rarest = min(sizes, key=sizes.__getitem__)
    if not sizes[rarest]:
        raise EmptyClass(
            f"no test image (n = {len(shown)}) shows {rarest!r} and none of the other "
            f"{len(sizes) + len(rule.absent) - 1} findings. Use a dataset with more persons"
        )
    count = min(rule.per_class, sizes[rarest])
    if count < rule.per_class:
        logger.info("%d images of each class, not %d: no more show %s alone", count, rule.per_class, rarest)
    drawn = np.zeros((len(shown), rule.draws), dtype=bool)
    for seed in range(rule.draws):
        order = np.random.default_rng(seed).permutation(len(shown))
        for number in range(len(task.labels)):
            drawn[order[shown[order] == number][:count], seed] = True
    return drawn


def draws_of(frame: pd.DataFrame) -> np.ndarray:
    """[N, draws] bool of a table of test images; one draw with all of them where none was made."""
    columns = [name for name in frame.columns if name.startswith(COLUMN)]
    return frame[columns].to_numpy(bool) if columns else np.ones((len(frame), 1), dtype=bool)
