"""What a picture shows that no table says: whether it can be read, shows anything, and is not inverted.

Apart because it is computed for one picture at a time, in many processes; what it means for a dataset is said
in doctor.py.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.data.decode import decode
from harness.data.picture import eight_bits
from harness.errors import UnreadableImage
from harness.phantom import Cohort
from harness.phantom.render import render

SIDE = 32  # of the small picture in which bright and dark regions are compared
DRAWN = 40  # phantom persons whose mean picture is the chest that others are compared with
INVERTED_BELOW = -0.15
"""Correlation with that chest. Of 331 real frontal radiographs (RSNA, ChestX-ray14, a hospital's) the lowest
is 0.20: inverted, all of them are below this, and as they are none is."""
DARK_BELOW = 0.5
"""Share of white that the brightest pixel has: 0.82 at least in 344 real ones. One of 12 bits in a file of 16
that does not say so has a sixteenth."""


class Look(NamedTuple):
    refused: str = ""  # why it could not be decoded; what follows is then empty
    digest: bytes = b""  # sha256 of its size and pixels, as decoded
    constant: bool = False
    brightest: float = 1.0  # pixel, as a share of white
    small: NDArray[np.float32] | None = None  # [SIDE, SIDE] stretched to a square


def look(path: Path) -> Look:
    """Decodes every pixel: two pictures are the same only if no one of them differs."""
    try:
        decoded = decode(path)
    except UnreadableImage as refusal:
        return Look(refused=str(refusal))
    pixels = decoded.pixels
    digest = hashlib.sha256(f"{pixels.shape} {pixels.dtype}".encode())
    digest.update(np.ascontiguousarray(pixels).data)
    brightest = float(pixels.max()) / np.iinfo(pixels.dtype).max
    return Look("", digest.digest(), bool(pixels.min() == pixels.max()), brightest, _small(pixels))


def likeness(small: NDArray[np.float32]) -> float:
    """Correlation of a frontal picture [SIDE, SIDE] with the mean chest: dark lungs on both sides of a bright
    middle. Far below 0, black and white are probably exchanged. 0 for a constant picture."""
    ours, theirs = small - small.mean(), mean_chest()
    size = float(np.linalg.norm(ours) * np.linalg.norm(theirs))
    return float((ours * theirs).sum()) / size if size else 0.0


@cache
def mean_chest() -> NDArray[np.float32]:
    """[SIDE, SIDE] of mean 0: drawn, so that a dataset that is inverted as a whole is noticed as well."""
    cohort = Cohort("mean chest", DRAWN, seed=0, size=(2 * SIDE, 2 * SIDE))
    small = []
    for person in cohort.people():
        study = person.studies[0]
        height, width = cohort.size
        drawn = render(person, study, study.pictures[0], height=height, width=width, dials=cohort.dials)
        small.append(_small(drawn.pixels))
    chest = np.mean(small, axis=0)
    return np.asarray(chest - chest.mean(), np.float32)


def _small(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.float32]:
    resized = Image.fromarray(eight_bits(pixels)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(resized, np.float32)
