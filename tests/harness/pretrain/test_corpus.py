"""From a table of pictures and reports to a corpus: who is in it, and texts prepared once."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from harness.contracts import Profile, Split
from harness.errors import BadTable, CorruptCache, DataError
from harness.pretrain import corpus
from harness.pretrain.corpus import Corpus
from tests.fakes import PROFILE, Tiny

assert PROFILE.recipe is not None
BOTH = replace(PROFILE, recipe=replace(PROFILE.recipe, text_units=("findings", "impression")))

FINDINGS = [
    "clear lungs",
    "",
    "an effusion",
    "clear lungs",
    "",
    "a longer one: small effusion",
    "line",
    "",
] * 3
IMPRESSION = ["normal", "edema", "", "normal", "", "effusion", "", "edema"] * 3
LATERAL = 6  # rows 6, 14 and 22


@pytest.fixture
def frame(tmp_path: Path) -> pd.DataFrame:
    """24 pictures of 12 persons, each a grey level of its own; of rows 4, 12 and 20 nothing is told."""
    rows = []
    for number, (findings, impression) in enumerate(zip(FINDINGS, IMPRESSION, strict=True)):
        path = tmp_path / f"{number}.png"
        Image.fromarray(np.full((10, 10), 10 * number, np.uint8)).save(path)
        person = f"p{number // 2:02d}"
        rows.append((f"i{number:02d}", str(path), person, number % 8 != LATERAL, "", findings, impression))
    columns = ["image_id", "path", "person_id", "frontal", "split", "findings", "impression"]
    return pd.DataFrame(rows, columns=columns).assign(study_id="")


def build(
    frame: pd.DataFrame,
    home: Path,
    method: Tiny | None = None,
    *,
    split: Split = Split(test=0.25, validation=0.25),  # noqa: B008 - frozen
    profile: Profile = BOTH,
) -> Corpus:
    places: dict[str, Any] = {"images": home / "images", "texts": home / "texts", "workers": 1}
    return corpus.build("toy", "phantom", frame, split, profile, method or Tiny(), **places)


# --- who is in it -------------------------------------------------------------------------------------


def test_frontal_pictures_of_which_something_is_told_are_in(frame: pd.DataFrame, home: Path) -> None:
    found = build(frame, home)
    kept = [row for row in range(24) if row % 8 not in (LATERAL, 4)]
    assert found.ids == [f"i{row:02d}" for row in kept]
    assert found.pixels[:, 0, 0].tolist() == [10 * row for row in kept]
    only = build(frame, home, profile=PROFILE)  # a method that reads findings alone
    assert only.ids == [f"i{row:02d}" for row in range(24) if FINDINGS[row] and row % 8 != LATERAL]


def test_a_missing_section_is_not_present(frame: pd.DataFrame, home: Path) -> None:
    found = build(frame, home)
    rows = [int(name[1:]) for name in found.ids]
    for unit, texts in (("findings", FINDINGS), ("impression", IMPRESSION)):
        assert found.texts[unit].present.tolist() == [texts[row] != "" for row in rows]


def test_no_person_is_in_two_parts(frame: pd.DataFrame, home: Path) -> None:
    found = build(frame, home)
    person = {name: int(name[1:]) // 2 for name in found.ids}
    train, validation = ({person[found.ids[row]] for row in part} for part in (found.train, found.validation))
    assert train and validation and not train & validation
    assert len(train | validation) < len(set(person.values()))  # the rest is the test part, never looked at


def test_official_parts_are_kept(frame: pd.DataFrame, home: Path) -> None:
    frame["split"] = ["train"] * 12 + ["validate"] * 6 + ["test"] * 6
    found = build(frame, home, split=Split(test="test", validation="validate", train="train"))
    assert {found.ids[row] for row in found.train} <= {f"i{row:02d}" for row in range(12)}
    assert {found.ids[row] for row in found.validation} <= {f"i{row:02d}" for row in range(12, 18)}


@pytest.mark.parametrize(("column", "value"), [("impression", ""), ("frontal", False)])
def test_a_table_without_any_pair_is_an_error(
    frame: pd.DataFrame, home: Path, column: str, value: object
) -> None:
    frame[column] = value
    with pytest.raises(DataError, match="toy: no frontal picture has a report with"):
        build(frame, home)


@pytest.mark.parametrize("part", ["training", "validation"])
def test_reports_of_marks_alone_are_nothing_to_train_on(frame: pd.DataFrame, home: Path, part: str) -> None:
    found = build(frame, home)
    rows = found.train if part == "training" else found.validation
    frame.loc[frame["image_id"].isin([found.ids[row] for row in rows]), "impression"] = "___ ..."
    with pytest.raises(
        DataError, match=f"toy: the method finds no word in any impression of the {part} part"
    ):
        build(frame, home)


def test_a_table_without_the_column_is_named(frame: pd.DataFrame, home: Path) -> None:
    with pytest.raises(BadTable, match=r"toy: the table has no column 'impression'\. Use another corpus"):
        build(frame.drop(columns="impression"), home)


# --- texts --------------------------------------------------------------------------------------------


def test_each_distinct_text_is_prepared_once_and_found_again(frame: pd.DataFrame, home: Path) -> None:
    method = Tiny()
    found = build(frame, home, method)
    told = {text for row in range(24) for text in (FINDINGS[row], IMPRESSION[row]) if row % 8 != LATERAL}
    assert sorted(method.prepared) == sorted(told - {""})
    texts = found.texts["findings"]
    for place, name in enumerate(found.ids):
        if text := FINDINGS[int(name[1:])]:
            assert torch.equal(texts.prepared[texts.row[place]], Tiny().prepare_text([text])[0])


def test_prepared_texts_are_read_the_second_time(frame: pd.DataFrame, home: Path) -> None:
    first, method = build(frame, home), Tiny()
    again = build(frame, home, method)
    assert method.prepared == []
    assert again.fingerprint == first.fingerprint
    for unit, texts in first.texts.items():
        for field in ("prepared", "row", "present"):
            assert torch.equal(getattr(again.texts[unit], field), getattr(texts, field))


def test_another_encoder_or_another_report_is_prepared_anew(frame: pd.DataFrame, home: Path) -> None:
    build(frame, home)
    other, method = Tiny(), Tiny()
    other.text_key = "letters, but others"
    build(frame, home, other)
    assert len(other.prepared) == 6
    frame.loc[0, "findings"] = "clear lungs, no effusion"
    build(frame, home, method)
    assert "clear lungs, no effusion" in method.prepared
    assert "edema" not in method.prepared  # the impressions are as they were


def test_many_texts_are_prepared_in_chunks(
    frame: pd.DataFrame, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = build(frame, home / "whole")
    monkeypatch.setattr(corpus, "CHUNK", 2)
    chunked = build(frame, home / "chunked")
    assert torch.equal(chunked.texts["findings"].prepared, whole.texts["findings"].prepared)


def test_a_damaged_cache_of_texts_is_refused(frame: pd.DataFrame, home: Path) -> None:
    build(frame, home)
    path = next((home / "texts").iterdir())
    content = bytearray(path.read_bytes())
    content[-40] ^= 1  # in the last feature
    path.write_bytes(content)
    with pytest.raises(CorruptCache, match=rf"{path.name} .*Delete it and run again"):
        build(frame, home)


# --- its name -----------------------------------------------------------------------------------------


def test_the_fingerprint_is_that_of_pictures_reports_and_split(frame: pd.DataFrame, home: Path) -> None:
    prints = {build(frame, home).fingerprint}
    prints.add(build(frame, home, split=Split(test=0.25, validation=0.25, seed=1)).fingerprint)
    reworded = frame.copy()
    reworded.loc[0, "findings"] = "lungs are clear"
    prints.add(build(reworded, home).fingerprint)
    Image.fromarray(np.full((10, 10), 7, np.uint8)).save(frame.loc[0, "path"])
    prints.add(build(frame, home).fingerprint)
    assert len(prints) == 4


def test_a_study_is_one_person_s(frame: pd.DataFrame, home: Path) -> None:
    """Ids of studies may be unique within a person only, or not known at all."""
    frame["study_id"] = ["a", "a", "a", "b", "", ""] * 4
    found = build(frame, home)
    names = dict(zip(frame["image_id"], zip(frame["person_id"], frame["study_id"], strict=True), strict=True))
    for one, two in itertools.combinations(range(len(found.ids)), 2):
        same = names[found.ids[one]] == names[found.ids[two]] and names[found.ids[one]][1] != ""
        assert (found.studies[one] == found.studies[two]) == same
    assert len(set(found.studies.tolist())) < len(found.ids)
