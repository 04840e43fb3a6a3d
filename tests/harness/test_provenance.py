"""What a record says of the machine."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import numpy as np
from harness import provenance
start = provenance.peak_memory_mib()
large = np.ones(2**28, dtype=np.uint8)
held = provenance.peak_memory_mib()
del large
kept = provenance.peak_memory_mib()
provenance.forget_peak_memory()
print(held - start, kept - start, provenance.peak_memory_mib() - start)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot forget")
def test_a_peak_is_kept_until_it_is_forgotten() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    held, kept, after = map(float, done.stdout.split())
    assert held > 200 and kept > 200  # MiB, of 256
    assert after < 56
