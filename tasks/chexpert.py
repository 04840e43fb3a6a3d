"""CheXpert: 224,316 chest X-rays of 65,240 patients, labelled by a program from the reports they came with.

Training labels are asserted, denied, hedged or not mentioned; the official validation and test parts were
read by radiologists. Facts about the layout: the dataset's own files as MGCA, GLoRIA and torchxrayvision
read them, and counts of the label file in torchxrayvision.
"""

from __future__ import annotations

import math
from collections.abc import Set
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from harness.contracts import Balanced, DatasetCard, PhantomSize, PublishedSplit, Split, Task, Variant
from harness.phantom import Cohort, Person, Picture, Study, draw, stamp, truth
from harness.phantom.anatomy import BORROWED
from harness.phantom.render import render
from tasks._phantoms import save_jpeg, write_csv
from tasks._tables import (
    finish,
    label_columns,
    numbers,
    once,
    one_each,
    one_of,
    read_cells,
    refuse,
    translate,
)

PUBLISHED = PublishedSplit(
    source="MGCA 680fe4a, mgca/preprocess/chexpert.py; GLoRIA's is the same without seeds",
    rules=(
        "single-label-images-set-aside",
        "parts-drawn-by-image",
        "valid-drawn-by-position-removed-by-label",
        "fraction-sampled-by-image",
    ),
    train="train",
    test="valid",
    held_out=5_000,
    set_aside=200,
    size=223_414,
)
TRAINING = {  # asserted in the training part
    "No Finding": 22_381,
    "Cardiomegaly": 27_000,
    "Edema": 52_246,
    "Consolidation": 14_783,
    "Atelectasis": 33_376,
    "Pleural Effusion": 86_187,
}
SCORED = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
ALSO_ABSENT = (  # of the 5x200 images, beside the five
    "Enlarged Cardiomediastinum",
    "Lung Lesion",
    "Lung Opacity",
    "Pneumonia",
    "Pneumothorax",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
PROMPTS = {
    "Atelectasis": ("atelectasis", "basilar atelectasis", "subsegmental atelectasis"),
    "Cardiomegaly": ("cardiomegaly", "cardiac enlargement", "enlargement of the cardiac silhouette"),
    "Consolidation": ("consolidation", "focal consolidation", "airspace consolidation"),
    "Edema": ("pulmonary edema", "interstitial edema", "pulmonary vascular congestion"),
    "Pleural Effusion": ("pleural effusion", "pleural fluid", "blunting of the costophrenic angle"),
}
CARD = DatasetCard(
    title="CheXpert",
    source="register at https://aimi.stanford.edu/datasets/chexpert-chest-x-rays and download "
    "CheXpert-v1.0-small or CheXpert-v1.0",
    licence="Stanford University Research Use Agreement: research only, no redistribution",
    citation="Irvin et al., CheXpert: A Large Chest Radiograph Dataset with Uncertainty Labels and Expert "
    "Comparison, AAAI 2019",
    folders=("CheXpert-v1.0-small", "CheXpert-v1.0", "CheXpert-v1.0 batch 1 (validate & csv)"),
    markers=("train.csv", "valid.csv"),
    variants=(
        Variant("train and valid", 223_648, {"train": 223_414, "valid": 234}, {"train": TRAINING}),
        Variant(
            "with the test part", 224_316, {"train": 223_414, "valid": 234, "test": 668}, {"train": TRAINING}
        ),
    ),
    tasks=(
        Task(
            kinds=("linear", "finetune", "zero-shot"),
            labels=SCORED,
            metric="macro_auroc",
            version=1,
            # papers report on the official valid part; the test part came later and is read only
            splits={"clean": Split(test="valid", validation=0.1, train="train"), "published": PUBLISHED},
            uncertain={  # as MGCA and GLoRIA count a hedge, after the baselines of the dataset's paper
                "Atelectasis": 1,
                "Edema": 1,
                "Pleural Effusion": 1,
                "Cardiomegaly": 0,
                "Consolidation": 0,
            },
            blank=0,
            prompts=PROMPTS,
        ),
        Task(
            kinds=("zero-shot",),
            name="5x200",
            labels=SCORED,
            metric="accuracy",
            version=1,
            # from the training part, where there are enough of them: nothing is trained here
            splits={
                "clean": Split(test="train", validation=None, train=None),
                "published": Split(test="train", validation=None, train=None),
            },
            exclusive=True,
            blank=0,
            balanced=Balanced(ALSO_ABSENT),
            prompts=PROMPTS,
        ),
    ),
    phantom={"demo": PhantomSize(2_600, 128, 156), "paper": PhantomSize(26_000, 320, 390)},
    dials=("label_noise",),
)

LABELS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
HEADER = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *LABELS)
IMAGE_ID = r"((train|valid|test)/(patient\d+)/(study\d+)/view\d+_(frontal|lateral)\.jpg)$"
"""Of the `Path` cell; what stands before it is the release's folder, which differs between downloads."""


def read(root: Path) -> pd.DataFrame:
    """The table, with all 14 labels raw; the test part only where it was downloaded."""
    parts = [_part(root, "train.csv"), _part(root, "valid.csv")]
    if (root / "test_labels.csv").is_file():
        parts.append(_part(root, "test_labels.csv"))
    table = pd.concat(parts, ignore_index=True)
    return finish({"path": _paths(root, table["image_id"]), **table})


def _part(root: Path, name: str) -> pd.DataFrame:
    path = root / name
    described = name != "test_labels.csv"  # the radiologists' file says nothing about the patients
    rows = read_cells(path, HEADER if described else ("Path", *LABELS), exact=described, filled=True)
    pieces = rows["Path"].str.extract(IMAGE_ID)
    pieces.columns = ["image_id", "split", "person_id", "study", "side"]
    refuse(
        rows["Path"], pieces["image_id"].isna(), path, "is not train|valid|test/patient…/study…/view…_….jpg"
    )
    once(rows["Path"], path)
    table = pieces[["image_id", "person_id", "split"]].assign(
        study_id=pieces["person_id"] + "/" + pieces["study"],
        view="",
        frontal=pieces["side"] == "frontal",
        sex="",
        age=math.nan,
        rows=one_each(rows),
    )
    if described:
        table["view"] = one_of(("AP", "PA", "LL", "RL", ""), rows["AP/PA"], path)
        table["frontal"] = translate(rows["Frontal/Lateral"], {"Frontal": True, "Lateral": False}, path)
        table["sex"] = translate(rows["Sex"], {"Female": "F", "Male": "M", "Unknown": ""}, path)
        table["age"] = numbers(rows["Age"], path)
    table.loc[~table["frontal"] & (table["view"] == ""), "view"] = "LATERAL"
    return table.assign(**label_columns(rows, LABELS, path))


def _paths(root: Path, ids: pd.Series) -> pd.Series:
    """Where each image lies. The download in batches keeps the training patients in folders beside `root`."""
    paths = f"{root.resolve()}/" + ids
    if (root / "train").is_dir():
        return paths
    beside = dict.fromkeys((root.absolute().parent, root.resolve().parent))  # of a link, and of what it links
    batches = [batch for folder in beside for batch in sorted(folder.glob("CheXpert-v1.0 batch * (train *)"))]
    home = {person.name: f"{person}/" for batch in batches for person in batch.iterdir()}
    if not home:
        return paths
    pieces = ids.str.extract(r"^train/(patient\d+)/(.*)$")
    return (pieces[0].map(home) + pieces[1]).fillna(paths)


# --- the phantom -------------------------------------------------------------------------------------

RELEASE = "CheXpert-v1.0-small"  # what the phantom's `Path` cells begin with
FILED_AS_LL, UNKNOWN_SEX = 1, 2  # persons whose rows show the oddities of the official file


def write_phantom(root: Path, cohort: Cohort, workers: int) -> None:
    """Every fourth person is in the valid part, labelled with what is truly there; the others are labelled
    with what their reports say. Patients are numbered from 90001, above every official one."""
    valid = _valid_persons(cohort)
    write_person = partial(_write_person, root, cohort, valid)
    pictures = draw(cohort, write_person, workers=workers, label="drawing CheXpert")
    for part in ("train", "valid"):
        rows = [picture.cells for picture in pictures if picture.image_id.startswith(part)]
        write_csv(root / f"{part}.csv", HEADER, rows)
    stamp(root, cohort, {picture.image_id: picture.truth for picture in pictures})


class _Written(NamedTuple):
    image_id: str
    cells: list[str]
    truth: dict[str, object]


def _write_person(root: Path, cohort: Cohort, valid: Set[int], person: Person) -> list[_Written]:
    part = "valid" if person.number in valid else "train"
    return [
        _write_picture(root, cohort, part, person, study, picture)
        for study in person.studies
        for picture in study.pictures
    ]


def _write_picture(
    root: Path, cohort: Cohort, part: str, person: Person, study: Study, picture: Picture
) -> _Written:
    side = "lateral" if picture.view == "LATERAL" else "frontal"
    image_id = f"{part}/patient9{person.number:04d}/study{study.number}/view{picture.number}_{side}.jpg"
    height, width = cohort.size
    drawn = render(person, study, picture, height=height, width=width, dials=cohort.dials)
    save_jpeg(root / image_id, drawn.pixels)
    unknown = person.number == UNKNOWN_SEX
    first = study.number == picture.number == 1
    labels = true_labels(study) if part == "valid" else stated_labels(cohort, person, study)
    cells = [
        f"{RELEASE}/{image_id}",
        "Unknown" if unknown else {"F": "Female", "M": "Male"}[person.sex],
        "0" if unknown else str(person.age),
        side.capitalize(),
        "LL" if person.number == FILED_AS_LL and first else "" if side == "lateral" else picture.view,
        *(f"{labels[name]:.1f}" if name in labels else "" for name in LABELS),
    ]
    return _Written(image_id, cells, truth(person, study, picture, drawn))


def stated_labels(cohort: Cohort, person: Person, study: Study) -> dict[str, int]:
    """What the labeller made of the report; at `label_noise`, that share of its 1s and of its 0s and blanks
    is exchanged."""
    rng = cohort.stream("label noise", person.number, study.number)
    labels = dict(study.statements)
    for name, chance in zip(LABELS, rng.random(len(LABELS)), strict=True):
        if chance < cohort.dials.label_noise and labels.get(name) != -1:
            labels[name] = 0 if labels.get(name) == 1 else 1
    return labels


def true_labels(study: Study) -> dict[str, int]:
    """0 or 1 for every label, as a radiologist with the truth in hand would fill the form."""
    present = {name for name in LABELS if study.has(name)}
    for name in ("Lung Opacity", "Enlarged Cardiomediastinum"):
        if not present.isdisjoint(BORROWED[name]):
            present.add(name)
    if study.statements.get("Pneumonia") == 1:  # a cause, not a sign: only the reader can know
        present.add("Pneumonia")
    if not present - {"Support Devices"}:
        present.add("No Finding")
    return {name: int(name in present) for name in LABELS}


def _valid_persons(cohort: Cohort) -> Set[int]:
    """Every fourth person, and for each scored class that none of them has, the first who has it."""
    people = list(cohort.people())
    valid = {person.number for person in people if person.number % 4 == 0}
    for name in CARD.tasks[0].labels:
        having = [person.number for person in people if any(study.has(name) for study in person.studies)]
        if having and valid.isdisjoint(having):
            valid.add(having[0])
    return valid
