"""The floor: IMITATE's image encoder before any training.

What a probe reaches on it is due to the architecture and the pixels; a method has to beat it to have
learned anything. Every seed draws weights of its own.
"""

from __future__ import annotations

from harness.contracts import ImageBackbone, MethodCard, Preprocessing, Profile
from methods._image import ImageOnly

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

CARD = MethodCard(
    title="Random initialisation",
    version=1,
    citation="",
    year=2025,
    source="none: the backbone's own initialisation in timm",
    licence="Apache-2.0",
    trained_on=(),
    profiles={
        "demo": Profile(
            image=ImageBackbone("resnet18", options={"channels": (32, 64, 128, 256)}),
            preprocessing=Preprocessing(80, 88, "stretch", IMAGENET_MEAN, IMAGENET_STD),
        ),
        "paper": Profile(
            image=ImageBackbone("resnet50"),
            preprocessing=Preprocessing(224, 256, "stretch", IMAGENET_MEAN, IMAGENET_STD),
        ),
    },
)


def build(profile: Profile, *, initialise: bool = True) -> ImageOnly:
    """Nothing to load either way: `initialise` would ask for pre-trained weights, and the floor has none."""
    return ImageOnly(profile, initialise=False)
