"""Writes a phantom's people on all cores, and stamps the folder with how it was made and what is truly there.

Apart because every dataset's writer does both in the same way, whatever its layout.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TypeVar

from harness.files import write_json
from harness.parallel import parallel_map
from harness.phantom.anatomy import Cohort, Person, Picture, Study
from harness.phantom.render import Rendered

STAMP = "PHANTOM.json"
"""Written last into every phantom: what carries it is synthetic, whoever put it where."""

Row = TypeVar("Row")


def draw(
    cohort: Cohort, write_person: Callable[[Person], Sequence[Row]], *, workers: int, label: str
) -> list[Row]:
    """Has `write_person` write everyone's files; the rows it returns, one list in the order of the people.

    It must pickle: a function of a module, or a `functools.partial` of one.
    """
    people = list(cohort.people())
    return list(
        chain.from_iterable(parallel_map(write_person, people, workers=workers, label=label, unit="people"))
    )


def truth(person: Person, study: Study, picture: Picture, rendered: Rendered) -> dict[str, object]:
    """What a stamp says about one image. Boxes are xyxy in pixels of `rendered`."""
    return {
        "person": person.number,
        "study": study.number,
        "view": picture.view,
        "findings": {finding.name: finding.severity for finding in study.findings},
        "lesions": [[lesion.name, *lesion.box] for lesion in rendered.lesions],
    }


def stamp(root: Path, cohort: Cohort, images: Mapping[str, Mapping[str, object]]) -> None:
    """Writes PHANTOM.json: the last act of a writer, so that a folder without it is unfinished.

    `images` maps each image id to its `truth`.
    """
    write_json(root / STAMP, {"cohort": cohort.describe(), "count": len(images), "images": dict(images)})
