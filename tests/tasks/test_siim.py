"""The SIIM reader on the real label file, and on phantoms of all four variants, whole and spoilt."""

from __future__ import annotations

import csv
import gzip
import json
import logging
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image

from harness import settings
from harness.data import locate, splits, table
from harness.errors import BadTable, DataError
from harness.phantom import STAMP, Cohort
from harness.phantom.render import render
from tasks import siim

LAYOUTS = ("A", "B", "C", "D")
REAL_FILE = "1.2.276.0.7230010.3.1.4.8323329.6904.1517875201.850819"
SIZE = 96


# --- the real files ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_csv(realdata: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("real") / "train-rle.csv"
    path.write_bytes(
        gzip.decompress((realdata / "labels" / "siim-pneumothorax-train-rle.csv.gz").read_bytes())
    )
    return path


@pytest.mark.slow
def test_official_counts(real_csv: Path) -> None:
    images = siim.read_codes(real_csv)
    assert len(images) == siim.CARD.variants[0].images == 12_047
    assert images["label:Pneumothorax"].value_counts().to_dict() == {0: 9_378, 1: 2_669}
    assert siim.CARD.variants[0].positives == {"": {"Pneumothorax": 2_669}}
    assert siim.CARD.variants[0].totals == {"rows": int(images["rows"].map(len).sum())}
    assert ((images["mask"] != "") == (images["label:Pneumothorax"] == 1)).all()
    with real_csv.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))[1:]
    outlined = Counter(image for image, code in rows if code != "-1")
    assert (len(rows), outlined.total()) == (12_954, 3_576)
    several = Counter(min(count, 4) for count in outlined.values())
    assert several == {1: 2_045, 2: 447, 3: 112, 4: 65}


@pytest.mark.slow
def test_several_rows_are_one_mask(real_csv: Path) -> None:
    """The two images with most rows, painted row by row."""
    masks = siim.read_codes(real_csv)["mask"]
    with real_csv.open(encoding="utf-8", newline="") as file:
        rows = [(image, code) for image, code in csv.reader(file) if image in masks.index]
    for image, count in Counter(image for image, _ in rows).most_common(2):
        assert count >= 8
        painted = np.zeros(1024 * 1024, bool)
        for code in (code for name, code in rows if name == image):
            numbers, position = [int(word) for word in code.split()], 0
            for gap, length in zip(numbers[::2], numbers[1::2], strict=True):
                painted[position + gap : position + gap + length] = True
                position += gap + length
        np.testing.assert_array_equal(siim.read_mask(masks[image], 1024, 1024), painted.reshape(1024, 1024).T)


def test_a_real_picture(realdata: Path, real_csv: Path, tmp_path: Path) -> None:
    source = realdata / "dicom" / f"{REAL_FILE}.dcm"
    header = pydicom.dcmread(source, stop_before_pixels=True)
    folder = tmp_path / "dicom-images-train" / header.StudyInstanceUID / header.SeriesInstanceUID
    folder.mkdir(parents=True)
    shutil.copyfile(source, folder / source.name)
    lines = real_csv.read_text(encoding="utf-8").splitlines(keepends=True)
    rows = [line for line in lines if line.startswith(("ImageId", REAL_FILE))]
    (tmp_path / "train-rle.csv").write_text("".join(rows))
    (row,) = siim.read(tmp_path).to_dict("records")
    assert row["image_id"] == row["person_id"] == header.SOPInstanceUID == REAL_FILE
    assert row["path"] == str(folder / source.name)
    assert (row["view"], row["sex"], row["age"]) == ("PA", "M", 62)
    assert (row["label:Pneumothorax"], row["mask"]) == (0, "")
    assert not siim.read(tmp_path).attrs["persons_known"]  # nobody has two pictures here


# --- the four variants -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cohort() -> Cohort:
    return Cohort("siim", 60, seed=0, size=(SIZE, SIZE - 16))


@pytest.fixture(scope="module")
def phantoms(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    roots = {layout: tmp_path_factory.mktemp(layout) for layout in siim.SPACES} | {
        "D": tmp_path_factory.mktemp("D")
    }
    for layout, root in roots.items():
        siim.write_phantom(root, cohort, workers=1, layout=layout)  # type: ignore[arg-type]
    return roots


@pytest.fixture
def copy(phantoms: dict[str, Path], tmp_path: Path) -> Path:
    """Variant B in a folder that a test may spoil."""
    return Path(shutil.copytree(phantoms["B"], tmp_path / "siim"))


def masks(found: pd.DataFrame) -> np.ndarray:
    """[N, H, W]"""
    return np.stack([siim.read_mask(cell, SIZE, SIZE - 16) for cell in found["mask"]])


@pytest.mark.slow
def test_every_variant_gives_the_same_table(phantoms: dict[str, Path]) -> None:
    tables = {layout: siim.read(root) for layout, root in phantoms.items()}
    for layout in "AC":
        pd.testing.assert_frame_equal(tables[layout].drop(columns="path"), tables["B"].drop(columns="path"))
    known = ["image_id", "study_id", "split", "frontal", "label:Pneumothorax"]  # a PNG has no header
    pd.testing.assert_frame_equal(tables["D"][known], tables["B"][known])
    np.testing.assert_array_equal(masks(tables["D"]), masks(tables["B"]))
    assert [tables[layout].attrs["persons_known"] for layout in LAYOUTS] == [True, True, True, False]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_variant_is_found(layout: str, phantoms: dict[str, Path]) -> None:
    found = locate.real("siim", siim.CARD, settings.load(data_root=phantoms[layout]))
    assert found == locate.Located(phantoms[layout], "phantom")


def test_the_variants_differ_as_the_official_ones(phantoms: dict[str, Path]) -> None:
    lines = {
        layout: (phantoms[layout] / name).read_text().splitlines()
        for layout, name in {"A": "train-rle.csv", "B": "train-rle.csv", "C": "stage_2_train.csv"}.items()
    }
    assert [lines[layout][0] for layout in "ABC"] == [
        "ImageId, EncodedPixels",
        "ImageId, EncodedPixels",
        "ImageId,EncodedPixels",
    ]
    cells = {layout: {line.split(",")[1] for line in lines[layout][1:]} for layout in "ABC"}
    assert " -1" in cells["A"] and "-1" in cells["B"] and cells["B"] == cells["C"]
    assert cells["A"] == {f" {cell}" for cell in cells["B"]}
    assert {path.name for path in phantoms["C"].iterdir()} == {
        "PHANTOM.json",
        "dicom-images-test",
        "dicom-images-train",
        "stage_2_images",
        "stage_2_sample_submission.csv",
        "stage_2_train.csv",
    }
    for path in phantoms["B"].glob("dicom-images-*/*/*/*.dcm"):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        assert path.parts[-3:-1] == (header.StudyInstanceUID, header.SeriesInstanceUID)
        assert path.stem == header.SOPInstanceUID
        assert header.file_meta.TransferSyntaxUID.keyword == "JPEGBaseline8Bit"
    names = {path.name for path in phantoms["D"].glob("png_images/*.png")}
    assert names == {path.name for path in phantoms["D"].glob("png_masks/*.png")}
    assert all(Image.open(phantoms["D"] / "png_masks" / name).getbbox() for name in names if "_1_" in name)


# --- the phantom's truth -----------------------------------------------------------------------------


@pytest.mark.slow
def test_masks_are_what_was_drawn_to_the_pixel(cohort: Cohort, phantoms: dict[str, Path]) -> None:
    found = siim.read(phantoms["B"]).set_index("image_id")
    stamped = json.loads((phantoms["B"] / STAMP).read_text())["images"]
    ids = {(truth["person"], truth["study"]): image for image, truth in stamped.items()}
    corner = single = 0
    for person in cohort.people():
        for study in person.studies:
            if (person.number, study.number) == (siim.UNLABELLED, 1):
                assert ids[person.number, study.number] not in found.index
                continue
            study = siim.case(cohort, person, study)
            picture = study.pictures[0]
            drawn = render(person, study, picture, height=SIZE, width=SIZE - 16, dials=cohort.dials)
            row = found.loc[ids[person.number, study.number]]
            mask = siim.read_mask(row["mask"], SIZE, SIZE - 16)
            assert row["label:Pneumothorax"] == mask.any()
            slip = mask.copy()
            for lesion in drawn.lesions:
                if lesion.name == "Pneumothorax":
                    assert mask[lesion.mask].all()
                    assert not np.array_equal(lesion.mask, lesion.mask[:, ::-1])
                    slip &= ~lesion.mask
            corner += slip[-1, -1]
            single += slip.sum() == 1
            assert not slip.any() or (study.number == 1 and person.number in (1, 2))
            assert (row["view"], row["sex"], row["age"]) == (picture.view, person.sex, person.age)
            shown = pydicom.dcmread(row["path"]).pixel_array.astype(float)
            assert np.abs(shown - drawn.pixels).mean() < 4  # what a JPEG loses
    assert (corner, single) == (1, 1)


def test_the_phantom_has_the_challenges_proportions(phantoms: dict[str, Path]) -> None:
    found = siim.read(phantoms["B"])
    assert 0.15 < found["label:Pneumothorax"].mean() < 0.3
    rows = Counter(line.split(",")[0] for line in (phantoms["B"] / "train-rle.csv").read_text().splitlines())
    assert max(rows.values()) > 1 and len(rows) - 1 == len(found)
    assert 1 < found.groupby("person_id").size().max() <= 4
    parts = splits.make(found, siim.CARD.tasks[0].splits["clean"])
    people = [set(found["person_id"].iloc[part]) for part in parts]
    assert sum(map(len, people)) == len(set.union(*people))


# --- what is left out, and what is refused -----------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "sentence"),
    [
        ("B", "dicom-images-train holds pictures without a row in train-rle.csv"),
        ("C", "stage_2_images holds pictures without a row in stage_2_train.csv"),
    ],
)
def test_pictures_without_a_label_are_counted_aloud(
    layout: str, sentence: str, phantoms: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "harness")
    found = table.read(siim, phantoms[layout])
    assert caplog.messages == [f"{phantoms[layout]}: {sentence}, left out for want of a label: 1"]
    assert len(found) == len(json.loads((phantoms[layout] / STAMP).read_text())["images"]) - 1


def test_png_pictures_without_a_label_are_counted_too(phantoms: dict[str, Path], tmp_path: Path) -> None:
    root = Path(shutil.copytree(phantoms["D"], tmp_path / "siim"))
    (root / "png_images" / "999_train_0_.png").touch()
    (note,) = siim.read(root).attrs["notes"]
    assert note.startswith("png_images holds pictures without a row in stage_1_train_images.csv")
    assert note.endswith(": 1")


@pytest.mark.parametrize("copies", [0, 1])
def test_persons_have_several_pictures_or_nobody_is_known(copy: Path, copies: int) -> None:
    """One id that is there twice, as of a copied file, makes no patients of the others."""
    found = siim.read(copy)
    assert found["person_id"].str.fullmatch(r"[0-9a-f]{8}-0000-4000-8000-[0-9a-f]{12}").all()
    for number, path in enumerate(found["path"]):
        header = pydicom.dcmread(path)
        header.PatientID = "" if number < 2 else str(max(number, 2 + copies))
        header.save_as(path)
    again = siim.read(copy)
    assert not again.attrs["persons_known"]
    assert again["person_id"].nunique() == len(again) - copies
    if not copies:
        assert (again["person_id"] == again["image_id"]).all()


def spoil(root: Path, old: str, new: str, name: str = "train-rle.csv") -> None:
    path = root / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (" EncodedPixels", "Encoded", "line 1.*missing 'EncodedPixels'; unexpected 'Encoded'"),
        (",-1\n", ",-2\n", r"line \d+, column 'EncodedPixels': it is not pairs of a gap and a length"),
        (",-1\n", ",none\n", r"line \d+, column 'EncodedPixels': .*'none'"),
        (",-1\n", ",1 2 3\n", r"line \d+, column 'EncodedPixels': it is not pairs"),
        (",-1\n", ",\n", r"line \d+, column 'EncodedPixels': '' is neither an outline nor -1"),
        (
            ",-1\n",
            f",{SIZE * (SIZE - 16) - 1} 2\n",
            r"an outline of 2\.25\.\d+ ends outside its picture of 80 x 96",
        ),
    ],
)
def test_bad_codes_are_named_with_their_line(copy: Path, old: str, new: str, message: str) -> None:
    spoil(copy, old, new)
    with pytest.raises(BadTable, match=message) as caught:
        siim.read(copy)
    assert str(copy / "train-rle.csv") in str(caught.value)


def test_an_image_is_ill_or_well(copy: Path) -> None:
    lines = (copy / "train-rle.csv").read_text().splitlines(keepends=True)
    well = next(line for line in lines if line.endswith(",-1\n"))
    for extra, message in (
        (well, "has the same row twice"),
        (well.replace("-1", "5 1"), "an outline and a row"),
    ):
        (copy / "train-rle.csv").write_text("".join([*lines, extra]))
        with pytest.raises(BadTable, match=message):
            siim.read(copy)


def test_missing_pictures_are_named(copy: Path) -> None:
    path = Path(siim.read(copy)["path"].iloc[0])
    path.unlink()
    with pytest.raises(DataError, match=rf"{path.name}: no such picture under dicom-images-train/"):
        siim.read(copy)


def test_spoilt_pngs_are_named(phantoms: dict[str, Path], tmp_path: Path) -> None:
    root = Path(shutil.copytree(phantoms["D"], tmp_path / "siim"))
    mask = next(cell for cell in siim.read(root)["mask"] if cell)
    with pytest.raises(DataError, match=r"has \(96, 80\) pixels, its picture \(80, 96\)"):
        siim.read_mask(mask, SIZE - 16, SIZE)
    Image.fromarray(np.eye(SIZE - 16, SIZE, dtype=np.uint8)).save(mask)
    with pytest.raises(DataError, match="is a mask of nothing: no pixel is above 127"):
        siim.read_mask(mask, SIZE - 16, SIZE)
    spoil(root, "_0_.png", "_1_.png", "stage_1_train_images.csv")
    with pytest.raises(BadTable, match=r"stage_1_train_images.csv, line 2.*contradicts its has_pneumo"):
        siim.read(root)
    spoil(root, "_1_.png", "_0_.png", "stage_1_train_images.csv")
    Path(mask).unlink()
    with pytest.raises(DataError, match=rf"{Path(mask).name}: no such mask"):
        siim.read(root)
