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
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps
from pydicom import Dataset, dcmread
from pydicom.encaps import get_frame
from pydicom.pixels.utils import pixel_array
from pydicom.uid import JPEG2000, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, RLELossless

from harness.errors import UnreadableImage

DECODER_VERSION = 1
"""Raised with every change here that changes a pixel or a flag: older caches are then not used again."""

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

LOSSY = frozenset({JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000})
HARMLESS_WARNINGS = (
    "Expected explicit VR",  # the header is written another way than declared, and read correctly
    "The pixel data is .* excess padding",  # bytes after the last pixel
    "Unknown encoding",  # of names and comments, which are not read
)


class Decoded(NamedTuple):
    pixels: NDArray[np.uint8] | NDArray[np.uint16]  # [H, W]; 0 is black, the dtype's largest value white
    flags: tuple[Flag, ...]  # what happened on the way that could change a number


def decode(path: Path) -> Decoded:
    """The picture in a JPEG, PNG or DICOM file. Raises UnreadableImage naming file, reason and cure."""
    try:
        data = path.read_bytes()
        with warnings.catch_warnings():
            # A decoder in doubt is a picture in doubt: what is not known to be harmless is an error.
            warnings.simplefilter("error")
            for message in HARMLESS_WARNINGS:
                warnings.filterwarnings("ignore", message)
            return _reader(data)(data)
    except UnreadableImage as refusal:
        raise UnreadableImage(f"{path}: {refusal}") from None
    except Exception as error:  # damaged bytes make the decoders raise nearly anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UnreadableImage(
            f"{path}: not decoded ({reason}). Copy it again or convert it to PNG"
        ) from error


def _reader(data: bytes) -> Callable[[bytes], Decoded]:
    if data.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")):
        return _raster
    if data[128:132] == b"DICM":
        return _dicom
    if not data:
        raise UnreadableImage("the file is empty. Download or copy it again")
    raise UnreadableImage(
        f"neither JPEG, PNG nor DICOM: it starts with {data[:8]!r} and has no 'DICM' at byte 128 (a DICOM "
        "without it does not say how its pixels are stored). Download it again or convert it"
    )


def _check_size(width: int, height: int) -> None:
    if not 0 < width * height <= LARGEST:
        raise UnreadableImage(f"declares {width} x {height} pixels, not 1 to {LARGEST}. Check its source")


def _check_end(coded: bytes) -> None:
    """Decoders of JPEG-LS and lossless JPEG fill what is missing of a cut picture and say nothing."""
    end_of_image, start_of_scan = b"\xff\xd9", b"\xff\xda"  # neither can occur inside of coded data
    if coded.rfind(end_of_image) <= coded.rfind(start_of_scan):
        raise UnreadableImage("its coded picture is cut short. Download or copy the file again")


# --- JPEG and PNG ----------------------------------------------------------------------------------


def _raster(data: bytes) -> Decoded:
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise UnreadableImage(f"{error} Check its source") from error
    _check_size(*image.size)
    flags: list[Flag] = []
    if image.format == "PNG":
        Image.open(io.BytesIO(data)).verify()  # the checksums, which decoding does not look at
    else:
        _check_end(data)
        flags.append("lossy")
    if image.getexif().get(ExifTags.Base.Orientation) in range(2, 9):
        flags.append("exif-rotated")
    image = ImageOps.exif_transpose(image)
    if image.mode == "I;16":
        return Decoded(np.asarray(image), (*flags, "16-bit"))
    if image.mode not in {"1", "L", "LA", "P", "RGB", "RGBA"}:
        raise UnreadableImage(f"pixels of type {image.mode!r}. Convert it to a grey or RGB picture")
    if image.mode == "P":
        flags.append("palette")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if np.asarray(image.getchannel("A")).min() < 255:
            flags.append("alpha-dropped")
    return _to_grey(image, flags)


def _to_grey(image: Image.Image, flags: list[Flag]) -> Decoded:
    if image.mode != "L":
        channels = np.asarray(image.convert("RGB"))  # [H, W, 3]
        if (channels != channels[..., :1]).any():
            flags.append("colour")
    return Decoded(np.asarray(image.convert("L")), tuple(flags))


# --- DICOM -----------------------------------------------------------------------------------------


def _dicom(data: bytes) -> Decoded:
    header = dcmread(io.BytesIO(data))
    if "PixelData" not in header:
        raise UnreadableImage("a DICOM without whole-number pixels, or cut before them. Download it again")
    if int(header.get("NumberOfFrames") or 1) != 1:
        raise UnreadableImage(f"a DICOM of {header.NumberOfFrames} frames. Export the one to use as a file")
    _check_size(header.Columns, header.Rows)
    syntax = header.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated and syntax != RLELossless:
        _check_end(get_frame(header.PixelData, 0, number_of_frames=1))
    plugin = "pillow" if syntax == JPEGBaseline8Bit else ""  # as for the same JPEG outside of a DICOM
    # Bits above those declared are a wrong header more often than an overlay: refused, not masked away.
    stored = pixel_array(header, decoding_plugin=plugin, correct_unused_bits=False)
    flags: list[Flag] = ["lossy"] if syntax in LOSSY else []
    if header.SamplesPerPixel == 3 and stored.dtype == np.uint8:
        return _to_grey(Image.fromarray(stored), flags)
    if header.PhotometricInterpretation not in {"MONOCHROME1", "MONOCHROME2"} or header.BitsStored > 16:
        kind = f"{header.PhotometricInterpretation} with {header.BitsStored} bits"
        raise UnreadableImage(f"{kind}, not grey up to 16 bits or colour of 8. Convert it to PNG")
    return _monochrome(stored, header, flags)


def _monochrome(stored: NDArray[Any], header: Dataset, flags: list[Flag]) -> Decoded:
    """Stored values [H, W] as the header asks to display them (PS3.3 C.11, PS3.4 N.2).

    Every step acts on each pixel alone, so it is computed once per *storable* value and looked up. Black and
    white are the ends of what the header allows, not of what this picture happens to hold: a burnt-in marker
    cannot change the contrast of the lungs, and a constant picture is no special case.
    """
    bits = header.BitsStored
    lowest = -(2 ** (bits - 1)) if header.PixelRepresentation else 0
    place = stored - np.int32(lowest)  # [H, W], 0 .. 2^bits - 1
    if place.min() < 0 or place.max() >= 2**bits:
        raise UnreadableImage(
            f"holds values from {stored.min()} to {stored.max()}, outside of the {bits} bits that its header "
            "declares. Correct Bits Stored (0028,0101)"
        )
    grey = _display_curve(np.arange(lowest, lowest + 2**bits), header, flags)  # [2^bits]
    if bits > 8:
        flags.append("16-bit")
    table = np.rint(grey * 65535).astype(np.uint16) if bits > 8 else np.rint(grey * 255).astype(np.uint8)
    if header.PhotometricInterpretation == "MONOCHROME1":
        flags.append("monochrome1")
        table = ~table  # last, because windows are given in values before inversion; an exact complement
    return Decoded(table[place], tuple(flags))


def _display_curve(values: NDArray[Any], header: Dataset, flags: list[Flag]) -> NDArray[np.float64]:
    """Grey in 0..1 of all storable `values` [2^bits]: modality step, then VOI lookup table or window.

    Not pydicom's `apply_voi`, which wraps around at 256 entries when a table's output has 8 bits, nor its
    `apply_windowing`, which leaves the scale of the output to be guessed.
    """
    if header.get("ModalityLUTSequence"):
        flags.append("modality-lut")
        values = _look_up(values, header.ModalityLUTSequence[0], header)
    elif header.get("RescaleSlope") is not None:
        slope, intercept = float(header.RescaleSlope), float(header.get("RescaleIntercept") or 0)
        if (slope, intercept) != (1, 0):
            flags.append("rescale")
            values = values * slope + intercept
    if header.get("VOILUTSequence"):
        flags.append("voi-lut")
        values = _look_up(values, header.VOILUTSequence[0], header)
    elif header.get("WindowCenter") is not None and header.get("WindowWidth") is not None:
        flags.append("windowed")
        return _window(values, header)
    elif header.BitsStored > 8:
        flags.append("unwindowed")
    low, high = float(values.min()), float(values.max())
    if low == high:
        raise UnreadableImage("its header maps every value to one grey. Correct its lookup table or slope")
    return np.asarray((values - low) / (high - low))


def _look_up(values: NDArray[Any], item: Dataset, header: Dataset) -> NDArray[Any]:
    """PS3.3 C.11.1.1.1: the first entry belongs to value `first`; beyond the ends, the end entries hold."""
    entries, first, _ = item.LUTDescriptor
    entries = entries or 2**16  # 65,536 does not fit into the descriptor and is written as 0
    data = item.LUTData
    if isinstance(data, bytes):
        order = "<" if header.file_meta.TransferSyntaxUID.is_little_endian else ">"
        data = np.frombuffer(data, f"{order}u2" if len(data) >= 2 * entries else "u1")
    table = np.asarray(data)[:entries].astype(np.int64)
    if len(table) < entries:
        raise UnreadableImage(f"its lookup table has {len(table)} of {entries} entries. Download it again")
    return np.asarray(table[np.clip(np.rint(values).astype(np.int64) - first, 0, entries - 1)])


def _window(values: NDArray[Any], header: Dataset) -> NDArray[np.float64]:
    """PS3.3 C.11.2.1.2 and C.11.2.1.3; where the header offers several windows, the first."""
    center = float(np.atleast_1d(header.WindowCenter)[0])
    width = float(np.atleast_1d(header.WindowWidth)[0])
    function = header.get("VOILUTFunction") or "LINEAR"
    if not width >= (1 if function == "LINEAR" else 1e-9):
        raise UnreadableImage(f"its Window Width (0028,1051) is {width:g}. Correct or remove the window")
    if function == "SIGMOID":
        return 0.5 + 0.5 * np.tanh(2 * (values - center) / width)  # 1 / (1 + exp(-4 ...)) without overflow
    if function not in {"LINEAR", "LINEAR_EXACT"}:
        raise UnreadableImage(f"its VOI LUT Function (0028,1056) is {function!r}. Correct or remove it")
    run = max(width - 1, 1e-9) if function == "LINEAR" else width  # LINEAR of width 1 is a threshold
    return np.clip((values - (center - width / 2)) / run, 0, 1)
