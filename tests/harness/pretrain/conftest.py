"""What the tests of the loop share."""

from __future__ import annotations

import pytest

from harness.pretrain import engine


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks at the loss and saves more often than once in a run of 15 steps."""
    monkeypatch.setattr(engine, "FLUSH_EVERY", 2)
    monkeypatch.setattr(engine, "SAVE_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(engine, "SAVE_SHARE", 1e9)
