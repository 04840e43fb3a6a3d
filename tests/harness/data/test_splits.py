"""Parts share no person, cover every row, and depend on ids and seed only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from harness.contracts import Split
from harness.data import splits
from harness.errors import DataError, UsageError


def table(persons: int = 200, official: dict[str, float] | None = None, seed: int = 0) -> pd.DataFrame:
    """1 to 4 images a person; `official` gives the named parts their shares of the persons."""
    rng = np.random.default_rng(seed)
    parts = official or {"": 1.0}
    part = rng.choice(list(parts), size=persons, p=list(parts.values()))
    person = np.repeat(np.arange(persons), rng.integers(1, 5, persons))
    return pd.DataFrame(
        {
            "image_id": [f"image{row:04d}" for row in range(len(person))],
            "person_id": [f"patient{number:04d}" for number in person],
            "split": part[person],
        }
    )


def persons_of(frame: pd.DataFrame, rows: np.ndarray) -> set[str]:
    return set(frame["person_id"].iloc[rows])


OFFICIAL = {"train": 0.6, "valid": 0.2, "test": 0.2}
RULES = [
    Split(test=0.2, validation=0.1),
    Split(test="test", validation=0.1),
    Split(test=0.2, validation="valid"),
    Split(test="test", validation="valid"),
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.test}-{rule.validation}")
def test_every_row_is_in_one_part_and_every_person_too(rule: Split) -> None:
    frame = table(official=OFFICIAL)
    parts = splits.make(frame, rule)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(frame)))
    assert all(rows.dtype == np.int64 and (np.diff(rows) > 0).all() for rows in parts)
    train, validation, test = (persons_of(frame, rows) for rows in parts)
    assert not train & validation and not train & test and not validation & test
    if rule.test == "test":
        assert (frame["split"].iloc[parts.test] == "test").all()
    if rule.validation == "valid":
        assert (frame["split"].iloc[parts.validation] == "valid").all()


def test_who_is_where_does_not_depend_on_the_rows_that_are_kept() -> None:
    """A corpus and a task need other rows; no person may be trained on in the one and tested in the other."""
    frame, rule = table(), Split(test=0.2, validation=0.1)
    kept = frame["person_id"].str[-1].isin(list("0123456")).to_numpy()  # some persons have no such row
    left = frame[kept]
    for rows, some in zip(splits.make(frame, rule), splits.make(frame, rule, kept), strict=True):
        assert persons_of(left, some) == persons_of(frame, rows[kept[rows]])


def test_shares_count_persons_and_come_from_what_is_left() -> None:
    frame = table(persons=200)
    parts = splits.make(frame, Split(test=0.2, validation=0.1))
    assert len(persons_of(frame, parts.test)) == 40
    assert len(persons_of(frame, parts.validation)) == 16  # a tenth of the other 160
    frame = table(official=OFFICIAL)
    valid = persons_of(frame, np.flatnonzero(frame["split"] == "valid"))
    parts = splits.make(frame, Split(test=0.25, validation="valid"))
    assert len(persons_of(frame, parts.test)) == np.ceil((200 - len(valid)) / 4)


def test_same_persons_whatever_the_order_of_the_rows() -> None:
    frame = table(official=OFFICIAL)
    shuffled = frame.sample(frac=1, random_state=1).reset_index(drop=True)
    rule = Split(test=0.2, validation=0.1, seed=4)
    parts, others = splits.make(frame, rule), splits.make(shuffled, rule)
    for rows, other in zip(parts, others, strict=True):
        assert set(frame["image_id"].iloc[rows]) == set(shuffled["image_id"].iloc[other])
    assert parts.digest(frame["image_id"].tolist()) == others.digest(shuffled["image_id"].tolist())


def test_the_seed_decides_and_the_digest_tells() -> None:
    frame = table()
    ids = frame["image_id"].tolist()
    digests = {splits.make(frame, Split(0.2, 0.1, seed=seed)).digest(ids) for seed in range(10)}
    assert len(digests) == 10
    parts = splits.make(frame, Split(0.2, 0.1))
    assert splits.make(frame, Split(0.2, 0.1)).digest(ids) == parts.digest(ids)
    swapped = splits.Parts(parts.validation, parts.train, parts.test)
    assert swapped.digest(ids) != parts.digest(ids)


def test_another_validation_share_leaves_the_test_part_alone() -> None:
    frame = table()
    test = splits.make(frame, Split(0.2, 0.1)).test
    assert np.array_equal(splits.make(frame, Split(0.2, 0.3)).test, test)


def test_official_parts_that_share_persons_are_refused() -> None:
    frame = table(official=OFFICIAL)
    first = frame.index[frame["split"] == "test"][:1]
    leaked = pd.concat([frame, frame.loc[first].assign(split="train", image_id="extra")])
    person = frame.loc[first[0], "person_id"]
    with pytest.raises(DataError, match=rf"train and test share 1 persons \(first: {person}\)"):
        splits.make(leaked.reset_index(drop=True), Split(test="test", validation=0.1))


@pytest.mark.parametrize("validation", ["valid", 0.2])
def test_shared_persons_stay_in_the_last_part_where_the_split_says_so(validation: str | float) -> None:
    frame = pd.DataFrame(
        {
            "person_id": ["a", "b", "c", "d", "e", "f", "g", "a", "b", "h", "a", "c", "i"],
            "split": ["train"] * 7 + ["valid"] * 3 + ["test"] * 3,
        }
    )
    rule = Split(test="test", validation=validation, train="train")
    with pytest.raises(DataError, match="share"):
        splits.make(frame, rule)
    parts = splits.make(frame, replace(rule, drop_shared=True))
    train, held_out, test = (persons_of(frame, rows) for rows in parts)
    assert test == {"a", "c", "i"} and len(parts.test) == 3
    if validation == "valid":
        assert (train, held_out) == ({"d", "e", "f", "g"}, {"b", "h"})
    else:
        assert train | held_out == {"b", "d", "e", "f", "g"} and len(held_out) == 1
        assert (frame["split"].iloc[parts.validation] == "train").all()


def test_dropping_shared_persons_changes_nothing_where_none_are_shared() -> None:
    frame = table(official=OFFICIAL)
    rule = Split(test="test", validation=0.2, train="train")
    for rows, others in zip(
        splits.make(frame, rule), splits.make(frame, replace(rule, drop_shared=True)), strict=True
    ):
        assert np.array_equal(rows, others)


def test_a_part_that_does_not_exist_lists_those_that_do() -> None:
    with pytest.raises(DataError, match=r"no official part 'dev'; it has: 'test', 'train', 'valid'\."):
        splits.make(table(official=OFFICIAL), Split(test="dev", validation=0.1))
    with pytest.raises(DataError, match="it has: none"):
        splits.make(table(), Split(test=0.1, validation="valid"))


def test_empty_parts_are_refused() -> None:
    with pytest.raises(DataError, match="nobody is left for the train part: the dataset has 2 persons"):
        splits.make(table(persons=2), Split(test=0.1, validation=0.1))
    with pytest.raises(DataError, match="nobody is left for the validation part"):
        splits.make(table(official=OFFICIAL), Split(test="test", validation="test"))


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5, float("nan")])
def test_a_share_is_a_share(fraction: float) -> None:
    with pytest.raises(UsageError, match="not"):
        splits.share(fraction, 10)


def test_shares_round_up_in_decimals() -> None:
    assert splits.share(0.07, 100) == 7  # 0.07 * 100 is 7.000000000000001 in binary
    assert splits.share(0.01, 101) == 2
    assert splits.share(1e-9, 5) == 1
    assert splits.share(1, 5) == 5


def test_rows_of_a_part_that_the_split_does_not_name_are_in_none() -> None:
    frame = table(official=OFFICIAL)
    parts = splits.make(frame, Split(test="valid", validation=0.2, train="train"))
    taken = np.concatenate(parts)
    assert not frame["split"].to_numpy()[taken].tolist().count("test")
    assert set(frame["split"].to_numpy()[parts.train]) == {"train"}
    assert len(taken) == (frame["split"] != "test").sum()
