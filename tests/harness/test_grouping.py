"""Which of the runs of a seed count."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import differences, grouping
from tests import fakes

RUNS = {
    "each its own": ([(0, 0), (1, 1)], [(0, 0), (1, 1)]),
    "one for all": ([(0, 0), (0, 1), (0, 2)], [(0, 0), (0, 1), (0, 2)]),
    "own ones came later": ([(0, 0), (0, 1), (0, 2), (1, 1), (2, 2)], [(0, 0), (1, 1), (2, 2)]),
    "seed 1 was trained first": ([(1, 0), (1, 1), (1, 2), (0, 0), (0, 2)], [(0, 0), (0, 2), (1, 1)]),
    "several were lent": ([(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)], [(0, 0), (1, 1), (2, 2)]),
}


@pytest.mark.parametrize(("runs", "expected"), RUNS.values(), ids=RUNS)
def test_a_seed_counts_once_with_its_own_checkpoint_or_the_lowest_that_was_lent(
    runs: list[tuple[int, int]], expected: list[tuple[int, int]]
) -> None:
    cells = [(Path(), fakes.record(checkpoint=checkpoint, seed=seed)) for checkpoint, seed in runs]
    kept, replaced = grouping.without_lent(cells)
    assert sorted((one.pretraining.seed, one.cell.seed) for _, one in kept) == expected
    assert len(kept) + len(replaced) == len(runs)


def test_checkpoints_that_were_named_are_crossed_with_seeds() -> None:
    cells = [
        (Path(), fakes.record(checkpoint=checkpoint, seed=seed, named=True))
        for checkpoint, seed in [(0, 0), (0, 1), (1, 0)]  # and one failed
    ]
    assert grouping.without_lent(cells) == (cells, [])


def test_a_named_checkpoint_of_another_method_makes_no_lent_one_asked_for() -> None:
    """As by `--methods imitate,mgca --checkpoints mgca-published`."""
    lent = fakes.record(checkpoint=0, seed=1)
    arguments = {"checkpoints": "mgca-published"}
    lent = lent.model_copy(update={"code": lent.code.model_copy(update={"arguments": arguments})})
    own = fakes.record(seed=1)
    assert grouping.without_lent([(Path(), lent), (Path(), own)]) == ([(Path(), own)], [(Path(), lent)])


def test_a_seed_is_not_of_two_checkpoints_at_two_fractions() -> None:
    """In the middle of a sweep: the second fraction is a hole until it is run again."""
    lent = [fakes.record(checkpoint=0, seed=1, fraction=fraction) for fraction in (0.01, 0.1)]
    own, other = (
        fakes.record(seed=1, fraction=0.01),
        fakes.record(method="gloria", family="x", seed=1, checkpoint=0),
    )
    kept, replaced = grouping.without_lent((Path(), record) for record in (*lent, own, other))
    assert [record for _, record in kept] == [own, other]
    assert [record for _, record in replaced] == lent


def test_one_checkpoint_may_have_records_of_two_datasets_that_were_read_by_two_versions() -> None:
    """What no record says is by the code from before it was said, whatever that code is now."""
    old, new = fakes.record(), fakes.record(task="rsna:linear", fingerprint="e" * 64)
    assert old.data.reading == (2, 1, 1)
    new = new.model_copy(update={"data": new.data.model_copy(update={"reading": (3, 1, 1)})})
    assert grouping.checked([(Path("old"), old), (Path("new"), new)], "")


def test_two_methods_are_compared_by_what_counts(tmp_path: Path) -> None:
    for seed in (0, 1):
        fakes.write(tmp_path, seed=seed, checkpoint=0)
        fakes.write(tmp_path, method="gloria", family="gloria-x", seed=seed)
    own = fakes.write(tmp_path, seed=1)
    sides = [differences.cells(f"{tmp_path}/*/*/{name}-*") for name in ("imitate", "gloria")]
    found = differences.folders(*sides)
    assert found.matched == 2 and not found.only_first and not found.only_second
    assert own in {cell.path for cell in sides[0]}
