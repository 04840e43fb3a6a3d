"""Features of a frozen encoder on a set of pictures: computed once, then read.

Apart because a wrong cache is a wrong number: the key holds everything that shapes the features, and the
encoder is proven unchanged by the computation.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from harness.contracts import ImageFeatures, Method, Preprocessing, TextMethod
from harness.data import arrays, transforms
from harness.data.cache import Images
from harness.device import arithmetic
from harness.errors import DataError, HarnessError, UsageError
from harness.files import hash_bytes, hash_of, locked
from harness.progress import Bar
from harness.settings import BankDtype

logger = logging.getLogger(__name__)

BATCH = 128  # pictures a forward


class Source(NamedTuple):
    """An encoder by name; `build` is called only when its features are not cached."""

    method: str
    method_version: int
    code: str  # sha256 over the method's files
    weights: str  # sha256
    preprocessing: Preprocessing
    build: Callable[[], nn.Module]
    text_unit: str = ""  # what of a report its embeddings are compared with, see Recipe.text_units
    check_text: Callable[[TextMethod], None] = lambda _: None
    """Raises CheckpointError where what was built reads texts otherwise than it was trained to."""


class Bank(NamedTuple):
    features: np.ndarray  # [N, D], memory-mapped
    cached: bool
    images_per_second: float | None  # None when they were read


def open_bank(
    source: Source, images: Images, *, folder: Path, device: torch.device, dtype: BankDtype
) -> Bank:
    """Pooled features of all `images`, in their order. Raises CorruptCache when a stored bank is not the one
    that was written, DataError where a feature is not finite."""
    key = hash_of(
        transforms.VERSION,
        *(source.method, source.method_version, source.code, source.weights),
        asdict(source.preprocessing),
        *(images.fingerprint, arithmetic(device), torch.__version__, version("timm"), dtype),
    )
    path = folder / f"{key}.npy"
    with ExitStack() as alone:
        if not path.exists():
            with suppress(OSError, HarnessError):  # a full disk, or one without locks: it only saves work
                alone.enter_context(locked(path.with_suffix(".lock")))
        if path.exists():  # another process may have made it while this one waited
            return Bank(arrays.load(path), True, None)
        return _made(source, images, path, device, dtype)


def _made(source: Source, images: Images, path: Path, device: torch.device, dtype: BankDtype) -> Bank:
    model = source.build()
    started = time.monotonic()
    with np.errstate(over="ignore"):  # beyond float16; told below
        features = encode(model, images.pixels, source.preprocessing, device).astype(dtype)
    seconds = time.monotonic() - started
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        raise DataError(
            f"{source.method} has features that are not finite in {dtype}, of {(~finite).sum()} of "
            f"{len(finite)} pictures. Check the checkpoint's weights, or leave HARNESS_BANK_DTYPE at float32"
        )
    rate = len(features) / seconds
    try:
        arrays.save(path, features)
    except OSError as error:  # a full disk or a quota
        logger.warning("features are not kept, and will be computed again: %s", error)
        return Bank(features, False, rate)
    return Bank(arrays.load(path), False, rate)


def encode(
    model: nn.Module, pixels: np.ndarray, preprocessing: Preprocessing, device: torch.device
) -> np.ndarray:
    """[N, S, S] uint8 to pooled features [N, D] float32 of the frozen encoder."""
    rows = []
    with frozen(model, device) as encoder, Bar("encoding", len(pixels)) as bar, torch.inference_mode():
        for start in range(0, len(pixels), BATCH):
            part = torch.tensor(pixels[start : start + BATCH], device=device)
            found = encoder.encode_image(transforms.evaluation_view(part, preprocessing))
            rows.append(pooled(found, len(part), model).float().cpu().numpy())
            bar.advance(len(part))
    return np.concatenate(rows)


def pooled(found: object, count: int, model: nn.Module) -> Tensor:
    """[count, D] of what `model` made of so many pictures. Raises UsageError for what a method of one's own
    may give instead."""
    given = type(found).__name__
    if isinstance(found, ImageFeatures):
        if found.pooled.ndim == 2 and len(found.pooled) == count:
            return found.pooled
        given = f"pooled {list(found.pooled.shape)}"
    raise UsageError(
        f"{type(model).__name__}.encode_image gives {given} for {count} pictures. It must give ImageFeatures "
        f"(harness/contracts.py) whose pooled is [{count}, D]"
    )


@contextmanager
def frozen(model: nn.Module, device: torch.device, *, but_statistics: bool = False) -> Iterator[Method]:
    """The encoder on `device`, in evaluation mode and without gradients. Raises HarnessError when its state
    is not the same after the block as before; with `but_statistics` that of its weights, for code of others
    in which batch norms go on averaging."""
    model.eval().requires_grad_(False).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    before = _state_hash(model, but_statistics)
    yield cast(Method, model)
    if _state_hash(model, but_statistics) != before:
        raise HarnessError(
            f"{type(model).__name__} changed its state while it encoded. A frozen encoder must not: look for "
            "running statistics or buffers that it updates in evaluation mode"
        )


def _state_hash(model: nn.Module, but_statistics: bool) -> str:
    state = dict(model.named_parameters()) if but_statistics else model.state_dict()
    return hash_of({name: hash_bytes(_bytes(tensor)) for name, tensor in state.items()})


def _bytes(tensor: Tensor) -> bytes:
    """The stored bytes, whatever the dtype: numpy knows no bfloat16."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
