"""The MIMIC-CXR reader on small trees, zipped and not, with reports beside the pictures and apart."""

from __future__ import annotations

import gzip
import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.contracts import TABLE_COLUMNS
from harness.errors import BadTable, DataError
from harness.phantom import STAMP, Cohort, report
from tasks import mimic_cxr
from tasks._reports import parse

FRONTAL, LATERAL, OTHER = (f"{digit * 8}-00000000-00000000-00000000-00000000" for digit in "abc")
FILES = {
    "mimic-cxr-2.0.0-metadata.csv": f"""\
dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime,\
ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,PatientOrientationCodeSequence_CodeMeaning
{OTHER},10000764,57375967,CHEST (PORTABLE AP),,3056,2544,21800506,213014.531,CHEST (PORTABLE AP),,Erect
{FRONTAL},10000032,50414267,CHEST (PA AND LAT),PA,3056,2544,21800506,213014.531,CHEST,postero-anterior,Erect
{LATERAL},10000032,50414267,CHEST (PA AND LAT),LATERAL,3056,2544,21800506,213014.531,CHEST,lateral,Erect
""",
    "mimic-cxr-2.0.0-split.csv": f"""\
dicom_id,study_id,subject_id,split
{FRONTAL},50414267,10000032,train
{LATERAL},50414267,10000032,train
{OTHER},57375967,10000764,test
""",
    "mimic-cxr-2.0.0-chexpert.csv": """\
subject_id,study_id,Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,Fracture,\
Lung Lesion,Lung Opacity,No Finding,Pleural Effusion,Pleural Other,Pneumonia,Pneumothorax,Support Devices
10000032,50414267,1.0,0.0,-1.0,,,,,,,,,,,1.0
""",
    "files/p10/p10000032/s50414267.txt": " FINDINGS:  Clear.\n \n IMPRESSION:\n \n No\n change.\n",
    "files/p10/p10000764/s57375967.txt": " IMPRESSION:  Stable.\n",
    f"files/p10/p10000032/s50414267/{FRONTAL}.jpg": "",
    f"files/p10/p10000032/s50414267/{LATERAL}.jpg": "",
    f"files/p10/p10000764/s57375967/{OTHER}.jpg": "",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "mimic-cxr-jpg" / "2.1.0"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_reads_pictures_texts_and_labels(root: Path) -> None:
    table = mimic_cxr.read(root)
    assert tuple(table.columns[: len(TABLE_COLUMNS)]) == TABLE_COLUMNS
    assert list(table["image_id"]) == [FRONTAL, LATERAL, OTHER]
    assert list(table["path"]) == [str(root / name) for name in list(FILES)[-3:]]
    assert list(table["person_id"]) == ["10000032", "10000032", "10000764"]
    assert list(table["study_id"]) == ["50414267", "50414267", "57375967"]
    assert list(table["split"]) == ["train", "train", "test"]
    assert list(table["view"]) == ["PA", "LATERAL", ""]
    assert list(table["frontal"]) == [True, False, False]
    assert list(table["findings"]) == ["Clear.", "Clear.", ""]
    assert list(table["impression"]) == ["No change.", "No change.", "Stable."]
    said = table.filter(like="label:").iloc[1].dropna().to_dict()
    assert said == {
        "label:Atelectasis": 1,
        "label:Cardiomegaly": 0,
        "label:Consolidation": -1,
        "label:Support Devices": 1,
    }
    assert table.filter(like="label:").iloc[2].isna().all()  # the labeller leaves some studies out
    assert table.attrs["persons_known"]


def test_tables_may_be_zipped(root: Path) -> None:
    expected = mimic_cxr.read(root)
    for path in root.glob("*.csv"):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    pd.testing.assert_frame_equal(mimic_cxr.read(root), expected)


PLACES = (
    "mimic-cxr-reports",
    "../mimic-cxr-reports",
    "../mimic-cxr",
    "../../mimic-cxr/2.1.0",
    "../../mimic-cxr/2.0.0/mimic-cxr-reports",
)


@pytest.mark.parametrize("place", PLACES)
def test_reports_may_lie_in_a_tree_of_their_own(root: Path, place: str) -> None:
    expected = mimic_cxr.read(root)
    for path in list(root.glob("files/*/*/*.txt")):
        target = (root / place).resolve() / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, target)
    pd.testing.assert_frame_equal(mimic_cxr.read(root), expected)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("metadata", "dicom_id,", "dicom,", "line 1.*missing 'dicom_id'"),
        ("metadata", LATERAL, FRONTAL, "line 4, column 'dicom_id'.*occurs twice"),
        ("split", ",test", ",tset", "line 4, column 'split': 'tset' is not one of"),
        ("split", "study_id,subject_id", "subject_id,study_id", "line 1.*other order"),
        (
            "chexpert",
            "-1.0",
            "2.0",
            "line 2, column 'Consolidation': '2.0'",
        ),
        ("chexpert", "Atelectasis,Cardiomegaly", "Cardiomegaly,Atelectasis", "line 1.*other order"),
    ],
)
def test_bad_tables_are_named_with_their_line(
    root: Path, name: str, old: str, new: str, message: str
) -> None:
    path = root / f"mimic-cxr-2.0.0-{name}.csv"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(BadTable, match=message) as caught:
        mimic_cxr.read(root)
    assert str(path) in str(caught.value)


def test_an_image_without_a_split_is_named(root: Path) -> None:
    path = root / "mimic-cxr-2.0.0-split.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if OTHER not in line))
    with pytest.raises(BadTable, match=rf"metadata.csv, line 2.*'{OTHER}' has no row in {path.name}"):
        mimic_cxr.read(root)


def test_a_report_that_is_no_text_is_named(root: Path) -> None:
    (root / "files/p10/p10000764/s57375967.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"s57375967.txt is not a text"):
        mimic_cxr.read(root)


def test_missing_files_are_named(root: Path) -> None:
    reports = [root / "files/p10/p10000032/s50414267.txt", root / "files/p10/p10000764/s57375967.txt"]
    for path in reports:  # the first in the table, or another
        text = path.read_text()
        path.unlink()
        with pytest.raises(DataError, match=f"^{path}: no such report"):
            mimic_cxr.read(root)
        path.write_text(text)
    for path in reports:
        path.unlink()
    with pytest.raises(DataError, match=r"none of the 2 reports is there, files/p10/.* under any of"):
        mimic_cxr.read(root)
    (root / "mimic-cxr-2.0.0-metadata.csv").unlink()
    with pytest.raises(DataError, match=r"has no mimic-cxr-2.0.0-metadata.csv"):
        mimic_cxr.read(root)


def test_half_a_file_of_labels_is_refused(phantom: tuple[Cohort, Path], tmp_path: Path) -> None:
    root = tmp_path / "mimic"
    shutil.copytree(phantom[1], root)
    path = root / "mimic-cxr-2.0.0-chexpert.csv.gz"
    lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    path.write_bytes(gzip.compress(b"".join(lines[: -mimic_cxr.UNLABELLED])))
    assert len(mimic_cxr.read(root))  # as many have none at the source
    path.write_bytes(gzip.compress(b"".join(lines[: len(lines) // 2])))
    lost = len(lines) - len(lines) // 2
    with pytest.raises(BadTable, match=rf"{path} has no row for {lost} studies, 5\d+ among them"):
        mimic_cxr.read(root)


# --- the phantom -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cohort, Path]:
    cohort = Cohort("mimic_cxr", 40, seed=0, size=(64, 52))
    root = tmp_path_factory.mktemp("mimic")
    mimic_cxr.write_phantom(root, cohort, workers=1)
    return cohort, root


def test_the_phantom_reads_back_as_written(phantom: tuple[Cohort, Path]) -> None:
    cohort, root = phantom
    table = mimic_cxr.read(root)
    stamp = json.loads((root / STAMP).read_text())["images"]
    assert set(table["image_id"]) == set(stamp)
    whole = seen = 0
    for person in cohort.people():
        for study in mimic_cxr.studies_of(cohort, person):
            rows = table[table["study_id"] == f"59999{4 * (person.number - 1) + study.number:03d}"]
            assert set(rows["person_id"]) == {f"19999{person.number:03d}"}
            assert sorted(stamp[image]["view"] for image in rows["image_id"]) == sorted(
                picture.view for picture in study.pictures
            )
            for row in rows.to_dict("records"):
                said = {
                    name: row[f"label:{name}"]
                    for name in mimic_cxr.LABELS
                    if not pd.isna(row[f"label:{name}"])
                }
                assert said == study.statements
                written = report.write(person, study, np.random.default_rng(study.seed))
                both = (written.findings, written.impression)
                whole += (row["findings"], row["impression"]) == both
                assert (row["findings"], row["impression"]) in {
                    both,
                    ("", both[1]),
                    (both[0], ""),
                    (" ".join(both), ""),
                }
                seen += 1
    assert seen == len(table)
    assert whole > 0.7 * seen  # most reports have both sections


@pytest.mark.parametrize("layout", report.LAYOUTS)
def test_every_layout_of_a_report_is_understood(layout: str) -> None:
    for person in Cohort("mimic_cxr", 30, seed=1, size=(64, 52)).people():
        rng = np.random.default_rng(person.seed)
        written = report.write(person, person.studies[0], rng)
        both = (written.findings, written.impression)
        expected = {
            "no findings": ("", both[1]),
            "no impression": (both[0], ""),
            "no headers": (" ".join(both), ""),
            "joint": (" ".join(both), ""),
        }.get(layout, both)
        assert parse(report.mimic_text(written, rng, layout=layout)) == expected


def test_the_phantom_keeps_the_official_layout(phantom: tuple[Cohort, Path]) -> None:
    root = phantom[1]
    table = mimic_cxr.read(root)
    for name in ("metadata", "split", "chexpert"):
        with gzip.open(root / f"mimic-cxr-2.0.0-{name}.csv.gz", "rt") as file:
            assert file.readline() == FILES[f"mimic-cxr-2.0.0-{name}.csv"].splitlines(keepends=True)[0]
    assert (
        table["path"]
        .str.fullmatch(rf"{root}/files/p19/p19999\d+/s59999\d+/([0-9a-f]{{8}}-){{4}}[0-9a-f]{{8}}.jpg")
        .all()
    )
    assert (table["view"] == "").sum() == 1
    assert table.groupby("study_id")["view"].agg(set).map(len).max() == 2  # with a lateral
    parts = table.groupby("person_id")["split"].agg(set)
    assert (parts.map(len) == 1).all()
    assert Counter(min(part) for part in parts) == {"train": 36, "validate": 2, "test": 2}


def test_the_demo_phantom_has_every_case_of_5x200() -> None:
    """The rule's own words, on what a labeller finds: one asserted, the others denied or not mentioned."""
    size = mimic_cxr.CARD.phantom["demo"]
    cohort = Cohort("mimic_cxr", size.persons, seed=0, size=(size.height, size.width))
    alone: Counter[str] = Counter()
    for person in cohort.people():
        if person.number % 20 == 0:
            for study in mimic_cxr.studies_of(cohort, person):
                said = {name: value for name, value in study.statements.items() if value != 0}
                if list(said.values()) == [1]:
                    alone.update(said)
    assert min(alone[name] for name in mimic_cxr.SCORED) >= 8
