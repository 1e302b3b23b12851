"""Settings every test shares."""

from __future__ import annotations

import os

# Before torch is imported: two test processes on two cores must not fight over them.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")

from hypothesis import settings

settings.register_profile("clew", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("clew")


def pytest_sessionstart() -> None:
    """Compile the loops in another process if they never were here: what a process has compiled itself differs in
    rounding from what it loads from numba's cache, and runs are compared byte by byte."""
    import subprocess
    import sys
    import tempfile
    from pathlib import Path

    from clew.models import kernels

    if any((Path(kernels.__file__).parent / "__pycache__").glob(f"*{kernels._digest()}*.nbi")):
        return
    words = (
        "import sys, pathlib; sys.path.insert(0, sys.argv[1]); from test_speedrun import arguments; "
        "from clew import cli; cli.main(arguments(pathlib.Path(sys.argv[2])))"
    )
    recipes = Path(__file__).parent / "recipes"
    with tempfile.TemporaryDirectory() as room:
        subprocess.run([sys.executable, "-c", words, recipes, f"{room}/run"], check=True, capture_output=True)
