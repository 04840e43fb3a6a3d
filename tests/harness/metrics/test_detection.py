"""Average precision against pycocotools through torchmetrics, FROC against a plain loop, and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torchmetrics.detection import MeanAveragePrecision

from harness.errors import EmptyClass
from harness.metrics import detection
from harness.metrics.detection import FALSE_ALARMS, OVERLAPS, Detections

LABELS = ("Opacity",)
Arrays = dict[str, np.ndarray]


def case(seed: int, images: int = 30, skill: float = 0.7) -> Arrays:
    """Images with 0 to 4 true boxes; predictions are shifted true ones and inventions. Some images have
    neither, some only one of the two; the first has truth, the second has none."""
    rng = np.random.default_rng(seed)
    found, scores, owner, truths, truth_owner = [], [], [], [], []
    for image in range(images):
        count = 1 if image == 0 else 0 if image == 1 else rng.integers(0, 5)
        true = _boxes(rng, count)
        seen = true[rng.random(count) < skill]
        shifted = seen + rng.uniform(-7, 7, size=seen.shape)
        again = shifted[rng.random(len(shifted)) < 0.3] + 1
        boxes = np.concatenate([shifted, again, _boxes(rng, rng.integers(0, 4))])
        found.append(boxes)
        scores.append(rng.random(len(boxes)))
        owner.append(np.full(len(boxes), image))
        truths.append(true)
        truth_owner.append(np.full(count, image))
    return {
        "sizes": np.full((images, 2), 200, np.int32),
        "box_xyxy": np.concatenate(found).astype(np.float32),
        "box_scores": np.concatenate(scores).astype(np.float32),
        "box_image": np.concatenate(owner).astype(np.int32),
        "truth_xyxy": np.concatenate(truths).astype(np.float32),
        "truth_image": np.concatenate(truth_owner).astype(np.int32),
    }


def _boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    corner, size = rng.uniform(0, 150, (count, 2)), rng.uniform(15, 50, (count, 2))
    return np.concatenate([corner, corner + size], axis=1)


def repeated(arrays: Arrays, times: np.ndarray) -> Arrays:
    """The set in which image i occurs `times[i]` times."""
    sources = np.repeat(np.arange(len(times)), times)
    out: Arrays = {"sizes": arrays["sizes"][sources]}
    for owner, names in (
        ("box_image", ("box_xyxy", "box_scores")),
        ("truth_image", ("truth_xyxy",)),
    ):
        rows = [np.flatnonzero(arrays[owner] == source) for source in sources]
        out[owner] = np.repeat(np.arange(len(sources)), [len(row) for row in rows])
        out |= {name: arrays[name][np.concatenate(rows)] for name in names}
    return out


def coco(arrays: Arrays, kept: np.ndarray | None = None) -> list[float]:
    """Average precision at each overlap, by torchmetrics and pycocotools."""
    referee = MeanAveragePrecision(
        iou_thresholds=OVERLAPS.tolist(),
        rec_thresholds=np.linspace(0, 1, 101).tolist(),
        extended_summary=True,
    )
    predicted, true = [], []
    for image in np.arange(len(arrays["sizes"])) if kept is None else kept:
        own, there = arrays["box_image"] == image, arrays["truth_image"] == image
        boxes, truths = torch.tensor(arrays["box_xyxy"][own]), torch.tensor(arrays["truth_xyxy"][there])
        scores = torch.tensor(arrays["box_scores"][own])
        labels = torch.zeros(len(boxes), dtype=torch.int64)
        predicted.append({"boxes": boxes, "scores": scores, "labels": labels})
        true.append({"boxes": truths, "labels": torch.zeros(len(truths), dtype=torch.int64)})
    referee.update(predicted, true)
    precision = referee.compute()["precision"]  # [overlaps, recalls, classes, areas, most boxes of an image]
    return [float(value) for value in precision[:, :, 0, 0, -1].mean(dim=1)]


def scored(arrays: Arrays, weights: np.ndarray | None = None) -> dict[str, float]:
    score = Detections(arrays, LABELS)
    weights = np.ones(len(arrays["sizes"])) if weights is None else weights
    return dict(zip(score.names, score(weights[:, None].astype(float))[:, 0].tolist(), strict=True))


# --- average precision --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_precision_agrees_with_coco(seed: int) -> None:
    arrays = case(seed, skill=(0.3, 0.7, 1.0)[seed % 3])
    found, expected = scored(arrays), coco(arrays)
    assert found["mean_average_precision"] == pytest.approx(np.mean(expected), abs=1e-6)
    for overlap in detection.LISTED:
        at = expected[int(np.abs(OVERLAPS - overlap).argmin())]
        assert found[f"average_precision:{overlap:.2f}"] == pytest.approx(at, abs=1e-6)


def test_the_skipping_rule_is_coco_on_the_images_that_have_both() -> None:
    arrays = case(7)
    kept = np.intersect1d(arrays["box_image"], arrays["truth_image"])
    assert 0 < len(kept) < 30
    assert "mean_average_precision:skipping" not in scored(arrays)  # nobody skipped anything
    found = scored(arrays | {"kept": detection.kept(arrays)})
    expected = np.mean(coco(arrays, kept))
    assert found["mean_average_precision:skipping"] == pytest.approx(expected, abs=1e-6)
    assert found["mean_average_precision:skipping"] > found["mean_average_precision"]


@pytest.mark.parametrize("seed", range(4))
def test_whole_weights_equal_repeated_images(seed: int) -> None:
    arrays = case(seed)
    times = np.random.default_rng(seed).integers(0, 4, 30)
    times[:2] = 1
    found, copies = scored(arrays, times), repeated(arrays, times)
    assert found == pytest.approx(scored(copies), abs=1e-12)
    assert found["mean_average_precision"] == pytest.approx(np.mean(coco(copies)), abs=1e-6)


def test_a_block_of_weights_is_its_columns_one_by_one() -> None:
    arrays = case(3)
    weights = np.random.default_rng(0).integers(0, 3, (30, 50)).astype(float)
    weights[:2] = 1
    block = Detections(arrays, LABELS)(weights)
    assert block.shape[1] == 50 and not np.isnan(block).any()
    for column in range(50):
        single = list(scored(arrays, weights[:, column]).values())
        np.testing.assert_allclose(block[:, column], single, rtol=1e-12)


def test_three_boxes_by_hand() -> None:
    """Right, false, right, of two true boxes: precision 1 up to recall 1/2, 2/3 beyond, which is 51 and 50
    of the 101 recalls."""
    true = np.array([[0, 0, 10, 10], [50, 50, 60, 60]], np.float32)
    arrays = {
        "sizes": np.array([[99, 99], [99, 99]]),
        "box_xyxy": np.array([[0, 0, 10, 10], [0, 0, 10, 10], [50, 50, 60, 60]], np.float32),
        "box_scores": np.array([0.9, 0.8, 0.7], np.float32),
        "box_image": np.array([0, 1, 0]),
        "truth_xyxy": true,
        "truth_image": np.array([0, 0]),
        "kept": np.array([True, False]),
    }
    found = scored(arrays)
    assert found["mean_average_precision"] == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert found["mean_average_precision:skipping"] == 1  # the image without truth is not looked at
    assert found["sensitivity:0.5"] == 0.5  # the second hit comes after the one false alarm of two images
    assert found["sensitivity:1"] == 1
    assert found["image_auroc"] == 1


def test_an_oracle_gets_one_and_silence_nothing() -> None:
    arrays = case(1)
    oracle = {
        **arrays,
        "box_xyxy": arrays["truth_xyxy"],
        "box_image": arrays["truth_image"],
        "box_scores": np.ones(len(arrays["truth_image"]), np.float32),
    }
    assert set(scored(oracle).values()) == {1.0}
    silent = {
        **arrays,
        "box_xyxy": np.empty((0, 4), np.float32),
        "box_image": np.empty(0, np.int32),
        "box_scores": np.empty(0, np.float32),
    }
    found = scored(silent)
    assert found.pop("image_auroc") == 0.5
    assert set(found.values()) == {0.0}


def test_a_better_box_is_served_first_and_a_true_one_only_once() -> None:
    overlap = np.array([[0.6, 0.5], [0.9, 0.0], [0.0, 0.55]])
    right = detection.match(overlap)
    at = {f"{value:.2f}": row.tolist() for value, row in zip(OVERLAPS, right, strict=True)}
    assert at["0.40"] == [True, False, True]  # the first took what the second overlaps better
    assert at["0.60"] == [True, False, False]
    assert at["0.65"] == [False, True, False]


def test_an_image_by_itself_is_a_set_of_one() -> None:
    arrays = case(2)
    found = detection.per_image(arrays)
    for image, value in enumerate(found):
        if (arrays["truth_image"] == image).any():
            expected = np.mean(coco(arrays, np.array([image])))
        else:
            expected = 1 - arrays["box_scores"][arrays["box_image"] == image].max(initial=0)
        assert value == pytest.approx(expected, abs=1e-6)


# --- FROC and images ----------------------------------------------------------------------------------


def froc_by_hand(arrays: Arrays) -> list[float]:
    """Boxes one after the other, until the false alarms of a rate are used up."""
    hit: set[int] = set()
    rates, values, false = list(FALSE_ALARMS), [], 0
    for place in np.argsort(-arrays["box_scores"], kind="stable"):
        x0, y0, x1, y1 = arrays["box_xyxy"][place].astype(float)
        x, y = (x0 + x1) / 2, (y0 + y1) / 2
        here = [
            number
            for number, (left, top, right, bottom) in enumerate(arrays["truth_xyxy"].astype(float))
            if arrays["truth_image"][number] == arrays["box_image"][place]
            and left <= x <= right
            and top <= y <= bottom
        ]
        hit.update(here)
        false += not here
        while rates and false >= rates[0] * len(arrays["sizes"]):
            values.append(len(hit) / len(arrays["truth_xyxy"]))
            rates.pop(0)
    return values + [len(hit) / len(arrays["truth_xyxy"])] * len(rates)


@pytest.mark.parametrize("seed", range(5))
def test_froc_agrees_with_the_plain_loop(seed: int) -> None:
    arrays = case(seed, images=24)  # 24 / 8 is whole: a limit that is met exactly
    found, expected = scored(arrays), froc_by_hand(arrays)
    assert [found[f"sensitivity:{rate:g}"] for rate in FALSE_ALARMS] == pytest.approx(expected)
    assert found["froc"] == pytest.approx(np.mean(expected))
    assert expected[0] < expected[-1] < 1


def test_image_auroc_is_that_of_the_highest_score() -> None:
    arrays = case(5)
    highest = [arrays["box_scores"][arrays["box_image"] == image].max(initial=0) for image in range(30)]
    there = np.isin(np.arange(30), arrays["truth_image"])
    assert scored(arrays)["image_auroc"] == pytest.approx(roc_auc_score(there, highest))


# --- what is undefined --------------------------------------------------------------------------------


def test_one_kind_of_images_is_refused() -> None:
    arrays = case(0)
    full = repeated(arrays, np.isin(np.arange(30), arrays["truth_image"]).astype(int))
    with pytest.raises(EmptyClass, match="'Opacity' has no negative among the scored images"):
        Detections(full, LABELS)
    empty = {**arrays, "truth_xyxy": np.empty((0, 4)), "truth_image": np.empty(0, int)}
    with pytest.raises(EmptyClass, match="'Opacity' has no positive"):
        Detections(empty, LABELS)


def test_a_resample_without_a_true_box_has_no_number() -> None:
    arrays = case(0)
    without = (~np.isin(np.arange(30), arrays["truth_image"])).astype(float)
    assert all(np.isnan(value) for value in scored(arrays, without).values())
