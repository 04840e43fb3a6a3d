"""What embeddings of pictures and their reports tell of a training: do pairs meet, do others stay apart.

Apart because these are pure functions of two matrices, each with a closed form to be tested against.
Alignment and uniformity are those of Wang & Isola, "Understanding Contrastive Representation Learning
through Alignment and Uniformity on the Hypersphere", ICML 2020; the effective rank is that of Roy &
Vetterli, EUSIPCO 2007.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

RANKS = (1, 5, 10)
CHUNK = 1024  # rows of a matrix of all pairs at once: bounds its memory

ONE_DIRECTION = 0.95  # mean cosine of two embeddings, above which all are nearly the same
ONE_LINE = 2.0  # effective rank below which all differ in one way only


def geometry(image: Tensor, text: Tensor) -> dict[str, float]:
    """All measures of pairs [V, d] of pictures and texts, row by row; none of fewer than two pairs."""
    if len(image) < 2:
        return {}
    image, text = F.normalize(image, dim=1), F.normalize(text, dim=1)
    measured = {"alignment": (image - text).square().sum(dim=1).mean().item()}
    for side, rows in (("image", image), ("text", text)):
        measured[f"uniformity_{side}"] = uniformity(rows)
        measured[f"cosine_{side}"] = mean_cosine(rows)
        measured[f"rank_{side}"] = effective_rank(rows)
    return measured


def collapse(measured: Mapping[str, float]) -> list[str]:
    """Sentences for each way in which embeddings have become useless; none for sound ones."""
    found = []
    for side in (side for side in ("image", "text") if f"cosine_{side}" in measured):
        cosine, rank = measured[f"cosine_{side}"], measured[f"rank_{side}"]
        if cosine > ONE_DIRECTION:
            found.append(
                f"{side} embeddings have collapsed to one direction: two of them have a cosine of "
                f"{cosine:.3f} on average, above {ONE_DIRECTION}"
            )
        elif rank < ONE_LINE:
            found.append(
                f"{side} embeddings have collapsed to one line: their effective rank is {rank:.2f}, below "
                f"{ONE_LINE}"
            )
    return found


def uniformity(rows: Tensor) -> float:
    """log of the mean of exp(-2 |x - y|^2) over all x, y of [V, d] of unit length: 0 when all are one point,
    the lower the better they fill the sphere, about -4 at best."""
    total = -float(len(rows))  # a row with itself is no pair
    for chunk in torch.split(rows, CHUNK):
        total += torch.exp(-2 * (2 - 2 * chunk @ rows.T).clamp(min=0)).sum().item()
    pairs = len(rows) * (len(rows) - 1)
    return torch.tensor(total / pairs).clamp(min=1e-12).log().item()


def mean_cosine(rows: Tensor) -> float:
    """Mean cosine of two different rows of [V, d], which have unit length."""
    count = len(rows)
    return ((rows.sum(dim=0).square().sum() - count) / (count * (count - 1))).item()


def effective_rank(rows: Tensor) -> float:
    """exp of the entropy of the singular values of [V, d] about its mean: k when the rows fill k dimensions
    alike, 1 when they differ along one line, or not at all."""
    centred = (rows - rows.mean(dim=0)).double()
    values = torch.linalg.svdvals(centred)
    if values[0] <= 1e-6 * len(rows) ** 0.5:
        return 1.0
    shares = values / values.sum()
    return torch.exp(-torch.special.xlogy(shares, shares).sum()).item()


def recall(image: Tensor, text: Tensor) -> dict[str, float]:
    """Share of pictures that find their own report, or one worded the same, among the K best of all, beside
    what a random order would give. `image` and `text` [V, d], row by row a pair; K below V only."""
    image, text = F.normalize(image, dim=1), F.normalize(text, dim=1)
    # not by matrix products: their rounding makes equal rows up to 1e-3 different
    same = torch.cdist(text, text, compute_mode="donot_use_mm_for_euclid_dist") < 1e-4  # [V, V]
    hits = same.gather(1, (image @ text.T).argsort(dim=1, descending=True))  # best first
    wrong = (~same).sum(dim=1)[:, None]
    places = torch.arange(min(RANKS[-1], len(text)), device=text.device)
    # [V, K] that the first 1, 2, ... K of a random order are all wrong
    missed = ((wrong - places).clamp(min=0) / (len(text) - places)).cumprod(dim=1)
    found = {}
    for k in (k for k in RANKS if k < len(text)):
        found[f"recall@{k}"] = hits[:, :k].any(dim=1).float().mean().item()
        found[f"chance@{k}"] = 1 - missed[:, k - 1].mean().item()
    return found
