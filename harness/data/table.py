"""A dataset's table: read, checked, and reduced to the rows and labels that a task asks for.

Apart because what counts as a label (uncertain, blank, which views) is part of a task's identity and is
applied here, in one place, for every dataset.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from harness.contracts import TABLE_COLUMNS, Dataset, DatasetCard, Split, Task
from harness.errors import BadTable
from harness.files import file_hash, hash_lines, hash_of

logger = logging.getLogger(__name__)

UNKNOWN = -1
"""A label that is neither known to be there nor known not to be; left out of training and of scores."""

SECTIONS = ("findings", "impression")
"""Columns that a report fills."""


class Labelled(NamedTuple):
    """The images a task is about, in the order of their ids."""

    frame: pd.DataFrame  # N rows
    labels: np.ndarray  # [N, L] int8: 1, 0 or UNKNOWN
    fingerprint: str  # of ids, labels and whatever else the task is scored by


def read(reader: Dataset, root: Path) -> pd.DataFrame:
    """The whole table, sorted by image id. What the reader left out is said, not hidden.

    Raises BadTable when the reader breaks its contract.
    """
    frame = reader.read(root)
    for note in frame.attrs.get("notes", ()):
        logger.info("%s: %s", root, note)
    missing = [column for column in TABLE_COLUMNS if column not in frame]
    if missing:
        raise BadTable(f"{root}: the reader gave no column {missing[0]!r}; see TABLE_COLUMNS in contracts.py")
    if frame.empty:
        raise BadTable(f"{root}: the tables there hold no image. Complete the download")
    for column in ("image_id", "path", "person_id"):
        blank = frame[column].isna() | (frame[column] == "")
        if blank.any():
            raise BadTable(f"{root}: row {blank.to_numpy().argmax()} of the reader's table has no {column}")
    repeated = frame["image_id"][frame["image_id"].duplicated()]
    if len(repeated):
        raise BadTable(f"{root}: image id {repeated.iloc[0]!r} stands in the table more than once")
    relative = ~frame["path"].map(os.path.isabs).to_numpy(bool)
    if relative.any():
        raise BadTable(
            f"{root}: the reader gave the path {frame['path'].iloc[relative.argmax()]!r}, which is not "
            "absolute. Give root / path"
        )
    if frame["frontal"].dtype != bool:
        raise BadTable(f"{root}: the reader's column 'frontal' is {frame['frontal'].dtype}, not bool")
    return frame.sort_values("image_id", ignore_index=True)


def release(frame: pd.DataFrame, card: DatasetCard) -> str:
    """The known release whose counts the table has, or "" when none fits."""
    parts = frame["split"].value_counts().to_dict()
    for variant in card.variants:
        if len(frame) == variant.images and all(parts.get(k, 0) == n for k, n in variant.parts.items()):
            return variant.name
    return ""


def for_task(frame: pd.DataFrame, task: Task) -> Labelled:
    """Rows and labels under the task's policy. Rows of official parts that none of its splits names are left
    out: their pictures would be decoded for nothing. Raises BadTable for a column that is missing, or holds
    what is no label."""
    chosen = frame[frame["frontal"]] if task.frontal_only else frame
    if chosen.empty:
        raise BadTable(
            f"none of the {len(frame)} images is frontal, and the task asks for frontal ones. Correct the "
            "reader's column 'frontal', or give the task frontal_only=False"
        )
    if parts := _official_parts(task):
        chosen = chosen[chosen["split"].isin(parts)]
    if task.reports:
        if not set(SECTIONS) <= set(chosen):
            raise BadTable(f"the table lacks one of the columns {' and '.join(SECTIONS)}: it has no reports")
        chosen = chosen[(chosen[list(SECTIONS)] != "").all(axis=1)]
    chosen = chosen.reset_index(drop=True)
    labels = labels_of(chosen, task.labels, task)
    return Labelled(chosen, labels, fingerprint(chosen, labels, task))


def _official_parts(task: Task) -> set[str]:
    """Official parts that any of the task's protocols names, so that all protocols share one list of
    pictures; none where a protocol takes all rows."""
    named: set[str] = set()
    for split in task.splits.values():
        if split.train == "":
            return set()
        rules = (split.train, split.test, split.validation if isinstance(split, Split) else None)
        named.update(rule for rule in rules if rule and isinstance(rule, str))
    return named


def labels_of(frame: pd.DataFrame, names: Sequence[str], task: Task) -> np.ndarray:
    """[N, len(names)] int8: 1, 0 or UNKNOWN under the task's policy. Raises BadTable as `for_task` does."""
    labels = np.empty((len(frame), len(names)), np.int8)
    for column, label in enumerate(names):
        if f"label:{label}" not in frame:
            known = ", ".join(name[6:] for name in map(str, frame) if name.startswith("label:"))
            raise BadTable(
                f"the reader gave no column 'label:{label}', which a task asks for; its labels are "
                f"{known or 'none'}. Correct the task's labels, or read()"
            )
        strange = frame[f"label:{label}"].dropna()
        strange = strange[~strange.isin((1, 0, -1))]
        if len(strange):
            raise BadTable(
                f"the reader gave image {frame['image_id'][strange.index[0]]!r} the value {strange.iloc[0]} "
                f"as label {label!r}, not 1, 0, -1 or none. Correct read()"
            )
        values = frame[f"label:{label}"].astype("Int8")
        uncertain = values.eq(-1).fillna(False)
        values = values.mask(uncertain, task.uncertain.get(label, pd.NA))
        if task.blank is not None:
            values = values.where(uncertain | values.notna(), task.blank)
        labels[:, column] = values.fillna(UNKNOWN).to_numpy(np.int8)
    return labels


def joined(frame: pd.DataFrame, unit: str) -> list[str]:
    """One unit of all reports: a column, or several such as `impression+findings`, a blank line between."""
    columns = [frame[section] for section in unit.split("+")]
    return ["\n\n".join(filter(None, parts)) for parts in zip(*columns, strict=True)]


def fingerprint(frame: pd.DataFrame, labels: np.ndarray, task: Task) -> str:
    """sha256 over ids and their labels, in the order given, and over the boxes, masks or reports that the
    task is scored by. It does not depend on the folder."""
    rows = zip(frame["image_id"], labels.tolist(), strict=True)
    labelled = hash_lines(f"{image} {' '.join(map(str, row))}" for image, row in rows)
    more = [hash_lines(cells) for cells in _scored(frame, task)]
    return hash_of(labelled, *more) if more else labelled


def _scored(frame: pd.DataFrame, task: Task) -> Iterator[Iterator[str]]:
    """What a task is scored by beside labels, as text: a line per image. A column that is not there is
    refused where the task is scored."""
    if "detection" in task.kinds and "boxes" in frame:
        yield (str(np.array(boxes, float).tolist()) for boxes in frame["boxes"])
    if "segmentation" in task.kinds and "mask" in frame:
        yield (file_hash(Path(cell)) if Path(cell).is_absolute() else cell for cell in frame["mask"])
    if task.reports:
        yield from (iter(frame[section]) for section in SECTIONS)
