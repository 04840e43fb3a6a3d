"""What the writers of phantoms share: pictures and tables in the formats of the official downloads.

Apart because none of it is particular to a dataset, and a reader of a dataset's file looks for its layout.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PngKind = Literal["grey", "alpha", "palette", "16-bit"]

CONVERTED: Mapping[PngKind, str] = {"alpha": "RGBA", "palette": "P"}  # to the mode of that kind

JPEG_QUALITY = 90  # pinned: Pillow's default is its own affair


def save_jpeg(path: Path, pixels: NDArray[np.uint8]) -> None:
    """`pixels` [H, W] as a grey JPEG; makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=JPEG_QUALITY)


def save_png(path: Path, pixels: NDArray[np.uint8] | NDArray[np.bool_], kind: PngKind = "grey") -> None:
    """`pixels` [H, W] as a PNG of one of the kinds that downloads mix, all of the same grey, or, if they are
    bool, of one bit; makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels.astype(np.uint16) * 257 if kind == "16-bit" else pixels)
    if kind in CONVERTED:
        image = image.convert(CONVERTED[kind])
    image.save(path)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Plain or, by its name, gzipped; the same rows are the same bytes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    data = text.getvalue().encode()
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """A text without header, one line each."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")
