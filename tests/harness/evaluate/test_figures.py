"""Which pictures are drawn, and in which colours."""

from __future__ import annotations

import numpy as np
import pytest

from harness.evaluate import figures
from harness.evaluate.figures import PREDICTED, TRUE, Drawing


def boxes(left: int) -> np.ndarray:
    return np.array([[left, 5.0, left + 10.0, 15.0]])


def mask(left: int) -> np.ndarray:
    found = np.zeros((40, 40), bool)
    found[5:15, left : left + 10] = True
    return found


@pytest.mark.parametrize("shape", [mask, boxes])
def test_truth_and_prediction_have_the_colours_of_the_legend(shape) -> None:  # type: ignore[no-untyped-def]
    drawn = np.asarray(figures.draw(np.zeros((40, 40), np.uint8), Drawing(shape(5), shape(25)), ""))
    picture, legend = drawn[: figures.SIDE], drawn[figures.SIDE :]
    for part in (picture, legend):  # what is true lies left of what was predicted
        true, predicted = (np.nonzero((part == colour).all(-1))[1] for colour in (TRUE, PREDICTED))
        assert true.max() < predicted.min()


def test_the_worst_have_the_lowest_quality_of_those_that_show_something_and_of_the_others() -> None:
    quality = np.array([0.9, 0.1, 0.5, 0.3, 0.2, 0.8])
    assert figures._chosen(quality, np.array([True] * 4 + [False] * 2)) == {
        "shows-worst-1": 1,
        "shows-best-1": 0,
        "shows-worst-2": 3,
        "shows-best-2": 2,
        "empty-worst-1": 4,
        "empty-best-1": 5,
    }
