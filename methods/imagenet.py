"""The second floor: an image encoder trained on ImageNet's photographs, and on no X-ray.

Every trained method starts from such weights in its paper profile. What a probe reaches on them is due to
photographs; a method has to beat it to have learned anything from reports. All seeds share the weights.
"""

from __future__ import annotations

from harness.contracts import ImageBackbone, Layout, MethodCard, Preprocessing, Profile
from methods._image import ImageOnly

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

LAYOUTS = (
    Layout(
        "ResNet-50 of torchvision or timm",
        CARD.profiles["paper"],
        markers=("conv1.weight", "layer1.0.conv3.weight"),
        renamed={"": "encoder.net."},
        dropped={"fc.*": "classes of ImageNet"},
    ),
)


def build(profile: Profile, *, initialise: bool = True) -> ImageOnly:
    """Raises CheckpointError when the weights are neither on this machine nor within its reach."""
    return ImageOnly(profile, initialise=initialise)
