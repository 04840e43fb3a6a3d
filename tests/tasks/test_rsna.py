"""The RSNA reader on the real files, whole and spoilt."""

from __future__ import annotations

import json
import math
import re
import shutil
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom.config import IGNORE
from pydicom.dataelem import DataElement
from pydicom.pixels import apply_modality_lut

from harness import settings
from harness.contracts import TABLE_COLUMNS
from harness.data import locate
from harness.errors import BadTable, DataError, UnreadableImage
from harness.phantom import STAMP, Cohort
from harness.phantom.render import render
from tasks import rsna

LABELS, CLASSES = "stage_2_train_labels.csv", "stage_2_detailed_class_info.csv"
TWO_BOXES = "06893030-14ab-456d-a22d-05070773e370"


# --- the real files ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(realdata: Path) -> pd.DataFrame:
    return rsna.read(realdata / "rsna")


def test_reads_the_challenges_own_files(real: pd.DataFrame, realdata: Path) -> None:
    assert tuple(real.columns[: len(TABLE_COLUMNS)]) == TABLE_COLUMNS
    assert len(real) == 169
    assert real["image_id"].is_monotonic_increasing and real["image_id"].is_unique
    assert real["frontal"].all() and set(real["view"]) == {"PA", "AP"} and set(real["sex"]) == {"F", "M"}
    row = real.set_index("image_id").loc[TWO_BOXES]
    assert row["boxes"] == [(634, 314, 854, 623), (266, 310, 487, 600)]
    assert (row["view"], row["sex"], row["age"], row["label:Pneumonia"]) == ("AP", "F", 59, 1)
    assert row["path"] == str(realdata / "rsna" / "stage_2_train_images" / f"{TWO_BOXES}.dcm")
    assert ((real["label:Pneumonia"] == 1) == (real["boxes"].map(len) > 0)).all()
    assert not ((real["label:Pneumonia"] == 1) & (real["label:Normal"] == 1)).any()


@pytest.mark.slow
def test_the_mask_is_the_union_of_the_filled_boxes(real: pd.DataFrame) -> None:
    for boxes, cell in zip(real["boxes"], real["mask"], strict=True):
        assert bool(boxes) == bool(cell)
        if boxes:
            y, x = np.mgrid[:1024, :1024] + 0.5  # a pixel's centre
            expected = np.any([(x0 < x) & (x < x1) & (y0 < y) & (y < y1) for x0, y0, x1, y1 in boxes], axis=0)
            np.testing.assert_array_equal(rsna.read_mask(cell, 1024, 1024), expected)


def test_knows_the_nih_patients_of_the_map(real: pd.DataFrame) -> None:
    assert real.attrs["persons_known"]
    assert real["person_id"].str.fullmatch(r"\d{8}").all()
    assert real["person_id"].nunique() == 153  # of 169 images


def test_is_found_under_the_data_root(realdata: Path) -> None:
    found = locate.real("rsna", rsna.CARD, settings.load(data_root=realdata))
    assert found == locate.Located(realdata / "rsna", "real")


def test_official_counts(realdata: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(realdata / "labels" / f"kaggle_{LABELS}.zip") as archive:
        archive.extractall(tmp_path)
    images = rsna.read_labels(tmp_path / LABELS)
    assert len(images) == rsna.CARD.variants[0].images == 26_684
    assert images["label:Pneumonia"].sum() == rsna.CARD.variants[0].positives[""]["Pneumonia"] == 6_012
    assert rsna.CARD.variants[0].totals == {"boxes": int(images["boxes"].map(len).sum())}
    assert images["boxes"].map(len).value_counts().to_dict() == {0: 20_672, 1: 2_614, 2: 3_266, 3: 119, 4: 13}
    persons = rsna.read_persons(realdata / "rsna_person_map.csv.gz", images.index)
    assert persons.nunique() == 11_439


# --- spoilt copies -----------------------------------------------------------------------------------


@pytest.fixture
def copy(realdata: Path, tmp_path: Path) -> Path:
    """Three real images and their rows in a folder that a test may spoil; no person map beside it."""
    root = tmp_path / "parent" / "rsna"
    kept = set()
    for name in (LABELS, CLASSES):
        lines = (realdata / "rsna" / name).read_text().splitlines()
        kept = kept or set(dict.fromkeys(line.split(",")[0] for line in lines[1:5]))
        root.mkdir(parents=True, exist_ok=True)
        kept_lines = [lines[0], *(line for line in lines[1:] if line.split(",")[0] in kept)]
        (root / name).write_text("\n".join(kept_lines) + "\n")
    folder = root / "stage_2_train_images"
    folder.mkdir()
    for image in kept:
        shutil.copyfile(realdata / "rsna" / folder.name / f"{image}.dcm", folder / f"{image}.dcm")
    return root


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_says_when_it_does_not_know_the_persons(copy: Path) -> None:
    table = rsna.read(copy)
    assert not table.attrs["persons_known"]
    assert (table["person_id"] == table["image_id"]).all()


def test_reads_without_class_info_and_with_stage_1_names(copy: Path) -> None:
    expected = rsna.read(copy).drop(columns=["path", "label:Normal"])
    (copy / CLASSES).unlink()
    for path in copy.iterdir():
        path.rename(path.with_name(path.name.replace("stage_2", "stage_1")))
    pd.testing.assert_frame_equal(rsna.read(copy).drop(columns="path"), expected)
    assert locate.real("rsna", rsna.CARD, settings.load(data_root=copy.parent)).root == copy


def test_impossible_ages_and_blank_header_fields_are_unknown(copy: Path) -> None:
    path = copy / "stage_2_train_images" / f"{TWO_BOXES}.dcm"
    header = pydicom.dcmread(path)
    header["PatientAge"] = DataElement("PatientAge", "AS", "148", validation_mode=IGNORE)
    header.PatientSex = header.ViewPosition = ""
    header.save_as(path)
    row = rsna.read(copy).set_index("image_id").loc[TWO_BOXES]
    assert math.isnan(row["age"]) and row["sex"] == "" and row["view"] == ""


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        (LABELS, "patientId,x,y", "patientID,x,y", "line 1.*missing 'patientId'; unexpected 'patientID'"),
        (LABELS, "x,y,width", "y,x,width", "line 1.*other order"),
        (LABELS, ",1\n", ",yes\n", "line 2, column 'Target': 'yes' is not one of '0', '1'"),
        (LABELS, "634.0", "6x4", "line 2, column 'x': '6x4' is not a number"),
        (LABELS, "220.0", "0.0", "line 2.*Target 1 without a box of positive size"),
        (LABELS, "634.0,314.0,220.0,309.0", ",,,", "line 2.*Target 1 without a box"),
        (LABELS, ",,,,0", "5.0,,,,0", "Target 0 and a box"),
        (LABELS, "634.0,314.0,220.0,309.0,1", ",,,,0", "line 2.*both Target 0 and Target 1"),
        (LABELS, "634.0,314.0,220.0,309.0", "266.0,310.0,221.0,290.0", "line 3.*the same row twice"),
        (LABELS, "634.0", "834.0", f"a box of {TWO_BOXES} ends at 1054, 623"),
        (LABELS, "309.0,1", "309.0,1,1", "line 2: 7 cells where the header has 6"),
        (CLASSES, "Lung Opacity", "Opacity", "line 2, column 'class': 'Opacity' is not one of"),
        (CLASSES, "Lung Opacity", "Normal", "line 2.*contradicts its Target"),
        (CLASSES, TWO_BOXES, "nobody", "line 2.*'nobody' is not in the label file"),
    ],
)
def test_bad_tables_are_named_with_their_line(
    copy: Path, name: str, old: str, new: str, message: str
) -> None:
    edit(copy / name, old, new)
    with pytest.raises(BadTable, match=message) as caught:
        rsna.read(copy)
    assert name in str(caught.value)


def test_every_image_needs_its_class(copy: Path) -> None:
    lines = (copy / CLASSES).read_text().splitlines(keepends=True)
    (copy / CLASSES).write_text("".join(line for line in lines if TWO_BOXES not in line))
    with pytest.raises(BadTable, match=f"{CLASSES} has no row for 1 images, {TWO_BOXES} among them"):
        rsna.read(copy)


def test_images_and_rows_must_agree(copy: Path) -> None:
    path = copy / "stage_2_train_images" / f"{TWO_BOXES}.dcm"
    path.rename(path.with_name("other.dcm"))
    with pytest.raises(DataError, match=f"{TWO_BOXES}.dcm: no such picture"):
        rsna.read(copy)
    shutil.copyfile(path.with_name("other.dcm"), path)
    path.with_name("._other.dcm").touch()
    (note,) = rsna.read(copy).attrs["notes"]
    assert note == (
        f"stage_2_train_images holds pictures without a row in {LABELS}, left out for want of a label: 1"
    )


def test_a_file_that_is_no_dicom_is_named(copy: Path) -> None:
    path = copy / "stage_2_train_images" / f"{TWO_BOXES}.dcm"
    path.write_bytes(b"<html>404</html>")
    with pytest.raises(UnreadableImage, match=re.escape(str(path))):
        rsna.read(copy)


@pytest.fixture
def person_map(copy: Path) -> Path:
    path = copy.parent / "rsna_person_map.csv"
    images = sorted(path.stem for path in (copy / "stage_2_train_images").iterdir())
    path.write_text("patientId,nih_image\n" + "".join(f"{name},00000007_001.png\n" for name in images))
    return path


def test_the_person_map_may_lie_beside_the_data(copy: Path, person_map: Path) -> None:
    assert set(rsna.read(copy)["person_id"]) == {"00000007"}


def test_a_person_map_with_gaps_is_refused(copy: Path, person_map: Path) -> None:
    edit(person_map, TWO_BOXES, "nobody")
    with pytest.raises(BadTable, match=f"no person for 1 images, {TWO_BOXES} among them"):
        rsna.read(copy)


@pytest.mark.parametrize("cell", ["", "7", "00000007", "00000007_001", "7_001.png"])
def test_a_person_map_names_persons_by_their_pictures(copy: Path, person_map: Path, cell: str) -> None:
    edit(person_map, "00000007_001.png", cell)
    message = rf"{person_map}, line 2, column 'nih_image': '{cell}' is no picture of ChestX-ray14"
    with pytest.raises(BadTable, match=message):
        rsna.read(copy)


# --- the phantom -------------------------------------------------------------------------------------


UNREPORTED = {"Support Devices", "Foreign Object"}


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cohort, Path]:
    cohort = Cohort("rsna", 60, seed=0, size=(96, 96))
    root = tmp_path_factory.mktemp("rsna")
    rsna.write_phantom(root, cohort, workers=1)
    return cohort, root


@pytest.mark.slow
def test_the_phantom_reads_back_to_the_pixel(phantom: tuple[Cohort, Path]) -> None:
    cohort, root = phantom
    table = rsna.read(root).set_index("image_id")
    stamp = json.loads((root / STAMP).read_text())["images"]
    found = {(truth["person"], truth["study"]): image for image, truth in stamp.items()}
    for person in cohort.people():
        for study in person.studies:
            image_id = found.pop((person.number, study.number))
            if (person.number, study.number) == (4, 1):
                continue  # of the challenge's test part
            row = table.loc[image_id]
            picture = study.pictures[0]
            drawn = render(person, study, picture, height=96, width=96, dials=cohort.dials)
            assert row["boxes"] == [lesion.box for lesion in drawn.lesions if lesion.name == "Consolidation"]
            assert row["label:Pneumonia"] == bool(row["boxes"])
            assert row["label:Normal"] == (not {item.name for item in study.findings} - UNREPORTED)
            assert row["person_id"] == f"{90_000 + person.number:08d}"
            assert (row["view"], row["sex"]) == (picture.view, person.sex)
            assert row["age"] == person.age or (person.number == 3 and math.isnan(row["age"]))
            shown = grey(pydicom.dcmread(row["path"]))
            assert np.abs(shown - drawn.pixels).mean() < 4  # what a JPEG loses
    assert not found
    counts = set(table["boxes"].map(len))
    assert counts >= {0, 1, 2, 3}


def grey(file: pydicom.Dataset) -> np.ndarray:
    values = apply_modality_lut(file.pixel_array, file).astype(float)
    return 255 - values if file.PhotometricInterpretation == "MONOCHROME1" else values


def test_the_phantom_has_the_challenges_files_and_every_encoding(phantom: tuple[Cohort, Path]) -> None:
    root = phantom[1]
    assert {path.name for path in root.iterdir()} == {
        "PHANTOM.json",
        "rsna_person_map.csv",
        "stage_2_detailed_class_info.csv",
        "stage_2_sample_submission.csv",
        "stage_2_test_images",
        "stage_2_train_images",
        "stage_2_train_labels.csv",
    }
    labels = (root / LABELS).read_text().splitlines()
    assert labels[0] == "patientId,x,y,width,height,Target"
    row = re.compile(r"[0-9a-f]{8}-0000-4000-8000-[0-9a-f]{12},(,,,,0|(\d+\.0,){4}1)")
    assert all(row.fullmatch(line) for line in labels[1:])
    classes = (root / CLASSES).read_text().splitlines()
    assert len(classes) == len(labels) and {line.split(",")[1] for line in classes[1:]} == set(rsna.CLASSES)
    files = [
        pydicom.dcmread(path, stop_before_pixels=True) for path in root.glob("stage_2_train_images/*.dcm")
    ]
    assert all(file.PatientID == Path(str(file.filename)).stem for file in files)
    assert len(files) == len(rsna.read(root)) < sum(len(person.studies) for person in phantom[0].people())
    kinds = Counter(
        (file.file_meta.TransferSyntaxUID.keyword, file.PhotometricInterpretation, file.BitsStored)
        for file in files
    )
    assert kinds[("ExplicitVRLittleEndian", "MONOCHROME1", 8)] == 1
    assert kinds[("ExplicitVRLittleEndian", "MONOCHROME2", 12)] == 1
    assert kinds[("ExplicitVRLittleEndian", "MONOCHROME2", 8)] == 3
    assert kinds[("JPEGBaseline8Bit", "MONOCHROME2", 8)] == len(files) - 5


def test_the_phantoms_persons_have_several_images(phantom: tuple[Cohort, Path]) -> None:
    table = rsna.read(phantom[1])
    assert table.attrs["persons_known"]
    assert table["person_id"].nunique() < len(table)
