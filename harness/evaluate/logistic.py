"""The linear probe: logistic regression on frozen features, its one strength chosen on validation.

Apart because it is the instrument that encoders are compared with: it reaches the optimum or says that it
did not, and it is never handed a test split. Objective per label, as in scikit-learn:

    C · Σ_i log(1 + exp(-s_i (w·x_i + b))) + ½ ‖w‖²        s_i = ±1, images of unknown label left out

All strengths and labels are fitted at once. Features are first rotated to their principal axes, where the
Hessian is nearly diagonal and w has at most N coordinates; there, a truncated Newton's method (line search
Newton-CG: Nocedal & Wright 2006, algorithm 7.1) takes some 15 steps. Each is found by conjugate gradients,
preconditioned by about that diagonal, in single precision, as a step need only be roughly right; the
gradient, which says where the optimum is, is in double.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from harness.device import one_thread
from harness.errors import DataError, TrainingDiverged
from harness.metrics.auroc import macro_auroc, require_both_classes

GRID = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)
"""Inverse strengths C of the penalty: from almost fully shrunk weights to almost free ones, for 40 images and
for 200,000 alike. The penalty is weighed against the sum of the losses, not their mean."""

TOLERANCE = 1e-9  # of the gradient's norm per image and unit of C
STEPS = 200  # some 15 are needed, 36 with Cauchy-tailed features at C = 100, 82 at C = 10,000
PRODUCTS = 200  # with the Hessian, of a step; where more would be needed, the next step goes on
HALVINGS = 40  # of a step
ROUNDING = 1e-12  # relative, of the objective
SMALL = 2**22  # numbers in the training features; fitted by one thread of the CPU, as its steps are tiny


Metric = Callable[[np.ndarray, np.ndarray, Sequence[str]], float]


class Labelled(NamedTuple):
    features: Tensor  # [N, D]
    labels: np.ndarray  # [N, L] 1, 0 or -1 for unknown


@dataclass(frozen=True)
class Probe:
    strength: float  # the chosen C
    grid: tuple[float, ...]
    validation: tuple[float, ...]  # the metric on validation, one per grid value
    weights: Tensor  # [D, L] float64, for features as they come
    intercepts: Tensor  # [L]

    def scores(self, features: Tensor) -> np.ndarray:
        """[N, L] float64 log-odds of `features` [N, D]."""
        scores: np.ndarray = (features.to(self.weights) @ self.weights + self.intercepts).cpu().numpy()
        return scores


def fit(
    train: Labelled,
    validation: Labelled,
    labels: Sequence[str],
    *,
    grid: Sequence[float] = GRID,
    metric: Metric = macro_auroc,
) -> Probe:
    """A probe for the L `labels` with the strength that has the best `metric` (of truth, scores and labels)
    on `validation`; of equals, the strongest penalty. Computed on the device of the training features, or on
    the CPU where they are few, to a gradient that vanishes in float64.

    Raises EmptyClass when a label has one class only in either part, DataError for features that are not
    finite, TrainingDiverged when a fit does not reach its optimum.
    """
    for part, name, cure in (
        (train, "the training images", "Use a larger fraction or another seed"),
        (validation, "the validation images", "Use a larger validation share"),
    ):
        require_both_classes(part.labels, labels, name, cure)
        finite = torch.isfinite(part.features).all(dim=1)
        if not finite.all():
            row = int((~finite).nonzero()[0])
            raise DataError(
                f"the features of row {row} of {name} are not finite. Check the checkpoint's weights"
            )
    grid = tuple(sorted(grid))  # so that the first of equals has the strongest penalty
    features = train.features.to(torch.float64, copy=True)
    mean, scale = features.mean(dim=0), features.std(dim=0, correction=0)
    scale[features.amax(dim=0) == features.amin(dim=0)] = 1  # constant: its weight becomes zero
    weights, intercepts, _ = solve(features.sub_(mean).div_(scale), train.labels, grid)
    weights = weights / scale[:, None]
    intercepts = intercepts - mean @ weights
    scores = validation.features.to(weights) @ weights + intercepts[:, None]  # [S, N, L]
    values = tuple(metric(validation.labels, table, labels) for table in scores.cpu().numpy())
    best = int(np.argmax(values))
    return Probe(grid[best], grid, values, weights[best], intercepts[best])


def solve(features: Tensor, truth: np.ndarray, strengths: Sequence[float]) -> tuple[Tensor, Tensor, float]:
    """Optimal weights [S, D, L], intercepts [S, L], and the largest relative gradient left.

    `features` [N, D] float64, `truth` [N, L] 1, 0 or -1 for unknown, `strengths` S values of C. The objective
    is strictly convex, so a vanishing gradient is the one optimum. Every label has both classes. Raises
    TrainingDiverged when `TOLERANCE` is not reached.
    """
    if features.numel() > SMALL:
        return _solve(features, truth, strengths)
    with one_thread():
        weights, intercepts, gradient = _solve(features.cpu(), truth, strengths)
    return weights.to(features.device), intercepts.to(features.device), gradient


@torch.inference_mode()  # the steps are so small that what autograd keeps of each counts
def _solve(features: Tensor, truth: np.ndarray, strengths: Sequence[float]) -> tuple[Tensor, Tensor, float]:
    z, axes = _principal_axes(features)
    sign = torch.as_tensor(np.where(truth == -1, 0, 2 * truth.astype(np.int64) - 1).T.copy()).to(z)
    penalty = z.new_ones(z.shape[1])
    penalty[-1] = 0
    single = z.float()
    problem = _Problem(
        z=z,
        single=single,
        mean_squares=torch.linalg.vector_norm(single, dim=0) ** 2 / len(z),  # without a copy of z
        penalty=penalty,
        sign=sign.repeat(len(strengths), 1),
        known=sign.abs().sum(dim=1).repeat(len(strengths)),
        strength=z.new_tensor(strengths).repeat_interleave(len(sign)),
    )
    solution, gradient = _minimise(problem)
    weights, intercepts = solution[:, :-1].T, solution[:, -1]  # [r, K], [K]
    for matrix in axes:
        weights = matrix @ weights
    shape = len(strengths), len(sign)
    return weights.reshape(-1, *shape).movedim(1, 0), intercepts.reshape(shape), gradient


def _principal_axes(features: Tensor) -> tuple[Tensor, list[Tensor]]:
    """z [N, r + 1] and the orthonormal axes [D, r] as matrices to apply in turn: features = z[:, :r] axes^T.

    The last column of z is ones, for the intercept; the others are orthogonal. r is the smaller of N and D.
    QR first where N < D: unlike the eigenvectors of the N x N Gram matrix it keeps small directions exactly
    orthonormal, so that ‖w‖ is the norm it was."""
    n, d = features.shape
    bases = []
    if n < d:
        base, triangle = torch.linalg.qr(features.T)
        features = triangle.T
        bases.append(base)
    _, rotation = torch.linalg.eigh(features.T @ features)
    z = features.new_ones(len(features), len(rotation) + 1)
    torch.mm(features, rotation, out=z[:, :-1])
    return z, [rotation, *bases]


class _Problem(NamedTuple):
    """K independent fits on the same rows. A solution is [K, r + 1]: weights, and the intercept last."""

    z: Tensor  # [N, r + 1]
    single: Tensor  # [N, r + 1] z in single precision
    mean_squares: Tensor  # [r + 1] of its columns
    penalty: Tensor  # [r + 1] 1, but 0 for the intercept
    sign: Tensor  # [K, N] 1, -1, or 0 for unknown, which makes the loss a constant
    known: Tensor  # [K] images of known label
    strength: Tensor  # [K]

    def keep(self, rows: Tensor) -> _Problem:
        return self._replace(sign=self.sign[rows], strength=self.strength[rows], known=self.known[rows])

    def start(self) -> _Point:
        """No weights, and the log-odds of the label as intercept."""
        positives, negatives = (self.sign > 0).sum(dim=1), (self.sign < 0).sum(dim=1)
        w = self.z.new_zeros(len(self.sign), len(self.penalty))
        w[:, -1] = (positives / negatives).log()
        margins = self.margins(w)
        return self.at(w, margins, self.objective(w, margins))

    def margins(self, w: Tensor) -> Tensor:
        """[K, N] positive where the label is right, 0 where it is unknown."""
        return self.sign * (w @ self.z.T)

    def objective(self, w: Tensor, margins: Tensor) -> Tensor:
        """[K]"""
        loss = -logsigmoid(margins).sum(dim=1)
        return self.strength * loss + (w * w) @ self.penalty / 2

    def at(self, w: Tensor, margins: Tensor, objective: Tensor) -> _Point:
        wrong = self.sign * torch.sigmoid(-margins)  # the probability of what the label is not, signed
        gradient = torch.addcmul(self.penalty * w, self.strength[:, None], wrong @ self.z, value=-1)
        uncertainty = (self.strength[:, None] * wrong * (self.sign - wrong)).float()
        return _Point(w, margins, objective, gradient, uncertainty)

    def relative(self, gradient: Tensor) -> Tensor:
        """[K] norms per known image and unit of C: those of the mean loss."""
        norm: Tensor = torch.linalg.vector_norm(gradient, dim=1)
        return norm / (self.strength * self.known)


class _Point(NamedTuple):
    """Where K fits have come to. Their Hessians are z^T diag(uncertainty) z + diag(penalty)."""

    w: Tensor  # [K, r + 1]
    margins: Tensor  # [K, N]
    objective: Tensor  # [K]
    gradient: Tensor  # [K, r + 1]
    uncertainty: Tensor  # [K, N] C p (1 - p), 0 where unknown, in single precision


def _minimise(problem: _Problem) -> tuple[Tensor, float]:
    """Solutions [K, r + 1] and the largest relative gradient. A fit that has converged leaves the batch."""
    point = problem.start()
    solutions, reached = point.w.clone(), 0.0
    fits = torch.arange(len(solutions), device=solutions.device)
    for _ in range(STEPS):
        size = problem.relative(point.gradient)
        going = ~(size <= TOLERANCE)  # with what is not a number
        if not going.all():
            solutions[fits[~going]] = point.w[~going]
            reached = max(reached, float(size[~going].max()))
            if not going.any():
                return solutions, reached
            rows = going.nonzero()[:, 0]  # once, where each tensor would look for them
            fits, problem = fits[rows], problem.keep(rows)
            point = _Point(*(part.index_select(0, rows) for part in point))
        point = _step(problem, point, _direction(problem, point))
    raise TrainingDiverged(
        f"{len(fits)} of {len(solutions)} linear probes have a relative gradient of up to "
        f"{float(size.max()):.1e} after {STEPS} steps, not {TOLERANCE:.0e}. Look at the features: some are "
        "far larger in a few pictures than in all others"
    )


def _direction(problem: _Problem, point: _Point) -> Tensor:
    """[K, r + 1] to about the minimum of the objective's second-order model.

    Conjugate gradients stop where the preconditioned norm of the residual has fallen to √(10 size), at most
    0.3, of what it was, so that steps converge faster than linearly; but a third of `TOLERANCE` is enough."""
    norm: Tensor = torch.linalg.vector_norm(point.gradient, dim=1, keepdim=True)
    size = problem.relative(point.gradient)
    penalty = problem.penalty.float()
    # the Hessian's diagonal [K, r + 1], as if all images were as uncertain as on average: the exact one saves
    # few products, and where axes are of equal length takes up to nine times as many
    curvature = torch.addcmul(penalty, point.uncertainty.sum(dim=1, keepdim=True), problem.mean_squares)
    residual = (point.gradient / -norm).float()  # of unit length, as single precision has a short range
    direction = torch.zeros_like(residual)
    conjugate = residual / curvature
    square = torch.linalg.vecdot(residual, conjugate)  # [K] of the preconditioned norm
    enough = square * torch.maximum((10 * size).clamp(max=0.1), (TOLERANCE / size / 3) ** 2).float()
    for _ in range(PRODUCTS):
        going = square > enough
        if not going.any():
            break
        product = torch.addmm(
            penalty * conjugate, (conjugate @ problem.single.T) * point.uncertainty, problem.single
        )
        length = torch.where(going, square / torch.linalg.vecdot(conjugate, product), 0)[:, None]
        direction = torch.addcmul(direction, length, conjugate)
        residual = torch.addcmul(residual, length, product, value=-1)
        scaled = residual / curvature
        before, square = square, torch.linalg.vecdot(residual, scaled)
        conjugate = torch.addcmul(scaled, torch.where(going, square / before, 0)[:, None], conjugate)
    return norm * direction


def _step(problem: _Problem, point: _Point, direction: Tensor) -> _Point:
    """Along the direction, halved until the objective falls enough (Armijo); no matrix product for a try,
    since the margins are linear. The objective is known to its rounding only: falling less is no failure.
    After `HALVINGS` the last try stands, and the gradient there is judged."""
    ahead = problem.margins(direction)
    slope = torch.linalg.vecdot(point.gradient, direction)
    length = torch.ones_like(slope)
    for _ in range(HALVINGS):
        w = torch.addcmul(point.w, length[:, None], direction)
        margins = torch.addcmul(point.margins, length[:, None], ahead)
        objective = problem.objective(w, margins)
        short = objective > point.objective + 1e-4 * length * slope + ROUNDING * point.objective
        if not short.any():
            break
        length = torch.where(short, length / 2, length)
    return problem.at(w, margins, objective)
