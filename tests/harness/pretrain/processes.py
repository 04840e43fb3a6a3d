"""Two processes for a test: forks of a fresh interpreter that meet in one of torch's process groups."""

from __future__ import annotations

import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import torch.distributed as dist

from harness.pretrain.team import Team

Task = Callable[[Path, Team], None]


def run(task: Task, folder: Path, size: int = 2) -> None:
    """Calls `task`, a function of a module, in every process; fails with what they wrote if one does."""
    folder.mkdir(parents=True, exist_ok=True)
    name, call = task.__name__, f"fork({task.__name__}, Path({str(folder)!r}), {size})"
    program = (
        f"from pathlib import Path; from {__name__} import *; from {task.__module__} import {name}; {call}"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def fork(task: Task, folder: Path, size: int) -> None:
    children = [os.fork() or _member(task, folder, rank, size) for rank in range(size)]
    sys.exit(any([os.waitpid(child, 0)[1] for child in children]))


def _member(task: Task, folder: Path, rank: int, size: int) -> int:
    status = 1
    try:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)
        task(folder, Team())
        dist.barrier()
        status = 0
    except BaseException:  # a process that dies silently would leave the others waiting
        traceback.print_exc()
        raise
    finally:
        sys.stderr.flush()
        os._exit(status)
