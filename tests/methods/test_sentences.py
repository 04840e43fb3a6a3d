"""Cleaning and cutting reports, on small cases and on the real reports of Open-I."""

from __future__ import annotations

import tarfile
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from torch import Tensor

from methods._sentences import MOST, draw, released_sentences, sentences, tokenised


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("A 2.5 cm mass.", ["a 2.5 cm mass"], id="decimal"),
        pytest.param("Tip is .5 cm above. No edema.", ["tip is .5 cm above", "no edema"], id="bare decimal"),
        pytest.param("1. No edema. 2. Small effusion.", ["no edema", "small effusion"], id="list"),
        pytest.param("1) No edema. 2) Small effusion", ["no edema", "small effusion"], id="bracketed list"),
        pytest.param("No edema\n 2. Small effusion", ["no edema", "small effusion"], id="list in lines"),
        pytest.param("Seen on image 2. No edema.", ["seen on image 2", "no edema"], id="number at the end"),
        pytest.param("3 cm mass. 12 mm nodule", ["3 cm mass", "12 mm nodule"], id="number at the start"),
        pytest.param("Large left\npleural effusion.", ["large left pleural effusion"], id="wrapped line"),
        pytest.param("No edema\n\nHeart size normal", ["no edema", "heart size normal"], id="sections"),
        pytest.param("No edema.Heart normal..", ["no edema", "heart normal"], id="no space"),
        pytest.param("Told to Dr. ___ by phone at ___.", ["told to dr by phone at"], id="hidden name"),
        pytest.param("XXXX opacity, XXXX-year-old man", ["opacity year old man"], id="hidden words"),
        pytest.param("Stable. No edema is seen.", ["no edema is seen"], id="too short"),
        pytest.param("Normal.", ["normal"], id="one word"),
        pytest.param("1. Stable.  2. Normal.", ["stable normal"], id="short ones only"),
        pytest.param("___. \ufffd .\n", [], id="no words"),
        pytest.param("", [], id="nothing"),
    ],
)
def test_a_report_is_cut_into(text: str, expected: list[str]) -> None:
    assert sentences(text, 2) == expected


def test_the_released_rules_keep_their_faults() -> None:
    text = "1. A 2.5 cm mass.\nSeen by Dr. ___ caf\u00e9. Normal."
    assert released_sentences(text, 2) == ["5 cm mass", "seen by dr", "___ caf"]
    assert sentences(text, 2) == ["a 2.5 cm mass", "seen by dr caf\u00e9"]


def test_the_released_rules_read_prompts_of_one_word() -> None:
    assert released_sentences("Atelectasis", 2) == ["atelectasis"]
    assert released_sentences("Edema. Effusion.", 2) == ["edema effusion"]
    assert released_sentences(" . ", 2) == released_sentences("", 2) == []


def letters(texts: list[str]) -> Tensor:
    """Stands for a tokenizer: a letter's number in the alphabet, 0 beyond the end."""
    rows = [torch.tensor([ord(letter) - 96 for letter in text], dtype=torch.int32) for text in texts]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


def test_a_prepared_row_holds_the_whole_text_then_its_sentences() -> None:
    prepared = tokenised([["a", "bc"], [], ["d"]], lambda texts: letters([t.replace(" ", "") for t in texts]))
    assert prepared.tolist() == [
        [[1, 2, 3], [1, 0, 0], [2, 3, 0]],
        [[0, 0, 0]] * 3,
        [[4, 0, 0], [4, 0, 0], [0, 0, 0]],
    ]


def test_a_very_long_report_keeps_its_first_sentences() -> None:
    prepared = tokenised([["a"] * 100], lambda texts: torch.ones(len(texts), 2, dtype=torch.int32))
    assert prepared.shape == (1, 1 + MOST, 2)


def test_sentences_are_drawn_alike_and_no_empty_row_ever() -> None:
    prepared = tokenised([["a", "b", "c"], ["d"], ["e", "f"]], lambda t: letters([x[:1] for x in t]))
    torch.manual_seed(0)
    drawn = torch.cat([draw(prepared) for _ in range(3000)])[:, 0]
    counts = Counter(drawn.tolist())
    assert counts.keys() == {1, 2, 3, 4, 5, 6}
    assert counts[4] == 3000
    for number, share in ((1, 1 / 3), (2, 1 / 3), (3, 1 / 3), (5, 1 / 2), (6, 1 / 2)):
        assert abs(counts[number] / 3000 - share) < 0.04


def test_the_seed_decides_the_sentence() -> None:
    prepared = tokenised([["a", "b", "c"]] * 20, lambda t: letters([x[:1] for x in t]))
    torch.manual_seed(1)
    one = draw(prepared)
    torch.manual_seed(1)
    assert torch.equal(one, draw(prepared))


# --- the real reports ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reports(realdata: Path) -> list[tuple[str, str]]:
    found = []
    with tarfile.open(realdata / "text" / "NLMCXR_reports.tgz") as archive:
        for member in archive:
            file = archive.extractfile(member) if member.name.endswith(".xml") else None
            if file:
                texts = {
                    item.get("Label"): (item.text or "").strip()
                    for item in ElementTree.parse(file).iter("AbstractText")
                }
                found.append((texts.get("FINDINGS", ""), texts.get("IMPRESSION", "")))
    return found


@pytest.mark.slow
def test_every_real_report_is_cut(reports: list[tuple[str, str]]) -> None:
    assert len(reports) == 3955
    assert sum(bool(findings and impression) for findings, impression in reports) == 3419
    texts = ["\n\n".join(filter(None, report)) for report in reports]
    cut = [sentences(text, 3) for text in texts]
    assert all(bool(found) == bool(text) for found, text in zip(cut, texts, strict=True))
    assert max(map(len, cut)) == MOST
    words = {word for found in cut for sentence in found for word in sentence.split()}
    assert "xxxx" not in words
    assert all(word == word.lower() and word.strip("._,;:()") for word in words)
    for found in cut:
        assert all(len(sentence.split()) >= 3 for sentence in found) or len(found) == 1


def test_decimals_of_real_reports_survive(reports: list[tuple[str, str]]) -> None:
    findings = [findings for findings, _ in reports if "2.5" in findings.split()]
    assert findings
    assert all("2.5" in " ".join(sentences(text, 3)).split() for text in findings)
    assert not any("2.5" in " ".join(released_sentences(text, 2)).split() for text in findings)
