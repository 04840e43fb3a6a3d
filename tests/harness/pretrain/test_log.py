"""What a training writes about itself is read by other programs, also after a resume."""

from __future__ import annotations

import time
from pathlib import Path

import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from harness.errors import CheckpointError
from harness.pretrain import log as logs
from harness.pretrain.log import Log


def rows(steps: range) -> list[dict[str, float]]:
    return [{"step": step, "loss": 1 / (1 + step)} for step in steps]


def test_a_resumed_log_has_every_step_and_epoch_once_for_pandas_and_tensorboard(tmp_path: Path) -> None:
    with Log(tmp_path, 0) as log:
        for epoch in range(2):
            log.write(rows(range(3 * epoch, 3 * epoch + 3)))
            log.validated({"step": 3 * epoch + 2, "recall": 0.5})
    time.sleep(1 - time.time() % 1)  # TensorBoard reads its files in the order of the seconds in their names
    with Log(tmp_path, 3, 1) as log:  # the state on the disk was that of three steps, an epoch
        for epoch in range(1, 3):
            log.write(rows(range(3 * epoch, 3 * epoch + 3)))
            log.validated({"step": 3 * epoch + 2, "recall": 0.25})
    table = pd.read_csv(tmp_path / "log.csv")
    assert table["step"].tolist() == list(range(9))
    assert table["loss"].tolist() == [1 / (1 + step) for step in range(9)]
    epochs = pd.read_csv(tmp_path / "validation.csv")
    assert epochs["step"].tolist() == [2, 5, 8] and epochs["recall"].tolist() == [0.5, 0.25, 0.25]
    curves = EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in curves.Scalars("train/loss")] == [2, 5, 8]  # the last of each look
    assert [event.value for event in curves.Scalars("validation/recall")] == [0.5, 0.25, 0.25]
    read = logs.read(tmp_path / "log.csv")
    assert read == [{"step": step, "loss": 1 / (1 + step)} for step in range(9)]
    assert logs.mean(read[-2:]) == {"loss": (1 / 8 + 1 / 9) / 2}


@pytest.mark.parametrize("name", ["log.csv", "validation.csv"])
def test_lines_that_a_lost_machine_took_with_it_are_missed_at_once(tmp_path: Path, name: str) -> None:
    """The state is there, and says how many there were."""
    with Log(tmp_path, 0) as log:
        log.write(rows(range(3)))
        log.validated({"step": 2, "recall": 0.5})
    path = tmp_path / name
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(CheckpointError, match=rf"{name} lacks lines of the \d that were done. Delete"):
        Log(tmp_path, 3, 1)


def test_a_first_run_forgets_what_lay_there(tmp_path: Path) -> None:
    with Log(tmp_path, 0) as log:
        log.write([{"step": 0, "loss": 1.0, "old_term": 2.0}])
    with Log(tmp_path, 0) as log:
        log.write(rows(range(2)))
    assert list(pd.read_csv(tmp_path / "log.csv").columns) == ["step", "loss"]
