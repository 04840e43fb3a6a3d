"""What ran and where: commit, versions, machine. Apart because records and checkpoint cards both carry it."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from harness.settings import PACKAGE_ROOT

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "numpy",
    "pandas",
    "scikit-learn",
    "pillow",
    "pydicom",
)
"""Those whose version can change a number."""

SOURCES = ("harness", "methods", "tasks")
"""Folders whose uncommitted changes make a checkout dirty: results and notes do not."""


@dataclass(frozen=True)
class Code:
    commit: str  # "" outside a git checkout
    dirty: bool
    version: str
    python: str
    platform: str
    packages: dict[str, str]


@cache
def code() -> Code:
    """Read once per process: code that is edited while it runs has already been imported."""
    commit = _git("rev-parse", "HEAD")
    return Code(
        commit=commit,
        dirty=bool(commit and _git("status", "--porcelain", "--", *SOURCES)),
        version=_version("cxr-vlp-bench"),
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        packages={name: _version(name) for name in PACKAGES},
    )


def peak_memory_mib() -> float:
    """Of this process so far. Linux counts in KiB, macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _git(*arguments: str) -> str:
    """Output of a git command in the project's folder; "" when there is no git or no checkout of ours."""
    if not (PACKAGE_ROOT / ".git").exists():
        return ""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=PACKAGE_ROOT, capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
