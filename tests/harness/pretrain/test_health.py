"""The health report: what its file says is what the logs hold, and its picture can be read."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
import torch

from harness.pretrain import health
from harness.pretrain.engine import Outcome
from tests.fakes import Tiny
from tests.harness.pretrain.loop import PER_EPOCH, STEPS, run

SVG = "{http://www.w3.org/2000/svg}"


class Collapsed(Tiny):
    """Whose pictures all look the same to it."""

    def pairs(self, batch):  # type: ignore[no-untyped-def]
        image, text = super().pairs(batch)
        return torch.ones_like(image), text


@pytest.fixture
def outcome(tmp_path: Path) -> Outcome:
    _, outcome = run(tmp_path)
    health.write(tmp_path, outcome, memory_mib={"process": 100.5}, processes=1)
    return outcome


def test_the_report_holds_what_the_logs_hold(tmp_path: Path, outcome: Outcome) -> None:
    report = json.loads((tmp_path / "health.json").read_text())
    epochs = pd.read_csv(tmp_path / "validation.csv")
    assert epochs["step"].tolist() == list(range(PER_EPOCH - 1, STEPS, PER_EPOCH))
    assert [epoch["loss"] for epoch in report["epochs"]] == epochs["loss"].tolist()
    assert report["epochs"][-1].keys() >= {
        *("loss", "match", "size", "recall@1", "chance@1", "alignment"),
        *(f"{name}_{side}" for name in ("uniformity", "cosine", "rank") for side in ("image", "text")),
    }
    assert (report["steps"], report["kept_steps"], report["loss"]) == (STEPS, STEPS, outcome.loss)
    assert report["images_per_second"] == outcome.images_per_second > 0
    assert report["peak_memory_mib"] == {"process": 100.5}


def test_the_picture_has_a_curve_for_every_series(tmp_path: Path, outcome: Outcome) -> None:
    picture = ElementTree.parse(tmp_path / "health.svg").getroot()
    labels = [item.text for item in picture.iter(f"{SVG}text")]
    for name in ("training loss", "match", "recall@1", "chance@1", "uniformity_text", "rank_image"):
        assert name in labels
    width, height = float(picture.get("width") or 0), float(picture.get("height") or 0)
    panels = {group.get("transform"): group for group in picture.iter(f"{SVG}g")}
    curves = [line for group in panels.values() for line in group.iter(f"{SVG}polyline")]
    lengths = {len((line.get("points") or "").split()) for line in curves}
    assert lengths == {STEPS, STEPS // PER_EPOCH}
    for transform, group in panels.items():
        left, top = map(float, (transform or "").removeprefix("translate(").rstrip(")").split(","))
        for line in group.iter(f"{SVG}polyline"):
            for point in (line.get("points") or "").split():
                x, y = map(float, point.split(","))
                assert 0 <= left + x <= width and 0 <= top + y <= height


def test_what_is_shown_twice_or_never_has_no_curve_of_its_own() -> None:
    row = {"step": 0.0, "loss": 1.0, "contrastive": 1.0}
    panels = health._panels([row], [row | {"recall@1": 0.5, "chance@1": 0.1}])
    assert {title: list(curves) for title, curves in panels.items()} == {
        "training loss": ["contrastive"],
        "validation loss": ["contrastive"],
        "retrieval on validation": ["recall@1", "chance@1"],
    }


def test_chance_is_dashed_in_the_colour_of_what_it_is_compared_with() -> None:
    where = [0.0, 1.0]
    curves = {name: (where, where) for name in ("recall@1", "chance@1", "recall@5", "chance@5")}
    lines = list(ElementTree.fromstring(f"<g>{health._panel('', curves)}</g>").iter("polyline"))
    first, chance_of_first, fifth, chance_of_fifth = [line.get("stroke") for line in lines]
    assert first == chance_of_first != fifth == chance_of_fifth
    assert ["stroke-dasharray" in line.attrib for line in lines] == [False, True, False, True]


def test_a_rate_that_falls_to_all_but_zero_is_drawn_down_to_zero() -> None:
    panel = health._panel("", {"learning_rate": ([0.0, 1.0], [1e-3, 4.28e-8])})
    assert ">0</text>" in panel and "e-08" not in panel


def test_a_long_training_is_thinned(tmp_path: Path) -> None:
    rows = [{"step": float(step), "loss": 1.0} for step in range(100_001)]
    [thinned, *_] = health._panels(rows, [{"step": 0.0, "loss": 1.0}]).values()
    assert len(thinned["loss"][0]) <= health.POINTS


def test_a_collapse_is_in_the_outcome(tmp_path: Path) -> None:
    _, outcome = run(tmp_path, model=Collapsed())
    [warning] = outcome.warnings
    assert warning.startswith("image embeddings have collapsed to one direction")


def test_validation_sees_the_same_views_in_every_epoch(tmp_path: Path) -> None:
    class Watched(Tiny):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[torch.Tensor] = []

        def loss(self, batch):  # type: ignore[no-untyped-def]
            if not self.training:
                self.seen.append(batch.views[1])
            return super().loss(batch)

    model = Watched()
    run(tmp_path, model=model)
    assert len(model.seen) == STEPS // PER_EPOCH
    assert all(torch.equal(view, model.seen[0]) for view in model.seen)
