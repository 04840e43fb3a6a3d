"""Segmentation from the command line, on 169 real pictures: a record, its counts, and drawings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from harness import records
from harness.metrics import score
from tests.harness.command import harness


@pytest.mark.slow
def test_real_pictures_are_segmented_and_drawn(
    realdata: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.evaluate.training.LEAST_STEPS", 40)
    monkeypatch.setattr("harness.evaluate.segmentation.EPOCHS", 1)
    done = harness(
        *("run", "--method", "random_init", "--task", "rsna:segmentation", "--data-root", realdata),
        *("--results", tmp_path / "results", "--save-figures", tmp_path / "figures"),
    )
    assert done.code == 0, done.err
    assert "dice [95 %]" in done.out and "8 figures in" in done.err
    [(path, record)] = records.read_all(tmp_path / "results")
    assert path.is_relative_to(tmp_path / "results" / "real" / "rsna-segmentation")
    kept = records.predictions(path)

    rule = score.of("segmentation", kept.arrays, record.task.labels)
    values = rule(np.ones((len(kept.images), 1)))[:, 0]
    assert dict(zip(rule.names, values, strict=True)) == pytest.approx(
        {name: measured.value for name, measured in record.metrics.items()}
    )
    boxes = pd.read_csv(realdata / "rsna" / "stage_2_train_labels.csv")
    shows = boxes.groupby("patientId")["Target"].first()
    tested = np.isin(records.hashed(shows.index), kept.images)
    assert np.count_nonzero(kept.arrays["truth_area"]) == shows[tested].sum()
    single = boxes[(boxes["Target"] == 1) & ~boxes["patientId"].duplicated(keep=False)]
    areas = dict(zip(records.hashed(single["patientId"]), single["width"] * single["height"], strict=True))
    found = dict(zip(kept.images, kept.arrays["truth_area"], strict=True))
    common = areas.keys() & found.keys()
    assert common and all(areas[image] == found[image] for image in common)

    for figure in (tmp_path / "figures").iterdir():
        with Image.open(figure) as picture:
            assert picture.width == 768


def test_a_kind_without_places_has_nothing_to_draw(tmp_path: Path) -> None:
    done = harness(
        *("run", "--method", "random_init", "--task", "siim"), "--save-figures", tmp_path / "figures"
    )
    assert done.code == 2
    assert "nothing to draw for siim:linear" in done.err
    assert not (tmp_path / "figures").exists()
