"""Processes that share the work of a step, so that it is the same step for any number of them, dropout aside.

Apart because it is the only place that exchanges tensors between processes. How they are started is
`distributed.py`'s matter; a single process is a team of one.

Gradients: every process computes the whole loss of a shared micro-batch. The gradient through what it
gathered is the sum over all processes' copies of that loss, and the mean of gradients over processes, which
DistributedDataParallel takes, makes one loss of them again. Parameters behind the gathering get the whole
gradient everywhere, and its mean is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.utils._pytree import tree_map_only

from harness.contracts import Recipe
from harness.device import seeded
from harness.errors import UsageError

Part = TypeVar("Part")
Loss = Callable[[Any], tuple[Tensor, dict[str, Tensor]]]


class Alone:
    """One process, which does everything."""

    rank, size = 0, 1

    def loss_of(self, model: Any, recipe: Recipe) -> Loss:
        """The method's loss, whose gradients are those of all processes."""
        loss: Loss = model.loss
        return loss

    def dealt(self, parts: Sequence[Part], recipe: Recipe) -> Sequence[Part]:
        """The micro-batches of a step that this process works on."""
        return parts

    def collecting(self, loss: Loss, *, last: bool) -> AbstractContextManager[Any]:
        """Around each micro-batch: gradients are exchanged once a step, in the last one."""
        return nullcontext()

    def spread(self, encode: Callable[..., Any], *rows: Tensor) -> Any:
        """See Batch.spread. What `encode` draws comes from a stream of its own: how much that is depends on
        the share, and must not move what is drawn afterwards."""
        with seeded(int(torch.randint(2**62, ())), rows[0].device):
            return encode(*rows)

    def spread_in_training(self, recipe: Recipe) -> Callable[..., Any]:
        return self.spread

    def mean(self, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Mean of each scalar over all processes."""
        return dict(terms)

    def follow(self, model: nn.Module) -> None:
        """Gives every process the first one's running statistics."""

    def agreed(self, value: float) -> float:
        """The first process's, so that no rounding lets two of them decide differently."""
        return value

    def wait(self) -> None:
        """Until every process has come here."""


class Team(Alone):
    """Processes of torch's default group, each with the same data, model and seed."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._sharing = False

    def loss_of(self, model: Any, recipe: Recipe) -> Loss:
        """Raises UsageError when so many processes cannot share a step of this recipe."""
        if not recipe.gather and recipe.accumulate % self.size:
            raise UsageError(
                f"{self.size} processes cannot share a step of {recipe.accumulate} micro-batches whose pairs "
                "are contrasted among themselves. Use a number of processes that divides it, or set gather "
                "in the method's recipe, so that a micro-batch can be shared"
            )
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.forward = partial(self._normalise, module, module.forward)  # type: ignore[method-assign]
        # a parameter may have no part in some steps, MGCA's prototypes in the first epoch
        return DistributedDataParallel(_Loss(model), find_unused_parameters=True)

    def dealt(self, parts: Sequence[Part], recipe: Recipe) -> Sequence[Part]:
        return parts if recipe.gather else parts[self.rank :: self.size]

    def collecting(self, loss: Loss, *, last: bool) -> AbstractContextManager[Any]:
        assert isinstance(loss, DistributedDataParallel)
        return nullcontext() if last else loss.no_sync()

    def spread(self, encode: Callable[..., Any], *rows: Tensor) -> Any:
        """All draw the same: what is drawn for the whole batch stays one draw, dropout repeats in each share.
        Fewer rows than processes are not worth sharing: each encodes them all."""
        if len(rows[0]) < self.size:
            return super().spread(encode, *rows)
        own = [tensor.tensor_split(self.size)[self.rank] for tensor in rows]
        self._sharing = True
        try:
            encoded = super().spread(encode, *own)
        finally:
            self._sharing = False
        sizes = [len(share) for share in rows[0].tensor_split(self.size)]
        return tree_map_only(Tensor, lambda share: _Gather.apply(share, sizes, self.rank), encoded)

    def spread_in_training(self, recipe: Recipe) -> Callable[..., Any]:
        return self.spread if recipe.gather else super().spread

    def mean(self, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
        values = torch.stack([value.detach().float() for value in terms.values()])
        dist.all_reduce(values)
        return dict(zip(terms, values / self.size, strict=True))

    def follow(self, model: nn.Module) -> None:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)

    def agreed(self, value: float) -> float:
        chosen = [value]
        dist.broadcast_object_list(chosen)
        return chosen[0]

    def wait(self) -> None:
        dist.barrier()

    def _normalise(self, norm: _BatchNorm, alone: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """Batch norm over the rows of all shares. torch's own SyncBatchNorm does not run on CPUs, and would
        count rows that every process has as so many different ones."""
        if not (self._sharing and norm.training):
            return alone(x)
        dims = [dim for dim in range(x.ndim) if dim != 1]
        shape = [-1 if dim == 1 else 1 for dim in range(x.ndim)]
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        count = torch.full((1,), float(x.numel() // x.shape[1]), device=x.device)
        totals: Tensor = _Sum.apply(torch.cat([values.sum(dims), count]))
        count = totals[-1].detach()
        mean = totals[:-1] / count
        centred = values - mean.view(shape)
        variance = _Sum.apply(centred.square().sum(dims)) / count
        if norm.running_mean is not None and norm.running_var is not None:
            assert norm.momentum is not None and norm.num_batches_tracked is not None
            norm.num_batches_tracked.add_(1)
            norm.running_mean.lerp_(mean.detach(), norm.momentum)
            norm.running_var.lerp_(variance.detach() * count / (count - 1), norm.momentum)
        normed = centred * (variance + norm.eps).rsqrt().view(shape)
        if norm.affine:
            normed = normed * norm.weight.view(shape) + norm.bias.view(shape)
        normalised: Tensor = normed.to(x.dtype)
        return normalised


class _Loss(nn.Module):
    """DistributedDataParallel watches `forward`, methods have `loss`."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, batch: Any) -> Any:
        return self.model.loss(batch)


class _Sum(torch.autograd.Function):
    """Sum over processes; so is its gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Tensor:
        total = slopes[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


class _Gather(torch.autograd.Function):
    """All shares' rows in order; `sizes` says how many are whose. The gradient sums over processes."""

    @staticmethod
    def forward(ctx: Any, share: Tensor, sizes: Sequence[int], rank: int) -> Tensor:
        ctx.sizes, ctx.rank = sizes, rank
        padded = share.new_zeros(max(sizes), *share.shape[1:], dtype=_sendable(share.dtype))
        padded[: len(share)] = share
        shares = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(shares, padded)
        return torch.cat([rows[:size] for rows, size in zip(shares, sizes, strict=True)]).to(share.dtype)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None]:
        total = slopes[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return torch.split(total, ctx.sizes)[ctx.rank], None, None


def _sendable(dtype: torch.dtype) -> torch.dtype:
    return torch.uint8 if dtype == torch.bool else dtype
