"""Decoding against Pillow, pydicom, the formulas of the DICOM standard and arrays written by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.pixels import apply_windowing

from harness.data.decode import decode
from tests.harness.data.files import RAMP, dicom, encoded, jpeg_dicom, table

# --- PNG and JPEG ----------------------------------------------------------------------------------


def test_a_grey_png_is_its_pixels(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(encoded(RAMP, "PNG"))
    pixels, flags = decode(tmp_path / "x.png")[:2]
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, RAMP)
    assert flags == ()


def test_a_16_bit_png_keeps_all_its_bits(tmp_path: Path) -> None:
    deep = RAMP.astype(np.uint16) * 257 + 3
    (tmp_path / "x.png").write_bytes(encoded(deep, "PNG"))
    pixels, flags = decode(tmp_path / "x.png")[:2]
    assert pixels.dtype == np.uint16
    np.testing.assert_array_equal(pixels, deep)
    assert flags == ("16-bit",)


def test_a_1_bit_png_is_black_and_full_white(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(encoded(RAMP > 100, "PNG"))
    np.testing.assert_array_equal(decode(tmp_path / "x.png").pixels, np.where(RAMP > 100, 255, 0))


def test_colour_is_weighted_as_itu_r_601_and_equal_channels_are_left_alone(tmp_path: Path) -> None:
    colour = np.stack([RAMP, RAMP[::-1], 255 - RAMP], axis=-1)
    (tmp_path / "x.png").write_bytes(encoded(colour, "PNG"))
    pixels, flags = decode(tmp_path / "x.png")[:2]
    assert np.abs(pixels - colour @ [0.299, 0.587, 0.114]).max() <= 0.51
    assert flags == ("colour",)

    (tmp_path / "x.png").write_bytes(encoded(np.stack([RAMP] * 3, axis=-1), "PNG"))
    pixels, flags = decode(tmp_path / "x.png")[:2]
    np.testing.assert_array_equal(pixels, RAMP)
    assert flags == ()


@pytest.mark.parametrize("channels", [1, 3])
def test_alpha_is_dropped_and_said_so_only_where_it_hid_something(tmp_path: Path, channels: int) -> None:
    for alpha, expected in ((np.full_like(RAMP, 255), ()), (RAMP, ("alpha-dropped",))):
        (tmp_path / "x.png").write_bytes(encoded(np.stack([RAMP] * channels + [alpha], axis=-1), "PNG"))
        pixels, flags = decode(tmp_path / "x.png")[:2]
        np.testing.assert_array_equal(pixels, RAMP)
        assert flags == expected


@pytest.mark.parametrize("transparent", [None, bytes([0, 255, 255])])
def test_a_palette_is_looked_up(tmp_path: Path, transparent: bytes | None) -> None:
    image = Image.fromarray(RAMP % 3).copy()
    image.putpalette([10, 10, 10, 200, 200, 200, 90, 90, 90])
    image.save(tmp_path / "x.png", transparency=transparent)
    pixels, flags = decode(tmp_path / "x.png")[:2]
    np.testing.assert_array_equal(pixels, np.array([10, 200, 90])[RAMP % 3])
    assert flags == (("palette",) if transparent is None else ("palette", "alpha-dropped"))


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, RAMP),
        (2, RAMP[:, ::-1]),
        (3, RAMP[::-1, ::-1]),
        (4, RAMP[::-1]),
        (5, RAMP.T),
        (6, np.rot90(RAMP, -1)),  # quarter turn clockwise
        (7, RAMP[::-1, ::-1].T),
        (8, np.rot90(RAMP)),
    ],
)
@pytest.mark.parametrize("depth", [1, 257])
def test_exif_orientation_is_undone(
    tmp_path: Path, orientation: int, upright: np.ndarray, depth: int
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    pixels = RAMP if depth == 1 else RAMP.astype(np.uint16) * depth
    (tmp_path / "x.png").write_bytes(encoded(pixels, "PNG", exif=exif))
    decoded = decode(tmp_path / "x.png")
    np.testing.assert_array_equal(decoded.pixels, upright.astype(int) * depth)
    assert ("exif-rotated" in decoded.flags) == (orientation != 1)


def test_a_text_that_exif_has_lost_costs_no_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x0131] = 6, "some scanner's software, by a name that does not end"
    (tmp_path / "x.jpg").write_bytes(encoded(RAMP, "JPEG", exif=exif.tobytes()[:-40]))
    decoded = decode(tmp_path / "x.jpg")
    assert "exif-rotated" in decoded.flags
    assert decoded.pixels.shape == RAMP.shape[::-1]


def test_a_jpeg_is_what_pillow_makes_of_it(tmp_path: Path, picture: np.ndarray) -> None:
    (tmp_path / "x.jpg").write_bytes(encoded(picture, "JPEG"))
    pixels, flags = decode(tmp_path / "x.jpg")[:2]
    np.testing.assert_array_equal(pixels, np.asarray(Image.open(tmp_path / "x.jpg")))
    assert flags == ("lossy",)


def test_the_first_bytes_decide_and_not_the_name(tmp_path: Path) -> None:
    (tmp_path / "x.dcm").write_bytes(encoded(RAMP, "PNG"))
    dicom(tmp_path / "x.jpg", RAMP, 8)
    np.testing.assert_array_equal(decode(tmp_path / "x.dcm").pixels, RAMP)
    np.testing.assert_array_equal(decode(tmp_path / "x.jpg").pixels, RAMP)


# --- DICOM -----------------------------------------------------------------------------------------


def test_8_bit_dicom_without_window_passes_unchanged(tmp_path: Path) -> None:
    pixels, flags = decode(dicom(tmp_path / "x", RAMP, 8))[:2]
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, RAMP)
    assert flags == ()


def test_deeper_dicom_is_scaled_by_what_it_can_store(tmp_path: Path) -> None:
    stored = np.array([[0, 1, 2048, 4095]], np.uint16)
    pixels, flags = decode(dicom(tmp_path / "x", stored, 12))[:2]
    np.testing.assert_array_equal(pixels, np.rint(stored * (65535 / 4095)))
    assert flags == ("unwindowed", "16-bit")


def test_a_constant_picture_keeps_its_grey(tmp_path: Path) -> None:
    pixels = decode(dicom(tmp_path / "x", np.full((4, 4), 1000, np.uint16), 12)).pixels
    assert (pixels == round(1000 * 65535 / 4095)).all()


def test_signed_values_run_from_black_to_white(tmp_path: Path) -> None:
    stored = np.array([[-2048, -1, 0, 2047]], np.int16)
    pixels = decode(dicom(tmp_path / "x", stored, 12)).pixels
    np.testing.assert_array_equal(pixels, np.rint((stored + 2048.0) * (65535 / 4095)))


@pytest.mark.parametrize(("bits", "kind"), [(8, np.uint8), (12, np.uint16)])
@pytest.mark.parametrize("window", [{}, {"WindowCenter": 70, "WindowWidth": 90}])
def test_monochrome1_is_the_exact_complement(
    tmp_path: Path, bits: int, kind: type, window: dict[str, object]
) -> None:
    stored = np.random.default_rng(0).integers(0, 2**bits, (9, 8)).astype(kind)
    plain = decode(dicom(tmp_path / "2", stored, bits, **window))
    inverted = decode(dicom(tmp_path / "1", stored, bits, PhotometricInterpretation="MONOCHROME1", **window))
    np.testing.assert_array_equal(inverted.pixels, np.iinfo(kind).max - plain.pixels)
    assert inverted.flags == (*plain.flags, "monochrome1")


def test_the_window_is_given_in_values_before_inversion(tmp_path: Path) -> None:
    """Standing order of PS3.4 N.2: values 0..100 of 0..4095 carry the contrast; inverted, they are bright."""
    stored = np.array([[0, 50, 100, 4000]], np.uint16)
    header = {"PhotometricInterpretation": "MONOCHROME1", "WindowCenter": 50.5, "WindowWidth": 101}
    pixels = decode(dicom(tmp_path / "x", stored, 12, **header)).pixels
    np.testing.assert_array_equal(pixels, [[65535, 32767, 0, 0]])


def test_the_standards_example_of_a_window(tmp_path: Path) -> None:
    """PS3.3 C.11.2.1.2.1, center 0 and width 100: up to -50 is black, above 49 is white."""
    stored = np.array([[-2000, -50, -49, 0, 49, 50, 2000]], np.int16)
    pixels = decode(dicom(tmp_path / "x", stored, 12, WindowCenter=0, WindowWidth=100)).pixels
    np.testing.assert_array_equal(pixels, np.rint(65535 * np.array([[0, 0, 1 / 99, 50 / 99, 1, 1, 1]])))


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("width", [1, 2, 300.5, 4096])
def test_windows_agree_with_pydicom(tmp_path: Path, function: str, width: float) -> None:
    stored = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    header = {"WindowCenter": 1000.5, "WindowWidth": width, "VOILUTFunction": function}
    path = dicom(tmp_path / "x", stored, 12, **header)
    with np.errstate(over="ignore"):  # of pydicom's exponential
        expected = apply_windowing(stored, dcmread(path)) * (65535 / 4095)
    decoded = decode(path)
    assert np.abs(decoded.pixels - expected).max() <= 0.51
    assert decoded.flags == ("windowed", "16-bit")


def test_of_several_windows_the_first_is_used(tmp_path: Path) -> None:
    stored = np.arange(0, 4096, 97, dtype=np.uint16)[None]
    one = decode(dicom(tmp_path / "1", stored, 12, WindowCenter=300, WindowWidth=500))
    two = decode(dicom(tmp_path / "2", stored, 12, WindowCenter=[300, 9], WindowWidth=[500, 9]))
    np.testing.assert_array_equal(one.pixels, two.pixels)


@pytest.mark.parametrize("slope", [0.5, -0.5])
def test_the_window_acts_on_rescaled_values(tmp_path: Path, slope: float) -> None:
    stored = np.array([[0, 100, 200, 300]], np.uint16)
    rescale = {"RescaleSlope": slope, "RescaleIntercept": -10}
    path = dicom(tmp_path / "x", stored, 12, **rescale, WindowCenter=0.5, WindowWidth=201)
    values = stored * slope - 10  # window from -100 to 100
    np.testing.assert_array_equal(decode(path).pixels, np.rint(np.clip((values + 100) / 200, 0, 1) * 65535))
    assert decode(path).flags == ("rescale", "windowed", "16-bit")


def test_a_negative_slope_without_window_turns_the_scale_round(tmp_path: Path) -> None:
    path = dicom(tmp_path / "x", RAMP, 8, RescaleSlope=-2, RescaleIntercept=7)
    np.testing.assert_array_equal(decode(path).pixels, 255 - RAMP)


def test_a_rescale_that_does_nothing_is_not_mentioned(tmp_path: Path) -> None:
    path = dicom(tmp_path / "x", RAMP, 8, RescaleSlope=1, RescaleIntercept=0)
    assert decode(path).flags == ()
    np.testing.assert_array_equal(decode(path).pixels, RAMP)


@pytest.mark.parametrize("bits", [8, 16])
def test_lookup_tables_clamp_at_their_ends(tmp_path: Path, bits: int) -> None:
    """First value 100, 1,000 entries; an output of 8 bits must not wrap the *input* at 256."""
    entries = [round(i * 255 / 999) for i in range(1000)]
    stored = np.array([[0, 100, 101, 356, 700, 1099, 1100, 4095]], np.uint16)
    expected = np.rint(np.array([entries[i] for i in (0, 0, 1, 256, 600, 999, 999, 999)]) * 65535 / 255)[None]
    for name, flags in (
        ("ModalityLUTSequence", ("modality-lut", "unwindowed")),
        ("VOILUTSequence", ("voi-lut",)),
    ):
        decoded = decode(dicom(tmp_path / "x", stored, 12, **{name: table(100, bits, entries)}))
        np.testing.assert_array_equal(decoded.pixels, expected)
        assert decoded.flags == (*flags, "16-bit")


def test_modality_table_comes_before_voi_table_and_a_table_before_a_window(tmp_path: Path) -> None:
    stored = np.array([[0, 1, 2, 3]], np.uint8)
    header = {
        "ModalityLUTSequence": table(0, 16, [30, 20, 10, 0]),
        "VOILUTSequence": table(0, 16, [i * i for i in range(31)]),
        "WindowCenter": 3,
        "WindowWidth": 2,
    }
    decoded = decode(dicom(tmp_path / "x", stored, 8, **header))
    np.testing.assert_array_equal(decoded.pixels, [[255, round(400 / 900 * 255), round(100 / 900 * 255), 0]])
    assert decoded.flags == ("modality-lut", "voi-lut")


def test_oddities_that_touch_no_pixel_cost_no_picture(tmp_path: Path) -> None:
    """pydicom warns of both: bytes after the last pixel, and an unknown encoding of the patient's name."""
    path = dicom(
        tmp_path / "x", RAMP, 8, PixelData=RAMP.tobytes() + b"\7" * 9, SpecificCharacterSet="ISO_IR 100"
    )
    path.write_bytes(path.read_bytes().replace(b"ISO_IR 100", b"ISO_XY 999"))
    np.testing.assert_array_equal(decode(path).pixels, RAMP)


def test_colour_dicom_becomes_grey(tmp_path: Path) -> None:
    colour = np.stack([RAMP, RAMP // 2, 255 - RAMP], axis=-1)
    header = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "PhotometricInterpretation": "RGB"}
    decoded = decode(dicom(tmp_path / "x", colour, 8, **header))
    assert np.abs(decoded.pixels - colour @ [0.299, 0.587, 0.114]).max() <= 0.51
    assert decoded.flags == ("colour",)


def test_a_jpeg_is_the_same_inside_and_outside_a_dicom(tmp_path: Path, picture: np.ndarray) -> None:
    frame = encoded(picture, "JPEG")
    (tmp_path / "x.jpg").write_bytes(frame)
    inside = decode(jpeg_dicom(tmp_path / "x.dcm", frame, picture))
    np.testing.assert_array_equal(inside.pixels, decode(tmp_path / "x.jpg").pixels)
    assert inside.flags == ("lossy",)
