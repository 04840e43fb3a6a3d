"""ChestX-ray14: 112,120 frontal chest X-rays of 30,805 patients, 14 findings mined from their reports.

The labels come from a program that read the reports, not from a reader of the pictures; 880 images also have
boxes drawn by hand. RSNA, SIIM and COVIDx took pictures from here. Facts about the layout: the official label
and box files as torchxrayvision keeps them, counted; the official lists by their documentation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from harness.contracts import DatasetCard, PhantomSize, Split, Task, Variant
from harness.errors import BadTable
from harness.phantom import Cohort, Person, Study, draw, stamp, truth
from harness.phantom.render import Rendered, render
from tasks._phantoms import save_png, write_csv, write_lines
from tasks._pictures import check_boxes, left_out, list_files, picture_size
from tasks._tables import (
    find_csv,
    finish,
    numbers,
    once,
    one_of,
    read_cells,
    read_files,
    read_lines,
    refuse,
    refuse_files,
    translate,
)

LABELS = (  # in the order of the dataset's paper and of the field's tables
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)
OFFICIAL_LISTS = Split(test="test", validation=0.1, train="train_val")  # which no person crosses
PROMPTS = {
    "Atelectasis": ("atelectasis", "basilar atelectasis", "subsegmental atelectasis"),
    "Cardiomegaly": ("cardiomegaly", "cardiac enlargement", "enlargement of the cardiac silhouette"),
    "Effusion": ("pleural effusion", "pleural fluid", "blunting of the costophrenic angle"),
    "Infiltration": ("infiltrate", "pulmonary infiltrate", "patchy airspace opacity"),
    "Mass": ("lung mass", "pulmonary mass", "large rounded opacity"),
    "Nodule": ("lung nodule", "pulmonary nodule", "small rounded opacity"),
    "Pneumonia": ("pneumonia", "infectious pneumonia", "airspace infection"),
    "Pneumothorax": ("pneumothorax", "apical pneumothorax", "visible pleural line"),
    "Consolidation": ("consolidation", "focal consolidation", "airspace consolidation"),
    "Edema": ("pulmonary edema", "interstitial edema", "pulmonary vascular congestion"),
    "Emphysema": ("emphysema", "emphysematous change", "hyperinflation of the lungs"),
    "Fibrosis": ("pulmonary fibrosis", "fibrotic change", "reticular scarring"),
    "Pleural_Thickening": ("pleural thickening", "thickening of the pleura", "pleural scarring"),
    "Hernia": ("hiatal hernia", "diaphragmatic hernia", "herniation of bowel into the chest"),
}
CARD = DatasetCard(
    title="ChestX-ray14",
    source="https://nihcc.app.box.com/v/ChestXray-NIHCC (all of images_*.tar.gz, Data_Entry_2017_v2020.csv, "
    "train_val_list.txt, test_list.txt, BBox_List_2017.csv), unpacked in one folder",
    licence="NIH Clinical Center: no restrictions, with a link to the download, the citation and credit",
    citation="Wang et al., ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks on "
    "Weakly-Supervised Classification and Localization of Common Thorax Diseases, CVPR 2017",
    folders=("ChestXray-NIHCC", "CXR8", "nih-chest-xrays"),
    markers=("Data_Entry_2017*.csv*", "test_list.txt", "images or images_*"),
    variants=(
        Variant(
            "2017",
            112_120,
            {"train_val": 86_524, "test": 25_596},
            {
                "": {
                    "Atelectasis": 11_559,
                    "Cardiomegaly": 2_776,
                    "Effusion": 13_317,
                    "Infiltration": 19_894,
                    "Mass": 5_782,
                    "Nodule": 6_331,
                    "Pneumonia": 1_431,
                    "Pneumothorax": 5_302,
                    "Consolidation": 4_667,
                    "Edema": 2_303,
                    "Emphysema": 2_516,
                    "Fibrosis": 1_686,
                    "Pleural_Thickening": 3_385,
                    "Hernia": 227,
                }
            },
        ),
    ),
    tasks=(
        Task(
            kinds=("linear", "finetune", "zero-shot"),
            labels=LABELS,
            metric="macro_auroc",
            version=1,
            splits={"clean": OFFICIAL_LISTS, "published": OFFICIAL_LISTS},
            prompts=PROMPTS,
        ),
    ),
    shares_pictures=("rsna", "siim", "covidx", "covidx_binary"),
    phantom={"demo": PhantomSize(2_400, 128, 128), "paper": PhantomSize(24_000, 320, 320)},
    dials=("label_noise",),
)

HEADER = (
    "Image Index",
    "Finding Labels",
    "Follow-up #",
    "Patient ID",
    "Patient Age",
    "Patient Gender",
    "View Position",
    *("OriginalImage[Width", "Height]"),  # the brackets' commas were not quoted
    *("OriginalImagePixelSpacing[x", "y]"),
)
SPELLINGS = {"Patient Sex": "Patient Gender"}  # in later copies of the file
BOX_HEADER = ("Image Index", "Finding Label", "Bbox [x", "y", "w", "h]")
BOX_LABELS = {name: name for name in LABELS} | {"Infiltrate": "Infiltration"}
NOTHING = "No Finding"
PARTS = ("train_val", "test")
OLDEST = 120  # years; the first release has ages above 400


def read(root: Path) -> pd.DataFrame:
    """The table. An image without boxes is one that nobody drew any in, not one without findings."""
    labels_csv = find_csv(root, "Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")  # the corrected one first
    images = read_labels(labels_csv)
    names = images.index.tolist()
    pictures = list_files([root / "images", *sorted(root.glob("images*/images"))], ".png")
    refuse_files(
        sorted(set(names) - set(pictures)),
        f"no such picture in {root}/images*/images nor {root}/images. Complete the download",
    )
    notes = left_out("images", len(pictures) - len(names), labels_csv)
    images["path"] = [pictures[name] for name in names]
    images["split"] = read_lists(root, names)
    boxes_csv = root / "BBox_List_2017.csv"
    if boxes_csv.is_file():
        boxes = read_boxes(boxes_csv, names)
        paths = [Path(path) for path in images["path"].loc[boxes.index]]
        sizes = read_files(picture_size, paths, "measuring pictures with boxes")
        check_boxes(boxes["boxes"], pd.DataFrame(sizes, columns=["width", "height"]), boxes_csv)
        for name, lists in boxes.to_dict().items():
            images[name] = [lists.get(image, []) for image in names]
    return finish({"image_id": images.index, **images}, notes=notes)


def read_labels(path: Path) -> pd.DataFrame:
    """What the label file says of each image, by its name: the person, the view, `label:NAME` 1 or 0."""
    rows = read_cells(path, HEADER, spellings=SPELLINGS)
    image, person = once(rows["Image Index"], path), rows["Patient ID"].str.zfill(8)
    named = image.str.fullmatch(r"\d{8}_\d{3}\.png") & (image.str[:8] == person)
    refuse(image, ~named, path, "is not the 8 digits of its Patient ID, _, 3 digits and .png")
    age = numbers(rows["Patient Age"], path)
    return pd.DataFrame(
        {
            "person_id": person,
            "study_id": image.str.removesuffix(".png"),
            "view": one_of(("PA", "AP"), rows["View Position"], path),
            "frontal": True,
            "sex": one_of(("F", "M"), rows["Patient Gender"], path),
            "age": age.where(age <= OLDEST),
            **multi_hot(rows["Finding Labels"], path),
        }
    ).set_index(image)


def multi_hot(cells: pd.Series, path: Path) -> pd.DataFrame:
    """`label:NAME` 1 or 0 of cells such as `Effusion|Mass`. A cell is taken apart once for all rows that are
    worded the same: the official 112,120 have 836 wordings."""
    codes, wordings = pd.factorize(cells)
    found = [set() if wording == NOTHING else set(wording.split("|")) for wording in wordings]
    wrong = [wording for wording, names in zip(wordings, found, strict=True) if not names <= set(LABELS)]
    refuse(cells, cells.isin(wrong), path, f"is neither {NOTHING!r} nor some of {'|'.join(LABELS)}")
    hot = np.array([[name in names for name in LABELS] for names in found], dtype=np.int8)
    columns = [f"label:{name}" for name in LABELS]
    return pd.DataFrame(hot.reshape(-1, len(LABELS))[codes], cells.index, columns).astype("Int8")


def read_lists(root: Path, images: Sequence[str]) -> list[str]:
    """The official part of each image. Raises BadTable unless every image is in exactly one list."""
    paths = [root / f"{part}_list.txt" for part in PARTS]
    train, test = (set(once(read_lines(path), path).tolist()) for path in paths)
    odd = sorted((train & test) | ((train | test) ^ set(images)))
    if odd:
        raise BadTable(
            f"{root}: {len(odd)} images, {odd[0]} among them, are in neither or both of {paths[0].name} and "
            f"{paths[1].name}, or in one of these but not in the label file. Restore all three"
        )
    return [PARTS[image in test] for image in images]


def read_boxes(path: Path, images: Sequence[str]) -> pd.DataFrame:
    """`boxes`, xyxy in pixels, and the finding of each as `box_labels`, per image that has any."""
    rows = read_cells(path, BOX_HEADER)
    image = rows["Image Index"]
    refuse(image, image.isin(list(set(image) - set(images))), path, "has no row in the label file")
    x, y, width, height = (numbers(rows[name], path) for name in BOX_HEADER[2:])
    is_box = x.notna() & y.notna() & (width > 0) & (height > 0)
    refuse(image, ~is_box, path, "has no box of positive size")
    return (
        pd.DataFrame(
            {
                "boxes": list(zip(x, y, x + width, y + height, strict=True)),
                "box_labels": translate(rows["Finding Label"], BOX_LABELS, path),
            }
        )
        .groupby(image)
        .agg(list)
    )


# --- the phantom -------------------------------------------------------------------------------------

SIGNS: Mapping[str, tuple[str, float, float]] = {
    # label: (finding, severity from, severity below)
    "Atelectasis": ("Atelectasis", 0.0, 2.0),
    "Cardiomegaly": ("Cardiomegaly", 0.0, 2.0),
    "Effusion": ("Pleural Effusion", 0.4, 2.0),
    "Infiltration": ("Consolidation", 0.0, 0.6),
    "Mass": ("Lung Lesion", 0.6, 2.0),
    "Nodule": ("Lung Lesion", 0.0, 0.6),
    "Pneumonia": ("Consolidation", 0.75, 2.0),
    "Pneumothorax": ("Pneumothorax", 0.0, 2.0),
    "Consolidation": ("Consolidation", 0.6, 2.0),
    "Edema": ("Edema", 0.4, 2.0),
    "Emphysema": ("Pneumothorax", 0.65, 2.0),
    "Fibrosis": ("Edema", 0.0, 0.4),
    "Pleural_Thickening": ("Pleural Effusion", 0.0, 0.4),
    "Hernia": ("Cardiomegaly", 0.85, 2.0),
}
"""What a label stands for in a phantom. Findings that it cannot draw are degrees of one that it can, so that
each of the 14 can be learnt: a blunted angle is thickened pleura, a faint net fibrosis."""
BOXED = frozenset({"Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax"})
"""Of the eight findings in the official box file those that the phantom outlines."""
RGBA, IMPOSSIBLE_AGE = 1, 2  # persons whose first picture has four channels, or an age of 412 at first
FOLDERS = 12


def write_phantom(root: Path, cohort: Cohort, workers: int) -> None:
    """Every fifth person is in the test part, and has boxes, as in the official file. Patients are numbered
    from 90001, above every real one. Both releases of the label file lie side by side."""
    images = draw(cohort, partial(_write_person, root, cohort), workers=workers, label="drawing ChestX-ray14")
    first = [[*image.cells[:4], image.first_age, *image.cells[5:], ""] for image in images]
    write_csv(root / "Data_Entry_2017.csv", (*HEADER, ""), first)  # each line ends in a comma
    write_csv(root / "Data_Entry_2017_v2020.csv", HEADER, [image.cells for image in images])
    boxes = [box for image in images for box in image.boxes]
    write_csv(root / "BBox_List_2017.csv", (*BOX_HEADER, "", "", ""), boxes)
    for part in PARTS:
        write_lines(root / f"{part}_list.txt", [image.image_id for image in images if image.part == part])
    stamp(root, cohort, {image.image_id: image.truth for image in images})


class _Written(NamedTuple):
    image_id: str
    part: str
    cells: list[object]
    first_age: int  # in the first release
    boxes: list[list[object]]
    truth: dict[str, object]


def _write_person(root: Path, cohort: Cohort, person: Person) -> list[_Written]:
    return [_write_study(root, cohort, person, study) for study in person.studies]


def _write_study(root: Path, cohort: Cohort, person: Person, study: Study) -> _Written:
    picture = study.pictures[0]  # the frontal one
    height, width = cohort.size
    drawn = render(person, study, picture, height=height, width=width, dials=cohort.dials)
    patient, first = 90_000 + person.number, study.number == 1
    part = PARTS[person.number % 5 == 0]
    image_id = f"{patient:08d}_{study.number - 1:03d}.png"
    folder = root / f"images_{person.number % FOLDERS + 1:03d}/images"
    save_png(folder / image_id, drawn.pixels, "alpha" if first and person.number == RGBA else "grey")
    labels = stated_labels(cohort, person, study) if part == "train_val" else true_labels(study)
    cells = [
        image_id,
        "|".join(sorted(labels)) or NOTHING,
        study.number - 1,
        patient,
        person.age,
        person.sex,
        picture.view,
        *(width, height),
        *(0.143, 0.143),
    ]
    boxes = [
        [image_id, "Infiltrate" if label == "Infiltration" else label, x0, y0, x1 - x0, y1 - y0]
        for label in sorted(labels & BOXED)
        for x0, y0, x1, y1 in outlines(label, drawn)
    ]
    return _Written(
        image_id,
        part,
        cells,
        412 if first and person.number == IMPOSSIBLE_AGE else person.age,
        boxes if part == "test" else [],
        truth(person, study, picture, drawn),
    )


def true_labels(study: Study) -> set[str]:
    severity = {finding.name: finding.severity for finding in study.findings}
    return {label for label, (name, low, high) in SIGNS.items() if low <= severity.get(name, -1.0) < high}


def stated_labels(cohort: Cohort, person: Person, study: Study) -> set[str]:
    """What a program made of the report: at `label_noise`, that share of the labels is turned round."""
    chances = cohort.stream("label noise", person.number, study.number).random(len(LABELS))
    noise = {name for name, chance in zip(LABELS, chances, strict=True) if chance < cohort.dials.label_noise}
    return true_labels(study) ^ noise


def outlines(label: str, drawn: Rendered) -> list[tuple[float, float, float, float]]:
    """Boxes, xyxy in pixels, around the signs that `label` stands for; of equal ones, one."""
    return list(dict.fromkeys(lesion.box for lesion in drawn.lesions if lesion.name == SIGNS[label][0]))
