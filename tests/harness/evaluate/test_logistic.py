"""The linear probe against scikit-learn, automatic differentiation and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from harness.errors import DataError, EmptyClass, TrainingDiverged
from harness.evaluate import logistic
from harness.evaluate.logistic import Labelled
from harness.metrics.auroc import macro_auroc

LABELS = ("Edema", "Fracture", "Mass")
STRENGTHS = (1e-4, 1e-2, 1.0, 100.0)


def data(n: int, d: int, seed: int = 0, correlated: bool = True) -> tuple[Tensor, np.ndarray]:
    """Features [n, d] as networks give them, few strong directions and many weak ones, and labels [n, 3]."""
    rng = np.random.default_rng(seed)
    hidden = rng.standard_normal((n, d))
    directions = np.random.default_rng(99).standard_normal((d, d)) / np.sqrt(d)
    if correlated:
        hidden = hidden / np.arange(1, d + 1) ** 0.7
    margins = 1.5 * (hidden / hidden.std(axis=0))[:, :3] - 0.5
    labels = (rng.random((n, 3)) < 1 / (1 + np.exp(-margins))).astype(np.int8)
    features = hidden @ directions if correlated else hidden
    return torch.from_numpy(features - features.mean(axis=0)), labels


def objective(w: np.ndarray, b: float, x: np.ndarray, y: np.ndarray, strength: float) -> float:
    return float(strength * np.logaddexp(0, -(2.0 * y - 1) * (x @ w + b)).sum() + w @ w / 2)


SHAPES = pytest.mark.parametrize("n,d", [(30, 300), (120, 100), (600, 25)], ids=["N << D", "N ~ D", "N >> D"])


@SHAPES
def test_objective_is_never_worse_than_that_of_scikit_learn(n: int, d: int) -> None:
    x, y = data(n, d)
    weights, intercepts, _ = logistic.solve(x, y, STRENGTHS)
    for s, strength in enumerate(STRENGTHS):
        for label in range(3):
            theirs = LogisticRegression(C=strength, tol=1e-10, max_iter=100_000).fit(x.numpy(), y[:, label])
            best = objective(theirs.coef_[0], theirs.intercept_[0], x.numpy(), y[:, label], strength)
            w, b = weights[s, :, label].numpy(), float(intercepts[s, label])
            found = objective(w, b, x.numpy(), y[:, label], strength)
            assert found == pytest.approx(best, rel=1e-6)
            assert found <= best * (1 + 1e-9)


@SHAPES
def test_gradient_vanishes_at_the_solution(n: int, d: int) -> None:
    x, y = data(n, d)
    y[::5, 1] = -1
    weights, intercepts, reported = logistic.solve(x, y, STRENGTHS)
    largest = 0.0
    for s, strength in enumerate(STRENGTHS):
        for label in range(3):
            known = torch.from_numpy(y[:, label] >= 0)
            target = torch.from_numpy(y[:, label]).double()[known]
            w = weights[s, :, label].clone().requires_grad_()
            b = intercepts[s, label].clone().requires_grad_()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(
                x[known] @ w + b, target, reduction="sum"
            )
            (strength * loss + w @ w / 2).backward()
            assert w.grad is not None and b.grad is not None
            norm = float(torch.cat((w.grad, b.grad[None])).norm())
            largest = max(largest, norm / (strength * len(target)))
    assert reported <= logistic.TOLERANCE
    assert largest == pytest.approx(reported, abs=1e-11)


def test_coefficients_agree_with_scikit_learn_on_a_well_conditioned_problem() -> None:
    x, y = data(400, 10, correlated=False)
    weights, intercepts, _ = logistic.solve(x, y, (0.1, 1.0))
    for s, strength in enumerate((0.1, 1.0)):
        for label in range(3):
            theirs = LogisticRegression(C=strength, tol=1e-12, solver="newton-cholesky").fit(
                x.numpy(), y[:, label]
            )
            assert weights[s, :, label].numpy() == pytest.approx(theirs.coef_[0], abs=1e-7)
            assert float(intercepts[s, label]) == pytest.approx(theirs.intercept_[0], abs=1e-7)


def badly_conditioned(case: str) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = {
        # L-BFGS does not arrive here, nor does Newton's method if its steps are never halved
        "rare labels": lambda: np.exp(3 * rng.standard_normal((2000, 150))),
        "heavy tails": lambda: rng.standard_cauchy((200, 50)),
        "equal axes": lambda: np.eye(100)[rng.integers(0, 100, 600)],
    }[case]()
    labels = rng.random((len(x), 1)) < (0.005 if case == "rare labels" else 0.3)
    return (x - x.mean(axis=0)) / x.std(axis=0), labels.astype(np.int8)


@pytest.mark.parametrize("case", ["rare labels", "heavy tails", "equal axes"])
def test_badly_conditioned_problems_reach_the_optimum_almost_without_a_penalty(case: str) -> None:
    x, y = badly_conditioned(case)
    weights, intercepts, _ = logistic.solve(torch.from_numpy(x), y, (100.0,))
    theirs = LogisticRegression(C=100, tol=1e-12, max_iter=1000, solver="newton-cholesky").fit(x, y[:, 0])
    best = objective(theirs.coef_[0], theirs.intercept_[0], x, y[:, 0], 100)
    found = objective(weights[0, :, 0].numpy(), float(intercepts[0, 0]), x, y[:, 0], 100)
    assert found == pytest.approx(best, rel=1e-9)
    assert weights[0, :, 0].numpy() == pytest.approx(theirs.coef_[0], rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("strength", [1e-5, 1.0, 1e4])
def test_two_images_have_the_closed_form(strength: float) -> None:
    """x = ±1 with labels 1 and 0: the intercept is 0, and w solves w = 2 C / (1 + e^w)."""
    weights, intercepts, _ = logistic.solve(
        torch.tensor([[1.0], [-1.0]]).double(), np.array([[1], [0]]), (strength,)
    )
    expected = brentq(lambda w: w - 2 * strength / (1 + np.exp(w)), 0, 50, xtol=1e-14)
    assert float(weights) == pytest.approx(expected, rel=1e-6)
    assert float(intercepts) == pytest.approx(0, abs=1e-9)


def test_without_information_the_intercept_is_the_log_odds() -> None:
    y = np.array([[1]] * 3 + [[0]] * 9 + [[-1]] * 4)
    weights, intercepts, _ = logistic.solve(torch.zeros(16, 5).double(), y, STRENGTHS)
    assert not weights.any()
    assert intercepts.flatten().numpy() == pytest.approx(np.log(3 / 9))


def test_unknown_labels_are_as_if_the_images_were_not_there() -> None:
    x, y = data(300, 20)
    y[100:150, 1] = -1
    weights, intercepts, _ = logistic.solve(x, y, (0.1, 10.0))
    known = y[:, 1] >= 0
    alone, intercept, _ = logistic.solve(x[torch.from_numpy(known)], y[known, 1:2], (0.1, 10.0))
    assert weights[:, :, 1].numpy() == pytest.approx(alone[:, :, 0].numpy(), abs=1e-6)
    assert intercepts[:, 1].numpy() == pytest.approx(intercept[:, 0].numpy(), abs=1e-6)


@pytest.mark.parametrize("n", [15, 200])
def test_duplicated_features_share_one_weight(n: int) -> None:
    """Two copies at C fit as one feature of length √2 does: the penalty halves."""
    x, y = data(n, 20)
    weights, intercepts, _ = logistic.solve(torch.cat((x, x), dim=1), y, (0.5, 5.0))
    single, intercept, _ = logistic.solve(x * np.sqrt(2), y, (0.5, 5.0))
    assert weights[:, :20].numpy() == pytest.approx(weights[:, 20:].numpy(), abs=1e-6)
    assert weights[:, :20].numpy() * np.sqrt(2) == pytest.approx(single.numpy(), abs=1e-6)
    assert intercepts.numpy() == pytest.approx(intercept.numpy(), abs=1e-6)


def test_fits_do_not_depend_on_what_is_fitted_beside_them() -> None:
    x, y = data(150, 40)
    together, _, _ = logistic.solve(x, y, STRENGTHS)
    for s, strength in enumerate(STRENGTHS):
        alone, _, _ = logistic.solve(x, y[:, 2:], (strength,))
        assert together[s, :, 2].numpy() == pytest.approx(alone[0, :, 0].numpy(), rel=1e-4, abs=1e-6)


# --- the probe ------------------------------------------------------------------------------------


def parts(n: int = 200, d: int = 30) -> tuple[Labelled, Labelled]:
    x, y = data(n + 300, d)
    x = (x * 7 + 100).float()
    return Labelled(x[:n], y[:n]), Labelled(x[n:], y[n:])


def test_scores_are_those_of_a_scikit_learn_pipeline() -> None:
    train, validation = parts()
    probe = logistic.fit(train, validation, LABELS)
    scores = probe.scores(validation.features)
    assert scores.dtype == np.float64 and scores.shape == (300, 3)
    for label in range(3):
        pipeline = make_pipeline(
            StandardScaler(), LogisticRegression(C=probe.strength, tol=1e-10, max_iter=10_000)
        )
        pipeline.fit(train.features.double().numpy(), train.labels[:, label])
        theirs = pipeline.decision_function(validation.features.double().numpy())
        assert scores[:, label] == pytest.approx(theirs, abs=1e-4)


def test_the_strength_is_the_best_on_validation() -> None:
    train, validation = parts()
    probe = logistic.fit(train, validation, LABELS)
    assert probe.grid == logistic.GRID and len(probe.validation) == len(probe.grid)
    for strength, value in zip(probe.grid, probe.validation, strict=True):
        alone = logistic.fit(train, validation, LABELS, grid=(strength,))
        auroc = macro_auroc(validation.labels, alone.scores(validation.features), LABELS)
        assert value == pytest.approx(auroc, abs=1e-4)
    assert probe.validation[probe.grid.index(probe.strength)] == max(probe.validation)
    assert len(set(probe.validation)) > 1


def test_of_equal_strengths_the_strongest_penalty_wins_whatever_the_order() -> None:
    y = np.arange(20)[:, None] % 2
    part = Labelled(torch.from_numpy(y * 2.0 - 1), y)
    probe = logistic.fit(part, part, ("Edema",), grid=(10.0, 0.1, 1.0))
    assert probe.validation == (1.0, 1.0, 1.0)
    assert (probe.strength, probe.grid) == (0.1, (0.1, 1.0, 10.0))


def test_units_and_offsets_of_features_do_not_matter_and_inputs_stay_untouched() -> None:
    train, validation = parts()
    train = Labelled(train.features.double(), train.labels)
    before = train.features.clone()
    probe = logistic.fit(train, validation, LABELS)
    assert torch.equal(train.features, before)
    factor = torch.logspace(-3, 3, 30, dtype=torch.float64)
    scaled = logistic.fit(
        Labelled(train.features * factor + 5, train.labels),
        Labelled(validation.features * factor + 5, validation.labels),
        LABELS,
    )
    scores = scaled.scores(validation.features * factor + 5)
    assert scores == pytest.approx(probe.scores(validation.features), abs=1e-5)


@pytest.mark.parametrize("n", [20, 200])
def test_a_constant_feature_changes_nothing(n: int) -> None:
    train, validation = parts(n)

    def padded(part: Labelled) -> Labelled:
        return Labelled(
            torch.cat((part.features, torch.full((len(part.features), 2), 0.1)), dim=1), part.labels
        )

    plain = logistic.fit(train, validation, LABELS)
    found = logistic.fit(padded(train), padded(validation), LABELS)
    assert found.strength == plain.strength
    assert found.scores(padded(validation).features) == pytest.approx(
        plain.scores(validation.features), abs=1e-5
    )


def test_one_class_is_refused_with_its_label_and_cure() -> None:
    train, validation = parts()
    short = train.labels.copy()
    short[:, 1] = np.where(short[:, 1] == 1, -1, 0)
    with pytest.raises(EmptyClass, match=r"'Fracture' has no positive among the training .* another seed"):
        logistic.fit(Labelled(train.features, short), validation, LABELS)
    short = validation.labels.copy()
    short[:, 2] = 1
    with pytest.raises(EmptyClass, match=r"'Mass' has no negative among the validation .* validation share"):
        logistic.fit(train, Labelled(validation.features, short), LABELS)


def test_broken_features_and_labels_are_refused() -> None:
    train, validation = parts()
    broken = train.features.clone()
    broken[17, 3] = torch.nan
    with pytest.raises(DataError, match="row 17 of the training images"):
        logistic.fit(Labelled(broken, train.labels), validation, LABELS)
    with pytest.raises(DataError, match="not 2"):
        logistic.fit(Labelled(train.features, train.labels + 1), validation, LABELS)


def test_a_fit_short_of_its_optimum_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logistic, "STEPS", 3)
    with pytest.raises(TrainingDiverged, match=r"of 24 linear probes .* after 3 steps"):
        logistic.fit(*parts(), LABELS)
