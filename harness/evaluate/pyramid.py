"""Maps of a frozen encoder at strides 4 to 32, of whole pictures: what decoders of masks and boxes read.

Apart because such heads train for many rounds on maps that never change: where they fit in memory they are
computed once.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from harness.contracts import Method, Preprocessing
from harness.data import transforms
from harness.progress import Bar

BATCH = 64  # pictures a forward
MEMORY = 2**30  # bytes of maps kept


class Pyramids:
    """Of `pixels` [N, S, S] uint8, by row."""

    def __init__(
        self, encoder: Method, pixels: np.ndarray, preprocessing: Preprocessing, device: torch.device
    ) -> None:
        self._encoder, self._pixels, self._preprocessing, self._device = (
            encoder,
            pixels,
            preprocessing,
            device,
        )
        self._kept: dict[int, Tensor] = {}
        one = self._encode(np.arange(1))
        self.channels = {stride: maps.shape[1] for stride, maps in one.items()}
        if len(pixels) * sum(maps.nbytes for maps in one.values()) <= MEMORY:
            self._kept = self._encode_all(one)

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, rows: np.ndarray) -> dict[int, Tensor]:
        """{stride: [n, C, h, w]} of `rows` [n]."""
        if self._kept:
            places = torch.from_numpy(rows).to(self._device)
            return {stride: maps[places] for stride, maps in self._kept.items()}
        return self._encode(rows)

    def batches(self, size: int = BATCH) -> Iterator[tuple[np.ndarray, dict[int, Tensor]]]:
        """All rows in order, with their maps."""
        for start in range(0, len(self), size):
            rows = np.arange(start, min(start + size, len(self)))
            yield rows, self[rows]

    def _encode(self, rows: np.ndarray) -> dict[int, Tensor]:
        pixels = torch.tensor(self._pixels[rows], device=self._device)
        on_gpu = self._device.type == "cuda"
        with torch.no_grad(), torch.autocast(self._device.type, torch.bfloat16, enabled=on_gpu):
            return self._encoder.encode_image(transforms.whole_view(pixels, self._preprocessing)).pyramid

    def _encode_all(self, one: dict[int, Tensor]) -> dict[int, Tensor]:
        kept = {stride: maps.new_empty(len(self), *maps.shape[1:]) for stride, maps in one.items()}
        with Bar("encoding maps", len(self)) as bar:
            for rows, pyramid in self.batches():
                for stride, maps in pyramid.items():
                    kept[stride][rows[0] : rows[-1] + 1] = maps
                bar.advance(len(rows))
        return kept
