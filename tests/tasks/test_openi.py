"""The Open-I reader on all real reports, against a table that others made of them, and on its phantom."""

from __future__ import annotations

import json
import re
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from harness import settings
from harness.data import locate, splits
from harness.errors import BadTable, DataError
from harness.phantom import STAMP, Cohort
from harness.phantom.render import render
from tasks import openi
from tasks._tables import read_files

# --- the real reports --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(realdata: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The official tree, with empty files for pictures."""
    root = tmp_path_factory.mktemp("real") / "NLMCXR"
    (root / "NLMCXR_png").mkdir(parents=True)
    with tarfile.open(realdata / "text" / "NLMCXR_reports.tgz") as archive:
        for member in filter(
            tarfile.TarInfo.isfile, archive
        ):  # extractall is not the same in Pythons of 3.11
            file = archive.extractfile(member)
            assert file is not None
            (root / member.name).parent.mkdir(parents=True, exist_ok=True)
            (root / member.name).write_bytes(file.read())
    for path in (root / "ecgen-radiology").iterdir():
        for image in re.findall(r'parentImage id="([^"]+)"', path.read_text(encoding="utf-8")):
            (root / "NLMCXR_png" / f"{image}.png").touch()
    shutil.copyfile(realdata / "text" / "indiana_projections.csv.gz", root / "indiana_projections.csv.gz")
    return root


@pytest.fixture(scope="module")
def table(real: Path) -> pd.DataFrame:
    return openi.read(real)


@pytest.mark.slow
def test_official_counts(real: Path, table: pd.DataFrame) -> None:
    paths = sorted((real / "ecgen-radiology").glob("*.xml"))
    reports = [text for _, text in read_files(openi.read_report, paths, "reading")]
    assert len(reports) == 3_955
    assert sum(bool(text.findings) for text in reports) == 3_425
    assert sum(bool(text.impression) for text in reports) == 3_921
    assert sum(all(text) for text in reports) == 3_419
    assert len(table) == openi.CARD.variants[0].images == 7_470
    assert table["person_id"].nunique() == 3_851


@pytest.mark.slow
def test_every_text_is_as_others_read_it(realdata: Path, table: pd.DataFrame) -> None:
    others = pd.read_csv(
        realdata / "text" / "indiana_reports.csv.gz", dtype=str, keep_default_na=False, index_col="uid"
    )
    ours = table.groupby("study_id")[["findings", "impression"]].first()
    assert len(others) == len(ours) == 3_851
    for section in ("findings", "impression"):
        expected = others[section].str.split().str.join(" ")
        assert ours.loc[expected.index, section].tolist() == expected.tolist()
    assert ours["findings"].str.contains("XXXX").mean() > 0.3


def test_views_are_those_of_the_projections_table(realdata: Path, table: pd.DataFrame) -> None:
    assert table["frontal"].sum() == 3_818
    assert (table["view"] == "LATERAL").sum() == 3_648
    assert not table.loc[table["view"] == "LATERAL", "frontal"].any()
    views = table.set_index("image_id")["view"]
    assert (views["CXR1_1_IM-0001-3001"], views["CXR1_1_IM-0001-4001"]) == ("LATERAL", "")
    unknown = table[~table["frontal"] & (table["view"] == "")]
    assert len(unknown) == 4  # not in the table of projections


def test_the_corpus_is_split_by_patient(table: pd.DataFrame) -> None:
    assert openi.CARD.corpus is not None
    parts = splits.make(table, openi.CARD.corpus)
    people = [table["person_id"].iloc[part].nunique() for part in parts]
    assert people == [3_851 - 386 - 347, 347, 386]


# --- spoilt copies -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cohort, Path]:
    cohort = Cohort("openi", 60, seed=0, size=(64, 52))
    root = tmp_path_factory.mktemp("openi")
    openi.write_phantom(root, cohort, workers=1)
    return cohort, root


@pytest.fixture
def copy(phantom: tuple[Cohort, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(phantom[1], tmp_path / "openi"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html>404", "90001.xml is no report of Open-I: ParseError"),
        (b"<eCitation>caf\xe9</eCitation>", "90001.xml is no report of Open-I: ParseError"),  # not UTF-8
        (b"", "90001.xml is no report of Open-I: ParseError"),
        (b"<html/>", "90001.xml is no report of Open-I: KeyError\\('FINDINGS'\\)"),
    ],
)
def test_a_file_that_is_no_report_is_named(copy: Path, content: bytes, message: str) -> None:
    (copy / "ecgen-radiology" / "90001.xml").write_bytes(content)
    with pytest.raises(BadTable, match=message):
        openi.read(copy)


def test_what_macos_leaves_beside_a_report_is_none(copy: Path) -> None:
    expected = openi.read(copy)
    (copy / "ecgen-radiology" / "._90001.xml").write_bytes(b"\x00\x05\x16\x07")
    pd.testing.assert_frame_equal(openi.read(copy), expected)


def test_bad_projections_are_named_with_their_line(copy: Path) -> None:
    path = copy / "indiana_projections.csv"
    text = path.read_text()
    path.write_text(text.replace("Frontal", "Oblique", 1))
    with pytest.raises(BadTable, match=r"indiana_projections.csv, line 2.*'Oblique' is not one of"):
        openi.read(copy)
    path.write_text(text + text.splitlines()[1] + "\n")
    with pytest.raises(BadTable, match=r"indiana_projections.csv, line \d+, column 'filename'.*occurs twice"):
        openi.read(copy)
    path.unlink()
    with pytest.raises(DataError, match=r"has no indiana_projections\.csv"):
        openi.read(copy)


# --- the phantom -------------------------------------------------------------------------------------


def test_the_phantom_reads_back_as_written(phantom: tuple[Cohort, Path]) -> None:
    cohort, root = phantom
    found = openi.read(root).set_index("image_id")
    stamped = json.loads((root / STAMP).read_text())["images"]
    assert set(found.index) == set(stamped)
    empty = seen = 0
    for person in cohort.people():
        rows = found[found["person_id"] == str(90_000 + person.number)]
        study = person.studies[0]
        assert len(rows) == len(study.pictures)
        for image, picture in zip(rows.index, study.pictures, strict=True):
            row = rows.loc[image]
            assert (row["findings"], row["impression"]) == openi.texts(cohort, person)
            assert "___" not in row["findings"] + row["impression"]
            listed = person.number != openi.UNLISTED
            assert row["frontal"] == (listed and picture.view != "LATERAL")
            assert row["view"] == ("LATERAL" if listed and picture.view == "LATERAL" else "")
            drawn = render(person, study, picture, height=64, width=52, dials=cohort.dials)
            np.testing.assert_array_equal(np.asarray(Image.open(row["path"])), drawn.pixels)
            seen += 1
        empty += rows["findings"].iloc[0] == ""
    assert seen == len(found)
    assert 0 < empty < 20  # of 60 reports


def test_the_phantom_keeps_the_official_names(phantom: tuple[Cohort, Path]) -> None:
    root = phantom[1]
    assert {path.name for path in root.iterdir()} == {
        "NLMCXR_png",
        "PHANTOM.json",
        "ecgen-radiology",
        "indiana_projections.csv",
    }
    assert (root / "NLMCXR_png" / "CXR90001_90001_IM-0001-1001.png").exists()
    assert len(list((root / "ecgen-radiology").iterdir())) == 61  # one of them without a picture
    assert locate.real("openi", openi.CARD, settings.load(data_root=root)) == locate.Located(root, "phantom")
