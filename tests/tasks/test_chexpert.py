"""The CheXpert reader on small trees in every layout that is handed out."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from harness.contracts import TABLE_COLUMNS
from harness.errors import BadTable, DataError
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
    assert list(table.columns[len(TABLE_COLUMNS) :]) == [f"label:{name}" for name in HEADER.split(",")[5:]]
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
    image = root / "train/patient00002/study1/view1_frontal.jpg"
    image.unlink()
    with pytest.raises(DataError, match=rf"{image}: no such picture"):
        chexpert.read(root)
    (root / "valid.csv").unlink()
    with pytest.raises(DataError, match=r"valid.csv does not exist"):
        chexpert.read(root)
