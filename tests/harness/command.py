"""The command line in the process of a test: quick, because torch is imported already."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
from typing import NamedTuple

from harness.cli.app import main


class Ended(NamedTuple):
    code: int
    out: str
    err: str


def harness(*arguments: object) -> Ended:
    """Runs `python -m harness ...`, with the log where a process of its own would have it."""
    out, err, log = io.StringIO(), io.StringIO(), logging.getLogger()
    handlers, level, argv, code = log.handlers, log.level, sys.argv, 0
    log.handlers, sys.argv = [], ["harness", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    finally:
        log.handlers, log.level, sys.argv = handlers, level, argv
    return Ended(code, out.getvalue(), err.getvalue())
