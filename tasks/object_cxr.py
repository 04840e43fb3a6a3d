"""Object-CXR: 10,000 chest X-rays from some 300 hospitals, foreign objects outlined in half of them.

An object is a rectangle, an ellipse or a polygon. Its box is the tight one around the whole shape; MGCA's
code takes a wider square around a polygon, and at most 20 objects of an image. Facts about the layout: the
challenge's page, its copy on Academic Torrents, and BenchX's lists.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.contracts import DatasetCard, PhantomSize, PublishedSplit, Split, Task, Variant
from harness.errors import BadTable
from harness.phantom import Cohort, Finding, Person, Study, draw, stamp, truth, with_finding
from harness.phantom.render import Lesion, render
from tasks._phantoms import save_jpeg, write_csv
from tasks._pictures import left_out, list_files, picture_size
from tasks._tables import finish, once, one_each, read_cells, read_files, refuse_files

SOURCE = "MGCA 680fe4a, mgca/preprocess/object_cxr.py"
PUBLISHED = PublishedSplit(
    source=SOURCE,
    rules=("parts-drawn-by-image", "fraction-chosen-by-image-twice", "boxes-tight-around-polygons"),
    train="train",
    test="dev",
    held_out=0.1,
)
PUBLISHED_PARTS = PublishedSplit(
    source=SOURCE,
    rules=("parts-drawn-by-image", "fraction-chosen-by-image-twice", "kind-not-in-the-source"),
    train="train",
    test="dev",
    held_out=0.1,
)
HALF = {"train": {"Foreign Object": 4_000}, "dev": {"Foreign Object": 500}}  # of the pictures show some
CARD = DatasetCard(
    title="Object-CXR",
    source="https://academictorrents.com/details/fdc91f11d7010f7259a05403fc9d00079a09f5d5 (train, dev), or "
    "https://www.kaggle.com/datasets/raddar/foreign-objects-in-chest-xrays (with test)",
    licence="challenge terms of JF Healthcare; commonly quoted as CC BY-NC 4.0",
    citation="JF Healthcare, Object-CXR: Automatic detection of foreign objects on chest X-rays, MIDL 2020",
    folders=("object-CXR", "foreign-objects-in-chest-xrays"),
    markers=("train.csv", "dev.csv", "train", "dev"),
    variants=(
        Variant("train and dev", 9_000, {"train": 8_000, "dev": 1_000}, HALF),
        Variant("with the test part", 10_000, {"train": 8_000, "dev": 1_000, "test": 1_000}, HALF),
    ),
    tasks=(
        Task(
            kinds=("linear", "finetune"),
            labels=("Foreign Object",),
            metric="macro_auroc",
            version=1,
            # papers report on dev; the test part came later and is read only
            splits={"clean": Split(test="dev", validation=0.1, train="train"), "published": PUBLISHED_PARTS},
        ),
        Task(
            kinds=("detection",),
            labels=("Foreign Object",),
            metric="mean_average_precision",
            version=2,
            splits={"clean": Split(test="dev", validation=0.1, train="train"), "published": PUBLISHED},
        ),
    ),
    phantom={"demo": PhantomSize(1_500, 160, 160), "paper": PhantomSize(10_000, 320, 320)},
)

RECTANGLE, ELLIPSE, POLYGON = "0", "1", "2"

Box = tuple[float, float, float, float]  # xyxy


def read(root: Path) -> pd.DataFrame:
    """The table, with `boxes`, and in `shapes` the objects themselves in the same order, as written.

    Boxes are cut off at the edges of their pictures, whose headers are opened for it. The makers say nothing
    about who is whom: every image counts as a person.
    """
    names = [name for name in ("train", "dev", "test") if name != "test" or (root / "test.csv").is_file()]
    parts = [_part(root.resolve(), name) for name in names]
    table = pd.concat([rows for rows, _ in parts], ignore_index=True)
    return finish(
        {
            **table,
            "person_id": table["image_id"],
            "study_id": table["image_id"],
            "frontal": True,
        },
        persons_known=False,
        notes=[note for _, notes in parts for note in notes],
    )


def _part(root: Path, part: str) -> tuple[pd.DataFrame, list[str]]:
    """Its rows, and notes on what has none."""
    path = root / f"{part}.csv"
    rows = read_cells(path, ("annotation",), exact=False)
    # official files name the column either way, with or without folders before the name
    named = next((rows[name] for name in ("image_name", "image_path") if name in rows), None)
    if named is None:
        raise BadTable(f"{path}, line 1: the header has no image_name and no image_path. Restore the file")
    names = once(named.str.rsplit("/", n=1).str[-1], path)
    image = part + "/" + names
    paths = f"{root}/" + image
    pictures = list_files([root / part], ".jpg")
    refuse_files(paths[~names.isin(pictures)], "no such picture. Complete the download")
    sizes = read_files(picture_size, [Path(path) for path in paths], f"measuring {part}")
    shapes = [[shape.strip() for shape in cell.split(";") if shape.strip()] for cell in rows["annotation"]]
    kept, empty = [], []
    for line, objects, size in zip(rows.index, shapes, sizes, strict=True):
        try:
            found = [(shape, box_of(shape, size)) for shape in objects]
        except ValueError as error:
            raise BadTable(f"{path}, line {line}, column 'annotation': {error}. Correct the row") from error
        kept.append([(shape, (x0, y0, x1, y1)) for shape, (x0, y0, x1, y1) in found if x0 < x1 and y0 < y1])
        empty += [line] * (len(found) - len(kept[-1]))
    notes = left_out(part, len(pictures) - len(rows), path)
    if empty:
        notes.append(
            f"{path}: {len(empty)} objects without area inside their picture are no boxes, the first of them "
            f"in line {empty[0]}. Their pictures count as showing an object"
        )
    columns = {
        "path": paths,
        "split": part,
        "boxes": [[box for _, box in row] for row in kept],
        "shapes": [[shape for shape, _ in row] for row in kept],
        "rows": one_each(rows),
        "label:Foreign Object": pd.array([int(bool(objects)) for objects in shapes], dtype="Int8"),
    }
    return pd.DataFrame({"image_id": image, **columns}), notes


def box_of(shape: str, size: tuple[int, int]) -> Box:
    """Tight bounds of `TYPE x y x y ...` in a picture of that width and height, whatever the corners' order;
    what lies outside of it has no area. Raises ValueError, quoting the shape, when it is none."""
    kind, *words = shape.split()
    try:
        numbers = np.array(words, dtype=float)
    except ValueError:
        numbers = np.empty(0)
    corners = kind in (RECTANGLE, ELLIPSE) and len(numbers) == 4
    polygon = kind == POLYGON and len(numbers) >= 6 and len(numbers) % 2 == 0
    if not (corners or polygon) or not np.isfinite(numbers).all():
        raise ValueError(f"{shape[:60]!r} is no rectangle (0), ellipse (1) or polygon (2) in numbers")
    points = np.clip(numbers.reshape(-1, 2), 0, size)
    (x0, y0), (x1, y1) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return x0, y0, x1, y1


# --- the phantom -------------------------------------------------------------------------------------

OBJECT = "Foreign Object"
ADDED = 0.47  # share of persons given objects: half of the official pictures show some, few of a clinic's
MANY = 3.0  # times the usual number of objects: about five, as the buttons of a shirt
CROWDED = 1  # person in whose picture lie 25 objects
CROWD = Finding(OBJECT, severity=8.0, side="", seed=11)
ASPECTS = ((1.0, 0.8), (1.0, 0.5), (0.6, 1.0))  # shares of the cohort's height and width, in turn
PARTS = {0: "dev", 4: "dev", 5: "test"}  # by the last digit of a person's number; the others are in train


def write_phantom(root: Path, cohort: Cohort, workers: int) -> None:
    """One picture per person. They are numbered from 90001, past 99999 with six digits; the official ones
    end at 10000."""
    images = draw(cohort, partial(_write_person, root, cohort), workers=workers, label="drawing Object-CXR")
    for part, column in (("train", "image_name"), ("dev", "image_name"), ("test", "image_path")):
        (root / part).mkdir(exist_ok=True)  # a small cohort may have nobody there
        folder = f"{part}/" if column == "image_path" else ""
        rows = [[folder + image.name, image.annotation] for image in images if image.part == part]
        write_csv(root / f"{part}.csv", (column, "annotation"), rows)
    stamp(root, cohort, {f"{image.part}/{image.name}": image.truth for image in images})


class _Written(NamedTuple):
    part: str
    name: str
    annotation: str
    truth: dict[str, object]


def case(cohort: Cohort, person: Person) -> tuple[Study, int, int]:
    """A person's study as the challenge's makers chose it, and the height and width of its picture."""
    study, rng = person.studies[0], cohort.stream("added", person.number)
    if person.number == CROWDED:
        study = replace(study, findings=(CROWD,))
    elif rng.random() < ADDED:
        study = with_finding(study, OBJECT, rng)
    findings = tuple(
        replace(finding, severity=MANY * finding.severity) if finding.name == OBJECT else finding
        for finding in study.findings
    )
    tall, wide = ASPECTS[person.number % len(ASPECTS)]
    height, width = cohort.size
    return replace(study, findings=findings), round(height * tall), round(width * wide)


def _write_person(root: Path, cohort: Cohort, person: Person) -> list[_Written]:
    study, height, width = case(cohort, person)
    picture = study.pictures[0]  # the frontal one
    drawn = render(person, study, picture, height=height, width=width, dials=cohort.dials)
    part, name = PARTS.get(person.number % 10, "train"), f"{90_000 + person.number}.jpg"
    save_jpeg(root / part / name, drawn.pixels)
    rng = cohort.stream("file", person.number)
    objects = [shape_of(lesion, rng) for lesion in drawn.lesions if lesion.name == OBJECT]
    return [_Written(part, name, ";".join(objects), truth(person, study, picture, drawn))]


def shape_of(lesion: Lesion, rng: np.random.Generator) -> str:
    """One of the three shapes around an object, whichever tool came to the annotator's hand."""
    kind = str(rng.choice((RECTANGLE, ELLIPSE, POLYGON)))
    points = outline(lesion.mask) if kind == POLYGON else np.reshape(lesion.box, (2, 2))
    return " ".join([kind, *(f"{number:.0f}" for number in points.ravel())])


def outline(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Corners (x, y) [N, 2] around the pixels of `mask`, down the left side and up the right: not convex."""
    rows = np.flatnonzero(mask.any(axis=1))
    left, right = mask[rows].argmax(axis=1), mask.shape[1] - mask[rows, ::-1].argmax(axis=1)
    down = np.stack([left, rows, left, rows + 1], axis=1).reshape(-1, 2)
    up = np.stack([right, rows, right, rows + 1], axis=1).reshape(-1, 2)
    return np.concatenate([down, up[::-1]])
