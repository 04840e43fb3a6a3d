"""What is no picture, or not a whole one, is refused by name and reason, wherever it was cut."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from harness.data.decode import decode
from harness.data.picture import LARGEST
from harness.errors import UnreadableImage
from tests.harness.data.files import RAMP, dicom, encoded, jpeg_dicom, table


def png_header(width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><title>404</title>", "neither JPEG, PNG nor DICOM"),
        (gzip.compress(b"x", mtime=0), "neither JPEG, PNG nor DICOM"),
        (b"\xff\xd8\xff\xe0" + bytes(500), "not decoded"),
        (bytes(128) + b"DICM", "cut before them"),
        (png_header(8193, 8192), "67117056|8193 x 8192"),
        (png_header(12000, 12000), "144000000"),
        (png_header(60000, 60000), "3600000000"),
    ],
)
def test_refusals_name_file_and_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "patient.png"
    path.write_bytes(content)
    with pytest.raises(UnreadableImage, match=rf"patient\.png: .*({reason})"):
        decode(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match=r"absent\.png: .*No such file"):
        decode(tmp_path / "absent.png")


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"NumberOfFrames": 2}, "2 frames"),
        ({"Rows": 0}, "5 x 0 pixels"),
        ({"Rows": 65535, "Columns": 65535}, "65535 x 65535"),
        ({"Rows": 8}, "less than expected"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR"),
        ({"BitsStored": 7}, "outside of the 7 bits"),
        ({"RescaleSlope": 0, "RescaleIntercept": 3}, "one grey"),
        ({"WindowCenter": 40, "WindowWidth": 0}, "Window Width"),
        ({"WindowCenter": 40, "WindowWidth": 9, "VOILUTFunction": "CUBIC"}, "CUBIC"),
        ({"VOILUTSequence": table(0, 8, [1, 1])}, "one grey"),
    ],
)
def test_dicom_refusals_name_file_and_reason(tmp_path: Path, header: dict[str, object], reason: str) -> None:
    assert LARGEST < 65535**2
    with pytest.raises(UnreadableImage, match=rf"x\.dcm: .*{reason}"):
        decode(dicom(tmp_path / "x.dcm", RAMP, 8, **header))


def test_a_lookup_table_with_missing_entries_is_refused(tmp_path: Path) -> None:
    short = table(0, 16, [1, 2, 3])
    short[0].LUTDescriptor = [9, 0, 16]
    with pytest.raises(UnreadableImage, match="3 of 9 entries"):
        decode(dicom(tmp_path / "x.dcm", RAMP, 8, VOILUTSequence=short))


@pytest.mark.parametrize("options", [("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {})], ids=str)
def test_a_cut_picture_is_refused_wherever_it_is_cut(
    tmp_path: Path, picture: np.ndarray, options: tuple[str, dict[str, object]]
) -> None:
    whole = encoded(picture, options[0], **options[1])
    end = len(whole) - (4 if options[0] == "PNG" else 0)  # the checksum of the end mark holds nothing
    for length in range(0, end, 7):
        (tmp_path / "x").write_bytes(whole[:length])
        with pytest.raises(UnreadableImage):
            decode(tmp_path / "x")
    (tmp_path / "x").write_bytes(whole[: end - 1])
    with pytest.raises(UnreadableImage):
        decode(tmp_path / "x")


def test_a_flipped_byte_of_a_png_is_refused(tmp_path: Path, picture: np.ndarray) -> None:
    whole = bytearray(encoded(picture, "PNG"))
    whole[len(whole) // 2] ^= 1
    (tmp_path / "x").write_bytes(whole)
    with pytest.raises(UnreadableImage):
        decode(tmp_path / "x")


def test_a_cut_dicom_never_gives_another_picture(tmp_path: Path, picture: np.ndarray) -> None:
    path = jpeg_dicom(tmp_path / "x.dcm", encoded(picture, "JPEG"), picture)
    whole, right = path.read_bytes(), decode(path).pixels
    refused = 0
    for length in range(0, len(whole), 11):
        path.write_bytes(whole[:length])
        try:
            np.testing.assert_array_equal(decode(path).pixels, right)
        except UnreadableImage:
            refused += 1
    assert refused >= len(range(0, len(whole), 11)) - 1  # only what follows the pixels may be missing
