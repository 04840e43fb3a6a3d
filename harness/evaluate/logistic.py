"""The linear probe: logistic regression on frozen features, its one strength chosen on validation.

Apart because it is the instrument that encoders are compared with: it reaches the optimum or says that it
did not, and it is never handed a test split. Objective per label, as in scikit-learn:

    C · Σ_i log(1 + exp(-s_i (w·x_i + b))) + ½ ‖w‖²        s_i = ±1, images of unknown label left out

All strengths and labels are fitted at once. Features are first rotated to their principal axes, where the
Hessian is nearly diagonal and w has at most N coordinates; there, L-BFGS (Nocedal & Wright 2006, algorithm
7.4) with that diagonal as its scaling takes tens of steps, each two matrix products for all fits together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
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
"""Inverse strengths C of the penalty. From weights that hardly leave zero to a fit that is all but free, for
40 images as for 200,000: the sum of losses, not their mean, stands against the penalty."""

TOLERANCE = 1e-9  # of the gradient's norm per image and unit of C
STEPS = 5000  # some 200 are needed where classes separate and C is 100, 900 with heavy-tailed features
MEMORY = 10  # pairs that L-BFGS remembers; more cost as much as they save
HALVINGS = 40  # of a step
ROUNDING = 1e-12  # relative, of the objective
SMALL = 2**22  # numbers in the training features; fitted by one thread


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
    on `validation`; of equals, the strongest penalty. Computed in float64 on the device of the training
    features.

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
    is strictly convex, so a vanishing gradient is the one optimum. Raises TrainingDiverged when `TOLERANCE`
    is not reached.
    """
    with one_thread() if features.numel() <= SMALL else nullcontext():
        return _solve(features, truth, strengths)


def _solve(features: Tensor, truth: np.ndarray, strengths: Sequence[float]) -> tuple[Tensor, Tensor, float]:
    z, axes, spectrum = _principal_axes(features)
    sign = torch.as_tensor(np.where(truth == -1, 0, 2 * truth.astype(np.int64) - 1)).to(z)
    problem = _Problem(
        z, spectrum, sign.repeat(1, len(strengths)), z.new_tensor(strengths).repeat_interleave(truth.shape[1])
    )
    solution, gradient = _minimise(problem)
    shape = (-1, len(strengths), truth.shape[1])
    weights = (axes @ solution[:-1]).reshape(shape).movedim(1, 0).contiguous()
    return weights, solution[-1].reshape(shape[1:]), gradient


def _principal_axes(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """z [N, r] with features = z axes^T, axes [D, r] orthonormal, and the squared lengths [r] of z's columns,
    which are orthogonal. r is the smaller of N and D. QR first where N < D: unlike the eigenvectors of the
    N x N Gram matrix it keeps small directions exactly orthonormal, so that ‖w‖ is the norm it was."""
    n, d = features.shape
    base = None
    if n < d:
        base, triangle = torch.linalg.qr(features.T)
        features = triangle.T
    spectrum, rotation = torch.linalg.eigh(features.T @ features)
    axes = rotation if base is None else base @ rotation
    return features @ rotation, axes, spectrum.clamp(min=0)


@dataclass(frozen=True)
class _Problem:
    """K independent fits on the same rows. A solution is [r + 1, K]: weights, and the intercept last."""

    z: Tensor  # [N, r]
    spectrum: Tensor  # [r]
    sign: Tensor  # [N, K] 1, -1, or 0 for unknown, which makes the loss a constant
    strength: Tensor  # [K]

    @property
    def penalty(self) -> Tensor:
        """[r + 1, 1]"""
        return torch.cat((torch.ones_like(self.spectrum), self.spectrum.new_zeros(1)))[:, None]

    def keep(self, columns: Tensor) -> _Problem:
        return _Problem(self.z, self.spectrum, self.sign[:, columns], self.strength[columns])

    def start(self) -> Tensor:
        """No weights, and the log-odds of the label as intercept."""
        positives, negatives = (self.sign > 0).sum(dim=0), (self.sign < 0).sum(dim=0)
        weights = self.z.new_zeros(self.z.shape[1], self.sign.shape[1])
        return torch.cat((weights, (positives / negatives).log()[None].to(weights)))

    def margins(self, w: Tensor) -> Tensor:
        return self.z @ w[:-1] + w[-1]

    def objective(self, w: Tensor, margins: Tensor) -> Tensor:
        loss = -logsigmoid(self.sign * margins).sum(dim=0)
        return self.strength * loss + (self.penalty * w * w).sum(dim=0) / 2

    def gradient(self, w: Tensor, margins: Tensor) -> Tensor:
        residual = -self.strength * self.sign * torch.sigmoid(-self.sign * margins)
        return self.penalty * w + torch.cat((self.z.T @ residual, residual.sum(dim=0, keepdim=True)))

    def curvature(self, margins: Tensor) -> Tensor:
        """[r + 1, K] the Hessian's diagonal, as if all images were as uncertain as they are on average."""
        p = torch.sigmoid(margins)
        uncertainty = self.strength * (self.sign.abs() * p * (1 - p)).mean(dim=0)
        lengths = torch.cat((self.spectrum, self.spectrum.new_tensor([len(self.z)])))
        return self.penalty + uncertainty * lengths[:, None]

    def relative(self, gradient: Tensor) -> Tensor:
        """[K] norms per known image and unit of C: those of the mean loss."""
        norm: Tensor = torch.linalg.vector_norm(gradient, dim=0)
        return norm / (self.strength * self.sign.abs().sum(dim=0))


Pair = tuple[Tensor, Tensor, Tensor]  # step [r + 1, K], change of the gradient it made, 1 / their product [K]


def _minimise(problem: _Problem) -> tuple[Tensor, float]:
    """Solutions [r + 1, K] and the largest relative gradient. A fit that has converged leaves the batch."""
    w = problem.start()
    margins = problem.margins(w)
    gradient = problem.gradient(w, margins)
    memory: deque[Pair] = deque(maxlen=MEMORY)
    solutions, reached = w.clone(), 0.0
    columns = torch.arange(w.shape[1], device=w.device)
    for _ in range(STEPS):
        size = problem.relative(gradient)
        done = size <= TOLERANCE
        if done.any():
            solutions[:, columns[done]] = w[:, done]
            reached = max(reached, float(size[done].max()))
            if done.all():
                return solutions, reached
            columns, problem = columns[~done], problem.keep(~done)
            w, margins, gradient = w[:, ~done], margins[:, ~done], gradient[:, ~done]
            pairs = [(step[:, ~done], change[:, ~done], scale[~done]) for step, change, scale in memory]
            memory = deque(pairs, maxlen=MEMORY)
        direction = _direction(gradient, problem.curvature(margins), memory)
        ahead = problem.margins(direction)
        length = _step_length(problem, w, margins, gradient, direction, ahead)
        w, margins = w + length * direction, margins + length * ahead
        before, gradient = gradient, problem.gradient(w, margins)
        step, change = length * direction, gradient - before
        product = (step * change).sum(dim=0)
        memory.append((step, change, torch.where(product > 0, 1 / product, 0)))
    raise TrainingDiverged(
        f"{len(columns)} of {solutions.shape[1]} linear probes have a relative gradient of up to "
        f"{float(size.max()):.1e} after {STEPS} steps, not {TOLERANCE:.0e}. Look at the features: some are "
        "nearly the same numbers, or far larger in a few pictures than in all others"
    )


def _direction(gradient: Tensor, curvature: Tensor, memory: Sequence[Pair]) -> Tensor:
    """[r + 1, K] of L-BFGS: the two-loop recursion, with the curvature as initial Hessian."""
    direction = -gradient
    projections = []
    for step, change, scale in reversed(memory):
        projections.append(scale * (step * direction).sum(dim=0))
        direction = direction - projections[-1] * change
    direction = direction / curvature
    for (step, change, scale), projection in zip(memory, reversed(projections), strict=True):
        direction = direction + (projection - scale * (change * direction).sum(dim=0)) * step
    return direction


def _step_length(
    problem: _Problem, w: Tensor, margins: Tensor, gradient: Tensor, direction: Tensor, ahead: Tensor
) -> Tensor:
    """[K] 1, halved until the objective falls enough (Armijo); no matrix product, since `ahead` are the
    margins of the direction. The objective is known to its rounding only: falling less is no failure."""
    start = problem.objective(w, margins)
    slope = (gradient * direction).sum(dim=0)
    length = torch.ones_like(slope)
    for _ in range(HALVINGS):
        reached = problem.objective(w + length * direction, margins + length * ahead)
        short = reached > start + 1e-4 * length * slope + ROUNDING * start
        if not short.any():
            break
        length = torch.where(short, length / 2, length)
    return length
