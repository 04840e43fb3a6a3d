"""JPEGs that are decoded smaller than they are, against the same pictures decoded whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.contracts import Geometry
from harness.data.cache import SHRUNK_TO, stored
from harness.data.decode import decode
from harness.errors import UnreadableImage
from tests.harness.data.files import encoded, jpeg_dicom


@pytest.fixture(scope="module")
def radiograph(realdata: Path) -> np.ndarray:
    """[3050, 2501] uint8: a real one, enlarged to a detector's size, with a detector's noise. Neither side is
    a multiple of 8, and no part of it is symmetric."""
    picture = decode(next((realdata / "hannover").glob("*.png"))).pixels
    large = np.asarray(Image.fromarray(picture).resize((2501, 3050), Image.Resampling.BICUBIC), float)
    return np.clip(large + np.random.default_rng(0).normal(0, 3, large.shape), 0, 255).astype(np.uint8)


def difference(path: Path, side: int, geometry: Geometry = "pad") -> tuple[float, int]:
    """Mean and largest distance in grey levels of the two squares."""
    shrunk = stored(decode(path, SHRUNK_TO * side), side, geometry).astype(int)
    apart = np.abs(shrunk - stored(decode(path), side, geometry))
    return float(apart.mean()), int(apart.max())


@pytest.mark.slow
@pytest.mark.parametrize(("side", "scale"), [(128, 8), (224, 4), (256, 4), (512, 2)])
@pytest.mark.parametrize("geometry", ["pad", "stretch"])
def test_the_square_stays_within_a_grey_level(
    tmp_path: Path, radiograph: np.ndarray, side: int, scale: int, geometry: Geometry
) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(encoded(radiograph, "JPEG", quality=90))
    decoded = decode(path, SHRUNK_TO * side)
    assert decoded.scale == scale
    assert decoded.pixels.shape == (-(-3050 // scale), -(-2501 // scale))
    assert (decoded.height, decoded.width) == (3050, 2501)
    mean, largest = difference(path, side, geometry)
    assert mean < 0.5 and largest <= 16


def test_what_is_cut_off_at_the_edge_moves_nothing(tmp_path: Path) -> None:
    """A step in the middle of 801 columns, of which an eighth of a pixel would be seen."""
    pixels = np.zeros((801, 801), np.uint8)
    pixels[:, 400:] = 200
    (tmp_path / "x.jpg").write_bytes(encoded(pixels, "JPEG", quality=95))
    assert decode(tmp_path / "x.jpg", 100).scale == 8
    mean, largest = difference(tmp_path / "x.jpg", 50)
    assert mean < 0.2 and largest <= 3


@pytest.mark.parametrize("size", [(128, 156), (320, 390), (351, 1000)])
def test_pictures_below_four_times_the_square_are_decoded_whole(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, size, dtype=np.uint8)
    (tmp_path / "x.jpg").write_bytes(encoded(pixels, "JPEG"))
    decoded = decode(tmp_path / "x.jpg", SHRUNK_TO * 88)
    assert decoded.scale == 1
    np.testing.assert_array_equal(decoded.pixels, np.asarray(Image.open(tmp_path / "x.jpg")))


def test_without_a_size_to_aim_at_every_pixel_is_decoded(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(encoded(np.zeros((900, 800), np.uint8), "JPEG"))
    assert decode(tmp_path / "x.jpg").pixels.shape == (900, 800)


@pytest.mark.slow
def test_colour_becomes_grey_as_before(tmp_path: Path, radiograph: np.ndarray) -> None:
    colour = np.stack([radiograph, radiograph[::-1], 255 - radiograph], axis=-1)
    (tmp_path / "x.jpg").write_bytes(encoded(colour, "JPEG", quality=95))
    assert decode(tmp_path / "x.jpg", 448).flags == decode(tmp_path / "x.jpg").flags == ("lossy", "colour")
    assert difference(tmp_path / "x.jpg", 224)[0] < 0.5


def test_a_picture_to_be_turned_is_decoded_whole(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "x.jpg").write_bytes(encoded(np.zeros((900, 800), np.uint8), "JPEG", exif=exif))
    decoded = decode(tmp_path / "x.jpg", 50)
    assert decoded.pixels.shape == (decoded.height, decoded.width) == (800, 900)
    assert decoded.scale == 1


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_a_jpeg_in_a_dicom_is_that_jpeg(tmp_path: Path, radiograph: np.ndarray, kind: str) -> None:
    frame = encoded(radiograph, "JPEG", quality=90)
    (tmp_path / "x.jpg").write_bytes(frame)
    path = jpeg_dicom(tmp_path / "x.dcm", frame, radiograph, PhotometricInterpretation=kind)
    plain, inside = decode(tmp_path / "x.jpg", 448), decode(path, 448)
    expected = 255 - plain.pixels if kind == "MONOCHROME1" else plain.pixels
    np.testing.assert_array_equal(inside.pixels, expected)
    assert inside[2:] == plain[2:] == (3050, 2501, 4)
    assert inside.flags == (("lossy", "monochrome1") if kind == "MONOCHROME1" else ("lossy",))
    assert difference(path, 224)[0] < 0.5


def outcome(path: Path, least: int | None) -> bytes | str:
    try:
        return decode(path, least).pixels.tobytes()
    except UnreadableImage as refusal:
        return str(refusal)


@pytest.mark.parametrize(
    "header", [{"WindowCenter": 100, "WindowWidth": 20}, {"Rows": 3049}, {"BitsStored": 7, "HighBit": 6}]
)
def test_a_dicom_whose_grey_is_no_straight_line_is_decoded_as_ever(
    tmp_path: Path, radiograph: np.ndarray, header: dict[str, object]
) -> None:
    path = jpeg_dicom(tmp_path / "x.dcm", encoded(radiograph, "JPEG"), radiograph, **header)
    assert outcome(path, 448) == outcome(path, None)


def test_all_real_dicoms_stay_within_a_grey_level(realdata: Path) -> None:
    paths = sorted((realdata / "rsna" / "stage_2_train_images").glob("*.dcm"))[::20]
    assert decode(paths[0], SHRUNK_TO * 224).scale == 2
    assert max(difference(path, 224)[0] for path in paths) < 0.5


def test_a_cut_jpeg_is_refused_as_ever(tmp_path: Path) -> None:
    whole = encoded(np.random.default_rng(2).integers(0, 256, (400, 400), dtype=np.uint8), "JPEG")
    for length in range(0, len(whole), len(whole) // 50):
        (tmp_path / "x").write_bytes(whole[:length])
        with pytest.raises(UnreadableImage, match="x: "):
            decode(tmp_path / "x", 40)
