"""Projection heads into the space that pictures and texts share."""

from __future__ import annotations

from torch import nn


def projection(inner: int, hidden: int, outer: int) -> nn.Sequential:
    """Linear, batch norm, ReLU, Linear, batch norm without affine: [B, inner] to [B, outer].

    The indices 0, 1, 3, 4 are those of the released checkpoints of IMITATE and MGCA.
    """
    return nn.Sequential(
        nn.Linear(inner, hidden),
        nn.BatchNorm1d(hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, outer),
        nn.BatchNorm1d(outer, affine=False),
    )


def perceptron(inner: int, outer: int) -> nn.Sequential:
    """Linear, ReLU, Linear, of the outer width within: [B, inner] to [B, outer]."""
    return nn.Sequential(nn.Linear(inner, outer), nn.ReLU(inplace=True), nn.Linear(outer, outer))
