"""Fills the image caches of a dataset ahead of time, so that runs find their pictures decoded.

Apart because it must ask for exactly the pictures that `run` and `pretrain` will ask for: a cache belongs to
one list of ids, one side and one geometry.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

import pandas as pd

from harness.contracts import NEEDS_TEXT, DatasetCard, Geometry
from harness.data import cache, task_data
from harness.data.cache import Wanted
from harness.data.locate import Located
from harness.errors import EmptyClass, HarnessError, ImpossiblePairing, UnreadableImage, readable_size
from harness.files import hash_lines
from harness.plan import MethodPlan
from harness.pretrain import corpus
from harness.settings import Settings

TRIED = 24  # pictures whose decoding is timed, evenly spread over the dataset


class CachePlan(NamedTuple):
    """One cache, and the methods that read it."""

    asked: Wanted
    methods: tuple[str, ...]


class Estimate(NamedTuple):
    pictures: int  # still to be decoded
    size: int  # bytes of disk still to be taken
    seconds: float


def cache_plans(
    name: str, card: DatasetCard, located: Located, frame: pd.DataFrame, plans: Sequence[MethodPlan]
) -> list[CachePlan]:
    """The distinct caches that `plans` need: for each of the dataset's tasks, and to pre-train on it."""
    found: dict[tuple[str, int, Geometry], CachePlan] = {}
    for plan in plans:
        square = plan.profile.preprocessing
        for rows in _rows(name, card, located, frame, plan):
            key = hash_lines(rows["image_id"]), square.stored, square.geometry
            if key not in found:
                found[key] = CachePlan(cache.wanted(name, rows, square.stored, square.geometry), ())
            methods = dict.fromkeys((*found[key].methods, plan.name))
            found[key] = found[key]._replace(methods=tuple(methods))
    if not found:
        names = ", ".join(plan.name for plan in plans)
        raise ImpossiblePairing(
            f"{names} would read no picture of {name}: its tasks are with reports, or it is too small for "
            "them, and there is nothing to train on it. Name another --method"
        )
    return list(found.values())


def _rows(
    name: str, card: DatasetCard, located: Located, frame: pd.DataFrame, plan: MethodPlan
) -> Iterator[pd.DataFrame]:
    for task in card.tasks:
        if plan.card.has_text or set(task.kinds) - NEEDS_TEXT:
            with suppress(EmptyClass):  # a task that these data are too small for reads nothing
                yield task_data.of_table(frame, located, card, task, "clean").frame
    if card.corpus and plan.profile.recipe:
        yield frame[corpus.paired(frame, plan.profile.recipe.text_units, name)[0]]


def estimate(asked: Wanted, settings: Settings) -> Estimate:
    """Time and space that the rest will take, by decoding a few pictures; those that cannot be decoded are
    left for `fill` to name."""
    left = cache.outstanding(asked, folder=settings.images)
    if not left.pictures:
        return Estimate(0, left.size, 0.0)
    tried = asked.paths[:: max(1, len(asked.paths) // TRIED)][:TRIED]
    start = time.perf_counter()
    for path in tried:
        cache.decode_row(path, side=asked.side, geometry=asked.geometry)
    each = (time.perf_counter() - start) / len(tried)
    return Estimate(left.pictures, left.size, each * left.pictures / settings.workers)


def check_disk(needed: int, settings: Settings) -> None:
    """Raises HarnessError when fewer than `needed` bytes are free where the caches lie."""
    place = next(folder for folder in (settings.images, *settings.images.parents) if folder.exists())
    missing = needed - shutil.disk_usage(place).free
    if missing > 0:
        raise HarnessError(
            f"{settings.images}: {readable_size(needed)} are needed, {readable_size(missing)} more than are "
            "free. Free them, set HARNESS_HOME to another disk, or name fewer methods with --method"
        )


def fill(every: Iterable[Wanted], settings: Settings) -> None:
    """Decodes what is missing. Raises UnreadableImage when all are filled as far as they can be."""
    refused = []
    for asked in every:
        try:
            cache.open_images(asked, folder=settings.images, workers=settings.workers)
        except UnreadableImage as refusal:  # the same pictures in every cache
            refused.append(refusal)
    if refused:
        raise refused[0]
