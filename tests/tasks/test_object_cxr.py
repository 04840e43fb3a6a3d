"""The Object-CXR reader on small trees written by hand, and on its phantom."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw

from harness import settings
from harness.data import locate, splits, table
from harness.errors import BadTable, DataError, UnreadableImage
from harness.phantom import STAMP, Cohort
from harness.phantom.render import render
from tasks import object_cxr

TRAIN = """\
image_name,annotation
00017.jpg,0 10 20 30 40;1 65 12 70 126;2 40 30 42 29 45 31 43 35
00018.jpg,
00019.jpg,1 190 90 150 60
"""
DEV = "image_path,annotation\n/data/dev/08001.jpg,0 0 0 200 150\ndev/08002.jpg,\n"
TEST = "image_path,annotation\ntest/09001.jpg,0 180 140 260 170\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Pictures of 200 x 150 pixels."""
    root = tmp_path / "object-CXR"
    for part, text in {"train": TRAIN, "dev": DEV, "test": TEST}.items():
        (root / part).mkdir(parents=True)
        (root / f"{part}.csv").write_text(text)
        for name in re.findall(r"\d{5}\.jpg", text):
            Image.new("L", (200, 150)).save(root / part / name)
    return root


def test_reads_every_shape_and_both_headers(root: Path) -> None:
    found = object_cxr.read(root)
    assert list(found["image_id"]) == [
        "dev/08001.jpg",
        "dev/08002.jpg",
        "test/09001.jpg",
        "train/00017.jpg",
        "train/00018.jpg",
        "train/00019.jpg",
    ]
    assert list(found["split"]) == ["dev", "dev", "test", "train", "train", "train"]
    assert list(found["path"]) == [str(root / image) for image in found["image_id"]]
    assert list(found["label:Foreign Object"]) == [1, 0, 1, 1, 0, 1]
    rows = found.set_index("image_id")
    assert rows.loc["train/00017.jpg", "boxes"] == [(10, 20, 30, 40), (65, 12, 70, 126), (40, 29, 45, 35)]
    assert rows.loc["train/00017.jpg", "shapes"] == [
        "0 10 20 30 40",
        "1 65 12 70 126",
        "2 40 30 42 29 45 31 43 35",
    ]
    assert rows.loc["train/00018.jpg", "boxes"] == rows.loc["train/00018.jpg", "shapes"] == []


def test_corners_are_put_in_order_and_boxes_cut_off_at_the_edges(root: Path) -> None:
    boxes = object_cxr.read(root).set_index("image_id")["boxes"]
    assert boxes["train/00019.jpg"] == [(150, 60, 190, 90)]
    assert boxes["test/09001.jpg"] == [(180, 140, 200, 150)]
    assert boxes["dev/08001.jpg"] == [(0, 0, 200, 150)]


def test_no_number_of_objects_is_too_many(root: Path) -> None:
    many = ";".join(f"0 {x} {y} {x + 5} {y + 5}" for x in range(0, 190, 10) for y in (10, 100))
    (root / "train.csv").write_text(TRAIN.replace("00018.jpg,", f"00018.jpg,{many}"))
    row = object_cxr.read(root).set_index("image_id").loc["train/00018.jpg"]
    assert len(row["boxes"]) == len(row["shapes"]) == 38
    assert row["boxes"][-1] == (180, 100, 185, 105)


def test_nobody_is_known(root: Path) -> None:
    found = object_cxr.read(root)
    assert not found.attrs["persons_known"]
    assert (found["person_id"] == found["image_id"]).all()
    assert found["frontal"].all() and set(found["view"]) == {""}


def test_the_test_part_may_be_missing_and_is_never_used(root: Path) -> None:
    clean = object_cxr.CARD.tasks[0].splits["clean"]
    found = object_cxr.read(root)
    parts = splits.make(found, clean)
    assert set(found["split"].iloc[parts.test]) == {"dev"}
    assert set(found["split"].iloc[[*parts.train, *parts.validation]]) == {"train"}
    (root / "test.csv").unlink()
    pd.testing.assert_frame_equal(
        object_cxr.read(root), found[found["split"] != "test"].reset_index(drop=True)
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("image_name", "image", "line 1: the header has no image_name and no image_path"),
        ("annotation", "boxes", "line 1.*missing 'annotation'"),
        ("00018.jpg", "00017.jpg", "line 3.*'00017.jpg' occurs twice"),
        ("0 10 20 30 40", "0 10 20 30", "line 2, column 'annotation': '0 10 20 30' is no rectangle"),
        ("0 10 20 30 40", "3 10 20 30 40", "line 2.*'3 10 20 30 40' is no rectangle"),
        ("0 10 20 30 40", "0 10 20 x 40", "line 2.*'0 10 20 x 40' is no rectangle"),
        ("0 10 20 30 40", "0 10 20 nan 40", "line 2.*'0 10 20 nan 40' is no rectangle"),
        ("2 40 30 42 29 45 31 43 35", "2 40 30 42 29", "line 2.*'2 40 30 42 29' is no rectangle"),
        ("2 40 30 42 29 45 31 43 35", "2 40 30 42 29 45 31 43", "line 2.*is no rectangle"),
    ],
)
def test_bad_rows_are_named_with_their_line(root: Path, old: str, new: str, message: str) -> None:
    assert old in TRAIN
    (root / "train.csv").write_text(TRAIN.replace(old, new, 1))
    with pytest.raises(BadTable, match=message) as caught:
        object_cxr.read(root)
    assert str(root / "train.csv") in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "line"), [("0 10 20 30 40", "0 10 20 10 40", 2), ("190 90 150 60", "290 90 250 60", 4)]
)
def test_an_object_without_area_is_no_box_and_costs_nothing_else(
    root: Path, old: str, new: str, line: int
) -> None:
    before = object_cxr.read(root)
    (root / "train.csv").write_text(TRAIN.replace(old, new, 1))
    found = object_cxr.read(root)
    (note,) = found.attrs["notes"]
    assert f"{root / 'train.csv'}: 1 objects" in note and f"in line {line}." in note
    lost = before["boxes"].map(len) - found["boxes"].map(len)
    assert lost.sum() == 1 and (found["boxes"].map(len) == found["shapes"].map(len)).all()
    assert found["label:Foreign Object"].equals(before["label:Foreign Object"])


def test_pictures_and_rows_must_agree(root: Path) -> None:
    (root / "train" / "00018.jpg").rename(root / "train" / "00020.jpg")
    with pytest.raises(DataError, match=r"train/00018.jpg: no such picture"):
        object_cxr.read(root)
    Image.new("L", (9, 9)).save(root / "train" / "00018.jpg")
    (root / "train" / "._00018.jpg").touch()
    (note,) = object_cxr.read(root).attrs["notes"]
    assert note == "train holds pictures without a row in train.csv, left out for want of a label: 1"
    (root / "train" / "00018.jpg").write_bytes(b"<html>404</html>")
    with pytest.raises(UnreadableImage, match=r"train/00018.jpg is not a picture"):
        object_cxr.read(root)


# --- the phantom -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cohort, Path]:
    cohort = Cohort("object_cxr", 60, seed=0, size=(160, 160))
    root = tmp_path_factory.mktemp("object")
    object_cxr.write_phantom(root, cohort, workers=1)
    return cohort, root


@pytest.mark.slow
def test_boxes_are_what_was_drawn_to_the_pixel(phantom: tuple[Cohort, Path]) -> None:
    cohort, root = phantom
    found = table.read(object_cxr, root).set_index("image_id")
    stamped = json.loads((root / STAMP).read_text())["images"]
    assert set(found.index) == set(stamped)
    ids = {truth["person"]: image for image, truth in stamped.items()}
    for person in cohort.people():
        study, height, width = object_cxr.case(cohort, person)
        drawn = render(person, study, study.pictures[0], height=height, width=width, dials=cohort.dials)
        lesions = [lesion for lesion in drawn.lesions if lesion.name == "Foreign Object"]
        row = found.loc[ids[person.number]]
        assert row["boxes"] == [lesion.box for lesion in lesions]
        assert row["label:Foreign Object"] == bool(lesions)
        for lesion, shape in zip(lesions, row["shapes"], strict=True):
            kind, *numbers = shape.split()
            if kind == "2":  # the polygon holds the object, pixel by pixel
                corners = [tuple(map(int, pair)) for pair in zip(numbers[::2], numbers[1::2], strict=True)]
                inside = Image.new("1", (width, height))
                ImageDraw.Draw(inside).polygon(corners, fill=1)
                assert np.asarray(inside)[lesion.mask].all()
        with Image.open(row["path"]) as file:
            assert (file.height, file.width) == drawn.pixels.shape
            assert np.abs(np.asarray(file, float) - drawn.pixels).mean() < 4  # what a JPEG loses


def test_the_phantom_has_the_challenges_variety(phantom: tuple[Cohort, Path]) -> None:
    root = phantom[1]
    found = object_cxr.read(root)
    assert found["boxes"].map(len).max() == 25
    assert 0.35 < found["label:Foreign Object"].mean() < 0.65
    assert {shape[0] for shapes in found["shapes"] for shape in shapes} == {"0", "1", "2"}
    ratios = []
    for path in found["path"]:
        with Image.open(path) as file:
            ratios.append(file.width / file.height)
    assert min(ratios) < 0.6 and max(ratios) > 1.5
    assert found["split"].value_counts().to_dict() == {"train": 42, "dev": 12, "test": 6}
    headers = {part: (root / f"{part}.csv").read_text().splitlines()[0] for part in ("train", "dev", "test")}
    assert headers["train"] == headers["dev"] == "image_name,annotation"
    assert headers["test"] == "image_path,annotation"
    assert locate.real("object_cxr", object_cxr.CARD, settings.load(data_root=root)).root == root
