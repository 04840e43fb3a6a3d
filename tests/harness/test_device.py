"""What a device computes in. No GPU is needed: torch is asked what it would answer."""

from __future__ import annotations

import pytest
import torch

from harness import device

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("native", [True, False])
def test_bfloat16_that_is_only_imitated_is_not_used(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    """As by GPUs before Ampere, of which torch says that they support it."""
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native
    )
    assert device.has_bfloat16(GPU) is native
    assert not device.has_bfloat16(CPU)


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
    assert device.arithmetic(CPU) == "cpu"
