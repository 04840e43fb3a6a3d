"""Maps of whole pictures at strides 4 to 32, of a frozen encoder: what decoders of masks and boxes read.

Apart because such heads pass over their pictures many times, and the maps never change: where all of them
fit into memory they are computed once.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from harness.contracts import Method, Preprocessing
from harness.data import transforms
from harness.device import autocast
from harness.errors import UsageError
from harness.evaluate.bench import Examples
from harness.progress import Bar

MEMORY = 2**30  # bytes of maps that are kept
BATCH = 64  # pictures a forward while they are


def encode(encoder: Method, pixels: Tensor, preprocessing: Preprocessing) -> dict[int, Tensor]:
    """{stride: [B, C, h, w]} of `pixels` [B, S, S] in 0..255 on the encoder's device, in bfloat16 where
    it has that. Raises UsageError when there are none."""
    with torch.no_grad(), autocast(pixels.device):
        maps = encoder.encode_image(transforms.whole_view(pixels, preprocessing)).pyramid
    if not maps:
        raise UsageError(
            f"{type(encoder).__name__} gives no maps, which masks and boxes are read from. Fill `pyramid` in "
            "its encode_image with strides 4 to 32, or choose another kind of task"
        )
    return maps


def channels(encoder: Method, pixels: Tensor, preprocessing: Preprocessing) -> dict[int, int]:
    """{stride: C}"""
    return {stride: maps.shape[1] for stride, maps in encode(encoder, pixels[:1], preprocessing).items()}


class Pyramids:
    """`encode` of rows of N `examples`, from memory if that holds all of them."""

    def __init__(self, encoder: Method, examples: Examples) -> None:
        self._encoder, self._examples = encoder, examples
        self._kept: dict[int, Tensor] | None = None
        one = self[np.arange(1)]
        self.channels = {stride: maps.shape[1] for stride, maps in one.items()}
        if len(examples) * sum(maps.nbytes for maps in one.values()) <= MEMORY:
            self._kept = self._encode_all(one)

    def __getitem__(self, rows: np.ndarray) -> dict[int, Tensor]:
        """{stride: [n, C, h, w]} of `rows` [n]."""
        if self._kept is None:
            preprocessing = self._examples.bench.encoder.preprocessing
            return encode(self._encoder, self._examples.on_device(rows), preprocessing)
        places = torch.from_numpy(rows).to(self._examples.bench.device)
        return {stride: maps[places] for stride, maps in self._kept.items()}

    def _encode_all(self, one: dict[int, Tensor]) -> dict[int, Tensor]:
        count = len(self._examples)
        kept = {
            stride: torch.empty(
                (count, *maps.shape[1:]),
                dtype=maps.dtype,
                device=maps.device,
                memory_format=torch.channels_last,
            )
            for stride, maps in one.items()
        }
        with Bar("encoding maps", count) as bar:
            for start in range(0, count, BATCH):
                rows = np.arange(start, min(start + BATCH, count))
                for stride, maps in self[rows].items():
                    kept[stride][start : start + len(rows)] = maps
                bar.advance(len(rows))
        return kept
