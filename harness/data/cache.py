"""Every picture of a dataset, decoded once into one file of equal uint8 squares that training reads in place.

Apart because it alone has to survive a kill, a full disk and a second process:

    NAME-SHAPE.part/   rows that are done so far; a row carries its file's size and time, so that after a kill
                       or a repaired file only the rest is decoded
    NAME-KEY/          the same folder renamed once it is complete; never written again
    NAME-SHAPE.lock    held by the one process that fills the part

SHAPE hashes ids, side, geometry and the versions of this code; KEY adds each file's size and modification
time in nanoseconds. Paths are not in it: a data root that moves keeps its cache. Time instead of content
saves reading the whole dataset at each start; the price: a copy that does not keep times is decoded again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from harness.contracts import Geometry
from harness.data.decode import DECODER_VERSION, decode
from harness.data.picture import FLAGS, Decoded, eight_bits
from harness.errors import CorruptCache, DataError, HarnessError, UnreadableImage, few, readable_size
from harness.files import file_hash, hash_lines, hash_of, locked, sync, write_json
from harness.parallel import parallel_map

CACHE_VERSION = 1
"""Raised with every change to `stored` or to what a row holds."""

SHRUNK_TO = 2
"""A JPEG may be decoded at 1/2, 1/4 or 1/8 as long as each of its sides keeps this many stored sides. On
radiographs enlarged to 2,500 x 3,050, squares then differ from those of all pixels by 0.2 grey levels on
average; with 1 it would be 0.5, and no faster."""

NAMED = 5  # refused pictures that a message spells out

CURE = "Delete the folder {}; the next run makes it again"

PIXELS, ROWS, INDEX = "pixels.u8", "rows.bin", "index.json"

ROW = np.dtype(
    [
        ("digest", "V32"),  # sha256 of the row's pixels; a row counts only while the two agree
        ("file_size", "<i8"),
        ("file_time", "<i8"),  # nanoseconds
        ("height", "<u4"),  # native, as decoded
        ("width", "<u4"),
        ("flags", "<u4"),  # bit i: FLAGS[i]
        ("unused", "V4"),  # 64 bytes in all: a row never crosses a page, so a kill cannot leave half of one
    ]
)


@dataclass(frozen=True)
class Images:
    pixels: NDArray[np.uint8]  # [N, side, side], read-only, mapped from the disk, in the order of the ids
    sizes: NDArray[np.uint32]  # [N, 2] native height and width: what boxes and masks are given in
    fingerprint: str  # sha256 of ids and stored pixels
    flags: dict[str, int]  # how many pictures carry which flag of the decoder
    cached: bool  # nothing had to be decoded


def placement(height: int, width: int, side: int, geometry: Geometry) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a picture inside its stored square, in pixels of the square.

    "pad": the longest side becomes `side`, the ratio is kept, the rest is border on both sides, an odd pixel
    of it at the bottom or right. "stretch": the whole square.
    """
    if geometry == "stretch":
        return 0, 0, side, side
    scale = side / max(height, width)
    inner_height, inner_width = max(1, round(height * scale)), max(1, round(width * scale))
    return (side - inner_height) // 2, (side - inner_width) // 2, inner_height, inner_width


def stored(decoded: Decoded, side: int, geometry: Geometry) -> NDArray[np.uint8]:
    """The picture in a black square [side, side], rounded to 8 bits, resized bilinearly with antialiasing.

    A picture that was decoded smaller is cut where the whole one ends, not where its last pixel does: by less
    than a pixel, but resized without it, all of its contents would be moved.
    """
    grey = eight_bits(decoded.pixels)
    top, left, height, width = placement(decoded.height, decoded.width, side, geometry)
    whole = 0, 0, decoded.width / decoded.scale, decoded.height / decoded.scale
    image = Image.fromarray(grey).resize((width, height), Image.Resampling.BILINEAR, box=whole)
    square = np.zeros((side, side), np.uint8)
    square[top : top + height, left : left + width] = np.asarray(image)
    return square


class Wanted(NamedTuple):
    """The pictures that one cache is of."""

    name: str  # of their dataset
    ids: Sequence[str]
    paths: Sequence[Path]
    side: int
    geometry: Geometry


def wanted(name: str, frame: pd.DataFrame, side: int, geometry: Geometry) -> Wanted:
    """The pictures of all rows of a dataset's table."""
    return Wanted(name, frame["image_id"].tolist(), list(map(Path, frame["path"])), side, geometry)


def open_images(asked: Wanted, *, folder: Path, workers: int) -> Images:
    """The pictures as squares, from the cache in `folder` or decoded into it now.

    Raises DataError for pictures that are not there, UnreadableImage after all others are decoded and kept,
    CorruptCache when what lies in `folder` is not what was written there, HarnessError when it cannot be
    written. Every opening checks every pixel: 0.5 s per GB where the processor knows SHA-256, beside the
    reading that training does anyway.
    """
    if not asked.ids:
        raise DataError(
            f"{asked.name}: there are no images to decode. Check the dataset's table and the split"
        )
    stamps = _stamps(_files(asked.paths))
    final, part = _places(asked, stamps, folder)
    if cached := final.exists():
        return _open(final, asked, cached)
    try:
        with locked(part.with_suffix(".lock")):
            if not (cached := final.exists()):  # another process may have made it while this one waited
                failures = _fill(part, asked, stamps, workers)
                if failures:
                    raise UnreadableImage(
                        f"{len(failures)} of {len(asked.ids)} images of {asked.name} cannot be decoded. The "
                        "others are kept; the next run tries only these again. The first of them:\n"
                        + "\n".join(map(str, failures[:NAMED]))
                    )
                write_json(part / INDEX, _index(part, asked.ids, _map(part, asked)[1]))
                part.rename(final)
    except OSError as error:
        need = readable_size(len(asked.ids) * asked.side**2)
        raise HarnessError(
            f"cannot write {part}: {error}. Free {need} there, or set HARNESS_HOME to another disk; what is "
            "decoded so far is kept"
        ) from error
    return _open(final, asked, cached)


class Present(NamedTuple):
    """Pictures as they lie on the disk now."""

    key: str  # of their files, and of how they are stored
    fingerprint: str | None  # as in `Images`; None where they are not decoded
    newest: float  # seconds of the epoch at which the last of them was written, or put there with an old date


def present(asked: Wanted, *, folder: Path) -> Present:
    """What tells, without decoding any, whether pictures are still those of a record. Raises DataError for
    pictures that are not there, CorruptCache for a cache that cannot be read."""
    files = _files(asked.paths)
    cached, _ = _places(asked, _stamps(files), folder)
    newest = max(max(file.st_mtime, file.st_ctime) for file in files)
    return Present(cached.name, _read_index(cached)["fingerprint"] if cached.exists() else None, newest)


class Outstanding(NamedTuple):
    pictures: int  # to be decoded
    size: int  # bytes of disk to be taken


def outstanding(asked: Wanted, *, folder: Path) -> Outstanding:
    """What `open_images` would have to do now."""
    stamps, count = _stamps(_files(asked.paths)), len(asked.ids)
    final, part = _places(asked, stamps, folder)
    if final.exists():
        return Outstanding(0, 0)
    taken = sum(file.stat().st_blocks * 512 for file in part.glob("*"))
    size = max(count * (asked.side**2 + ROW.itemsize) - taken, 0)
    if not (part / ROWS).exists() or (part / ROWS).stat().st_size != count * ROW.itemsize:
        return Outstanding(count, size)
    rows = np.fromfile(part / ROWS, ROW)
    known = zip(rows["file_size"].tolist(), rows["file_time"].tolist(), strict=True)
    return Outstanding(sum(old != new for old, new in zip(known, stamps, strict=True)), size)


def _places(asked: Wanted, stamps: Sequence[tuple[int, int]], folder: Path) -> tuple[Path, Path]:
    """Where the pictures are once they are complete, and until then."""
    shape = hash_of(CACHE_VERSION, DECODER_VERSION, asked.side, asked.geometry, list(asked.ids))
    return folder / f"{asked.name}-{hash_of(shape, stamps)[:16]}", folder / f"{asked.name}-{shape[:16]}.part"


def _files(paths: Sequence[Path]) -> list[os.stat_result]:
    """What the disk says of each file. Raises DataError for those that are not there."""
    files, missing = [], []
    for path in paths:
        try:
            files.append(path.stat())
        except (FileNotFoundError, NotADirectoryError):  # whatever else a disk refuses is not missing
            missing.append(str(path))
    if missing:
        raise DataError(f"{few(missing)}: no such picture. Complete the download")
    return files


def _stamps(files: Sequence[os.stat_result]) -> list[tuple[int, int]]:
    """(size, modification time in ns) of each."""
    return [(file.st_size, file.st_mtime_ns) for file in files]


def _map(folder: Path, asked: Wanted) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """Pixels [count, side, side] and rows [count] as they lie on the disk, read-only."""
    count = len(asked.ids)
    pixels = np.memmap(folder / PIXELS, np.uint8, "r", shape=(count, asked.side, asked.side))
    return pixels, np.memmap(folder / ROWS, ROW, "r", shape=(count,))


def _digest(square: NDArray[np.uint8]) -> bytes:
    return hashlib.sha256(square.tobytes()).digest()


# --- writing ---------------------------------------------------------------------------------------


class _Row(NamedTuple):
    square: NDArray[np.uint8]  # [side, side]
    height: int
    width: int
    flags: int


def decode_row(path: Path, *, side: int, geometry: Geometry) -> _Row | UnreadableImage:
    """One picture as it is kept. A refusal is returned and not raised: it must not end the work on others."""
    try:
        decoded = decode(path, SHRUNK_TO * side)
    except UnreadableImage as refusal:
        return refusal
    flags = sum(1 << FLAGS.index(flag) for flag in decoded.flags)
    return _Row(stored(decoded, side, geometry), decoded.height, decoded.width, flags)


def _fill(
    part: Path, asked: Wanted, stamps: Sequence[tuple[int, int]], workers: int
) -> list[UnreadableImage]:
    """Decodes the rows that `part` does not hold yet; returns the refusals."""
    part.mkdir(exist_ok=True)
    failures, count = [], len(asked.ids)
    with (
        _reserved(part / PIXELS, count * asked.side**2) as pixel_file,
        _reserved(part / ROWS, count * ROW.itemsize) as row_file,
    ):
        pixels, rows = _map(part, asked)
        known = zip(rows["file_size"].tolist(), rows["file_time"].tolist(), strict=True)
        todo = [
            place
            for place, (old, new) in enumerate(zip(known, stamps, strict=True))
            if old != new or _digest(pixels[place]) != rows["digest"][place].tobytes()
        ]
        decode_one = partial(decode_row, side=asked.side, geometry=asked.geometry)
        paths, label = [asked.paths[place] for place in todo], f"decoding {asked.name}"
        results = parallel_map(decode_one, paths, workers=workers, label=label)
        for place, result in zip(todo, results, strict=True):
            if isinstance(result, UnreadableImage):
                failures.append(result)
                continue
            square, *facts = result
            row = np.array((_digest(square), *stamps[place], *facts, b""), ROW)
            _write(pixel_file, place, square.tobytes())
            _write(row_file, place, row.tobytes())
    return failures


@contextmanager
def _reserved(path: Path, size: int) -> Iterator[IO[bytes]]:
    """A file of `size` bytes, what it held kept, that is on the disk when the block ends. The space is taken
    at once where the system can: a full disk is then an error now and not a crash when the file is mapped."""
    path.touch()
    with path.open("r+b") as file:
        file.truncate(size)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        yield file
        sync(path)


def _write(file: IO[bytes], place: int, content: bytes) -> None:
    file.seek(place * len(content))
    file.write(content)
    file.flush()  # to the system: it outlives this process


# --- reading ---------------------------------------------------------------------------------------


def _index(folder: Path, ids: Sequence[str], rows: NDArray[Any]) -> dict[str, Any]:
    """What is computed from the rows once they are complete; the hash covers what else they hold."""
    digests = (digest.tobytes().hex() for digest in rows["digest"])
    counts = {flag: int((rows["flags"] >> bit & 1).sum()) for bit, flag in enumerate(FLAGS)}
    return {
        "fingerprint": hash_lines(f"{name} {digest}" for name, digest in zip(ids, digests, strict=True)),
        "flags": {flag: count for flag, count in counts.items() if count},
        "rows": file_hash(folder / ROWS),
    }


def _read_index(folder: Path) -> dict[str, Any]:
    try:
        index: dict[str, Any] = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CorruptCache(f"{folder} cannot be read ({error}). {CURE.format(folder)}") from error
    return index


def _open(folder: Path, asked: Wanted, cached: bool) -> Images:
    index, cure = _read_index(folder), CURE.format(folder)
    try:
        pixels, rows = _map(folder, asked)
    except (OSError, ValueError) as error:
        raise CorruptCache(f"{folder} cannot be read ({error}). {cure}") from error
    if index != _index(folder, asked.ids, rows):
        raise CorruptCache(f"{folder / INDEX} and {folder / ROWS} do not belong together. {cure}")
    if (folder / PIXELS).stat().st_size != pixels.nbytes:
        raise CorruptCache(f"{folder / PIXELS} is longer than {len(asked.ids)} images. {cure}")
    for place, (name, square) in enumerate(zip(asked.ids, pixels, strict=True)):
        if _digest(square) != rows["digest"][place].tobytes():
            raise CorruptCache(f"{folder / PIXELS} has changed at image {name!r} (row {place}). {cure}")
    sizes = np.stack([rows["height"], rows["width"]], axis=1)
    return Images(pixels, sizes, index["fingerprint"], index["flags"], cached)
