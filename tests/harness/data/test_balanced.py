"""Balanced draws: the 5x200 rule on rows written by hand, and what a seed may and may not change."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.contracts import Balanced, Split, Task
from harness.data import balanced, task_data
from harness.data.locate import Located
from harness.errors import EmptyClass
from tests.fakes import TOY

LABELS = ("Edema", "Fracture")
TASK = Task(
    ("zero-shot",),
    LABELS,
    "accuracy",
    1,
    {"clean": Split(test="pool", validation=None, train=None)},
    exclusive=True,
    blank=0,
    balanced=Balanced(("Mass",), per_class=3, draws=4),
)
RULE = {  # (Edema, Fracture, Mass): class or -1; None is a blank cell
    (1, None, None): 0,
    (1, 0, None): 0,
    (0, 1, 0): 1,
    (None, 1, None): 1,
    (1, 1, None): -1,  # both
    (1, -1, None): -1,  # a hedge excludes
    (-1, 1, 0): -1,
    (1, None, 1): -1,  # something beside the task's labels
    (1, None, -1): -1,
    (None, None, None): -1,  # nothing
    (0, 0, 1): -1,
    (-1, 0, 0): -1,
}


class Reader:
    """Every row of `RULE` five times in the official part `pool`, and once elsewhere."""

    def __init__(self, order: np.ndarray | None = None) -> None:
        self.order = order

    def read(self, root: Path) -> pd.DataFrame:
        rows = [(*cells, part) for part in ("pool",) * 5 + ("kept out",) for cells in RULE]
        names = [f"label:{name}" for name in (*LABELS, "Mass")]
        frame = pd.DataFrame(rows, columns=[*names, "split"]).astype(dict.fromkeys(names, "Int8"))
        ids = [f"i{number:03d}" for number in range(len(frame))]
        same = dict.fromkeys(("image_id", "person_id", "study_id"), ids)
        paths = [f"/data/{name}.png" for name in ids]
        frame = frame.assign(**same, path=paths, view="PA", frontal=True, sex="", age=1.0)
        return frame if self.order is None else frame.iloc[self.order]


def load(task: Task = TASK, order: np.ndarray | None = None) -> task_data.TaskPool:
    return task_data.load(Located(Path("/data"), "real"), Reader(order), TOY, task, "clean")


def test_an_image_shows_one_label_and_denies_or_passes_over_all_others() -> None:
    cells = np.array([[np.nan if cell is None else cell for cell in row] for row in RULE])
    policy = np.where(np.isnan(cells), 0, cells).astype(np.int8)  # blank counts as 0, a hedge as unknown
    assert balanced.classes(policy[:, :2], policy[:, 2:]).tolist() == list(RULE.values())


def test_every_case_of_three_labels_and_two_others_by_the_definition() -> None:
    rows = list(product((-1, 0, 1), repeat=5))
    values = np.array(rows, dtype=np.int8)
    alone = {tuple(np.eye(5, dtype=int)[number].tolist()): number for number in range(3)}
    assert balanced.classes(values[:, :3], values[:, 3:]).tolist() == [alone.get(row, -1) for row in rows]


def test_every_draw_has_as_many_of_each_class_from_the_test_part_alone() -> None:
    pool = load()
    drawn = balanced.draws_of(pool.frame)
    assert drawn.shape[1] == 4 and drawn.any(axis=1).all()
    for draw in drawn.T:
        assert pool.labels[draw].sum(axis=0).tolist() == [3, 3]
    assert (pool.frame["split"] == "pool").all() and (pool.labels.sum(axis=1) == 1).all()
    assert pool.parts.test.tolist() == list(range(len(pool.frame)))
    assert not len(pool.parts.train) and not len(pool.parts.validation)
    assert len({draw.tobytes() for draw in drawn.T}) > 1


def test_draws_follow_from_the_ids_not_from_the_order_of_rows() -> None:
    shuffled = load(order=np.random.default_rng(0).permutation(6 * len(RULE)))
    pd.testing.assert_frame_equal(load().frame, shuffled.frame)
    assert load().fingerprint == shuffled.fingerprint


def test_other_draws_of_the_same_images_are_other_data() -> None:
    def pool(draws: int) -> task_data.TaskPool:
        return load(Task(**{**vars(TASK), "balanced": Balanced(("Mass",), per_class=10, draws=draws)}))

    assert pool(1).frame["image_id"].tolist() == pool(2).frame["image_id"].tolist()  # 10 are all there are
    assert pool(1).fingerprint != pool(2).fingerprint


def test_where_a_class_has_fewer_all_have_as_few(caplog: pytest.LogCaptureFixture) -> None:
    shown = np.array([0] * 9 + [1] * 2 + [-1] * 5)
    with caplog.at_level("INFO"):
        drawn = balanced.draw(shown, TASK, Balanced((), per_class=200, draws=5))
    assert [(shown[draw] == 0).sum() for draw in drawn.T] == [2] * 5
    assert [(shown[draw] == 1).sum() for draw in drawn.T] == [2] * 5
    assert "2 images of each class, not 200: no more show Fracture alone" in caplog.text


def test_a_class_that_nobody_shows_alone_is_an_error() -> None:
    with pytest.raises(EmptyClass, match=r"no test image \(n = 3\) shows 'Fracture' and none of the other 2"):
        balanced.draw(np.array([0, 0, -1]), TASK, Balanced(("Mass",)))
