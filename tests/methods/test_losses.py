"""The contrast that all methods share."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from methods._losses import contrast, cosines, full_precision
from tests.methods.golden import series


def test_both_directions_are_cross_entropies() -> None:
    logits = 3 * series(5, 5, c=1)
    rows, columns = contrast(logits)
    torch.testing.assert_close(rows, F.cross_entropy(logits, torch.arange(5)))
    torch.testing.assert_close(columns, F.cross_entropy(logits.T, torch.arange(5)))


def test_soft_targets_generalise_the_diagonal() -> None:
    logits, targets = series(4, 4, c=1), series(4, 4, c=2).softmax(dim=1)
    rows, columns = contrast(logits, targets)
    torch.testing.assert_close(rows, F.cross_entropy(logits, targets))
    torch.testing.assert_close(columns, F.cross_entropy(logits.T, targets.T))
    torch.testing.assert_close(contrast(logits, torch.eye(4)), contrast(logits))


def test_a_single_pair_contrasts_with_nothing() -> None:
    logits = torch.tensor([[3.0]], requires_grad=True)
    loss = torch.stack(contrast(logits)).sum()
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None and logits.grad.item() == 0


def test_autocast_does_not_reach_the_losses() -> None:
    x, y = series(5, 64, c=1), series(5, 64, c=2)
    with torch.autocast("cpu", torch.bfloat16):
        inside = cosines(x, y)
        assert (x @ y.T).dtype == torch.bfloat16
    assert torch.equal(inside, cosines(x, y))


def test_half_precision_arguments_are_raised_and_double_stays() -> None:
    kept = full_precision(lambda x, *, y: (x.dtype, y.dtype))
    assert kept(torch.zeros(1, dtype=torch.bfloat16), y=torch.zeros(1, dtype=torch.float16)) == (
        torch.float32,
        torch.float32,
    )
    assert kept(torch.zeros(1, dtype=torch.float64), y=torch.zeros(1, dtype=torch.int32)) == (
        torch.float64,
        torch.int32,
    )


def test_gradients() -> None:
    logits = series(4, 4, c=1).double().requires_grad_()
    targets = series(4, 4, c=2).double().softmax(dim=1)
    assert torch.autograd.gradcheck(contrast, (logits,))
    assert torch.autograd.gradcheck(contrast, (logits, targets))
