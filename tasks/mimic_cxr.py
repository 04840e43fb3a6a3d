"""MIMIC-CXR: 377,110 chest X-rays of 227,835 studies with their reports, the corpus methods are trained on.

Pictures and labels come from MIMIC-CXR-JPG, reports from MIMIC-CXR. Facts about the layout: the PhysioNet
pages of both, and MIT-LCP's code for the reports.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from harness.contracts import Balanced, DatasetCard, PhantomSize, Split, Task, Variant
from harness.errors import BadTable, DataError
from harness.phantom import Cohort, Person, Picture, Study, draw, report, stamp, truth, with_only
from harness.phantom.render import render
from tasks._phantoms import save_jpeg, write_csv
from tasks._reports import Report, parse
from tasks._tables import (
    RESTORE,
    find_csv,
    finish,
    label_columns,
    once,
    one_of,
    read_cells,
    read_files,
    refuse,
    refuse_files,
)

UNLABELLED = 8  # official studies that have no row of labels: the labeller found no text in their reports
SCORED = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion")
ALSO_ABSENT = (  # of the 5x200 images, beside the five
    "Enlarged Cardiomediastinum",
    "Lung Lesion",
    "Lung Opacity",
    "Pneumonia",
    "Pneumothorax",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
PROMPTS = {
    "Atelectasis": ("atelectasis", "basilar atelectasis", "subsegmental atelectasis"),
    "Cardiomegaly": ("cardiomegaly", "cardiac enlargement", "enlargement of the cardiac silhouette"),
    "Consolidation": ("consolidation", "focal consolidation", "airspace consolidation"),
    "Edema": ("pulmonary edema", "interstitial edema", "pulmonary vascular congestion"),
    "Pleural Effusion": ("pleural effusion", "pleural fluid", "blunting of the costophrenic angle"),
}
CARD = DatasetCard(
    title="MIMIC-CXR",
    source="https://physionet.org/content/mimic-cxr-jpg/ and, from https://physionet.org/content/mimic-cxr/, "
    "mimic-cxr-reports.zip unpacked in the same folder (credentialed access)",
    licence="PhysioNet Credentialed Health Data License: no redistribution of anything derived",
    citation="Johnson et al., MIMIC-CXR, a de-identified publicly available database of chest radiographs "
    "with free-text reports, Scientific Data 2019",
    folders=(
        "mimic-cxr-jpg",
        "mimic-cxr-jpg/2.1.0",
        "mimic-cxr-jpg/2.0.0",
        "physionet.org/files/mimic-cxr-jpg/2.1.0",
        "physionet.org/files/mimic-cxr-jpg/2.0.0",
    ),
    markers=("mimic-cxr-2.0.0-metadata.csv*", "mimic-cxr-2.0.0-split.csv*", "files"),
    variants=(
        Variant(
            "2.0.0 or 2.1.0",
            377_110,
            {"train": 368_960, "validate": 2_991, "test": 5_159},
            totals={"studies": 227_835},
        ),
    ),
    tasks=(
        # all from the test part: methods are trained on the others
        Task(
            kinds=("retrieval",),
            labels=(),
            metric="recall_at_5",
            version=2,
            splits={"clean": Split(test="test", validation=None, train=None)},
            reports=True,
        ),
        Task(
            kinds=("retrieval",),
            name="5x200",
            labels=SCORED,
            metric="precision_at_5",
            version=2,
            splits={"clean": Split(test="test", validation=None, train=None)},
            exclusive=True,
            blank=0,
            reports=True,
            balanced=Balanced(ALSO_ABSENT),
        ),
        Task(
            kinds=("zero-shot",),
            name="5x200",
            labels=SCORED,
            metric="accuracy",
            version=1,
            splits={"clean": Split(test="test", validation=None, train=None)},
            exclusive=True,
            blank=0,
            balanced=Balanced(ALSO_ABSENT),
            prompts=PROMPTS,
        ),
    ),
    corpus=Split(test="test", validation="validate", train="train"),
    phantom={"demo": PhantomSize(1_600, 160, 132), "paper": PhantomSize(16_000, 390, 320)},
)

LABELS = (  # CheXpert's, in this dataset's order
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Enlarged Cardiomediastinum",
    "Fracture",
    "Lung Lesion",
    "Lung Opacity",
    "No Finding",
    "Pleural Effusion",
    "Pleural Other",
    "Pneumonia",
    "Pneumothorax",
    "Support Devices",
)
METADATA = (
    "dicom_id",
    "subject_id",
    "study_id",
    "PerformedProcedureStepDescription",
    "ViewPosition",
    "Rows",
    "Columns",
    "StudyDate",
    "StudyTime",
    "ProcedureCodeSequence_CodeMeaning",
    "ViewCodeSequence_CodeMeaning",
    "PatientOrientationCodeSequence_CodeMeaning",
)
VIEWS = ("PA", "AP", "LATERAL", "LL", "RL")  # rarer ones count as unknown
SPLIT_HEADER = ("dicom_id", "study_id", "subject_id", "split")
LABEL_HEADER = ("subject_id", "study_id", *LABELS)
SPLITS = ("train", "validate", "test")
REPORT_TREES = (
    ".",
    "mimic-cxr-reports",
    "../mimic-cxr-reports",
    *("../mimic-cxr", "../mimic-cxr/mimic-cxr-reports"),
    *("../../mimic-cxr/2.1.0", "../../mimic-cxr/2.1.0/mimic-cxr-reports"),
    *("../../mimic-cxr/2.0.0", "../../mimic-cxr/2.0.0/mimic-cxr-reports"),
)
"""Where the folder `files` with the reports may lie, seen from the pictures."""


def read(root: Path) -> pd.DataFrame:
    """One row per image; the text of a study stands in the row of each of its images.

    Reads every report: 0.06 ms each from a warm disk, some 14 s for all of them on one core.
    """
    metadata_csv = find_csv(root, "mimic-cxr-2.0.0-metadata.csv")
    columns = ("dicom_id", "subject_id", "study_id", "ViewPosition")
    rows = read_cells(metadata_csv, columns, exact=False, filled=True)
    image, person, study = once(rows["dicom_id"], metadata_csv), rows["subject_id"], rows["study_id"]
    folder = "files/p" + person.str[:2] + "/p" + person + "/s" + study
    return finish(
        {
            "image_id": image,
            "path": f"{root.resolve()}/" + folder + "/" + image + ".jpg",
            "person_id": person,
            "study_id": study,
            "split": _splits(root, image, metadata_csv),
            "view": rows["ViewPosition"].where(rows["ViewPosition"].isin(VIEWS), ""),
            "frontal": rows["ViewPosition"].isin(("PA", "AP")),
            **_reports(root, folder.groupby(study).first()).loc[study].set_axis(rows.index),
            **_labels(root, study).set_axis(rows.index),
        }
    )


def read_report(path: Path) -> Report:
    try:
        return parse(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a text: {error}. Restore it from the download") from error


def _reports(root: Path, folders: pd.Series) -> pd.DataFrame:
    """`findings` and `impression` by study id; `folders` holds the study's folder, the report beside it."""
    names = [f"{folder}.txt" for folder in folders]
    trees = [root / name for name in REPORT_TREES]
    tree = next((tree for tree in trees if any((tree / name).is_file() for name in names)), None)
    if tree is None:
        places = ", ".join(map(str, trees))
        raise DataError(
            f"none of the {len(names)} reports is there, {names[0]} and so on, under any of {places}. Unpack "
            f"mimic-cxr-reports.zip in {root}"
        )
    paths = [tree / name for name in names]
    refuse_files((path for path in paths if not path.is_file()), "no such report. Complete the download")
    return pd.DataFrame(read_files(read_report, paths, "reading reports"), index=folders.index)


def _splits(root: Path, images: pd.Series, metadata_csv: Path) -> pd.Series:
    path = find_csv(root, "mimic-cxr-2.0.0-split.csv")
    rows = read_cells(path, SPLIT_HEADER)
    parts = one_of(SPLITS, rows["split"], path).set_axis(once(rows["dicom_id"], path))
    refuse(images, ~images.isin(parts.index), metadata_csv, f"has no row in {path.name}")
    return images.map(parts)


def _labels(root: Path, studies: pd.Series) -> pd.DataFrame:
    """`label:NAME` of each of `studies`."""
    path = find_csv(root, "mimic-cxr-2.0.0-chexpert.csv")
    rows = read_cells(path, LABEL_HEADER)
    lacking = set(studies).difference(once(rows["study_id"], path))
    if len(lacking) > UNLABELLED:
        raise BadTable(f"{path} has no row for {len(lacking)} studies, {min(lacking)} among them. {RESTORE}")
    return pd.DataFrame(label_columns(rows, LABELS, path)).set_axis(rows["study_id"]).reindex(studies)


# --- the phantom -------------------------------------------------------------------------------------

BLANK_VIEW = 1  # person whose first picture has no ViewPosition
PROCEDURES = {"PA": "CHEST (PA AND LAT)", "AP": "CHEST (PORTABLE AP)", "LATERAL": "CHEST (PA AND LAT)"}
DIRECTIONS = {"PA": "postero-anterior", "AP": "antero-posterior", "LATERAL": "lateral"}


def write_phantom(root: Path, cohort: Cohort, workers: int) -> None:
    """Of twenty persons one is in the test and one in the validation part. Subjects are numbered from
    19999001 and studies from 59999001; past 999 they have nine digits, as no real one has.

    Every second test person shows one label of 5x200 and nothing else: by chance far fewer would, and in
    a small phantom nobody some of them."""
    studies = draw(cohort, partial(_write_person, root, cohort), workers=workers, label="drawing MIMIC-CXR")
    pictures = [picture for study in studies for picture in study.pictures]
    tables = {
        "metadata": (METADATA, [picture.metadata for picture in pictures]),
        "split": (SPLIT_HEADER, [picture.split for picture in pictures]),
        "chexpert": (LABEL_HEADER, [study.labels for study in studies]),
        "negbio": (LABEL_HEADER, [study.labels for study in studies]),  # the other labeller agrees
    }
    for name, (header, rows) in tables.items():
        write_csv(root / f"mimic-cxr-2.0.0-{name}.csv.gz", header, rows)
    stamp(root, cohort, {picture.image_id: picture.truth for picture in pictures})


class _Picture(NamedTuple):
    image_id: str
    metadata: list[object]  # cells of each table
    split: list[object]
    truth: dict[str, object]


class _Study(NamedTuple):
    labels: list[object]  # cells
    pictures: list[_Picture]


def _write_person(root: Path, cohort: Cohort, person: Person) -> list[_Study]:
    return [_write_study(root, cohort, person, study) for study in studies_of(cohort, person)]


def studies_of(cohort: Cohort, person: Person) -> tuple[Study, ...]:
    """The person's studies as they are written."""
    if person.number % 40:
        return person.studies
    rng = cohort.stream("5x200", person.number)
    label = SCORED[person.number // 40 % len(SCORED)]
    return tuple(with_only(study, label, rng) for study in person.studies)


def _write_study(root: Path, cohort: Cohort, person: Person, study: Study) -> _Study:
    subject_id = f"19999{person.number:03d}"
    study_id = f"59999{4 * (person.number - 1) + study.number:03d}"  # nobody has more than four
    folder = root / f"files/p{subject_id[:2]}/p{subject_id}/s{study_id}"
    rng = np.random.default_rng(study.seed)
    folder.mkdir(parents=True)
    text = report.mimic_text(report.write(person, study, rng), rng)
    folder.with_suffix(".txt").write_text(text, encoding="utf-8", newline="\n")
    cells = (f"{study.statements[name]:.1f}" if name in study.statements else "" for name in LABELS)
    return _Study(
        [subject_id, study_id, *cells],
        [
            _write_picture(folder, cohort, subject_id, study_id, person, study, picture)
            for picture in study.pictures
        ],
    )


def _write_picture(
    folder: Path,
    cohort: Cohort,
    subject_id: str,
    study_id: str,
    person: Person,
    study: Study,
    picture: Picture,
) -> _Picture:
    rng = cohort.stream("file", person.number, study.number, picture.number)
    image_id = "-".join(rng.bytes(4).hex() for _ in range(5))
    height, width = cohort.size
    drawn = render(person, study, picture, height=height, width=width, dials=cohort.dials)
    save_jpeg(folder / f"{image_id}.jpg", drawn.pixels)
    blank = person.number == BLANK_VIEW and study.number == picture.number == 1
    metadata = {
        "dicom_id": image_id,
        "subject_id": subject_id,
        "study_id": study_id,
        "PerformedProcedureStepDescription": PROCEDURES[picture.view],
        "ViewPosition": "" if blank else picture.view,
        "Rows": height,
        "Columns": width,
        "StudyDate": f"{2180 + study.number}0506",  # shifted into the future, as the official dates
        "StudyTime": f"{rng.integers(24):02d}{rng.integers(60):02d}14.531",
        "ProcedureCodeSequence_CodeMeaning": PROCEDURES[picture.view],
        "ViewCodeSequence_CodeMeaning": DIRECTIONS[picture.view],
        "PatientOrientationCodeSequence_CodeMeaning": "Recumbent" if picture.view == "AP" else "Erect",
    }
    split = {0: "test", 10: "validate"}.get(person.number % 20, "train")
    return _Picture(
        image_id,
        [metadata[name] for name in METADATA],
        [image_id, study_id, subject_id, split],
        truth(person, study, picture, drawn),
    )
