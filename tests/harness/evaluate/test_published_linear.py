"""MGCA's head: its first step in closed form, when it stops, what it drops, and what it learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import expit

from harness.errors import TrainingDiverged
from harness.evaluate import published_linear
from harness.evaluate.classifier import Decision
from harness.evaluate.logistic import Labelled
from harness.evaluate.published_linear import BATCH, DECAY, RATE, MinibatchHead, train_head
from harness.metrics.auroc import macro_auroc


def data(count: int, seed: int = 0, *, turned: bool = False) -> Labelled:
    """Two labels that a line through 6 features tells apart, mostly; `turned` says the opposite."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((count, 6)).astype(np.float32)
    labels = (features[:, :2] + 0.5 * rng.standard_normal((count, 2)) > 0).astype(np.int8)
    return Labelled(torch.from_numpy(features), 1 - labels if turned else labels)


def untrained(seed: int) -> torch.nn.Linear:
    torch.manual_seed(seed)
    return torch.nn.Linear(6, 2)


@pytest.mark.slow
def test_it_learns_what_can_be_learnt() -> None:
    (layer, head), test = train_head(data(1_000), data(200, 1), seed=0), data(500, 2)
    scores = layer(test.features).detach().numpy()
    assert macro_auroc(test.labels, scores, ("one", "two")) > 0.9
    assert head.best == int(np.argmin(head.values))
    assert len(head.values) <= 50 and head.values[-1] < head.values[0]


def test_the_first_step_is_adam_s_in_closed_form() -> None:
    """One batch, and a validation loss that only rises: what is kept is the layer after a single step. Adam's
    first step is the rate times the gradient's sign; its decay shrinks the weights before."""
    train, validation = data(BATCH), data(30, 1, turned=True)
    start = untrained(3)
    layer, head = train_head(train, validation, seed=3)
    rise = [after > before for before, after in zip(head.values, head.values[1:], strict=False)]
    assert all(rise) and head.best == 0 and len(head.values) == 1 + 10
    weight, bias = start.weight.detach().numpy(), start.bias.detach().numpy()
    features = train.features.numpy()
    miss = 1 / (1 + np.exp(-(features @ weight.T + bias))) - train.labels
    step = np.sign(miss.T @ features) * RATE
    np.testing.assert_allclose(layer.weight.detach(), weight * (1 - RATE * DECAY) - step, atol=1e-6)
    np.testing.assert_allclose(
        layer.bias.detach(), bias * (1 - RATE * DECAY) - np.sign(miss.sum(axis=0)) * RATE, atol=1e-6
    )
    kept = torch.nn.functional.binary_cross_entropy_with_logits(
        layer(validation.features), torch.from_numpy(validation.labels).float()
    )
    assert head.values[0] == pytest.approx(float(kept.detach()))


def test_an_incomplete_last_batch_of_validation_does_not_count() -> None:
    validation = data(2 * BATCH + 5)
    shorter = Labelled(validation.features[: 2 * BATCH], validation.labels[: 2 * BATCH])
    losses = [train_head(data(100), part, seed=0)[1].values for part in (validation, shorter)]
    assert losses[0] == losses[1]


def test_unknown_labels_do_not_count() -> None:
    train = data(BATCH)
    labels = train.labels.copy()
    labels[:, 1] = -1
    layer, _ = train_head(Labelled(train.features, labels), data(40, 1), seed=0)
    start = untrained(0)
    assert torch.allclose(layer.weight[1], start.weight[1], atol=1e-6)  # only decays
    assert not torch.allclose(layer.weight[0], start.weight[0], atol=1e-4)


def test_one_label_that_excludes_the_others_is_learnt_by_cross_entropy() -> None:
    features, labels = data(400)
    labels = np.eye(3, dtype=np.int8)[labels.sum(axis=1)]
    train, validation = (Labelled(features[:size], labels[:size]) for size in (400, 96))
    layer, head = train_head(train, validation, seed=0, exclusive=True)
    logits = layer(features[:96]).detach()
    expected = torch.logsumexp(logits, dim=1) - logits[torch.from_numpy(labels[:96]).bool()]
    assert min(head.values) == pytest.approx(float(expected.mean()), rel=1e-5)
    probabilities = expit(published_linear.scores(layer, features[:96], exclusive=True))
    assert probabilities == pytest.approx(logits.softmax(dim=1).numpy(), abs=1e-5)


def test_the_seed_decides() -> None:
    heads = [train_head(data(200), data(60, 1), seed=seed) for seed in (0, 0, 1)]
    assert heads[0][1].values == heads[1][1].values != heads[2][1].values
    assert torch.equal(heads[0][0].weight, heads[1][0].weight)


def test_a_loss_that_is_no_number_is_refused() -> None:
    train = data(60)
    train.features[5] = torch.inf
    with pytest.raises(TrainingDiverged, match="linear head's loss is nan at step"):
        train_head(train, data(60, 1), seed=0)


def test_the_block_says_how_the_epoch_was_chosen() -> None:
    layer, trained = train_head(data(200), data(60, 1), seed=0)
    block = MinibatchHead(layer, trained, Decision({"one": 0.5, "two": -0.5})).block
    assert block.settings == {
        **{"features": 6, "batch": 48, "epochs": 50, "patience": 10, "steps": 4 * len(trained.values)},
        **{"learning_rate": 5e-4, "weight_decay": 1e-6},
        **{"criterion": "lowest loss", "decision": "largest Youden index on validation"},
    }
    assert block.candidates == tuple(4.0 * epoch for epoch in range(1, len(block.validation) + 1))
    steps = 4 * (int(np.argmin(block.validation)) + 1)
    assert block.chosen == {"steps": steps, "threshold:one": 0.5, "threshold:two": -0.5}
