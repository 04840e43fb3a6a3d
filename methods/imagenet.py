"""The second floor: an image encoder trained on ImageNet's photographs, and on no X-ray.

Every method starts from such weights in its paper profile. What a probe reaches on them is due to
photographs; a method has to beat it to have learned anything from reports. All seeds share the weights.
"""

from __future__ import annotations

from torch import Tensor, nn

from harness.contracts import ImageBackbone, ImageFeatures, MethodCard, Preprocessing, Profile
from methods._image import ImageEncoder

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

CARD = MethodCard(
    title="ImageNet",
    version=1,
    citation="He et al., CVPR 2016; weights of torchvision (V1)",
    year=2016,
    source="timm's resnet18.tv_in1k and resnet50.tv_in1k",
    licence="BSD-3-Clause",
    trained_on=("imagenet",),
    profiles={
        "demo": Profile(
            image=ImageBackbone("resnet18.tv_in1k", pretrained=True),
            preprocessing=Preprocessing(80, 88, "stretch", IMAGENET_MEAN, IMAGENET_STD),
        ),
        "paper": Profile(
            image=ImageBackbone("resnet50.tv_in1k", pretrained=True),
            preprocessing=Preprocessing(224, 256, "stretch", IMAGENET_MEAN, IMAGENET_STD),
        ),
    },
)


class ImageNet(nn.Module):
    def __init__(self, profile: Profile, *, initialise: bool) -> None:
        super().__init__()
        self.encoder = ImageEncoder(profile.image, initialise=initialise)

    def encode_image(self, x: Tensor) -> ImageFeatures:
        pooled, pyramid = self.encoder(x)
        return ImageFeatures(pooled, None, None, pyramid)


def build(profile: Profile, *, initialise: bool = True) -> ImageNet:
    """Raises CheckpointError when the weights are neither on this machine nor within its reach."""
    return ImageNet(profile, initialise=initialise)
