"""Starts the processes of a team, on this machine's devices or on those of a Ray cluster.

Apart because it is the only file that knows Ray Train: the processes do what one process would do, and know
each other through `team.py` alone. They share the folder of caches and checkpoints; on several machines it
must be a shared one.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import torch
from ray.train import RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from harness.errors import HarnessError
from harness.pretrain.log import STEPS
from harness.pretrain.team import Team
from harness.progress import Bar

Member = Callable[[Team, torch.device], None]


def run(member: Member, processes: int, *, gpu: bool, folder: Path, steps: int) -> None:
    """Calls `member` in so many processes, and shows how far the training in `folder` is of `steps`.

    There is a device for each. Raises the HarnessError of the process that failed, or one with its message.
    """
    storage = folder / "ray"  # Ray's own notes
    ray.init(
        "local",
        num_cpus=None if gpu else processes,  # Ray may count fewer, and would wait for the rest
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        trainer = TorchTrainer(
            _loop,
            train_loop_config={"member": member},
            scaling_config=ScalingConfig(num_workers=processes, use_gpu=gpu),
            torch_config=TorchConfig(backend="nccl" if gpu else "gloo"),
            run_config=RunConfig(name="run", storage_path=str(storage)),
        )
        with _shown(folder / STEPS, steps):
            trainer.fit()
    except TrainingFailedError as error:
        raise _cause(error) from error
    finally:
        ray.shutdown()
        shutil.rmtree(storage, ignore_errors=True)


def _loop(config: dict[str, Any]) -> None:
    place = get_device()
    if place.type == "cuda":
        torch.cuda.set_device(place)  # where torch puts what it exchanges unasked
    config["member"](Team(), place)


def _cause(error: TrainingFailedError) -> Exception:
    """What went wrong in the first process that failed; the others only lost their connection to it."""
    failures = dict(getattr(error, "worker_failures", {}))
    for failure in failures.values():
        if isinstance(failure, HarnessError):
            return failure
    return HarnessError(
        f"pre-training ended in process {', '.join(map(str, failures))}: {error}. What was saved is kept: "
        "cure it and run the same command again"
    )


@contextmanager
def _shown(path: Path, steps: int) -> Iterator[None]:
    """A bar that counts the log's lines while the training runs elsewhere."""
    over = threading.Event()

    def count(bar: Bar) -> None:
        while not over.wait(1.0):
            if path.exists():
                bar.advance(max(path.read_bytes().count(b"\n") - 1, 0) - bar.done)

    with Bar("pre-training", steps, "steps") as bar:
        thread = threading.Thread(target=count, args=(bar,))
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
