"""A cell's data: labelled, split by person, the fraction drawn from train alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.contracts import Split, Task, Variant
from harness.data import task_data
from harness.data.locate import Located
from harness.data.task_data import TaskData
from tests.fakes import TOY

TASK = Task(
    "linear", ("Edema",), "macro_auroc", 1, {"clean": Split(0.2, 0.2)}, uncertain={"Edema": 1}, blank=0
)
CARD = replace(TOY, variants=(Variant("stage 2", 300),))
LOCATED = Located(Path("/data"), "real")


class Reader:
    """300 pictures of 100 persons in no order, a third of them lateral; labels of all four sorts."""

    def __init__(self, persons_known: bool | None = None) -> None:
        self.persons_known = persons_known

    def read(self, root: Path) -> pd.DataFrame:
        assert root == Path("/data")
        number = np.random.default_rng(0).permutation(300)
        frame = pd.DataFrame(
            {
                "image_id": [f"i{value:03d}" for value in number],
                "path": [f"/data/{value}.png" for value in number],
                "person_id": [f"p{value // 3:02d}" for value in number],
                "study_id": "",
                "split": "",
                "view": "PA",
                "frontal": number % 3 != 2,
                "sex": "",
                "age": 1.0,
                "label:Edema": pd.array(
                    [(1, 0, -1, pd.NA)[value // 3 % 4] for value in number], dtype="Int8"
                ),
            }
        )
        if self.persons_known is not None:
            frame.attrs["persons_known"] = self.persons_known
        return frame


def load(
    reader: Reader | None = None, *, fraction: float = 0.1, seed: int = 0, task: Task = TASK
) -> TaskData:
    return task_data.load(LOCATED, reader or Reader(), CARD, task, "clean").draw(fraction, seed)


def persons(data: TaskData, rows: np.ndarray) -> set[str]:
    return set(data.frame["person_id"].iloc[rows])


def test_rows_labels_and_parts_belong_together() -> None:
    data = load()
    assert data.frame["image_id"].tolist() == [f"i{value:03d}" for value in range(300) if value % 3 != 2]
    policy = {0: 1, 1: 0, 2: 1, 3: 0}  # asserted, denied, hedged, not mentioned
    expected = [policy[int(name[1:]) // 3 % 4] for name in data.frame["image_id"]]
    assert data.labels[:, 0].tolist() == expected
    assert sorted(np.concatenate(data.parts)) == list(range(200))
    assert data.release == "stage 2"
    assert data.located == LOCATED


def test_no_person_is_in_two_parts_and_labels_are_drawn_from_train() -> None:
    data = load()
    train, validation, test = (persons(data, rows) for rows in data.parts)
    assert (len(train), len(validation), len(test)) == (64, 16, 20)
    assert not train & validation and not train & test and not validation & test
    used = persons(data, data.used)
    assert used < train and len(used) == 7  # a tenth of 64 persons, rounded up
    assert len(data.used) == 14  # with both frontal pictures of each


def test_fractions_are_nested_and_drawn_by_the_seed() -> None:
    small, large, whole = (load(fraction=fraction) for fraction in (0.1, 0.5, 1.0))
    assert set(small.used) < set(large.used) < set(whole.used)
    assert np.array_equal(whole.used, whole.parts.train)
    other = load(seed=1)
    assert set(other.used) != set(small.used)
    assert all(np.array_equal(a, b) for a, b in zip(other.parts, small.parts, strict=True))  # the split stays


def test_validation_labels_are_cut_on_request_alone() -> None:
    pool = task_data.load(LOCATED, Reader(), CARD, TASK, "clean")
    whole = pool.draw(0.1, 0)
    assert np.array_equal(whole.validation, pool.parts.validation)
    small, large = (pool.draw(fraction, 0, cut_validation=True) for fraction in (0.1, 0.5))
    assert set(small.validation) < set(large.validation) < set(pool.parts.validation)
    assert (len(persons(small, small.validation)), len(persons(large, large.validation))) == (2, 8)  # of 16
    assert np.array_equal(small.used, whole.used) and small.parts == pool.parts


def test_the_fraction_leaves_the_fingerprint_and_the_policy_does_not() -> None:
    assert load(fraction=0.5).fingerprint == load().fingerprint
    assert load(task=replace(TASK, blank=None)).fingerprint != load().fingerprint


@pytest.mark.parametrize(("said", "known"), [(None, True), (True, True), (False, False)])
def test_whether_the_persons_are_known_is_handed_on(said: bool | None, known: bool) -> None:
    assert load(Reader(said)).persons_known is known


def test_the_order_of_the_reader_s_rows_does_not_matter() -> None:
    class Backwards(Reader):
        def read(self, root: Path) -> pd.DataFrame:
            return super().read(root).iloc[::-1]

    one, other = load(), load(Backwards())
    pd.testing.assert_frame_equal(one.frame, other.frame)
    for rows, others in zip(
        (*one.parts, one.used, one.labels), (*other.parts, other.used, other.labels), strict=True
    ):
        assert np.array_equal(rows, others)
