"""Why a cell has no record, kept and told."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from harness import failures, plan
from harness.contracts import DataKind
from harness.errors import BadRecord
from tests import fakes

CELL = plan.cell("random_init", "chexpert", profile="demo", protocol="clean", fraction=0.1, seed=0)


def test_a_failure_is_told_with_its_reason(tmp_path: Path) -> None:
    assert "it was not begun" in failures.reason(tmp_path, "phantom", CELL)
    failures.write(tmp_path, "phantom", CELL, OSError(28, "No space left on device"))
    assert failures.reason(tmp_path, "phantom", CELL) == "OSError: [Errno 28] No space left on device"


def test_a_failure_is_of_one_cell_whatever_its_checkpoint(tmp_path: Path) -> None:
    for cell in (CELL, replace(CELL, cut_validation=True), replace(CELL, tuned=4), replace(CELL, seed=1)):
        failures.write(tmp_path, "phantom", cell, OSError("no"))
    failures.write(tmp_path, "real", CELL, OSError("no"))
    done = fakes.record(method="random_init", fraction=0.1)
    assert len(list(failures.read_all(tmp_path))) == 5
    [of_it] = [failure for failure in failures.read_all(tmp_path) if failure.key == failures.key_of(done)]
    assert (of_it.data, of_it.seed, of_it.tuned, of_it.cut_validation) == ("phantom", 0, 0, False)
    paper = done.pretraining.model_copy(update={"profile": "paper"})
    assert failures.key_of(done.model_copy(update={"pretraining": paper})) != of_it.key


@pytest.mark.parametrize("data", ["phantom", "real"])
def test_a_cell_that_was_begun_and_never_ended_says_so(tmp_path: Path, data: DataKind) -> None:
    assert not failures.known(tmp_path, data, CELL)
    failures.begin(tmp_path, data, CELL)
    assert failures.known(tmp_path, data, CELL)
    assert "because memory ran out. Run fewer cells" in failures.reason(tmp_path, data, CELL)
    failures.forget(tmp_path, data, CELL)
    assert not failures.known(tmp_path, data, CELL)


def test_what_an_error_says_of_real_data_stays_with_its_owner(tmp_path: Path) -> None:
    failures.write(tmp_path, "real", CELL, OSError("/data/patient00001 cannot be read"))
    assert failures.reason(tmp_path, "real", CELL) == "OSError: /data/patient00001 cannot be read"
    [failure] = failures.read_all(tmp_path)
    assert failure.reason == "OSError"
    [kept] = (path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".log")
    assert "patient00001" not in kept.read_text()
    ignored = subprocess.run(
        ["git", "check-ignore", "--no-index", "-q", f"results/failures/real/{kept.stem}.log"],
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert ignored.returncode in (0, 128)  # 128: no checkout
    failures.forget(tmp_path, "real", CELL)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_broken_failure_is_named(tmp_path: Path) -> None:
    failures.write(tmp_path, "phantom", CELL, OSError("no"))
    path = failures.path_of(tmp_path, "phantom", CELL)
    path.write_text("{}")
    with pytest.raises(BadRecord, match=path.name):
        list(failures.read_all(tmp_path))
