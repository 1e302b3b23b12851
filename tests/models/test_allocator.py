"""Memory that was freed is used again without page faults."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch
from clew.models.allocator import keep_freed_memory

if sys.argv[1] == "keep":
    assert keep_freed_memory()
else:
    import ctypes
    ctypes.CDLL(None).mallopt(-3, 1 << 20)  # every large block is mapped anew, whatever was freed before
faults = []
for _ in range(16):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(2 << 20) for _ in range(2)]
    del blocks
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(sum(faults[4:]))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has this setting")
def test_freed_blocks_are_used_again_without_page_faults() -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    faults = {}
    for mode in ("keep", "return"):
        command = [sys.executable, "-c", PROGRAM, mode]
        faults[mode] = int(
            subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=60).stdout
        )
    assert faults["return"] > 10_000
    assert faults["keep"] < faults["return"] / 3
