"""The loop against plain restatements of it: what a step is, which rows it sees, what the seed decides."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests import fakes
from tests.fakes import Tiny
from tests.harness.pretrain.loop import PER_EPOCH, STEPS, assert_same_weights, log, recipe, run

# --- what a step is ----------------------------------------------------------------------------------


def test_accumulation_is_the_mean_of_the_micro_batches_gradients(tmp_path: Path) -> None:
    profile = recipe(epochs=1, batch=24, accumulate=3, augmentation=())
    assert profile.recipe is not None
    torch.manual_seed(0)
    model, plain = Tiny(random=False), Tiny(random=False)
    plain.load_state_dict(model.state_dict())
    run(tmp_path, model=model, profile=profile)
    assert [len(batch.ids) for batch in model.trained] == [8, 8, 8]

    rate, decay = profile.recipe.learning_rate, profile.recipe.weight_decay
    optimizer = torch.optim.AdamW(plain.parameters(), lr=rate, weight_decay=decay)
    parts = [plain.train().loss(batch)[0] for batch in model.trained]
    torch.stack(parts).mean().backward()
    optimizer.step()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, msg=name)
    [row] = log(tmp_path)
    assert float(row["loss"]) == pytest.approx(sum(part.item() for part in parts) / 3)
    slopes = torch.cat([weight.grad.flatten() for weight in plain.parameters() if weight.grad is not None])
    assert float(row["gradient"]) == pytest.approx(slopes.square().sum().sqrt().item(), rel=1e-5)


def test_the_cosine_is_torch_s(tmp_path: Path) -> None:
    optimizer = torch.optim.AdamW([torch.zeros(1)], lr=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=STEPS)
    expected = []
    for _ in range(STEPS):
        expected.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    run(tmp_path)
    assert [float(row["learning_rate"]) for row in log(tmp_path)] == pytest.approx(expected)


def test_a_constant_rate_stays(tmp_path: Path) -> None:
    run(tmp_path, profile=recipe(epochs=1, schedule="constant"))
    assert {row["learning_rate"] for row in log(tmp_path)} == {"0.01"}


def test_the_log_holds_what_the_outcome_sums_up(tmp_path: Path) -> None:
    _, outcome = run(tmp_path)
    rows = log(tmp_path)
    assert {"loss", "match", "size"} <= rows[0].keys()
    for row in rows:
        assert float(row["loss"]) == pytest.approx(float(row["match"]) + float(row["size"]), rel=1e-5)
    last = [float(row["loss"]) for row in rows[-PER_EPOCH:]]
    assert outcome.loss["loss"] == pytest.approx(sum(last) / PER_EPOCH)
    assert outcome.loss["loss"] < float(rows[0]["loss"])  # it learns


# --- which rows --------------------------------------------------------------------------------------


def test_an_epoch_sees_a_training_pair_at_most_once_and_never_a_held_out_one(tmp_path: Path) -> None:
    corpus = fakes.corpus(count=50)  # 40 for training: 13 batches of 3, one pair left over
    model, _ = run(tmp_path, corpus=corpus, profile=recipe(batch=3, epochs=4))
    train, held_out = ({corpus.ids[row] for row in rows} for rows in (corpus.train, corpus.validation))
    seen = [image for batch in model.trained for image in batch.ids]
    epochs = [seen[start : start + 39] for start in range(0, len(seen), 39)]
    assert len(epochs) == 4
    assert all(len(set(epoch)) == 39 for epoch in epochs)
    assert set(seen) == train  # a pair left over once is not left over always
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert set(model.compared) == held_out


def test_held_out_pairs_of_which_none_has_text_are_not_compared(tmp_path: Path) -> None:
    """A large network may not read zero texts: BERT does not."""
    corpus = fakes.corpus(count=50)  # 10 held out: 4 batches of 2 or 3
    silent = corpus.validation[:3]
    corpus.texts["findings"].present[silent] = False
    model, _ = run(tmp_path, corpus=corpus, profile=recipe(batch=3, epochs=1))
    assert set(model.compared) == {corpus.ids[row] for row in corpus.validation[3:]}


def test_the_rows_of_a_batch_belong_together(tmp_path: Path) -> None:
    corpus = fakes.corpus()
    model, _ = run(tmp_path, corpus=corpus, profile=recipe(epochs=1, augmentation=()))
    texts = corpus.texts["findings"]
    for batch in model.trained:
        rows = [corpus.ids.index(image) for image in batch.ids]
        assert len(batch.views) == 2
        centre = torch.from_numpy(corpus.pixels[rows])[:, 1:9, 1:9] / 255
        torch.testing.assert_close(batch.views[0], ((centre - 0.5) / 0.25)[:, None].expand(-1, 3, -1, -1))
        assert torch.equal(batch.present["findings"], texts.present[rows])
        assert torch.equal(batch.text["findings"], texts.prepared[texts.row[rows]])


@pytest.mark.parametrize("asked", [True, False])
def test_a_batch_knows_its_studies_where_the_recipe_asks(tmp_path: Path, asked: bool) -> None:
    corpus = fakes.corpus()
    model, _ = run(tmp_path, corpus=corpus, profile=recipe(epochs=1, same_study_positives=asked))
    for batch in model.trained:
        rows = [corpus.ids.index(image) for image in batch.ids]
        found = None if batch.study is None else batch.study.tolist()
        assert found == (corpus.studies[rows].tolist() if asked else None)


def test_the_views_of_a_pair_differ(tmp_path: Path) -> None:
    model, _ = run(tmp_path, profile=recipe(epochs=1))
    one, other = model.trained[0].views
    assert (one != other).flatten(1).any(dim=1).all()


def test_a_corpus_smaller_than_a_batch_is_one_batch(tmp_path: Path) -> None:
    model, outcome = run(tmp_path, profile=recipe(batch=1000))
    assert (outcome.steps, len(model.trained[0].ids)) == (5, 24)


# --- seeds -------------------------------------------------------------------------------------------


def test_the_seed_decides_everything(tmp_path: Path) -> None:
    one, again, other = (run(tmp_path / name, seed=seed)[0] for name, seed in (("a", 1), ("b", 1), ("c", 2)))
    assert_same_weights(one, again)
    for name, value in one.named_parameters():
        assert not torch.equal(value, other.get_parameter(name)), name


def test_the_seed_of_the_draws_is_not_that_of_the_weights_alone(tmp_path: Path) -> None:
    start = Tiny().state_dict()
    models = []
    for seed in (1, 2):
        model = Tiny()
        model.load_state_dict(start)
        models.append(run(tmp_path / str(seed), model=model, seed=seed)[0])
    assert models[0].trained[0].ids != models[1].trained[0].ids
    assert not torch.equal(models[0].image_head.weight, models[1].image_head.weight)
