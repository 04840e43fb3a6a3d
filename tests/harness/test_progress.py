"""A bar on a terminal, a few lines in a log; standard output stays free for results."""

from __future__ import annotations

import io
import re
import sys

import pytest

from harness import progress
from harness.progress import Bar


def test_a_log_gets_one_line_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar("decoding", 3) as bar:
        bar.advance(2)
        bar.advance(note="loss 0.5")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("decoding: 3/3 images, ")
    assert err.endswith("/s, 0 s loss 0.5\n")
    assert err.count("\n") == 1


def test_a_log_gets_lines_on_the_way_with_the_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(float(second) for second in range(0, 1000, 10))  # ten seconds pass between two looks
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(progress, "LOG_EVERY_SECONDS", 5.0)
    with Bar("training", 4, "steps") as bar:
        bar.advance(0, "2 running")
        bar.advance(2)
    nothing, first, *_ = capsys.readouterr().err.splitlines()
    assert nothing.startswith("training: 0/4 steps, ") and "left" not in nothing  # nobody knows
    assert first.startswith("training: 2/4 steps, ")
    assert " s left" in first


def test_what_takes_longer_than_a_second_is_told_in_seconds_each(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(float(second) for second in range(0, 1000, 30))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with Bar("cells", 2, "cells") as bar:
        bar.advance()
    assert re.search(r"cells: 1/2 cells, \d+ s each", capsys.readouterr().err)


def test_a_failed_or_empty_job_reports_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError), Bar("decoding", 3) as bar:
        bar.advance()
        raise RuntimeError
    with Bar("nothing", 0):
        pass
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "stderr", terminal)
    with Bar("decoding[frontal]", 2) as bar:
        bar.advance(2, note="in [/data]")
    assert "decoding[frontal]" in terminal.getvalue()
    assert re.search(r"2/2 images, .*in \[/data\]", terminal.getvalue())
