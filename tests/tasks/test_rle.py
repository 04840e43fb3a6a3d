"""Run-length codes against the challenge's own decoder restated pixel by pixel, and on every real outline."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import numpy as np
import pytest

from tasks import _rle

CODES = {
    "": [],
    "0 6": [[1, 1], [1, 1], [1, 1]],
    "0 1": [[1, 0], [0, 0], [0, 0]],
    "5 1": [[0, 0], [0, 0], [0, 1]],
    "1 3": [[0, 1], [1, 0], [1, 0]],  # down the first column, on at the top of the second
    "1 1 2 1": [[0, 0], [1, 1], [0, 0]],  # the second gap counts from the end of the first run
}


def painted(code: str, height: int, width: int) -> np.ndarray:
    """[height, width], as the challenge describes it: a pen that moves down the columns."""
    mask = np.zeros((height, width), bool)
    position, numbers = 0, [int(word) for word in code.split()]
    for gap, length in zip(numbers[::2], numbers[1::2], strict=True):
        position += gap
        for pixel in range(position, position + length):
            mask[pixel % height, pixel // height] = True
        position += length
    return mask


def blots(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width)) < 0.4


@pytest.mark.parametrize(("code", "mask"), CODES.items(), ids=repr)
def test_codes_by_hand(code: str, mask: list[list[int]]) -> None:
    expected = np.array(mask, bool).reshape(-1, 2) if mask else np.zeros((3, 2), bool)
    runs = _rle.parse(code)
    np.testing.assert_array_equal(_rle.decode(runs, 3, 2), expected)
    np.testing.assert_array_equal(_rle.encode(expected), runs)
    assert _rle.write(runs) == code


@pytest.mark.parametrize(("height", "width"), [(7, 5), (5, 7), (1, 9), (9, 1)])
def test_masks_survive_the_round_trip(height: int, width: int) -> None:
    for seed in range(20):
        mask = blots(seed, height, width)
        code = _rle.write(_rle.encode(mask))
        np.testing.assert_array_equal(_rle.decode(_rle.parse(code), height, width), mask)
        np.testing.assert_array_equal(painted(code, height, width), mask)


def test_unions_areas_and_overlaps_are_those_of_the_pixels() -> None:
    for seed in range(50):
        one, two, three = (blots(3 * seed + step, 6, 8) for step in range(3))
        runs = [_rle.encode(mask) for mask in (one, two, three)]
        np.testing.assert_array_equal(_rle.union(*runs), _rle.encode(one | two | three))
        assert _rle.area(runs[0]) == one.sum()
        assert _rle.overlap(runs[0], runs[1]) == (one & two).sum()


def test_overlaps_with_nothing() -> None:
    nothing, something = _rle.parse(""), _rle.parse("2 5")
    assert _rle.overlap(nothing, something) == _rle.overlap(something, nothing) == _rle.area(nothing) == 0
    assert _rle.overlap(something, something) == _rle.area(something) == 5


def test_runs_that_touch_are_one() -> None:
    np.testing.assert_array_equal(_rle.parse("3 2 0 4"), [[3, 9]])


@pytest.mark.parametrize("code", ["5", "5 1 2", "5 0", "-1 4", "3 4 -2 1", "a b", "1.5 2", "9" * 20 + " 1"])
def test_other_codes_are_refused(code: str) -> None:
    with pytest.raises((ValueError, OverflowError)):
        _rle.parse(code)


def test_a_run_past_the_last_pixel_is_refused() -> None:
    _rle.decode(_rle.parse("0 12"), 3, 4)
    with pytest.raises(ValueError, match="ends at pixel 13 of 3 x 4"):
        _rle.decode(_rle.parse("5 8"), 3, 4)


@pytest.fixture(scope="module")
def real(realdata: Path) -> list[str]:
    path = realdata / "labels" / "siim-pneumothorax-train-rle.csv.gz"
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return [code for _, code in csv.reader(file) if " " in code.strip()]


@pytest.mark.slow
def test_every_real_outline(real: list[str]) -> None:
    assert len(real) == 3_576
    runs = [_rle.parse(code) for code in real]
    assert [_rle.write(found) for found in runs] == real
    assert max(_rle.end(found) for found in runs) <= 1024 * 1024
    shares = np.array([_rle.area(found) for found in runs]) / 1024**2
    assert shares.max() == pytest.approx(0.15, abs=0.01)
    assert np.median(shares) == pytest.approx(0.006, abs=0.001)
    assert np.mean(shares < 0.001) == pytest.approx(0.05, abs=0.01)


@pytest.mark.slow
def test_real_outlines_are_pieces_of_lungs(real: list[str]) -> None:
    """Read with columns for rows, or as an absolute code, an outline falls apart into stripes: most of its
    pixels would have no neighbour to the right."""
    for code in real[::60]:
        mask = _rle.decode(_rle.parse(code), 1024, 1024)
        np.testing.assert_array_equal(mask, painted(code, 1024, 1024))
        assert (mask[:, :-1] & mask[:, 1:]).sum() > 0.8 * mask.sum()
