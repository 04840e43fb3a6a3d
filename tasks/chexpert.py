"""CheXpert: 224,316 chest X-rays of 65,240 patients, labelled by a program from the reports they came with.

Training labels are asserted, denied, hedged or not mentioned; the official validation and test parts were
read by radiologists. Facts about the layout: the data set's own files as MGCA, GLoRIA and torchxrayvision
read them, and counts of the label file in torchxrayvision.
"""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from harness.contracts import DatasetCard, PhantomSize, Split, Task, Variant
from tasks._tables import finish, label_columns, numbers, read_cells, refuse, translate

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
        Variant("train and valid", 223_648, {"train": 223_414, "valid": 234}),
        Variant("with the test part", 224_316, {"train": 223_414, "valid": 234, "test": 668}),
    ),
    tasks=(
        Task(
            kind="linear",
            labels=("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion"),
            metric="macro_auroc",
            version=1,
            splits={"clean": Split(test="valid", validation=0.1)},  # papers report on the official valid part
            uncertain={  # as MGCA and GLoRIA count a hedge, after the baselines of the data set's paper
                "Atelectasis": 1,
                "Edema": 1,
                "Pleural Effusion": 1,
                "Cardiomegaly": 0,
                "Consolidation": 0,
            },
            blank=0,
        ),
    ),
    phantom={"demo": PhantomSize(2_600, 128, 156), "paper": PhantomSize(26_000, 320, 390)},
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
    rows = read_cells(path, HEADER if described else ("Path", *LABELS), exact=described)
    pieces = rows["Path"].str.extract(IMAGE_ID)
    pieces.columns = ["image_id", "split", "person_id", "study", "side"]
    refuse(
        rows["Path"], pieces["image_id"].isna(), path, "is not train|valid|test/patient…/study…/view…_….jpg"
    )
    refuse(rows["Path"], pieces["image_id"].duplicated(), path, "occurs twice")
    table = pieces[["image_id", "person_id", "split"]].assign(
        study_id=pieces["person_id"] + "/" + pieces["study"],
        view="",
        frontal=pieces["side"] == "frontal",
        sex="",
        age=math.nan,
    )
    if described:
        table["view"] = translate(rows["AP/PA"], {name: name for name in ("AP", "PA", "LL", "RL", "")}, path)
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
    batches = sorted(root.resolve().parent.glob("CheXpert-v1.0 batch * (train *)"))
    home = {person.name: f"{person}/" for batch in batches for person in batch.iterdir()}
    pieces = ids.str.extract(r"^train/(patient\d+)/(.*)$")
    return (pieces[0].map(home) + pieces[1]).fillna(paths)
