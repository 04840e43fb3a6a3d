"""A small labeller of its own reads the reports back: every statement is there, and nothing else."""

from __future__ import annotations

import re

import numpy as np
import pytest

from harness.phantom.anatomy import Cohort, Person, Study
from harness.phantom.report import LAYOUTS, Report, mimic_text, write

KEYWORDS = {
    "Cardiomegaly": r"cardiomegaly|\bheart\b|\bcardiac\b",
    "Edema": r"edema|vascular congestion",
    "Pleural Effusion": r"effusion|pleural fluid",
    "Consolidation": r"consolidation",
    "Atelectasis": r"atelectasis",
    "Pneumothorax": r"pneumothorax",
    "Lung Lesion": r"nodule|mass\b",
    "Fracture": r"fracture",
    "Support Devices": r"catheter|\btube\b|pacemaker|support devices?",
    "Pneumonia": r"pneumonia",
    "Lung Opacity": r"opacity|opacities",
    "Enlarged Cardiomediastinum": r"mediastinum|mediastinal",
}
HEDGE = r"possible|cannot be excluded|may\b|questionable|difficult to exclude"
NEGATION = r"\bno\b|\bnot\b|\bfree of\b|\bwithout\b|\bnormal\b"


def labels(text: str) -> dict[str, set[int]]:
    """Polarities with which each finding is mentioned, sentence by sentence."""
    found: dict[str, set[int]] = {}
    for sentence in re.split(r"(?<=\.)\s+", text.lower()):
        polarity = -1 if re.search(HEDGE, sentence) else 0 if re.search(NEGATION, sentence) else 1
        for name, pattern in KEYWORDS.items():
            if re.search(pattern, sentence):
                found.setdefault(name, set()).add(polarity)
    return found


@pytest.fixture(scope="module")
def reports() -> list[tuple[Study, Report]]:
    people = Cohort("reports", 450, 1, (64, 64)).people()
    return [
        (study, write(person, study, np.random.default_rng(study.seed)))
        for person in people
        for study in person.studies
    ]


def test_the_findings_word_every_statement_and_nothing_else(reports: list[tuple[Study, Report]]):
    for study, report in reports:
        expected = {
            name: {value}
            for name, value in study.statements.items()
            if name not in ("No Finding", "Pneumonia")
        }
        assert labels(report.findings) == expected, report.findings


def test_the_impression_words_what_matters_and_contradicts_nothing(reports: list[tuple[Study, Report]]):
    for study, report in reports:
        said = labels(report.impression)
        said.pop("Support Devices", None)
        expected = {
            name: {value}
            for name, value in study.statements.items()
            if value and name not in ("No Finding", "Support Devices")
        }
        assert said == expected, report.impression
        well = re.search(r"no (acute|radiographic)|normal|unremarkable", report.impression.lower())
        assert bool(well) == ("No Finding" in study.statements), report.impression


def test_all_kinds_of_statement_were_read(reports: list[tuple[Study, Report]]):
    """Guards the two tests above against a cohort too small to say anything."""
    seen = {(name, value) for study, _ in reports for name, value in study.statements.items()}
    assert seen >= {(name, value) for name in list(KEYWORDS)[:8] for value in (1, 0, -1)}
    assert seen >= {("Support Devices", 1), ("Pneumonia", 1), ("Pneumonia", -1), ("No Finding", 1)}


def test_what_lies_on_one_side_is_reported_there(reports: list[tuple[Study, Report]]):
    for study, report in reports:
        sentences = re.split(r"(?<=\.)\s+", report.findings.lower())
        for finding in study.findings:
            if finding.side not in ("left", "right") or study.statements.get(finding.name) != 1:
                continue
            wrong = {"left": r"\bright\b|bilateral|both", "right": r"\bleft\b|bilateral|both"}[finding.side]
            about = [sentence for sentence in sentences if re.search(KEYWORDS[finding.name], sentence)]
            assert about
            assert not any(re.search(wrong, sentence) for sentence in about), (finding, about)


def test_a_report_is_no_label_in_disguise(reports: list[tuple[Study, Report]]):
    assert len(reports) > 500
    assert len({report.findings for _, report in reports}) > 0.9 * len(reports)
    well = [report.impression for study, report in reports if "No Finding" in study.statements]
    assert len(set(well)) >= 6
    effusion = {
        sentence
        for study, report in reports
        for sentence in re.split(r"(?<=\.)\s+", report.findings)
        if study.statements.get("Pleural Effusion") == 1 and re.search(KEYWORDS["Pleural Effusion"], sentence)
    }
    assert len(effusion) > 25


def test_a_report_reads_well(reports: list[tuple[Study, Report]]):
    for _, report in reports:
        for text in (report.findings, report.impression):
            assert re.match(r"[A-Z1]", text)
            assert text.endswith(".")
            assert not re.search(r"[{}]|  |\.\.| \.|\ba [aeiou]|\ban [^aeiou]|, ,", text), text


def test_a_study_is_always_worded_the_same():
    person: Person = Cohort("reports", 1, 1, (64, 64)).person(1)
    first, again = (write(person, person.studies[0], np.random.default_rng(5)) for _ in range(2))
    assert first == again


# --- the MIMIC-CXR layout ---

REPORT = Report(
    findings="The heart is mildly enlarged. "
    + "There is no pleural effusion or pneumothorax. " * 3
    + "Lung volumes are low.",
    impression="Mild cardiomegaly.",
    examination="CHEST (PA AND LATERAL)",
    indication="___ year old woman with cough",
)


def laid_out(layout: str) -> str:
    return mimic_text(REPORT, np.random.default_rng(0), layout=layout)


def sections(text: str) -> dict[str, str]:
    """Headers as the public section parser of MIMIC-CXR knows them: newline, one space, capitals, colon."""
    parts = re.split(r"\n ([A-Z][A-Z ()/,-]+):\s", text)
    return {name: " ".join(body.split()) for name, body in zip(parts[1::2], parts[2::2], strict=True)}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_lines_keep_the_rules_of_the_corpus(layout: str):
    text = laid_out(layout)
    assert text.endswith("\n")
    lines = text.removesuffix("\n").split("\n")
    for line in lines:
        assert line.startswith(" ")
        assert len(line) <= 79
        assert line == " " or line.strip()
    title = next(line for line in lines if "FINAL REPORT" in line)
    left = len(title) - len(title.lstrip())
    assert abs(left - (79 - left - len("FINAL REPORT"))) <= 1
    assert "___" in text


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ("normal", {"FINDINGS": REPORT.findings, "IMPRESSION": REPORT.impression}),
        ("no findings", {"IMPRESSION": REPORT.impression}),
        ("no impression", {"FINDINGS": REPORT.findings}),
        ("no headers", {}),
        ("typo", {"FINDINGS": REPORT.findings, "IMPRESSON": REPORT.impression}),
        ("joint", {"FINDINGS AND IMPRESSION": f"{REPORT.findings} {REPORT.impression}"}),
        ("addendum", {"FINDINGS": REPORT.findings, "IMPRESSION": REPORT.impression}),
    ],
)
def test_each_layout_keeps_its_sections(layout: str, expected: dict[str, str]):
    found = sections(laid_out(layout))
    around = {"EXAMINATION", "INDICATION", "TECHNIQUE", "COMPARISON"}
    assert around <= set(found)
    assert {name: body for name, body in found.items() if name not in {*around, "ADDENDUM"}} == expected


def test_without_headers_the_text_is_the_last_paragraph():
    """The public parser takes what follows the last header's first blank line."""
    _, _, last = laid_out("no headers").partition(" COMPARISON:")
    _, _, paragraph = last.partition("\n \n")
    assert " ".join(paragraph.split()) == f"{REPORT.findings} {REPORT.impression}"


def test_an_addendum_comes_first_above_a_line():
    lines = laid_out("addendum").split("\n")
    line = next(number for number, text in enumerate(lines) if re.fullmatch(r" _{70,}", text))
    assert any("ADDENDUM" in text for text in lines[:line])
    assert "FINAL REPORT" in lines[line + 1]


def test_layouts_are_drawn_by_their_shares():
    rng = np.random.default_rng(0)
    texts = [mimic_text(REPORT, rng) for _ in range(3000)]
    shares = {
        "no findings": np.mean(["FINDINGS" not in text and "IMPRESS" in text for text in texts]),
        "no impression": np.mean(["IMPRESS" not in text and "FINDINGS" in text for text in texts]),
        "typo": np.mean(["IMPRESSON" in text for text in texts]),
        "addendum": np.mean(["ADDENDUM" in text for text in texts]),
    }
    assert sum(LAYOUTS.values()) == pytest.approx(1)
    for layout, share in shares.items():
        assert share == pytest.approx(LAYOUTS[layout], abs=0.015)
