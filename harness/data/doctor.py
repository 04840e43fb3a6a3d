"""Looks a download over before a night of training does: the right release, all of it, and pictures that show
what they should.

Apart because nothing else may depend on it: it reports what it finds, each with its cure, and changes
nothing. A finding *matters* if results computed from this folder would not be those of the dataset as its
makers gave it out; others are only good to know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from harness.contracts import DataKind, Dataset, DatasetCard, PublishedSplit, Variant
from harness.data import splits
from harness.data import table as tables
from harness.data.locate import Located
from harness.data.looks import DARK_BELOW, INVERTED_BELOW, Look, likeness, look
from harness.data.table import UNKNOWN
from harness.errors import HarnessError
from harness.parallel import parallel_map

SAMPLE = 500
"""Pictures opened unless all are asked for: what is wrong with 1 % of them is seen in 99 of 100 runs. A
duplicate is seen only if both copies are opened."""
EXAMPLES = 3
FEW_REPORTS = 0.05
"""Share of pictures whose report may have neither section: 0.5 % of Open-I's official ones. More is a
download that was cut short, or reports in a layout that is not read."""


@dataclass(frozen=True)
class Finding:
    name: str
    matters: bool  # results would change
    count: int  # pictures, unless `says` counts something else
    examples: tuple[str, ...]
    says: str
    cure: str


@dataclass(frozen=True)
class Report:
    dataset: str
    root: Path
    kind: DataKind
    release: str  # the variant of the card whose counts fit, or ""
    images: int
    looked_at: int
    findings: tuple[Finding, ...]

    @property
    def sound(self) -> bool:
        return not any(finding.matters for finding in self.findings)


def examine(
    name: str, card: DatasetCard, reader: Dataset, located: Located, *, everything: bool, workers: int
) -> Report:
    """Reads the tables and opens a sample of the pictures, or all with `everything`."""
    try:
        frame = tables.read(reader, located.root)
    except HarnessError as error:
        wrong = Finding("not readable", True, 1, (), str(error), "Do as it says, then ask again")
        return Report(name, located.root, located.kind, "", 0, 0, (wrong,))
    release = tables.release(frame, card)
    findings = [*_counts(frame, card, located.kind, release), *_labels(frame, card), *_people(frame, card)]
    if card.corpus:
        findings += _reports(frame)
    here = np.array([Path(path).is_file() for path in frame["path"]])
    findings += _missing(frame[~here], card)
    rows = np.flatnonzero(here)
    if not everything and len(rows) > SAMPLE:
        rows = np.sort(np.random.default_rng(0).choice(rows, SAMPLE, replace=False))
    seen = frame.iloc[rows].reset_index(drop=True)
    paths = [Path(path) for path in seen["path"]]
    looks = list(parallel_map(look, paths, workers=workers, label=f"looking at {name}"))
    findings += _pictures(seen, looks)
    return Report(name, located.root, located.kind, release, len(frame), len(rows), tuple(findings))


# --- tables ------------------------------------------------------------------------------------------


def _counts(frame: pd.DataFrame, card: DatasetCard, kind: DataKind, release: str) -> Iterator[Finding]:
    if kind == "phantom" or not card.variants:
        return
    if not release:
        yield _other_counts(frame, card)
    for variant in card.variants:
        if variant.name == release:
            yield from _prevalence(frame, variant)
            yield from _totals(frame, variant)


def _other_counts(frame: pd.DataFrame, card: DatasetCard) -> Finding:
    def differences(variant: Variant) -> dict[str, tuple[int, int]]:
        """Part, "images" where there is none -> images here and in the variant, where they differ."""
        here = frame["split"].value_counts().to_dict() if variant.parts else {"images": len(frame)}
        there = variant.parts or {"images": variant.images}
        parts = dict.fromkeys((*there, *here))
        pairs = {part: (int(here.get(part, 0)), there.get(part, 0)) for part in parts}
        return {part: pair for part, pair in pairs.items() if pair[0] != pair[1]}

    nearest = min(card.variants, key=lambda variant: abs(variant.images - len(frame)))
    found = differences(nearest)
    told = ", ".join(f"{part or 'no part'} {here:,} of {there:,}" for part, (here, there) in found.items())
    return Finding(
        "counts",
        True,
        sum(abs(here - there) for here, there in found.values()),
        (),
        f"no known release has these counts. Nearest is {nearest.name!r}: {told}",
        f"Complete the download: {card.source}. Of a subset on purpose, scores are not those of the dataset",
    )


def _prevalence(frame: pd.DataFrame, variant: Variant) -> Iterator[Finding]:
    for part, labels in variant.positives.items():
        rows = frame[frame["split"] == part] if part else frame
        for label, expected in labels.items():
            if f"label:{label}" not in rows:
                continue
            count = int(rows[f"label:{label}"].eq(1).sum())
            if count != expected:
                yield Finding(
                    "prevalence",
                    True,
                    abs(count - expected),
                    (label,),
                    f"{label}: {count:,} pictures{f' of {part}' if part else ''} have it, {expected:,} in "
                    f"the official files of {variant.name!r}",
                    "Restore the label file from the download: this one was edited or is of another release",
                )


TOTALS: Mapping[str, tuple[str, Callable[[pd.Series], float]]] = {  # of which column, and how it is counted
    "rows": ("rows", lambda rows: rows.map(len).sum()),
    "boxes": ("boxes", lambda boxes: boxes.map(len).sum()),
    "studies": ("study_id", lambda studies: studies.nunique()),
    "frontal pictures": ("frontal", lambda frontal: frontal.sum()),
}


def _totals(frame: pd.DataFrame, variant: Variant) -> Iterator[Finding]:
    """A label file cut to one row per picture has all pictures, and not all of their objects."""
    for name, expected in variant.totals.items():
        column, total = TOTALS[name]
        if column in frame and (count := int(total(frame[column]))) != expected:
            yield Finding(
                name,
                True,
                abs(count - expected),
                (),
                f"{count:,} {name} in all; the official files of {variant.name!r} have {expected:,}",
                "Restore the label file from the download: this one was edited or is of another release",
            )


def _labels(frame: pd.DataFrame, card: DatasetCard) -> Iterator[Finding]:
    """Whether each task has its labels and parts; a choice among another task's images is left out."""
    told: set[str] = set()
    for task in (task for task in card.tasks if task.balanced is None):
        try:
            kept = tables.for_task(frame, task)
            split = task.splits["clean"]
            assert not isinstance(split, PublishedSplit)
            splits.make(frame, split, frame["image_id"].isin(kept.frame["image_id"]).to_numpy())
        except HarnessError as error:
            yield Finding(f"{task.kinds[0]} task", True, 1, (), str(error), "Do as it says, then ask again")
            continue
        for column, label in enumerate(task.labels):
            unknown = kept.frame[kept.labels[:, column] == UNKNOWN]
            if len(unknown) and label not in told:
                told.add(label)
                yield Finding(
                    "unknown labels",
                    False,
                    len(unknown),
                    _examples(unknown["image_id"]),
                    f"the {task.kinds[0]} task counts them as neither positive nor negative for {label}",
                    "None is needed: they are left out of training and of scores for this label",
                )


def _people(frame: pd.DataFrame, card: DatasetCard) -> Iterator[Finding]:
    if not frame.attrs.get("persons_known", True):
        yield Finding(
            "persons",
            False,
            len(frame),
            (),
            "it is not known of all pictures whose they are: splits and intervals may count a person twice",
            f"Nothing need be done. If a list of persons can be used, the source says so: {card.source}",
        )
    for note in frame.attrs.get("notes", ()):
        yield Finding("note", False, 1, (), note, "None is needed, unless you expected otherwise")


def _reports(frame: pd.DataFrame) -> Iterator[Finding]:
    if missing := set(tables.SECTIONS).difference(frame):
        cure = "Give it, be it empty: see TABLE_COLUMNS in harness/contracts.py"
        yield Finding("reports", True, len(frame), (), f"the reader gives no column {min(missing)!r}", cure)
        return
    empty = frame[(frame[list(tables.SECTIONS)] == "").all(axis=1)]
    if len(empty):
        many = len(empty) > FEW_REPORTS * len(frame)
        yield Finding(
            "empty reports",
            many,
            len(empty),
            _examples(empty["image_id"]),
            f"{len(empty) / len(frame):.1%} of the pictures have a report without findings and impression",
            "Unpack the reports again: a few are so in the download, not as many"
            if many
            else "None is needed: a few are so in the download, and are left out of pre-training",
        )


# --- pictures ----------------------------------------------------------------------------------------


def _missing(missing: pd.DataFrame, card: DatasetCard) -> Iterator[Finding]:
    if len(missing):
        yield Finding(
            "missing",
            True,
            len(missing),
            _examples(missing["path"]),
            "the tables name these pictures, and they are not there",
            f"Complete the download: {card.source}",
        )


def _pictures(seen: pd.DataFrame, looks: Sequence[Look]) -> Iterator[Finding]:
    """`seen` has a row for each of `looks`."""
    refused = [shown.refused for shown in looks if shown.refused]
    if refused:
        yield Finding(
            "unreadable",
            True,
            len(refused),
            _examples(refused),
            "these pictures cannot be decoded; a run stops at them once the others are done",
            "Download them again; what is wrong with each is said behind its name",
        )
    constant = seen[[shown.constant for shown in looks]]
    if len(constant):
        yield Finding(
            "constant",
            True,
            len(constant),
            _examples(constant["image_id"]),
            "every pixel has the same grey",
            "Download them again. If they are so at the source, remove their rows and say so",
        )
    dark = seen[[not shown.constant and shown.brightest < DARK_BELOW for shown in looks]]
    if len(dark):
        yield Finding(
            "dark?",
            True,
            len(dark),
            _examples(dark["image_id"]),
            f"a suspicion: their brightest pixel has less than {DARK_BELOW:.0%} of white, as where 10 or 12 "
            "bits lie in a file of 16 that does not say so; encoders would see nearly black",
            "Look at them. Where they are so, write them again over the whole range (12 bits of 16: times "
            "16), or give the DICOM its window",
        )
    yield from _inverted(seen, looks)
    yield from _duplicates(seen, looks)


def _inverted(seen: pd.DataFrame, looks: Sequence[Look]) -> Iterator[Finding]:
    alike = np.array([0.0 if shown.small is None else likeness(shown.small) for shown in looks])
    inverted = seen[seen["frontal"].to_numpy() & (alike < INVERTED_BELOW)]
    if len(inverted):
        yield Finding(
            "inverted?",
            True,
            len(inverted),
            _examples(inverted["image_id"]),
            f"a suspicion: these frontal pictures correlate below {INVERTED_BELOW} with a typical chest "
            "(dark lungs, bright middle), as those do in which black and white are exchanged",
            "Look at them. Where black and white are exchanged, correct the file, or in a DICOM its "
            "Photometric Interpretation (0028,0004)",
        )


def _duplicates(seen: pd.DataFrame, looks: Sequence[Look]) -> Iterator[Finding]:
    digests = pd.Series([shown.digest.hex() for shown in looks], seen.index)
    told = digests[[not (shown.refused or shown.constant) for shown in looks]]
    groups = [seen.loc[rows] for rows in told.groupby(told).groups.values() if len(rows) > 1]
    across = [group for group in groups if group["person_id"].nunique() > 1]
    within = [group for group in groups if group["person_id"].nunique() == 1]
    for found, matters, says, cure in (
        (
            across,
            True,
            "the same pixels under several persons: a picture may be trained on and tested on",
            "Keep one of each, or give them one person; if they are so at the source, say so with the score",
        ),
        (within, False, "the same pixels twice for one person", "None is needed: a person is in one part"),
    ):
        if found:
            yield Finding(
                "duplicates",
                matters,
                sum(map(len, found)),
                _examples(" = ".join(group["image_id"]) for group in found),
                says,
                cure,
            )


def _examples(items: Iterable[object]) -> tuple[str, ...]:
    return tuple(str(item) for _, item in zip(range(EXAMPLES), items, strict=False))
