"""Freed memory is reused for the next image."""

from __future__ import annotations

import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import numpy as np
from das3d_cli.memory import keep_freed
if sys.argv[1] == "kept":
    keep_freed()
np.ones(5_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    np.ones(5_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is Linux's")
def test_memory_is_mapped_once():
    faults = {}
    for how in ("kept", "as it is"):
        done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
        faults[how] = int(done.stdout)
    if faults["as it is"] < 1000:
        pytest.skip("another C library than glibc keeps it anyway")
    assert faults["kept"] < 0.05 * faults["as it is"]
