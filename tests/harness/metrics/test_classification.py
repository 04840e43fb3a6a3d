"""Metrics of classification against scikit-learn, torchmetrics and closed forms."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from sklearn import metrics as theirs
from torchmetrics.functional.classification import binary_calibration_error

from harness.errors import DataError, EmptyClass
from harness.metrics.classification import Classification, accuracy, operating_points

LABELS = ("Edema", "Fracture", "Mass")


def data(n: int = 400, seed: int = 0, *, ties: bool = True, unknown: bool = True) -> dict[str, np.ndarray]:
    """Three labels, a fifth of the truths unknown; of `ties`, scores take some twenty values."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((n, 3)) < (0.5, 0.3, 0.1)).astype(np.int8)
    scores = (rng.standard_normal((n, 3)) + truth).astype(np.float32)
    if ties:
        scores = np.round(scores * 4) / 4
    if unknown:
        truth[rng.random((n, 3)) < 0.2] = -1
    return {
        "truth": truth,
        "scores": scores,
        "decisions": (scores >= 0.5).astype(np.int8),
        "probabilities": 1 / (1 + np.exp(0.3 - scores)),
    }


def classes(n: int = 400, seed: int = 0) -> dict[str, np.ndarray]:
    """Each image of one of three classes."""
    rng = np.random.default_rng(seed)
    truth = np.eye(3, dtype=np.int8)[rng.choice(3, n, p=(0.6, 0.3, 0.1))]
    scores = (rng.standard_normal((n, 3)) + truth).astype(np.float32)
    return {"truth": truth, "scores": scores, "decisions": scores.argmax(axis=1).astype(np.int8)}


def measured(arrays: Mapping[str, np.ndarray], weights: np.ndarray | None = None) -> dict[str, float]:
    score = Classification(arrays, LABELS)
    weights = np.ones(len(arrays["truth"])) if weights is None else weights
    return dict(zip(score.names, score(weights[:, None])[:, 0].tolist(), strict=True))


def expected(arrays: Mapping[str, np.ndarray], column: int, weights: np.ndarray) -> dict[str, float]:
    """What the other libraries say of one label; torchmetrics knows no weights and sees rows repeated."""
    known = arrays["truth"][:, column] >= 0
    truth, scores, decisions, probabilities = (
        arrays[name][known, column] for name in ("truth", "scores", "decisions", "probabilities")
    )
    weight = weights[known]
    times = weight.astype(int)
    tensors = torch.from_numpy(probabilities.repeat(times)).double(), torch.from_numpy(truth.repeat(times))
    return {
        "auroc": theirs.roc_auc_score(truth, scores, sample_weight=weight),
        "average_precision": theirs.average_precision_score(truth, scores, sample_weight=weight),
        "accuracy": theirs.accuracy_score(truth, decisions, sample_weight=weight),
        "balanced_accuracy": theirs.balanced_accuracy_score(truth, decisions, sample_weight=weight),
        "sensitivity": theirs.recall_score(truth, decisions, sample_weight=weight),
        "specificity": theirs.recall_score(truth, decisions, pos_label=0, sample_weight=weight),
        "brier": theirs.brier_score_loss(truth, probabilities, sample_weight=weight),
        "calibration_error": float(binary_calibration_error(*tensors, n_bins=15)),
    }


@pytest.mark.slow
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_every_label_agrees_with_scikit_learn_and_torchmetrics(ties: bool, weighted: bool) -> None:
    for seed in range(5):
        arrays = data(seed=seed, ties=ties)
        weights = np.random.default_rng(seed).integers(0, 4, 400).astype(float)
        weights = weights if weighted else np.ones(400)
        found = measured(arrays, weights)
        per_label = [expected(arrays, column, weights) for column in range(3)]
        for label, values in zip(LABELS, per_label, strict=True):
            for name in values.keys() - {"accuracy", "balanced_accuracy"}:
                assert found[f"{name}:{label}"] == pytest.approx(values[name], abs=1e-6), (name, label)
        means = {name: np.mean([values[name] for values in per_label]) for name in per_label[0]}
        for name in ("auroc", "average_precision", "brier", "calibration_error"):
            assert found[f"macro_{name}"] == pytest.approx(means[name], abs=1e-6)
        for name in ("accuracy", "balanced_accuracy"):
            assert found[name] == pytest.approx(means[name], abs=1e-12)


@pytest.mark.parametrize("arrays", [data(), classes()], ids=["labels", "classes"])
def test_whole_weights_equal_repeated_images(arrays: dict[str, np.ndarray]) -> None:
    times = np.random.default_rng(1).integers(0, 4, 400)
    repeated = {name: array.repeat(times, axis=0) for name, array in arrays.items()}
    weighted = measured(arrays, times.astype(float))
    assert weighted == pytest.approx(measured(repeated), abs=1e-12)


@pytest.mark.parametrize("arrays", [data(), classes()], ids=["labels", "classes"])
def test_many_weightings_are_each_as_alone(arrays: dict[str, np.ndarray]) -> None:
    weights = np.random.default_rng(1).exponential(size=(400, 7))
    score = Classification(arrays, LABELS)
    together = score(weights)
    assert together.shape == (len(score.names), 7)
    for column in range(7):
        alone = measured(arrays, weights[:, column])
        assert together[:, column] == pytest.approx(list(alone.values()), abs=1e-12)


def test_accuracies_of_an_exclusive_task_agree_with_scikit_learn() -> None:
    arrays = classes()
    weights = np.random.default_rng(1).integers(0, 4, 400).astype(float)
    truth, decided = arrays["truth"].argmax(axis=1), arrays["scores"].argmax(axis=1)
    found = measured(arrays, weights)
    assert found["accuracy"] == pytest.approx(theirs.accuracy_score(truth, decided, sample_weight=weights))
    assert accuracy(arrays["truth"], arrays["scores"], LABELS) == theirs.accuracy_score(truth, decided)
    balanced = theirs.balanced_accuracy_score(truth, decided, sample_weight=weights)
    assert found["balanced_accuracy"] == pytest.approx(balanced)
    recalls = theirs.recall_score(truth, decided, average=None, sample_weight=weights)
    assert [found[f"sensitivity:{label}"] for label in LABELS] == pytest.approx(recalls)
    for column, label in enumerate(LABELS):
        rest = theirs.recall_score(truth != column, decided != column, sample_weight=weights)
        assert found[f"specificity:{label}"] == pytest.approx(rest)


def test_an_oracle_is_perfect_and_a_constant_knows_the_prevalence() -> None:
    truth = np.repeat(np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1]], np.int8), (5, 3, 2), axis=0)
    prevalence = {"Edema": 0.5, "Fracture": 0.3, "Mass": 0.2}
    oracle = {"truth": truth, "scores": truth, "decisions": truth, "probabilities": truth}
    for decisions in (truth, truth.argmax(axis=1)):
        for name, value in measured({**oracle, "decisions": decisions}).items():
            assert value == (0 if "brier" in name or "calibration" in name else 1), name
    constant = {**oracle, "scores": np.zeros((10, 3)), "probabilities": np.full((10, 3), 0.25)}
    found = measured({**constant, "decisions": np.ones((10, 3), np.int8)})
    for label, share in prevalence.items():
        assert found[f"auroc:{label}"] == 0.5
        assert found[f"average_precision:{label}"] == pytest.approx(share)
        assert (found[f"sensitivity:{label}"], found[f"specificity:{label}"]) == (1, 0)
        assert found[f"brier:{label}"] == pytest.approx(share * 0.75**2 + (1 - share) * 0.25**2)
        assert found[f"calibration_error:{label}"] == pytest.approx(abs(share - 0.25))
    assert found["accuracy"] == pytest.approx(1 / 3) and found["balanced_accuracy"] == 0.5
    found = measured({**constant, "decisions": np.zeros(10, np.int8)})  # Edema throughout
    assert found["accuracy"] == 0.5 and found["balanced_accuracy"] == pytest.approx(1 / 3)


def test_no_number_for_what_was_not_stored() -> None:
    arrays = data()
    ranks = {f"{name}:{label}" for name in ("auroc", "average_precision") for label in LABELS}
    ranks |= {"macro_auroc", "macro_average_precision"}
    only = {name: arrays[name] for name in ("truth", "scores")}
    assert measured(only).keys() == ranks
    decided = measured({**only, "decisions": arrays["decisions"]}).keys() - ranks
    assert {name.split(":")[0] for name in decided} == {
        "accuracy",
        "balanced_accuracy",
        "sensitivity",
        "specificity",
    }
    calibrated = measured({**only, "probabilities": arrays["probabilities"]}).keys() - ranks
    assert {name.split(":")[0].removeprefix("macro_") for name in calibrated} == {
        "brier",
        "calibration_error",
    }


def test_a_replicate_without_a_class_is_undefined() -> None:
    arrays = classes()
    weights = (arrays["truth"][:, 2] == 0).astype(float)  # nobody with a mass
    found = measured(arrays, weights)
    undefined = {name for name, value in found.items() if np.isnan(value)}
    assert undefined == {
        *("macro_auroc", "auroc:Mass", "macro_average_precision", "average_precision:Mass"),
        *("balanced_accuracy", "sensitivity:Mass"),
    }


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"truth": np.zeros((400, 3), np.int8)}, EmptyClass, "'Mass' has no positive"),
        ({"decisions": np.full((400, 3), 2)}, DataError, "decisions are 1 or 0, not 2"),
        ({"probabilities": np.full((400, 3), 1.5)}, DataError, r"0\.\.1, not 1.5"),
        ({"probabilities": np.full((400, 3), np.nan)}, DataError, r"0\.\.1, not nan"),
        ({"scores": np.full((400, 3), np.nan)}, DataError, "row 0 is NaN"),
        (
            {"decisions": np.zeros(400)},
            DataError,
            r"images \(n = 400\) are not of one class out of Edema, Fra",
        ),
        ({**classes(), "decisions": np.full(400, 3)}, DataError, "decisions are places of labels, not 3"),
    ],
)
def test_nonsense_is_refused(change: dict[str, np.ndarray], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Classification({**data(), **change}, LABELS)


# --- the operating point -----------------------------------------------------------------------------


@pytest.mark.parametrize("ties", [False, True])
def test_no_threshold_of_the_roc_curve_has_a_larger_youden_index(ties: bool) -> None:
    for seed in range(5):
        arrays = data(seed=seed, ties=ties)
        points = operating_points(arrays["truth"], arrays["scores"])
        for column, point in enumerate(points):
            known = arrays["truth"][:, column] >= 0
            truth, scores = arrays["truth"][known, column], arrays["scores"][known, column]
            wrong, right, _ = theirs.roc_curve(truth, scores, drop_intermediate=False)
            found = (scores >= point)[truth == 1].mean() - (scores >= point)[truth == 0].mean()
            assert found == pytest.approx((right - wrong).max(), abs=1e-12)
            assert point not in scores or len(np.unique(scores)) == 1


def test_a_threshold_lies_between_neighbours_of_float32() -> None:
    scores = np.array([[1.0], [1.0], [np.nextafter(np.float32(1), np.float32(2))]] * 2, np.float32)
    truth = (scores > 1).astype(int)
    assert np.array_equal(scores >= operating_points(truth, scores), truth)


def test_a_threshold_lies_halfway_and_of_equals_is_the_most_sensitive() -> None:
    truth = np.array([0, 0, 1, 0, 1, -1])
    scores = np.array([0.0, 1.0, 2.0, 4.0, 6.0, 1.5])
    # from 2 on, both positives are found and 2 of 3 negatives spared; from 6 on, half and all of them
    assert operating_points(truth[:, None], scores[:, None]).tolist() == [1.5]
    assert operating_points(np.array([[0], [1], [0], [1]]), np.array([[0], [1], [2], [3]])).tolist() == [0.5]
    assert operating_points(np.array([[0], [1]]), np.zeros((2, 1))).tolist() == [0]
