"""What a decoder gives back, and what it asks of a file before it decodes any of it.

Apart because pictures in a DICOM and pictures on their own are read in two files and meet here: same scale of
grey, same flags, same limits.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.errors import UnreadableImage

LARGEST = 2**26
"""Pixels a file may declare, three times the largest X-ray detector: more is a mistake or a bomb."""

Flag = Literal[
    "lossy",  # compressed with loss: another decoder may differ by a grey level
    "16-bit",  # deeper than 8 bits, returned as uint16
    "palette",  # PNG whose values are places in a table of colours
    "colour",  # channels that differ, weighted to grey as ITU-R 601
    "alpha-dropped",  # transparency that was not opaque everywhere
    "exif-rotated",  # turned or mirrored upright as the EXIF orientation says
    "monochrome1",  # DICOM stored with 0 as white, inverted
    "modality-lut",
    "rescale",
    "voi-lut",
    "windowed",  # contrast from the first window of the header
    "unwindowed",  # DICOM deeper than 8 bits without window: its whole storable range is shown
]
FLAGS: tuple[Flag, ...] = get_args(Flag)


def eight_bits(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> NDArray[np.uint8]:
    """[H, W], rounded: 65535 is 255 x 257."""
    if pixels.dtype == np.uint16:
        return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return pixels.astype(np.uint8, copy=False)


class Decoded(NamedTuple):
    pixels: NDArray[np.uint8] | NDArray[np.uint16]  # [H, W]; 0 is black, the dtype's largest value white
    flags: tuple[Flag, ...]  # what happened on the way that could change a number
    height: int  # of the whole picture, in its own pixels: what boxes and masks are given in
    width: int
    scale: int = 1  # own pixels along a side of one in `pixels`; the last row and column may be cut off


def check_size(width: int, height: int) -> None:
    if not 0 < width * height <= LARGEST:
        raise UnreadableImage(f"declares {width} x {height} pixels, not 1 to {LARGEST}. Check its source")


def check_end(coded: bytes) -> None:
    """Decoders of JPEG-LS and lossless JPEG fill what is missing of a cut picture and say nothing."""
    end_of_image, start_of_scan = b"\xff\xd9", b"\xff\xda"  # neither can occur inside of coded data
    last = coded.rfind(end_of_image)
    if last < 0 or coded.find(start_of_scan, last) >= 0:
        raise UnreadableImage("its coded picture is cut short. Download or copy the file again")


def shrink(image: Image.Image, least: int | None) -> int:
    """Has a JPEG that is not decoded yet come out smaller by 8, 4 or 2, if no side then falls below `least`
    pixels. Returns by how much, 1 for not at all.

    Instead of 8 x 8 pixels the decoder computes 1, 2 x 2 or 4 x 4 of each block, straight from its cosine
    transform. What is left to pay for is to read the code.
    """
    if least is None or image.format != "JPEG":
        return 1
    scale = next((scale for scale in (8, 4, 2) if min(image.size) >= scale * least), 1)
    return scale if image.draft(None, (image.width // scale, image.height // scale)) else 1


def to_grey(image: Image.Image, flags: list[Flag]) -> NDArray[np.uint8]:
    """[H, W]; adds "colour" where channels differ."""
    if image.mode != "L":
        channels = np.asarray(image.convert("RGB"))  # [H, W, 3]
        if (channels != channels[..., :1]).any():
            flags.append("colour")
    return np.asarray(image.convert("L"))
