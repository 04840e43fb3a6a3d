"""Two processes under Ray Train, started by the command line: killed, continued, failing, too many."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ray.train import WorkerGroupError
from safetensors.torch import load_file

from harness import plan, settings
from harness.errors import HarnessError, TrainingDiverged
from harness.pretrain import distributed, make
from harness.pretrain.state import STATE
from harness.pretrain.team import Team
from tests import fakes
from tests.harness.command import harness
from tests.harness.pretrain import processes
from tests.harness.pretrain.loop import recipe

METHOD = """
import time
from pathlib import Path
import torch.distributed as dist
from harness.contracts import *
from harness.errors import TrainingDiverged
from harness.pretrain import engine
from tests.harness.pretrain.loop import Contrasting

CARD = {card!r}
FOLDER = Path({folder!r})
engine.FLUSH_EVERY, engine.SAVE_EVERY_SECONDS, engine.SAVE_SHARE = 1, 0.0, 1e9


class Moody(Contrasting):
    def loss(self, batch):
        if self.training and len(self.trained) == 4 and dist.is_initialized():
            if (FOLDER / "hold").exists():
                (FOLDER / "held").touch()
                time.sleep(600)
            if (FOLDER / "fail").exists() and dist.get_rank() == 1:
                raise TrainingDiverged("the second process had enough")
        return super().loss(batch)


def build(profile, *, initialise=True):
    return Moody()
"""


def written(folder: Path) -> Path:
    """A method that stops in its fifth step when a file says so, and its corpus."""
    card = replace(fakes.CARD, profiles={"demo": recipe(gather=True)})
    (folder / "moody.py").write_text(METHOD.format(card=card, folder=str(folder)))
    fakes.write_dataset(folder)
    return folder


def start(folder: Path) -> subprocess.Popen[str]:
    arguments = ["--method", folder / "moody.py", "--corpus", folder / "toy.py", "--processes", 2]
    command = [sys.executable, "-m", "harness", "pretrain", *map(str, arguments)]
    place = {**os.environ, "HARNESS_HOME": str(folder / "home")}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=place)


def unfinished(folder: Path) -> Path:
    [found] = (folder / "home" / "checkpoints").glob(".moody-*.training")
    return found


def uninterrupted(folder: Path, team: Team) -> None:
    """The same training without Ray, by two processes of this test."""
    method = plan.method(str(folder.parent / "moody.py"), "demo")
    source = plan.corpus(method, str(folder.parent / "toy.py"))
    cpu = torch.device("cpu")
    make._member(method, source, settings.load(), 0, False, folder, team, cpu)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job whose first process was killed in the fifth step; Ray's end with the one that started them."""
    folder = written(tmp_path_factory.mktemp("killed"))
    (folder / "hold").touch()
    job = start(folder)
    while not (folder / "held").exists():
        assert job.poll() is None, job.communicate()[1]
        time.sleep(0.1)
    job.kill()
    job.communicate()
    assert (unfinished(folder) / STATE).exists()
    (folder / "hold").unlink()
    return folder


@pytest.mark.slow
def test_a_killed_job_goes_on_to_the_same_bits(killed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = start(killed)
    out, err = job.communicate(timeout=600)
    assert job.returncode == 0, err
    assert "10 steps" in out
    monkeypatch.setenv("HARNESS_HOME", str(killed / "home"))
    processes.run(uninterrupted, killed / "whole")
    [made] = settings.load().checkpoints.glob("moody-*")
    weights, expected = (load_file(place / "weights.safetensors") for place in (made, killed / "whole"))
    for name, value in expected.items():
        assert torch.equal(weights[name], value), name
    assert (made / "log.csv").read_bytes() == (killed / "whole" / "log.csv").read_bytes()
    assert not {"ray", STATE, make.LOCK} & {path.name for path in made.iterdir()}


@pytest.mark.slow
def test_an_error_in_one_process_is_the_job_s(tmp_path: Path) -> None:
    (written(tmp_path) / "fail").touch()
    job = start(tmp_path)
    _, err = job.communicate(timeout=600)
    assert job.returncode == 1
    assert err.splitlines()[-1] == "error: the second process had enough"
    assert "Traceback" not in err
    assert (unfinished(tmp_path) / STATE).exists()  # what was saved is kept


def test_more_processes_than_cores_are_refused_before_anything_is_read(tmp_path: Path, home: Path) -> None:
    folder = written(tmp_path)
    refused = harness(
        *("pretrain", "--method", folder / "moody.py", "--corpus", folder / "toy.py", "--processes", 1000)
    )
    assert refused.code == 2
    assert "error: 1000 processes need a CPU each" in refused.err.splitlines()[-1]
    assert not home.exists()


def test_the_cause_is_the_process_that_knows_it() -> None:
    lost, known = RuntimeError("Connection closed by peer"), TrainingDiverged("step 7 is not finite")
    assert distributed._cause(WorkerGroupError("two failed", {0: lost, 1: known})) is known
    other = distributed._cause(WorkerGroupError("rank 1 is out of memory", {1: lost}))
    assert isinstance(other, HarnessError)
    assert (
        "process 1" in str(other) and "out of memory" in str(other) and "run the same command" in str(other)
    )
