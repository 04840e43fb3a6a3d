"""What ran and where: commit, versions, machine. Apart because records and checkpoint cards both carry it."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import platform
import resource
import subprocess
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from harness.settings import PACKAGE_ROOT

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "segmentation-models-pytorch",
    "numpy",
    "scipy",
    "pandas",
    "pillow",
    "pydicom",
    "pylibjpeg",
    "pylibjpeg-libjpeg",
    "pylibjpeg-openjpeg",
    "pyjpegls",
)
"""Packages whose version can change a number."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h

SOURCES = ("harness", "methods", "tasks")
"""Folders whose uncommitted changes make a checkout dirty: results and notes do not."""


@dataclass(frozen=True)
class Code:
    commit: str  # "" outside a git checkout
    dirty: bool  # whether some of it is not as in the commit, or may not be
    version: str
    python: str
    platform: str
    packages: dict[str, str]


@cache
def code(*files: Path) -> Code:
    """Read once per process: code that is edited while it runs has already been imported. So ask before the
    work, which may take hours. `files`, of a method and a dataset, may lie anywhere. What git cannot answer
    counts as changed, and so does all that is asked for once the commit is another one."""
    changes = [_git("status", "--porcelain", "--", *SOURCES)]
    changes += [_git("status", "--porcelain", "--ignored", "--", str(file)) for file in files]
    commit = _commit()
    return Code(
        commit=commit or "",
        dirty=any(change != "" for change in changes) or _git("rev-parse", "HEAD") != commit,
        version=_version("cxr-vlp-bench"),
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        packages={name: _version(name) for name in PACKAGES},
    )


@cache
def processor() -> str:
    """The name of the CPU, "cpu" where the system does not tell. MKL, which multiplies torch's matrices,
    rounds differently on Intel's and on AMD's, and so does oneDNN with other vector instructions: the same
    seed then trains other weights."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):  # other systems than Linux, and ARM's processors
        return platform.processor() or "cpu"


@cache
def _commit() -> str | None:
    return _git("rev-parse", "HEAD")


def forget_peak_memory() -> None:
    """Resets the peak that `peak_memory_mib` tells to what is held now. What is free by now goes back to
    the system: glibc keeps it in pieces, and a process of many cells grew with each of them. From now on it
    keeps large pieces too, until this is called again: to get the memory of every batch anew takes a fifth of
    the time that encoding does. Nothing happens where a system knows neither (macOS, some containers)."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.malloc_trim(0)
        libc.mallopt(M_MMAP_THRESHOLD, 2**30)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mib() -> float:
    """Peak memory of this process in MiB, since `forget_peak_memory` or else since it began."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10
    except (OSError, StopIteration):  # macOS, which counts in bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _git(*arguments: str) -> str | None:
    """Output of a git command in the project's folder; None when there is no git, no checkout of ours, or no
    answer."""
    if not (PACKAGE_ROOT / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=PACKAGE_ROOT, capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
