"""The ChestX-ray14 reader on the real label files, on real pictures and on small trees in every layout."""

from __future__ import annotations

import gzip
import json
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from harness import settings
from harness.contracts import TABLE_COLUMNS
from harness.data import fractions, locate, splits
from harness.data.decode import decode
from harness.data.locate import PHANTOM_SEED
from harness.errors import BadTable, DataError, UnreadableImage
from harness.phantom import STAMP, Cohort, Dials
from harness.phantom.render import render
from tasks import chestxray14

FIRST, CORRECTED = "Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv"
BOXES = "BBox_List_2017.csv"

# --- the real files ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(realdata: Path) -> pd.DataFrame:
    return chestxray14.read(realdata / "chestxray14")


def test_reads_the_official_layout(real: pd.DataFrame, realdata: Path) -> None:
    assert tuple(real.columns[: len(TABLE_COLUMNS)]) == TABLE_COLUMNS
    assert len(real) == 150 and real.attrs["persons_known"]
    assert real["split"].value_counts().to_dict() == {"train_val": 112, "test": 38}
    row = real.set_index("image_id").loc["00000150_002.png"]
    assert (row["person_id"], row["view"], row["sex"], row["age"]) == ("00000150", "AP", "F", 55)
    found = {name for name in chestxray14.LABELS if row[f"label:{name}"]}
    assert found == {"Atelectasis", "Infiltration", "Pneumonia"}
    assert row["path"] == str(realdata / "chestxray14/images_001/images/00000150_002.png")
    assert decode(Path(row["path"])).pixels.shape == (512, 512)


def test_the_official_parts_share_no_person(real: pd.DataFrame) -> None:
    parts = splits.make(real, chestxray14.CARD.tasks[0].splits["clean"])
    assert len(parts.test) == 38 and len(parts.train) + len(parts.validation) == 112


def test_is_found_under_the_data_root(realdata: Path) -> None:
    found = locate.real("chestxray14", chestxray14.CARD, settings.load(data_root=realdata))
    assert found == locate.Located(realdata / "chestxray14", "real")


@pytest.mark.slow
def test_official_counts(realdata: Path) -> None:
    images = chestxray14.read_labels(realdata / "labels" / f"{CORRECTED}.gz")
    assert len(images) == chestxray14.CARD.variants[0].images == 112_120
    assert images["person_id"].nunique() == 30_805
    assert images["view"].value_counts().to_dict() == {"PA": 67_310, "AP": 44_810}
    assert images["age"].max() == 95 and images["age"].notna().all()
    labels = images.filter(like="label:")
    assert (labels.sum(axis=1) == 0).sum() == 60_361  # No Finding
    counted = labels.sum().rename(lambda name: name.removeprefix("label:")).to_dict()
    assert (
        counted
        == chestxray14.CARD.variants[0].positives[""]
        == {
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
    )
    boxes = chestxray14.read_boxes(realdata / "labels" / f"{BOXES}.gz", images.index.tolist())
    assert len(boxes) == 880 and boxes["boxes"].map(len).sum() == 984
    names = boxes["box_labels"].explode()
    assert names.nunique() == 8 and (names == "Infiltration").sum() == 123
    assert all(images.at[image, f"label:{name}"] == 1 for image, name in names.items())
    x0, y0, x1, y1 = np.array(boxes["boxes"].explode().tolist()).T
    assert min(x0.min(), y0.min()) > 0 and max(x1.max(), y1.max()) < 1024 and ((x1 > x0) & (y1 > y0)).all()


# --- small trees -------------------------------------------------------------------------------------

HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
ROWS = """00000001_000.png,Cardiomegaly|Emphysema,0,1,58,M,PA,2682,2749,0.143,0.143
00000001_001.png,No Finding,1,1,412,M,AP,2894,2729,0.143,0.143
00000002_000.png,Pleural_Thickening,0,2,0,F,PA,2500,2048,0.168,0.168
"""
BOX_ROWS = """Image Index,Finding Label,Bbox [x,y,w,h],,,
00000002_000.png,Infiltrate,5.5,10.25,4.0,8
00000002_000.png,Mass,1,2,3,4,,,
"""


def write(root: Path, name: str = CORRECTED, folder: str = "images_00{}/images") -> Path:
    """Three images of two persons; the second is the test part, and has boxes. Pictures of 32 x 24 pixels."""
    root.mkdir()
    (root / name).write_text("".join(f"{line}\n" for line in [HEADER, *ROWS.splitlines()]))
    (root / BOXES).write_text(BOX_ROWS)
    images = [line.split(",")[0] for line in ROWS.splitlines()]
    (root / "train_val_list.txt").write_text("\n".join(images[:2]) + "\n")
    (root / "test_list.txt").write_text(images[2])  # the official file ends without a line break
    for number, image in enumerate(images, start=1):
        path = root / folder.format(number) / image
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((24, 32), np.uint8)).save(path)
    return root


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_reads_rows_lists_and_boxes(tmp_path: Path) -> None:
    table = chestxray14.read(write(tmp_path / "nih"))
    assert list(table["person_id"]) == ["00000001", "00000001", "00000002"]
    assert list(table["split"]) == ["train_val", "train_val", "test"]
    assert table["age"].tolist()[::2] == [58, 0] and math.isnan(table["age"][1])
    hot = table.filter(like="label:")
    assert list(hot.columns) == [f"label:{name}" for name in chestxray14.LABELS]
    assert hot.sum(axis=1).tolist() == [2, 0, 1] and hot["label:Pleural_Thickening"].tolist() == [0, 0, 1]
    assert table["boxes"].tolist() == [[], [], [(5.5, 10.25, 9.5, 18.25), (1, 2, 4, 6)]]
    assert table["box_labels"].tolist() == [[], [], ["Infiltration", "Mass"]]


def first_release(root: Path) -> None:
    """Every line of it ends in a comma."""
    (root / FIRST).write_text((root / CORRECTED).read_text().replace("\n", ",\n"))
    (root / CORRECTED).unlink()


def beside_the_first(root: Path) -> None:
    (root / FIRST).write_text((root / CORRECTED).read_text().replace(",58,", ",66,"))


def later_copy(root: Path) -> None:
    edit(root / CORRECTED, "Patient Gender", "Patient Sex")


def with_carriage_returns(root: Path) -> None:
    for path in root.glob("*.*"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


def packed(root: Path) -> None:
    (root / f"{CORRECTED}.gz").write_bytes(gzip.compress((root / CORRECTED).read_bytes()))
    (root / CORRECTED).unlink()


@pytest.mark.parametrize(
    "change", [first_release, beside_the_first, later_copy, with_carriage_returns, packed]
)
def test_every_release_of_the_label_file_gives_the_same_table(tmp_path: Path, change) -> None:
    root = write(tmp_path / "nih")
    expected = chestxray14.read(root)
    change(root)
    pd.testing.assert_frame_equal(chestxray14.read(root), expected)
    assert locate.real("nih", chestxray14.CARD, settings.load(data_root=root)).root == root


def test_pictures_may_lie_in_one_folder(tmp_path: Path) -> None:
    nested, flat = write(tmp_path / "nested"), write(tmp_path / "flat", folder="images")
    in_place = write(tmp_path / "in place", folder="images/images")  # archives unpacked where they lie
    tables = [chestxray14.read(root) for root in (nested, flat, in_place)]
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table.drop(columns="path"), tables[0].drop(columns="path"))
    assert tables[0]["path"][1] == str(nested / "images_002/images/00000001_001.png")
    assert tables[1]["path"][1] == str(flat / "images/00000001_001.png")


def test_boxes_are_optional(tmp_path: Path) -> None:
    root = write(tmp_path / "nih")
    (root / BOXES).unlink()
    assert "boxes" not in chestxray14.read(root)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        (CORRECTED, "Follow-up #,", "", "line 1.*missing 'Follow-up #'"),
        (CORRECTED, "Emphysema", "Emphisema", "line 2.*'Cardiomegaly.Emphisema' is neither 'No Finding' nor"),
        (CORRECTED, "No Finding", "No Finding|Mass", "line 3.*'No Finding.Mass' is neither"),
        (CORRECTED, "Pleural_Thickening", "", "line 4, column 'Finding Labels': '' is neither"),
        (CORRECTED, ",1,412,", ",7,412,", "line 3, column 'Image Index'.*its Patient ID"),
        (CORRECTED, "00000001_001", "00000001_000", "line 3, column 'Image Index'.*occurs twice"),
        (CORRECTED, "412", "old", "line 3, column 'Patient Age': 'old' is not a number"),
        (CORRECTED, "M,PA", "X,PA", "line 2, column 'Patient Gender': 'X'"),
        (CORRECTED, "M,PA", "M,LL", "line 2, column 'View Position': 'LL'"),
        (CORRECTED, "2749,0.143,0.143", "2749,0.143,0.143,1", "line 2: 12 cells where the header has 11"),
        (CORRECTED, "2749,0.143,0.143", "2749,0.143", "line 2: 10 cells where the header has 11"),
        (BOXES, "Bbox [x,y,w,h],,,", "Bbox [x,y,h,w],,,", r"line 1.*missing 'w', 'h\]'"),
        (BOXES, "Infiltrate", "Opacity", "line 2, column 'Finding Label': 'Opacity'"),
        (BOXES, "5.5", "five", "line 2, column 'Bbox .x': 'five' is not a number"),
        (BOXES, ",4.0,", ",,", "line 2.*has no box of positive size"),
        (BOXES, "5.5,", ",", "line 2.*has no box of positive size"),
        (BOXES, ",4.0,", ",40.0,", "00000002_000.png ends at 45.5, 18.25, outside its picture of 32 x 24"),
        (BOXES, "00000002", "00000009", "line 2.*no row in the label file"),
        ("test_list.txt", "00000002_000", "00000001_001", "2 images, 00000001_001.png among them"),
        ("test_list.txt", "00000002_000", "00000009_000", "2 images, 00000002_000.png among them"),
        ("train_val_list.txt", "00000001_000.png\n", "", "1 images, 00000001_000.png among them"),
        ("train_val_list.txt", "00000001_000", "00000001_001", "list.txt, line 2: .* occurs twice"),
    ],
)
def test_bad_tables_are_named_with_their_line(
    tmp_path: Path, name: str, old: str, new: str, message: str
) -> None:
    root = write(tmp_path / "nih")
    edit(root / name, old, new)
    with pytest.raises(BadTable, match=message) as caught:
        chestxray14.read(root)
    assert str(root) in str(caught.value)


def test_missing_files_are_named(tmp_path: Path) -> None:
    root = write(tmp_path / "nih")
    picture = root / "images_002/images/00000001_001.png"
    picture.rename(picture.with_name("00000003_000.png"))
    with pytest.raises(DataError, match=r"00000001_001.png: no such picture in .*images"):
        chestxray14.read(root)
    Image.new("L", (32, 24)).save(picture)
    picture.with_name("._00000001_001.png").touch()
    (note,) = chestxray14.read(root).attrs["notes"]
    assert note == f"images holds pictures without a row in {CORRECTED}, left out for want of a label: 1"
    (root / "test_list.txt").unlink()
    with pytest.raises(DataError, match=r"test_list.txt does not exist"):
        chestxray14.read(root)
    (root / CORRECTED).unlink()
    with pytest.raises(DataError, match=rf"no {CORRECTED} or {FIRST}"):
        chestxray14.read(root)


def test_a_picture_with_boxes_must_be_one(tmp_path: Path) -> None:
    root = write(tmp_path / "nih")
    picture = root / "images_003/images/00000002_000.png"
    picture.write_bytes(b"<html>404</html>")
    with pytest.raises(UnreadableImage, match=re.escape(str(picture))):
        chestxray14.read(root)


# --- the phantom -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cohort, Path]:
    cohort = Cohort("chestxray14", 60, seed=0, size=(72, 72))
    root = tmp_path_factory.mktemp("chestxray14")
    chestxray14.write_phantom(root, cohort, workers=1)
    return cohort, root


@pytest.mark.slow
def test_the_phantom_reads_back_to_the_pixel(phantom: tuple[Cohort, Path]) -> None:
    cohort, root = phantom
    table = chestxray14.read(root).set_index("image_id")
    stamped = json.loads((root / STAMP).read_text())["images"]
    assert set(stamped) == set(table.index)
    outlined = 0
    for person in cohort.people():
        for study in person.studies:
            row = table.loc[f"{90_000 + person.number:08d}_{study.number - 1:03d}.png"]
            assert row["person_id"] == f"{90_000 + person.number:08d}"
            assert (row["view"], row["sex"], row["age"]) == (study.pictures[0].view, person.sex, person.age)
            assert row["split"] == ("test" if person.number % 5 == 0 else "train_val")
            for name in ("Atelectasis", "Cardiomegaly", "Pneumothorax"):
                assert row[f"label:{name}"] == study.has(name)
            for finding, degrees in (
                ("Pleural Effusion", {"Effusion", "Pleural_Thickening"}),
                ("Consolidation", {"Consolidation", "Infiltration"}),
                ("Lung Lesion", {"Mass", "Nodule"}),
                ("Edema", {"Edema", "Fibrosis"}),
            ):
                assert sum(row[f"label:{name}"] for name in degrees) == study.has(finding)
            drawn = render(person, study, study.pictures[0], height=72, width=72, dials=cohort.dials)
            assert np.array_equal(decode(Path(row["path"])).pixels, drawn.pixels)
            lesions = {lesion.box for lesion in drawn.lesions}
            assert set(row["boxes"]) <= lesions and (not row["boxes"] or row["split"] == "test")
            assert all(row[f"label:{name}"] == 1 for name in row["box_labels"])
            outlined += len(row["boxes"])
    assert outlined > 5


def test_the_phantom_has_the_official_files_and_their_oddities(phantom: tuple[Cohort, Path]) -> None:
    root = phantom[1]
    assert {path.name for path in root.iterdir()} == {
        *(FIRST, CORRECTED, BOXES, STAMP, "train_val_list.txt", "test_list.txt"),
        *(f"images_{number:03d}" for number in range(1, 13)),
    }
    first, corrected = (root / FIRST).read_text().splitlines(), (root / CORRECTED).read_text().splitlines()
    assert corrected[0] == HEADER and first[0] == f"{HEADER},"
    row = re.compile(
        r"0009\d{4}_\d{3}\.png,(No Finding|[A-Z][A-Za-z_|]+),\d,9\d{4},\d+,[FM],(PA|AP)(,[\d.]+){4},?"
    )
    assert all(row.fullmatch(line) for line in first[1:] + corrected[1:])
    boxes = (root / BOXES).read_text().splitlines()
    assert boxes[0] == "Image Index,Finding Label,Bbox [x,y,w,h],,,"
    assert any(",Infiltrate," in line for line in boxes) and not any("Infiltration" in line for line in boxes)
    modes = [colours(path) for path in root.glob("images_*/images/*.png")]
    assert modes.count("RGBA") == 1 and modes.count("L") == len(modes) - 1


def colours(path: Path) -> str:
    with Image.open(path) as image:
        return image.mode


def test_both_label_files_of_the_phantom_differ_in_an_impossible_age_only(
    phantom: tuple[Cohort, Path],
) -> None:
    first, corrected = (chestxray14.read_labels(phantom[1] / name) for name in (FIRST, CORRECTED))
    assert first["age"].isna().sum() == 1 and corrected["age"].notna().all()
    pd.testing.assert_frame_equal(first.assign(age=corrected["age"]), corrected)


@pytest.mark.slow
def test_label_noise_turns_its_share_of_the_training_labels(tmp_path: Path) -> None:
    cohort = Cohort("chestxray14", 100, seed=0, size=(16, 16), dials=Dials(label_noise=0.2))
    chestxray14.write_phantom(tmp_path, cohort, workers=1)
    table = chestxray14.read(tmp_path)
    studies = [study for person in cohort.people() for study in person.studies]  # in the order of the ids
    truth = [[name in chestxray14.true_labels(study) for name in chestxray14.LABELS] for study in studies]
    turned = table.filter(like="label:").to_numpy(int) != np.array(truth)
    train = (table["split"] == "train_val").to_numpy()
    assert not turned[~train].any()
    assert turned[train].mean() == pytest.approx(0.2, abs=4 * math.sqrt(0.16 / turned[train].size))


@pytest.mark.slow
def test_one_per_cent_of_the_demo_shows_both_classes_of_every_label() -> None:
    """Else `run --fraction 0.01` would have nothing to fit."""
    size = chestxray14.CARD.phantom["demo"]
    cohort = Cohort("chestxray14", size.persons, PHANTOM_SEED, (size.height, size.width))
    rows = [
        (f"{person.number:06d}", [name in chestxray14.true_labels(study) for name in chestxray14.LABELS])
        for person in cohort.people()
        for study in person.studies
        if person.number % 5
    ]
    persons, labels = np.array([person for person, _ in rows]), np.array([row for _, row in rows], dtype=int)
    train = np.isin(persons, np.unique(persons)[: round(0.9 * len(np.unique(persons)))])  # less validation
    for seed in range(3):
        drawn = labels[train][fractions.draw(persons[train], labels[train], 0.01, seed)]
        assert drawn.any(axis=0).all() and not drawn.all(axis=0).any()
