"""The section parser on a report of every shape, and on the real texts of Open-I."""

from __future__ import annotations

import csv
import gzip
import textwrap
from pathlib import Path

import pytest

from tasks._reports import parse

PLAIN = """\
                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)
 
 INDICATION:  ___ year old woman with cough.
 
 COMPARISON:  ___.
 
 FINDINGS:
 
 The heart is enlarged.  There is no
 pneumothorax.
 
 A line ends in the right atrium.
 
 IMPRESSION:
 
 Cardiomegaly.  Dr. ___ was told.
"""  # noqa: W293 - blank lines hold one space, as in the corpus

ADDENDUM = f"""\
                                 FINAL ADDENDUM
 ADDENDUM:
 
 The line was withdrawn after the study.
 
 IMPRESSION:  Line withdrawn.
 ______________________________________________________________________________
{PLAIN}"""  # noqa: W293

HEART = "The heart is enlarged. There is no pneumothorax. A line ends in the right atrium."


@pytest.mark.parametrize(
    ("text", "findings", "impression"),
    [
        pytest.param(PLAIN, HEART, "Cardiomegaly. Dr. ___ was told.", id="both"),
        pytest.param(
            PLAIN.replace("\n ", "\n"), HEART, "Cardiomegaly. Dr. ___ was told.", id="no leading space"
        ),
        pytest.param(PLAIN.replace("\n", "\r\n"), HEART, "Cardiomegaly. Dr. ___ was told.", id="windows"),
        pytest.param(ADDENDUM, HEART, "Cardiomegaly. Dr. ___ was told.", id="addendum"),
        pytest.param(
            PLAIN.replace("IMPRESSION", "IMPRESSON").replace("FINDINGS", "FINDNGS"),
            HEART,
            "Cardiomegaly. Dr. ___ was told.",
            id="misspelt headers",
        ),
        pytest.param(
            " INDICATION:  Cough.\n \n IMPRESSION:  No change.\n", "", "No change.", id="impression only"
        ),
        pytest.param(" FINDINGS:  Clear.\n \n IMPRESSION:\n \n", "Clear.", "", id="empty impression"),
        pytest.param(
            " IMPRESSION:  No change.\n \n COMPRESSION DEFORMITY:  T8.\n", "", "No change.", id="not misspelt"
        ),
        pytest.param(" FINDINGS AND IMPRESSION:\n Clear lungs.\n", "Clear lungs.", "", id="common header"),
        pytest.param(
            " IMPRESSION:  Early read.\n \n WET READ:  None.\n \n IMPRESSION:  Final read.\n",
            "",
            "Final read.",
            id="last impression",
        ),
        pytest.param(
            " PORTABLE AP CHEST:  Low volumes.\n \n IMPRESSION:  No change.\n",
            "Low volumes.",
            "No change.",
            id="findings under the picture's name",
        ),
        *(
            pytest.param(
                f" {header}:  Fever, cough.\n \n AP CHEST:  Clear.\n \n {header}:  Old.\n IMPRESSION:  No.\n",
                "Clear.",
                "No.",
                id=header.lower(),
            )
            for header in (
                "REASON FOR CHEST X-RAY",
                "INDICATION FOR CHEST RADIOGRAPH",
                "PRIOR CHEST RADIOGRAPHS",
                "PREVIOUS CHEST VIEWS",
                "COMPARISON RADIOGRAPHS",
                "CHEST EXAMINATION",
                "TECHNIQUE OF VIEWS",
                "HISTORY OF CHEST PAIN",
            )
        ),
        pytest.param(
            " FINDINGS:  Clear lungs.\n \n ADDITIONAL FINDINGS:  Scoliosis.\n \n IMPRESSION:  No.\n",
            "Clear lungs. Scoliosis.",
            "No.",
            id="findings that go on",
        ),
        pytest.param(
            " OTHER HISTORY:  Cough.\n \n OTHER FINDINGS:  Scoliosis.\n",
            "Scoliosis.",
            "",
            id="nothing before",
        ),
        pytest.param(
            "                FINAL REPORT\n HISTORY:  Cough.\n \n The lungs are\n clear.\n \n No effusion.\n",
            "The lungs are clear. No effusion.",
            "",
            id="last paragraph",
        ),
        pytest.param(
            " COMPARISON:  None.\n TECHNIQUE:  Portable.\n", "", "", id="neither: other sections do not count"
        ),
        pytest.param(
            "Portable chest.\n\nThe lungs are clear.\n", "The lungs are clear.", "", id="no headers"
        ),
        pytest.param(
            " FINDINGS:  Size: normal. ABG taken: no.\n", "Size: normal. ABG taken: no.", "", id="colons"
        ),
        pytest.param("", "", "", id="empty"),
    ],
)
def test_sections(text: str, findings: str, impression: str) -> None:
    assert parse(text) == (findings, impression)


def test_words_of_real_reports_survive_the_layout(realdata: Path) -> None:
    with gzip.open(realdata / "text" / "indiana_reports.csv.gz", "rt", encoding="utf-8", newline="") as file:
        pairs = [(row["findings"], row["impression"]) for row in csv.DictReader(file)]
    pairs = [pair for pair in pairs if all(pair) and "FINDINGS:" not in pair[1]]  # one holds a whole report
    assert len(pairs) > 3000
    for findings, impression in pairs:
        lines = ["FINDINGS:", "", *wrapped(findings), "", "IMPRESSION:", "", *wrapped(impression)]
        text = "FINAL REPORT\n" + "".join(f" {line}\n" for line in lines)
        assert parse(text) == (spaced(findings), spaced(impression))


def wrapped(text: str) -> list[str]:
    return textwrap.wrap(spaced(text), 78, break_long_words=False, break_on_hyphens=False)


def spaced(text: str) -> str:
    return " ".join(text.split())
