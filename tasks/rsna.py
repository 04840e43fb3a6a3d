"""RSNA Pneumonia Detection Challenge: 26,684 chest X-rays with boxes around lung opacities.

A `patientId` names an image, not a person: the pictures come from 11,439 patients of NIH's ChestX-ray14,
and splits by `patientId` put the same people on both sides. With a map to the NIH patients beside the data
the table knows the persons; without it, it says that it does not. Facts about the layout: the challenge's
label and header files as torchxrayvision keeps them, which also holds the map, found by matching pixels.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import pandas as pd
import pydicom
from pydicom.errors import InvalidDicomError

from harness.contracts import DatasetCard, PhantomSize, Split, Task, Variant
from harness.errors import BadTable, UnreadableImage
from tasks._tables import finish, numbers, read_cells, read_files, refuse, refuse_files, translate

CARD = DatasetCard(
    title="RSNA Pneumonia Detection Challenge",
    source="https://www.kaggle.com/c/rsna-pneumonia-detection-challenge (stage 2), and for splits by person "
    "a rsna_person_map.csv with the columns patientId, nih_image, nih_patient beside it",
    licence="RSNA challenge terms: academic and non-commercial use; images NIH Clinical Center",
    citation="Shih et al., Augmenting the National Institutes of Health Chest Radiograph Dataset with Expert "
    "Annotations of Possible Pneumonia, Radiology: Artificial Intelligence 2019",
    folders=("rsna-pneumonia-detection-challenge",),
    markers=("stage_[12]_train_labels.csv", "stage_[12]_train_images"),
    variants=(Variant("stage 2", 26_684), Variant("stage 1", 25_684)),
    tasks=(
        Task(
            kind="linear",
            labels=("Pneumonia",),
            metric="macro_auroc",
            version=1,
            splits={"clean": Split(test=0.15, validation=0.15, seed=0)},
        ),
    ),
    phantom={"demo": PhantomSize(800, 160, 160), "paper": PhantomSize(8_000, 320, 320)},
)

LABEL_HEADER = ("patientId", "x", "y", "width", "height", "Target")
CLASS_HEADER = ("patientId", "class")
MAP_HEADER = ("patientId", "nih_image", "nih_patient")
CLASSES = ("Normal", "No Lung Opacity / Not Normal", "Lung Opacity")
HEADER_FIELDS = ["Rows", "Columns", "ViewPosition", "PatientSex", "PatientAge"]
OLDEST = 120  # years; the challenge has five ages between 148 and 155


def read(root: Path) -> pd.DataFrame:
    """The table of the training images; those of the challenge's test part have no public labels.

    View, sex and age stand in the DICOM headers only: 0.2 ms each, some 5 s for all of them on one core.
    """
    stage = "stage_2" if (root / "stage_2_train_labels.csv").is_file() else "stage_1"
    labels_csv, class_csv = root / f"{stage}_train_labels.csv", root / f"{stage}_detailed_class_info.csv"
    images = read_labels(labels_csv)
    if class_csv.is_file():
        images["label:Normal"] = read_classes(class_csv, images["label:Pneumonia"])
    paths = _pictures(root.resolve() / f"{stage}_train_images", images.index, labels_csv)
    headers = pd.DataFrame(read_files(read_header, paths, "reading DICOM headers"), index=images.index)
    _check_boxes(images["boxes"], headers, labels_csv)
    persons = read_persons(root, images.index)
    return finish(
        {
            "image_id": images.index,
            "path": [str(path) for path in paths],
            "person_id": images.index if persons is None else persons,
            "study_id": images.index,
            "split": "",
            "view": headers["view"],
            "frontal": True,
            "sex": headers["sex"],
            "age": headers["age"],
            **images,
        },
        persons_known=persons is not None,
    )


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
    kinds = translate(rows["class"], {name: name for name in CLASSES}, path)
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


def read_header(path: Path) -> dict[str, object]:
    """What the DICOM header says about the person and the picture. Raises UnreadableImage."""
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=HEADER_FIELDS)
        height, width = int(header.Rows), int(header.Columns)
    except (InvalidDicomError, AttributeError, EOFError) as error:
        raise UnreadableImage(f"{path} has no readable DICOM header: {error}. Restore the file") from error
    age = re.fullmatch(r"(\d+)Y?", str(header.get("PatientAge", "")))
    years = float(age[1]) if age else math.nan
    return {
        "view": _one_of(("PA", "AP"), header.get("ViewPosition")),
        "sex": _one_of(("F", "M"), header.get("PatientSex")),
        "age": years if years <= OLDEST else math.nan,
        "height": height,
        "width": width,
    }


def read_persons(root: Path, images: pd.Index) -> pd.Series | None:
    """NIH patient of each image, as ChestX-ray14 writes it; None when no map lies in or beside `root`."""
    for folder in (root, root.parent):
        for path in (folder / "rsna_person_map.csv", folder / "rsna_person_map.csv.gz"):
            if path.is_file():
                rows = read_cells(path, MAP_HEADER)
                refuse(rows["patientId"], rows["patientId"].duplicated(), path, "occurs twice")
                persons = rows.set_index("patientId")["nih_patient"].str.zfill(8).reindex(images)
                if persons.isna().any():
                    raise BadTable(
                        f"{path} has no person for {persons.isna().sum()} images, {persons.isna().idxmax()} "
                        "among them. Complete it, or remove it to split by image"
                    )
                return persons
    return None


def _pictures(folder: Path, images: pd.Index, labels_csv: Path) -> list[Path]:
    paths = [folder / f"{image}.dcm" for image in images]
    files = set(folder.glob("*.dcm"))
    refuse_files(sorted(set(paths) - files), "no such picture. Complete the download")
    refuse_files(sorted(files - set(paths)), f"no row in {labels_csv}. Restore both from the download")
    return paths


def _check_boxes(boxes: pd.Series, headers: pd.DataFrame, path: Path) -> None:
    for image, found, height, width in zip(
        boxes.index, boxes, headers["height"], headers["width"], strict=True
    ):
        for x0, y0, x1, y1 in found:
            if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
                raise BadTable(
                    f"{path}: a box of {image} ends at {x1:g}, {y1:g}, outside its picture of {width} x "
                    f"{height} pixels. Boxes and pictures must be of the same release"
                )


def _one_of(known: tuple[str, ...], value: object) -> str:
    return str(value) if value in known else ""
