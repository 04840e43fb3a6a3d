"""Why a cell has no record, kept and told."""

from __future__ import annotations

import itertools
import json
import os
import stat
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from harness import failures, plan
from harness.contracts import DataKind
from harness.errors import BadRecord
from harness.failures import Tried
from harness.settings import load
from tests import fakes

CELL = plan.cell("random_init", "chexpert", profile="demo", protocol="clean", fraction=0.1, seed=0)
TRIED = Tried("phantom", CELL, "imitate-demo-1a2b3c4d-s0", "demo")
REAL = TRIED._replace(data="real")


def test_a_failure_is_told_with_its_reason(tmp_path: Path) -> None:
    assert "it was not begun" in failures.reason(tmp_path, TRIED)
    failures.write(load(results=tmp_path), TRIED, OSError(28, "No space left on device"))
    assert failures.reason(tmp_path, TRIED) == "OSError: [Errno 28] No space left on device"
    try:
        {}["boom"]  # an error that is none of ours, and says nothing of itself
    except KeyError as error:
        failures.write(load(results=tmp_path), TRIED, error)
    log = failures.path_of(tmp_path, TRIED).with_suffix(".log")
    assert failures.reason(tmp_path, TRIED) == f"KeyError: 'boom' (in which line: {log})"
    assert '{}["boom"]' in log.read_text()
    try:
        raise ValueError("bad file \udcff.png")
    except ValueError as error:
        failures.write(load(results=tmp_path), TRIED, error)
    assert failures.reason(tmp_path, TRIED).startswith("ValueError: bad file \\udcff.png (in which line")


def test_a_failure_is_of_one_cell_and_checkpoint(tmp_path: Path) -> None:
    for cell in (CELL, replace(CELL, cut_validation=True), replace(CELL, tuned=4), replace(CELL, seed=1)):
        failures.write(load(results=tmp_path), TRIED._replace(cell=cell), OSError("no"))
    for other in (REAL, TRIED._replace(checkpoint="imitate-demo-1a2b3c4d-s1"), TRIED._replace(checkpoint="")):
        failures.write(load(results=tmp_path), other, OSError("no"))
    done = fakes.record(method="random_init", fraction=0.1)
    found = list(failures.read_all(tmp_path))
    assert len(found) == 7
    answered = [failure for failure in found if failure.key in failures.keys_of(done)]
    assert {(each.data, each.seed, each.tuned, each.cut_validation) for each in answered} == {
        ("phantom", 0, 0, False)
    }
    assert {each.checkpoint for each in answered} == {TRIED.checkpoint, ""}  # there is one now
    paper = done.model_copy(update={"pretraining": done.pretraining.model_copy(update={"profile": "paper"})})
    assert not {each.key for each in found}.intersection(failures.keys_of(paper))
    failures.forget(tmp_path, TRIED)
    assert len(list(failures.read_all(tmp_path))) == 5


@pytest.mark.parametrize("data", ["phantom", "real"])
def test_a_cell_that_was_begun_and_never_ended_says_so(tmp_path: Path, data: DataKind) -> None:
    assert not failures.known(tmp_path, TRIED._replace(data=data))
    failures.begin(load(results=tmp_path), TRIED._replace(data=data))
    assert failures.known(tmp_path, TRIED._replace(data=data))
    assert not list(failures.read_all(tmp_path))  # it may be running
    failures.settle(load(results=tmp_path), TRIED._replace(data=data))
    assert "because memory ran out: run fewer cells" in failures.reason(tmp_path, TRIED._replace(data=data))
    failures.forget(tmp_path, TRIED._replace(data=data))
    assert not failures.known(tmp_path, TRIED._replace(data=data))


def test_a_cell_that_failed_did_not_die(tmp_path: Path) -> None:
    settings = load(results=tmp_path)
    failures.begin(settings, TRIED)
    failures.write(settings, TRIED, OSError("no"))
    failures.settle(settings, TRIED)
    assert failures.reason(tmp_path, TRIED) == "OSError: no"


def test_what_an_error_says_of_real_data_stays_with_its_owner(tmp_path: Path) -> None:
    failures.write(load(results=tmp_path), REAL, OSError("/data/patient00001 cannot be read"))
    assert failures.reason(tmp_path, REAL) == "OSError: /data/patient00001 cannot be read"
    [failure] = failures.read_all(tmp_path)
    assert failure.reason == "OSError"
    [kept] = (path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".log")
    assert "patient00001" not in kept.read_text()
    assert stat.S_IMODE(failures.path_of(tmp_path, REAL).with_suffix(".log").stat().st_mode) == 0o600
    log, part = f"{kept.stem}.log", f".{kept.stem}.log.0123456789ab.part"  # that a kill leaves of it
    for results, name in itertools.product(("results", "my_results"), (log, part)):
        ignored = subprocess.run(
            ["git", "check-ignore", "--no-index", "-q", f"{results}/failures/real/{name}"],
            cwd=Path(__file__).parents[2],
            check=False,
        )
        assert ignored.returncode in (0, 128)  # 128: no checkout
    failures.forget(tmp_path, REAL)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_beside_real_data_a_phantom_s_failure_says_no_more(tmp_path: Path) -> None:
    """Its task may be measured on a phantom that lies under the data roots, and its corpus be real."""
    error = OSError("the report of patient 10000032 cannot be read")
    failures.write(load(data_root=tmp_path / "data", results=tmp_path), TRIED, error)
    [failure] = failures.read_all(tmp_path)
    assert failure.data == "phantom" and failure.reason == "OSError"
    assert "10000032" not in failures.path_of(tmp_path, TRIED).read_text()
    assert failures.reason(tmp_path, TRIED) == f"OSError: {error}"


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("[Errno 28] No space left on device: '/home/jane.doe/.harness/images/x.npy'", ""),
        ("\nno sign\n\n## Phantom track\n| a | b |", "no sign"),
        ("no sign\n  in /home/jane.doe/x.py", "no sign"),
    ],
    ids=["path", "lines", "path in another line"],
)
def test_what_anybody_may_see_is_one_line_without_a_path(tmp_path: Path, message: str, shown: str) -> None:
    path, settings = failures.path_of(tmp_path, TRIED), load(results=tmp_path)
    failures.write(settings, TRIED, OSError("no"))
    old = path.read_text().replace('"no"', json.dumps(message))  # of an earlier version, committed as it is
    path.write_text(old)
    [failure] = failures.read_all(tmp_path)
    assert failure.message == shown
    failures.write(settings, TRIED, OSError(message))
    assert json.loads(path.read_text())["message"] == shown
    assert failures.reason(tmp_path, TRIED) == f"OSError: {message}".strip()  # its owner sees all
    failures.write(settings, TRIED, OSError("yes"))
    assert failures.reason(tmp_path, TRIED) == "OSError: yes"


@pytest.mark.parametrize("tried", [TRIED, REAL], ids=["phantom", "real"])
def test_a_message_that_is_no_unicode_can_be_read_again(tmp_path: Path, tried: Tried) -> None:
    """As of a file whose name is not UTF-8."""
    failures.write(load(results=tmp_path), tried, OSError(os.fsdecode(b"bild\xfc.png is damaged")))
    assert failures.reason(tmp_path, tried) == r"OSError: bild\udcfc.png is damaged"
    [failure] = failures.read_all(tmp_path)
    assert failure.error == "OSError"


def test_a_broken_failure_is_named(tmp_path: Path) -> None:
    failures.write(load(results=tmp_path), TRIED, OSError("no"))
    path = failures.path_of(tmp_path, TRIED)
    path.write_text("{}")
    with pytest.raises(BadRecord, match=rf"{path.name}: method: Field required\. Delete it"):
        list(failures.read_all(tmp_path))
