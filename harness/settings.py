"""Where things are: the project, the user's data, caches and checkpoints. The only reader of the environment,
`parallel.workers` aside, because a dataset's reader is handed a folder only.

HARNESS_DATA         folder(s) with official downloads, as in PATH; unset: phantoms stand in
HARNESS_HOME         caches, phantoms and checkpoints; default `.harness` in the project's folder
HARNESS_DEVICE       cpu, cuda, cuda:1, ...; default: cuda when there is one
HARNESS_WORKERS      processes side by side that read, decode and draw, and cells of a sweep; default: all
                     cores this process may use
HARNESS_BANK_DTYPE   float32 or float16, of cached features; default: float32
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from harness.errors import UsageError
from harness.parallel import workers

BankDtype = Literal["float32", "float16"]

PACKAGE_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Settings:
    """Read once per command by `load()` and handed down. Folders are absolute: processes of a sweep
    stand in another one."""

    project: Path  # holds methods/, tasks/ and leaderboard.md
    results: Path  # one record per cell
    home: Path  # caches, phantoms, checkpoints
    data_roots: tuple[Path, ...]  # empty: no real data configured
    device: str  # "" lets torch decide
    workers: int
    bank_dtype: BankDtype

    @property
    def checkpoints(self) -> Path:
        return self.home / "checkpoints"

    @property
    def images(self) -> Path:
        return self.home / "images"

    @property
    def banks(self) -> Path:
        return self.home / "banks"

    @property
    def texts(self) -> Path:
        return self.home / "texts"

    @property
    def searches(self) -> Path:
        return self.home / "searches"

    @property
    def phantoms(self) -> Path:
        return self.home / "phantoms"

    @property
    def data_option(self) -> str:
        """The end of a printed command that reads the same data; "" where HARNESS_DATA says which."""
        given = self.data_roots != _roots_of_the_environment()
        return "".join(f" --data-root {shlex.quote(str(root))}" for root in self.data_roots if given)

    def require_roots(self) -> None:
        """Raises UsageError for a data root that is no folder, as of a disk that is not mounted: what lies in
        the others may be another copy."""
        for root in self.data_roots:
            if not root.is_dir():
                raise UsageError(f"the data root {root} is not a folder. Check --data-root or HARNESS_DATA")


def load(data_root: Path | None = None, results: Path | None = None) -> Settings:
    """Settings from the environment; explicit arguments win. Raises UsageError for a value that cannot be."""
    project = PACKAGE_ROOT if (PACKAGE_ROOT / "pyproject.toml").exists() else Path.cwd()
    return Settings(
        project=project,
        results=(results or project / "results").expanduser().resolve(),
        home=Path(os.environ.get("HARNESS_HOME") or project / ".harness").expanduser().resolve(),
        data_roots=_absolute([data_root]) if data_root else _roots_of_the_environment(),
        device=os.environ.get("HARNESS_DEVICE", ""),
        workers=workers(),
        bank_dtype=_bank_dtype(os.environ.get("HARNESS_BANK_DTYPE") or "float32"),
    )


def _roots_of_the_environment() -> tuple[Path, ...]:
    return _absolute(Path(item) for item in os.environ.get("HARNESS_DATA", "").split(os.pathsep) if item)


def _absolute(roots: Iterable[Path]) -> tuple[Path, ...]:
    return tuple(root.expanduser().resolve() for root in roots)


def _bank_dtype(text: str) -> BankDtype:
    if text not in get_args(BankDtype):
        raise UsageError(f"HARNESS_BANK_DTYPE is {text!r}. Set it to {' or '.join(get_args(BankDtype))}")
    return cast(BankDtype, text)
