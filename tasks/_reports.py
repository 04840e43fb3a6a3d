"""Findings and impression of a free-text radiology report.

Apart because several corpora write the same kind of report, and because which words a method is trained on
is decided here. The rules are those that MIMIC-CXR's users agree on: a section starts at a line that opens
with capitals and a colon, and the last section of a name counts, since an addendum stands first. A header of
both names opens findings, where MIT-LCP's parser files it under impression: it describes.
"""

from __future__ import annotations

import difflib
import re
from functools import lru_cache
from typing import Literal, NamedTuple

Section = Literal["findings", "impression", "picture", "other"]

HEADER = re.compile(r"^[ \t]*([A-Z][A-Z ()/,&'-]+):", re.MULTILINE)
"""Officially after one space. None is accepted as well: some copies of the reports lost it."""
RULE = re.compile(r"^[ \t]*_{10,}[ \t]*$", re.MULTILINE)
"""Between addendum and report; `___` is a hidden name."""
BLANK_LINE = re.compile(r"\n[ \t]*\n")
PICTURE = re.compile(r"\b(VIEWS?|CHEST|RADIOGRAPHS?)\b")
"""A header such as `PA AND LATERAL VIEWS OF THE CHEST` opens what other readers call findings."""
UNSEEN = re.compile(
    r"\b(REASON|INDICATIONS?|HISTORY|PRIORS?|PREVIOUS|COMPARISONS?|EXAM\w*|TECHNIQUES?|PROCEDURES?|STUDY)\b"
)
"""What stands under such a header is not what the picture shows: `REASON FOR CHEST X-RAY`, `PRIOR CHEST
RADIOGRAPHS`."""
MORE = re.compile(r"\b(ADDITIONAL|OTHER)\b")
"""A header such as `ADDITIONAL FINDINGS` goes on with the section before it of that name."""
ALMOST = 0.87  # similarity of a header's misspelling (IMPRESSON, FINDNGS); COMPRESSION has 0.86 to IMPRESSION


class Report(NamedTuple):
    """Texts on one line each, hidden names kept as `___`; "" for a section that the report lacks."""

    findings: str
    impression: str


def parse(text: str) -> Report:
    """Sections of one report.

    Findings and impression under a common header are findings. Without any of these sections, what stands
    after the first blank line of the last section is taken as findings.
    """
    sections = [part for part in _sections(text.replace("\r\n", "\n")) if part[1].strip()]
    last = dict(sections)
    findings = last.get("findings", last.get("picture", ""))
    impression = last.get("impression", "")
    if not findings and not impression and sections:
        findings = "".join(BLANK_LINE.split(sections[-1][1], maxsplit=1)[1:])
    return Report(" ".join(findings.split()), " ".join(impression.split()))


def _sections(text: str) -> list[tuple[Section, str]]:
    """Kind and body of each section in order; what stands before the first header is one too."""
    found: list[tuple[Section, str]] = []
    for document in RULE.split(text):
        pieces = HEADER.split(document)  # body, header, body, header, body ...
        found.append(("other", pieces[0]))
        for header, body in zip(pieces[1::2], pieces[2::2], strict=True):
            kind = _kind(header)
            goes_on = kind != "other" and MORE.search(header)
            before = [text for name, text in found if name == kind][-1:] if goes_on else []
            found.append((kind, "\n".join([*before, body])))
    return found


@lru_cache(maxsize=4096)
def _kind(header: str) -> Section:
    words = re.findall(r"[A-Z]+", header)
    if any(_resembles(word, "FINDINGS") for word in words):
        return "findings"
    if any(_resembles(word, "IMPRESSION") for word in words) or "CONCLUSION" in words:
        return "impression"
    return "picture" if PICTURE.search(header) and not UNSEEN.search(header) else "other"


def _resembles(word: str, name: str) -> bool:
    return difflib.SequenceMatcher(None, word, name).ratio() >= ALMOST
