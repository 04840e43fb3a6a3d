"""Draws one picture of one study: a healthy chest, the signs of what is there, and what the machine adds.

Apart because only this file knows how strongly a finding shows; the numbers below decide how hard the
phantom is. Most signs take air from the lungs, so none can appear outside of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from harness.phantom import devices
from harness.phantom.anatomy import Dials, Finding, Person, Picture, Study, level
from harness.phantom.canvas import Field, Frame, blur, box_of, clouds, ramp
from harness.phantom.lateral import lateral
from harness.phantom.thorax import AIR, LEFT, RETROCARDIAC, RIGHT, Body, Crack, Thorax

# How much each sign shows at severity 1. Chosen by eye on sheets of 80 px high pictures: at severity 0.5 a
# sign is plain to someone who knows where to look, at 0.2 it drowns in posture, exposure and noise.
STRENGTH = 0.75  # of all signs together at contrast 1
HEART_GROWTH = 0.21  # of the cardiothoracic ratio: .45 +- .03 healthy, about .65 at worst
HEART_AP = 1.09  # an AP picture magnifies the heart: a nuisance that overlaps mild cardiomegaly
EDEMA_HAZE, EDEMA_GRAIN, EDEMA_VESSELS = 0.55, 0.32, 1.2  # share of air; of air; extra fullness of vessels
EFFUSION_RISE = (0.05, 0.27)  # body units above the costophrenic angle at severity 0, and more at 1
EFFUSION = 1.25  # share of air: fluid is denser than the chest wall
CONSOLIDATION = (0.40, 0.42)  # share of air in a blob's core: at severity 0, and more at 1
ATELECTASIS_BAND, ATELECTASIS_RISE = (0.40, 0.45), 0.065  # share of air; body units the diaphragm rises
PNEUMOTHORAX_GAP = (0.035, 0.13)  # body units between chest wall and lung: at severity 0, and more at 1
PNEUMOTHORAX_DARK, PLEURAL_LINE = 0.10, 0.16  # brightness lost in the gap, won on the line
LESION_RADIUS, LESION = (0.018, 0.034), (0.50, 0.40)  # body units; share of air
FRACTURE_STEP = (0.18, 0.27)  # rib distances that the outer part slips: at severity 0, and more at 1
CALLUS = 0.16  # brightness around the break

ZOOM, TILT, SHIFT = (0.82, 1.12), 0.05, 0.035  # of a PA picture: factor, radians, body units
NOISE, CLUTTER = 0.04, 0.05  # brightness: per pixel; smooth shadows of no meaning
CLUTTER_CELLS = 14  # across the picture: about the size of a small consolidation
GRADIENT = 0.05  # brightness from one edge to the other: heel effect, scatter

ONE_SIDE_BLOBS, BOTH_SIDES_BLOBS = (0.72, 0.26, 0.02), (0.0, 0.88, 0.09, 0.03)  # shares of 1, 2, ... patches
OUTLINE = 0.35  # alpha from which a patch counts as visible: readers draw generous boxes
OUTLINED = frozenset({"Consolidation", "Pneumothorax", "Lung Lesion", "Fracture", "Foreign Object"})

Signs = Mapping[str, Finding]
Shape = tuple[str, Field]  # a finding's name and the alpha [H, W] of one of its patches


@dataclass(frozen=True)
class Lesion:
    """Where one patch of a finding lies."""

    name: str
    box: tuple[float, float, float, float]  # xyxy in pixels, upper bound excluded: the bounds of `mask`
    mask: NDArray[np.bool_] = field(compare=False, repr=False)  # [height, width]


@dataclass(frozen=True)
class Rendered:
    pixels: NDArray[np.uint8]  # [height, width]
    lesions: tuple[Lesion, ...]  # frontal views only


def render(
    person: Person, study: Study, picture: Picture, *, height: int, width: int, dials: Dials
) -> Rendered:
    """The picture as a frontal or side view. At `dials.contrast` 0 no finding changes a pixel."""
    rng = np.random.default_rng(picture.seed)
    signs = {finding.name: finding for finding in study.findings} if dials.contrast > 0 else {}
    strength = STRENGTH * dials.contrast
    frame = _posture(rng, picture, height, width)
    breath = rng.normal(0.0, 0.012) - (0.02 if picture.view == "AP" else 0.0)
    shapes: list[Shape] = []
    if picture.view == "LATERAL":
        value = lateral(frame, Body.of(person), signs, strength)
    else:
        value, shapes = _frontal(frame, Body.of(person), signs, strength, picture.view == "AP", breath)
        if picture.view == "AP":
            value = devices.wires(rng, frame, value)
    masks = ((name, alpha > OUTLINE) for name, alpha in shapes)
    lesions = tuple(Lesion(name, box, mask) for name, mask in masks if (box := box_of(mask)) is not None)
    return Rendered(_expose(rng, value, dials.noise), lesions)


def _posture(rng: np.random.Generator, picture: Picture, height: int, width: int) -> Frame:
    loose = 1.5 if picture.view == "AP" else 1.0  # bedridden people lie as they can
    return Frame(
        height,
        width,
        zoom=float(rng.uniform(*ZOOM)),
        rotation=float(np.clip(rng.normal(0, TILT * loose), -0.3, 0.3)),
        shift=(float(rng.normal(0, SHIFT * loose)), float(rng.normal(0, SHIFT * loose))),
    )


def _frontal(
    frame: Frame, body: Body, signs: Signs, contrast: float, supine: bool, breath: float
) -> tuple[Field, list[Shape]]:
    shapes: list[Shape] = []
    heart = body.heart * (HEART_AP if supine else 1.0)
    if finding := signs.get("Cardiomegaly"):
        heart += HEART_GROWTH * finding.severity * contrast
    raised = {}
    if finding := signs.get("Atelectasis"):
        raised = dict.fromkeys(_sides(finding), ATELECTASIS_RISE * finding.severity * contrast)
    cracks = _cracks(body, signs["Fracture"], contrast) if "Fracture" in signs else ()
    thorax = Thorax(frame, body, supine, breath, heart, raised, cracks)

    aerated = thorax.cavity * (1 - (1 - RETROCARDIAC) * thorax.heart_shadow)
    fullness = 1.0
    if finding := signs.get("Edema"):
        fullness += EDEMA_VESSELS * finding.severity * contrast
    vessels = aerated * thorax.vessels(fullness)
    air = aerated - vessels
    for name, sign in AIR_SIGNS.items():
        if finding := signs.get(name):
            for alpha, share in sign(thorax, finding):
                air = air * (1 - alpha * (share * contrast))
                shapes.append((name, alpha * thorax.cavity))

    value = thorax.tissue - AIR * air + thorax.bones
    if finding := signs.get("Pneumothorax"):
        gap, line = _pneumothorax(thorax, finding)
        gap, line = gap * aerated, line * aerated
        value = value - gap * (AIR * vessels + PNEUMOTHORAX_DARK) * min(contrast, 1.0)  # no vessels there
        value = value + line * (PLEURAL_LINE * contrast)
        shapes.append(("Pneumothorax", gap))
    for crack in cracks:
        callus = ramp(1 - frame.ellipse((crack.side * crack.x, crack.y), 0.03, 0.025), 1.0)
        value = value + callus * (CALLUS * contrast)
        shapes.append(("Fracture", callus))
    if finding := signs.get("Support Devices"):
        value = devices.support(frame, body, finding, value, contrast)
    if finding := signs.get("Foreign Object"):
        for alpha, brightness in devices.foreign(frame, finding):
            value = value + (brightness - value) * alpha * min(contrast, 1.0)
            shapes.append(("Foreign Object", alpha))
    return value, [(name, alpha) for name, alpha in shapes if name in OUTLINED]


def _edema(thorax: Thorax, finding: Finding) -> list[tuple[Field, float]]:
    """Bat wings around the hila, a fine net all over, and Kerley's lines at the outer bases."""
    rng, frame = np.random.default_rng(finding.seed), thorax.frame
    wings = np.zeros_like(frame.x)
    for x, y in thorax.hila.values():
        spread = frame.ellipse((1.6 * x, y + 0.08), 0.21, 0.26)
        wings = np.maximum(wings, np.clip(1.15 - spread, 0, 1))
    net = np.abs(clouds(rng, frame.height, frame.width, 44)) * np.clip(wings + 0.35, 0, 1)
    lines = np.zeros_like(frame.x)
    for side in (RIGHT, LEFT):
        for step in range(4):
            y = thorax.angle(side) - 0.10 - 0.032 * step + rng.uniform(-0.006, 0.006)
            edge = side * thorax.body.half_width
            lines = np.maximum(lines, frame.stroke([(edge * 0.97, y), (edge * 0.80, y + 0.004)], 0.003))
    severity = finding.severity
    return [(wings, EDEMA_HAZE * severity), (np.maximum(net, lines), EDEMA_GRAIN * severity)]


def _effusion(thorax: Thorax, finding: Finding) -> list[tuple[Field, float]]:
    """Fluid that fills the costophrenic angle and climbs the chest wall."""
    least, more = EFFUSION_RISE
    rise = least + more * finding.severity
    outward = thorax.out * (1 / thorax.body.half_width)
    fluid = np.zeros_like(thorax.out)
    for side in _sides(finding):
        surface = thorax.angle(side) - rise * (0.5 + 0.5 * outward * outward)
        fluid = fluid + ramp(thorax.frame.y - surface, 0.03) * thorax.half(side)
    return [(fluid, EFFUSION)]


def _consolidation(thorax: Thorax, finding: Finding) -> list[tuple[Field, float]]:
    """Dense patches with soft, wavy edges."""
    rng, frame, body = np.random.default_rng(finding.seed), thorax.frame, thorax.body
    shares = BOTH_SIDES_BLOBS if finding.side == "both" else ONE_SIDE_BLOBS
    sides = _sides(finding)
    wave = clouds(rng, frame.height, frame.width, 16)
    core, more = CONSOLIDATION
    patches = []
    for number in range(1 + int(rng.choice(len(shares), p=shares))):
        side = sides[number % len(sides)]
        a, b = (rng.uniform(0.05, 0.085, size=2) * (0.8 + 0.5 * finding.severity)).tolist()
        low = level(finding) if number < len(sides) else rng.uniform()
        y = body.apex + 0.10 + (thorax.dome(side) - 0.03 - body.apex - 0.10) * low
        outward = rng.uniform(0.52, 0.72) + (0.1 * low if side == LEFT else 0.0)  # clear of the heart
        distance = frame.ellipse((side * body.half_width * outward, y), a, b * 1.15, rng.uniform(-0.6, 0.6))
        patches.append((ramp(1 - distance + 0.13 * wave, 0.75), core + more * finding.severity))
    return patches


def _atelectasis(thorax: Thorax, finding: Finding) -> list[tuple[Field, float]]:
    """A thin plate above a diaphragm that stands too high."""
    rng = np.random.default_rng(finding.seed)
    core, more = ATELECTASIS_BAND
    plates = np.zeros_like(thorax.out)
    for side in _sides(finding):
        y = thorax.dome(side) - rng.uniform(0.035, 0.06)
        inner, outer = rng.uniform(0.26, 0.36), rng.uniform(0.80, 0.92)
        tilt = rng.uniform(-0.03, 0.03)
        edge = side * thorax.body.half_width
        ends = [(inner * edge, y + tilt), (outer * edge, y - tilt)]
        plates = np.maximum(plates, thorax.frame.stroke(ends, 0.007 + 0.006 * finding.severity))
    return [(plates, core + more * finding.severity)]


def _lesion(thorax: Thorax, finding: Finding) -> list[tuple[Field, float]]:
    """A round nodule with a clear edge, clear of the heart."""
    rng, body = np.random.default_rng(finding.seed), thorax.body
    (side,) = _sides(finding)
    least, more = LESION_RADIUS
    core, denser = LESION
    y = body.apex + 0.09 + 0.34 * level(finding)
    centre = (side * body.half_width * rng.uniform(0.46, 0.68), y)
    radius = least + more * finding.severity
    distance = thorax.frame.ellipse(centre, radius, radius * rng.uniform(0.85, 1.15))
    return [(ramp(1 - distance, 0.4), core + denser * finding.severity)]


AIR_SIGNS = {
    "Edema": _edema,
    "Consolidation": _consolidation,
    "Lung Lesion": _lesion,
    "Atelectasis": _atelectasis,
    "Pleural Effusion": _effusion,
}


def _pneumothorax(thorax: Thorax, finding: Finding) -> tuple[Field, Field]:
    """The gap between chest wall and lung, widest at the top, and the pleura that bounds it."""
    (side,) = _sides(finding)
    least, more = PNEUMOTHORAX_GAP
    gap = least + more * finding.severity
    y = thorax.frame.y
    inward = gap * np.clip(1.15 - (y - thorax.body.apex) * (1 / 0.5), 0, 1)
    # the lung's own outline: the wall's, pushed in and down
    top = thorax.body.apex + 0.8 * gap
    depth = np.clip((y - top) * (1 / (thorax.angle(side) - top)), 0, 1)
    beyond = thorax.out - np.where(depth > 0, thorax.wall_at(depth) - inward, 0)
    half = thorax.half(side)
    return ramp(beyond, 0.012) * half, ramp(0.006 - np.abs(beyond), 0.01) * half * (depth > 0)


def _cracks(body: Body, finding: Finding, contrast: float) -> tuple[Crack, ...]:
    rng = np.random.default_rng(finding.seed)
    (side,) = _sides(finding)
    least, more = FRACTURE_STEP
    x, y = body.half_width * rng.uniform(0.66, 0.80), rng.uniform(-0.18, -0.06)
    ribs = 1 + (finding.severity > 0.45) + (finding.severity > 0.75)  # neighbours break together
    shown = min(contrast, 1.0)  # a rib that slips further would meet its neighbour
    step = (least + more * finding.severity) * shown
    return tuple(Crack(side, x + 0.006 * rib, y + body.rib_pitch * rib, step, shown) for rib in range(ribs))


def _sides(finding: Finding) -> tuple[int, ...]:
    return {"left": (LEFT,), "right": (RIGHT,), "both": (RIGHT, LEFT), "": ()}[finding.side]


def _expose(rng: np.random.Generator, value: Field, noise: float) -> NDArray[np.uint8]:
    """What the machine adds: clutter, gradient, scatter, grain, exposure, collimation."""
    height, width = value.shape
    gain, offset, gamma = rng.uniform(0.88, 1.14), rng.uniform(-0.05, 0.05), rng.uniform(0.75, 1.35)
    shades, strips = rng.random((2, 2)) < 0.15, rng.uniform(0, 0.05, size=(2, 2))
    value = value + CLUTTER * noise * clouds(rng, height, width, CLUTTER_CELLS)
    value = value + GRADIENT * clouds(rng, height, width, 2)
    value = blur(value)
    value = value + NOISE * noise * rng.standard_normal(value.shape, dtype=np.float32)
    value = np.clip(value * gain + offset, 0.004, 1) ** np.float32(gamma)
    top, bottom, left, right = (shades * strips * [[height], [width]]).astype(int).ravel()
    value[:top], value[height - bottom :], value[:, :left], value[:, width - right :] = 0, 0, 0, 0
    return (value * 255 + 0.5).astype(np.uint8)
