"""Things in and on a patient that are not the patient: tubes, lines, wires, buttons.

Apart because they are drawn over the finished chest and follow courses instead of anatomy.
"""

from __future__ import annotations

import math

import numpy as np

from harness.phantom.anatomy import Finding, devices
from harness.phantom.canvas import Field, Frame, Points, bezier, ramp
from harness.phantom.thorax import Body

METAL, TUBE = 0.30, 0.17  # brightness that a device adds at contrast 1
WIRES_SHARE, WIRE = 0.35, 0.13  # share of AP pictures with ECG wires that no report mentions; brightness
OBJECT = (0.95, 1.05)  # brightness of foreign objects: metal stops everything


def support(frame: Frame, body: Body, finding: Finding, value: Field, contrast: float) -> Field:
    """`value` with the finding's devices on top."""
    rng = np.random.default_rng(finding.seed)
    bend, side = rng.uniform(-0.01, 0.01), -1 if rng.random() < 0.7 else 1
    top, dome = body.apex, body.dome
    courses: dict[str, list[tuple[Points, float, float]]] = {
        "central line": [
            (
                bezier(
                    [
                        (side * 0.13, top - 0.14),
                        (side * 0.10, top + 0.04),
                        (-0.05, top + 0.06),
                        (-0.055, top + 0.27),
                    ]
                ),
                0.005,
                TUBE,
            )
        ],
        "endotracheal tube": [
            ([(offset + bend, top - 0.16), (offset, top + 0.02), (offset, top + 0.17)], 0.003, TUBE)
            for offset in (-0.010, 0.010)
        ],
        "enteric tube": [
            (
                bezier(
                    [(bend, top - 0.16), (0.02, 0.0), (0.0, dome), (0.05, dome + 0.12), (0.2, dome + 0.12)]
                ),
                0.005,
                TUBE,
            )
        ],
        "pacemaker": [
            ([(0.21, top + 0.12), (0.25, top + 0.12)], 0.034, METAL),
            (
                bezier([(0.2, top + 0.1), (0.08, top + 0.02), (-0.06, top + 0.08), (-0.06, dome - 0.1)]),
                0.004,
                METAL,
            ),
            (
                bezier(
                    [
                        (0.2, top + 0.11),
                        (0.07, top + 0.03),
                        (-0.07, top + 0.12),
                        (-0.06, dome),
                        (0.14, dome - 0.02),
                    ]
                ),
                0.004,
                METAL,
            ),
        ],
        "chest tube": [
            (
                bezier(
                    [
                        (side * 0.46, dome + 0.02),
                        (side * 0.33, dome - 0.05),
                        (side * 0.30, -0.1),
                        (side * 0.2, top + 0.07),
                    ]
                ),
                0.007,
                TUBE,
            )
        ],
    }
    for device in devices(finding):
        for points, radius, brightness in courses[device]:
            value = value + frame.stroke(points, radius) * (brightness * contrast)
    return value


def wires(rng: np.random.Generator, frame: Frame, value: Field) -> Field:
    """`value` with the leads of an ECG on top, in some pictures."""
    present, count = rng.random() < WIRES_SHARE, int(rng.integers(2, 5))
    ends = rng.uniform((-0.32, -0.22), (0.32, 0.24), size=(4, 2))
    if not present:
        return value
    for x, y in ends[:count].tolist():
        course = bezier([(x, y), (x * 0.6, y + 0.1), (x + 0.1, 0.35), (0.35 * math.copysign(1, x), 0.6)])
        value = value + WIRE * frame.stroke(course, 0.0025)
        value = value + WIRE * frame.stroke([(x, y), (x + 0.002, y)], 0.014)
    return value


def foreign(frame: Frame, finding: Finding) -> list[tuple[Field, float]]:
    """Alpha and brightness of each object: a disc, a wire or a shard, more of them when it is severe."""
    rng = np.random.default_rng(finding.seed)
    objects = []
    for _ in range(1 + int(finding.severity * rng.integers(1, 5))):
        centre = (rng.uniform(-0.3, 0.3), rng.uniform(-0.3, 0.25))
        size = rng.uniform(0.02, 0.045)
        kind = rng.integers(3)
        turn = rng.uniform(0, math.pi)
        if kind == 0:
            alpha = ramp(1 - frame.ellipse(centre, size, size), 0.25)
        elif kind == 1:
            alpha = frame.stroke(_curl(rng, centre, 2.2 * size, turn), 0.006)
        else:
            alpha = _shard(rng, frame, centre, 1.3 * size, turn)
        objects.append((alpha, rng.uniform(*OBJECT)))
    return objects


def _curl(rng: np.random.Generator, centre: tuple[float, float], size: float, turn: float) -> Points:
    angles = turn + np.linspace(0, 2.4, 4)
    lengths = size * rng.uniform(0.6, 1.2, size=4)
    return bezier(
        [
            (centre[0] + r * math.cos(a), centre[1] + r * math.sin(a))
            for a, r in zip(angles, lengths, strict=True)
        ]
    )


def _shard(
    rng: np.random.Generator, frame: Frame, centre: tuple[float, float], size: float, turn: float
) -> Field:
    """A convex polygon: where all of its edges are still ahead."""
    corners = int(rng.integers(3, 7))
    inside = np.ones_like(frame.x)
    for corner in range(corners):
        angle = turn + 2 * math.pi * corner / corners + rng.uniform(-0.25, 0.25)
        ahead = size * rng.uniform(0.55, 1.0)
        along = (frame.x - centre[0]) * math.cos(angle) + (frame.y - centre[1]) * math.sin(angle)
        inside = np.minimum(inside, ramp(ahead - along, 0.01))
    return inside
