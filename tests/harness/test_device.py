"""What a device computes in. No GPU is needed: torch is asked what it would answer."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from harness import device, provenance
from harness.errors import UsageError

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("native", [True, False])
def test_bfloat16_that_is_only_imitated_is_not_used(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    """As by GPUs before Ampere, of which torch says that they support it."""
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native
    )
    asked = []
    monkeypatch.setattr(torch.cuda, "device", lambda place: asked.append(place) or nullcontext())
    second = torch.device("cuda:1")
    assert device.has_bfloat16(second) is native and asked == [second]
    assert not device.has_bfloat16(CPU)


def test_a_gpu_that_this_torch_cannot_compute_on_is_refused_before_any_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It takes tensors; the first sum fails."""

    class Old(torch.Tensor):
        def add_(self, *_: object) -> torch.Tensor:  # type: ignore[override]
            raise RuntimeError("CUDA error: no kernel image is available for execution on the device")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "zeros", lambda size, device: Old(size))
    with pytest.raises(UsageError, match=r"'cuda' cannot be used: CUDA error: no kernel image.*such as cpu"):
        device.choose("")


def test_a_device_that_nothing_here_was_tried_on_is_refused() -> None:
    with pytest.raises(UsageError, match="'meta' cannot be used: it is no CPU and no CUDA device"):
        device.choose("meta")


@pytest.mark.parametrize(("place", "unit"), [(CPU, "CPU"), (GPU, "GPU")], ids=str)
def test_each_process_has_a_device(monkeypatch: pytest.MonkeyPatch, place: torch.device, unit: str) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4 if unit == "GPU" else 0)
    cores = 4 if unit == "CPU" else 2
    device.require_one_each(4, place, cores)
    with pytest.raises(UsageError, match=f"5 processes need a {unit} each, and there are 4"):
        device.require_one_each(5, place, cores)


def test_draws_go_on_where_they_were() -> None:
    torch.manual_seed(0)
    expected = torch.rand(4)
    torch.manual_seed(0)
    first = torch.rand(2)
    with device.seeded(7, CPU):
        inside = torch.rand(3)
    assert torch.equal(torch.cat([first, torch.rand(2)]), expected)
    assert torch.equal(inside, torch.rand(3, generator=torch.Generator().manual_seed(7)))


def test_nothing_is_cast_on_cpus() -> None:
    with device.autocast(CPU):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_features_of_other_arithmetic_have_other_names(monkeypatch: pytest.MonkeyPatch) -> None:
    said = set()
    for generation in ((7, 5), (9, 0)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda place, found=generation: found)
        for tf32 in (True, False):
            monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", tf32)
            said.add(device.arithmetic(GPU))
    assert len(said) == 4
    for processor in ("GenuineIntel", "AuthenticAMD"):
        monkeypatch.setattr(provenance, "processor", lambda name=processor: name)
        said.add(device.arithmetic(CPU))
    assert len(said) == 6
