"""The machines that a sweep runs on: this one's cores, or a Ray cluster.

Apart because everything else of a sweep asks only how much there is for a trial.
"""

from __future__ import annotations

import logging
import signal
import socket
import threading
from typing import Any, NamedTuple

import ray

from harness.errors import UsageError
from harness.settings import Settings

logger = logging.getLogger(__name__)

CONNECTING = 10.0  # seconds that a cluster has to answer


class Machines(NamedTuple):
    cores: int  # of the largest of those that compute
    gpus: float  # for a cell or a training: one where there are any, and the device is to be one
    side_by_side: int  # cells on it

    def cores_of_each(self, trials: int) -> int:
        """Cores for each of so many trials that run side by side."""
        return max(self.cores // min(trials, self.side_by_side), 1)


def join(settings: Settings, address: str | None) -> Machines:
    """Joins or starts Ray where that has not been done: a sweep with nothing to do needs none."""
    if not ray.is_initialized():
        try:
            _require_answer(address)
            ray.init(
                address or "local",  # without it, whatever cluster somebody else has started on this machine
                num_cpus=None if address else settings.workers,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except (OSError, ValueError, RuntimeError) as error:
            if address is None:
                raise
            raise UsageError(
                f"no Ray cluster answers at --address {address}: {error}. Start one there with ray start "
                "--head, by the same versions of Python and Ray, or leave --address out. Where ray start "
                "says that token authentication is enabled, set RAY_AUTH_MODE=token"
            ) from error
        if address:
            free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
            place = ray.get_runtime_context().gcs_address
            logger.info(
                "joined the Ray cluster at %s, where %d cores and %d GPUs are free",
                *(place, free.get("CPU", 0), free.get("GPU", 0)),
            )
        end_as_by_ctrl_c()  # Ray has set a handler of its own, which prints a trace
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    resources = [node["Resources"] for node in nodes if node["Alive"]]
    with_gpu = [each for each in resources if each.get("GPU")] if settings.device in ("", "cuda") else []
    largest = max(with_gpu or resources, key=lambda each: each.get("CPU", 1.0))  # one machine that has both
    cores = int(largest.get("CPU", 1.0))
    return Machines(cores, 1.0, int(largest["GPU"])) if with_gpu else Machines(cores, 0.0, cores)


def end_as_by_ctrl_c() -> None:
    """Makes a scheduler's time limit end a sweep as Ctrl-C does."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def _require_answer(address: str | None) -> None:
    """Raises OSError where nobody listens at HOST:PORT, which Ray would try for a quarter of an hour."""
    host, _, port = (address or "").rpartition(":")
    if port.isdecimal() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECTING).close()
