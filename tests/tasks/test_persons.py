"""COVIDx with a map of RSNA's persons, on the real lists and on a small folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.contracts import PublishedSplit, Split
from harness.data import audit, published, splits
from harness.data.table import for_task
from tasks import covidx
from tests.tasks import test_covidx


@pytest.mark.slow
def test_with_a_map_no_person_of_rsna_is_in_two_parts(realdata: Path, tmp_path: Path) -> None:
    name = "rsna_person_map.csv.gz"
    shutil.copyfile(realdata / name, tmp_path / name)
    table = test_covidx.read_version(realdata, tmp_path, "9A")
    people = pd.read_csv(tmp_path / name, dtype=str, index_col="patientId")["nih_patient"]
    of_rsna = table["source"] == "rsna"
    nih = table["image_id"].str.extract(r"/(.*)\.png$", expand=False).map(people)
    assert nih[of_rsna].notna().all() and nih[~of_rsna].isna().all()
    test, train = table["split"] == "test", table["split"] == "train"
    assert (of_rsna & test).sum() == 200 and nih[test].isin(nih[train].dropna()).sum() == 129  # before
    parts = splits.make(table, covidx.CARD.tasks[0].splits["clean"])
    assert parts.test.tolist() == np.flatnonzero(test).tolist()
    held_in, held_out, last = (set(nih.iloc[rows].dropna()) for rows in parts)
    assert not held_in & held_out and not held_in & last and not held_out & last
    left = train & (nih.isna() | ~nih.isin(nih[test].dropna()))
    assert len(parts.train) + len(parts.validation) == left.sum()


@pytest.mark.parametrize("beside", [False, True], ids=["in the folder", "beside it"])
def test_a_map_of_rsna_s_persons_is_heeded_and_the_published_parts_stay(tmp_path: Path, beside: bool) -> None:
    root = test_covidx.write(tmp_path / "covidx")
    with (root / "train_COVIDx9A.txt").open("a") as file:
        file.write("eeee-ffff eeee-ffff.png normal rsna\n")
    (root / "train/eeee-ffff.png").touch()
    clean, theirs = covidx.CARD.tasks[0].splits["clean"], covidx.CARD.tasks[0].splits["published"]
    assert isinstance(clean, Split) and isinstance(theirs, PublishedSplit)

    def parts(table: pd.DataFrame) -> tuple[splits.Parts, splits.Parts]:
        task = covidx.CARD.tasks[0]
        drawn = published.make(table, for_task(table, task), task.labels, theirs)
        return splits.make(table, clean), drawn.parts

    before = covidx.read(root)
    (tmp_path / ("." if beside else "covidx") / "rsna_person_map.csv").write_text(
        "patientId,nih_image,nih_patient\naaaa-bbbb,00000007_001.png,7\ncccc-dddd,00000007_002.png,7\n"
    )
    after = covidx.read(root)
    persons = after.set_index("image_id")["person_id"]
    assert persons[["train/aaaa-bbbb.png", "test/cccc-dddd.png"]].tolist() == ["00000007"] * 2
    assert persons["train/eeee-ffff.png"] == "eeee-ffff"  # not in the map
    theirs_too = audit.Collection("rsna", pd.DataFrame({"image_id": ["aaaa-bbbb", "cccc-dddd"]}), np.zeros(0))
    assert audit.named(after, theirs_too)["known"].tolist() == [True, True, False]  # test, train, train
    assert not after.attrs["persons_known"] and "says whose 2 pictures are, of 9" in after.attrs["notes"][-1]
    pd.testing.assert_frame_equal(after.drop(columns="person_id"), before.drop(columns="person_id"))
    (ours, published_before), (ours_after, published_after) = parts(before), parts(after)
    for rows, others in zip(published_before, published_after, strict=True):
        assert np.array_equal(rows, others)
    gone = set(np.concatenate(ours)) - set(np.concatenate(ours_after))
    assert after["image_id"].iloc[sorted(gone)].tolist() == ["train/aaaa-bbbb.png"]
    assert np.array_equal(ours.test, ours_after.test)
