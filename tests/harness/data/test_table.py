"""What counts as a label, which rows a task is about, and what a reader must hand over."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from harness.contracts import PublishedSplit, Split, Task, Variant
from harness.data import table
from harness.errors import BadTable
from tests.fakes import TOY

TASK = Task(("linear",), ("Edema", "Effusion"), "macro_auroc", 1, {"clean": Split(0.2, 0.2)})
RAW = (1, 0, -1, pd.NA)


def frame(edema: Any = RAW, effusion: Any = RAW, **columns: Any) -> pd.DataFrame:
    count = len(edema)
    given = {
        "image_id": [f"i{number}" for number in range(count)],
        "path": [f"/i{number}.png" for number in range(count)],
        "person_id": [f"p{number}" for number in range(count)],
        "study_id": "",
        "split": "",
        "view": "PA",
        "frontal": np.full(count, True),
        "sex": "",
        "age": np.nan,
        "label:Edema": pd.array(edema, dtype="Int8"),
        "label:Effusion": pd.array(effusion, dtype="Int8"),
    }
    return pd.DataFrame({**given, **columns})


class Reader:
    def __init__(self, found: pd.DataFrame) -> None:
        self.found = found

    def read(self, root: Path) -> pd.DataFrame:
        return self.found


# --- the label policy ---------------------------------------------------------------------------------

POLICIES: dict[str, tuple[dict[str, Any], list[int]]] = {  # labels of asserted, denied, hedged, not mentioned
    "nothing is assumed": ({}, [1, 0, -1, -1]),
    "hedged counts as there": ({"uncertain": {"Edema": 1}}, [1, 0, 1, -1]),
    "hedged counts as not there": ({"uncertain": {"Edema": 0}}, [1, 0, 0, -1]),
    "hedged is left out": ({"blank": 0}, [1, 0, -1, 0]),
    "not mentioned is not there": ({"uncertain": {"Edema": 1}, "blank": 0}, [1, 0, 1, 0]),
}


@pytest.mark.parametrize(("policy", "expected"), POLICIES.values(), ids=POLICIES)
def test_the_policy_is_the_task_s(policy: dict[str, Any], expected: list[int]) -> None:
    found = table.for_task(frame(), replace(TASK, **policy))
    assert found.labels[:, 0].tolist() == expected
    assert found.labels.dtype == np.int8


def test_each_label_has_a_policy_of_its_own() -> None:
    found = table.for_task(frame(), replace(TASK, uncertain={"Edema": 1, "Effusion": 0}, blank=0))
    assert found.labels.tolist() == [[1, 1], [0, 0], [1, 0], [0, 0]]


def test_labels_may_come_as_floats_or_objects() -> None:
    raw = frame()
    for dtype in ("Float64", object):
        other = raw.assign(**{"label:Edema": raw["label:Edema"].astype(dtype)})
        assert np.array_equal(table.for_task(other, TASK).labels, table.for_task(raw, TASK).labels)


def test_other_views_are_left_out_where_the_task_is_about_frontal_ones() -> None:
    raw = frame(frontal=[True, False, True, False])
    found = table.for_task(raw, TASK)
    assert found.frame["image_id"].tolist() == ["i0", "i2"]
    assert found.labels[:, 0].tolist() == [1, -1]
    assert len(table.for_task(raw, replace(TASK, frontal_only=False)).frame) == 4
    with pytest.raises(BadTable, match="none of the 4 images is frontal"):
        table.for_task(frame(frontal=[False] * 4), TASK)


def test_pictures_of_official_parts_that_no_protocol_names_are_left_out() -> None:
    raw = frame(split=["train", "validate", "test", "extra"])

    def kept(**named: Split | PublishedSplit) -> list[str]:
        return table.for_task(raw, replace(TASK, splits=named)).frame["split"].tolist()  # type: ignore[arg-type]

    published = PublishedSplit("their code", (), held_out=0.1, train="train")
    assert kept(clean=Split("test", None, None)) == ["test"]
    assert kept(clean=Split("test", 0.1, "train")) == ["train", "test"]
    assert kept(clean=Split("test", "validate", "train")) == ["train", "validate", "test"]
    assert kept(clean=Split("test", None, None), published=published) == [
        "train",
        "test",
    ]  # one list for both
    assert kept(clean=Split(0.1, 0.1)) == ["train", "validate", "test", "extra"]
    assert kept(clean=Split("test", None, None), published=replace(published, train="")) == list(raw["split"])


def test_a_label_that_is_missing_or_none_is_named() -> None:
    with pytest.raises(BadTable, match=r"no column 'label:Pneumonia', .*; its labels are Edema"):
        table.for_task(frame(), replace(TASK, labels=("Edema", "Pneumonia")))
    with pytest.raises(BadTable, match=r"image 'i1' the value 0\.5 as label 'Edema', not 1, 0, -1 or none"):
        table.for_task(frame().assign(**{"label:Edema": [1, 0.5, 0, None]}), TASK)


def test_the_fingerprint_is_that_of_images_and_labels() -> None:
    def fingerprint(found: pd.DataFrame, task: Task = TASK) -> str:
        return table.for_task(found, task).fingerprint

    first = fingerprint(frame())
    assert fingerprint(frame(path="elsewhere", age=30.0)) == first
    others = [
        fingerprint(frame(image_id=["i0", "i1", "i2", "x"])),
        fingerprint(frame(edema=(1, 0, -1, 0))),
        fingerprint(frame(), replace(TASK, uncertain={"Edema": 1})),
        fingerprint(frame(), replace(TASK, labels=("Effusion",))),
    ]
    assert len({first, *others}) == 5


BOXES = [[(0, 1, 2, 3)], [(5, 6, 7, 8), (1, 2, 3, 4)], [], []]
SCORED: dict[str, tuple[Task, dict[str, Any], dict[str, Any]]] = {  # task, columns, one of them changed
    "boxes": (
        replace(TASK, kinds=("detection",)),
        {"boxes": BOXES},
        {"boxes": [[(0, 1, 2, 4)], *BOXES[1:]]},
    ),
    "the picture of a box": (
        replace(TASK, kinds=("detection",)),
        {"boxes": BOXES},
        {"boxes": [*BOXES[1:], BOXES[0]]},
    ),
    "masks": (
        replace(TASK, kinds=("segmentation",)),
        {"mask": ["", "12 3", "", "4 5"]},
        {"mask": ["", "12 3", "", "4 6"]},
    ),
    "reports": (
        replace(TASK, kinds=("retrieval",), reports=True),
        {"findings": ["a", "b", "c", "d"], "impression": "/ none"},
        {"findings": ["b", "a", "c", "d"], "impression": "/ none"},
    ),
}


@pytest.mark.parametrize(("task", "columns", "changed"), SCORED.values(), ids=SCORED)
def test_the_fingerprint_is_that_of_what_is_scored_too(
    task: Task, columns: dict[str, Any], changed: dict[str, Any]
) -> None:
    first = table.for_task(frame(**columns), task).fingerprint
    assert table.for_task(frame(**columns), task).fingerprint == first
    assert table.for_task(frame(**changed), task).fingerprint != first
    by_labels = {table.for_task(frame(**cells), TASK).fingerprint for cells in ({}, columns, changed)}
    lines = "i0 1 1\ni1 0 0\ni2 -1 -1\ni3 -1 -1\n"  # as in every record of a classification
    assert by_labels == {hashlib.sha256(lines.encode()).hexdigest()}


def test_of_a_mask_in_a_file_what_it_holds_counts_and_not_where_it_lies(tmp_path: Path) -> None:
    def fingerprint(folder: Path) -> str:
        found = frame(mask=["", str(folder / "mask.png"), "", ""])
        return table.for_task(found, replace(TASK, kinds=("segmentation",))).fingerprint

    folders = {tmp_path / "here": b"0", tmp_path / "there": b"0", tmp_path / "other": b"1"}
    for folder, content in folders.items():
        folder.mkdir()
        (folder / "mask.png").write_bytes(content)
    here, there, other = map(fingerprint, folders)
    assert here == there != other


# --- what a reader hands over -------------------------------------------------------------------------


def test_the_table_is_sorted_by_image_id() -> None:
    shuffled = frame().iloc[[2, 0, 3, 1]]
    found = table.read(Reader(shuffled), Path("/data"))
    pd.testing.assert_frame_equal(found, frame())


BREACHES: dict[str, tuple[pd.DataFrame, str]] = {
    "no column": (frame().drop(columns="person_id"), "gave no column 'person_id'; see TABLE_COLUMNS"),
    "no row": (frame().iloc[:0], "hold no image"),
    "one id twice": (frame(image_id=["a", "b", "a", "c"]), "image id 'a' stands in the table more than once"),
    "no id": (frame(image_id=["a", "b", "", "c"]), "row 2 of the reader's table has no image_id"),
    "nobody": (frame(person_id=["a", None, "b", "c"]), "row 1 of the reader's table has no person_id"),
    "no file": (frame(path=["a", "b", "c", np.nan]), "row 3 of the reader's table has no path"),
    "a path in the folder": (frame(path=["/a", "b.png", "/c", "/d"]), "the path 'b.png', .* not absolute"),
    "frontal as words": (frame(frontal=["yes"] * 4), "'frontal' is .*, not bool"),
}


@pytest.mark.parametrize(("found", "problem"), BREACHES.values(), ids=BREACHES)
def test_a_breach_of_the_contract_is_named(found: pd.DataFrame, problem: str) -> None:
    with pytest.raises(BadTable, match=rf"^/data: .*{problem}"):
        table.read(Reader(found), Path("/data"))


# --- which release ------------------------------------------------------------------------------------

CARD = replace(
    TOY,
    variants=(
        Variant("whole", 4, {"train": 3, "valid": 1}),
        Variant("without parts", 4),
        Variant("large", 6, {"train": 5}),
    ),
)


@pytest.mark.parametrize(
    ("parts", "release"),
    [
        (["train", "train", "train", "valid"], "whole"),
        (["train", "train", "valid", "valid"], "without parts"),  # the first that fits
        (["", "", "", ""], "without parts"),
        (["train"] * 5 + ["test"], "large"),
        (["train"] * 6, ""),
        (["train"] * 3, ""),
    ],
)
def test_a_release_is_known_by_its_counts(parts: list[str], release: str) -> None:
    assert table.release(frame([1] * len(parts), [1] * len(parts), split=parts), CARD) == release
