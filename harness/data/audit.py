"""What the parts of a task share, and what datasets share: counted, in tables and in pictures.

Apart because it is evidence and not machinery: it counts what a split leaks, and trusts none of the rules
that are to prevent it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations, combinations_with_replacement
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from harness.data import lookalikes
from harness.data.decode import decode
from harness.data.splits import Parts
from harness.parallel import parallel_map


class Shared(NamedTuple):
    """What two parts have in common. Counts of images are of the second part's, out of `of`."""

    first: str
    second: str
    of: int  # images of the second part
    images: int  # that are in the first as well
    rows: int | None  # of the label file, that those images have; None where the table keeps none
    persons: int  # who are in both
    images_of_persons: int  # that show a person of the first
    sources: tuple[str, ...] | None  # collections that both have images from; None where nobody says
    images_of_sources: int | None


def shared(frame: pd.DataFrame, parts: Parts) -> list[Shared]:
    """What each two of the parts have in common, given as positions in the `frame` of a task."""
    pairs = combinations(parts._asdict().items(), 2)
    return [_compare(frame, first, rows, second, others) for (first, rows), (second, others) in pairs]


def _compare(frame: pd.DataFrame, first: str, rows: np.ndarray, second: str, others: np.ndarray) -> Shared:
    images = np.intersect1d(rows, others)
    persons = _common(frame["person_id"], rows, others)
    sources = _common(frame["source"], rows, others) - {""} if "source" in frame else None
    return Shared(
        first=first,
        second=second,
        of=len(others),
        images=len(images),
        rows=int(frame["rows"].iloc[images].map(len).sum()) if "rows" in frame else None,
        persons=len(persons),
        images_of_persons=int(frame["person_id"].iloc[others].isin(persons).sum()),
        sources=tuple(sorted(sources)) if sources is not None else None,
        images_of_sources=int(frame["source"].iloc[others].isin(sources).sum())
        if sources is not None
        else None,
    )


def _common(column: pd.Series, rows: np.ndarray, others: np.ndarray) -> set[str]:
    return set(column.iloc[rows]) & set(column.iloc[others])


# --- across datasets -----------------------------------------------------------------------------------


class Collection(NamedTuple):
    name: str
    frame: pd.DataFrame  # N rows of the dataset's table
    squares: np.ndarray  # [N, SIDE, SIDE] uint8, as of lookalikes.py


class Overlap(NamedTuple):
    """What two datasets have in common, or, when `first` is `second`, one has twice."""

    first: str
    second: str
    of: tuple[int, int]  # images of each
    alike: int  # pairs of pictures that look the same
    identical: int  # of these, pairs whose decoded pixels are equal
    parts: dict[str, int]  # official parts of such pairs, "train, test" -> pairs
    examples: tuple[tuple[str, str], ...]  # image ids of the first few
    named: dict[str, int]  # official part -> images of the one that its table says are from the other
    named_found: int  # of these, images whose id is that of an image there


EXAMPLES = 3


def across(collections: Sequence[Collection], workers: int) -> list[Overlap]:
    """Every two datasets, and each with itself. Raises UnreadableImage for a picture that has gone bad."""
    return [
        _overlap(first, second, workers) for first, second in combinations_with_replacement(collections, 2)
    ]


def _overlap(first: Collection, second: Collection, workers: int) -> Overlap:
    within = first is second
    found = lookalikes.alike(first.squares, None if within else second.squares)
    one, other = first.frame.iloc[found.first], second.frame.iloc[found.second]
    paths = list(zip(one["path"], other["path"], strict=True))
    equal = parallel_map(_identical, paths, workers=workers, label="comparing pictures", unit="pairs")
    parts = Counter(f"{a}, {b}" for a, b in zip(one["split"], other["split"], strict=True) if a or b)
    ids = tuple(zip(one["image_id"].iloc[:EXAMPLES], other["image_id"].iloc[:EXAMPLES], strict=True))
    said = [] if within else [named(first.frame, second), named(second.frame, first)]
    parts_said = Counter(part for rows in said for part in rows["split"])
    return Overlap(
        first=first.name,
        second=second.name,
        of=(len(first.frame), len(second.frame)),
        alike=len(paths),
        identical=sum(equal),
        parts=dict(sorted(parts.items())),
        examples=ids,
        named=dict(sorted(parts_said.items())),
        named_found=sum(int(rows["known"].sum()) for rows in said),
    )


def named(frame: pd.DataFrame, other: Collection) -> pd.DataFrame:
    """Rows of `frame` whose `source` is the name of the other dataset; `known` says whether their `source_id`
    is that of one of its images."""
    if "source_id" not in frame:
        return frame.iloc[:0].assign(known=False)
    rows = frame[frame["source"] == other.name]
    return rows.assign(known=rows["source_id"].isin(other.frame["image_id"]))


def _identical(paths: tuple[str, str]) -> bool:
    one, other = (decode(Path(path)).pixels for path in paths)
    return np.array_equal(one, other)
