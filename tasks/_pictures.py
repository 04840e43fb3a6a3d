"""What there is in folders of pictures: their names, their sizes, and boxes in them. No pixels.

Apart because most datasets come as a label file and such folders, and the two must agree.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
from PIL import ExifTags, Image

from harness.errors import BadTable, UnreadableImage


def list_files(folders: Iterable[Path], ending: str = "") -> dict[str, str]:
    """Path of every file in `folders` by its name. One look at a folder: to ask for each of its 100,000
    files takes longer than to read their labels. Hidden ones are passed over: beside `a.png`, macOS leaves
    a `._a.png` on foreign disks."""
    return {
        entry.name: entry.path
        for folder in folders
        if folder.is_dir()
        for entry in os.scandir(folder.resolve())
        if entry.is_file() and entry.name.endswith(ending) and not entry.name.startswith(".")
    }


def left_out(folder: str, count: int, table: Path) -> list[str]:
    """The note on the pictures in `folder` that `table` has no row for, where there are any."""
    note = f"{folder} holds pictures without a row in {table.name}, left out for want of a label: {count}"
    return [note] if count else []


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height from a picture's header, exchanged where its EXIF orientation turns the picture, as
    decoding does. Raises UnreadableImage."""
    try:
        with Image.open(path) as file:
            # not file.getexif(): a PNG's own decodes the pixels first
            turned = Image.Image.getexif(file).get(ExifTags.Base.Orientation) in range(5, 9)
            return (file.height, file.width) if turned else file.size
    except Exception as error:  # damaged bytes make the decoders raise nearly anything
        reason = f"{type(error).__name__}: {error}"
        raise UnreadableImage(f"{path} is not a picture ({reason}). Restore the file") from error


def check_boxes(boxes: pd.Series, sizes: pd.DataFrame, path: Path) -> None:
    """Raises BadTable for a box, xyxy in pixels, that is not inside its picture. `boxes` are lists by image,
    `sizes` the columns `width` and `height` in the same order."""
    for image, found, width, height in zip(boxes.index, boxes, sizes["width"], sizes["height"], strict=True):
        for x0, y0, x1, y1 in found:
            if x0 < 0 or y0 < 0 or x1 > width or y1 > height:
                raise BadTable(
                    f"{path}: a box of {image} ends at {x1:g}, {y1:g}, outside its picture of {width} x "
                    f"{height} pixels. Boxes and pictures must be of the same release"
                )
