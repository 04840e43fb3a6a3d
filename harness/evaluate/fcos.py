"""The detector on a frozen encoder's pyramid: torchvision's feature pyramid network and head of FCOS.

Apart because both are the field's and know no task. FCOS (Tian et al., ICCV 2019) needs no anchor boxes,
whose sizes would be one more thing to tune per dataset. Where it differs here from torchvision's own:

- levels are the encoder's strides 4 to 32, not 8 to 128: pictures are 80 to 300 pixels wide, not 800;
- a level is in charge of boxes half as large for its stride, so that several levels get some (`SIZE`);
- each convolution of the feature pyramid is followed by a norm over a picture's whole map: what it reads is
  frozen, and of another scale in every encoder. A norm of each channel by itself learns far more slowly on
  pictures as small as those of the tests;
- places are strides apart, not the picture's side divided by the map's, rounded down: 80 / 3 is not 32.

As in the published network, a place learns a box only if it lies in it. The finest are 4 pixels apart, so
some boxes narrower than that have none and are learnt as background: of a picture that an encoder sees at 224
pixels more than at 299.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOS, FCOSHead
from torchvision.ops import FeaturePyramidNetwork

from harness.device import autocast

WIDEST = 256  # channels of every level in the published network
GROUPS = 32  # of its group norms: widths are multiples
CONVOLUTIONS = 4  # of each branch of the head, in the published network
SIZE = 0.5
"""Side of the square at a place, in strides. Boxes are coded in this unit; a level takes those whose farthest
side is 4 to 8 units from the place."""
REACH = 1.5 / SIZE  # of a box's centre, in squares: 1.5 strides, as in the published network
LOWEST_SCORE = 0.05  # detectron2's and torchvision's for RetinaNet; FCOS's own 0.2 would cut the curve short
OVERLAP = 0.5  # from which a box is another's duplicate (MGCA)
MOST = 100  # boxes of an image (COCO)


class Found(NamedTuple):
    """Boxes of one picture, best first."""

    boxes: Tensor  # [K, 4] xyxy
    scores: Tensor  # [K] in 0..1


class Detector(nn.Module):
    """Reads maps of `channels` {stride: C} of square pictures. The network is a quarter as wide as the
    deepest map, and no wider than the published one."""

    def __init__(self, channels: Mapping[int, int]) -> None:
        super().__init__()
        self.strides = sorted(channels)
        wanted = channels[self.strides[-1]] // 4 // GROUPS * GROUPS
        self.width = min(WIDEST, max(GROUPS, wanted))
        neck = FeaturePyramidNetwork(
            [channels[stride] for stride in self.strides], self.width, norm_layer=partial(nn.GroupNorm, 1)
        )
        neck.out_channels = self.width  # what FCOS asks of a backbone
        squares = tuple((int(SIZE * stride),) for stride in self.strides)
        self.fcos = FCOS(
            neck,
            num_classes=1,
            anchor_generator=AnchorGenerator(squares, ((1.0,),) * len(squares)),
            head=FCOSHead(self.width, num_anchors=1, num_classes=1, num_convs=CONVOLUTIONS),
            center_sampling_radius=REACH,
            score_thresh=LOWEST_SCORE,
            nms_thresh=OVERLAP,
            detections_per_img=MOST,
        )

    def loss(self, pyramid: Mapping[int, Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """FCOS's three terms, added: focal loss of the places, generalised overlap of the boxes, centre-ness.

        `pyramid` {stride: [B, C, h, w]}, `boxes` B times [K, 4] xyxy in pixels of what the encoder saw.
        """
        outputs, squares = self._read(pyramid)
        targets = [
            {"boxes": true, "labels": torch.zeros(len(true), dtype=torch.int64, device=true.device)}
            for true in boxes
        ]
        places = [len(level) for level in squares]
        terms = self.fcos.compute_loss(targets, outputs, [torch.cat(squares)] * len(boxes), places)
        total: Tensor = sum(terms.values())
        return total

    @torch.no_grad()
    def find(self, pyramid: Mapping[int, Tensor]) -> list[Found]:
        """The boxes of each picture, in pixels of what the encoder saw, without duplicates."""
        outputs, squares = self._read(pyramid)
        places = [len(level) for level in squares]
        by_level = {name: list(torch.split(values, places, dim=1)) for name, values in outputs.items()}
        finest = self.strides[0]
        pictures, _, height, width = pyramid[finest].shape
        border = (finest * height, finest * width)
        found = self.fcos.postprocess_detections(by_level, [squares] * pictures, [border] * pictures)
        return [Found(one["boxes"], one["scores"]) for one in found]

    def _read(self, pyramid: Mapping[int, Tensor]) -> tuple[dict[str, Tensor], list[Tensor]]:
        """The head's outputs [B, places, ...] and the squares [places, 4] of each level."""
        device = pyramid[self.strides[0]].device
        with autocast(device):
            levels = self.fcos.backbone({str(stride): pyramid[stride] for stride in self.strides})
            outputs = self.fcos.head(list(levels.values()))
        generator = self.fcos.anchor_generator
        generator.set_cell_anchors(torch.float32, device)
        grids = [list(level.shape[2:]) for level in levels.values()]
        squares = generator.grid_anchors(grids, [[stride, stride] for stride in self.strides])
        return {name: values.float() for name, values in outputs.items()}, squares
