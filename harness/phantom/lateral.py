"""The side view: rough, but plainly another picture, with the three signs a reader looks for there.

Apart because nothing of the frontal view's geometry carries over.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness.phantom.anatomy import Finding
from harness.phantom.canvas import Field, Frame, ramp, stripes
from harness.phantom.thorax import ABDOMEN, AIR, SOFT_TISSUE, Body

HEART_GROWTH, EFFUSION_RISE, CONSOLIDATION = 0.10, 0.20, 0.6  # body units; body units; share of air


def lateral(frame: Frame, body: Body, signs: Mapping[str, Finding], contrast: float) -> Field:
    """Brightness [H, W] of a patient who faces picture left."""

    def shown(name: str) -> float:
        return signs[name].severity * contrast if name in signs else 0.0

    x, y = frame.x, frame.y
    heart_radius = 0.125 * body.heart / 0.45 + HEART_GROWTH * shown("Cardiomegaly")
    heart = ramp(1 - frame.ellipse((-0.13, body.dome - 0.07), heart_radius, heart_radius * 1.05, 0.5), 0.2)
    lungs = ramp(1 - frame.ellipse((0.02, -0.02), 0.30, 0.42, -0.12), 0.08)
    diaphragm = body.dome + 0.02 + 0.9 * (x - 0.02) ** 2 + 0.12 * x
    air = lungs * ramp(diaphragm - y, 0.02) * (1 - 0.75 * heart)
    if "Pleural Effusion" in signs:
        level = (
            body.dome
            + 0.1
            - EFFUSION_RISE * signs["Pleural Effusion"].severity * (0.4 + 2 * np.clip(x, 0, 1))
        )
        air = air * (1 - ramp(y - level, 0.03) * min(contrast, 1.0))
    if "Consolidation" in signs:
        rng = np.random.default_rng(signs["Consolidation"].seed)
        patch = frame.ellipse((rng.uniform(0.0, 0.16), rng.uniform(-0.1, 0.08)), 0.1, 0.08)
        air = air * (1 - np.clip(ramp(1 - patch, 0.8) * (CONSOLIDATION * shown("Consolidation")), 0, 1))

    inside = ramp(1 - frame.ellipse((0.02, 0.0), 0.40, 0.75), 0.06)
    belly = ramp(y - diaphragm, 0.04)
    vertebrae = stripes(y * 17 + body.rib_phase, 0.36, 0.12)
    spine = ramp(0.04 - np.abs(x - 0.25 + 0.35 * y * y), 0.015) * (0.08 + 0.05 * vertebrae)
    ribs = 0.05 * stripes((y + 0.55 * x) * (0.8 / body.rib_pitch) + body.rib_phase, 0.2, 0.15) * lungs
    arm = 0.16 * ramp(-0.30 - y + 0.2 * np.abs(x + 0.02), 0.12)  # raised, across the lung tops
    tissue = SOFT_TISSUE + 0.1 * body.fat + 0.12 * heart + (ABDOMEN - SOFT_TISSUE) * belly
    return (tissue - 0.85 * AIR * air + spine + ribs + arm) * inside + 0.04
