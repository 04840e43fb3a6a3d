"""MGCA's losses and model, for either picture side: pairs, words with regions, and shared prototypes.

Apart because `mgca` and `mgca_vit` differ in their card and their image encoder only. Formulas: the
authors' code at commit 680fe4a.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.contracts import Batch, ImageFeatures, Layout, Profile, TextFeatures
from harness.files import file_hash, hash_of
from methods import _sentences
from methods._heads import projection
from methods._image import PATCH, STRIDES, ImageEncoder, VisionTransformer
from methods._losses import contrast, cosines, full_precision, nothing_to_contrast, positives
from methods._text import PAD, TrainedText, merge, require_words, trimmed

UNIT = "impression+findings"
EMBEDDING = 128  # d, of pictures, reports, regions and words
HIDDEN = 2048  # width within the heads
PROTOTYPES = 500
PAIR_TEMPERATURE = 0.07
TOKEN_TEMPERATURE = 0.1  # between words and regions
PROTOTYPE_TEMPERATURE = 0.2
CODE_TEMPERATURE = 0.05  # of the prototypes a pair is assigned to
ROUNDS = 3  # of Sinkhorn's balancing
QUANTILES = (0.1, 0.9)  # that attention weights are clipped to
SHORTEST = 2  # words of a sentence

ZEROS = ("text.model.embeddings.token_type_embeddings.weight",)  # there are no token types
DROPPED = {
    "*.position_ids": "a constant of older transformers",
    "*.crossattention.*": "never used: the text encoder reads no pictures",
    "*_local_atten_layer.*": "never used",
}
RENAMED = {
    "img_encoder_q.model.": "encoder.net.",
    "img_encoder_q.global_embed.head.": "image_head.",
    "img_encoder_q.local_embed.head.": "region_head.",
    "text_encoder_q.model.": "text.model.",
    "text_encoder_q.global_embed.head.": "report_head.",
    "text_encoder_q.local_embed.head.": "word_head.",
    "prototype_layer.": "prototypes.",
}


def layout(title: str, paper: Profile, marker: str) -> Layout:
    """Of the authors' checkpoints, whose text encoder put every token at position 0."""
    assert paper.text is not None
    profile = replace(paper, text=replace(paper.text, positions="zero"))
    return Layout(title, profile, (marker,), RENAMED, DROPPED, ZEROS)


def pair_alignment(image: Tensor, report: Tensor, targets: Tensor | None = None) -> Tensor:
    """ITA: both directions of InfoNCE between pictures and reports [B, d]. `targets`: see `contrast`."""
    return torch.stack(contrast(cosines(image, report) / PAIR_TEMPERATURE, targets)).sum()


@torch.no_grad()
def clipped(weights: Tensor) -> Tensor:
    """Attention [B, N] clipped to its quantiles and summing to 1 in each row; zeros are no part of either."""
    weights = weights.float()
    known = weights.masked_fill(weights == 0, torch.nan)
    low, high = known.nanquantile(torch.tensor(QUANTILES, device=weights.device), dim=1, keepdim=True)
    return F.normalize(weights.clamp(low, high) * (weights != 0), p=1, dim=1)


@full_precision
def token_alignment(
    queries: Tensor,
    keys: Tensor,
    weights: Tensor,
    *,
    query_mask: Tensor | None = None,
    key_mask: Tensor | None = None,
    normalise: bool = True,
) -> Tensor:
    """Half of CTA: each query tells what it attends to from what the other queries attend to, and back.

    `queries` [B, Q, d] and `keys` [B, K, d] of unit length, `weights` [B, Q] of the queries, masks [B, Q] and
    [B, K] true where there is a token. Without `normalise`, what is attended to keeps its length.
    """
    scores = queries @ keys.transpose(1, 2) / TOKEN_TEMPERATURE
    if key_mask is not None:
        scores = scores.masked_fill(~key_mask[:, None], -torch.inf)
    attended = scores.softmax(dim=2) @ keys  # [B, Q, d]
    if normalise:
        attended = F.normalize(attended, dim=2)
    logits = queries @ attended.transpose(1, 2) / TOKEN_TEMPERATURE  # [B, Q, Q]
    own = logits.diagonal(dim1=1, dim2=2)
    rows = columns = logits
    if query_mask is not None:
        rows = logits.masked_fill(~query_mask[:, None], -torch.inf)
        columns = logits.masked_fill(~query_mask[:, :, None], -torch.inf)
    surprise = (rows.logsumexp(dim=2) + columns.logsumexp(dim=1)) / 2 - own
    return (weights * surprise).sum() / len(queries)


@torch.no_grad()
def codes(scores: Tensor) -> Tensor:
    """Soft assignments [B, K] to prototypes that are all used alike (Sinkhorn, in the logarithmic domain)."""
    assigned = scores / CODE_TEMPERATURE
    for _ in range(ROUNDS):
        assigned = assigned.log_softmax(dim=0).log_softmax(dim=1)
    return assigned.exp()


@full_precision
def prototype_alignment(image: Tensor, report: Tensor, prototypes: Tensor) -> Tensor:
    """CPA: each side predicts the other's code. [B, d] twice and [K, d], all of unit length."""
    seen, read = image @ prototypes.T, report @ prototypes.T  # [B, K]
    from_report = -(codes(seen) * (read / PROTOTYPE_TEMPERATURE).log_softmax(dim=1)).sum(dim=1)
    from_image = -(codes(read) * (seen / PROTOTYPE_TEMPERATURE).log_softmax(dim=1)).sum(dim=1)
    return (from_report + from_image).mean() / 2


class Mgca(nn.Module):
    """Either image encoder under four heads of one shape, a trained BERT, and prototypes of unit length."""

    def __init__(
        self, profile: Profile, encoder: ImageEncoder | VisionTransformer, *, initialise: bool
    ) -> None:
        super().__init__()
        assert profile.text is not None
        text = replace(profile.text, positions="zero") if profile.official else profile.text
        self.official, self.slots = profile.official, text.max_length
        self.encoder = encoder
        self.text = TrainedText(text, initialise=initialise)
        self.image_head = projection(encoder.width, HIDDEN, EMBEDDING)
        self.region_head = projection(encoder.channels[STRIDES.index(PATCH)], HIDDEN, EMBEDDING)
        self.report_head = projection(text.width, HIDDEN, EMBEDDING)
        self.word_head = projection(text.width, HIDDEN, EMBEDDING)
        self.prototypes = nn.Linear(EMBEDDING, PROTOTYPES, bias=False)

    def encode_image(self, x: Tensor) -> ImageFeatures:
        pooled, pyramid = self.encoder(x)
        local = self._regions(pyramid[PATCH].flatten(2).transpose(1, 2))
        return ImageFeatures(pooled, self.image_head(pooled), local, pyramid)

    @property
    def text_key(self) -> str:
        return hash_of(self.text.key, _sentences.RULES, file_hash(Path(__file__)), self.official)

    def prepare_text(self, texts: Sequence[str]) -> Tensor:
        """Token ids [len(texts), T] of each text's sentences in a row."""
        rule = _sentences.released_sentences if self.official else _sentences.sentences
        read = [" ".join(rule(text, SHORTEST)) for text in texts]
        tokens = self.text.tokens(read)
        return tokens * torch.tensor([text != "" for text in read])[:, None]

    def encode_text(self, prepared: Tensor) -> TextFeatures:
        require_words((prepared != PAD).any(dim=1))
        return self._read(trimmed(prepared))[0]

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        rows = batch.present[UNIT]
        if rows.sum() < 2:
            return nothing_to_contrast(self, "pairs", "tokens", "prototypes")
        image, regions, region_weights = batch.spread(self._see, batch.views[0][rows])
        report, word_weights = batch.spread(self._read, trimmed(batch.text[UNIT][rows]))
        seen, read = F.normalize(image, dim=1), F.normalize(report.embedding, dim=1)
        regions, words = F.normalize(regions, dim=2), F.normalize(report.local, dim=2)
        with torch.no_grad():
            self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))
        prototypes = self.prototypes.weight if batch.epoch else self.prototypes.weight.detach()
        transformer = isinstance(self.encoder, VisionTransformer)
        word_mask = None if self.official else report.mask
        from_words = token_alignment(words, regions, clipped(word_weights), query_mask=word_mask)
        from_regions = token_alignment(
            regions,
            words,
            clipped(region_weights),
            key_mask=report.mask,
            normalise=not (self.official and transformer),
        )
        terms = {
            "pairs": pair_alignment(seen, read, positives(batch.study, rows)),
            "tokens": from_words + from_regions,
            "prototypes": prototype_alignment(seen, read, prototypes),
        }
        return torch.stack(list(terms.values())).sum(), {name: term.detach() for name, term in terms.items()}

    def pairs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        rows = batch.present[UNIT]
        image = batch.spread(lambda x: self.image_head(self.encoder(x)[0]), batch.views[0][rows])
        return image, batch.spread(self._read, trimmed(batch.text[UNIT][rows]))[0].embedding

    def similarity(self, image: ImageFeatures, text: TextFeatures) -> Tensor:
        assert image.embedding is not None
        return cosines(image.embedding, text.embedding)

    def _see(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures [B, d], regions [B, P, d] and the weight of each region [B, P]."""
        pooled, regions, weights = self.encoder.attend(x)
        return self.image_head(pooled), self._regions(regions), weights

    def _regions(self, regions: Tensor) -> Tensor:
        """[B, P, C] to [B, P, d]."""
        local: Tensor = self.region_head(regions.flatten(0, 1)).view(*regions.shape[:2], EMBEDDING)
        return local

    def _read(self, tokens: Tensor) -> tuple[TextFeatures, Tensor]:
        """Features of reports and words, and the weight of each word [B, W], for trimmed tokens."""
        states = self.text(tokens)
        words, weights, mask = self._words(states, tokens)
        entering = torch.ones_like(mask) if self.official else mask
        projected = self.word_head(words[entering])
        local = projected.new_zeros(*mask.shape, EMBEDDING)
        local[entering] = projected
        return TextFeatures(self.report_head(states[-1][:, 0]), local, mask), weights

    def _words(self, states: Sequence[Tensor], tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Words [B, W, C] with SEP and without CLS, what CLS attends to [B, W], where one is [B, W]."""
        attention = self.text.first_token_attention(states, tokens)[..., None]  # [B, T, 1]
        if self.official:  # every token is given the next one's
            attention = F.pad(attention[:, 1:], (0, 0, 0, 1))
        words, count = merge(states[-1], tokens, self.text.starts_word)
        weights, _ = merge(attention, tokens, self.text.starts_word)
        words, weights = words[:, 1:], weights[:, 1:, 0]
        slot = torch.arange(1, tokens.shape[1], device=tokens.device)
        if not self.official:  # SEP, which would get most, counts nothing
            return words, weights * (slot < count[:, None] - 1), slot < count[:, None]
        cut = (tokens != PAD).sum(dim=1) == self.slots  # such a text loses its last word and SEP
        mask = slot < (count - 2 * cut)[:, None]
        empty = self.slots - tokens.shape[1]  # slots beyond the longest text take part as well
        words, weights = words * mask[..., None], weights * mask
        return F.pad(words, (0, 0, 0, empty)), F.pad(weights, (0, empty)), F.pad(mask, (0, empty))
