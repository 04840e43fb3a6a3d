"""One decoder for every picture of every dataset: a file goes in, grey pixels on one scale come out.

Apart because "how bright is white" is decided here and nowhere else: a dataset, a cache or a method that
scaled on its own would compare methods on different pictures. What a file is, its first bytes say, never
its name. A file that is damaged, cut short or ambiguous is refused; nothing is guessed from the pixels.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from harness.data import dicom
from harness.data.picture import Decoded, Flag, check_end, check_size, shrink, to_grey
from harness.errors import UnreadableImage

DECODER_VERSION = 2
"""Raised with every change of decoding that changes a pixel or a flag: older caches are not used again."""

HARMLESS_WARNINGS = (
    "Expected explicit VR",  # the header is written another way than declared, and read correctly
    "The pixel data is .* excess padding",  # bytes after the last pixel
    "Unknown encoding",  # of names and comments, which are not read
    "Tag data larger than file",  # a text in EXIF; the orientation stands in the tag itself
)


def decode(path: Path, least: int | None = None) -> Decoded:
    """The picture in a JPEG, PNG or DICOM file. Raises UnreadableImage naming file, reason and cure.

    Args:
        least: what it is resized to needs no more pixels than this along a side: a JPEG may come out
            smaller, each pixel the mean of a square of its own, which is quicker. Default: all pixels.
    """
    try:
        data = path.read_bytes()
        with warnings.catch_warnings():
            # A decoder in doubt is a picture in doubt: what is not known to be harmless is an error.
            warnings.simplefilter("error")
            for message in HARMLESS_WARNINGS:
                warnings.filterwarnings("ignore", message)
            return _reader(data)(data, least)
    except UnreadableImage as refusal:
        raise UnreadableImage(f"{path}: {refusal}") from None
    except Exception as error:  # damaged bytes make the decoders raise nearly anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UnreadableImage(
            f"{path}: not decoded ({reason}). Copy it again or convert it to PNG"
        ) from error


def _reader(data: bytes) -> Callable[[bytes, int | None], Decoded]:
    if data.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")):
        return _raster
    if data[128:132] == b"DICM":
        return dicom.read
    if not data:
        raise UnreadableImage("the file is empty. Download or copy it again")
    raise UnreadableImage(
        f"neither JPEG, PNG nor DICOM: it starts with {data[:8]!r} and has no 'DICM' at byte 128 (a DICOM "
        "without it does not say how its pixels are stored). Download it again or convert it"
    )


def _raster(data: bytes, least: int | None) -> Decoded:
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UnreadableImage(f"{error} Check its source") from error
    check_size(*image.size)
    flags: list[Flag] = []
    if image.format == "PNG":
        Image.open(io.BytesIO(data)).verify()  # the checksums, which decoding does not look at
    else:
        check_end(data)
        flags.append("lossy")
    scale, (width, height) = 1, image.size
    if image.getexif().get(ExifTags.Base.Orientation) in range(2, 9):
        flags.append("exif-rotated")
        image = ImageOps.exif_transpose(image)
        width, height = image.size
    else:  # turned, a smaller picture could be cut off on any side
        scale = shrink(image, least)
    if image.mode == "I;16":
        return Decoded(np.asarray(image), (*flags, "16-bit"), height, width)
    if image.mode not in {"1", "L", "LA", "P", "RGB", "RGBA"}:
        raise UnreadableImage(f"pixels of type {image.mode!r}. Convert it to a grey or RGB picture")
    if image.mode == "P":
        flags.append("palette")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if np.asarray(image.getchannel("A")).min() < 255:
            flags.append("alpha-dropped")
    grey = to_grey(image, flags)
    return Decoded(grey, tuple(flags), height, width, scale)
