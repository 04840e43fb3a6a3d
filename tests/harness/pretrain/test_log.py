"""What a training writes about itself is read by other programs, also after a resume."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from harness.pretrain.log import Log


def rows(steps: range) -> list[dict[str, float]]:
    return [{"step": step, "loss": 1 / (1 + step)} for step in steps]


def test_a_resumed_log_has_every_step_once_for_pandas_and_tensorboard(tmp_path: Path) -> None:
    with Log(tmp_path, 0) as log:
        log.write(rows(range(3)))
        log.write(rows(range(3, 6)))
        log.curves("validation", {"recall": 0.5}, 5)
    with Log(tmp_path, 3) as log:  # the state on the disk was that of three steps
        log.write(rows(range(3, 6)))
        log.write(rows(range(6, 9)))
    table = pd.read_csv(tmp_path / "log.csv")
    assert table["step"].tolist() == list(range(9))
    assert table["loss"].tolist() == [1 / (1 + step) for step in range(9)]
    curves = EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in curves.Scalars("train/loss")] == [2, 5, 8]  # the last of each look
    assert log.mean(last=2) == {"loss": (1 / 8 + 1 / 9) / 2}


def test_a_first_run_forgets_what_lay_there(tmp_path: Path) -> None:
    with Log(tmp_path, 0) as log:
        log.write([{"step": 0, "loss": 1.0, "old_term": 2.0}])
    with Log(tmp_path, 0) as log:
        log.write(rows(range(2)))
    assert list(pd.read_csv(tmp_path / "log.csv").columns) == ["step", "loss"]
