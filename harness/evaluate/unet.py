"""The decoder that makes a mask of an encoder's pyramid, and the loss it learns from.

Apart because both are the field's and know no task: the U-Net (Ronneberger et al., MICCAI 2015) is that of
segmentation-models-pytorch, the loss that of MGCA's and GLoRIA's released segmentation code.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from segmentation_models_pytorch.base.initialization import initialize_decoder, initialize_head
from segmentation_models_pytorch.decoders.unet.decoder import UnetDecoder
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

BLOCKS = 5  # from stride 32 to 1
WIDEST = 256  # channels of the first block in the published networks; each has half of those before it
FOCAL, GAMMA = 10.0, 2.0  # weight of the focal loss beside the logarithm of Dice, and its exponent
SMOOTH = 1.0  # pixels added to both sides of Dice, which is 1 where nothing is and nothing is predicted


class Unet(nn.Module):
    """Decodes maps with `channels` {stride: C} to one logit per pixel. Weights from torch's global generator.

    The published networks also skip from stride 2, which is not in the pyramid: a transformer has no such
    map. The decoder is at most half as wide as the deepest map, so that a small encoder has a small one.
    """

    def __init__(self, channels: Mapping[int, int]) -> None:
        super().__init__()
        deepest_first = [channels[stride] for stride in sorted(channels, reverse=True)]
        widest = min(WIDEST, deepest_first[0] // 2)
        widths = [max(widest >> block, 4) for block in range(BLOCKS)]
        of_strides = (0, 0, *reversed(deepest_first))  # nothing at 1 and 2
        self.decoder = UnetDecoder(of_strides, widths)
        self.head = nn.Conv2d(widths[-1], 1, kernel_size=3, padding=1)
        initialize_decoder(self.decoder)
        initialize_head(self.head)

    def forward(self, pyramid: Mapping[int, Tensor], size: int) -> Tensor:
        """{stride: [B, C, h, w]} to logits [B, size, size]."""
        maps = [pyramid[stride] for stride in sorted(pyramid)]
        nothing = maps[0].new_empty(len(maps[0]), 0, size, size)
        logits: Tensor = self.head(self.decoder([nothing, nothing[..., ::2, ::2], *maps]))
        return logits[:, 0]


def loss_sums(logits: Tensor, truth: Tensor) -> Tensor:
    """[4] of some pictures, to be added to those of others before `loss`: focal loss, number of pixels,
    overlap of the two masks, and area of both. `logits` and `truth` [B, H, W]; truth is the share of a pixel
    that the mask covers."""
    focal = sigmoid_focal_loss(logits, truth, alpha=-1, gamma=GAMMA, reduction="sum")
    predicted = logits.sigmoid()
    pixels = logits.new_tensor(logits.numel())
    return torch.stack([focal, pixels, (predicted * truth).sum(), predicted.sum() + truth.sum()])


def loss(sums: Tensor) -> Tensor:
    """10 focal - log Dice. Dice is that of all pictures laid side by side: those without a mask take part."""
    focal, pixels, overlap, areas = sums
    dice = (2 * overlap + SMOOTH) / (areas + SMOOTH)
    value: Tensor = FOCAL * focal / pixels - dice.log()
    return value
