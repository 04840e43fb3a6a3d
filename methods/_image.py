"""The picture side that all methods share: a timm network tapped at strides 4, 8, 16 and 32.

Apart because a method is its heads and its loss; which network they sit on is data in its card.
"""

from __future__ import annotations

from typing import Any

import timm
import torch.nn.functional as F
from torch import Tensor, nn

from harness.contracts import ImageBackbone
from harness.errors import CheckpointError

STRIDES = (4, 8, 16, 32)


class ImageEncoder(nn.Module):
    """Convolutional network without its classifier.

    Args:
        upsample: side to which the input is resized first (bilinear, corners aligned).
        initialise: load the backbone's own pre-trained weights where the card asks for them. False when a
            checkpoint's weights follow anyway, so that no network is needed to use one.

    Raises CheckpointError when the pre-trained weights cannot be had.
    """

    def __init__(
        self, backbone: ImageBackbone, *, upsample: int | None = None, initialise: bool = True
    ) -> None:
        super().__init__()
        self.upsample = upsample
        wanted = backbone.pretrained and initialise
        options: dict[str, Any] = dict(backbone.options)
        try:
            self.net: Any = timm.create_model(backbone.name, pretrained=wanted, num_classes=0, **options)
        except (OSError, RuntimeError) as error:
            if not wanted:
                raise
            raise CheckpointError(
                f"no pre-trained weights for {backbone.name}: {error}. Let this machine reach the model hub "
                "once, or copy the hub's cache folder (HF_HOME) from a machine that has them"
            ) from error
        feature_info: Any = self.net.feature_info
        stages = list(feature_info)[-len(STRIDES) :]
        self.channels: tuple[int, ...] = tuple(stage["num_chs"] for stage in stages)
        self.width = self.channels[-1]

    def forward(self, x: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
        """`x` [B, 3, H, W] to pooled [B, D] and the pyramid {stride: [B, C, H/stride, W/stride]}."""
        if self.upsample:
            x = F.interpolate(x, size=(self.upsample, self.upsample), mode="bilinear", align_corners=True)
        taps = self.net.forward_intermediates(x, indices=len(STRIDES), intermediates_only=True)
        return taps[-1].mean(dim=(2, 3)), dict(zip(STRIDES, taps, strict=True))
