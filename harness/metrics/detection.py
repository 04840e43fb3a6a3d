"""How well boxes are found: COCO's average precision, Object-CXR's FROC, and the AUROC of whole images.

Apart because who matches whom is decided inside an image, whatever the image weighs: boxes are matched and
ranked once, and what is left for each weighting are sums along that ranking.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from harness.metrics.auroc import Before, Comparison, ratio, require_both_classes

OVERLAPS = np.linspace(0.40, 0.75, 8)
"""Intersection over union from which a box is right: those of the RSNA challenge, that MGCA averages over."""
LISTED = (0.40, 0.50, 0.75)  # overlaps whose average precision stands in the record by itself
RECALLS = np.linspace(0, 1, 101)  # where COCO reads the precision
FALSE_ALARMS = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives per image at which Object-CXR's `froc.py` (last version) reads the sensitivity."""


class Detections:
    """A score (see `score.py`):

    - `mean_average_precision`: the mean over `OVERLAPS` of the average precision, over all images: a box in
      an image that has none is a false positive, a box that nothing was found for is missed;
    - `average_precision:OVERLAP` for those in `LISTED`;
    - with `kept`, `mean_average_precision:skipping`: over those images, which have both a true and a
      predicted box. The rule of MGCA's released code: it forgives what the first number counts. 0 where none
      is left;
    - `froc`: the mean of `sensitivity:RATE` over `FALSE_ALARMS`;
    - `image_auroc`: of the highest score in an image, 0 without a box, for there being a true one.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], labels: Sequence[str]) -> None:
        """`arrays`: `box_xyxy` [M, 4] and `truth_xyxy` [T, 4] in native pixels, `box_scores` [M] in 0..1,
        `box_image` [M] and `truth_image` [T], whose rows they are, `sizes` [N, 2], a row per image, and under
        the published protocol `kept` [N] bool.

        Raises EmptyClass unless there are images with and without a true box.
        """
        images = len(arrays["sizes"])
        there = np.bincount(arrays["truth_image"], minlength=images) > 0
        require_both_classes(there[:, None].astype(np.int8), labels, "the scored images", "Score more images")
        highest = np.zeros(images)
        np.maximum.at(highest, arrays["box_image"], arrays["box_scores"])
        self._kept = arrays["kept"][:, None] if "kept" in arrays else None
        self._images = Comparison(there.astype(np.int8), highest)
        ranking = _rank(arrays)
        self._precision, self._froc = AveragePrecision(ranking), Froc(ranking)
        self._listed = [int(np.abs(OVERLAPS - overlap).argmin()) for overlap in LISTED]
        self.names = (
            "mean_average_precision",
            *(f"average_precision:{overlap:.2f}" for overlap in LISTED),
            *(["mean_average_precision:skipping"] if self._kept is not None else []),
            "froc",
            *(f"sensitivity:{rate:g}" for rate in FALSE_ALARMS),
            "image_auroc",
        )

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        precision, sensitivity = self._precision(weights), self._froc(weights)
        skipping = []
        if self._kept is not None:
            some = self._precision(weights * self._kept).mean(axis=0)
            skipping = [np.where(np.isnan(some) & ~np.isnan(precision[0]), 0.0, some)[None]]
        return np.concatenate(
            [
                precision.mean(axis=0, keepdims=True),
                precision[self._listed],
                *skipping,
                sensitivity.mean(axis=0, keepdims=True),
                sensitivity,
                self._images.areas(weights)[0][None],
            ]
        )


def mean_average_precision(arrays: Mapping[str, np.ndarray], *, skipping: bool = False) -> float:
    """The first of the above, or with `skipping` that which skips images, of images that all weigh the same;
    NaN without a true box."""
    weights = np.ones(len(arrays["sizes"]))
    if skipping:
        weights = kept(arrays).astype(np.float64)
        if not weights.any() and len(arrays["truth_image"]):
            return 0.0
    return float(AveragePrecision(_rank(arrays))(weights[:, None]).mean())


def kept(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """[N] bool: there is a true box, and a predicted one."""
    images = len(arrays["sizes"])
    true, found = (np.bincount(arrays[f"{name}_image"], minlength=images) > 0 for name in ("truth", "box"))
    return np.asarray(true & found)


def per_image(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """[N] in 0..1: an image's own mean average precision, or without a true box, 1 less its highest score."""
    ranking, images = _rank(arrays), len(arrays["sizes"])
    values = np.ones(images)
    np.minimum.at(values, arrays["box_image"], 1.0 - arrays["box_scores"])
    places, true = _rows(ranking.image, images), _rows(ranking.truth_image, images)
    for image in np.unique(ranking.truth_image):
        here, there = places[image], true[image]
        own = Ranking(
            np.zeros(len(here), int),
            ranking.right[:, here],
            ranking.inside[here],
            np.zeros(len(there), int),
            ranking.hit[there],
        )
        values[image] = AveragePrecision(own)(np.ones((1, 1))).mean()
    return values


class Ranking(NamedTuple):
    """The M predicted boxes of all images from the highest score to the lowest, and what each of them is.
    Equal scores keep the order of their images, as in COCO."""

    image: np.ndarray  # [M]
    right: np.ndarray  # [O, M] bool: matched with a true box at each overlap
    inside: np.ndarray  # [M] bool: its centre lies in a true box
    truth_image: np.ndarray  # [T]
    hit: np.ndarray  # [T] the first place whose centre lies in this true box; M where there is none


def _rank(arrays: Mapping[str, np.ndarray]) -> Ranking:
    order = np.argsort(-arrays["box_scores"], kind="stable")
    image, boxes = arrays["box_image"][order], arrays["box_xyxy"][order].astype(np.float64)
    truth_image, truths = arrays["truth_image"], arrays["truth_xyxy"].astype(np.float64)
    right = np.zeros((len(OVERLAPS), len(boxes)), bool)
    inside = np.zeros(len(boxes), bool)
    hit = np.full(len(truths), len(boxes))
    places, true = _rows(image, len(arrays["sizes"])), _rows(truth_image, len(arrays["sizes"]))
    for here, there in zip(places, true, strict=True):
        if len(here) and len(there):
            right[:, here] = match(intersection_over_union(boxes[here], truths[there]))
            centres = _contains(truths[there], boxes[here])
            inside[here] = centres.any(axis=1)
            hit[there] = np.where(centres.any(axis=0), here[centres.argmax(axis=0)], len(boxes))
    return Ranking(image, right, inside, truth_image, hit)


def _rows(owner: np.ndarray, count: int) -> list[np.ndarray]:
    """Per image, the rows that it owns, in their order."""
    ends = np.cumsum(np.bincount(owner, minlength=count))[:-1]
    return np.split(np.argsort(owner, kind="stable"), ends)


def intersection_over_union(boxes: np.ndarray, truths: np.ndarray) -> np.ndarray:
    """[K, L] of `boxes` [K, 4] and `truths` [L, 4] xyxy; 0 for a box without area."""
    low = np.maximum(boxes[:, None, :2], truths[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], truths[None, :, 2:])
    both = (high - low).clip(min=0).prod(axis=-1)
    area, true_area = ((xyxy[:, 2:] - xyxy[:, :2]).prod(axis=-1) for xyxy in (boxes, truths))
    either = area[:, None] + true_area - both
    return ratio(both, either, nothing=0.0)


def match(overlap: np.ndarray) -> np.ndarray:
    """[O, K] bool: which of K boxes, best first, are right at each of `OVERLAPS`. `overlap` [K, L].

    COCO's rule: each box takes the true one it overlaps most among those that no better box has taken.
    """
    right = np.zeros((len(OVERLAPS), len(overlap)), bool)
    free = np.ones((len(OVERLAPS), overlap.shape[1]), bool)
    for place in np.flatnonzero(overlap.max(axis=1) >= OVERLAPS[0]):
        offered = np.where(free & (overlap[place] >= OVERLAPS[:, None]), overlap[place], -1.0)
        right[:, place] = offered.max(axis=1) >= 0
        taken = np.flatnonzero(right[:, place])
        free[taken, offered[taken].argmax(axis=1)] = False
    return right


def _contains(truths: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """[K, L] bool: whether the centre of each of `boxes` [K, 4] lies in each of `truths` [L, 4], border
    included."""
    centre = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
    return np.asarray(((truths[:, :2] <= centre) & (centre <= truths[:, 2:])).all(axis=-1))


class AveragePrecision:
    """COCO's: the mean over `RECALLS` of the best precision at that recall or a higher one.

    Precision peaks at right boxes, so that only their places are looked at. Of an image of weight w, every
    box and every true box count w times, which is the precision of a set with w copies of it.
    """

    def __init__(self, ranking: Ranking) -> None:
        places = np.flatnonzero(ranking.right.any(axis=0))  # U of M
        self._predicted = Before(ranking.image, places + 1)
        self._image = ranking.image[places]  # [U]
        self._right = ranking.right[:, places]  # [O, U]
        self._truth_image = ranking.truth_image

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """[O, R] at each overlap for R weightings `weights` [N, R]; NaN without the weight of a true box."""
        true = weights.take(self._truth_image, axis=0).sum(axis=0)
        values = np.where(true > 0, np.zeros((len(OVERLAPS), 1)), np.nan)
        predicted = self._predicted(weights)  # [U, R]
        for value, right in zip(values, self._right, strict=True):
            found = np.cumsum(weights.take(self._image[right], axis=0), axis=0)  # [K, R]
            precision = ratio(found, predicted[right], nothing=0.0)
            best = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
            reached = np.searchsorted(RECALLS, ratio(found, true, nothing=0.0), side="right")
            value += (np.diff(reached, axis=0, prepend=0) * best).sum(axis=0) / len(RECALLS)
        return values


class Froc:
    """Sensitivity at given rates of false alarms: what part of the true boxes is hit by the centre of a box
    that ranks before the last false alarm allowed. A box whose centre lies in no true box is one; a second
    hit is none.

    As the challenge's script, but for two things. A hit there is a point inside the object's own shape, an
    ellipse or a polygon, and here one inside its box. And where boxes run out before a rate is reached, the
    script repeats the sensitivity of the last rate that was; here all hits count.
    """

    def __init__(self, ranking: Ranking) -> None:
        false = np.flatnonzero(~ranking.inside)  # F of M
        hit = ranking.hit < len(ranking.image)  # H of T
        self._alarms = Before(ranking.image[false], np.searchsorted(false, ranking.hit[hit]))
        self._hit_image = ranking.truth_image[hit]
        self._truth_image = ranking.truth_image

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        """[A, R] at each of `FALSE_ALARMS`; NaN without the weight of a true box."""
        true = weights.take(self._truth_image, axis=0).sum(axis=0)
        alarms, hits = self._alarms(weights), weights.take(self._hit_image, axis=0)  # [H, R]
        allowed = np.outer(FALSE_ALARMS, weights.sum(axis=0))  # [A, R]
        found = np.stack([(hits * (alarms < limit)).sum(axis=0) for limit in allowed])
        return ratio(found, true)
