"""RSNA Pneumonia Detection Challenge: 26,684 chest X-rays with boxes around lung opacities.

A `patientId` names an image, not a person: the pictures come from 11,439 patients of NIH's ChestX-ray14,
and splits by `patientId` put the same people on both sides. With a map to the NIH patients beside the data
the table knows the persons; without it, it says that it does not. Facts about the layout: the challenge's
label and header files as torchxrayvision keeps them, which also holds the map, found by matching pixels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from harness.contracts import DatasetCard, PhantomSize, PublishedSplit, Split, Task, Variant
from harness.errors import BadTable
from harness.phantom import Cohort, Person, Study, draw, stamp, truth
from harness.phantom.render import render
from tasks import _persons
from tasks._dicom import Encoding, read_header, save_dicom, uids
from tasks._phantoms import write_csv
from tasks._pictures import check_boxes, left_out, list_files
from tasks._tables import (
    finish,
    numbers,
    one_of,
    read_cells,
    read_files,
    refuse,
    refuse_files,
    translate,
)

PUBLISHED = PublishedSplit(
    source="MGCA 680fe4a, mgca/preprocess/rsna.py for classification; GLoRIA's parts are the same",
    rules=("parts-drawn-by-image", "fraction-sampled-by-image", "contrast-of-the-dicom-header"),
    held_out=0.3,
)
PUBLISHED_DENSE = PublishedSplit(
    source="MGCA 680fe4a, mgca/preprocess/rsna.py for detection, whose parts its segmentation uses too",
    rules=("parts-drawn-by-image", "fraction-chosen-by-image-twice", "contrast-of-the-dicom-header"),
    held_out=10_674,
    size=26_684,
)
BY_PERSON = Split(test=0.15, validation=0.15)
CARD = DatasetCard(
    title="RSNA Pneumonia Detection Challenge",
    source="https://www.kaggle.com/c/rsna-pneumonia-detection-challenge (stage 2), and for splits by person "
    "a rsna_person_map.csv with the columns patientId and nih_image beside it",
    licence="RSNA challenge terms: academic and non-commercial use; images NIH Clinical Center",
    citation="Shih et al., Augmenting the National Institutes of Health Chest Radiograph Dataset with Expert "
    "Annotations of Possible Pneumonia, Radiology: Artificial Intelligence 2019",
    folders=("rsna-pneumonia-detection-challenge",),
    markers=("stage_[12]_train_labels.csv", "stage_[12]_train_images"),
    variants=(
        Variant(
            "stage 2",
            26_684,
            positives={"": {"Pneumonia": 6_012, "Normal": 8_851}},
            totals={"boxes": 9_555},
        ),
        Variant("stage 1", 25_684),
    ),
    tasks=(
        Task(
            kinds=("linear", "finetune", "zero-shot"),
            labels=("Pneumonia",),
            metric="macro_auroc",
            version=1,
            splits={"clean": BY_PERSON, "published": PUBLISHED},
            prompts={"Pneumonia": ("pneumonia", "focal airspace opacity", "consolidation")},
        ),
        Task(
            kinds=("segmentation",),  # of all boxes of a picture, filled
            labels=("Pneumonia",),
            metric="dice",
            version=1,
            splits={"clean": BY_PERSON, "published": PUBLISHED_DENSE},
        ),
        Task(
            kinds=("detection",),
            labels=("Pneumonia",),
            metric="mean_average_precision",
            version=2,
            splits={"clean": BY_PERSON, "published": PUBLISHED_DENSE},
        ),
    ),
    shares_pictures=("chestxray14", "siim", "covidx", "covidx_binary"),
    phantom={"demo": PhantomSize(800, 160, 160), "paper": PhantomSize(8_000, 320, 320)},
)

LABEL_HEADER = ("patientId", "x", "y", "width", "height", "Target")
CLASS_HEADER = ("patientId", "class")
SUBMISSION_HEADER = ("patientId", "PredictionString")
CLASSES = ("Normal", "No Lung Opacity / Not Normal", "Lung Opacity")


def read(root: Path) -> pd.DataFrame:
    """The table of the training images; those of the challenge's test part have no public labels.

    View, sex and age stand in the DICOM headers only: 0.2 ms each, some 5 s for all of them on one core.
    """
    stage = "stage_2" if (root / "stage_2_train_labels.csv").is_file() else "stage_1"
    labels_csv, class_csv = root / f"{stage}_train_labels.csv", root / f"{stage}_detailed_class_info.csv"
    images = read_labels(labels_csv)
    if class_csv.is_file():
        images["label:Normal"] = read_classes(class_csv, images["label:Pneumonia"])
    folder = root.resolve() / f"{stage}_train_images"
    paths = [folder / f"{image}.dcm" for image in images.index]
    pictures = list_files([folder], ".dcm")
    missing = (path for path in paths if path.name not in pictures)
    refuse_files(missing, "no such picture. Complete the download")
    headers = pd.DataFrame(read_files(read_header, paths, "reading DICOM headers"), index=images.index)
    check_boxes(images["boxes"], headers, labels_csv)
    map_csv = _persons.find_map(root)
    return finish(
        {
            "image_id": images.index,
            "path": [str(path) for path in paths],
            "person_id": read_persons(map_csv, images.index) if map_csv else images.index,
            "study_id": images.index,
            "view": headers["view"],
            "frontal": True,
            "sex": headers["sex"],
            "age": headers["age"],
            **images,
            "mask": [json.dumps(boxes) if boxes else "" for boxes in images["boxes"]],
        },
        persons_known=map_csv is not None,
        notes=left_out(folder.name, len(pictures) - len(paths), labels_csv),
    )


def read_mask(cell: str, height: int, width: int) -> NDArray[np.bool_]:
    """A cell of `mask`, the boxes of a picture, as the pixels [height, width] whose centre lies in any of
    them: what the field segments in this dataset, which has no outlines."""
    mask = np.zeros((height, width), dtype=bool)
    for x0, y0, x1, y1 in np.rint(json.loads(cell)).astype(int).tolist():
        mask[y0:y1, x0:x1] = True
    return mask


def read_labels(path: Path) -> pd.DataFrame:
    """`label:Pneumonia` and `boxes` per patientId. The file has a row per box, and one per image without."""
    rows = read_cells(path, LABEL_HEADER)
    ids = rows["patientId"]
    target = translate(rows["Target"], {"0": 0, "1": 1}, path)
    sides = pd.DataFrame({name: numbers(rows[name], path) for name in ("x", "y", "width", "height")})
    is_box = sides.notna().all(axis=1) & (sides[["width", "height"]] > 0).all(axis=1)
    refuse(ids, rows.duplicated(), path, "has the same row twice")
    refuse(ids, (target == 1) & ~is_box, path, "has Target 1 without a box of positive size")
    refuse(ids, (target == 0) & sides.notna().any(axis=1), path, "has Target 0 and a box")
    refuse(ids, target.groupby(ids).transform("nunique") > 1, path, "has both Target 0 and Target 1")
    boxes: dict[str, list[tuple[float, float, float, float]]] = {image: [] for image in ids}
    for image, x, y, width, height in zip(ids[is_box], *sides[is_box].to_numpy().T.tolist(), strict=True):
        boxes[image].append((x, y, x + width, y + height))
    images = target.groupby(ids).first().astype("Int8").to_frame("label:Pneumonia")
    return images.assign(boxes=pd.Series(boxes))


def read_classes(path: Path, pneumonia: pd.Series) -> pd.Series:
    """`label:Normal` per patientId: most negatives of `Target` are not. Rows repeat as in the label file."""
    rows = read_cells(path, CLASS_HEADER)
    ids = rows["patientId"]
    kinds = one_of(CLASSES, rows["class"], path)
    expected = ids.map(pneumonia)
    refuse(ids, expected.isna(), path, "is not in the label file")
    refuse(ids, (kinds == "Lung Opacity") != (expected == 1), path, "has a class that contradicts its Target")
    refuse(ids, kinds.groupby(ids).transform("nunique") > 1, path, "has two classes")
    missing = sorted(set(pneumonia.index) - set(ids))
    if missing:
        raise BadTable(
            f"{path} has no row for {len(missing)} images, {missing[0]} among them. Restore the file"
        )
    return (kinds == "Normal").groupby(ids).first().astype("Int8")


def read_persons(path: Path, images: pd.Index) -> pd.Series:
    """NIH patient of each image. Raises BadTable for a map with gaps."""
    persons = _persons.read_map(path).reindex(images)
    if persons.isna().any():
        raise BadTable(
            f"{path} has no person for {persons.isna().sum()} images, {persons.isna().idxmax()} among them. "
            "Complete it, or remove it to split by image"
        )
    return persons


# --- the phantom -------------------------------------------------------------------------------------

ENCODINGS: Mapping[int, Encoding] = {1: "inverted", 2: "12 bit", 3: "raw", 7: "raw", 11: "raw"}
IMPOSSIBLE_AGE, UNLABELLED = 3, 4
"""Persons whose first picture is not a JPEG, shows an age of 148, or is of the challenge's test part."""


def write_phantom(root: Path, cohort: Cohort, workers: int) -> None:
    """One picture per study, with boxes around its consolidations, in the pixels of its own header. The map
    to the persons lies in the folder. No label noise: radiologists drew the boxes."""
    for part in ("train", "test"):
        (root / f"stage_2_{part}_images").mkdir()
    images = draw(cohort, partial(_write_person, root, cohort), workers=workers, label="drawing RSNA")
    images.sort(key=lambda image: image.image_id)
    train = [image for image in images if image.part == "train"]
    test = [image.image_id for image in images if image.part == "test"]
    tables: dict[str, tuple[Sequence[str], list[list[object]]]] = {
        "stage_2_train_labels": (LABEL_HEADER, [row for image in train for row in image.labels]),
        "stage_2_detailed_class_info": (CLASS_HEADER, [row for image in train for row in image.classes]),
        "stage_2_sample_submission": (SUBMISSION_HEADER, [[name, "0.5 0 0 100 100"] for name in test]),
        "rsna_person_map": (_persons.HEADER, [image.person for image in images]),
    }
    for name, (header, rows) in tables.items():
        write_csv(root / f"{name}.csv", header, rows)
    stamp(root, cohort, {image.image_id: image.truth for image in images})


class _Written(NamedTuple):
    image_id: str
    part: str
    labels: list[list[object]]  # rows of each table
    classes: list[list[object]]
    person: list[object]
    truth: dict[str, object]


def _write_person(root: Path, cohort: Cohort, person: Person) -> list[_Written]:
    return [_write_study(root, cohort, person, study) for study in person.studies]


def _write_study(root: Path, cohort: Cohort, person: Person, study: Study) -> _Written:
    rng = cohort.stream("file", person.number, study.number)
    picture = study.pictures[0]  # the frontal one
    height, width = cohort.size
    drawn = render(person, study, picture, height=height, width=width, dials=cohort.dials)
    first = study.number == 1
    part = "test" if first and person.number == UNLABELLED else "train"
    image_id = f"{rng.bytes(4).hex()}-0000-4000-8000-{rng.bytes(6).hex()}"
    save_dicom(
        root / f"stage_2_{part}_images" / f"{image_id}.dcm",
        drawn.pixels,
        uids=uids(image_id),
        person=image_id,
        view=picture.view,
        sex=person.sex,
        age="148" if first and person.number == IMPOSSIBLE_AGE else str(person.age),
        encoding=ENCODINGS.get(person.number, "jpeg") if first else "jpeg",
    )
    boxes = dict.fromkeys(lesion.box for lesion in drawn.lesions if lesion.name == "Consolidation")
    labels: list[list[object]] = [
        [image_id, f"{x0:.1f}", f"{y0:.1f}", f"{x1 - x0:.1f}", f"{y1 - y0:.1f}", 1]
        for x0, y0, x1, y1 in boxes
    ]
    labels = labels or [[image_id, "", "", "", "", 0]]
    ill = {finding.name for finding in study.findings} - {"Support Devices", "Foreign Object"}
    kind = "Lung Opacity" if boxes else "No Lung Opacity / Not Normal" if ill else "Normal"
    nih_patient = 90_000 + person.number  # above every real one
    return _Written(
        image_id,
        part,
        labels,
        [[image_id, kind] for _ in labels],
        [image_id, f"{nih_patient:08d}_{study.number:03d}.png"],
        truth(person, study, picture, drawn),
    )
