"""Body coordinates and pixels are two views of one place, whatever the posture."""

from __future__ import annotations

import numpy as np
import pytest

from harness.phantom.canvas import Frame, bezier, blur, box_of, clouds

TURNED = Frame(120, 90, zoom=1.2, rotation=0.3, shift=(0.05, -0.08))


@pytest.mark.parametrize("point", [(0.0, 0.0), (0.2, -0.1), (-0.25, 0.3)])
@pytest.mark.parametrize("frame", [Frame(120, 90), TURNED])
def test_a_dot_is_drawn_where_the_coordinates_say(frame: Frame, point: tuple[float, float]):
    dot = frame.stroke([point, point], 0.03)
    row, column = (round(float(at)) for at in np.average(np.argwhere(dot > 0), axis=0))
    assert frame.x[row, column] == pytest.approx(point[0], abs=1 / frame.scale)
    assert frame.y[row, column] == pytest.approx(point[1], abs=1 / frame.scale)
    assert dot.sum() == pytest.approx(np.pi * (0.03 * frame.scale) ** 2, rel=0.15)


def test_an_ellipse_has_its_area():
    inside = TURNED.ellipse((0.05, 0.02), 0.2, 0.1, 0.7) < 1
    assert inside.sum() == pytest.approx(np.pi * 0.2 * 0.1 * TURNED.scale**2, rel=0.03)


def test_strokes_beyond_the_sheet_are_cut_off():
    assert Frame(50, 50).stroke([(-2, 0), (2, 0)], 0.02).shape == (50, 50)
    assert Frame(50, 50).stroke([(2, 2), (3, 3)], 0.02).sum() == 0


def test_boxes_exclude_their_upper_bound():
    mask = np.zeros((10, 12), bool)
    mask[2:5, 3:9] = True
    assert box_of(mask) == (3, 2, 9, 5)
    assert box_of(np.zeros((4, 4), bool)) is None


def test_a_bezier_runs_from_end_to_end_inside_its_corners():
    curve = bezier([(0, 0), (1, 2), (3, 0)], steps=5)
    assert (curve[0], curve[-1]) == ((0, 0), (3, 0))
    assert curve[2] == pytest.approx((0.25 * 0 + 0.5 * 1 + 0.25 * 3, 1.0))


def test_blur_keeps_the_mean_of_what_lies_inside_and_lowers_its_peak():
    dot = np.zeros((9, 9), np.float32)
    dot[4, 4] = 16
    assert blur(dot).sum() == pytest.approx(16)
    assert blur(dot)[4, 4] == pytest.approx(4)


def test_clouds_meet_their_knots():
    drawn = np.random.default_rng(0).standard_normal((5, 5), dtype=np.float32)
    sheet = clouds(np.random.default_rng(0), 41, 81, 5)
    np.testing.assert_allclose(sheet[::10, ::20], drawn, rtol=1e-5)
    assert sheet.dtype == np.float32
