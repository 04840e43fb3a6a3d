"""What a run does with the record that its own takes the place of."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import quarantine, records
from harness import run as pipeline
from tests import fakes


def test_a_record_of_other_weights_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = fakes.write(tmp_path)
    before = records.read(path)
    old = [file.read_bytes() for file in (path, path.with_suffix(".npz"))]
    pretraining = before.pretraining.model_copy(update={"weights": "1" * 64})
    pipeline._make_room(tmp_path, before, before.model_copy(update={"pretraining": pretraining}))
    [folder] = (tmp_path / quarantine.FOLDER).iterdir()
    assert caplog.messages == [
        f"{path} of {before.written.date()} is of other weights. Put aside in {folder}"
    ]
    aside = folder / path.relative_to(tmp_path)
    assert [file.read_bytes() for file in (aside, aside.with_suffix(".npz"))] == old
    assert not path.exists() and not path.with_suffix(".npz").exists()


def test_a_record_of_the_same_is_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = fakes.write(tmp_path)
    record = records.read(path)
    pipeline._make_room(tmp_path, record, record)
    assert caplog.messages == [f"{path} of {record.written.date()} is replaced by one of the same"]
    assert path.exists() and not (tmp_path / quarantine.FOLDER).exists()
