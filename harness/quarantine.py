"""Records that another takes the place of: they may be all that is left of other weights or data.

Apart because a sweep moves them before its cells, and a run of one cell when its own record is ready.
"""

from __future__ import annotations

import datetime
import shutil
from contextlib import suppress
from pathlib import Path

FOLDER = "quarantine"


def new(results: Path) -> Path:
    """A folder for what one sweep or run moves, laid out as results. Not made before something is moved."""
    return results / FOLDER / f"{datetime.datetime.now(datetime.UTC):%Y-%m-%dT%H-%M-%S-%f}"


def move(path: Path, results: Path, folder: Path) -> None:
    """A record of `results` with its predictions, into such a folder."""
    target = folder / path.relative_to(results)
    target.parent.mkdir(parents=True, exist_ok=True)
    for suffix in (".npz", ".json"):  # cut off in between, the record is still there to be moved
        with suppress(FileNotFoundError):  # another sweep may move it at the same time
            # from another disk, too: a track may be a link
            shutil.move(path.with_suffix(suffix), target.with_suffix(suffix))
