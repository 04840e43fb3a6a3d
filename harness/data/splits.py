"""Which rows are train, validation and test, with no person in two of them.

Apart because a leak here makes every later number wrong without any of them looking wrong.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

import numpy as np
import pandas as pd

from harness.contracts import Split
from harness.errors import DataError, UsageError
from harness.files import hash_lines, hash_of

logger = logging.getLogger(__name__)


class Parts(NamedTuple):
    """Row positions, int64, rising."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    def digest(self, ids: Sequence[str]) -> str:
        """Hash of the ids in each part; the order of the rows does not matter."""
        return hash_of(*(hash_lines(sorted(ids[row] for row in rows)) for rows in self))


def make(table: pd.DataFrame, split: Split, kept: np.ndarray | None = None) -> Parts:
    """Rows of the named parts first; then the share for test, and of what is left the share for validation,
    are drawn from train by person with the split's seed. Rows of an official part that the split does not
    name are left out.

    With `kept` [N] bool the positions are those among the kept rows, and persons are drawn as from the whole
    table: who is in which part is then the same for every task and for the corpus of a dataset, whichever
    rows each of them needs.

    Which persons are drawn depends on their ids and the seed, not on the order of the rows. Raises DataError
    when a name is no official part, a part is empty, or two parts share a person.
    """
    persons, names = pd.factorize(table["person_id"].astype(str), sort=True)  # codes rise with the ids
    part = np.full(len(table), "train" if split.train == "" else "", dtype=object)
    if split.train:
        part[official(table, split.train)] = "train"
    for name, rule in (("validation", split.validation), ("test", split.test)):
        if isinstance(rule, str):
            part[official(table, rule)] = name
    if split.drop_shared:
        _drop_shared(part, persons)
    left = np.random.default_rng(split.seed).permutation(np.unique(persons[part == "train"]))
    for name, rule in (("test", split.test), ("validation", split.validation)):
        if isinstance(rule, int | float):
            drawn, left = np.split(left, [share(rule, len(left))])
            part[(part == "train") & np.isin(persons, drawn)] = name
    if kept is not None:
        part, persons = part[kept], persons[kept]
    parts = Parts(*(np.flatnonzero(part == name) for name in Parts._fields))
    _check(parts, persons, names, split)
    return parts


def share(fraction: float, persons: int) -> int:
    """How many of `persons` a fraction is, rounded up. Counted in decimals, as the fraction is written:
    7 % of 100 is 7, where binary floats make it a little more. Raises UsageError outside (0, 1]."""
    if not 0 < fraction <= 1:
        raise UsageError(f"a share of the persons is above 0 and at most 1, not {fraction}. 0.1 means 10 %")
    return math.ceil(Decimal(str(fraction)) * persons)


def official(table: pd.DataFrame, name: str) -> np.ndarray:
    """[N] bool, the rows of an official part."""
    rows = (table["split"] == name).to_numpy()
    if not rows.any():
        known = ", ".join(repr(part) for part in sorted(set(table["split"])) if part) or "none"
        raise DataError(
            f"the dataset has no official part {name!r}; it has: {known}. The download is probably "
            "incomplete; in a dataset's file of your own, name one of these or give a share of the persons"
        )
    return rows


def _drop_shared(part: np.ndarray, persons: np.ndarray) -> None:
    """Takes out of `part` the rows of train whose persons are in validation or test, and those of validation
    whose persons are in test."""
    for name, later in (("train", ("validation", "test")), ("validation", ("test",))):
        shared = (part == name) & np.isin(persons, persons[np.isin(part, later)])
        if shared.any():
            logger.info(
                "%d of %d images are left out of %s: their persons are held out",
                *(shared.sum(), (part == name).sum(), name),
            )
        part[shared] = ""


def _check(parts: Parts, persons: np.ndarray, names: pd.Index, split: Split) -> None:
    for name, rows in parts._asdict().items():
        if not len(rows) and getattr(split, name) is not None:
            raise DataError(
                f"nobody is left for the {name} part: the dataset has {len(names)} persons. Use more of it, "
                "or, in a dataset's file of your own, smaller shares or other official parts"
            )
    for first, second in (("train", "validation"), ("train", "test"), ("validation", "test")):
        shared = np.intersect1d(persons[getattr(parts, first)], persons[getattr(parts, second)])
        if len(shared):
            examples = ", ".join(names[shared[:3]])
            raise DataError(
                f"{first} and {second} share {len(shared)} persons (first: {examples}) under {split}: scores "
                "would reward remembering them. Draw one of the parts by share instead of by name"
            )
