"""Things in and on a patient that are not the patient: tubes, lines, wires, buttons.

Apart because they are drawn over the finished chest and follow courses instead of anatomy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from harness.phantom.anatomy import Finding, devices
from harness.phantom.canvas import Field, Frame, Points, bezier, ramp
from harness.phantom.thorax import Body

METAL, TUBE = 0.30, 0.17  # brightness that a device adds at contrast 1
WIRES_SHARE, WIRE = 0.35, 0.13  # share of AP pictures with ECG wires that no report mentions; brightness
OBJECT = (0.95, 1.05)  # brightness of foreign objects: metal stops everything


@dataclass(frozen=True)
class Part:
    """A curve of half-width `radius` (body units); y of `points` runs from 0, lung top, to 1, diaphragm."""

    points: Points
    radius: float
    brightness: float


PARTS: Mapping[str, tuple[Part, ...]] = {
    "central line": (Part([(-0.13, -0.25), (-0.10, 0.07), (-0.05, 0.11), (-0.055, 0.5)], 0.005, TUBE),),
    "endotracheal tube": (
        Part([(-0.012, -0.3), (-0.010, 0.31)], 0.003, TUBE),
        Part([(0.008, -0.3), (0.010, 0.31)], 0.003, TUBE),
    ),
    "enteric tube": (Part([(0, -0.3), (0.02, 0.7), (0, 1), (0.05, 1.22), (0.2, 1.22)], 0.005, TUBE),),
    "pacemaker": (
        Part([(0.21, 0.22), (0.25, 0.22)], 0.034, METAL),
        Part([(0.20, 0.18), (0.08, 0.04), (-0.06, 0.15), (-0.06, 0.82)], 0.004, METAL),
        Part([(0.20, 0.20), (0.07, 0.06), (-0.07, 0.22), (-0.06, 1), (0.14, 0.96)], 0.004, METAL),
    ),
    "chest tube": (Part([(-0.46, 1.04), (-0.33, 0.91), (-0.30, 0.5), (-0.2, 0.13)], 0.007, TUBE),),
}


def support(frame: Frame, body: Body, finding: Finding, value: Field, contrast: float) -> Field:
    """`value` with the finding's devices on top."""
    rng = np.random.default_rng(finding.seed)
    bend, mirror = rng.uniform(-0.012, 0.012), -1 if rng.random() < 0.5 else 1
    for device in devices(finding):
        side = mirror if device == "chest tube" else 1
        for part in PARTS[device]:
            course = [(side * x + bend, body.apex + y * (body.dome - body.apex)) for x, y in part.points]
            value = value + frame.stroke(bezier(course), part.radius) * (part.brightness * contrast)
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
    knots = [(turn + 0.8 * knot, size * rng.uniform(0.6, 1.2)) for knot in range(4)]
    return bezier([(centre[0] + r * math.cos(angle), centre[1] + r * math.sin(angle)) for angle, r in knots])


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
