"""What a picture shows, measured on the pixels: each sign where it belongs, and nothing else changed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from harness.phantom.anatomy import (
    FINDINGS,
    VERSION,
    Cohort,
    Dials,
    Finding,
    Person,
    Picture,
    Study,
    View,
)
from harness.phantom.render import Rendered, render

HEIGHT, WIDTH = 160, 136
PEOPLE = [Cohort("render", 6, 3, (HEIGHT, WIDTH)).person(number) for number in range(1, 7)]
SIDED = {
    "Pleural Effusion",
    "Consolidation",
    "Atelectasis",
    "Pneumothorax",
    "Lung Lesion",
    "Fracture",
}


def drawn(
    person: Person,
    *findings: Finding,
    view: View = "PA",
    dials: Dials | None = None,
    height: int = HEIGHT,
    width: int = WIDTH,
) -> Rendered:
    study = Study(1, findings, {}, (), 0)
    picture = Picture(1, view, seed=100 + person.number)
    return render(person, study, picture, height=height, width=width, dials=dials or Dials())


def finding(name: str, person: Person, severity: float = 0.7, side: str = "left") -> Finding:
    return Finding(name, severity, side if name in SIDED else "", seed=7 * person.number)  # type: ignore[arg-type]


def change(name: str, person: Person, severity: float = 0.7, side: str = "left") -> np.ndarray:
    """Grey levels [H, W] that the finding adds to the otherwise same picture."""
    sick = drawn(person, finding(name, person, severity, side)).pixels
    return sick.astype(float) - drawn(person).pixels


# --- which picture ---


def pixels_of(cohort: Cohort, number: int) -> list[np.ndarray]:
    person = cohort.person(number)
    return [
        render(person, study, picture, height=64, width=56, dials=cohort.dials).pixels
        for study in person.studies
        for picture in study.pictures
    ]


def test_growing_a_cohort_leaves_its_first_people_as_they_were():
    small, large = Cohort("a", 3, 0, (64, 56)), Cohort("a", 300, 0, (64, 56))
    for number in range(1, 4):
        for one, other in zip(pixels_of(small, number), pixels_of(large, number), strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("other", [Cohort("a", 3, 1, (64, 56)), Cohort("b", 3, 0, (64, 56))])
def test_another_seed_or_dataset_is_another_picture(other: Cohort):
    assert not np.array_equal(pixels_of(Cohort("a", 3, 0, (64, 56)), 1)[0], pixels_of(other, 1)[0])


@pytest.mark.parametrize(("height", "width"), [(64, 64), (320, 390), (128, 107)])
@pytest.mark.parametrize("view", ["PA", "AP", "LATERAL"])
def test_any_size_is_eight_bit_grey_and_uses_the_range(height: int, width: int, view: View):
    pixels = drawn(PEOPLE[0], view=view, height=height, width=width).pixels
    assert pixels.shape == (height, width)
    assert pixels.dtype == np.uint8
    assert np.percentile(pixels, 95) - np.percentile(pixels, 5) > 80


def test_a_larger_picture_is_the_same_picture():
    """Posture and exposure must not hang on the size, or a size sweep would compare different people."""
    for person in PEOPLE:
        small = drawn(person, height=80, width=68, dials=Dials(noise=0)).pixels
        large = Image.fromarray(drawn(person, height=320, width=272, dials=Dials(noise=0)).pixels)
        shrunk = np.asarray(large.resize((68, 80), Image.Resampling.BOX))
        assert np.corrcoef(small.ravel(), shrunk.ravel())[0, 1] > 0.97
        assert abs(small.mean() - shrunk.mean()) < 4


def test_a_side_view_is_plainly_another_picture():
    for person in PEOPLE:
        frontal, lateral = (drawn(person, view=view).pixels.ravel() for view in ("PA", "LATERAL"))
        assert np.corrcoef(frontal, lateral)[0, 1] < 0.6


def test_one_person_looks_alike_in_two_pictures_and_unlike_another():
    """The body is the person's: at rest posture and exposure, only the picture's seed differs."""

    def chest(person: Person, seed: int) -> np.ndarray:
        picture = Picture(1, "PA", seed)
        study = Study(1, (), {}, (), 0)
        pixels = render(person, study, picture, height=80, width=68, dials=Dials(noise=0)).pixels
        return pixels.ravel().astype(float)

    same = [np.corrcoef(chest(p, 1), chest(p, 2))[0, 1] for p in PEOPLE]
    other = [np.corrcoef(chest(p, 1), chest(q, 2))[0, 1] for p in PEOPLE for q in PEOPLE if p is not q]
    assert np.mean(same) > np.mean(other)


# --- what it shows ---


@pytest.mark.parametrize("view", ["PA", "AP", "LATERAL"])
def test_without_contrast_no_finding_changes_a_pixel(view: View):
    for person in PEOPLE[:3]:
        findings = [finding(name, person, 1.0) for name in FINDINGS]
        sick = drawn(person, *findings, view=view, dials=Dials(contrast=0))
        np.testing.assert_array_equal(sick.pixels, drawn(person, view=view, dials=Dials(contrast=0)).pixels)
        assert sick.lesions == ()


@pytest.mark.slow
@pytest.mark.parametrize("name", FINDINGS)
def test_a_graver_finding_shows_more(name: str):
    shown = [
        sum(np.abs(change(name, person, severity)).sum() for person in PEOPLE) for severity in (0.2, 0.5, 0.9)
    ]
    assert 0 < shown[0] < shown[1] < shown[2]


@pytest.mark.slow
@pytest.mark.parametrize("name", FINDINGS)
def test_more_contrast_shows_more(name: str):
    def shown(contrast: float) -> float:
        dials = Dials(contrast=contrast)
        return sum(
            np.abs(
                drawn(p, finding(name, p), dials=dials).pixels.astype(float) - drawn(p, dials=dials).pixels
            ).sum()
            for p in PEOPLE
        )

    assert shown(0.4) < shown(1.0)


@pytest.mark.slow
@pytest.mark.parametrize("name", FINDINGS)
def test_a_moderate_sign_survives_at_the_size_small_encoders_see(name: str):
    """80 px high. The steepest change must stand above the picture's own noise."""
    for person in PEOPLE:
        sick, well = (
            np.asarray(Image.fromarray(pixels).resize((68, 80), Image.Resampling.BOX), dtype=float)
            for pixels in (drawn(person, finding(name, person, 0.6)).pixels, drawn(person).pixels)
        )
        assert np.abs(sick - well).max() > 10


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SIDED))
def test_a_frontal_picture_shows_the_patients_left_at_its_right(name: str):
    for person in PEOPLE:
        for side in ("left", "right"):
            energy = np.abs(change(name, person, side=side))
            right_half = energy[:, WIDTH // 2 :].sum() / energy.sum()
            assert (right_half if side == "left" else 1 - right_half) > 0.9


@pytest.mark.parametrize(
    ("name", "from_row", "to_row"),  # shares of the height
    [
        ("Cardiomegaly", 0.35, 0.8),
        ("Edema", 0.2, 0.8),
        ("Pleural Effusion", 0.5, 0.9),
        ("Atelectasis", 0.5, 0.85),
        ("Pneumothorax", 0.1, 0.7),
        ("Fracture", 0.2, 0.7),
    ],
)
def test_a_sign_lies_at_its_height(name: str, from_row: float, to_row: float):
    for person in PEOPLE:
        energy = np.abs(change(name, person)).sum(axis=1)
        assert energy[int(from_row * HEIGHT) : int(to_row * HEIGHT)].sum() > 0.85 * energy.sum()


@pytest.mark.parametrize(
    "name",
    [
        "Cardiomegaly",
        "Edema",
        "Pleural Effusion",
        "Consolidation",
        "Atelectasis",
        "Lung Lesion",
        "Support Devices",
    ],
)
def test_what_takes_up_air_or_stops_rays_is_brighter(name: str):
    for person in PEOPLE:
        added = change(name, person)
        assert added.sum() > 0.75 * np.abs(added).sum()  # gas under a raised diaphragm may come into view


def test_a_pneumothorax_is_a_dark_rim_with_a_bright_line():
    for person in PEOPLE:
        added = change("Pneumothorax", person)
        assert added[added < 0].sum() < -0.6 * np.abs(added).sum()
        assert added.max() > 8
        outer = np.abs(added[:, int(0.75 * WIDTH) :]).sum()
        inner = np.abs(added[:, WIDTH // 2 : int(0.62 * WIDTH)]).sum()
        assert outer > inner


def test_edema_lies_on_both_sides():
    for person in PEOPLE:
        energy = np.abs(change("Edema", person)).sum(axis=0)
        assert 0.3 < energy[: WIDTH // 2].sum() / energy.sum() < 0.7


def heart_ratio(pixels: np.ndarray) -> float:
    """Cardiothoracic ratio read off the rows: widest bright run over the lungs' outer edges."""
    ratios = []
    for row in pixels[int(0.42 * HEIGHT) : int(0.62 * HEIGHT)].astype(float):
        inside = row[int(0.1 * WIDTH) : int(0.9 * WIDTH)]
        bright = row[WIDTH // 2 - 3 : WIDTH // 2 + 8].mean()
        lung = np.flatnonzero(row < (np.percentile(inside, 8) + bright) / 2)
        lung = lung[(lung > 0.07 * WIDTH) & (lung < 0.93 * WIDTH)]
        left, right = lung[lung < WIDTH // 2], lung[lung > WIDTH // 2]
        if len(left) > 2 and len(right) > 2:
            ratios.append((right[0] - left[-1]) / (right[-1] - left[0]))
    return max(ratios)


def test_a_large_heart_can_be_measured():
    quiet = Dials(noise=0)
    normal = np.array([heart_ratio(drawn(p, dials=quiet).pixels) for p in PEOPLE])
    large = np.array(
        [heart_ratio(drawn(p, finding("Cardiomegaly", p, 1.0), dials=quiet).pixels) for p in PEOPLE]
    )
    assert 0.40 < normal.mean() < 0.54
    assert normal.std() > 0.01  # healthy hearts differ, so that no threshold is perfect
    assert 0.58 < large.mean() < 0.74
    assert (large > normal + 0.05).all()


def test_an_ap_picture_magnifies_the_heart():
    quiet = Dials(noise=0)
    by_view = {
        view: np.mean([heart_ratio(drawn(p, view=view, dials=quiet).pixels) for p in PEOPLE])
        for view in ("PA", "AP")
    }
    assert by_view["AP"] > 1.03 * by_view["PA"]


# --- where it says it is ---


def inside_boxes(rendered: Rendered, energy: np.ndarray) -> float:
    covered = np.zeros(energy.shape, bool)
    for lesion in rendered.lesions:
        x0, y0, x1, y1 = (int(edge) for edge in lesion.box)
        covered[y0:y1, x0:x1] = True
    return energy[covered].sum() / energy.sum()


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("Consolidation", 0.85),
        ("Lung Lesion", 0.85),
        ("Foreign Object", 0.85),
        ("Pneumothorax", 0.9),
        ("Fracture", 0.3),
    ],
)
def test_boxes_hold_what_was_drawn(name: str, share: float):
    """A fracture's box holds the break; the rib beyond it has moved as well."""
    for person in PEOPLE:
        sick = drawn(person, finding(name, person))
        assert {lesion.name for lesion in sick.lesions} == {name}
        assert inside_boxes(sick, np.abs(change(name, person))) > share


def test_boxes_are_tight():
    """The area of a nodule's box is near that of the pixels it changed."""
    for person in PEOPLE:
        (lesion,) = drawn(person, finding("Lung Lesion", person)).lesions
        x0, y0, x1, y1 = lesion.box
        changed = (np.abs(change("Lung Lesion", person)) > 12).sum()
        assert 0.5 < changed / ((x1 - x0) * (y1 - y0)) < 1.3


@pytest.mark.parametrize("name", ["Consolidation", "Lung Lesion", "Pneumothorax", "Foreign Object"])
def test_masks_fill_their_boxes_and_hold_what_changed(name: str):
    for person in PEOPLE:
        sick = drawn(person, finding(name, person))
        energy, union = np.abs(change(name, person)), np.zeros((HEIGHT, WIDTH), bool)
        for lesion in sick.lesions:
            rows, columns = np.nonzero(lesion.mask)
            assert lesion.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            union |= lesion.mask
        assert energy[union].mean() > 4 * energy[~union].mean()


@pytest.mark.slow
def test_a_consolidation_has_one_to_four_boxes_most_often_one_or_two():
    person = PEOPLE[0]
    counts = []
    for seed in range(60):
        for side in ("left", "right", "both"):
            sick = replace(finding("Consolidation", person, 0.4 + seed / 120), side=side, seed=seed)
            lesions = drawn(person, sick, height=80, width=68).lesions
            for lesion in lesions:
                x0, y0, x1, y1 = lesion.box
                assert 0 <= x0 < x1 <= 68
                assert 0 <= y0 < y1 <= 80
            if side == "both":
                assert {lesion.box[0] + lesion.box[2] > 68 for lesion in lesions} == {True, False}
            counts.append(len(lesions))
    assert set(counts) <= {1, 2, 3, 4}
    assert np.mean(np.isin(counts, (1, 2))) > 0.9


def test_a_side_view_names_no_places():
    assert drawn(PEOPLE[0], finding("Consolidation", PEOPLE[0]), view="LATERAL").lesions == ()


def test_pictures_are_those_of_this_version():
    """Someone else's records are about these pictures. If this fails, raise VERSION in anatomy.py."""
    person = Cohort("pinned", 1, 0, (128, 128)).person(1)
    study = person.studies[0]
    pixels = render(person, study, study.pictures[0], height=128, width=128, dials=Dials()).pixels
    assert VERSION == 3
    assert pixels.mean() == pytest.approx(122.28, abs=0.3)  # processors round differently, not by more
    assert pixels.std() == pytest.approx(78.24, abs=0.3)
