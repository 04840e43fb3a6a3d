"""What `run` says at its end."""

from __future__ import annotations

from pathlib import Path

from harness.cli.run import _beside_other_weights
from tests import fakes


def test_a_record_beside_others_of_its_name_but_of_other_weights_is_told(tmp_path: Path) -> None:
    """No page shows both, so that its command is no advice."""
    made = fakes.record(fraction=0.01)
    path = fakes.store(tmp_path, made)
    fakes.write(tmp_path, fraction=0.1)
    fakes.write(tmp_path, fraction=0.1, family="gloria-demo-1a2b3c4d")
    (path.parent / "clean-100pct-s0.json").write_text("{")  # whoever reads it says so
    assert not _beside_other_weights(path, made)
    other = made.pretraining.model_copy(update={"weights": "0" * 64})
    assert _beside_other_weights(path, made.model_copy(update={"pretraining": other}))
