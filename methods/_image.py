"""The picture side that all methods share: a timm network tapped at strides 4, 8, 16 and 32.

Apart because a method is its heads and its loss; which network they sit on is data in its card.
"""

from __future__ import annotations

from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.contracts import ImageBackbone, ImageFeatures, Profile
from methods._hub import folder_with

STRIDES = (4, 8, 16, 32)
PATCH = 16  # stride of the maps that local losses read


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
        self.net = _network(backbone, initialise)
        stages = list(self.net.feature_info)[-len(STRIDES) :]
        self.channels: tuple[int, ...] = tuple(stage["num_chs"] for stage in stages)
        self.width = self.channels[-1]

    def forward(self, x: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
        """`x` [B, 3, H, W] to pooled [B, D] and the pyramid {stride: [B, C, H/stride, W/stride]}."""
        if self.upsample:
            x = F.interpolate(x, size=(self.upsample, self.upsample), mode="bilinear", align_corners=True)
        taps = self.net.forward_intermediates(x, indices=len(STRIDES), intermediates_only=True)
        return taps[-1].mean(dim=(2, 3)), dict(zip(STRIDES, taps, strict=True))

    def attend(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pooled [B, D], its regions [B, P, C] and the share of each, [B, P]: all alike in an average."""
        pooled, pyramid = self(x)
        regions = pyramid[PATCH].flatten(2).transpose(1, 2)
        return pooled, regions, regions.new_full(regions.shape[:2], 1 / regions.shape[1])


class VisionTransformer(nn.Module):
    """Vision transformer with patches of 16 pixels; arguments and errors as ImageEncoder's.

    Pooled is the class token behind the last norm. The other strides of the pyramid are the patches' map,
    resized: a transformer has one resolution.
    """

    def __init__(self, backbone: ImageBackbone, *, initialise: bool = True) -> None:
        super().__init__()
        self.net = _network(backbone, initialise)
        self.width: int = self.net.embed_dim
        self.channels = (self.width,) * len(STRIDES)

    def forward(self, x: Tensor) -> tuple[Tensor, dict[int, Tensor]]:
        """`x` [B, 3, H, W] to pooled [B, D] and the pyramid {stride: [B, D, H/stride, W/stride]}."""
        tokens = self.net.forward_features(x)
        height, width = x.shape[2:]
        maps = tokens[:, 1:].transpose(1, 2).reshape(len(x), -1, height // PATCH, width // PATCH)
        sizes = {stride: (-(-height // stride), -(-width // stride)) for stride in STRIDES}
        return tokens[:, 0], {
            stride: F.interpolate(maps, size, mode="bilinear", antialias=True)
            for stride, size in sizes.items()
        }

    def attend(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pooled [B, D], patches [B, P, D] and how much the class token attends to each, [B, P].

        The last block's attention, mean over heads; computed anew, so that blocks keep their fused one.
        """
        last, before = self.net.blocks[-1], len(self.net.blocks) - 2
        final, [(patches, prefix)] = self.net.forward_intermediates(
            x, indices=[before], output_fmt="NLC", return_prefix_tokens=True
        )
        with torch.no_grad():
            qkv = last.attn.qkv(last.norm1(torch.cat([prefix, patches], dim=1)))
            query, key, _ = qkv.unflatten(-1, (3, last.attn.num_heads, -1)).unbind(2)  # [B, 1 + P, H, d]
            scores = torch.einsum("bhd,bphd->bhp", query[:, 0], key) * last.attn.scale
            attention = scores.softmax(dim=-1).mean(dim=1)[:, 1:]
        return final[:, 0], final[:, 1:], attention


class ImageOnly(nn.Module):
    """A method without a text side: a floor, or an encoder whose heads are not at hand."""

    def __init__(self, profile: Profile, *, initialise: bool) -> None:
        super().__init__()
        upsample = profile.preprocessing.upsample
        self.encoder = ImageEncoder(profile.image, upsample=upsample, initialise=initialise)

    def encode_image(self, x: Tensor) -> ImageFeatures:
        pooled, pyramid = self.encoder(x)
        return ImageFeatures(pooled, None, None, pyramid)


def _network(backbone: ImageBackbone, initialise: bool) -> Any:
    options: dict[str, Any] = dict(backbone.options)
    wanted = backbone.pretrained and initialise
    published = timm.get_pretrained_cfg(backbone.name)
    if wanted and published and published.hf_hub_id:
        folder_with(published.hf_hub_id, ("*.safetensors",))  # where timm looks next
    return timm.create_model(backbone.name, pretrained=wanted, num_classes=0, **options)
