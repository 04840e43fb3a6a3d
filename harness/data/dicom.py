"""The picture in a DICOM file as its header asks to display it.

Apart because a DICOM's stored values are not grey: what they mean is said by up to five steps of its header
(DICOM PS3.3 C.11, PS3.4 N.2), and each has its traps.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.encaps import get_frame
from pydicom.pixels.utils import pixel_array
from pydicom.uid import JPEG2000, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, RLELossless

from harness.data.picture import Decoded, Flag, check_end, check_size, shrink, to_grey
from harness.errors import UnreadableImage

LOSSY = frozenset({JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000})
GREY = frozenset({"MONOCHROME1", "MONOCHROME2"})
CURVES = ("ModalityLUTSequence", "VOILUTSequence", "WindowCenter")
"""With one of these, grey is no straight line of the stored values, so that the grey of a mean is not the
mean of greys."""


def read(data: bytes, least: int | None) -> Decoded:
    """`least` as in `decode`. Raises UnreadableImage, and whatever pydicom and its decoders raise."""
    header = dcmread(io.BytesIO(data))
    if "PixelData" not in header:
        raise UnreadableImage("a DICOM without whole-number pixels, or cut before them. Download it again")
    if int(header.get("NumberOfFrames") or 1) != 1:
        raise UnreadableImage(f"a DICOM of {header.NumberOfFrames} frames. Export the one to use as a file")
    check_size(header.Columns, header.Rows)
    syntax = header.file_meta.TransferSyntaxUID
    flags: list[Flag] = ["lossy"] if syntax in LOSSY else []
    stored, scale = None, 1
    if syntax.is_encapsulated and syntax != RLELossless:
        coded = get_frame(header.PixelData, 0, number_of_frames=1)
        check_end(coded)
        if least is not None and syntax == JPEGBaseline8Bit:
            stored, scale = _shrunk(coded, header, least)
    if stored is None:
        plugin = "pillow" if syntax == JPEGBaseline8Bit else ""  # as for the same JPEG outside of a DICOM
        # Bits above those declared are a wrong header more often than an overlay: refused, not masked away.
        stored = pixel_array(header, decoding_plugin=plugin, correct_unused_bits=False)
    if header.SamplesPerPixel == 3 and stored.dtype == np.uint8:
        grey: NDArray[np.uint8] | NDArray[np.uint16] = to_grey(Image.fromarray(stored), flags)
    elif header.PhotometricInterpretation in GREY and header.BitsStored <= 16:
        grey = _monochrome(stored, header, flags)
    else:
        kind = f"{header.PhotometricInterpretation} with {header.BitsStored} bits"
        raise UnreadableImage(f"{kind}, not grey up to 16 bits or colour of 8. Convert it to PNG")
    return Decoded(grey, tuple(flags), header.Rows, header.Columns, scale)


def _shrunk(coded: bytes, header: Dataset, least: int) -> tuple[NDArray[np.uint8] | None, int]:
    """Stored values of a grey JPEG and by how much it came out smaller; none where that is not to be had."""
    curved = any(header.get(element) is not None for element in CURVES)
    image = Image.open(io.BytesIO(coded), formats=("JPEG",))
    declared = header.SamplesPerPixel, header.BitsStored, (header.Columns, header.Rows)
    if curved or image.mode != "L" or declared != (1, 8, image.size):
        return None, 1
    scale = shrink(image, least)
    return (np.asarray(image), scale) if scale > 1 else (None, 1)


def _monochrome(
    stored: NDArray[Any], header: Dataset, flags: list[Flag]
) -> NDArray[np.uint8] | NDArray[np.uint16]:
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
    return table[place]


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
