"""The first process on a machine, which compiles the loops, computes bit for bit what later ones do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

WORK = ("samples", "gradient", "matrices", "alone")


def process(cache: Path, *words: str) -> dict[str, object]:
    """What `loops_at_work.py` tells of `words`, with the compiled loops in `cache`."""
    told = os.environ | {"NUMBA_CACHE_DIR": str(cache)}
    command = [sys.executable, str(Path(__file__).with_name("loops_at_work.py")), *words]
    done = subprocess.run(command, env=told, check=True, capture_output=True, text=True)
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_compiled_or_loaded_in_whatever_order_the_loops_compute_the_same(tmp_path: Path) -> None:
    first = process(tmp_path, *WORK, "symbols")
    assert any(tmp_path.rglob("*.nbc"))
    assert first.pop("symbols") == [], "a loop that others call is `inlined`"
    assert process(tmp_path, *WORK) == first
    assert process(tmp_path, *reversed(WORK)) == first
