"""Retrieval against an oracle, chance in closed form, torchmetrics, and a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional.retrieval import retrieval_hit_rate, retrieval_precision

from harness.errors import DataError
from harness.metrics.retrieval import Retrieval, ranked

LABELS = ("a", "b", "c")
N = 60
SHOWN = np.arange(N) % 3
ALONE = np.arange(N)
ONE = np.ones((N, 1), dtype=bool)


def measured(similarity: np.ndarray, **changes: np.ndarray) -> dict[str, float]:
    given = {"drawn": ONE, "study": ALONE, "partner": ALONE, "shown": SHOWN, **changes}
    score = Retrieval(ranked(similarity, **given), LABELS)
    return dict(zip(score.names, score(np.ones((len(similarity), 1)))[:, 0].tolist(), strict=True))


def test_an_oracle_finds_everything() -> None:
    same_class = (SHOWN[:, None] == SHOWN).astype(float)
    found = measured(same_class + np.eye(N))
    assert set(found) == {
        f"{name}_at_{k}{side}"
        for side in ("", ":text_to_image")
        for name in ("precision", "recall")
        for k in (1, 5, 10)
    }  # not at 100: there are 20 right answers, and 60 candidates
    assert all(value == 1 for value in found.values())


@pytest.mark.parametrize(("count", "precision", "recall"), [(15, (1, 5), (1, 5, 10)), (10, (1,), (1, 5))])
def test_k_goes_as_far_as_there_are_right_answers_and_wrong_ones(
    count: int, precision: tuple[int, ...], recall: tuple[int, ...]
) -> None:
    few = {"drawn": ONE[:count], "study": ALONE[:count], "partner": ALONE[:count], "shown": SHOWN[:count]}
    assert {name for name in measured(np.eye(count), **few) if ":" not in name} == {
        *(f"precision_at_{k}" for k in precision),
        *(f"recall_at_{k}" for k in recall),
    }


def test_chance_is_the_share_of_right_answers() -> None:
    rng = np.random.default_rng(0)
    tables = [measured(rng.normal(size=(N, N))) for _ in range(200)]
    for k in (1, 5, 10):
        for side in ("", ":text_to_image"):
            # 200 x 60 queries: the standard error of a share is below 0.005
            assert np.mean([t[f"precision_at_{k}{side}"] for t in tables]) == pytest.approx(1 / 3, abs=0.02)
            assert np.mean([t[f"recall_at_{k}{side}"] for t in tables]) == pytest.approx(k / N, abs=0.02)


def test_values_are_those_of_torchmetrics_in_both_directions() -> None:
    similarity = np.random.default_rng(1).normal(size=(N, N))
    found = measured(similarity)
    for side, table in (("", similarity), (":text_to_image", similarity.T)):
        for k in (1, 5, 10):
            rows = [torch.tensor(row) for row in table]
            alike = [torch.tensor(SHOWN == SHOWN[row]) for row in range(N)]
            own = [torch.tensor(ALONE == row) for row in range(N)]
            precision = [
                retrieval_precision(row, target, top_k=k) for row, target in zip(rows, alike, strict=True)
            ]
            recall = [retrieval_hit_rate(row, target, top_k=k) for row, target in zip(rows, own, strict=True)]
            assert found[f"precision_at_{k}{side}"] == pytest.approx(float(torch.stack(precision).mean()))
            assert found[f"recall_at_{k}{side}"] == pytest.approx(float(torch.stack(recall).mean()))


def test_of_equals_the_first_comes_first() -> None:
    """All alike: the K first of the table are found by everyone."""
    found = measured(np.zeros((N, N)))
    assert found["recall_at_5"] == found["recall_at_5:text_to_image"] == 5 / N
    assert found["precision_at_1"] == pytest.approx(1 / 3)  # the first is of class a


def test_a_text_worded_the_same_is_as_right_as_the_own_one() -> None:
    partner = np.arange(N) // 2 * 2  # 0 and 1 are worded alike, 2 and 3 ...
    swapped = np.eye(N)[np.arange(N) ^ 1]  # each finds the other one's
    assert measured(swapped, partner=partner)["recall_at_1"] == 1
    assert measured(swapped)["recall_at_1"] == 0


def test_a_report_is_one_candidate_however_many_pictures_it_has() -> None:
    """Of three pictures each finds what one alone would; a report passes three for each it likes more."""
    similarity = np.random.default_rng(5).normal(size=(20, 20))
    study, shown = np.arange(N) // 3, SHOWN[:20]
    one = ranked(similarity, ONE[:20], ALONE[:20], ALONE[:20], shown)
    thrice = similarity.repeat(3, axis=0).repeat(3, axis=1)
    found = ranked(thrice, ONE, study, study, shown[study])
    assert (found["place"][:, 0, 0] == one["place"][study, 0, 0]).all()
    assert (found["right"][:, 0, 0] == one["right"][study, 0, 0]).all()
    assert (found["place"][:, 0, 1] == 3 * one["place"][study, 0, 1]).all()


def test_a_draw_is_searched_by_itself_and_draws_are_averaged() -> None:
    rng = np.random.default_rng(2)
    similarity = rng.normal(size=(N, N))
    drawn = np.zeros((N, 2), dtype=bool)
    for draw in range(2):
        for number in range(3):
            drawn[rng.permutation(np.flatnonzero(number == SHOWN))[:8], draw] = True
    found = measured(similarity, drawn=drawn)
    parts = []
    for draw in drawn.T:
        rows = np.flatnonzero(draw)
        small = {"drawn": ONE[:24], "study": rows, "partner": rows, "shown": SHOWN[rows]}
        parts.append(measured(similarity[np.ix_(rows, rows)], **small))
    assert found == pytest.approx({name: (parts[0][name] + parts[1][name]) / 2 for name in parts[0]})


def test_a_weight_repeats_a_query_and_leaves_the_candidates() -> None:
    similarity = np.random.default_rng(3).normal(size=(N, N))
    arrays = ranked(similarity, ONE, ALONE, ALONE, SHOWN)
    weights = np.random.default_rng(4).integers(0, 4, (N, 7)).astype(float)
    score = Retrieval(arrays, LABELS)
    found = dict(zip(score.names, score(weights), strict=True))
    for replicate in range(7):
        queries = np.repeat(np.arange(N), weights[:, replicate].astype(int))
        hits = [ALONE[row] in np.argsort(-similarity[row])[:5] for row in queries]
        assert found["recall_at_5"][replicate] == pytest.approx(np.mean(hits))
    assert np.isnan(score(np.zeros((N, 1)))).all()


def test_without_classes_there_is_recall_alone() -> None:
    arrays = ranked(np.eye(N), ONE, ALONE, ALONE, None)
    assert set(arrays) == {"place"}
    assert {name.split("_")[0] for name in Retrieval(arrays, ()).names} == {"recall"}


def test_a_similarity_that_is_not_a_number_is_named() -> None:
    broken = np.eye(N)
    broken[3, 7] = np.nan
    with pytest.raises(DataError, match="picture 3 and text 7"):
        ranked(broken, ONE, ALONE, ALONE, SHOWN)
