"""Why a cell has no record, kept and told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness import failures, plan
from harness.errors import BadRecord
from tests import fakes

CELL = plan.cell("random_init", "chexpert", profile="demo", protocol="clean", fraction=0.1, seed=0)


def test_a_failure_is_told_with_its_reason(tmp_path: Path) -> None:
    assert "its process died" in failures.reason(tmp_path, CELL)
    failures.write(tmp_path, CELL, OSError(28, "No space left on device"))
    assert failures.reason(tmp_path, CELL) == "OSError: [Errno 28] No space left on device"


def test_a_failure_is_of_one_cell_whatever_its_checkpoint(tmp_path: Path) -> None:
    for cell in (CELL, replace(CELL, cut_validation=True), replace(CELL, tuned=4), replace(CELL, seed=1)):
        failures.write(tmp_path, cell, OSError("no"))
    done = fakes.record(method="random_init", fraction=0.1).cell
    assert len(list(failures.read_all(tmp_path))) == 4
    [of_it] = [failure for failure in failures.read_all(tmp_path) if failure.is_of(done)]
    assert (of_it.seed, of_it.tuned, of_it.cut_validation) == (0, 0, False)


def test_a_broken_failure_is_named(tmp_path: Path) -> None:
    failures.write(tmp_path, CELL, OSError("no"))
    path = failures.path_of(tmp_path, CELL)
    path.write_text("{}")
    with pytest.raises(BadRecord, match=path.name):
        list(failures.read_all(tmp_path))
