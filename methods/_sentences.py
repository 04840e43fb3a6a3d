"""Reports as sentences of plain words, and one of them drawn per step.

Apart because methods that train on sentences differ in how short one may be, and in nothing else. The words
are those of GLoRIA's and MGCA's cleaning: lower case, without punctuation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from harness.files import file_hash
from methods._text import PAD

MOST = 24
"""Sentences of a report that can be drawn: the longest report of Open-I has 24, and every one more that is
kept costs its place in the tokens of all reports."""

BREAK = re.compile(
    r"""
    (?: ^ | (?<=[.!?][ ]) ) \d+ [.)] (?!\d)  # the number of an item, where a line or a sentence starts
    | (?<! \bdr ) [.!?]+ (?!\d)              # a full stop, neither of a decimal nor of "Dr. ___"
    | \n\ ?\n                                # a blank line: between two sections
    """,
    re.VERBOSE | re.MULTILINE,
)
WORD = re.compile(r"\d*\.\d+|\w+")
HIDDEN = re.compile(r"_+|xxxx")  # what MIMIC-CXR and Open-I put where a name or date was


def sentences(text: str, shortest: int) -> list[str]:
    """Those of `text` with at least `shortest` words; if none has, its words as one. [] without words."""
    text = re.sub(r"[^\S\n]+", " ", text.lower())
    text = re.sub(r"^ | $", "", text, flags=re.MULTILINE)
    words = [_words(piece) for piece in BREAK.split(text)]
    found = [sentence for sentence in words if len(sentence) >= shortest]
    found = found or [[word for sentence in words for word in sentence]]
    return [" ".join(sentence) for sentence in found if sentence]


def _words(piece: str) -> list[str]:
    return [word for word in WORD.findall(piece) if not HIDDEN.fullmatch(word)]


def released_sentences(text: str, shortest: int) -> list[str]:
    """As the released code of GLoRIA and MGCA has them: every number before a full stop ends a sentence, so
    that "2.5 cm" reads "5 cm"; hidden names are words. Unlike there, a text without sentences is read as
    one, as by `sentences`: prompts of one word would all be the same."""
    pieces = re.split(r"[0-9]+\.|\.", text.replace("\n", " "))
    words = [re.findall(r"\w+", piece.replace("\ufffd\ufffd", " ").lower()) for piece in pieces]
    found = [sentence for sentence in words if len(sentence) >= shortest]
    found = found or [[word for sentence in words for word in sentence]]
    plain = [[word.encode("ascii", "ignore").decode("ascii") for word in sentence] for sentence in found]
    return [" ".join(filter(None, sentence)) for sentence in plain if sentence]


RULES = file_hash(Path(__file__))
"""Part of what names a cache of tokens: other rules, other sentences."""


def tokenised(texts: Sequence[Sequence[str]], tokens: Callable[[Sequence[str]], Tensor]) -> Tensor:
    """Token ids of sentences, [len(texts), 1 + S, T]: row 0 of a text is all of it, then come its sentences,
    then rows of zeros. A text without sentences is zero throughout."""
    rows = [[" ".join(found), *found[:MOST]] if found else [] for found in texts]
    ids = tokens([sentence for row in rows for sentence in row] or [""])
    filled = torch.tensor([len(row) for row in rows])[:, None] > torch.arange(1 + MOST)  # [N, 1 + MOST]
    prepared = ids.new_zeros(*filled.shape, ids.shape[1])
    prepared[filled] = ids[: filled.sum()]
    return prepared[:, : max(2, int(filled.sum(dim=1).max()))]


def draw(prepared: Tensor) -> Tensor:
    """One sentence of each text, all alike likely: [B, 1 + S, T] to [B, T]."""
    count = (prepared[:, 1:, 0] != PAD).sum(dim=1)
    chosen = (torch.rand(len(prepared)).to(count.device) * count).long()
    return prepared[torch.arange(len(prepared), device=count.device), 1 + chosen]
