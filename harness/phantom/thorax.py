"""A healthy chest: its shape is the person's, its posture the picture's.

Apart from the signs of disease (render.py) so that each can be read, and changed, without the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from harness.phantom.anatomy import Person
from harness.phantom.canvas import Field, Frame, bezier, ramp, stripes

SOFT_TISSUE, MEDIASTINUM, ABDOMEN = 0.58, 0.72, 0.76  # brightness, before the exposure
AIR = 0.44  # how much darker than soft tissue a lung full of air is
RIB, FRONT_RIB, CLAVICLE, SPINE = 0.085, 0.04, 0.10, 0.05  # brightness that bone adds
VESSELS, HILUM = 0.10, 0.16  # share of air that lung vessels take up
RETROCARDIAC = 0.15  # share of the lungs' air that shows through the heart
RIGHT, LEFT = -1, 1  # the patient's side as the sign of x


@dataclass(frozen=True)
class Body:
    """Lengths in body units, brightness as above."""

    half_width: float  # of the inner thorax at its base
    apex: float  # y of the lung tops
    dome: float  # y of the right diaphragm's top; the left one lies a little lower
    sulcus: float  # how far the costophrenic angle hangs below the dome
    heart: float  # cardiothoracic ratio
    heart_tilt: float
    fat: float  # 0 lean .. 1 obese
    breasts: float  # brightness of their shadow
    rib_pitch: float
    rib_phase: float
    rib_slope: float
    clavicle_slope: float
    stomach: float  # brightness lost to gas under the left dome
    branches: float  # of the lung vessels, per turn

    @staticmethod
    def of(person: Person) -> Body:
        rng = np.random.default_rng(person.seed)
        female, age = person.sex == "F", person.age / 90
        return Body(
            half_width=float(np.clip(rng.normal(0.365 if female else 0.38, 0.016), 0.33, 0.42)),
            apex=rng.normal(-0.37, 0.012),
            dome=rng.normal(0.175, 0.025),
            sulcus=rng.uniform(0.10, 0.145),
            heart=float(np.clip(rng.normal(0.445 + 0.025 * age, 0.028), 0.38, 0.53)),
            heart_tilt=rng.uniform(0.35, 0.75),
            fat=rng.beta(2, 3),
            breasts=rng.uniform(0.04, 0.12) if female else 0.0,
            rib_pitch=rng.uniform(0.068, 0.08),
            rib_phase=rng.uniform(),
            rib_slope=rng.uniform(0.12, 0.38),
            clavicle_slope=rng.uniform(-0.03, 0.09),
            stomach=rng.uniform(0.0, 0.22),
            branches=rng.uniform(9, 14),
        )


@dataclass(frozen=True)
class Crack:
    """One broken rib: its outer part has slipped by `step` rib distances, leaving a gap of alpha `gap`."""

    side: int
    x: float  # distance from the midline
    y: float
    step: float
    gap: float


@dataclass(frozen=True)
class Thorax:
    """The frontal view of one body in one posture. Fields are made once, when first asked for."""

    frame: Frame
    body: Body
    supine: bool  # an AP picture: large heart, high diaphragms, shoulder blades over the lungs
    breath: float  # how much lower than usual the diaphragms stand
    heart: float  # cardiothoracic ratio in this picture
    raised: Mapping[int, float]  # side -> how much higher its diaphragm stands
    cracks: tuple[Crack, ...] = ()

    @cached_property
    def out(self) -> Field:
        """Distance from the midline."""
        return np.abs(self.frame.x)

    @cached_property
    def left(self) -> Field:
        """1 in the patient's left half."""
        return (self.frame.x > 0).astype(np.float32)

    def rest(self, side: int) -> float:
        """y of the diaphragm's top where no disease raises it."""
        return self.body.dome + self.breath + (0.022 if side == LEFT else 0.0)

    def dome(self, side: int) -> float:
        return self.rest(side) - self.raised.get(side, 0.0)

    def angle(self, side: int) -> float:
        """y of the costophrenic angle."""
        return self.rest(side) + self.body.sulcus

    def half(self, side: int) -> Field:
        return self.left if side == LEFT else 1 - self.left

    @cached_property
    def _depth(self) -> Field:
        """0 at the lung's top, 1 from the level of the costophrenic angles on."""
        floor = self.body.dome + self.breath + self.body.sulcus
        return np.clip((self.frame.y - self.body.apex) * (1 / (floor - self.body.apex)), 0, 1)

    @cached_property
    def wall(self) -> Field:
        """Distance of the inner chest wall from the midline, by height."""
        return self.wall_at(self._depth)

    def wall_at(self, depth: Field) -> Field:
        wall: Field = self.body.half_width * (0.40 + 0.60 * np.sqrt(depth * (2 - depth)))
        return wall

    @cached_property
    def diaphragm(self) -> Field:
        """y of the diaphragm, by x."""
        width = self.body.half_width
        bow = (self.out - 0.50 * width) * (1 / (0.50 * width))
        sag = bow * np.abs(bow) * np.where(bow > 0, np.float32(1), np.float32(-0.5))
        domes, angles = (
            right + (left - right) * self.left
            for right, left in ((of(RIGHT), of(LEFT)) for of in (self.dome, self.angle))
        )
        return domes + (angles - domes) * sag

    @cached_property
    def cavity(self) -> Field:
        """Alpha of the two pleural spaces with everything that may fill them, heart aside."""
        frame, body = self.frame, self.body
        inlet = np.sqrt(np.clip(self._depth * 7, 0, 1))
        medial = 0.058 + 0.035 * self._depth + 0.27 * body.half_width * (1 - inlet)
        return (
            ramp(self.wall - self.out, 0.014)
            * ramp(self.out - medial, 0.02)
            * ramp(self.diaphragm - frame.y, 0.014)
            * ramp(frame.y - body.apex, 0.02)
        )

    @cached_property
    def heart_shadow(self) -> Field:
        """The heart with the aortic knob on top."""
        frame, body = self.frame, self.body
        tilt, half = body.heart_tilt, self.heart * body.half_width
        long = half / math.hypot(math.cos(tilt), 0.76 * math.sin(tilt))
        middle = (0.30 * half, self.rest(RIGHT) + 0.011 - 0.50 * half)
        heart = ramp(1 - frame.ellipse(middle, long, 0.76 * long, tilt), 0.2)
        # the great vessels, a cone that stands on the heart
        cone = ramp(0.05 + 0.55 * (frame.y - body.apex - 0.24) - np.abs(frame.x - 0.02), 0.03)
        heart = np.maximum(heart, cone * ramp(middle[1] - frame.y, 0.05) * ramp(0.5 * half - self.out, 0.05))
        knob = ramp(1 - frame.ellipse((0.052, body.apex + 0.225), 0.038, 0.045), 0.5)
        shadow: Field = np.maximum(heart, knob)
        return shadow

    @cached_property
    def hila(self) -> dict[int, tuple[float, float]]:
        return {RIGHT: (-0.085, self.body.apex + 0.33), LEFT: (0.09, self.body.apex + 0.315)}

    def vessels(self, fullness: float) -> Field:
        """Share of air that the vessels take up, fanning out from the hila."""
        x, y = self.out - 0.08, self.frame.y - self.hila[RIGHT][1]
        radius = np.sqrt(x * x + y * y)
        turn = np.arctan2(y, x) * (self.body.branches / (2 * math.pi))
        turn = turn + 0.4 * self.left + 2 * radius  # not the same on both sides, and bent
        fan = np.clip(1 - 3.2 * np.abs(turn - np.rint(turn)), 0, 1)
        reach = np.clip(1 - radius * (1 / (0.20 + 0.08 * fullness)), 0, 1)
        taken: Field = (VESSELS * fullness) * fan * reach + HILUM * np.clip(1 - radius * 14, 0, 1)
        return taken

    @cached_property
    def ribs(self) -> Field:
        frame, body = self.frame, self.body
        slope = body.rib_slope
        phase = (frame.y - slope * self.out - 0.9 * self.out**2) * (1 / body.rib_pitch) + body.rib_phase
        gaps = np.zeros(1, np.float32)
        for crack in self.cracks:
            y = crack.y - slope * crack.x - 0.9 * crack.x**2
            number = round(y / body.rib_pitch + body.rib_phase)
            on_rib = (np.abs(phase - number) < 0.5) * self.half(crack.side)
            phase = phase + crack.step * on_rib * (self.out > crack.x)
            gaps = gaps + crack.gap * on_rib * ramp(0.007 - np.abs(self.out - crack.x), 0.008)
        back = stripes(phase, 0.17, 0.14) * (1 - np.clip(gaps, 0, 1))
        front = (frame.y + 0.45 * self.out) * (0.8 / body.rib_pitch) + body.rib_phase
        ribs = RIB * back + FRONT_RIB * stripes(front, 0.2, 0.2) * ramp(self.out - 0.16, 0.1)
        dense = np.maximum(self.heart_shadow, ramp(frame.y - self.diaphragm, 0.04))  # outshines bone
        ribs = ribs * ramp(self.wall + 0.012 - self.out, 0.012) * ramp(frame.y - body.apex + 0.02, 0.03)
        return ribs * (1 - 0.7 * dense)

    @cached_property
    def bones(self) -> Field:
        frame, body, out = self.frame, self.body, self.out
        spine = ramp(0.036 - out, 0.012) * (0.65 + 0.35 * stripes(frame.y * 18 + body.rib_phase, 0.36, 0.12))
        high = body.apex + (0.015 if self.supine else 0.06)
        bones = self.ribs + SPINE * spine
        for side in (RIGHT, LEFT):
            slope = body.clavicle_slope
            points = [
                (0.045, high + 0.03),
                (0.15, high + 0.04),
                (0.23, high - 0.5 * slope),
                (0.38, high - slope),
            ]
            curve = bezier([(side * x, y) for x, y in points])
            bones = bones + CLAVICLE * frame.stroke(curve, 0.0125)
        if self.supine:
            blade = ramp(1 - np.hypot((out - 0.36) * (1 / 0.085), (frame.y + 0.13) * (1 / 0.2)), 0.2)
            bones = bones + 0.05 * blade
        return bones

    @cached_property
    def tissue(self) -> Field:
        """Brightness of the body without air in its lungs and without bone."""
        frame, body, out = self.frame, self.body, self.out
        shell = body.half_width + 0.035 + 0.07 * body.fat
        below_shoulder = ramp(frame.y + 0.12, 0.1)
        shoulder = 1.2 * np.clip(out - 0.07, 0, 0.12) + 0.12 * np.clip(out - 0.19, 0, None) - 0.61
        inside = ramp(frame.y - shoulder, 0.03) * (1 - below_shoulder * ramp(out - shell - 0.04, 0.05))
        middle = ramp(0.095 - out, 0.05) * ramp(self.diaphragm - frame.y, 0.03)
        belly = ramp(frame.y - self.diaphragm, 0.05) * ramp(shell - out, 0.06)
        centre = (MEDIASTINUM - SOFT_TISSUE) * np.maximum(middle, self.heart_shadow)
        tissue: Field = SOFT_TISSUE + 0.10 * body.fat + np.maximum(centre, (ABDOMEN - SOFT_TISSUE) * belly)
        if body.breasts:
            breast = np.hypot((out - 0.2) * (1 / 0.15), (frame.y - 0.13) * (1 / 0.13))
            tissue = tissue + body.breasts * ramp(1 - breast, 0.45)
        gas = ramp(1 - frame.ellipse((0.17, self.rest(LEFT) + 0.085), 0.1, 0.06), 0.5)
        tissue = tissue - body.stomach * gas * belly
        trachea = ramp(0.018 - out, 0.012) * ramp(body.apex + 0.27 - frame.y, 0.05)
        tissue = (tissue - 0.09 * trachea) * inside + 0.04
        return tissue
