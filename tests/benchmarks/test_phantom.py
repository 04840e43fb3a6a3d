"""How fast a phantom is drawn, on one core: a demo run draws some thousand pictures before it can start."""

from __future__ import annotations

import pytest

from harness.phantom import Cohort
from harness.phantom.render import render

COHORT = Cohort("benchmark", 60, 0, (128, 107))


@pytest.mark.parametrize(("height", "width"), [(128, 107), (320, 390)])
def test_pictures_per_second(benchmark, height: int, width: int):
    jobs = [(p, study, picture) for p in COHORT.people() for study in p.studies for picture in study.pictures]

    def draw_all() -> None:
        for person, study, picture in jobs:
            render(person, study, picture, height=height, width=width, dials=COHORT.dials)

    benchmark.pedantic(draw_all, rounds=3, warmup_rounds=1)
    benchmark.extra_info["images_per_second"] = round(len(jobs) / benchmark.stats.stats.min, 1)
