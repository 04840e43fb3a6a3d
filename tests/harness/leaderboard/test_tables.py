"""What stands around the numbers of a table: another way to count, what chance has, what is not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import leaderboard, records, stats
from harness.leaderboard import tables
from harness.metrics import score
from harness.metrics.detection import kept
from harness.records import Predictions, Record
from tests import fakes
from tests.harness.leaderboard.pages import tables_of

COSTS = "Checkpoints and what they cost"
DRAWS = {"per_class": 5, "hashes": ("e" * 64, "f" * 64)}


def boxes() -> Predictions:
    """40 pictures: some without a true box, some where nothing is found."""
    rng = np.random.default_rng(0)
    true, found = np.flatnonzero(rng.random(40) < 0.6), np.repeat(np.flatnonzero(rng.random(40) < 0.6), 2)
    corners = rng.uniform(0, 60, (40, 2))
    square = np.concatenate([corners, corners + 40], axis=1)
    arrays = {
        "sizes": np.full((40, 2), 100),
        "truth_xyxy": square[true].astype(np.float32),
        "truth_image": true.astype(np.int32),
        "box_xyxy": (square[found] + rng.normal(0, 4, (len(found), 4))).astype(np.float32),
        "box_scores": rng.random(len(found)).astype(np.float32),
        "box_image": found.astype(np.int32),
    }
    images = [f"image {row}" for row in range(40)]
    return records.sorted_predictions(images, images, arrays | {"kept": kept(arrays)})


def test_boxes_are_counted_as_papers_count_them_too(tmp_path: Path) -> None:
    found = boxes()
    own = score.of("detection", found.arrays, ["opacity"])
    printed = stats.person_bootstrap(own, found.persons, replicates=1000, seed=0).metrics
    raw = fakes.record(task="rsna:detection", protocol="published").model_dump(mode="json")
    raw["task"].update(metric="mean_average_precision", labels=["opacity"])
    raw["metrics"] = {name: interval._asdict() for name, interval in printed.items()}
    records.write(tmp_path, Record.model_validate(raw), found)
    page = leaderboard.build(tmp_path)
    [row] = tables_of(page)["rsna:detection · mean average precision · published"]
    every, some = printed["mean_average_precision"], printed["mean_average_precision:skipping"]
    assert every.value < some.value
    assert row[2].startswith(f"{every.value * 100:.1f} [")
    assert row[-1] == f"{some.value * 100:.1f} [{some.low * 100:.1f}, {some.high * 100:.1f}]"
    assert "as papers count, 1 %" in page and "Papers count only pictures that have a true and" in page


@pytest.mark.parametrize(
    ("metric", "draws", "said"),
    [
        ("recall_at_5", None, "Chance has at least 25.0."),  # of 20 pictures
        ("precision_at_5", DRAWS, "Means over 2 draws of 5 pictures a class. Chance has 50.0."),
        ("accuracy", DRAWS, "Means over 2 draws of 5 pictures a class. Naming one class always has 50.0."),
        ("macro_auroc", None, ""),
    ],
)
def test_a_table_says_what_chance_has(metric: str, draws: dict[str, Any] | None, said: str) -> None:
    raw = fakes.record().model_dump(mode="json")
    raw["task"].update(metric=metric, labels=[] if metric == "recall_at_5" else fakes.LABELS)
    raw["metrics"][metric] = {"value": 0.5, "low": 0.4, "high": 0.6}
    raw["data"]["draws"] = draws
    assert " ".join(tables._scale(Record.model_validate(raw))) == said


def test_an_encoder_of_the_smallest_size_is_named_on_real_data(tmp_path: Path) -> None:
    said = "Of the demo profile: small-x."
    fakes.write(tmp_path, family="small-x", kind="phantom")
    fakes.write(tmp_path, family="large-x", kind="real", profile="paper")
    assert said not in leaderboard.build(tmp_path)
    fakes.write(tmp_path, family="small-x", kind="real")
    assert leaderboard.build(tmp_path).count(said) == 1


def test_a_seed_that_all_rows_lack_is_a_hole_where_the_table_has_it_elsewhere(tmp_path: Path) -> None:
    for family in ("first-x", "second-x"):
        for fraction, seeds in {0.01: (0, 1), 1.0: (0,)}.items():
            for seed in seeds:
                fakes.write(tmp_path, family=family, fraction=fraction, seed=seed)
    page = leaderboard.build(tmp_path)
    for family in ("first-x", "second-x"):
        assert f"- chexpert:linear clean, {family} at 100 %: seeds 1\n" in page
    assert "at 1 %: seeds" not in page


def test_a_hole_is_named_with_the_options_of_its_table(tmp_path: Path) -> None:
    for seed in (0, 1):
        for family in ("first-x", "second-x"):
            fakes.write(tmp_path, family=family, seed=seed)
        fakes.write(tmp_path, family="first-x", seed=seed, tuned=4)
    fakes.write(tmp_path, family="second-x", seed=1, tuned=4)
    page = leaderboard.build(tmp_path)
    assert "- chexpert:linear clean tuned4, second-x at 1 %: seeds 0\n" in page
    assert page.count(": seeds ") == 1


def test_a_cell_s_seconds_are_those_of_default_settings(tmp_path: Path) -> None:
    """Those of a search are many cells', and what was searched says nothing of a method."""
    for family in ("first-x", "second-x"):
        fakes.write(tmp_path, family=family)
    for more in ({"tuned": 4}, {"protocol": "published"}, {"cut_validation": True}):
        made = fakes.record(family="first-x", **more)
        cost = made.cost.model_copy(update={"seconds": {"head": 900.0}})
        fakes.store(tmp_path, made.model_copy(update={"cost": cost}))
    first, second = tables_of(leaderboard.build(tmp_path))[COSTS]
    assert first[4] == second[4] == "1"
