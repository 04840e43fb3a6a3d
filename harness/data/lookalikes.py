"""Pictures that are in two datasets, or twice in one: found by what they look like, whatever they are called.

Apart because no table says it: collections took pictures from each other, renamed and converted them.

A picture's hash has 64 bits: of its 32 x 32 square the 8 x 8 lowest frequencies of the cosine transform, each
above or below their median (Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010;
the `phash` of the imagehash package). Two pictures are candidates when their hashes differ in at most
`RADIUS` bits, and alike when their squares then correlate by `CORRELATION`; 319 different real chest X-rays
have no candidates among their 50,721 pairs and correlate by 0.94 at most.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn

SIDE = 32  # of the square, stretched
LOWEST = 8  # frequencies per axis
RADIUS = 4  # bits: halving a picture and saving it as JPEG changes at most 2, a gamma of 0.8 four on average
CORRELATION = 0.99

BITS = LOWEST**2
BLOCK = 2**22  # candidates held at once
PICTURES = 2**12  # compared at once, as floats


class Alike(NamedTuple):
    first: NDArray[np.int64]  # [P] positions
    second: NDArray[np.int64]  # [P]


def hashes(squares: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """[N] of `squares` [N, SIDE, SIDE]."""
    found = [np.zeros(0, np.uint64)]
    for start in range(0, len(squares), PICTURES):
        waves = dctn(squares[start : start + PICTURES].astype(np.float64), axes=(1, 2))
        flat = waves[:, :LOWEST, :LOWEST].reshape(-1, BITS)
        bits = flat > np.median(flat, axis=1, keepdims=True)
        found.append(np.packbits(bits, axis=1).view(np.uint64).ravel())
    return np.concatenate(found)


def alike(first: NDArray[np.uint8], second: NDArray[np.uint8] | None = None) -> Alike:
    """Pairs of pictures that look the same, from squares [N, SIDE, SIDE] of two datasets, or without `second`
    the pairs i < j within one. A picture of a single grey looks like nothing: there would be no end of pairs.
    """
    others = first if second is None else second
    shown, there = _not_empty(first), _not_empty(others)
    ours, theirs = hashes(first[shown]), hashes(others[there])
    i, j = near(ours, None if second is None else theirs)
    one, other = shown[i], there[j]
    same = _correlation(first, one, others, other) >= CORRELATION
    return Alike(one[same], other[same])


def near(
    first: NDArray[np.uint64], second: NDArray[np.uint64] | None = None, radius: int = RADIUS
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of all pairs of hashes that differ in at most `radius` bits, in rising order; of one set of
    hashes, the pairs i < j.

    Of `radius` + 2 bands of bits, two are without a difference then: pairs that share two are found by
    sorting, and only they are counted out (multi-index hashing: Norouzi, Punjani & Fleet, CVPR 2012). One of
    `radius` + 1 bands would do, but X-rays have much in common: ten times as many pairs share one of those.
    """
    other = first if second is None else second
    pairs = [np.zeros((0, 2), np.int64)]
    # every so-many-th bit: neighbours are correlated, and a band of such would tell pictures apart badly
    bands = [sum(1 << bit for bit in range(band, BITS, radius + 2)) for band in range(radius + 2)]
    for one, two in combinations(bands, 2):
        mask = np.uint64(one | two)
        for i, j in _equal(first & mask, other & mask):
            close = np.bitwise_count(first[i] ^ other[j]) <= radius
            if second is None:
                close &= i < j
            pairs.append(np.stack([i[close], j[close]], axis=1))
    found = np.unique(np.concatenate(pairs), axis=0)
    return found[:, 0], found[:, 1]


def _equal(
    first: NDArray[np.uint64], second: NDArray[np.uint64]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Positions of all equal pairs, some `BLOCK` at a time."""
    order, others = np.argsort(first, kind="stable"), np.argsort(second, kind="stable")
    ranked, wanted = first[order], second[others]
    start = np.searchsorted(ranked, wanted, side="left")
    count = np.searchsorted(ranked, wanted, side="right") - start
    total = np.cumsum(count)
    cuts = np.searchsorted(total, np.arange(BLOCK, total[-1] if len(total) else 0, BLOCK))
    for rows in np.split(np.arange(len(wanted)), np.unique(cuts)):
        size = count[rows]
        within = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
        yield order[np.repeat(start[rows], size) + within], others[np.repeat(rows, size)]


def _not_empty(squares: NDArray[np.uint8]) -> NDArray[np.int64]:
    return np.flatnonzero(squares.min(axis=(1, 2)) < squares.max(axis=(1, 2)))


def _correlation(
    first: NDArray[np.uint8], one: NDArray[np.int64], second: NDArray[np.uint8], other: NDArray[np.int64]
) -> NDArray[np.float64]:
    """[P] Pearson's, of the squares at positions `one` and `other`."""
    found = np.zeros(len(one))
    for start in range(0, len(one), PICTURES):
        part = slice(start, start + PICTURES)
        ours, theirs = _centred(first[one[part]]), _centred(second[other[part]])
        lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
        found[part] = np.einsum("pd,pd->p", ours, theirs) / lengths
    return found


def _centred(squares: NDArray[np.uint8]) -> NDArray[np.float64]:
    flat = squares.reshape(len(squares), -1).astype(np.float64)
    flat -= flat.mean(axis=1, keepdims=True)
    return flat
