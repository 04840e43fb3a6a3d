"""Folders of pictures as downloads leave them."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from PIL import ExifTags, Image

from harness.data.decode import decode
from harness.errors import BadTable, UnreadableImage
from tasks._pictures import check_boxes, list_files, picture_size


def test_files_of_several_folders_by_name(tmp_path: Path) -> None:
    for name in ("one/a.png", "one/._a.png", "one/deep/x.png", "two/b.png", "two/b.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "two" / "c.png").symlink_to(tmp_path / "one" / "a.png")
    found = list_files([tmp_path / "one", tmp_path / "missing", tmp_path / "two"], ".png")
    assert found == {
        "a.png": str(tmp_path / "one/a.png"),
        "b.png": str(tmp_path / "two/b.png"),
        "c.png": str(tmp_path / "two/c.png"),
    }


def test_a_picture_says_its_size(tmp_path: Path) -> None:
    Image.new("L", (30, 20)).save(tmp_path / "a.png")
    assert picture_size(tmp_path / "a.png") == (30, 20)
    cut = (tmp_path / "a.png").read_bytes()[:20]
    for content in (b"<html>404</html>", cut, b""):
        (tmp_path / "b.png").write_bytes(content)
        with pytest.raises(UnreadableImage, match=r"b.png is not a picture \(.*Restore the file"):
            picture_size(tmp_path / "b.png")


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_that_is_turned_has_the_size_it_is_decoded_to(
    tmp_path: Path, name: str, orientation: int
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.new("L", (30, 20)).save(tmp_path / name, exif=exif)
    decoded = decode(tmp_path / name)
    assert picture_size(tmp_path / name) == (decoded.width, decoded.height)


@pytest.mark.parametrize("box", [(-1, 0, 5, 5), (0, -1, 5, 5), (0, 0, 31, 5), (0, 0, 5, 21)])
def test_boxes_must_lie_inside(box: tuple[float, float, float, float]) -> None:
    sizes = pd.DataFrame({"width": [30, 30], "height": [20, 20]})
    check_boxes(pd.Series({"a": [], "b": [(0, 0, 30, 20)]}), sizes, Path("a.csv"))
    with pytest.raises(BadTable, match=r"a.csv: a box of b .* outside its picture of 30 x 20 pixels"):
        check_boxes(pd.Series({"a": [], "b": [(1, 1, 2, 2), box]}), sizes, Path("a.csv"))
