"""Where a dataset lies: a folder of the user's, or a phantom made once. The two are never mixed up.

Apart because phantoms and patients are kept from each other here: with a data root configured, a dataset
that is not there is an error. A phantom stands in without any data root, and for a corpus where the caller
allows it; either way it is said first, and recorded.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from harness.contracts import DataKind, Dataset, DatasetCard, PhantomSize, ProfileName
from harness.errors import DataError, HarnessError, MissingDataset, few
from harness.files import hash_of, locked, replacing
from harness.phantom import STAMP, Cohort
from harness.settings import Settings

PHANTOM_SEED = 0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Located:
    root: Path
    kind: DataKind


class NotDrawn(HarnessError):
    """A phantom is not there, and none is to be drawn."""


def find(
    name: str,
    card: DatasetCard,
    writer: Dataset | None,
    settings: Settings,
    profile: ProfileName,
    *,
    stand_in: bool = False,
) -> Located:
    """What a run reads. That it is a phantom is said before anything else happens.

    Without a `writer` nothing is drawn: raises NotDrawn. With `stand_in`, a phantom also replaces a dataset
    that is missing under the data roots.
    """
    if not settings.data_roots:
        phantom_size(name, card, profile)  # raises before one is announced
        logger.info(
            "no data root is configured: using a PHANTOM of %s (synthetic). For real data give --data-root "
            "or set HARNESS_DATA",
            name,
        )
        return phantom(name, card, writer, settings, profile)
    try:
        found = real(name, card, settings)
    except MissingDataset as error:
        if not stand_in:
            raise
        begun = f" ({error.begun})" if error.begun else ""
        logger.info(
            "the data roots hold no %s%s: using a PHANTOM of it (synthetic), which the record says",
            name,
            begun,
        )
        return phantom(name, card, writer, settings, profile)
    if found.kind == "phantom":
        logger.info("%s is a PHANTOM of %s (synthetic)", found.root, name)
    return found


def real(name: str, card: DatasetCard, settings: Settings) -> Located:
    """The dataset's folder under the data roots: the root itself, or a folder named as the download or as
    the dataset. Raises MissingDataset listing what was looked for and where, or what such a folder lacks,
    DataError for a folder that is closed to us, UsageError for a root that is no folder."""
    settings.require_roots()
    closed, begun = [], []
    for root in settings.data_roots:
        for folder in (root, *(root / item for item in dict.fromkeys((*card.folders, name)))):
            lacking = [marker for marker in card.markers if not _holds(folder, marker)]
            if not lacking:
                return Located(folder, "phantom" if (folder / STAMP).exists() else "real")
            if os.access(folder, os.F_OK) and not os.access(folder, os.R_OK | os.X_OK):
                closed.append(folder)  # where a search finds nothing, whatever there is
            elif folder != root and folder.is_dir():
                begun.append(f"{folder} is there, but lacks {' and '.join(lacking)}")
    if closed:
        raise DataError(f"no {card.title} is found, but {few(closed)} may not be read. Have it opened")
    roots, folders = ", ".join(map(str, settings.data_roots)), dict.fromkeys((*card.folders, name))
    nowhere = f"looked for {' and '.join(card.markers)} there and in its folders {', '.join(folders)}"
    raise MissingDataset(
        f"no {card.title} under {roots}: {'; '.join(begun) or nowhere}. How to obtain it: {card.source}. To "
        "use a phantom instead, run without --data-root and with HARNESS_DATA unset",
        "; ".join(begun),
    )


def _holds(folder: Path, marker: str) -> bool:
    return any(any(folder.glob(pattern)) for pattern in marker.split(" or "))


def phantom(
    name: str, card: DatasetCard, writer: Dataset | None, settings: Settings, profile: ProfileName = "demo"
) -> Located:
    """The phantom in the cache; written on first use, into place only when complete. See `find`."""
    size = phantom_size(name, card, profile)
    cohort = Cohort(name, size.persons, PHANTOM_SEED, (size.height, size.width))
    root = settings.phantoms / f"{name}-{hash_of(cohort.describe())[:8]}"
    if not (root / STAMP).exists():
        if writer is None:
            raise NotDrawn
        # cells of a sweep may all be the first to ask
        with locked(settings.home / "locks" / f"{root.name}.lock"):
            if not (root / STAMP).exists():
                write(writer, root, cohort, settings.workers)
    return Located(root, "phantom")


def phantom_size(name: str, card: DatasetCard, profile: ProfileName) -> PhantomSize:
    """Raises MissingDataset when the card gives none."""
    if profile not in card.phantom:
        raise MissingDataset(
            f"{name} has no phantom of size {profile!r}. Use real data (--data-root or HARNESS_DATA), or add "
            "the size to its card"
        )
    return card.phantom[profile]


def write(writer: Dataset, root: Path, cohort: Cohort, workers: int) -> None:
    """Raises DataError when anything lies at `root` already; an empty folder will do."""
    if (root / STAMP).exists():
        raise DataError(f"{root} holds a phantom already. Delete it first, or give a new folder")
    if root.exists() and any(root.iterdir()):
        raise DataError(f"{root} is not empty and not a phantom. Give a new folder")
    with replacing(root) as temporary:
        temporary.mkdir()
        writer.write_phantom(temporary, cohort, workers)


def stamp(root: Path) -> dict[str, object]:
    """What a phantom says of itself."""
    found: dict[str, object] = json.loads((root / STAMP).read_text(encoding="utf-8"))
    return found
