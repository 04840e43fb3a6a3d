"""The latent patient behind every phantom: who they are, what they have, what a reader said about it.

Apart because pictures (render.py), reports (report.py) and label files (tasks/) are all views of this one
state, so that they agree with each other. Every draw comes from a stream of its own, named by dataset,
person and study: a cohort can grow without changing the people it already has.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

import numpy as np

VERSION = 3
"""Counts changes of what a given cohort looks like or says; part of every phantom's stamp and folder name,
and of the fingerprint of what is measured on it."""

Side = Literal["left", "right", "both", ""]  # the patient's side; a frontal picture shows it mirrored
View = Literal["PA", "AP", "LATERAL"]

# Log-odds of a finding: base rate, then weights of the person's three hidden burdens. Heart failure brings
# a wide heart, oedema and effusions together; infection brings consolidation, collapse and effusions.
FINDINGS: Mapping[str, tuple[float, float, float, float]] = {
    # name: (base, heart, infection, trauma)
    "Cardiomegaly": (-1.3, 1.5, 0.0, 0.0),
    "Edema": (-1.7, 1.5, 0.3, 0.0),
    "Pleural Effusion": (-1.1, 1.0, 0.7, 0.3),
    "Consolidation": (-1.8, 0.0, 1.6, 0.0),
    "Atelectasis": (-1.4, 0.4, 0.9, 0.4),
    "Pneumothorax": (-2.9, 0.0, 0.0, 1.4),
    "Lung Lesion": (-2.8, 0.0, 0.3, 0.0),
    "Fracture": (-3.2, 0.0, 0.0, 1.3),
    "Support Devices": (-0.9, 0.7, 0.7, 0.7),  # a nuisance that goes with being ill, as in a real ward
    "Foreign Object": (-2.6, 0.0, 0.0, 0.0),  # buttons, coins, wires: never mentioned in a report
}

ONE_SIDED = frozenset({"Pneumothorax", "Lung Lesion", "Fracture"})
EITHER_SIDE = frozenset({"Pleural Effusion", "Consolidation", "Atelectasis"})

BORROWED: Mapping[str, tuple[str, ...]] = {  # what a reader may add -> the findings that it is about
    "Pneumonia": ("Consolidation",),
    "Lung Opacity": ("Consolidation", "Edema", "Atelectasis", "Lung Lesion"),
    "Enlarged Cardiomediastinum": ("Cardiomegaly",),
}

# How a reader words what is there: asserted, hedged, or passed over; and what is not there: denied or not.
HEDGED_PRESENT, MISSED_PRESENT = 0.12, 0.06
HEDGED_ABSENT, DENIED_ABSENT = 0.03, 0.45
ROUTINELY_DENIED = {"Pneumothorax": 0.8, "Pleural Effusion": 0.75, "Consolidation": 0.6, "Cardiomegaly": 0.55}


@dataclass(frozen=True)
class Dials:
    """How hard the phantom is. The defaults are the benchmark's own setting."""

    contrast: float = 1.0  # of the findings' signs against the picture
    noise: float = 1.0  # of the picture
    label_noise: float = 0.0  # share of training labels that are flipped in the label files
    confound: bool = False  # where a picture comes from follows from what it shows, and can be seen


@dataclass(frozen=True)
class Finding:
    """One thing that is truly there."""

    name: str
    severity: float  # 0.2 barely visible .. 1 gross
    side: Side
    seed: int  # of its shape and place, so that all pictures of a study show the same one


@dataclass(frozen=True)
class Picture:
    number: int  # 1, 2, ... within its study
    view: View
    seed: int  # of pose, exposure and noise


@dataclass(frozen=True)
class Study:
    number: int  # 1, 2, ... within its person
    findings: tuple[Finding, ...]
    statements: Mapping[str, int]  # 1 asserted, 0 denied, -1 hedged; what is not mentioned is not a key
    pictures: tuple[Picture, ...]
    seed: int  # of the report's wording

    def has(self, name: str) -> bool:
        return any(finding.name == name for finding in self.findings)


@dataclass(frozen=True)
class Person:
    number: int  # 1, 2, ... within its cohort
    sex: Literal["F", "M"]
    age: int  # years
    seed: int  # of the body: one person looks the same in all pictures
    studies: tuple[Study, ...]


@dataclass(frozen=True)
class Cohort:
    """`persons` people for one dataset. The same name and seed always begin with the same people."""

    dataset: str  # every dataset has people of its own
    persons: int
    seed: int
    size: tuple[int, int]  # height and width of a picture in pixels; layouts may turn or square it
    dials: Dials = field(default_factory=Dials)

    def people(self) -> Iterator[Person]:
        for number in range(1, self.persons + 1):
            yield self.person(number)

    def person(self, number: int) -> Person:
        rng = self.stream("person", number)
        sex: Literal["F", "M"] = "F" if rng.random() < 0.45 else "M"
        age = int(np.clip(rng.normal(61, 18), 0, 90))
        heart, infection, trauma = rng.normal(size=3) + np.array([(age - 61) / 40, 0.0, (45 - age) / 60])
        studies = 1 + int(rng.geometric(0.6) - 1 if rng.random() < 0.5 else 0)
        return Person(
            number,
            sex,
            age,
            _seed(rng),
            tuple(
                self._study(number, index, (heart, infection, trauma))
                for index in range(1, min(studies, 4) + 1)
            ),
        )

    def stream(self, *key: str | int) -> np.random.Generator:
        """The random stream of that name in this cohort."""
        words = [
            zlib.crc32(part.encode()) if isinstance(part, str) else part for part in (self.dataset, *key)
        ]
        return np.random.default_rng(np.random.SeedSequence([self.seed, *words]))

    def describe(self) -> dict[str, object]:
        """What a phantom's stamp says about how it was made."""
        found = {"version": VERSION, **asdict(self)}
        if not self.dials.confound:  # came later: phantoms without it keep their names
            del found["dials"]["confound"]
        return found

    def _study(self, person: int, number: int, burdens: tuple[float, float, float]) -> Study:
        rng = self.stream("study", person, number)
        findings = tuple(_finding(name, rng) for name in FINDINGS if rng.random() < _chance(name, burdens))
        frontal: View = "AP" if rng.random() < 0.75 else "PA"
        views: list[View] = [frontal]
        if rng.random() < 0.2:
            views.append("LATERAL")
        pictures = tuple(Picture(index, view, _seed(rng)) for index, view in enumerate(views, start=1))
        return Study(number, findings, _statements(findings, rng), pictures, _seed(rng))


def with_finding(study: Study, name: str, rng: np.random.Generator) -> Study:
    """`study` with that finding too: for datasets whose makers chose their cases. What was said stays."""
    return study if study.has(name) else replace(study, findings=(*study.findings, _finding(name, rng)))


def with_only(study: Study, name: str, rng: np.random.Generator) -> Study:
    """`study` with that finding and no other, and a reader who asserts it and hedges nothing."""
    denied = {other: value for other, value in study.statements.items() if value == 0 and other != name}
    return replace(study, findings=(_finding(name, rng),), statements={name: 1, **denied})


def level(finding: Finding) -> float:
    """How far down its lung the finding's first patch lies, 0 top .. 1 base: most of them lie low."""
    return float(np.random.default_rng(finding.seed).beta(2.0, 1.3))


DEVICES = ("central line", "endotracheal tube", "enteric tube", "pacemaker", "chest tube")


def devices(finding: Finding) -> tuple[str, ...]:
    """Which devices a finding of "Support Devices" stands for: more of them the more severe it is."""
    order = np.random.default_rng(finding.seed).permutation(DEVICES).tolist()
    return tuple(order[: 1 + (finding.severity > 0.45) + (finding.severity > 0.75)])


def _chance(name: str, burdens: tuple[float, float, float]) -> float:
    base, *weights = FINDINGS[name]
    return float(1 / (1 + np.exp(-(base + np.dot(weights, burdens)))))


def _finding(name: str, rng: np.random.Generator) -> Finding:
    severity = 0.2 + 0.8 * rng.beta(2, 2)
    side: Side = ""
    if name in ONE_SIDED:
        side = "left" if rng.random() < 0.5 else "right"
    elif name in EITHER_SIDE:
        side = ("left", "right", "both")[rng.choice(3, p=[0.35, 0.35, 0.3])]
    return Finding(name, float(severity), side, _seed(rng))


def _statements(findings: tuple[Finding, ...], rng: np.random.Generator) -> dict[str, int]:
    """What a labeller finds in the report, under CheXpert's names: hedged more often when it is faint."""
    truth = {finding.name: finding for finding in findings}
    said: dict[str, int] = {}
    for name in FINDINGS:
        draw = rng.random()
        if name == "Foreign Object":
            continue
        if name in truth:
            hedged = HEDGED_PRESENT * (1.6 - truth[name].severity)
            if draw < MISSED_PRESENT:
                continue
            said[name] = -1 if draw < MISSED_PRESENT + hedged else 1
        elif draw < HEDGED_ABSENT:
            said[name] = -1
        elif draw < HEDGED_ABSENT + ROUTINELY_DENIED.get(name, DENIED_ABSENT) and name != "Support Devices":
            said[name] = 0
    _derived(said, rng)
    return said


def _derived(said: dict[str, int], rng: np.random.Generator) -> None:
    """Words a reader adds on top: a cause, a container, or that all is well."""
    if said.get("Consolidation") == 1 and rng.random() < 0.6:
        said["Pneumonia"] = 1 if rng.random() < 0.4 else -1
    opaque = any(said.get(name) == 1 for name in BORROWED["Lung Opacity"])
    if opaque and rng.random() < 0.4:
        said["Lung Opacity"] = 1
    if said.get("Cardiomegaly") == 1 and rng.random() < 0.2:
        said["Enlarged Cardiomediastinum"] = 1
    if not any(value for name, value in said.items() if name != "Support Devices"):
        said["No Finding"] = 1


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(2**32))
