"""What a corpus makes of reports for methods that keep token ids: units, padding, texts without words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor

from harness.contracts import Profile, Split
from harness.data import table
from harness.pretrain import corpus
from methods.gloria import CARD


class Letters:
    """Prepares a text as its letters' numbers, in rows as long as the longest of the call."""

    text_key = "letters"

    def prepare_text(self, texts: Sequence[str]) -> Tensor:
        rows = [torch.tensor([ord(x) for x in text if x.isalpha()], dtype=torch.int32) for text in texts]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)[:, None]


@pytest.fixture
def frame(tmp_path: Path) -> pd.DataFrame:
    reports = [("ab", "c"), ("", "d"), ("e", ""), ("", ""), ("___", "___"), ("long" * 30, "")]
    reports += [("ab", "c")] * 6
    rows = []
    for number, (findings, impression) in enumerate(reports):
        path = tmp_path / f"{number}.png"
        Image.fromarray(np.full((8, 8), number, np.uint8)).save(path)
        rows.append((f"{number:02d}", str(path), f"p{number}", True, findings, impression))
    columns = ["image_id", "path", "person_id", "frontal", "findings", "impression"]
    return pd.DataFrame(rows, columns=columns).assign(split="", study_id="")


def built(frame: pd.DataFrame, home: Path, units: tuple[str, ...]) -> corpus.Corpus:
    demo = CARD.profiles["demo"]
    assert demo.recipe is not None
    profile: Profile = replace(demo, recipe=replace(demo.recipe, text_units=units))
    method: Any = Letters()
    folders = {"images": home / "images", "texts": home / "texts"}
    return corpus.build("x", "phantom", frame, Split(0.3, 0.3), profile, method, **folders, workers=1)


def word(text: corpus.Texts, row: int) -> str:
    return "".join(chr(number) for number in text.prepared[text.row[row]].flatten().tolist() if number)


def test_a_joined_unit_has_its_parts_in_their_order(frame: pd.DataFrame) -> None:
    assert table.joined(frame, "impression+findings")[:4] == ["c\n\nab", "d", "e", ""]
    assert table.joined(frame, "findings")[:4] == ["ab", "", "e", ""]


@pytest.mark.parametrize(
    ("units", "words"),
    [
        (("impression+findings",), {"00": "cab", "01": "d", "02": "e", "04": "", "05": "long" * 30}),
        (("impression",), {"00": "c", "01": "d", "04": ""}),
    ],
)
def test_a_pair_has_the_text_of_its_unit(
    units: tuple[str, ...], words: dict[str, str], frame: pd.DataFrame, home: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(corpus, "CHUNK", 2)  # so that rows of several lengths meet
    found = built(frame, home, units)
    (text,) = found.texts.values()
    rows = {name: row for row, name in enumerate(found.ids)}
    assert set(rows) == {*words, *(f"{number:02d}" for number in range(6, 12))}
    for name, expected in words.items():
        assert word(text, rows[name]) == expected
        assert text.present[rows[name]].item() == bool(expected)


def test_a_second_corpus_reads_the_same_from_the_cache(frame: pd.DataFrame, home: Path) -> None:
    one, other = (built(frame, home, ("findings", "impression")) for _ in range(2))
    for unit, text in one.texts.items():
        assert torch.equal(text.prepared, other.texts[unit].prepared)
        assert torch.equal(text.present, other.texts[unit].present)
    assert one.texts["findings"].present.tolist()[:3] == [True, False, True]
