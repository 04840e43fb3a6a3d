"""Maps of whole pictures at strides 4 to 32, of a frozen encoder: what decoders of masks and boxes read.

Apart because such heads pass over their pictures many times, and the maps never change: where all of them
fit into memory they are computed once.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from harness.contracts import Method, Preprocessing
from harness.data import transforms
from harness.progress import Bar

MEMORY = 2**30  # bytes of maps that are kept
BATCH = 64  # pictures a forward while they are


def encode(
    encoder: Method, pixels: np.ndarray, preprocessing: Preprocessing, device: torch.device
) -> dict[int, Tensor]:
    """{stride: [B, C, h, w]} of `pixels` [B, S, S] uint8, in bfloat16 on a GPU."""
    on_device = torch.tensor(pixels, device=device)
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        return encoder.encode_image(transforms.whole_view(on_device, preprocessing)).pyramid


class Pyramids:
    """`encode` of rows of `pixels` [N, S, S] uint8, from memory if that holds all of them."""

    def __init__(
        self, encoder: Method, pixels: np.ndarray, preprocessing: Preprocessing, device: torch.device
    ) -> None:
        self._encoder, self._pixels, self._preprocessing, self._device = (
            encoder,
            pixels,
            preprocessing,
            device,
        )
        self._kept: dict[int, Tensor] | None = None
        one = self[np.arange(1)]
        self.channels = {stride: maps.shape[1] for stride, maps in one.items()}
        if len(pixels) * sum(maps.nbytes for maps in one.values()) <= MEMORY:
            self._kept = self._encode_all(one)

    def __getitem__(self, rows: np.ndarray) -> dict[int, Tensor]:
        """{stride: [n, C, h, w]} of `rows` [n]."""
        if self._kept is None:
            return encode(self._encoder, self._pixels[rows], self._preprocessing, self._device)
        places = torch.from_numpy(rows).to(self._device)
        return {stride: maps[places] for stride, maps in self._kept.items()}

    def __len__(self) -> int:
        return len(self._pixels)

    def batches(self, size: int = BATCH) -> Iterator[tuple[np.ndarray, dict[int, Tensor]]]:
        """All rows in order, with their maps."""
        for start in range(0, len(self), size):
            rows = np.arange(start, min(start + size, len(self)))
            yield rows, self[rows]

    def _encode_all(self, one: dict[int, Tensor]) -> dict[int, Tensor]:
        count = len(self._pixels)
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
            for rows, pyramid in self.batches():
                for stride, maps in pyramid.items():
                    kept[stride][rows[0] : rows[-1] + 1] = maps
                bar.advance(len(rows))
        return kept
