"""The 1 % and 10 % of the training labels: drawn by person, stratified, one inside the other.

Apart because label efficiency is the benchmark's main axis. At 1 % a careless draw decides the ranking: it
can miss a class, favour one finding, or differ from the 10 % it is compared with by more than its size.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from harness.data.splits import share


def draw(persons: np.ndarray, labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Rising positions [n] of all rows of the drawn persons.

    `persons` [N] ids, `labels` [N, L] 1, 0 or -1 for unknown. For each seed there is one order of the
    persons, and a fraction is its first `fraction` of persons, rounded up: so smaller fractions lie inside
    larger ones. The order depends on ids, labels and seed, not on how the rows are sorted. A fraction too
    small for both classes of every label has as many of them as fit. Where some persons have far more images
    than others, how many images it has varies with the seed.
    """
    person, names = pd.factorize(persons, sort=True)
    shows = np.zeros((len(names), labels.shape[1], 2), dtype=bool)
    for value in (0, 1):
        rows, columns = np.nonzero(labels == value)
        shows[person[rows], columns, value] = True
    order = _order(shows.reshape(len(names), -1), np.random.default_rng(seed))
    return np.flatnonzero(np.isin(person, order[: share(fraction, len(names))]))


def _order(shows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An order of the P persons in which every prefix looks like the whole, counted in persons.

    `shows` [P, 2L] says which class of which label a person's images have; persons alike in it form a
    stratum. The k-th of a stratum of n stands at (k + u) / n with one random u per stratum (systematic
    sampling: Cochran, Sampling Techniques, chapter 8), and sorting by place merges the strata. The cover
    comes before everything, and first in its strata, so that it is counted as their share.
    """
    cover = _cover(shows, rng)
    covers = np.zeros(len(shows), dtype=bool)
    covers[cover] = True
    _, stratum, sizes = np.unique(np.packbits(shows, axis=1), axis=0, return_inverse=True, return_counts=True)
    by_stratum = np.lexsort((rng.random(len(shows)), ~covers, stratum))
    start = np.cumsum(sizes) - sizes
    rank = np.empty(len(shows), dtype=np.int64)
    rank[by_stratum] = np.arange(len(shows)) - np.repeat(start, sizes)
    place = (rank + rng.random(len(sizes))[stratum]) / sizes[stratum]
    place[cover] = np.arange(-len(cover), 0)
    return np.argsort(place, kind="stable")


def _cover(shows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A few random persons who together show both classes of every label, as far as anyone does: the
    rarest first, for those who show it mostly show the others too."""
    lottery = rng.permutation(len(shows))
    cover: list[int] = []
    for column in np.argsort(shows.sum(axis=0), kind="stable"):
        if shows[:, column].any() and not shows[cover, column].any():
            cover.append(int(lottery[np.argmax(shows[lottery, column])]))
    return np.array(cover, dtype=np.int64)
