"""The command line: one file per verb, errors without tracebacks, exit codes that scripts can trust.

Apart because it stays instant: nothing heavy is imported here, and each verb imports its work when it runs.

Exit codes: 0 done, 1 something failed, 2 the command itself was wrong, 130 stopped.
"""

from __future__ import annotations

import logging
import sys
import sysconfig
import traceback

import typer

from harness.cli import audit, checkpoints, compare, data, leaderboard, listing, pretrain, results, run, sweep
from harness.errors import HarnessError

app = typer.Typer(
    help="A benchmark of medical vision-language pre-training on chest X-rays.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich's help would cost as much time as all the rest
    epilog="First steps: python -m harness run --method imitate --task chexpert --fraction 0.01",
)
app.command("run")(run.run)
app.command("sweep")(sweep.sweep)
app.command("pretrain")(pretrain.pretrain)
app.command("audit")(audit.audit)
app.command("leaderboard")(leaderboard.leaderboard)
app.command("compare")(compare.compare)
app.add_typer(listing.app, name="list")
app.add_typer(results.app, name="results")
app.add_typer(data.app, name="data")
app.add_typer(checkpoints.app, name="checkpoints")


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("harness").setLevel(logging.INFO)
    try:
        app()
    except HarnessError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    except OSError as error:
        if error.filename is None and error.strerror is None:
            raise
        place = f"{error.filename}: " if error.filename else ""
        sys.stderr.write(f"error: {place}{error.strerror}. Finished work is kept: cure it and run again\n")
        sys.exit(1)
    except Exception as error:
        logging.exception("")
        frames = traceback.extract_tb(error.__traceback__)
        last = next((frame for frame in reversed(frames) if not _of_a_library(frame)), frames[-1])
        sys.stderr.write(
            f"error: {type(error).__name__}: {error} ({last.filename}, line {last.lineno}). Nobody foresaw "
            "it: mend that file if it is yours, else report it with these lines\n"
        )
        sys.exit(1)


def _of_a_library(frame: traceback.FrameSummary) -> bool:
    return frame.filename.startswith(("<", *(sysconfig.get_path(name) for name in ("stdlib", "purelib"))))
