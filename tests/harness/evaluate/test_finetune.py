"""Fine-tuning learns what frozen features miss, is the same twice, and keeps what was best on validation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness.contracts import ImageFeatures
from harness.errors import TrainingDiverged, UsageError
from harness.evaluate import classifier, finetune
from harness.evaluate.finetune import Finetuned
from harness.metrics.auroc import macro_auroc
from tests.fakes import Tiny
from tests.harness.evaluate import parts
from tests.harness.evaluate.parts import CLASSES, LABELS, TASK


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few steps."""
    monkeypatch.setattr(finetune, "FEWEST", 60)
    monkeypatch.setattr(finetune, "EPOCHS", 1)


RATES = {"head_rate": 0.05, "encoder_rate": 0.02, "weight_decay": 0.02}  # for a network of 400 weights


def fitted(folder: Path, seed: int = 0, hidden: int = 0) -> tuple[Finetuned, dict[str, np.ndarray]]:
    """On pictures whose test part is drawn with the seed `hidden`; predictions are of the validation part."""
    labels = parts.several(320)
    pixels = parts.pictures(labels)
    pixels[240:] = parts.pictures(labels[240:], seed=hidden)
    train, validation, _ = parts.examples(folder, labels, pixels)
    head = finetune.fit(train.bench, TASK, train, validation, seed, RATES)
    return head, head.predict(validation)


def test_it_learns_several_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finetune, "FEWEST", 200)
    labels = parts.several(320)
    train, validation, test = parts.examples(tmp_path, labels, parts.pictures(labels))
    head = finetune.fit(train.bench, TASK, train, validation, 0, RATES)
    arrays = head.predict(test)
    assert {name: array.dtype.name for name, array in arrays.items()} == {
        "truth": "int8",
        "scores": "float32",
        "decisions": "int8",
    }
    assert np.array_equal(arrays["truth"], test.labels)
    assert macro_auroc(test.labels, arrays["scores"], LABELS) > 0.95
    assert (arrays["decisions"] == test.labels).mean() > 0.85


def test_it_learns_classes(tmp_path: Path) -> None:
    labels = parts.one_of_each(320)
    train, validation, test = parts.examples(tmp_path, labels, parts.pictures(labels))
    arrays = finetune.fit(train.bench, CLASSES, train, validation, 0, RATES).predict(test)
    assert (arrays["decisions"] == test.labels.argmax(axis=1)).mean() > 0.85
    assert np.array_equal(arrays["decisions"], arrays["scores"].argmax(axis=1))
    odds = np.exp(arrays["scores"].astype(float))
    assert (odds / (1 + odds)).sum(axis=1) == pytest.approx(1, abs=1e-5)  # those of a softmax


def test_what_is_kept_is_what_validation_liked_best(tmp_path: Path) -> None:
    head, arrays = fitted(tmp_path)
    block = head.block
    assert block.candidates == tuple(range(6, 6 * len(block.validation) + 1, 6))  # ten in 60 steps
    best = max(block.validation)
    assert macro_auroc(arrays["truth"], arrays["scores"], LABELS) == pytest.approx(best, abs=1e-6)
    assert block.chosen["steps"] == block.candidates[block.validation.index(best)]
    assert {f"threshold:{label}" for label in LABELS} == block.chosen.keys() - {"steps"}


def test_it_stops_when_validation_no_longer_improves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([0.5, 0.7, 0.6, 0.7, 0.65, 0.99])
    monkeypatch.setattr(finetune, "PATIENCE", 3)
    monkeypatch.setitem(finetune.classifier.SELECTION, "macro_auroc", lambda *_: next(values))
    head, _ = fitted(tmp_path)
    assert head.block.validation == (0.5, 0.7, 0.6, 0.7, 0.65)
    assert head.block.chosen["steps"] == 12  # the first of equals


def test_a_configuration_is_told_and_each_validation_is_reported(tmp_path: Path) -> None:
    labels = parts.several(320)
    train, validation, _ = parts.examples(tmp_path, labels, parts.pictures(labels))
    heard: list[tuple[int, int, float]] = []
    head = finetune.fit(train.bench, TASK, train, validation, 0, RATES, lambda *told: heard.append(told))
    block = head.block
    assert {name: block.settings[name] for name in RATES} == RATES
    best = np.maximum.accumulate(block.validation)
    assert heard == [(steps, 60, value) for steps, value in zip(block.candidates, best, strict=True)]


def test_the_same_seed_is_the_same_and_another_is_not(tmp_path: Path) -> None:
    first, again, other = (fitted(tmp_path, seed)[1]["scores"] for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.allclose(first, other, atol=0.1)


def test_scores_are_finer_than_half_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a GPU, where the encoder computes in bfloat16: the layer does not."""
    monkeypatch.setattr(finetune, "autocast", lambda place: torch.autocast(place.type, torch.bfloat16))
    scores = torch.from_numpy(fitted(tmp_path)[1]["scores"])
    assert not torch.equal(scores, scores.bfloat16().float())


def test_no_test_picture_has_an_influence(tmp_path: Path) -> None:
    first, other = (fitted(tmp_path, hidden=seed)[1]["scores"] for seed in (0, 1))
    assert np.array_equal(first, other)


def test_fewer_images_than_a_batch_are_one_batch(tmp_path: Path) -> None:
    labels = parts.several(40)
    train, validation, _ = parts.examples(tmp_path, labels, parts.pictures(labels))
    head = finetune.fit(train.bench, TASK, train, validation, 0, RATES)
    assert (head.block.settings["batch"], head.block.settings["steps"]) == (20, 60)


def test_an_epoch_shows_every_picture_once(tmp_path: Path) -> None:
    labels = parts.several(60)
    pixels = np.arange(60, dtype=np.uint8)[:, None, None].repeat(10, 1).repeat(10, 2)  # a shade of its own
    train, _, _ = parts.examples(tmp_path, labels, pixels)
    source = finetune.batches(train, 10, seed=0)
    epochs = []
    for _ in range(2):
        drawn = [next(source) for _ in range(3)]
        shades = torch.cat([view[:, 0, 0, 0] for view, _ in drawn]) * 0.25 + 0.5  # mean and deviation undone
        rows = (shades * 255).round().int().numpy()
        assert sorted(rows) == list(range(30))
        assert np.array_equal(torch.cat([truth for _, truth in drawn]), labels[rows])
        epochs.append(rows.tolist())
    assert epochs[0] != epochs[1]


def test_a_picture_is_cropped_anew_each_time(tmp_path: Path) -> None:
    labels = parts.several(60)
    pixels = np.arange(100, dtype=np.uint8).reshape(10, 10)[None].repeat(60, 0)  # no corner is like another
    train, _, _ = parts.examples(tmp_path, labels, pixels)
    source = finetune.batches(train, 10, seed=0)
    corners = torch.cat([next(source).view[:, 0, 0, 0] for _ in range(3)])
    assert len(corners.unique()) > 5


def test_rates_rise_then_fall_and_the_encoder_has_a_tenth(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, decays = [], set()

    class Watched(torch.optim.AdamW):
        def step(self, closure: None = None) -> None:  # type: ignore[override]
            seen.append([group["lr"] for group in self.param_groups])
            decays.update(group["weight_decay"] for group in self.param_groups)
            super().step(closure)

    monkeypatch.setattr(torch.optim, "AdamW", Watched)
    monkeypatch.setattr(finetune, "FEWEST", 20)
    monkeypatch.setattr(finetune, "PATIENCE", 99)
    fitted(tmp_path)
    falling = [0.5 * (1 + np.cos(np.pi * step / 18)) for step in range(18)]
    expected = np.array([0.5, 1, *falling])
    assert np.array(seen) == pytest.approx(np.outer(expected, (0.02, 0.05)))
    assert decays == {RATES["weight_decay"]}


def test_the_layer_starts_from_how_frequent_each_label_is(tmp_path: Path) -> None:
    labels = parts.several(320)
    labels[:40, 0], labels[:160, 1], labels[:40, 1] = -1, 0, 1
    train, _, _ = parts.examples(tmp_path, labels, parts.pictures(labels))
    start = finetune.log_odds(finetune._start(train.bench, TASK, train), train, exclusive=False)
    known = [labels[:160, k][labels[:160, k] >= 0].mean() for k in range(3)]
    assert start == pytest.approx(np.tile(np.log(known) - np.log1p(-np.array(known)), (160, 1)), abs=1e-5)
    labels = parts.one_of_each(320)
    train, _, _ = parts.examples(tmp_path, labels, parts.pictures(labels))
    start = finetune.log_odds(finetune._start(train.bench, CLASSES, train), train, exclusive=True)
    shares = labels[:160].mean(axis=0)
    assert start == pytest.approx(np.tile(np.log(shares / (1 - shares)), (160, 1)), abs=1e-5)


def test_unknown_labels_enter_no_loss() -> None:
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    truth = torch.tensor([[1, 0, -1], [-1, 1, 0], [0, 0, 1], [-1, -1, -1], [1, 1, 1], [0, -1, 0]])
    known = truth >= 0
    loss = classifier.objective(logits, truth, exclusive=False)
    expected = F.binary_cross_entropy_with_logits(logits[known], truth[known].float())
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.equal(gradient != 0, known)
    nothing = classifier.objective(logits, torch.full((6, 3), -1), exclusive=False)
    assert nothing.item() == 0


def test_features_that_are_maps_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def maps(self: Tiny, x: torch.Tensor) -> ImageFeatures:
        return ImageFeatures(self.encoder(x), None, None, {})

    monkeypatch.setattr(Tiny, "encode_image", maps)
    with pytest.raises(UsageError, match=r"encode_image gives pooled \[1, 8, \d, \d\] for 1 pictures"):
        fitted(tmp_path)


def test_weights_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    def broken() -> nn.Module:
        model = parts.tiny()
        nn.init.constant_(next(model.parameters()), torch.nan)
        return model

    labels = parts.several(320)
    train, validation, _ = parts.examples(tmp_path, labels, parts.pictures(labels), broken)
    with pytest.raises(TrainingDiverged, match="the fine-tuned encoder's loss is nan at step 1"):
        finetune.fit(train.bench, TASK, train, validation, 0, RATES)
