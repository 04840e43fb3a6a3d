"""Pictures and reports to pre-train on: in memory or memory-mapped, so that a step reads and nothing else.

Apart because the loop should not know where data come from: texts are turned into what the method needs
once per corpus, pictures are decoded once, and both are cached.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from harness.contracts import DataKind, Profile, Split, TextMethod
from harness.data import arrays, cache, splits, table
from harness.errors import BadTable, DataError
from harness.files import hash_lines, hash_of
from harness.progress import Bar

CURE = "Use another corpus, or a method whose card asks for other text_units"
CHUNK = 256  # texts between two moves of the progress bar


@dataclass(frozen=True)
class Texts:
    """One unit of all reports, each distinct text prepared once."""

    prepared: Tensor  # [U, ...]
    row: Tensor  # [N] int64 into `prepared`
    present: Tensor  # [N] bool, false where the report lacks the unit or the method finds no words in it


@dataclass(frozen=True)
class Corpus:
    """Frontal pictures whose report has at least one of the units the method reads."""

    name: str
    kind: DataKind
    fingerprint: str  # of pictures, reports and split
    ids: Sequence[str]  # [N]
    studies: Tensor  # [N] int64, alike for pictures of one study
    pixels: np.ndarray  # [N, S, S] uint8, memory-mapped
    texts: Mapping[str, Texts]
    train: np.ndarray  # positions
    validation: np.ndarray


def build(
    name: str,
    kind: DataKind,
    frame: pd.DataFrame,
    split: Split,
    profile: Profile,
    method: TextMethod,
    *,
    images: Path,
    texts: Path,
    workers: int,
) -> Corpus:
    """From a dataset's table to a corpus. Raises BadTable when the table has no column for a unit of text,
    DataError when no report has that unit, or none of a part has words in it."""
    assert profile.recipe is not None
    units = profile.recipe.text_units
    chosen, reports = paired(frame, units, name)
    for unit in units:
        if (reports[unit][chosen] == "").all():
            raise DataError(f"{name}: no frontal picture has a report with {unit}. {CURE}")
    parts = splits.make(frame, split, chosen.to_numpy())
    frame, reports = frame[chosen].reset_index(drop=True), reports[chosen].reset_index(drop=True)
    study = frame["person_id"] + " " + frame["study_id"].where(frame["study_id"] != "", frame["image_id"])
    square = profile.preprocessing
    asked = cache.wanted(name, frame, square.stored, square.geometry)
    pictures = cache.open_images(asked, folder=images, workers=workers)
    read = {unit: _texts(reports[unit], unit, method, texts) for unit in units}
    for unit, found in read.items():
        for part, rows in (("training", parts.train), ("validation", parts.validation)):
            if not found.present[rows].any():
                raise DataError(f"{name}: the method finds no word in any {unit} of the {part} part. {CURE}")
    written = hash_lines(text for unit in units for text in reports[unit])
    return Corpus(
        name=name,
        kind=kind,
        fingerprint=hash_of(pictures.fingerprint, written, parts.digest(asked.ids)),
        ids=asked.ids,
        studies=torch.from_numpy(pd.factorize(study)[0]),
        pixels=pictures.pixels,
        texts=read,
        train=parts.train,
        validation=parts.validation,
    )


def paired(frame: pd.DataFrame, units: Sequence[str], corpus: str) -> tuple[pd.Series, pd.DataFrame]:
    """Which pictures are frontal and have a report with at least one of `units`, and the texts of all by
    unit. Raises BadTable when the table has no column for a unit."""
    for section in (section for unit in units for section in unit.split("+")):
        if section not in frame:
            raise BadTable(f"{corpus}: the table has no column {section!r}. {CURE}")
    reports = pd.DataFrame({unit: table.joined(frame, unit) for unit in units}, index=frame.index)
    return frame["frontal"] & (reports != "").any(axis=1), reports


def _texts(column: pd.Series, unit: str, method: TextMethod, folder: Path) -> Texts:
    distinct = sorted(set(column) - {""}, key=lambda text: (len(text), text))  # alike lengths pad little
    number = {text: row for row, text in enumerate(distinct)}
    prepared = _prepared(distinct, unit, method, folder)
    row = torch.tensor([number.get(text, 0) for text in column])
    readable = prepared.flatten(1).any(dim=1)  # a text of which the method keeps no word is all zeros
    return Texts(prepared, row, torch.tensor([text != "" for text in column]) & readable[row])


def _prepared(distinct: Sequence[str], unit: str, method: TextMethod, folder: Path) -> Tensor:
    path = folder / f"{hash_of(method.text_key, hash_lines(distinct))}.npy"
    if path.exists():
        return torch.tensor(arrays.load(path))
    with Bar(f"reading {unit}", len(distinct), "texts") as bar:
        done = []
        for start in range(0, len(distinct), CHUNK):
            done.append(method.prepare_text(distinct[start : start + CHUNK]))
            bar.advance(len(done[-1]))
    prepared = _stacked(done)
    arrays.save(path, prepared.numpy())
    return prepared


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    """All rows in one tensor, those of shorter texts filled up with zeros."""
    shape = [max(sizes) for sizes in zip(*(part.shape[1:] for part in parts), strict=True)]
    rows = parts[0].new_zeros(sum(map(len, parts)), *shape)
    first = 0
    for part in parts:
        rows[(slice(first, first + len(part)), *map(slice, part.shape[1:]))] = part
        first += len(part)
    return rows
