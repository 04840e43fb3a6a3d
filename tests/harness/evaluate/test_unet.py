"""The decoder's shapes for both families of encoders, and its loss against closed forms."""

from __future__ import annotations

import math

import pytest
import torch

from harness.contracts import ImageBackbone
from harness.evaluate import unet
from methods._image import ImageEncoder, VisionTransformer


@pytest.mark.parametrize(
    "encoder",
    [
        ImageEncoder(ImageBackbone("resnet18", options={"channels": (8, 16, 24, 32)})),
        ImageEncoder(ImageBackbone("resnet18", options={"channels": (8, 16, 24, 32)}), upsample=75),
        VisionTransformer(ImageBackbone("vit_tiny_patch16_224", options={"img_size": 80, "depth": 1})),
    ],
    ids=["convolutional", "upsampled", "transformer"],
)
def test_every_encoder_s_pyramid_is_decoded_to_pixels(encoder: torch.nn.Module) -> None:
    _, pyramid = encoder.eval()(torch.randn(2, 3, 80, 80))
    decoder = unet.Unet({stride: maps.shape[1] for stride, maps in pyramid.items()})
    logits = decoder(pyramid, 80)
    assert logits.shape == (2, 80, 80)
    logits.sum().backward()
    assert all(weight.grad is not None for weight in decoder.parameters())  # every part takes part


def test_the_loss_of_a_coin_s_toss_is_the_closed_form() -> None:
    truth = torch.zeros(2, 4, 4)
    truth[0, :2] = 1  # 8 of 32 pixels
    focal = 0.5**2 * math.log(2)  # (1 - p)^2 · -log p with p = 1/2 everywhere
    dice = (2 * 8 * 0.5 + 1) / (32 * 0.5 + 8 + 1)
    value = unet.loss(unet.loss_sums(torch.zeros(2, 4, 4), truth))
    assert value.item() == pytest.approx(10 * focal - math.log(dice))


def test_the_loss_vanishes_where_the_masks_agree_and_not_where_they_are_opposite() -> None:
    truth = (torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    logits = 100 * (2 * truth - 1)
    assert unet.loss(unet.loss_sums(logits, truth)).item() == pytest.approx(0, abs=1e-6)
    assert unet.loss(unet.loss_sums(logits, 1 - truth)).item() > 100


def test_sums_of_parts_give_the_loss_of_all() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, truth = torch.randn(6, 5, 5, generator=generator), torch.rand(6, 5, 5, generator=generator)
    parts = unet.loss_sums(logits[:4], truth[:4]) + unet.loss_sums(logits[4:], truth[4:])
    assert unet.loss(parts).item() == pytest.approx(unet.loss(unet.loss_sums(logits, truth)).item(), rel=1e-5)
