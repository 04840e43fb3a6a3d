"""Open-I's Indiana University collection: 7,470 chest X-rays of 3,851 patients with their reports.

Small and free to download: the corpus that anyone can pre-train on. Facts about the layout: the 3,955 XML
files themselves, of which 104 name no picture. The collection's paper counts as many patients as reports
(Demner-Fushman et al. 2016), so a report's number is its patient.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from harness.contracts import DatasetCard, PhantomSize, Split, Task, Variant
from harness.errors import BadTable
from harness.phantom import Cohort, Person, draw, report, stamp, truth
from harness.phantom.render import render
from tasks._phantoms import save_png, write_csv
from tasks._pictures import list_files
from tasks._reports import Report
from tasks._tables import find_csv, finish, once, read_cells, read_files, translate

PARTS = Split(test=0.1, validation=0.1)  # of the corpus and of the task: nobody is in both
CARD = DatasetCard(
    title="Open-I Indiana University chest X-rays",
    source="NLMCXR_reports.tgz and NLMCXR_png.tgz of https://openi.nlm.nih.gov/faq, the pictures unpacked in "
    "a folder NLMCXR_png, and beside it indiana_projections.csv of "
    "https://www.kaggle.com/datasets/raddar/chest-xrays-indiana-university",
    licence="CC BY-NC-ND 4.0",
    citation="Demner-Fushman et al., Preparing a collection of radiology examinations for distribution and "
    "retrieval, JAMIA 2016",
    folders=("NLMCXR", "IU-XRay"),
    markers=("ecgen-radiology", "NLMCXR_png", "indiana_projections.csv*"),
    variants=(Variant("all pictures", 7_470, totals={"frontal pictures": 3_818}),),
    tasks=(
        Task(
            kinds=("retrieval",),
            labels=(),
            metric="recall_at_5",
            version=2,
            splits={"clean": PARTS},
            reports=True,
        ),
    ),
    corpus=PARTS,
    phantom={"demo": PhantomSize(1_600, 160, 132), "paper": PhantomSize(4_000, 390, 320)},
)

PROJECTION_HEADER = ("uid", "filename", "projection")
SHARED_NAME = r"(\d+_IM-.+)"  # what CXR2_IM-0652-1001, CXR1_1_IM-0001-3001 share with 2_IM-0652-1001.dcm.png


def read(root: Path) -> pd.DataFrame:
    """One row per picture; a report's text stands in the row of each of its pictures.

    Which pictures are frontal stands in the projections table only; the four that it lacks count as not.
    Reads every report: 0.2 ms each from a warm disk.
    """
    folder = root.resolve()
    paths = sorted(map(Path, list_files([folder / "ecgen-radiology"], ".xml").values()))
    found = zip(paths, read_files(read_report, paths, "reading reports"), strict=True)
    rows = pd.DataFrame(
        [(image, path.stem, *text) for path, (images, text) in found for image in images],
        columns=["image_id", "report", "findings", "impression"],
    )
    frontal = rows["image_id"].str.extract(SHARED_NAME, expand=False).map(read_projections(folder))
    return finish(
        {
            "image_id": rows["image_id"],
            "path": f"{folder}/NLMCXR_png/" + rows["image_id"] + ".png",
            "person_id": rows["report"],
            "study_id": rows["report"],
            "view": frontal.map({False: "LATERAL"}).fillna(""),  # frontal ones are PA or AP
            "frontal": frontal.eq(True),
            "findings": rows["findings"],
            "impression": rows["impression"],
        }
    )


def read_report(path: Path) -> tuple[list[str], Report]:
    """The ids of a report's pictures and its text, where XXXX stands for a hidden name. Raises BadTable."""
    try:
        citation = ET.parse(path)
        texts = {part.get("Label"): part.text or "" for part in citation.iter("AbstractText")}
        sections = Report(texts["FINDINGS"], texts["IMPRESSION"])
    except (ET.ParseError, KeyError) as error:
        raise BadTable(f"{path} is no report of Open-I: {error!r}. Restore it from the download") from error
    images = [picture.attrib["id"] for picture in citation.iter("parentImage")]
    return images, Report(*(" ".join(text.split()) for text in sections))


def read_projections(root: Path) -> pd.Series:
    """Whether a picture is frontal, by its name without .dcm.png."""
    path = find_csv(root, "indiana_projections.csv")
    rows = read_cells(path, PROJECTION_HEADER)
    frontal = translate(rows["projection"], {"Frontal": True, "Lateral": False}, path)
    return frontal.set_axis(once(rows["filename"], path).str.removesuffix(".dcm.png"))


# --- the phantom -------------------------------------------------------------------------------------

NO_FINDINGS, NO_IMPRESSION = 0.134, 0.009  # shares of official reports with that section empty
TWICE_NUMBERED, UNLISTED = 1, 2  # persons whose pictures show the oddities of names and projections table


def write_phantom(root: Path, cohort: Cohort, workers: int) -> None:
    """One report per person, numbered from 90001; the official ones end at 3999."""
    (root / "ecgen-radiology").mkdir()
    pictures = draw(cohort, partial(_write_person, root, cohort), workers=workers, label="drawing Open-I")
    (root / "ecgen-radiology" / "90000.xml").write_bytes(_xml(90_000, "", "No picture.", []))
    projections = [picture.projection for picture in pictures if picture.projection]
    write_csv(root / "indiana_projections.csv", PROJECTION_HEADER, projections)
    stamp(root, cohort, {picture.image_id: picture.truth for picture in pictures})


class _Written(NamedTuple):
    image_id: str
    projection: list[object]  # cells
    truth: dict[str, object]


def _write_person(root: Path, cohort: Cohort, person: Person) -> list[_Written]:
    study, number = person.studies[0], 90_000 + person.number
    height, width = cohort.size
    written = []
    for picture in study.pictures:
        name = f"{number}_IM-{person.number:04d}-{picture.number}001"
        image_id = f"CXR{number}_{name}" if person.number == TWICE_NUMBERED else f"CXR{name}"
        drawn = render(person, study, picture, height=height, width=width, dials=cohort.dials)
        save_png(root / "NLMCXR_png" / f"{image_id}.png", drawn.pixels)
        listed = person.number != UNLISTED
        side = "Lateral" if picture.view == "LATERAL" else "Frontal"
        projection = [number, f"{name}.dcm.png", side] if listed else []
        written.append(_Written(image_id, projection, truth(person, study, picture, drawn)))
    findings, impression = texts(cohort, person)
    xml = _xml(number, findings, impression, [picture.image_id for picture in written])
    (root / "ecgen-radiology" / f"{number}.xml").write_bytes(xml)
    return written


def texts(cohort: Cohort, person: Person) -> Report:
    """What the person's report says; a few lack a section."""
    study = person.studies[0]
    said = report.write(person, study, np.random.default_rng(study.seed))
    luck = cohort.stream("sections", person.number).random()
    findings = "" if luck < NO_FINDINGS else said.findings
    impression = "" if luck > 1 - NO_IMPRESSION else said.impression
    return Report(findings.replace("___", "XXXX"), impression.replace("___", "XXXX"))


def _xml(number: int, findings: str, impression: str, images: list[str]) -> bytes:
    citation = ET.Element("eCitation")
    ET.SubElement(citation, "uId", id=f"CXR{number}")
    article = ET.SubElement(ET.SubElement(citation, "MedlineCitation"), "Article")
    abstract = ET.SubElement(article, "Abstract")
    sections = {"COMPARISON": "None.", "INDICATION": "XXXX", "FINDINGS": findings, "IMPRESSION": impression}
    for label, text in sections.items():
        ET.SubElement(abstract, "AbstractText", Label=label).text = text
    for image in images:
        ET.SubElement(citation, "parentImage", id=image)
    ET.indent(citation, "   ")
    return bytes(ET.tostring(citation, encoding="utf-8", xml_declaration=True))
