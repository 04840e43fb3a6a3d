from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from harness.phantom import STAMP, Cohort, Dials, Person, draw, stamp, truth
from harness.phantom.render import render

COHORT = Cohort("stamp", 80, 2, (32, 28), Dials(contrast=0.5))  # enough people for a pool of workers


def write_person(person: Person, root: Path) -> list[tuple[str, dict[str, object]]]:
    rows = []
    for study in person.studies:
        for picture in study.pictures:
            rendered = render(person, study, picture, height=32, width=28, dials=COHORT.dials)
            name = f"{person.number}-{study.number}-{picture.number}"
            (root / name).write_bytes(rendered.pixels.tobytes())
            rows.append((name, truth(person, study, picture, rendered)))
    return rows


@pytest.mark.slow
def test_workers_draw_what_one_process_draws_in_the_order_of_the_people(tmp_path: Path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    rows = []
    for root, workers in ((alone, 1), (together, 2)):
        root.mkdir()
        rows.append(draw(COHORT, partial(write_person, root=root), workers=workers, label="phantom"))
    assert rows[0] == rows[1]
    assert [truth["person"] for _, truth in rows[0]] == sorted(truth["person"] for _, truth in rows[0])
    assert {path.name: path.read_bytes() for path in alone.iterdir()} == {
        path.name: path.read_bytes() for path in together.iterdir()
    }


def test_a_stamp_tells_how_it_was_made_and_what_is_there(tmp_path: Path):
    person = next(p for p in COHORT.people() if p.studies[0].has("Consolidation"))
    study = person.studies[0]
    rendered = render(person, study, study.pictures[0], height=32, width=28, dials=COHORT.dials)
    stamp(tmp_path, COHORT, {"one": truth(person, study, study.pictures[0], rendered)})

    found = json.loads((tmp_path / STAMP).read_text())
    assert found["count"] == 1
    assert found["cohort"]["seed"] == 2
    assert found["cohort"]["dials"] == {"contrast": 0.5, "noise": 1.0, "label_noise": 0.0}
    image = found["images"]["one"]
    assert image["person"] == person.number
    assert image["view"] == study.pictures[0].view
    assert image["findings"] == {finding.name: finding.severity for finding in study.findings}
    assert [(name, *box) for name, *box in image["lesions"]] == [
        (lesion.name, *lesion.box) for lesion in rendered.lesions
    ]
    assert "Consolidation" in {name for name, *_ in image["lesions"]}
