"""Decoding of real radiographs: twins that must agree, windows by hand, files that must be refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread, dcmwrite
from pydicom.encaps import encapsulate, get_frame
from pydicom.pixels import pixel_array

from harness.data.decode import decode
from harness.data.picture import FLAGS
from harness.errors import UnreadableImage


@pytest.fixture(scope="session")
def uncompressed(realdata: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dicom") / "RG3_UNC.dcm"
    path.write_bytes(gzip.decompress((realdata / "dicom" / "RG3_UNC.dcm.gz").read_bytes()))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("coding", ["RLE", "JPLL", "JLSL", "J2KR"])
def test_lossless_codings_agree_bit_for_bit(realdata: Path, uncompressed: Path, coding: str) -> None:
    expected, decoded = decode(uncompressed), decode(realdata / "dicom" / f"RG3_{coding}.dcm")
    np.testing.assert_array_equal(decoded.pixels, expected.pixels)
    assert decoded.flags == expected.flags == ("windowed", "16-bit", "monochrome1")


@pytest.mark.parametrize(("coding", "error"), [("JLSN", 10), ("J2KI", 60)])
def test_lossy_codings_come_close_and_say_so(
    realdata: Path, uncompressed: Path, coding: str, error: int
) -> None:
    decoded = decode(realdata / "dicom" / f"RG3_{coding}.dcm")
    levels = np.abs(decoded.pixels.astype(int) - decode(uncompressed).pixels) / 64  # of the 10 bits stored
    assert 0 < levels.max() < error
    assert decoded.flags[0] == "lossy"


def test_a_real_window_by_hand(uncompressed: Path) -> None:
    stored = dcmread(uncompressed).pixel_array.astype(float)  # 10 bits, center 550, width 1024, MONOCHROME1
    expected = 65535 - np.rint(np.clip((stored - 549.5) / 1023 + 0.5, 0, 1) * 65535)
    np.testing.assert_array_equal(decode(uncompressed).pixels, expected)


def test_a_real_modality_table_by_hand(realdata: Path) -> None:
    """1,024 entries declared as 16 bits that only reach 1,023: white is the table's end, not 65,535."""
    path = realdata / "dicom" / "CR-ModalitySequenceLUT.dcm"
    header = dcmread(path)
    entries = np.frombuffer(header.ModalityLUTSequence[0].LUTData, "<u2").astype(float)
    expected = 65535 - np.rint(entries[header.pixel_array] * (65535 / 1023))
    np.testing.assert_array_equal(decode(path).pixels, expected)


def test_a_real_picture_tagged_monochrome1_is_the_complement(realdata: Path) -> None:
    plain = decode(realdata / "dicom" / "1.2.276.0.7230010.3.1.4.8323329.6904.1517875201.850819.dcm")
    inverted = decode(realdata / "dicom" / "Fake_MONOHR1.dcm")
    np.testing.assert_array_equal(inverted.pixels, 255 - plain.pixels)


@pytest.mark.parametrize("name", ["RG3_JPLY.dcm", "MR_truncated.dcm", "no_meta.dcm", "RG3_UNC.dcm.gz"])
def test_real_files_that_cannot_be_read_are_refused(realdata: Path, name: str) -> None:
    with pytest.raises(UnreadableImage, match=name):
        decode(realdata / "dicom" / name)


def test_an_oddly_written_header_costs_no_picture(realdata: Path) -> None:
    """Declared explicit, written implicit: pydicom warns and reads on."""
    decoded = decode(realdata / "dicom" / "SC_rgb_jpeg.dcm")
    assert decoded.pixels.shape == (256, 256)
    assert decoded.flags == ("lossy", "colour")


@pytest.mark.parametrize("coding", ["JPLL", "JLSL", "JLSN", "J2KR", "J2KI", "RLE"])
def test_a_cut_frame_inside_a_whole_dicom_is_refused(realdata: Path, tmp_path: Path, coding: str) -> None:
    """The decoders of JPEG-LS and lossless JPEG return a picture for such frames."""
    header = dcmread(realdata / "dicom" / f"RG3_{coding}.dcm")
    frame = get_frame(header.PixelData, 0, number_of_frames=1)
    for share in (0.1, 0.5, 0.9, 0.999):
        header.PixelData = encapsulate([frame[: int(len(frame) * share)]])
        dcmwrite(tmp_path / "x.dcm", header)
        with pytest.raises(UnreadableImage):
            decode(tmp_path / "x.dcm")


@pytest.mark.slow
def test_all_rsna_pictures_decode(realdata: Path) -> None:
    paths = sorted((realdata / "rsna" / "stage_2_train_images").glob("*.dcm"))
    assert len(paths) == 169
    for place, path in enumerate(paths):
        pixels, flags = decode(path)[:2]
        assert (pixels.shape, pixels.dtype, flags) == ((1024, 1024), np.uint8, ("lossy",))
        assert pixels.std() > 20
        if place % 20 == 0:  # another JPEG library, which may round differently
            other = pixel_array(path, decoding_plugin="pylibjpeg").astype(int)
            assert np.abs(pixels - other).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize(("pattern", "count"), [("chestxray14/**/*.png", 150), ("hannover/*.png", 12)])
def test_real_pngs_are_what_pillow_makes_of_them(realdata: Path, pattern: str, count: int) -> None:
    paths = sorted(realdata.glob(pattern))
    assert len(paths) == count
    for path in paths:
        decoded = decode(path)
        np.testing.assert_array_equal(decoded.pixels, np.asarray(Image.open(path)))
        assert set(decoded.flags) <= set(FLAGS)
