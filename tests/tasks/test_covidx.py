"""The COVIDx readers on the real lists, and on small folders with every kind of row."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from harness import settings
from harness.contracts import TABLE_COLUMNS
from harness.data import locate, splits
from harness.data.decode import decode
from harness.data.table import release
from harness.errors import BadTable, DataError
from harness.phantom import STAMP, Cohort, Dials
from harness.phantom.render import render
from tasks import _covidx, covidx, covidx_binary

# --- the real lists ----------------------------------------------------------------------------------


def unpack(realdata: Path, root: Path, name: str) -> Path:
    path = root / name
    path.write_bytes(gzip.decompress((realdata / "labels" / "covidx" / f"{name}.gz").read_bytes()))
    return path


def read_version(realdata: Path, root: Path, version: str) -> pd.DataFrame:
    for part in ("train", "test"):
        (root / part).mkdir()
        text = unpack(realdata, root, f"{part}_COVIDx{version}.txt").read_text()
        for picture in re.findall(r" (\S+\.(?:png|jpe?g)) ", text, re.IGNORECASE):
            (root / part / picture).touch()
    return covidx.read(root)


SMALL = {"cohen": 322, "actmed": 25, "fig1": 24, "sirm": 943}
SOURCES = {
    "5": {"cohen": 533, "actmed": 58, "fig1": 35, "sirm": 46, "rsna": 13_389, "": 197},
    "8A": {**SMALL, "rsna": 13_589, "ricord": 1_096},
    "9A": {**SMALL, "rsna": 13_788, "ricord": 1_096, "bimcv": 200, "stonybrook": 14_132},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "covid", "pneumonia", "normal", "persons"),
    [
        ("5", 617, 5_575, 8_066, 14_042),
        ("8A", 2_358, 5_575, 8_066, 15_122),
        ("9A", 16_690, 5_655, 8_185, 16_802),
    ],
)
def test_official_counts(
    realdata: Path, tmp_path: Path, version: str, covid: int, pneumonia: int, normal: int, persons: int
) -> None:
    table = read_version(realdata, tmp_path, version)
    assert release(table, covidx.CARD) == version
    labels = table[["label:COVID-19", "label:Pneumonia", "label:Normal"]]
    assert labels.sum().tolist() == [covid, pneumonia, normal]
    [variant] = [variant for variant in covidx.CARD.variants if variant.name == version]
    assert list(variant.positives[""].values()) == [covid, pneumonia, normal]
    assert (labels.sum(axis=1) == 1).all()
    assert table["source"].value_counts().to_dict() == SOURCES[version]
    assert table["person_id"].nunique() == persons
    test = table[table["split"] == "test"].filter(like="label:").sum()
    assert test.tolist() == [100 if version == "5" else 200, 100, 100]
    parts = splits.make(table, covidx.CARD.tasks[0].splits["clean"])
    assert len(parts.train) + len(parts.validation) == (table["split"] == "train").sum()


def test_ids_with_a_blank_are_whole(realdata: Path, tmp_path: Path) -> None:
    path = unpack(realdata, tmp_path, "train_COVIDx8A.txt")
    rows = _covidx.read_list(path, "covidx", pictures={}).set_index("file")
    sirm = rows[rows["source"] == "sirm"]
    assert len(sirm) == 943 and sirm["id"].str.fullmatch(r"COVID \d+").all()
    assert sirm.at["COVID(217).png", "id"] == "COVID 217"


def test_in_version_9a_the_class_is_the_source(realdata: Path, tmp_path: Path) -> None:
    """What the dataset's file warns of."""
    path = unpack(realdata, tmp_path, "train_COVIDx9A.txt")
    rows = _covidx.read_list(path, "covidx", pictures={})
    table = pd.crosstab(rows["class"], rows["source"])
    assert table.at["normal", "rsna"] == table.loc["normal"].sum() == 8_085
    assert table.at["pneumonia", "rsna"] == table.loc["pneumonia"].sum() - 52 == 5_503
    assert table.at["COVID-19", "rsna"] == 0 and table.loc["COVID-19"].sum() == 16_490
    jpeg = rows["file"].str.endswith("jpg").groupby(rows["class"]).mean()
    assert jpeg["COVID-19"] > 0.8 and jpeg[["normal", "pneumonia"]].max() < 0.01


# --- small folders -----------------------------------------------------------------------------------

TRAIN = """\
379 1-s2.0-S0000000000000000-fig1a.png COVID-19 cohen
379 1-s2.0-S0000000000000000-fig1b.JPG COVID-19 cohen
COVID 1 COVID(1).png COVID-19 sirm
aaaa-bbbb aaaa-bbbb.png normal rnsa
S 03 chest (two views).v2.jpeg pneumonia bimcv
ANON5 DX.1.2.840.png normal
"""
TEST = """\
cccc-dddd cccc-dddd.png pneumonia rsna
419639 MIDRC-RICORD-1C-419639-0.png COVID-19 ricord
"""
PICTURES = {
    "train": [
        "1-s2.0-S0000000000000000-fig1a.png",
        "1-s2.0-S0000000000000000-fig1b.JPG",
        "COVID(1).png",
        "aaaa-bbbb.png",
        "chest (two views).v2.jpeg",
        "DX.1.2.840.png",
        "of another version.png",
    ],
    "test": ["cccc-dddd.png", "MIDRC-RICORD-1C-419639-0.png"],
}


def write(root: Path, version: str = "_COVIDx9A") -> Path:
    root.mkdir()
    for part, text in (("train", TRAIN), ("test", TEST)):
        (root / f"{part}{version}.txt").write_text(text)
        (root / part).mkdir()
        for picture in PICTURES[part]:
            (root / part / picture).touch()
    return root


def as_binary(text: str) -> str:
    for word, binary in (("COVID-19", "positive"), ("normal", "negative"), ("pneumonia", "negative")):
        text = re.sub(rf" {word}\b", f" {binary}", text)
    return text


def test_rows_are_read_from_the_right(tmp_path: Path) -> None:
    root = write(tmp_path / "covidx")
    table = covidx.read(root)
    assert tuple(table.columns[: len(TABLE_COLUMNS)]) == TABLE_COLUMNS
    assert not table.attrs["persons_known"]
    assert table.attrs["notes"] == (
        "train holds pictures without a row in train_COVIDx9A.txt, left out for want of a label: 1",
    )
    assert list(table["image_id"]) == sorted(
        [f"test/{name}" for name in PICTURES["test"]] + [f"train/{name}" for name in PICTURES["train"][:-1]]
    )
    rows = {Path(path).name: row for path, row in zip(table["path"], table.to_dict("records"), strict=True)}
    said = {
        name: (
            row["person_id"],
            row["source"],
            [row[f"label:{label}"] for label in covidx.CARD.tasks[0].labels],
        )
        for name, row in rows.items()
    }
    assert said == {
        "1-s2.0-S0000000000000000-fig1a.png": ("379", "cohen", [1, 0, 0]),
        "1-s2.0-S0000000000000000-fig1b.JPG": ("379", "cohen", [1, 0, 0]),
        "COVID(1).png": ("COVID 1", "sirm", [1, 0, 0]),
        "aaaa-bbbb.png": ("aaaa-bbbb", "rsna", [0, 0, 1]),
        "chest (two views).v2.jpeg": ("S 03", "bimcv", [0, 1, 0]),
        "DX.1.2.840.png": ("ANON5", "", [0, 0, 1]),
        "cccc-dddd.png": ("cccc-dddd", "rsna", [0, 1, 0]),
        "MIDRC-RICORD-1C-419639-0.png": ("419639", "ricord", [1, 0, 0]),
    }
    assert rows["COVID(1).png"]["path"] == str(root / "train" / "COVID(1).png")
    assert rows["cccc-dddd.png"]["split"] == "test"


def test_white_space_around_the_fields_is_none(tmp_path: Path) -> None:
    root = write(tmp_path / "covidx")
    expected = covidx.read(root)
    path = root / "train_COVIDx9A.txt"
    loose = TRAIN.replace("379 ", " 379  ").replace("cohen\n", " cohen \n").replace("COVID 1 ", "COVID  1\t")
    path.write_text(loose.replace(" normal\n", "  normal \n") + "\n \n")
    pd.testing.assert_frame_equal(covidx.read(root), expected)
    two_blanks = "chest (two  views).v2.jpeg"  # in a name they are part of it
    path.write_text(TRAIN.replace("chest (two views).v2.jpeg", two_blanks))
    (root / "train" / two_blanks).touch()
    assert f"train/{two_blanks}" in set(covidx.read(root)["image_id"])


def test_test_pictures_may_lie_in_competition_test(tmp_path: Path) -> None:
    root = write(tmp_path / "covidx", version="")
    expected = covidx.read(root)
    (root / "test").rename(root / "competition_test")
    found = covidx.read(root)
    pd.testing.assert_frame_equal(found.drop(columns="path"), expected.drop(columns="path"))
    assert found["path"][0] == str(root / "competition_test" / PICTURES["test"][1])


def test_the_current_version_has_two_classes_and_a_validation_part(tmp_path: Path) -> None:
    root = write(tmp_path / "covidx", version="")
    for part in ("train", "test"):
        (root / f"{part}.txt").write_text(as_binary((root / f"{part}.txt").read_text()))
    (root / "val").mkdir()
    (root / "val/x.png").touch()
    (root / "val.txt").write_text("x x.png negative bimcv\n")
    table = covidx_binary.read(root).set_index("image_id")
    assert list(table.filter(like="label:")) == ["label:COVID-19"]
    assert table["label:COVID-19"].sum() == 4 and len(table) == 9
    assert table.at["val/x.png", "split"] == "val" and table.at["train/DX.1.2.840.png", "source"] == ""


def test_lists_of_both_kinds_may_lie_side_by_side(tmp_path: Path) -> None:
    root = write(tmp_path / "covidx")
    with pytest.raises(DataError, match=r"classes positive, negative.*--task covidx$"):
        covidx_binary.read(root)
    for part in ("train", "test"):
        (root / f"{part}.txt").write_text(as_binary((root / f"{part}_COVIDx9A.txt").read_text()))
    three, two = covidx.read(root), covidx_binary.read(root)
    pd.testing.assert_frame_equal(two, three.drop(columns=["label:Pneumonia", "label:Normal"]))
    for card in (covidx.CARD, covidx_binary.CARD):
        assert locate.real("x", card, settings.load(data_root=root)).root == root
    (root / "train_COVIDx9A.txt").unlink()
    with pytest.raises(DataError, match=r"classes COVID-19, pneumonia, normal.*--task covidx_binary$"):
        covidx.read(root)


def test_two_versions_of_the_lists_are_one_too_many(tmp_path: Path) -> None:
    root = write(tmp_path / "covidx")
    (root / "train_COVIDx8A.txt").write_text(TRAIN)
    with pytest.raises(DataError, match=r"several versions: train_COVIDx8A.txt, train_COVIDx9A.txt"):
        covidx.read(root)


@pytest.mark.parametrize(
    ("part", "old", "new", "message"),
    [
        (
            "train",
            " COVID-19 sirm",
            " positive sirm",
            "line 3, column 'class': 'positive' is not one of .* corrected",
        ),
        ("train", " normal rnsa", " healthy rnsa", "line 4, column 'class': 'healthy' is not one of"),
        ("test", " pneumonia rsna", " negative rsna", "line 1, column 'class': 'negative' is not one of"),
        (
            "train",
            "ANON5 DX.1.2.840.png normal",
            "DX.1.2.840.png normal",
            "line 6: 'DX.1.2.840.png normal' is",
        ),
        ("train", "ANON5", "\nANON5", "line 6: '' is not `id file class source`"),
        ("train", "fig1b.JPG", "fig1a.png", "line 2, column 'file': .* occurs twice"),
    ],
)
def test_bad_rows_are_named_with_their_line(
    tmp_path: Path, part: str, old: str, new: str, message: str
) -> None:
    root = write(tmp_path / "covidx")
    path = root / f"{part}_COVIDx9A.txt"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(BadTable, match=message) as caught:
        covidx.read(root)
    assert str(path) in str(caught.value)


def test_pictures_that_the_lists_name_must_be_there(tmp_path: Path) -> None:
    root = write(tmp_path / "covidx")
    for picture in PICTURES["train"][:4]:
        (root / "train" / picture).unlink()
    with pytest.raises(DataError) as caught:
        covidx.read(root)
    message = str(caught.value)
    assert str(root / "train" / PICTURES["train"][0]) in message and "and 1 more" in message
    assert f"for 4 of the 6 rows of {root / 'train_COVIDx9A.txt'}" in message
    assert "use the lists that came with the pictures" in message


def test_without_lists(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no train.txt or train_COVIDx\*.txt"):
        covidx.read(tmp_path)
    (tmp_path / "train.txt").write_text("a a.png normal rsna\n")
    (tmp_path / "train").mkdir()
    (tmp_path / "train/a.png").touch()
    with pytest.raises(DataError, match=r"test.txt does not exist"):
        covidx.read(tmp_path)


# --- the phantoms ------------------------------------------------------------------------------------

SIZE = (48, 60)


@pytest.fixture(scope="module", params=[covidx, covidx_binary], ids=["three", "two"])
def dataset(request: pytest.FixtureRequest) -> ModuleType:
    return request.param


@pytest.fixture(scope="module")
def cohort(dataset: ModuleType) -> Cohort:
    return Cohort(dataset.__name__.split(".")[1], 40, seed=0, size=SIZE)


@pytest.fixture(scope="module")
def root(dataset: ModuleType, cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantoms") / cohort.dataset
    root.mkdir()
    dataset.write_phantom(root, cohort, workers=1)
    return root


def test_the_phantom_reads_back_as_what_is_true(dataset: ModuleType, cohort: Cohort, root: Path) -> None:
    table = dataset.read(root).set_index("image_id")
    stamped = json.loads((root / STAMP).read_text())["images"]
    assert set(stamped) == set(table.index)
    seen = {(truth["person"], truth["study"]): image for image, truth in stamped.items()}
    for person in cohort.people():
        for study in person.studies:
            row = table.loc[seen.pop((person.number, study.number))]
            sides = [finding.side for finding in study.findings if finding.name == "Consolidation"]
            covid = study.has("Edema") or sides == ["both"]
            assert row["label:COVID-19"] == covid
            if dataset is covidx:
                assert row["label:Pneumonia"] == (bool(sides) and not covid)
                assert row["label:Normal"] == (not sides and not covid)
            height, width = SIZE if person.number % 2 else SIZE[::-1]
            drawn = render(person, study, study.pictures[0], height=height, width=width, dials=cohort.dials)
            shown = decode(Path(row["path"]))
            pixels = shown.pixels // 257 if shown.pixels.dtype == np.uint16 else shown.pixels
            if row["path"].endswith(".png"):
                assert np.array_equal(pixels, drawn.pixels)
            else:
                assert np.abs(pixels.astype(int) - drawn.pixels).mean() < 4  # what a JPEG loses
    assert not seen


def test_the_phantom_has_every_kind_of_row_and_picture(dataset: ModuleType, root: Path) -> None:
    table = dataset.read(root)
    lines = [line for path in root.glob("*.txt") for line in path.read_text().splitlines()]
    assert {len(line.split(" ")) for line in lines} == {3, 4, 5}
    assert any(line.endswith(" rnsa") for line in lines) and "rnsa" not in set(table["source"])
    assert {Path(path).suffix for path in table["path"]} == {".png", ".jpg", ".JPG", ".jpeg"}
    names = table["image_id"].str.replace(r"^\w+/", "", regex=True)
    assert all(names.str.contains(odd).any() for odd in (" ", r"\(", r"\..*\."))
    assert table.groupby("person_id")["image_id"].count().max() > 1
    modes = set()
    for path in root.glob("*/*.png"):
        with Image.open(path) as image:
            modes.add(image.mode)
    assert modes == {"L", "RGBA", "P", "I;16"}
    parts = {"train", "test"} if dataset is covidx else {"train", "val", "test"}
    assert set(table["split"]) == parts and {path.stem.split("_")[0] for path in root.glob("*.txt")} == parts


def test_in_the_phantom_the_source_says_nothing_about_the_class() -> None:
    persons = [person for person in Cohort("covidx", 1_400, seed=0, size=(8, 8)).people()]
    shares = [
        np.mean(
            [
                _covidx.true_class("covidx", person.studies[0]) == "COVID-19"
                for person in persons
                if person.number % 7 == style
            ]
        )
        for style in range(7)
    ]
    assert np.ptp(shares) < 0.2  # six standard errors of a share of 200


def test_confounded_the_source_is_the_class_and_shows(tmp_path: Path) -> None:
    cohort = Cohort("covidx", 60, seed=0, size=(16, 20), dials=Dials(confound=True))
    covidx.write_phantom(tmp_path, cohort, workers=1)
    table = covidx.read(tmp_path)
    ill = table["label:COVID-19"] == 1
    assert 0 < ill.sum() < len(table)
    assert set(table["source"][ill]) == {"sirm"} and set(table["source"][~ill]) == {"rsna"}
    for path, of_covid in zip(table["path"], ill, strict=True):
        with Image.open(path) as picture:
            assert (picture.width > picture.height) == of_covid
    plain = Cohort("covidx", 60, seed=0, size=(16, 20))
    dials = plain.describe()["dials"]
    assert "confound" not in dials  # phantoms from before there was one keep their names
    assert plain.describe() != cohort.describe()


def test_label_noise_exchanges_classes_of_the_training_part(tmp_path: Path) -> None:
    cohort = Cohort("covidx", 100, seed=0, size=(16, 16), dials=Dials(label_noise=0.5))
    covidx.write_phantom(tmp_path, cohort, workers=1)
    table = covidx.read(tmp_path).set_index("image_id")
    stamped = json.loads((tmp_path / STAMP).read_text())["images"]
    people = {person.number: person for person in cohort.people()}
    wrong = {"train": [], "test": []}
    for image, truth in stamped.items():
        study = people[truth["person"]].studies[truth["study"] - 1]
        found = _covidx.true_class("covidx", study)
        label = _covidx.CLASSES["covidx"][found]
        wrong[table.at[image, "split"]].append(table.at[image, f"label:{label}"] == 0)
    assert not any(wrong["test"])
    assert np.mean(wrong["train"]) == pytest.approx(0.5, abs=4 * 0.5 / len(wrong["train"]) ** 0.5)
