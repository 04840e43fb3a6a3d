"""IMITATE against numbers from its released code, and against plain restatements of its parts."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from harness.contracts import Batch
from harness.errors import UsageError
from methods.imitate import CARD, FindingsBranch, Imitate, build, clinical_prior, contrastive
from tests.methods.golden import series

DEMO = CARD.profiles["demo"]


def test_the_series_is_the_one_the_golden_values_belong_to() -> None:
    expected = [[0, 0.9910336, -0.2740939], [-0.9085898, 0.5594936, 0.7205034]]
    torch.testing.assert_close(series(2, 3, c=0), torch.tensor(expected))


@pytest.mark.parametrize(
    ("soft", "temperature", "golden"), [(True, 0.07, 5.450923), (True, 0.2, 3.591814), (False, 0.2, 2.450880)]
)
def test_loss_equals_the_released_one(soft: bool, temperature: float, golden: float) -> None:
    x, y = series(5, 8, c=1), series(5, 8, c=2)
    features = series(5, 12, c=3) + 2 * series(12, c=4)
    prior = clinical_prior(features) if soft else None
    assert contrastive(x, y, prior, temperature).item() == pytest.approx(golden, rel=1e-5)


def test_prior_is_the_softened_correlation() -> None:
    features = torch.randn(7, 20, generator=torch.Generator().manual_seed(0))
    expected = 1 - torch.exp(-0.2 * torch.corrcoef(features).clamp(min=0))
    expected.fill_diagonal_(0)
    torch.testing.assert_close(clinical_prior(features), expected)


def test_prior_of_constant_features_is_zero_not_nan() -> None:
    assert clinical_prior(torch.ones(3, 8)).eq(0).all()


def test_one_query_attention_equals_full_self_attention() -> None:
    branch = FindingsBranch((32, 64, 128, 256))
    torch.manual_seed(0)
    for parameter in branch.parameters():  # biases and positions begin at zero, where mistakes would hide
        nn.init.normal_(parameter, std=0.5)
    tokens = torch.randn(3, branch.slots, 256)
    token = (branch.cls_token + branch.positional_embedding[:, :1]).expand(3, -1, -1)
    everything = torch.cat([tokens, token], dim=1)
    attended, _ = branch.multi_attent(everything, everything, everything)
    torch.testing.assert_close(branch.attend(tokens), (attended + everything)[:, -1], rtol=1e-4, atol=1e-4)


def test_paper_profile_draws_the_released_numbers_of_channels() -> None:
    branch = FindingsBranch((256, 512, 1024, 2048))
    assert branch.counts == [64, 76, 102, 204]
    assert branch.slots == 512
    shapes = {name: tuple(value.shape) for name, value in branch.state_dict().items()}
    assert shapes["positional_embedding"] == (1, 513, 256)
    assert shapes["multi_attent.in_proj_weight"] == (768, 256)
    assert "read_proj.4.weight" not in shapes  # batch norm without affine


def test_one_draw_of_channels_serves_the_whole_batch() -> None:
    branch = FindingsBranch((8, 8, 8, 8))
    maps = [torch.arange(8.0).view(1, 8, 1, 1).expand(2, 8, 4, 4) for _ in range(4)]
    tokens = branch.tokens(maps)
    assert torch.equal(tokens[0], tokens[1])


# --- the whole step -----------------------------------------------------------------------------------


def batch(missing: Tensor, filler: float) -> Batch:
    """Six pairs; reports marked in `missing` [6] lack their findings, whose features are `filler`."""
    generator = torch.Generator().manual_seed(1)
    views = tuple(torch.randn(6, 3, 64, 64, generator=generator) for _ in range(2))
    text = {unit: torch.randn(6, 384, generator=generator) for unit in ("findings", "impression")}
    text["findings"] = text["findings"].masked_fill(missing[:, None], filler)
    present = {"findings": ~missing, "impression": torch.ones(6, dtype=torch.bool)}
    return Batch([str(i) for i in range(6)], views, text, present)


def terms(model: Imitate, inputs: Batch) -> dict[str, Tensor]:
    torch.manual_seed(2)  # the channel draws
    return model.train().loss(inputs)[1]


def test_a_missing_section_has_no_say() -> None:
    torch.manual_seed(0)
    model = build(DEMO)
    missing = torch.tensor([False, True, False, False, True, False])
    one, other = terms(model, batch(missing, 0.0)), terms(model, batch(missing, 123.0))
    assert one.keys() == {"impression", "findings", "views_impression", "views_findings"}
    torch.testing.assert_close(one, other)
    assert not torch.isclose(one["findings"], terms(model, batch(~missing, 0.0))["findings"])


def test_a_report_without_impression_softens_nothing() -> None:
    torch.manual_seed(0)
    model, whole = build(DEMO), batch(torch.zeros(6, dtype=torch.bool), 0.0)
    present = {**whole.present, "impression": torch.arange(6) < 4}
    found = []
    for seed in (0, 1):  # drawn, because what is constant correlates with nothing
        filler = torch.randn(2, 384, generator=torch.Generator().manual_seed(seed))
        text = {**whole.text, "impression": torch.cat([whole.text["impression"][:4], filler])}
        found.append(terms(model, whole._replace(text=text, present=present)))
    torch.testing.assert_close(*found)


def test_a_batch_with_one_findings_section_still_trains() -> None:
    model = build(DEMO)
    missing = torch.tensor([False, True, True, True, True, True])
    loss, parts = model.train().loss(batch(missing, 0.0))
    loss.backward()
    assert parts["findings"].item() == 0
    assert torch.isfinite(loss)


def test_loss_is_the_sum_of_its_terms_and_reaches_every_parameter() -> None:
    model = build(DEMO)
    loss, parts = model.train().loss(batch(torch.zeros(6, dtype=torch.bool), 0.0))
    loss.backward()
    torch.testing.assert_close(loss, torch.stack(list(parts.values())).sum())
    without = [name for name, value in model.named_parameters() if value.grad is None]
    assert without == []


# --- text ---------------------------------------------------------------------------------------------


def test_text_features_do_not_depend_on_their_company() -> None:
    model = build(DEMO)
    short, long = "No effusion.", "There is a large left pleural effusion with adjacent atelectasis. " * 5
    together, alone = model.prepare_text([short, long]), model.prepare_text([short])
    torch.testing.assert_close(together[:1], alone, rtol=1e-4, atol=1e-5)
    assert together.shape == (2, 384)
    assert not together.requires_grad


@pytest.mark.slow
def test_lower_case_is_the_card_s_and_part_of_the_cache_key() -> None:
    assert DEMO.text is not None
    cased = build(replace(DEMO, text=replace(DEMO.text, lower_case=False)))
    plain = build(DEMO)
    torch.testing.assert_close(plain.prepare_text(["LEFT LUNG"]), plain.prepare_text(["left lung"]))
    assert not torch.allclose(cased.prepare_text(["LEFT LUNG"]), cased.prepare_text(["left lung"]))
    assert cased.text_key != plain.text_key


def test_there_is_no_official_training_to_reproduce() -> None:
    with pytest.raises(UsageError, match="imitate has no official behaviour"):
        build(replace(DEMO, official=True))
