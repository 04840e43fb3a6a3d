"""Words a study as a radiologist would, and lays the text out as MIMIC-CXR stores it.

Apart from words.py, which holds the wordings, so that this file is only about what is said, where and in
which order. Sentences keep to one polarity: asserted, hedged or denied.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.phantom.anatomy import BORROWED, Finding, Person, Study, devices, level
from harness.phantom.words import (
    ASIDES,
    DENIED,
    DEVICES,
    HEDGED,
    OPENINGS,
    PRESENT,
    PRESENT_TWO,
    REASONS,
    WELL,
    WORDS,
    Words,
)

LAYOUTS: Mapping[str, float] = {  # share of reports that keep their sections in that way
    "normal": 0.84,
    "no findings": 0.08,
    "no impression": 0.04,
    "no headers": 0.01,  # the text is the last paragraph, under no header of its own
    "typo": 0.01,  # IMPRESSON
    "joint": 0.01,  # FINDINGS AND IMPRESSION
    "addendum": 0.01,
}
LINE = 79  # characters, the leading space included


@dataclass(frozen=True)
class Report:
    findings: str  # what is seen and what is not
    impression: str  # what it comes to
    examination: str
    indication: str


def write(person: Person, study: Study, rng: np.random.Generator) -> Report:
    """Says exactly `study.statements`: every one of them in the findings, apart from "Pneumonia" and
    "No Finding", which are conclusions and stand in the impression."""
    views = [picture.view for picture in study.pictures]
    examination = "CHEST (PORTABLE AP)" if "AP" in views else f"CHEST ({' AND '.join(views)})"
    sex = "woman" if person.sex == "F" else "man"
    indication = f"___ year old {sex} with {_pick(REASONS, rng)}"
    return Report(_findings(study, rng), _impression(study, rng), examination, indication)


def mimic_text(report: Report, rng: np.random.Generator, *, layout: str | None = None) -> str:
    """The report as a MIMIC-CXR file. `layout` is one of LAYOUTS; None draws one by its share."""
    layout = layout or str(rng.choice(list(LAYOUTS), p=list(LAYOUTS.values())))
    both = f"{report.findings} {report.impression}"
    sections = [
        ("EXAMINATION", report.examination),
        ("INDICATION", f"{report.indication}  // evaluate for acute process"),
        (
            "TECHNIQUE",
            "Chest radiograph, " + ("single view." if "AND" not in report.examination else "two views."),
        ),
        ("COMPARISON", _pick(("___.", "Chest radiograph from ___."), rng)),
    ]
    sections += {
        "no findings": [("IMPRESSION", report.impression)],
        "no impression": [("FINDINGS", report.findings)],
        "no headers": [("", both)],
        "typo": [("FINDINGS", report.findings), ("IMPRESSON", report.impression)],
        "joint": [("FINDINGS AND IMPRESSION", both)],
    }.get(layout, [("FINDINGS", report.findings), ("IMPRESSION", report.impression)])

    lines = []
    if layout == "addendum":
        note = "The findings were discussed by Dr. ___ with Dr. ___ by telephone on ___ at ___."
        lines += [_centred("FINAL ADDENDUM"), *_section("ADDENDUM", note), " " + "_" * (LINE - 1)]
    lines.append(_centred("FINAL REPORT"))
    for header, text in sections:
        lines += _section(header, text)
    return "\n".join(lines[:-1]) + "\n"


def _centred(title: str) -> str:
    return " " * ((LINE - len(title)) // 2) + title


def _section(header: str, text: str) -> list[str]:
    """Lines of one section and the blank one after it; long sections start below their header."""
    above = header in ("FINDINGS", "IMPRESSION", "IMPRESSON", "FINDINGS AND IMPRESSION")
    body = text if above or not header else f"{header}:  {text}"
    wrapped = [f" {line}" for line in textwrap.wrap(body, LINE - 1, break_on_hyphens=False)]
    return [*([f" {header}: ", " "] if above else []), *wrapped, " "]


def _findings(study: Study, rng: np.random.Generator) -> str:
    blocks = [_describe(study, name, value, rng) for name, value in study.statements.items() if name in WORDS]
    blocks = [block for block in blocks if block]
    blocks += _denials([name for name, value in study.statements.items() if value == 0], rng)
    count = int(rng.integers(1, 5))
    blocks += [str(aside) for aside in rng.choice(ASIDES, size=count, replace=False)]
    rng.shuffle(blocks)
    if rng.random() < 0.6:
        blocks = [_pick(OPENINGS[picture.view], rng) for picture in study.pictures] + blocks
    return " ".join(blocks)


def _describe(study: Study, name: str, value: int, rng: np.random.Generator) -> str:
    """The sentences that assert or hedge one finding; nothing for what is denied, or for a conclusion."""
    if value == 0 or name == "Pneumonia":
        return ""
    if value == 1 and name == "Support Devices":
        (finding,) = _truth(study, name)
        return " ".join(
            _pick(DEVICES[kind], rng).format(height=rng.integers(3, 7)) for kind in devices(finding)
        )
    words = WORDS[name]
    slots = _slots(study, name)
    if value == 1 and words.seen and rng.random() < 0.35:
        return _pick(words.seen, rng).format(**slots)
    phrase, plural = _phrase(words, slots, rng)
    if value == -1:
        return _sentence(_pick([frame for frame in HEDGED if not (plural and " is " in frame)], rng), phrase)
    return _sentence(_pick(PRESENT_TWO if plural else PRESENT, rng), phrase)


def _denials(names: list[str], rng: np.random.Generator) -> list[str]:
    """Some denials have a sentence of their own, the others share one: "no effusion or pneumothorax"."""
    rng.shuffle(names)
    alone = [name for name in names if WORDS[name].normal and rng.random() < 0.5]
    together = [_pick(WORDS[name].absent, rng) for name in names if name not in alone]
    sentences = [_pick(WORDS[name].normal, rng) for name in alone]
    while together:
        size = int(rng.integers(1, 4))
        sentences.append(_pick(DENIED, rng).format(list=_listed(together[:size], "or")))
        together = together[size:]
    return sentences


def _impression(study: Study, rng: np.random.Generator) -> str:
    if study.statements.get("No Finding") == 1:
        return _pick(WELL, rng)
    said = [(name, study.statements[name]) for name in WORDS if study.statements.get(name)]
    phrases = {name: _phrase(WORDS[name], _slots(study, name), rng)[0] for name, _ in said}
    certain = [_bare(phrases[name]) for name, value in said if value == 1 and name != "Support Devices"]
    items = []
    while certain:
        size = int(rng.integers(1, 4))
        items.append(_capital(_listed(certain[:size], "and")) + ".")
        certain = certain[size:]
    items += [_sentence(_pick(HEDGED[:4], rng), phrases[name]) for name, value in said if value == -1]
    if study.statements.get("Support Devices") == 1 and rng.random() < 0.5:
        items.append(_pick(("Support devices in standard position.", "Support devices as described."), rng))
    if len(items) > 1 and rng.random() < 0.4:
        return " ".join(f"{number}. {item}" for number, item in enumerate(items, start=1))
    return " ".join(items)


def _truth(study: Study, name: str) -> list[Finding]:
    names = BORROWED.get(name, (name,))
    return [finding for finding in study.findings if finding.name in names]


def _slots(study: Study, name: str) -> dict[str, str]:
    """What the phrases of `name` are filled with: the truth, or what the reader imagines in its place."""
    imagined = Finding(name, 0.2, "left" if study.seed % 2 else "right", study.seed)
    finding = next(iter(_truth(study, name)), imagined)
    side = finding.side or "both"
    both, low = side == "both", level(finding)
    slots = {
        "side": "bilateral" if both else side,
        "size": WORDS[name].sizes[(finding.severity > 0.45) + (finding.severity > 0.7)],
        "zone": ("upper", "mid", "lower")[(low > 0.4) + (low > 0.65)],
        "lung": "both lungs" if both else f"the {side} lung",
        "base": "both bases" if both else f"the {side} base",
        "angle": "both costophrenic angles" if both else f"the {side} costophrenic angle",
        "has": "have" if both else "has",
        "shows": "show" if both else "shows",
    }
    return slots | {name.capitalize(): _capital(slots[name]) for name in ("lung", "base")}


def _phrase(words: Words, slots: Mapping[str, str], rng: np.random.Generator) -> tuple[str, bool]:
    """A noun phrase, and whether it is a plural."""
    plural = bool(words.two) and slots["side"] == "bilateral"
    phrase = _pick(words.two if plural else words.one, rng).format(**slots)
    return (f"an {phrase[2:]}" if phrase.startswith("a ") and phrase[2] in "aeiou" else phrase), plural


def _sentence(frame: str, phrase: str) -> str:
    return _capital(frame.format(it=phrase, It=phrase, bare=_bare(phrase)))


def _bare(phrase: str) -> str:
    return phrase.removeprefix("a ").removeprefix("an ")


def _listed(parts: Sequence[str], last: str) -> str:
    """ "a", "a or b", "a, b, or c"."""
    if len(parts) < 3:
        return f" {last} ".join(parts)
    return f"{', '.join(parts[:-1])}, {last} {parts[-1]}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _pick(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]
