"""The word side that methods share: a BERT that is frozen, or one that is trained along.

Apart because a method is its heads and its loss. A frozen encoder's features are constants of a text: it is
loaded only when a text is new, and its weights are never copied into a checkpoint. Of a trained one, only
the token ids are constant.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from harness.contracts import TextBackbone
from harness.errors import UsageError
from methods._bert import VOCABULARY, WEIGHTS, folder_of, key_of, library, model_of, tokenizer_of

BATCH = 64  # texts a forward; sorted by length outside, so that padding stays small
PAD = 0  # in every BERT's vocabulary


class FrozenText:
    """Last hidden state of a BERT in evaluation mode, one vector per text: its CLS token or the mean of its
    tokens. Nothing is loaded before the first text."""

    def __init__(self, backbone: TextBackbone) -> None:
        self.backbone = backbone

    def __call__(self, texts: Sequence[str], device: torch.device | str = "cpu") -> Tensor:
        """[len(texts), W] float32 on the CPU. Raises CheckpointError when the weights cannot be had."""
        tokenizer, model = self._loaded
        model.to(device)
        rows = []
        with torch.inference_mode():
            for start in range(0, len(texts), BATCH):
                tokens = tokenizer(
                    list(texts[start : start + BATCH]),
                    padding="longest",
                    truncation=True,
                    max_length=self.backbone.max_length,
                    return_tensors="pt",
                ).to(device)
                hidden = model(**tokens).last_hidden_state  # [b, T, W]
                if self.backbone.pooling == "cls":
                    rows.append(hidden[:, 0].cpu())
                else:
                    mask = tokens["attention_mask"][..., None]
                    rows.append(((hidden * mask).sum(1) / mask.sum(1)).cpu())
        return torch.cat(rows).clone()  # a plain tensor: inference tensors cannot take part in training

    @cached_property
    def key(self) -> str:
        """Names a cache of features: settings, vocabulary and weights."""
        return key_of(self.backbone, (*VOCABULARY, *WEIGHTS))

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        folder = folder_of(self.backbone.source)
        return tokenizer_of(self.backbone), model_of(folder).eval().requires_grad_(False)


class TrainedText(nn.Module):
    """All hidden states of a BERT whose upper layers are trained.

    Args:
        initialise: load the published weights. False when a checkpoint's follow anyway.

    Raises CheckpointError when its files cannot be had.
    """

    starts_word: Tensor

    def __init__(self, backbone: TextBackbone, *, initialise: bool) -> None:
        super().__init__()
        self.backbone = backbone
        folder = folder_of(backbone.source)
        sizes = {"num_hidden_layers": backbone.layers} if backbone.layers else {}
        if initialise:
            self.model: Any = model_of(folder, **sizes)
        else:
            bert = library().BertModel
            self.model = bert(bert.config_class.from_pretrained(folder, **sizes), add_pooling_layer=False)
        self.tokenizer = tokenizer_of(backbone)
        vocabulary = self.tokenizer.get_vocab()
        starts_word = torch.ones(max(vocabulary.values()) + 1, dtype=torch.bool)
        starts_word[[number for piece, number in vocabulary.items() if piece.startswith("##")]] = False
        self.register_buffer("starts_word", starts_word, persistent=False)  # [V]
        if backbone.positions == "zero":
            nn.init.zeros_(self.model.embeddings.token_type_embeddings.weight).requires_grad_(False)
        lower = [self.model.embeddings, *self.model.encoder.layer[: backbone.frozen_layers]]
        self._frozen = lower if backbone.frozen_layers else []
        for part in self._frozen:
            part.requires_grad_(False)

    @property
    def key(self) -> str:
        """Names a cache of token ids: settings and vocabulary."""
        return key_of(self.backbone, VOCABULARY)

    def train(self, mode: bool = True) -> TrainedText:
        """Frozen layers stay in evaluation mode: without dropout they are the same function at every step."""
        super().train(mode)
        for part in self._frozen:
            part.eval()
        return self

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """Ids [len(texts), longest] int32, 0 beyond each text's end."""
        found = self.tokenizer(
            list(texts), padding="longest", truncation=True, max_length=self.backbone.max_length
        )
        return torch.tensor(found["input_ids"], dtype=torch.int32)

    def forward(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """Hidden states [B, T, W] of the embeddings and of each layer, for ids [B, T]."""
        mask = (tokens != PAD).long()
        positions = torch.zeros_like(tokens) if self.backbone.positions == "zero" else None
        states: tuple[Tensor, ...] = self.model(
            tokens, attention_mask=mask, position_ids=positions, output_hidden_states=True
        ).hidden_states
        return states

    @torch.no_grad()
    def first_token_attention(self, states: Sequence[Tensor], tokens: Tensor) -> Tensor:
        """How the last layer's CLS token attends to each token: [B, T], mean over heads, before dropout."""
        attention = self.model.encoder.layer[-1].attention.self
        heads = attention.num_attention_heads
        query = attention.query(states[-2][:, 0]).unflatten(-1, (heads, -1))  # [B, H, d]
        key = attention.key(states[-2]).unflatten(-1, (heads, -1))  # [B, T, H, d]
        scores = torch.einsum("bhd,bthd->bht", query, key) / query.shape[-1] ** 0.5
        weights: Tensor = scores.masked_fill((tokens == PAD)[:, None], -torch.inf).softmax(dim=-1)
        return weights.mean(dim=1)


def trimmed(tokens: Tensor) -> Tensor:
    """Ids [B, T] without the columns that are padding in every row, the first one kept."""
    return tokens[:, : max(1, int((tokens != PAD).sum(dim=1).max()))]


def require_words(found: Tensor) -> None:
    """Raises UsageError for texts of which a method reads nothing; `found` [B] is true for the others."""
    empty = [str(row + 1) for row in (~found).nonzero()[:, 0].tolist()]
    if empty:
        raise UsageError(
            f"nothing to compare a picture with: of {len(found)} texts, the method finds no word in number "
            f"{', '.join(empty)}. Give each of them one"
        )


def merge(values: Tensor, tokens: Tensor, starts_word: Tensor) -> tuple[Tensor, Tensor]:
    """From word pieces to words: sums of `values` [B, T, W] over the pieces of each word, and how many words.

    A piece that does not start a word belongs to the one before; CLS and SEP are words. Slots beyond the
    last word are zero. `starts_word` [V] is a table over the vocabulary.
    """
    rows, slots = tokens.shape
    real = tokens != PAD
    word = (starts_word[tokens] & real).cumsum(dim=1)  # [B, T] from 1
    first = torch.arange(rows, device=tokens.device)[:, None] * slots
    slot = (first + word - 1).masked_fill(~real, rows * slots)  # pads share one slot, cut off again
    merged = values.new_zeros(rows * slots + 1, values.shape[2])
    merged = merged.index_add(0, slot.flatten(), values.flatten(0, 1))
    return merged[:-1].view_as(values), word[:, -1]
