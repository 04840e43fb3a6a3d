"""What is counted as shared, on tables that are counted by hand and on the real lists."""

from __future__ import annotations

import gzip
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.data import audit
from harness.data.audit import Collection, Shared
from harness.data.lookalikes import SIDE
from harness.data.splits import Parts
from tasks import _covidx, rsna


def test_each_thing_that_parts_share_is_counted() -> None:
    frame = pd.DataFrame(
        {
            "person_id": ["anna", "anna", "bert", "carl", "carl", "dora"],
            "source": ["ours", "ours", "theirs", "", "theirs", ""],
            "rows": [(0,), (1, 2), (3,), (4, 5, 6), (7,), (8,)],
        }
    )
    train, validation, test = audit.shared(
        frame, Parts(np.array([0, 2, 3]), np.array([1, 5]), np.array([3, 4]))
    )
    assert train == Shared("train", "validation", 2, 0, 0, 1, 1, ("ours",), 1)
    assert validation == Shared("train", "test", 2, 1, 3, 1, 2, ("theirs",), 1)
    assert test == Shared("validation", "test", 2, 0, 0, 0, 0, (), 0)


def test_what_a_table_does_not_say_is_not_counted() -> None:
    frame = pd.DataFrame({"person_id": ["anna", "bert", "carl"]})
    for found in audit.shared(frame, Parts(*np.arange(3)[:, None])):
        assert found.rows is found.sources is found.images_of_sources is None
        assert found.images == found.persons == 0


def collection(name: str, table: pd.DataFrame) -> Collection:
    return Collection(name, table, np.zeros((len(table), SIDE, SIDE), np.uint8))  # alike to nothing


@pytest.mark.slow
def test_the_real_lists_name_their_source(realdata: Path, tmp_path: Path) -> None:
    """13,588 and 200 images of COVIDx 9A are RSNA's, under RSNA's ids."""
    labels = realdata / "labels"
    parts = []
    for part in ("train", "test"):
        (tmp_path / part).write_bytes(
            gzip.decompress((labels / f"covidx/{part}_COVIDx9A.txt.gz").read_bytes())
        )
        parts.append(_covidx.read_list(tmp_path / part, "covidx", {}).assign(split=part))
    covidx = pd.concat(parts).rename(columns={"id": "source_id"}).assign(path="")
    covidx["image_id"] = covidx["split"] + "/" + covidx["file"]
    with zipfile.ZipFile(labels / "kaggle_stage_2_train_labels.csv.zip") as archive:
        [name] = [name for name in archive.namelist() if name.endswith("labels.csv")]
        (tmp_path / "labels.csv").write_bytes(archive.read(name))
    images = rsna.read_labels(tmp_path / "labels.csv").index
    pneumonia = pd.DataFrame({"image_id": images, "person_id": images, "split": "", "path": ""})
    within, across, other = audit.across(
        [collection("covidx", covidx), collection("rsna", pneumonia)], workers=1
    )
    assert across.of == (30_530, 26_684)
    assert across.named == {"test": 200, "train": 13_588}
    assert across.named_found == 13_788
    assert across.alike == within.alike == other.alike == 0
    assert within.named == other.named == {}


@pytest.mark.parametrize("shape", [(3, 4), (4, 3)])
def test_pictures_of_other_pixels_are_not_identical(tmp_path: Path, shape: tuple[int, int]) -> None:
    from PIL import Image

    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    one, other = tmp_path / "one.png", tmp_path / "other.png"
    Image.fromarray(pixels).save(one)
    Image.fromarray(pixels.reshape(shape)).save(other)
    assert audit._identical((str(one), str(other))) == (shape == (3, 4))
