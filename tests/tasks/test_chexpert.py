"""The CheXpert reader on small trees in every layout that is handed out."""

from __future__ import annotations

import json
import math
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from harness.contracts import TABLE_COLUMNS
from harness.errors import BadTable, DataError
from harness.phantom import STAMP, Cohort, Dials
from harness.phantom.render import render
from tasks import chexpert

HEADER = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,"
    "Lung Lesion,Edema,Consolidation,Pneumonia,Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,"
    "Fracture,Support Devices"
)
TRAIN = f"""{HEADER}
SMALL/train/patient00001/study1/view1_frontal.jpg,Female,61,Frontal,AP,,,1.0,,,-1.0,,,,0.0,1.0,,,1.0
SMALL/train/patient00001/study1/view2_lateral.jpg,Female,61,Lateral,,,,1.0,,,-1.0,,,,0.0,1.0,,,1.0
SMALL/train/patient00001/study2/view1_frontal.jpg,Female,62,Frontal,LL,1.0,,,,,,,,,,,,,
SMALL/train/patient00002/study1/view1_frontal.jpg,Unknown,0,Frontal,PA,1.0,,,,,,,,,,,,,
"""
VALID = f"""{HEADER}
SMALL/valid/patient64541/study1/view1_frontal.jpg,Male,73,Frontal,AP,{",".join(["0.0", "1.0"] * 7)}
"""
TEST = f"""Path,{HEADER.split(",", 5)[5]}
test/patient64741/study1/view1_frontal.jpg,{",".join("10" * 7)}
test/patient64741/study1/view2_lateral.jpg,{",".join("01" * 7)}
"""


def write(root: Path, release: str = "CheXpert-v1.0-small", *, test_part: bool = False) -> Path:
    root.mkdir(parents=True)
    files = {"train.csv": TRAIN, "valid.csv": VALID} | ({"test_labels.csv": TEST} if test_part else {})
    for name, text in files.items():
        (root / name).write_text(text.replace("SMALL", release))
        for line in text.splitlines()[1:]:
            image = root / line.split(",")[0].removeprefix("SMALL/")
            image.parent.mkdir(parents=True, exist_ok=True)
            image.touch()
    return root


@pytest.mark.parametrize(
    "release", ["CheXpert-v1.0-small", "CheXpert-v1.0", "CheXpert-v1.0 batch 2 (train 1)"]
)
def test_reads_train_and_valid_whatever_the_release_is_called(tmp_path: Path, release: str) -> None:
    root = write(tmp_path / "data", release)
    table = chexpert.read(root)
    assert tuple(table.columns[: len(TABLE_COLUMNS)]) == TABLE_COLUMNS
    labels = [f"label:{name}" for name in HEADER.split(",")[5:]]
    assert set(table.columns[len(TABLE_COLUMNS) :]) == {"rows", *labels}
    assert list(table["rows"]) == [(0,), (1,), (2,), (3,), (0,)]
    assert table.attrs["persons_known"]
    assert list(table["image_id"]) == [
        "train/patient00001/study1/view1_frontal.jpg",
        "train/patient00001/study1/view2_lateral.jpg",
        "train/patient00001/study2/view1_frontal.jpg",
        "train/patient00002/study1/view1_frontal.jpg",
        "valid/patient64541/study1/view1_frontal.jpg",
    ]
    assert list(table["person_id"]) == ["patient00001"] * 3 + ["patient00002", "patient64541"]
    assert list(table["study_id"].iloc[1:3]) == ["patient00001/study1", "patient00001/study2"]
    assert list(table["split"]) == ["train"] * 4 + ["valid"]
    assert list(table["path"]) == [str(root / image) for image in table["image_id"]]


def test_oddities_of_the_official_rows(tmp_path: Path) -> None:
    table = chexpert.read(write(tmp_path / "data"))
    assert list(table["view"]) == ["AP", "LATERAL", "LL", "PA", "AP"]
    assert list(table["frontal"]) == [True, False, True, True, True]  # the csv counts LL as frontal
    assert list(table["sex"]) == ["F", "F", "F", "", "M"]
    assert list(table["age"]) == [61, 61, 62, 0, 73]


def test_labels_stay_as_the_file_has_them(tmp_path: Path) -> None:
    table = chexpert.read(write(tmp_path / "data"))
    first = table.iloc[0]
    said = {name: first[f"label:{name}"] for name in chexpert.LABELS if not pd.isna(first[f"label:{name}"])}
    assert said == {
        "Cardiomegaly": 1,
        "Edema": -1,
        "Pneumothorax": 0,
        "Pleural Effusion": 1,
        "Support Devices": 1,
    }
    assert list(table.iloc[4].filter(like="label:")) == [0, 1] * 7
    assert set(map(str, table.filter(like="label:").dtypes)) == {"Int8"}


def test_the_test_part_has_no_demographics(tmp_path: Path) -> None:
    table = chexpert.read(write(tmp_path / "data", test_part=True)).head(2)
    assert list(table["split"]) == ["test", "test"]
    assert list(table["view"]) == ["", "LATERAL"] and list(table["frontal"]) == [True, False]
    assert table["age"].isna().all() and list(table["sex"]) == ["", ""]
    assert list(table.iloc[0].filter(like="label:")) == [1, 0] * 7


def test_training_images_of_the_batch_download_lie_in_folders_beside(tmp_path: Path) -> None:
    root = write(tmp_path / "CheXpert-v1.0 batch 1 (validate & csv)")
    for number, person in enumerate(("patient00001", "patient00002"), start=1):
        batch = tmp_path / f"CheXpert-v1.0 batch {number + 1} (train {number})"
        batch.mkdir()
        (root / "train" / person).rename(batch / person)
    (root / "train").rmdir()
    table = chexpert.read(root)
    assert table["image_id"][3] == "train/patient00002/study1/view1_frontal.jpg"
    assert table["path"][3] == str(
        tmp_path / "CheXpert-v1.0 batch 3 (train 2)/patient00002/study1/view1_frontal.jpg"
    )
    assert table["path"][4] == str(root / table["image_id"][4])
    disk = tmp_path / "disk" / "one"
    disk.parent.mkdir()
    root.rename(disk)
    root.symlink_to(disk)  # on several disks, and linked into one folder
    assert chexpert.read(root)["path"][3] == table["path"][3]
    alone = tmp_path / "elsewhere" / "chexpert"
    alone.parent.mkdir()
    root.unlink()
    disk.rename(root)
    alone.symlink_to(root)  # the batches lie beside what is linked
    assert chexpert.read(alone)["path"][3] == table["path"][3]


def test_without_the_training_pictures_their_table_can_be_read(tmp_path: Path) -> None:
    """As of the first zip of the download in batches: `data doctor` then counts what is missing."""
    root = write(tmp_path / "CheXpert-v1.0 batch 1 (validate & csv)")
    shutil.rmtree(root / "train")
    table = chexpert.read(root)
    assert table["path"].tolist() == [str(root / image) for image in table["image_id"]]


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("train.csv", "Sex,Age", "Age,Sex", "line 1.*other order"),
        ("valid.csv", "Edema,", "Oedema,", "line 1.*missing 'Edema'; unexpected 'Oedema'"),
        ("test_labels.csv", "Edema,", "", "line 1.*missing 'Edema'"),
        ("train.csv", "-1.0", "uncertain", "line 2, column 'Edema': 'uncertain' is not one of"),
        ("train.csv", "Unknown", "Other", "line 5, column 'Sex': 'Other'"),
        ("train.csv", "61,Frontal", "sixty,Frontal", "line 2, column 'Age': 'sixty' is not a number"),
        ("train.csv", "Frontal,LL", "Frontal,LAO", "line 4, column 'AP/PA': 'LAO'"),
        ("train.csv", "study2/view1", "study1/view1", "line 4, column 'Path'.*occurs twice"),
        ("valid.csv", "patient64541", "p64541", "line 2, column 'Path'.*is not train"),
        ("train.csv", ",1.0\n", "\n", "line 2: 18 cells where the header has 19"),
    ],
)
def test_bad_tables_are_named_with_their_line(
    tmp_path: Path, name: str, old: str, new: str, message: str
) -> None:
    root = write(tmp_path / "data", test_part=True)
    text = (root / name).read_text()
    assert old in text
    (root / name).write_text(text.replace(old, new, 1))
    with pytest.raises(BadTable, match=message) as caught:
        chexpert.read(root)
    assert str(root / name) in str(caught.value)


def test_missing_files_are_named(tmp_path: Path) -> None:
    root = write(tmp_path / "data")
    (root / "valid.csv").unlink()
    with pytest.raises(DataError, match=r"valid.csv does not exist"):
        chexpert.read(root)


# --- the phantom -------------------------------------------------------------------------------------


UNREPORTED = {"Support Devices", "Foreign Object"}


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cohort, Path]:
    cohort = Cohort("chexpert", 40, seed=0, size=(64, 78))
    root = tmp_path_factory.mktemp("chexpert")
    chexpert.write_phantom(root, cohort, workers=1)
    return cohort, root


def test_the_phantom_reads_back_as_what_was_said_and_what_is_true(phantom: tuple[Cohort, Path]) -> None:
    cohort, root = phantom
    table = chexpert.read(root)
    rows = iter(table.sort_values(["person_id", "image_id"]).to_dict("records"))
    for person in cohort.people():
        for study in person.studies:
            for picture in study.pictures:
                row = next(rows)
                assert row["study_id"] == f"patient9{person.number:04d}/study{study.number}"
                assert row["frontal"] == (picture.view != "LATERAL")
                if person.number > 2:  # the first two show oddities
                    assert (row["view"], row["sex"], row["age"]) == (picture.view, person.sex, person.age)
                labels = {name: row[f"label:{name}"] for name in chexpert.LABELS}
                if row["split"] == "train":
                    said = {name: value for name, value in labels.items() if not pd.isna(value)}
                    assert said == study.statements
                else:
                    assert set(labels.values()) <= {0, 1}
                    assert all(labels[name] == study.has(name) for name in chexpert.CARD.tasks[0].labels)
                    assert labels["No Finding"] == (not {found.name for found in study.findings} - UNREPORTED)
                drawn = render(person, study, picture, height=64, width=78, dials=cohort.dials)
                with Image.open(row["path"]) as image:
                    assert np.abs(np.asarray(image, int) - drawn.pixels).mean() < 4  # what a JPEG loses
    assert next(rows, None) is None
    assert set(table["image_id"]) == set(json.loads((root / STAMP).read_text())["images"])


def test_the_phantom_shows_the_oddities_of_the_official_files(phantom: tuple[Cohort, Path]) -> None:
    table = chexpert.read(phantom[1])
    assert (table["view"] == "LL").sum() == 1
    assert set(table.loc[table["sex"] == "", "age"]) == {0}
    assert table.groupby("person_id")["study_id"].nunique().max() > 1
    for part in ("train", "valid"):
        text = (phantom[1] / f"{part}.csv").read_text()
        assert text.splitlines()[0] == HEADER
        assert all(",," in line for line in text.splitlines() if "lateral" in line)  # no AP or PA
    assert set(re.findall(r"-?\d\.\d", (phantom[1] / "train.csv").read_text()[len(HEADER) :])) >= {
        "1.0",
        "0.0",
        "-1.0",
    }


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_valid_is_about_a_quarter_and_has_every_class_that_there_is(tmp_path: Path, seed: int) -> None:
    cohort = Cohort("chexpert", 20, seed, size=(16, 20))
    chexpert.write_phantom(tmp_path, cohort, workers=1)
    table = chexpert.read(tmp_path)
    persons = table.groupby("person_id")["split"].first()
    assert 5 <= (persons == "valid").sum() <= 8
    valid = table[(table["split"] == "valid") & table["frontal"]]
    studies = [study for person in cohort.people() for study in person.studies]
    for name in chexpert.CARD.tasks[0].labels:
        assert valid[f"label:{name}"].any() == any(study.has(name) for study in studies)


def test_label_noise_exchanges_its_share_of_what_is_not_hedged() -> None:
    cohort = Cohort("chexpert", 400, seed=0, size=(16, 20), dials=Dials(label_noise=0.2))
    kept = flipped = 0
    for person in cohort.people():
        for study in person.studies:
            noisy = chexpert.stated_labels(cohort, person, study)
            for name in chexpert.LABELS:
                before, after = study.statements.get(name, 0), noisy.get(name, 0)
                if before == -1:
                    assert after == -1
                elif before == after:
                    kept += 1
                else:
                    flipped += 1
    assert flipped / (kept + flipped) == pytest.approx(0.2, abs=4 * math.sqrt(0.16 / (kept + flipped)))


@pytest.mark.slow
def test_the_demo_has_pure_cases_of_every_scored_class_for_zero_shot_sets() -> None:
    """As the 5x200 sets are cut: one label 1, the twelve others 0 or blank."""
    size = chexpert.CARD.phantom["demo"]
    pure: Counter[str] = Counter()
    for person in Cohort("chexpert", size.persons, 0, (size.height, size.width)).people():
        for study in person.studies:
            stated = {name for name, value in study.statements.items() if value and name != "No Finding"}
            pure.update(stated if len(stated) == 1 and study.statements[min(stated)] == 1 else ())
    assert all(pure[name] >= 8 for name in chexpert.CARD.tasks[0].labels), pure
