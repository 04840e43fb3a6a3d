"""YOLOv3's head on three maps of an encoder, its loss, and the boxes that it reads off.

Apart because it is the detector of others' code (Redmon & Farhadi, arXiv 1804.02767, as written in MGCA
680fe4a, mgca/models/ssl_detector.py and mgca/utils/yolo_loss.py), with what is odd about it there:

- a true box is assigned at each of the three strides, to the anchor there whose shape is nearest;
- that anchor is also taught to be empty where the two overlap by half or less;
- overlaps are taken of boxes that are one larger: one cell when boxes are assigned, one pixel among
  duplicates.

Where it differs: blocks are as wide as a ResNet-50's maps make them there, whatever the encoder; cells are
strides apart, which at 224 pixels is the same; and logarithms are not cut off at -100.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import nms

from harness.device import autocast
from harness.evaluate.fcos import MOST, Found

ANCHORS: Mapping[int, tuple[tuple[int, int], ...]] = {
    32: ((116, 90), (156, 198), (373, 326)),
    16: ((30, 61), (62, 45), (59, 119)),
    8: ((10, 13), (16, 30), (33, 23)),
}
"""Stride -> width and height, in pictures whose side is ANCHORED: COCO's."""
ANCHORED = 416
PLACE, SIZE, EMPTY = 2.5, 2.5, 0.5  # weights in the loss; a box that is there, and its class, weigh 1
SIMILAR = 0.5  # overlap of shapes from which an anchor is not taught to be empty
SURE = 0.5  # score from which a box counts
OVERLAP = 0.5  # from which a box is another's duplicate
OUTPUTS = 6  # of an anchor: x, y, width, height, whether a box is there, whether it is of the one class


class Yolo(nn.Module):
    """Reads maps of `channels` {stride: C} of pictures whose side is `side` pixels, as the encoder sees
    them."""

    def __init__(self, channels: Mapping[int, int], side: int) -> None:
        super().__init__()
        self.anchors = {s: torch.tensor(shapes) * (side / ANCHORED) for s, shapes in ANCHORS.items()}
        self.before, self.after, self.across = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        handed = 0  # channels from the stride above
        for stride, shapes in self.anchors.items():
            width = max(channels[stride] // 4, 4)
            if handed:
                self.across[str(stride)] = _block(handed, handed // 2, 1)
            wide = channels[stride] + handed // 2
            self.before[str(stride)] = nn.Sequential(
                _block(wide, width, 1),
                _block(width, 2 * width, 3),
                _block(2 * width, width, 1),
                _block(width, 2 * width, 3),
                _block(2 * width, width, 1),
            )
            self.after[str(stride)] = nn.Sequential(
                _block(width, 2 * width, 3), nn.Conv2d(2 * width, len(shapes) * OUTPUTS, 1)
            )
            handed = width

    def forward(self, pyramid: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """{stride: [B, A, h, w, OUTPUTS]} float32"""
        outputs, above = {}, None
        with autocast(pyramid[8].device):
            for stride in self.anchors:
                maps = pyramid[stride]
                if above is not None:
                    larger = F.interpolate(self.across[str(stride)](above), maps.shape[2:], mode="nearest")
                    maps = torch.cat([larger, maps], dim=1)
                above = self.before[str(stride)](maps)
                outputs[stride] = self.after[str(stride)](above).float()
        return {
            stride: raw.unflatten(1, (-1, OUTPUTS)).permute(0, 1, 3, 4, 2) for stride, raw in outputs.items()
        }

    def loss(self, pyramid: Mapping[int, Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """`boxes` B times [K, 4] xyxy in pixels of what the encoder saw."""
        boxes = [own.cpu() for own in boxes]  # a GPU would be waited for at each of them
        terms = []
        for stride, raw in self(pyramid).items():
            assigned = assign(boxes, self.anchors[stride], stride, raw.shape[2:4])
            terms.append(stride_loss(raw, Assigned(*(part.to(raw.device) for part in assigned))))
        return torch.stack(terms).sum()

    @torch.no_grad()
    def find(self, pyramid: Mapping[int, Tensor]) -> list[Found]:
        """The boxes of each picture that are SURE, without duplicates."""
        read = [decode(raw, self.anchors[s].to(raw), s) for s, raw in self(pyramid).items()]
        boxes, scores = (torch.cat(parts, dim=1) for parts in zip(*read, strict=True))
        return [_without_duplicates(*one) for one in zip(boxes, scores, strict=True)]


class Assigned(NamedTuple):
    """What the outputs at one stride should be, for A anchors in h x w cells."""

    there: Tensor  # [B, A, h, w] bool: a box is
    empty: Tensor  # [B, A, h, w] bool: taught that none is
    coded: Tensor  # [B, A, h, w, 4]: place in the cell, and logarithm of the size in anchors; 0 without a box


def assign(boxes: Sequence[Tensor], anchors: Tensor, stride: int, grid: Sequence[int]) -> Assigned:
    """Targets at one stride for `boxes` (B times [K, 4] xyxy) and `anchors` [A, 2], both in pixels. Where one
    anchor of one place is assigned two boxes, the last one counts."""
    height, width = grid
    there = anchors.new_zeros(len(boxes), len(anchors), height, width, dtype=torch.bool)
    empty, coded = torch.ones_like(there), anchors.new_zeros(*there.shape, 4)
    for image, own in enumerate(boxes):
        centres, sizes = (own[:, :2] + own[:, 2:]) / 2 / stride, (own[:, 2:] - own[:, :2]) / stride
        similar = shape_overlap(sizes, anchors / stride)  # [K, A]
        for centre, size, overlap in zip(centres, sizes, similar, strict=True):
            x, y = centre.long().tolist()
            best = int(overlap.argmax())
            empty[image, overlap > SIMILAR, y, x] = False
            there[image, best, y, x] = True
            code = torch.cat([centre - centre.new_tensor([x, y]), (size * stride / anchors[best]).log()])
            coded[image, best, y, x] = code
    return Assigned(there, empty, coded)


def shape_overlap(sizes: Tensor, anchors: Tensor) -> Tensor:
    """[K, A] of boxes [K, 2] with anchors [A, 2] at the same corner, in cells, each one cell larger."""
    larger, shapes = sizes[:, None] + 1, anchors[None] + 1
    both = torch.minimum(larger, shapes).prod(dim=2)
    return both / (larger.prod(dim=2) + shapes.prod(dim=2) - both)


def stride_loss(raw: Tensor, assigned: Assigned) -> Tensor:
    """Loss of the outputs [B, A, h, w, OUTPUTS] of one stride: each term a mean over all places, with boxes
    or without."""
    there, empty, coded = assigned
    own, code = raw[there], coded[there]
    sure = F.binary_cross_entropy_with_logits
    terms = (
        PLACE * sure(own[:, :2], code[:, :2], reduction="sum"),
        SIZE * F.mse_loss(own[:, 2:4], code[:, 2:], reduction="sum"),
        sure(own[:, 4:], torch.ones_like(own[:, 4:]), reduction="sum"),
        EMPTY * F.softplus(raw[..., 4][empty]).sum(),
    )
    return torch.stack(terms).sum() / there.numel()


def decode(raw: Tensor, anchors: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Boxes [B, A h w, 4] xyxy in pixels and their scores [B, A h w]."""
    height, width = raw.shape[2:4]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    centres = (raw[..., :2].sigmoid() + torch.stack([x, y], dim=-1).to(raw)) * stride
    halves = raw[..., 2:4].exp() * anchors[:, None, None] / 2
    boxes = torch.cat([centres - halves, centres + halves], dim=-1).flatten(1, 3)
    return boxes, raw[..., 4].sigmoid().flatten(1)


def _without_duplicates(boxes: Tensor, scores: Tensor) -> Found:
    boxes, scores = boxes[scores >= SURE], scores[scores >= SURE]
    larger = boxes + boxes.new_tensor([0, 0, 1, 1])
    kept = nms(larger, scores, OVERLAP)[:MOST]
    return Found(boxes[kept], scores[kept])


def _block(wide: int, width: int, kernel: int) -> nn.Sequential:
    convolution = nn.Conv2d(wide, width, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.LeakyReLU(0.1))
