"""The error tree is as drawn, and every error survives the way back from a worker process."""

from __future__ import annotations

import pickle
import re

import pytest

from harness import errors
from harness.errors import HarnessError, UnknownName, UsageError

CLASSES = [
    item for item in vars(errors).values() if isinstance(item, type) and issubclass(item, HarnessError)
]


def test_the_drawn_tree_is_the_real_one() -> None:
    drawn, trail = set(), [""]
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"([│├└─ ]*)([A-Z]\w+)(?:\s{2,}|$)", line):
            depth = len(found[1]) // 4
            trail[depth + 1 :] = [found[2]]
            drawn.add((trail[depth], found[2]))
    real = {(item.__base__.__name__ if item is not HarnessError else "", item.__name__) for item in CLASSES}
    assert drawn == real


@pytest.mark.parametrize("kind", CLASSES)
def test_exit_codes_and_pickling(kind: type[HarnessError]) -> None:
    error = UnknownName("method", "x", ["y"]) if kind is UnknownName else kind("labels.csv: row 3")
    assert error.exit_code == (2 if issubclass(kind, UsageError) else 1)
    back = pickle.loads(pickle.dumps(error))
    assert (type(back), str(back)) == (kind, str(error))


def test_an_unknown_name_says_what_was_meant_and_what_there_is() -> None:
    known = ["mgca", "imitate", "convirt"]
    assert str(UnknownName("method", "imitat", known)) == (
        "unknown method 'imitat'. Did you mean 'imitate'? Available: convirt, imitate, mgca"
    )
    assert "Did you mean" not in str(UnknownName("method", "zzz", known))
    assert str(UnknownName("method", "x", [])).endswith("Available: none")


@pytest.mark.parametrize(
    ("count", "told"),
    [(0, "0.0 kB"), (5120, "5.1 kB"), (3_400_000, "3.4 MB"), (24.7e9, "24.7 GB"), (395e9, "395.0 GB")],
)
def test_a_size_is_told_in_a_unit_in_which_it_can_be_read(count: float, told: str) -> None:
    assert errors.readable_size(count) == told
