"""Near hashes against all pairs; real pictures against altered copies of themselves and each other."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from harness.data import lookalikes
from harness.data.cache import stored
from harness.data.decode import Decoded, decode
from harness.data.lookalikes import SIDE

Hashes = NDArray[np.uint64]


def clustered(count: int, seed: int = 0) -> Hashes:
    """Hashes of which many differ in 0 to 6 bits."""
    rng = np.random.default_rng(seed)
    found = rng.integers(0, 2**64, count // 5, dtype=np.uint64).repeat(5)
    for _ in range(6):
        flip = rng.random(count // 5 * 5) < 0.5
        found ^= np.where(
            flip, np.uint64(1) << rng.integers(0, 64, len(found), dtype=np.uint64), np.uint64(0)
        )
    return rng.permutation(found)


@pytest.mark.parametrize("radius", [0, 1, 4, 7])
def test_exactly_the_pairs_that_comparing_all_finds(radius: int) -> None:
    first, second = clustered(600), np.concatenate([clustered(200, seed=1), clustered(600)[:50]])
    every = np.bitwise_count(first[:, None] ^ second) <= radius
    assert every.any()
    assert np.array_equal(np.stack(lookalikes.near(first, second, radius), axis=1), np.argwhere(every))
    within = np.triu(np.bitwise_count(first[:, None] ^ first) <= radius, k=1)
    assert np.array_equal(np.stack(lookalikes.near(first, radius=radius), axis=1), np.argwhere(within))


def test_many_candidates_are_taken_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = clustered(300)
    whole = lookalikes.near(hashes)
    monkeypatch.setattr(lookalikes, "BLOCK", 7)
    assert np.array_equal(np.stack(lookalikes.near(hashes)), np.stack(whole))


def test_nothing_is_near_nothing() -> None:
    empty, hashes = np.zeros(0, np.uint64), clustered(50)
    for first, second in ((empty, hashes), (hashes, empty), (empty, None)):
        assert [len(found) for found in lookalikes.near(first, second)] == [0, 0]


# --- pictures --------------------------------------------------------------------------------------------


def square(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return stored(Decoded(pixels, (), *pixels.shape), SIDE, "stretch")


def jpeg(pixels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


@pytest.fixture(scope="module")
def pictures(realdata: Path) -> list[NDArray[np.uint8]]:
    files = sorted((realdata / "chestxray14/images_001/images").glob("*.png"))[:60]
    files += sorted((realdata / "rsna/stage_2_train_images").glob("*.dcm"))[:60]
    return [decode(file).pixels for file in files]


def test_different_pictures_are_not_alike(pictures: list[NDArray[np.uint8]]) -> None:
    assert len(lookalikes.alike(np.stack(list(map(square, pictures)))).first) == 0


@pytest.mark.slow
def test_altered_copies_are_found(pictures: list[NDArray[np.uint8]]) -> None:
    halved = [np.asarray(Image.fromarray(pixels).reduce(2)) for pixels in pictures]
    brighter = [np.clip(pixels * 1.1 + 5, 0, 255).astype(np.uint8) for pixels in pictures]
    ours = np.stack(list(map(square, pictures)))
    for copies, share in ((halved, 1.0), ([jpeg(pixels, 60) for pixels in halved], 1.0), (brighter, 0.95)):
        found = lookalikes.alike(ours, np.stack(list(map(square, copies))))
        assert (found.first == found.second).all()
        assert len(found.first) >= share * len(pictures)


def test_the_hash_is_the_median_of_the_lowest_frequencies() -> None:
    """Two waves of which one is below the median of all, in a plain sum instead of a fast transform."""
    rng = np.random.default_rng(0)
    squares = rng.integers(0, 256, (3, SIDE, SIDE), dtype=np.uint8)
    angle = np.pi / SIDE * (np.arange(SIDE) + 0.5)
    waves = np.cos(np.arange(8)[:, None] * angle)  # [8, SIDE]
    for pixels, found in zip(squares, lookalikes.hashes(squares), strict=True):
        sums = (waves @ pixels @ waves.T).ravel()
        bits = np.unpackbits(np.array([found]).view(np.uint8))
        assert bits.tolist() == (sums > np.median(sums)).tolist()


def test_single_greys_are_alike_to_nothing() -> None:
    greys = np.arange(50_000, dtype=np.uint8)[:, None, None]
    assert len(lookalikes.alike(np.broadcast_to(greys, (50_000, SIDE, SIDE))).first) == 0
