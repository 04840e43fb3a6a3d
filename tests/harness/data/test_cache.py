"""The cache against its own inputs: what is read back, what survives a kill, and what is decoded again."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.contracts import Geometry
from harness.data import cache
from harness.data.cache import SHRUNK_TO, Images, Wanted, open_images, stored
from harness.data.decode import decode
from harness.data.picture import Decoded
from harness.errors import CorruptCache, DataError, HarnessError, UnreadableImage

PROJECT = Path(cache.__file__).resolve().parents[2]


def draw(folder: Path, count: int) -> list[Path]:
    """`count` pictures of different sizes and contents."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(count)
    paths = [folder / f"{place:03}.png" for place in range(count)]
    for place, path in enumerate(paths):
        Image.fromarray(rng.integers(0, 256, (20 + place % 7, 30), dtype=np.uint8)).save(path)
    return paths


def opened(paths: list[Path], folder: Path, *, geometry: Geometry = "pad", workers: int = 1) -> Images:
    ids = [path.name for path in paths]
    return open_images(Wanted("set", ids, paths, 16, geometry), folder=folder, workers=workers)


def expected(paths: list[Path], geometry: Geometry = "pad") -> np.ndarray:
    return np.stack([stored(decode(path, SHRUNK_TO * 16), 16, geometry) for path in paths])


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are decoded from here on, in this process."""
    names: list[str] = []

    def counting(path: Path, least: int) -> Decoded:
        names.append(path.name)
        return decode(path, least)

    monkeypatch.setattr(cache, "decode", counting)
    return names


def run(script: str, paths: list[Path], folder: Path) -> subprocess.Popen[str]:
    """A process of its own that executes `script` with `cache`, `opened` and `paths` at hand."""
    prelude = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from harness.data import cache\n"
        f"folder, paths = Path({str(folder)!r}), [Path(p) for p in {list(map(str, paths))!r}]\n"
        "def opened():\n"
        "    asked = cache.Wanted('set', [p.name for p in paths], paths, 16, 'pad')\n"
        "    return cache.open_images(asked, folder=folder, workers=1)\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", prelude + script],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# --- round trip ------------------------------------------------------------------------------------


@pytest.mark.parametrize("geometry", ["pad", "stretch"])
def test_what_is_read_back_is_what_was_decoded(
    tmp_path: Path, geometry: Geometry, decoded: list[str]
) -> None:
    paths = draw(tmp_path / "data", 9)[::-1]  # the order of the ids, not of the names
    first = opened(paths, tmp_path / "cache", geometry=geometry)
    again = opened(paths, tmp_path / "cache", geometry=geometry)
    np.testing.assert_array_equal(first.pixels, expected(paths, geometry))
    np.testing.assert_array_equal(again.pixels, first.pixels)
    np.testing.assert_array_equal(again.sizes, [decode(path).pixels.shape for path in paths])
    assert (first.cached, again.cached) == (False, True)
    assert again.fingerprint == first.fingerprint
    assert len(decoded) == 9
    with pytest.raises(ValueError, match="read-only"):
        again.pixels[0, 0, 0] = 1


@pytest.mark.slow
def test_real_pictures_of_all_kinds(realdata: Path, tmp_path: Path) -> None:
    dicom = [realdata / "dicom" / f"{name}.dcm" for name in ("RG3_RLE", "RG3_JLSN", "Fake_MONOHR1")]
    paths = sorted((realdata / "hannover").glob("*.png")) + dicom
    images = opened(paths, tmp_path)
    np.testing.assert_array_equal(images.pixels, expected(paths))
    assert images.flags == opened(paths, tmp_path).flags
    assert images.flags == {"lossy": 2, "16-bit": 2, "monochrome1": 3, "windowed": 2}


def test_the_fingerprint_is_of_ids_and_pixels(tmp_path: Path) -> None:
    paths = draw(tmp_path / "data", 3)

    def fingerprint(ids: str, paths: list[Path], name: str = "set") -> str:
        asked = Wanted(name, list(ids), paths, 16, "pad")
        return open_images(asked, folder=tmp_path / "cache", workers=1).fingerprint

    sets = ("abc", paths), ("abx", paths), ("abc", paths[::-1]), ("ab", paths[:2])
    seen = {fingerprint(*each) for each in sets}
    assert len(seen) == 4
    assert fingerprint("abc", paths, "other") in seen


@pytest.mark.slow
def test_two_workers_write_the_same_bytes_as_one(tmp_path: Path) -> None:
    paths = draw(tmp_path / "data", 70)  # enough for a pool
    one, two = opened(paths, tmp_path / "1"), opened(paths, tmp_path / "2", workers=2)
    np.testing.assert_array_equal(one.pixels, two.pixels)
    for file in (cache.PIXELS, cache.ROWS, cache.INDEX):
        contents = {path.read_bytes() for path in tmp_path.glob(f"?/set-*/{file}")}
        assert len(contents) == 1, file


def test_an_empty_dataset_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="set: there are no images"):
        opened([], tmp_path)


# --- the key ---------------------------------------------------------------------------------------


def test_a_moved_data_root_keeps_its_cache(tmp_path: Path, decoded: list[str]) -> None:
    opened(draw(tmp_path / "here", 5), tmp_path / "cache")
    (tmp_path / "here").rename(tmp_path / "there")
    assert opened(sorted((tmp_path / "there").iterdir()), tmp_path / "cache").cached
    assert len(decoded) == 5


def test_a_changed_file_is_decoded_again(tmp_path: Path) -> None:
    paths = draw(tmp_path / "data", 5)
    before = opened(paths, tmp_path / "cache")
    kept = before.pixels.copy()
    old = paths[2].stat()
    content = bytearray(paths[2].read_bytes())
    Image.fromarray(255 - np.asarray(Image.open(paths[2]))).save(paths[2])
    os.utime(paths[2], ns=(old.st_atime_ns, old.st_mtime_ns + 1))  # one nanosecond later is enough

    after = opened(paths, tmp_path / "cache")
    assert not after.cached
    np.testing.assert_array_equal(after.pixels, expected(paths))
    assert (after.pixels[2] != kept[2]).any()
    np.testing.assert_array_equal(before.pixels, kept)  # whoever holds the old pictures keeps them

    paths[2].write_bytes(content)
    os.utime(paths[2], ns=(old.st_atime_ns, old.st_mtime_ns))
    assert opened(paths, tmp_path / "cache").fingerprint == before.fingerprint


@pytest.mark.parametrize("name", ["CACHE_VERSION", "DECODER_VERSION"])
def test_another_version_of_the_code_decodes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    paths = draw(tmp_path / "data", 2)
    opened(paths, tmp_path / "cache")
    monkeypatch.setattr(cache, name, 999)
    assert not opened(paths, tmp_path / "cache").cached


# --- kill, full disk, two processes ----------------------------------------------------------------

KILLED_WHILE_DECODING = """
seen = []
decode = cache.decode
def dying(path, least):
    seen.append(path)
    if len(seen) == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    return decode(path, least)
cache.decode = dying
opened()
"""

KILLED_WHILE_WRITING = """
seen = []
write = cache._write
def dying(file, place, content):
    if len(content) == 16 * 16:
        seen.append(place)
        if len(seen) == 13:
            file.seek(place * len(content))
            file.write(content[:100])
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    write(file, place, content)
cache._write = dying
opened()
"""


@pytest.mark.slow
@pytest.mark.parametrize("script", [KILLED_WHILE_DECODING, KILLED_WHILE_WRITING], ids=["decoding", "writing"])
def test_a_kill_costs_only_the_picture_in_hand(tmp_path: Path, decoded: list[str], script: str) -> None:
    paths = draw(tmp_path / "data", 20)
    process = run(script, paths, tmp_path / "cache")
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL

    images = opened(paths, tmp_path / "cache")
    assert decoded == [path.name for path in paths[12:]]
    np.testing.assert_array_equal(images.pixels, expected(paths))
    assert images.fingerprint == opened(paths, tmp_path / "fresh").fingerprint


def test_what_a_power_cut_damaged_is_decoded_again(tmp_path: Path, decoded: list[str]) -> None:
    """A row on the disk whose pixels are not: unfinished work is checked before it is built upon."""
    paths = draw(tmp_path / "data", 4)
    paths[3].write_bytes(b"no picture")
    with pytest.raises(UnreadableImage):
        opened(paths, tmp_path / "cache")
    [pixels] = tmp_path.glob(f"cache/set-*.part/{cache.PIXELS}")
    flip(pixels, 16 * 16)  # first pixel of the second picture
    decoded.clear()
    with pytest.raises(UnreadableImage):
        opened(paths, tmp_path / "cache")
    assert decoded == ["001.png", "003.png"]


def test_a_file_changed_between_two_attempts_is_decoded_again(tmp_path: Path, decoded: list[str]) -> None:
    paths = draw(tmp_path / "data", 4)
    paths[3].write_bytes(b"no picture")
    with pytest.raises(UnreadableImage):
        opened(paths, tmp_path / "cache")
    Image.new("L", (9, 9), 200).save(paths[0])
    Image.new("L", (9, 9), 100).save(paths[3])
    decoded.clear()
    np.testing.assert_array_equal(opened(paths, tmp_path / "cache").pixels, expected(paths))
    assert decoded == ["000.png", "003.png"]


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot reserve space on a disk")
def test_the_space_is_taken_before_the_first_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []

    def looking(path: Path, least: int) -> Decoded:
        [pixels] = tmp_path.glob(f"cache/set-*.part/{cache.PIXELS}")
        taken.append(pixels.stat().st_blocks * 512)
        return decode(path, least)

    monkeypatch.setattr(cache, "decode", looking)
    opened(draw(tmp_path / "data", 64), tmp_path / "cache")
    assert taken[0] >= 64 * 16 * 16


@contextmanager
def small_disk(size: int) -> Iterator[None]:
    """No file of this process may grow beyond `size` bytes: the kernel refuses as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_too_small_a_disk_is_noticed_before_any_decoding(tmp_path: Path, decoded: list[str]) -> None:
    paths = draw(tmp_path / "data", 20)
    with small_disk(19 * 16 * 16), pytest.raises(HarnessError, match=r"set-\w+\.part: .*Free 5\.1 kB there"):
        opened(paths, tmp_path / "cache")
    assert decoded == []
    np.testing.assert_array_equal(opened(paths, tmp_path / "cache").pixels, expected(paths))


def test_a_write_that_fails_midway_keeps_what_is_done(
    tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = draw(tmp_path / "data", 20)
    write: Callable[..., None] = cache._write

    def filling(file: object, place: int, content: bytes) -> None:
        if place == 8:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(file, place, content)

    with monkeypatch.context() as patch:
        patch.setattr(cache, "_write", filling)
        with pytest.raises(HarnessError, match="No space left on device"):
            opened(paths, tmp_path / "cache")
    decoded.clear()
    np.testing.assert_array_equal(opened(paths, tmp_path / "cache").pixels, expected(paths))
    assert decoded == [path.name for path in paths[8:]]


def test_a_second_process_waits_and_finds_it_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = draw(tmp_path / "data", 4)
    holding, go_on = threading.Event(), threading.Event()

    def slow(path: Path, least: int) -> Decoded:
        holding.set()
        assert go_on.wait(60)
        return decode(path, least)

    monkeypatch.setattr(cache, "decode", slow)
    first = threading.Thread(target=opened, args=(paths, tmp_path / "cache"))
    first.start()
    assert holding.wait(60)
    second = run("images = opened()\nprint(images.cached, images.fingerprint)", paths, tmp_path / "cache")
    assert second.stderr is not None
    assert "waiting for another process" in second.stderr.readline()
    go_on.set()
    first.join(60)
    out, _ = second.communicate(timeout=60)
    assert out.split() == ["True", opened(paths, tmp_path / "cache").fingerprint]
    assert second.returncode == 0


# --- unreadable pictures ---------------------------------------------------------------------------


def test_unreadable_pictures_cost_no_other_and_are_named(tmp_path: Path, decoded: list[str]) -> None:
    paths = draw(tmp_path / "data", 10)
    good = paths[4].read_bytes()
    paths[4].write_bytes(good[:50])
    paths[7].write_bytes(b"")
    for attempt in ([path.name for path in paths], ["004.png", "007.png"]):
        decoded.clear()
        with pytest.raises(UnreadableImage, match=r"2 of 10 images of set(.|\n)*004\.png(.|\n)*007\.png: "):
            opened(paths, tmp_path / "cache")
        assert decoded == attempt

    paths[4].write_bytes(good)
    Image.new("L", (5, 5)).save(paths[7])
    decoded.clear()
    images = opened(paths, tmp_path / "cache")
    assert decoded == ["004.png", "007.png"]
    np.testing.assert_array_equal(images.pixels, expected(paths))


# --- corruption ------------------------------------------------------------------------------------


def forge(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        (cache.PIXELS, lambda path: flip(path, 16 * 16 * 3 + 7)),
        (cache.PIXELS, lambda path: os.truncate(path, 100)),
        (cache.PIXELS, lambda path: path.write_bytes(path.read_bytes() + b"x")),
        (cache.PIXELS, Path.unlink),
        *[
            (cache.ROWS, lambda path, place=place: flip(path, 64 * 2 + place))
            for place in (0, 32, 40, 48, 52, 56)
        ],
        (cache.ROWS, lambda path: path.write_bytes(path.read_bytes()[:-64])),
        (cache.INDEX, Path.unlink),
        (cache.INDEX, lambda path: path.write_bytes(b"{")),
        (cache.INDEX, lambda path: path.write_bytes(b"\xff")),
        (cache.INDEX, lambda path: forge(path, fingerprint="0" * 64)),
        (cache.INDEX, lambda path: forge(path, flags={"lossy": 1})),
    ],
)
def test_damage_is_found_and_the_cure_is_one_folder(
    tmp_path: Path, file: str, damage: Callable[[Path], None]
) -> None:
    paths = draw(tmp_path / "data", 5)
    opened(paths, tmp_path / "cache")
    [folder] = tmp_path.glob("cache/set-*[!k]/")
    damage(folder / file)
    with pytest.raises(
        CorruptCache, match=rf"{re.escape(str(folder))}.*Delete the folder {re.escape(str(folder))};"
    ):
        opened(paths, tmp_path / "cache")

    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    np.testing.assert_array_equal(opened(paths, tmp_path / "cache").pixels, expected(paths))
