"""Which device computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from harness import provenance
from harness.errors import UsageError


def choose(name: str) -> torch.device:
    """The device of that name, or for "" a GPU when there is one. Raises UsageError when it is not there, or
    when this torch was built for newer GPUs."""
    name = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda"):
            raise RuntimeError("it is no CPU and no CUDA device")
        torch.zeros(1, device=device).add_(1).item()  # the first thing that a GPU computes
    except (RuntimeError, AssertionError) as error:  # torch built without CUDA answers with an assertion
        raise UsageError(
            f"the device {name!r} cannot be used: {error}. Set HARNESS_DEVICE to one that can, such as cpu"
        ) from error
    return device


def require_one_each(processes: int, device: torch.device, cores: int) -> None:
    """Raises UsageError when there are fewer GPUs, or on the CPU fewer cores, than processes."""
    unit, have = ("GPU", torch.cuda.device_count()) if device.type == "cuda" else ("CPU", cores)
    if processes > have:
        raise UsageError(
            f"{processes} processes need a {unit} each, and there are {have}. Use --processes {have}"
        )


def has_bfloat16(device: torch.device) -> bool:
    """Whether it computes in bfloat16. GPUs before Ampere only imitate it, slower than float32."""
    if device.type != "cuda":
        return False
    with torch.cuda.device(device):  # which the next line asks about
        native: bool = torch.cuda.is_bf16_supported(including_emulation=False)
    return native


def autocast(device: torch.device) -> torch.autocast:
    """Casts to bfloat16 where the device has it, and else nothing."""
    return torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device))


def arithmetic(device: torch.device) -> str:
    """What float32 features depend on beside the code: processors round differently, and on newer GPUs
    convolutions keep ten bits of a factor (TF32), unless that was turned off."""
    if device.type != "cuda":
        return provenance.processor()
    return f"cuda {torch.cuda.get_device_capability(device)} tf32 {torch.backends.cudnn.allow_tf32}"


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Inside, torch draws from `seed`; after it, from where it was before."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """Runs the block on one thread. In work of thousands of tiny steps, threads wait for each other at each:
    more of them save little where the cores are idle, and cost a hundredfold where they are not."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def describe(device: torch.device) -> str:
    """The name a record gives it: "AMD EPYC 9654 96-Core Processor (2 threads)", "NVIDIA H100"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{provenance.processor()} ({torch.get_num_threads()} threads)"


def forget_memory_peaks(device: torch.device) -> None:
    """Resets the peaks that `memory_peaks_mib` tells: a process of a sweep computes many cells."""
    provenance.forget_peak_memory()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def memory_peaks_mib(device: torch.device) -> dict[str, float]:
    """Peak memory in MiB since `forget_memory_peaks`, or else since the process began: `process`, and `gpu`
    for tensors on one."""
    peaks = {"process": round(provenance.peak_memory_mib(), 1)}
    if device.type == "cuda":
        peaks["gpu"] = round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    return peaks
